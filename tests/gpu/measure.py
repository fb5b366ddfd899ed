"""Proves and measures stic on a GPU, against PyTorch on the same card and in the same run.

    tests/gpu/run.sh                        all parts, about a quarter of an hour on an H100
    tests/gpu/run.sh decode                 one part; parts can be named in any number
    tests/gpu/run.sh --size tiny --device cpu    every part in small, anywhere; times mean nothing then
    tests/gpu/run.sh report                 the table and report.json of what is there
    tests/gpu/run.sh pack STIC [TESTS]      compresses binaries into target/gpu-bin, to be taken to such a machine

Parts, in their order:

    check      what is there and what is missing: the program, torch, transformers, peft, driver, NVRTC, headers
    devices    `stic devices`, and its own test where this build has one
    parity     tokens, scores and training steps of the fixtures of tests/reference; packed tests, if there are any
    weights    a checkpoint of the shapes of LLaVA-v1.6-Mistral-7B with random weights, 15 GB of disk
    prefill    2,944 positions: the share of what matrix products reach on this card
    decode     one row and 32 rows: the share of what its memory's bandwidth allows
    describe   32 pictures, three prompts each
    dpo, sft   a training step, the second with dropout
    vllm       descriptions once more by vLLM, if it is installed

A part has a time limit of its own (--limit); one that is done is not repeated unless the program is another or --again
is given, so a run that was cut off goes on where it was. Results are JSON files in target/gpu/SIZE-DEVICE/results.

The program: --stic, or $STIC, or the newer of target/gpu-bin/stic.xz and target/release/stic. NVRTC and CUDA's headers
are looked for in $CUDA_PATH, $CUDA_HOME, /usr/local/cuda* and beside PyTorch.

Exit codes: 0 all parts ended well and no goal was missed; 1 a part failed, was wrong or was cut off; 2 only goals were
missed; 64 something is missing or asked for wrongly.
"""

import argparse
import contextlib
import hashlib
import json
import lzma
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import parts
from size import Failed, GIB, NEED_WEIGHTS, PACKED, PARTS, ROOT, SIZES
from stic_side import Setting

# The goals, at full size: what of a part's values, whether more or less is wanted, and how much.
GOALS = [
    ("describe", "ratio", ">=", 2.0, "descriptions, three prompts a picture"),
    ("describe", "memory_ratio", "<=", 0.7, "descriptions, memory"),
    ("dpo", "ratio", ">=", 1.3, "DPO step"),
    ("dpo", "memory_ratio", "<=", 0.7, "DPO, memory"),
    ("sft", "ratio", ">=", 1.0, "SFT step with dropout"),
    ("sft", "memory_ratio", "<=", 0.7, "SFT, memory"),
    ("decode", "one_row.share", ">=", 0.4, "decode, 1 row: share of the bandwidth's floor"),
    ("decode", "many_rows.share", ">=", 0.4, "decode, 32 rows: share of the bandwidth's floor"),
    ("prefill", "share", ">=", 0.4, "prefill: share of the peak of matrix products"),
]


def result_file(setting, part):
    return setting.results / f"{part}.json"


def read_result(setting, part):
    try:
        return json.loads(result_file(setting, part).read_text())
    except (OSError, ValueError):
        return None


def write_result(setting, part, result):
    setting.results.mkdir(parents=True, exist_ok=True)
    new = result_file(setting, part).with_suffix(".new")
    new.write_text(json.dumps(result, indent=1) + "\n")
    new.replace(result_file(setting, part))


