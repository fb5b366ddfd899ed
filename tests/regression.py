#!/usr/bin/env python3
"""Runs pipelines with two builds of stic, each in a fresh cache, and compares what they made: keys and content.

    git worktree add /tmp/before HEAD~1
    (cd /tmp/before && cargo build --release --target-dir /tmp/before-target)
    cargo build --release
    tests/regression.py /tmp/before-target/release/stic target/release/stic

A refactoring leaves every line `same`. Ends with 1 when a node's key or content differs, after naming the fields of the
key that do. Without PIPELINE: the quick start and the photographs, about four minutes of two cores. The tests' pipelines
are compared, too, when the tests keep them; of one that fails, as some are meant to, what it made before that:

    mkdir /tmp/kept && TMPDIR=/tmp/kept STIC_KEEP_WORKSPACES=1 cargo test --release --test behaviour
    tests/regression.py OLD NEW /tmp/kept/.tmp*/*.toml
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
    """How `stic` ends on `pipeline`, and the records of its results by node."""
    command = [stic, "run", "--json", "--keep-going", "--cache", cache, pipeline]
    code = subprocess.run(command, capture_output=True, timeout=3600).returncode
    plan = subprocess.run([stic, "plan", "--json", "--cache", cache, pipeline], capture_output=True, text=True)
    nodes = [json.loads(line) for line in plan.stdout.splitlines()]
    records = {}
    for node in nodes:
        record = pathlib.Path(cache) / "results" / f"{node.get('key')}.json"
        if record.exists():
            records[node["node"]] = json.loads(record.read_text())["data"]
    return code, records


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
        with tempfile.TemporaryDirectory() as folder:
            (old_code, old), (new_code, new) = (
                results(stic, pipeline, f"{folder}/{name}")
                for name, stic in (("old", arguments.old), ("new", arguments.new))
            )
        print(f"{pipeline}: ends with {new_code}" + ("" if new_code == old_code else f", with {old_code} before"))
        differing += new_code != old_code
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
