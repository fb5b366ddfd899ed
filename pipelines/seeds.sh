#!/usr/bin/env bash
# Runs a pipeline with several seeds and prints the tables of each run: what one run shows may be its seed's luck.
#
#     pipelines/seeds.sh pipelines/quickstart.toml 42 43 44
#
# What does not depend on the seed (the base's greedy answers) is found in the cache from the second seed on. `STIC` is
# the program, by default `cargo run --release --`.
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: $0 PIPELINE SEED…" >&2; exit 64; }
file=$1
shift
for seed in "$@"; do
    # Beside the file: paths in it are relative to its directory.
    copy="${file%.toml}-seed-$seed.toml"
    trap 'rm -f "$copy"' EXIT
    sed "s/^seed = [0-9]*/seed = $seed/" "$file" > "$copy"
    grep -q "^seed = $seed\b" "$copy" || { echo "$file has no line \`seed = …\`" >&2; exit 1; }
    echo "seed $seed"
    ${STIC:-cargo run --release --quiet --} run "$copy" | awk '/^benchmark/ { shown = 1 } shown'
    rm -f "$copy"
done