def digest(file):
    with contextlib.suppress(OSError), open(file, "rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()[:16]
    return None


def inside(setting, part):
    """Runs a part in this process, and keeps what it finds as it finds it."""
    result = {"part": part, "state": "running", "values": {}}

    def keep(**values):
        result["values"].update(values)
        write_result(setting, part, result)

    keep()
    began = time.monotonic()
    try:
        getattr(parts, part)(setting, keep)
        result["state"] = "done"
    except Failed as failure:
        result |= {"state": "failed", "error": str(failure)}
    except Exception as error:
        import traceback

        result |= {"state": "failed", "error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
    result["seconds"] = time.monotonic() - began
    write_result(setting, part, result)
    return 0 if result["state"] == "done" else 1


def start(setting, part, options, program):
    """Runs a part in a process of its own, and ends it and all that it started when its time is over."""
    print(f"== {part}")
    command = [sys.executable, "-u", __file__, part, "--inside", part, *options]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        process.wait(timeout=setting.options.limit)
        state = None
    except subprocess.TimeoutExpired:
        state = "timed out"
    except KeyboardInterrupt:
        state = "interrupted"
    # Whatever is left of it, too: a part that crashes leaves nothing on the card.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        if state:
            time.sleep(5)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    result = read_result(setting, part) or {"part": part, "values": {}}
    if state or result.get("state") in (None, "running"):
        result |= {"state": state or f"ended with {process.returncode}"}
    result |= {"program": program, "limit": setting.options.limit}
    write_result(setting, part, result)
    end = f" after {result['seconds']:.0f} s" if "seconds" in result else ""
    print(f"  {result['state']}{end}" + (f": {result['error']}" if "error" in result else ""))
    if state == "interrupted":
        sys.exit(130)
    return result


def value_of(result, path):
    value = (result or {}).get("values", {})
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def report(setting):
    """The table, and report.json. Gives how many goals were missed."""
    results = {part: read_result(setting, part) for part in PARTS}
    results = {part: result for part, result in results.items() if result}
    at_size = setting.options.size == "7b" and setting.on_cuda
    lines, goals = [], []
    heads = [f"{'stic':>12}", f"{'PyTorch':>12}", f"{'ratio':>7}", f"{'stic':>10}", f"{'PyTorch':>10}", f"{'ratio':>6}"]
    lines.append(" ".join([f"{'part':9} {'state':10}", *heads]))
    for part, result in results.items():
        rows = [(part, result["values"])]
        if part == "decode":
            both_rows = [(1, "one_row"), (setting.size["rows"], "many_rows")]
            rows = [(f"decode {count}", result["values"].get(key, {})) for count, key in both_rows]
        for name, values in rows:
            line = f"{name:9} {result['state']:10}"
            if "ratio" in values:
                ours, theirs = (statistics.median(values[f"{side}_seconds"]) for side in ("stic", "torch"))
                memory = [values["memory"][side] / GIB for side in ("stic", "torch")]
                line += f" {ours:10.4f} s {theirs:10.4f} s {values['ratio']:6.2f}x"
                line += f" {memory[0]:6.2f} GiB {memory[1]:6.2f} GiB {values['memory_ratio']:5.2f}x"
            lines.append(line)
            if "unlike" in values:
                lines.append(f"{'':20} not the same work: {values['unlike']}")
            if "share" in values:
                lines.append(f"{'':20} of the roofline: {values['share']:.1%}, PyTorch {values['torch_share']:.1%}")
    lines += ["", f"{'goal':58} {'wanted':>8} {'found':>8}"]
    for part, path, sign, wanted, name in GOALS:
        found = value_of(results.get(part), path)
        met = None if found is None else found >= wanted if sign == ">=" else found <= wanted
        said = "-" if met is None else "met" if met else "missed"
        goals.append({"goal": name, "wanted": f"{sign} {wanted}", "found": found, "met": met if at_size else None})
        shown = "-" if found is None else f"{found:.2f}"
        lines.append(f"{name:58} {sign + ' ' + str(wanted):>8} {shown:>8}  {said if at_size else 'not at this size'}")
    print("\n".join(lines))
    setting.results.mkdir(parents=True, exist_ok=True)
    whole = {"size": setting.options.size, "device": setting.device, "parts": results, "goals": goals}
    (setting.results / "report.json").write_text(json.dumps(whole, indent=1) + "\n")
    (setting.results / "report.txt").write_text("\n".join(lines) + "\n")
    print(f"\n{setting.results / 'report.json'}")
    return sum(goal["met"] is False for goal in goals)


def pack(files):
    """Strips and compresses the program, and test programs if any."""
    PACKED.mkdir(parents=True, exist_ok=True)
    for number, file in enumerate(map(Path, files)):
        name = "stic" if number == 0 else f"{number}-tests"
        stripped = PACKED / name
        shutil.copyfile(file, stripped)
        if shutil.which("strip"):
            subprocess.run(["strip", stripped], check=True)
        with open(stripped, "rb") as source, lzma.open(PACKED / f"{name}.xz", "wb", preset=9) as target:
            shutil.copyfileobj(source, target)
        stripped.unlink()
        if number:
            (PACKED / f"{name}.root").write_text(f"{ROOT}\n")
        size = (PACKED / f"{name}.xz").stat().st_size
        print(f"{PACKED / name}.xz: {size / 1e6:.1f} MB")
        if size >= 40e6:
            print(f"  that is more than 40 MB; build with fewer backends: --features cuda")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="tests/gpu/run.sh [PART…] [OPTIONS]",
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="what to run; all parts without any")
    parser.add_argument("--size", choices=SIZES, default="7b")
    parser.add_argument("--device", default="cuda", help="as stic names it: cuda, cuda:1, webgpu, cpu")
    parser.add_argument("--stic", help="the program")
    parser.add_argument("--work", help="where weights and results are kept; target/gpu")
    parser.add_argument("--limit", type=int, default=520, help="seconds that a part may take; 520")
    parser.add_argument("--again", action="store_true", help="repeat parts that are done")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.parts[:1] == ["pack"]:
        if not options.parts[1:]:
            parser.error("pack takes the program, and test programs behind it")
        return pack(options.parts[1:])
    unknown = [part for part in options.parts if part not in [*PARTS, "report"]]
    if unknown:
        sys.exit(print(f"unknown part {unknown[0]}; there are {', '.join(PARTS)}, report, pack", file=sys.stderr) or 64)
    # The order in which NVML counts.
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    # Asked to stop, a part's processes are stopped, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143) if options.inside else signal.raise_signal(signal.SIGINT))
    setting = Setting(options).use()
    if options.inside:
        return inside(setting, options.inside)

    chosen = [part for part in PARTS if part in options.parts] if options.parts else PARTS
    if any(part in NEED_WEIGHTS for part in chosen) and not (setting.model / "made.json").exists():
        chosen = [part for part in PARTS if part in chosen or part == "weights"]
    program, failed = digest(setting.stic_file), []
    passed_on = [word for name in ("size", "device", "stic", "work", "limit") for word in option(options, name)]
    for part in chosen:
        known = read_result(setting, part)
        same = known and known["state"] == "done" and (known.get("program") == program or part == "weights")
        if same and not options.again and part != "check":
            print(f"== {part}\n  done before")
            continue
        result = start(setting, part, passed_on, program)
        if result["state"] != "done":
            failed.append(part)
            if part == "check":
                return 64
            if part in ("devices", "weights"):
                print(f"without {part} the other parts mean nothing")
                return 1
    print()
    missed = report(setting)
    return 1 if failed else 2 if missed else 0


def option(options, name):
    value = getattr(options, name)
    return [] if value is None else [f"--{name}", str(value)]


if __name__ == "__main__":
    sys.exit(main())
