#!/usr/bin/env bash
# Proves and measures `stic` on a GPU, against PyTorch on the same card: see `tests/gpu/run.sh --help`.
# Needs no network. PYTHON names an interpreter that has torch, transformers and peft; `python3` if it is not set.
exec "${PYTHON:-python3}" -u "$(dirname "$0")/measure.py" "$@"
