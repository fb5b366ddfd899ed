#!/usr/bin/env python3
"""Runs pipelines with two builds of stic, each in a fresh cache, and compares what they made: keys and content.

    git worktree add /tmp/before HEAD~1
    (cd /tmp/before && cargo build --release --target-dir /tmp/before-target)
    cargo build --release
    tests/regression.py /tmp/before-target/release/stic target/release/stic

A refactoring leaves every line `same`. Ends with 1 when a node's key or content differs, after naming the fields of the
key that do. Without PIPELINE: the quick start and the photographs, about four minutes of two cores.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
PIPELINES = ["pipelines/quickstart.toml", "pipelines/photos.toml"]


def results(stic, pipeline, cache):
    """What `stic` makes of `pipeline`: the records of its results by node."""
    run = subprocess.run([stic, "run", "--json", "--cache", cache, pipeline], capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"{stic} run {pipeline} ended with {run.returncode}:\n{run.stderr[-2000:]}")
    plan = subprocess.run([stic, "plan", "--json", "--cache", cache, pipeline], capture_output=True, text=True)
    nodes = [json.loads(line) for line in plan.stdout.splitlines()]
    keys = {node["node"]: node["key"] for node in nodes if node.get("key")}
    folder = pathlib.Path(cache) / "results"
    return {node: json.loads((folder / f"{key}.json").read_text())["data"] for node, key in keys.items()}


def differences(old, new):
    """What differs between two records of one node, in words."""
    if old["key"] != new["key"]:
        old, new = (dict((name, value) for name, value in record["fields"]) for record in (old, new))
        names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
        yield from (f"key: {name}: {old.get(name)} → {new.get(name)}"[:200] for name in names)
    elif old["content"] != new["content"]:
        yield f"content: {old['content'][:12]} → {new['content'][:12]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", help="the binary to compare with")
    parser.add_argument("new", help="the binary in question")
    parser.add_argument("pipeline", nargs="*", default=[str(ROOT / name) for name in PIPELINES])
    arguments = parser.parse_args()
    differing = 0
    for pipeline in arguments.pipeline:
        with tempfile.TemporaryDirectory() as cache:
            old, new = (results(stic, pipeline, f"{cache}/{index}") for index, stic in enumerate([arguments.old, arguments.new]))
        print(pipeline)
        for node in {**old, **new}:
            if node not in old or node not in new:
                found = ["only the new build has it" if node not in old else "only the old build has it"]
            else:
                found = list(differences(old[node], new[node]))
            differing += bool(found)
            print(f"  {node:28} {'; '.join(found) or 'same'}")
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
