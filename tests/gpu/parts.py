"""The parts: what is proven, and what is measured on both sides."""

import ctypes
import json
import math
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from cuda import compile_with_nvrtc, find_cuda
from size import Failed, GIB, PACKED, PATCH, ROOT, decode_bytes, linear_parameters, prefill_flop
from torch_side import TorchProcess, rendered
from stic_side import unpacked

def check(setting, keep):
    missing, found = [], {}
    for name, why in [
        ("torch", "the other side of every comparison"),
        ("transformers", "it runs the model in PyTorch"),
        ("peft", "it trains adapters in PyTorch"),
        ("PIL", "it reads pictures in Python (the package is called pillow)"),
        ("tokenizers", "it makes the tokenizer"),
        ("torchvision", "transformers prepares pictures with it"),
    ]:
        try:
            found[name] = getattr(__import__(name), "__version__", "?")
        except Exception as error:
            missing.append(f"Python package {name}, in {sys.executable}: {why} ({type(error).__name__}: {error})")
    try:
        version = subprocess.run([setting.stic_file, "--version"], capture_output=True, text=True)
        if version.returncode:
            raise OSError(version.stderr.strip())
        found["stic"] = version.stdout.strip()
    except OSError as error:
        missing.append(f"the program {setting.stic_file}: {error}; see `pack`, or set STIC")
    if setting.on_cuda:
        check_cuda(found, missing)
    model_bytes = 2 * sum(linear_parameters(setting.size)) * 1.1
    setting.work.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(setting.work).free
    if not (setting.model / "made.json").exists() and free < model_bytes:
        wanted = f"{model_bytes / GIB:.0f} GiB of disk under {setting.work} for the weights"
        missing.append(f"{wanted}; {free / GIB:.0f} are free")
    for name, value in found.items():
        print(f"  {name}: {value}")
    for line in missing:
        print(f"  missing: {line}")
    keep(found=found, missing=missing)
    if missing:
        raise Failed(f"{len(missing)} missing")


def check_cuda(found, missing):
    try:
        query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
        found["cards"] = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        missing.append(f"an NVIDIA card, or its driver: nvidia-smi does not run ({error})")
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        missing.append(f"the driver's library: {error}")
    if "torch" in found:
        import torch

        if not torch.cuda.is_available():
            missing.append(f"CUDA in PyTorch {torch.__version__}: it sees no card")
    places = "in $CUDA_PATH, $CUDA_HOME, /usr/local/cuda* and the packages beside PyTorch"
    cuda = find_cuda()
    if cuda.nvrtc:
        found["nvrtc"] = str(cuda.nvrtc)
    else:
        missing.append(f"NVRTC: no libnvrtc.so {places}; it compiles kernels (pip: nvidia-cuda-nvrtc)")
    if cuda.headers:
        found["headers"] = str(cuda.headers / "include")
    else:
        missing.append(f"CUDA's headers: none {places}; kernels need {', '.join(HEADERS)}")
    if cuda.nvrtc and cuda.headers:
        try:
            against = compile_with_nvrtc(cuda.nvrtc, cuda.headers)
        except OSError as error:
            against = str(error)
        if against:
            missing.append(f"a header or a fitting NVRTC: {cuda.nvrtc} with {cuda.headers}/include says: {against}")


def devices(setting, keep):
    said = setting.stic("devices", "--json")
    keep(devices=[{key: value for key, value in found.items() if key != "at"} for found in said.objects])
    family, _, index = setting.device.partition(":")
    mine = [found for found in said.objects if found["backend"] == family and found.get("index") == int(index or 0)]
    if not mine or mine[0].get("problem"):
        reasons = [found.get("problem") for found in said.objects if found["backend"] == family]
        raise Failed(f"`stic devices` has no usable {setting.device}: {reasons}")
    print(f"  {setting.device}: {mine[0]['name']}, {', '.join(mine[0]['dtypes'])}")
    def quietly(*arguments):
        command = [setting.stic_file, "devices", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=setting.environment)

    if "--test" in quietly("--help").stdout:
        test = quietly("--test")
        said = (test.stdout + test.stderr).strip()
        keep(test={"code": test.returncode, "said": said[-4000:]})
        if test.returncode:
            raise Failed(f"`stic devices --test` ended with {test.returncode}: {said[-1500:]}")


# By how many nats a response's log-probability, about -100, may differ. On the CPU it is 0.00001, 0.008 and 0.1; a
# product in f32 may go through TF32 on a card, which has the precision of f16.
SCORE_TOLERANCE = {"f32": 0.05, "f16": 0.05, "bf16": 0.5}


def parity(setting, keep):
    """The fixtures: what transformers wrote and scored, and what training steps on the CPU come to."""
    wrong, compared = [], 0
    dtypes = next(
        found["dtypes"]
        for found in setting.stic("devices", "--json").objects
        if found["backend"] == setting.device.partition(":")[0] and "dtypes" in found
    )
    reference = ROOT / "tests/reference"
    for name in ["llava", "llava_next"]:
        folder = reference / name
        facts = json.loads((folder / "expected.json").read_text())
        common = ["--model", folder, "--device", setting.device, "--template", "none", "--json"]
        ask = ["--prompt", facts["question"], "--max-new-tokens", 16, "--dtype", "f32"]
        pictures = list(facts["pictures"])
        files = [reference / "pictures" / f"{picture}.png" for picture in pictures]
        answers = setting.stic("generate", *common, *ask, "--image", *files).objects
        expected = [(picture, facts["pictures"][picture]["written"]) for picture in pictures]
        square = reference / "pictures/square.png"
        answers += setting.stic("generate", *common, *ask, "--image", square, "--adapter", folder / "adapter").objects
        expected.append(("square, with an adapter", facts["adapter_greedy"]))
        for (what, tokens), answer in zip(expected, answers, strict=True):
            compared += 1
            if answer["tokens"] != tokens:
                wrong.append(f"{name}, {what}: tokens {answer['tokens']}, transformers {tokens}")
        lines = [
            {"image": str(square), "prompt": facts["question"], "response": facts[side] + "</s>"}
            for side in ("chosen", "rejected")
        ]
        setting.work.mkdir(parents=True, exist_ok=True)
        scored = setting.work / "scored.jsonl"
        scored.write_text("".join(json.dumps(line) + "\n" for line in lines))
        keep(compared=compared, wrong=wrong)
        # The other dtypes once: a process may have kernels to compile.
        for dtype in dtypes if name == "llava_next" else ["f32"]:
            scores = setting.stic("score", *common, "--dtype", dtype, "--input", scored).objects
            for side, score, fact in zip(("chosen", "rejected"), scores, facts["reference_logprobs"], strict=True):
                compared += 1
                apart = abs(score["logprob"] - fact)
                keep(**{f"apart {name} {side} {dtype}": apart})
                if not apart <= SCORE_TOLERANCE[dtype]:
                    wrong.append(f"{name}, {side} in {dtype}: {score['logprob']:.3f} nats, transformers {fact:.3f}")
    for kind in ["dpo", "sft"]:
        compared += 1
        logs = [fixture_training(setting, kind, device) for device in ("cpu", setting.device)]
        for ours, theirs in zip(*logs, strict=True):
            for key in ("loss", "gradient_norm"):
                if not math.isclose(ours[key], theirs[key], rel_tol=1e-2):
                    wrong.append(f"{kind}, step {ours['step']}: {key} {theirs[key]:.5f}, on the CPU {ours[key]:.5f}")
        keep(**{kind: {"cpu": logs[0], setting.device: logs[1]}}, compared=compared, wrong=wrong)
    for packed in sorted(PACKED.glob("*-tests.xz")):
        compared += 1
        wrong += packed_tests(setting, packed, keep)
    keep(compared=compared, wrong=wrong)
    print(f"  {compared} comparisons, {len(wrong)} wrong")
    for line in wrong:
        print(f"  wrong: {line}")
    if wrong:
        raise Failed(f"{len(wrong)} of {compared} comparisons are wrong, the first: {wrong[0]}")


def fixture_training(setting, kind, device):
    """The log of three steps on a fixture, in f32."""
    reference = ROOT / "tests/reference"
    names = ["square", "tall", "wide"]
    folder = setting.pipeline(f"fixture-{kind}-{device.partition(':')[0]}", "")
    common = {"prompt": "What is shown?", "rejected": "A ring."}
    rows = [common | {"image": f"{name}.png", "chosen": f"A red circle is left of {name}."} for name in names]
    write_examples(folder, kind, rows)
    text = f"[pipeline]\nname = '{kind}'\nlanguage = 1\n[device]\nbackend = '{device}'\ndtype = 'f32'\n"
    text += f"[models.base]\nsource = '{reference / 'llava_next'}'\n"
    text += training(kind, reference / "pictures", 2, 1, 1e-3, lora="rank = 4, alpha = 8") + "epochs = 3\n"
    (folder / "pipeline.toml").write_text(text)
    setting.run(folder)
    return exported_log(setting, folder)


def write_examples(folder, kind, rows):
    if kind == "sft":
        rows = [
            {
                "id": str(number),
                "image": row["image"],
                "conversations": [
                    {"from": "human", "value": f"<image>\n{row['prompt']}"},
                    {"from": "gpt", "value": row["chosen"]},
                ],
            }
            for number, row in enumerate(rows)
        ]
    (folder / "examples.json").write_text(json.dumps(rows))


def training(kind, pictures, batch, micro, rate, lora):
    """A node that trains on `examples.json`, in its order; `micro` examples at a time if it says so."""
    port = "pairs" if kind == "dpo" else "conversations"
    text = f"[nodes.trained]\nkind = '{kind}'\nmodel = 'base'\n"
    text += f"inputs.{port} = {{ file = 'examples.json', images = '{pictures}' }}\n"
    text += f"learning_rate = {rate}\nschedule = 'constant'\nwarmup_ratio = 0.0\nshuffle = false\n"
    text += f"batch_size = {batch}\nlora = {{ {lora} }}\n"
    return text + (f"micro_batch_size = {micro}\n" if micro else "")


def exported_log(setting, folder):
    out = folder / "out"
    setting.stic("export", folder / "pipeline.toml", "trained", out, "--cache", folder / "cache")
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def packed_tests(setting, packed, keep):
    """Runs a test program on the device. It looks for fixtures in the folder that it was built in."""
    program = unpacked(packed)
    built = packed.with_name(packed.name.replace(".xz", ".root"))
    root = Path(built.read_text().strip()) if built.exists() else ROOT
    if not root.exists():
        root.parent.mkdir(parents=True, exist_ok=True)
        root.symlink_to(ROOT)
        print(f"  {root} is now a link to {ROOT}: {packed.name} was built there and reads its fixtures there")
    environment = setting.environment | {"STIC_TEST_DEVICE": setting.device, "CARGO_MANIFEST_DIR": str(root)}
    command = [program, "--test-threads", "1"]
    said = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=root, timeout=max(setting.left(), 1)
    )
    summary = re.findall(r"^test result: .*$", said.stdout, re.MULTILINE)
    keep(**{packed.stem: {"code": said.returncode, "summary": summary, "end": said.stdout[-4000:]}})
    print(f"  {packed.stem}: {' '.join(summary) or said.stderr[-300:]}")
    return [f"{packed.stem} ended with {said.returncode}: {' '.join(summary)}"] if said.returncode else []


def weights(setting, keep):
    if not (setting.model / "made.json").exists():
        shutil.rmtree(setting.model, ignore_errors=True)
        setting.model.mkdir(parents=True)
        files = [ROOT / "README.md", ROOT / "src/data/prompts.rs"]
        words = [word for file in files for word in file.read_text().replace("<image>", "").split()]
        made = TorchProcess(setting).call("make_weights", words=words + ["[INST]", "[/INST]"] * 100)
        make_pictures(setting)
        (setting.model / "made.json").write_text(json.dumps(made))
    made = json.loads((setting.model / "made.json").read_text())
    files = sorted(setting.model.glob("*.safetensors"))
    size = sum(file.stat().st_size for file in files)
    keep(parameters=made["parameters"], bytes=size, shards=len(files))
    print(f"  {made['parameters'] / 1e6:.1f} million parameters in {len(files)} shards, {size / 1e9:.2f} GB")


def make_pictures(setting):
    """Squares of which all tiles are full: the longest prompts that a picture makes. And the photographs."""
    import numpy
    from PIL import Image

    draws = numpy.random.default_rng(1)
    squares, photographs = setting.work / "squares", setting.work / "photographs"
    for folder in (squares, photographs):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    side = 2 * setting.size["tile"]
    for number in range(max(setting.size["rows"], 6)):
        coarse = Image.fromarray(draws.integers(0, 256, (12, 12, 3), dtype=numpy.uint8))
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(squares / f"{number:02}.png")
    found = sorted((ROOT / "examples/photos").glob("*/*.jpg"))[: setting.size["pictures"]]
    for number, file in enumerate(found):
        shutil.copyfile(file, photographs / f"{number:02}.jpg")


# Longer ones would not leave room for 2,928 image tokens in 2,944 positions.
SHORT = ["Describe the image.", "Explain the picture."]


def both(torch, setting):
    """Loads the model in PyTorch, and says with what."""
    loaded = torch.call("load")
    return {"torch": {key: loaded[key] for key in ("attention", "device", "dtype")}, "dtype": setting.dtype}


def prefill(setting, keep):
    torch, size = TorchProcess(setting), setting.size
    keep(**both(torch, setting))
    peaks = torch.call("peaks")
    keep(peak_flops=peaks["flops"])
    squares = sorted((setting.work / "squares").glob("*.png"))[: size["rounds"] + 1]
    options = ["--model", setting.model, "--device", setting.device, "--dtype", setting.dtype, "--json"]
    ours, theirs, most = [], [], {"stic": 0, "torch": 0}
    for turn in range(2):
        called = torch.call("prefill", picture=str(squares[0]), prompt=SHORT[0], rounds=size["rounds"])
        theirs += called["seconds"]
        most["torch"] = called["memory"]
        torch.call("free")
        said = setting.stic("generate", *options, "--max-new-tokens", 1, "--prompt", SHORT[0], "--image", *squares)
        if len(said.objects) < 2:
            raise Failed("no time was left for a second prompt")
        seconds = [answer["seconds"]["prefill"] for answer in said.objects]
        keep(**{f"first_of_run_{turn + 1}": seconds[0]})
        ours += seconds[1:]
        most["stic"] = said.memory
        # The tiles, and the whole picture.
        flop = prefill_flop(size, called["positions"], called["views"], (size["tile"] // PATCH) ** 2)
        compare(keep, ours, theirs, most)
        keep(
            positions=called["positions"], stic_positions=said.objects[0]["input_tokens"], flop=flop,
            share=flop / statistics.median(ours) / peaks["flops"],
            torch_share=flop / statistics.median(theirs) / peaks["flops"],
        )  # fmt: skip
        same_work(keep, said.objects[0]["input_tokens"], called["positions"], "positions of the prompt")
        if said.stopped:
            break


def compare(keep, ours, theirs, memory):
    """Seconds of both sides and their ratio, above 1 when stic is the faster; bytes and their ratio."""
    keep(
        stic_seconds=ours, torch_seconds=theirs, ratio=statistics.median(theirs) / statistics.median(ours),
        memory=dict(memory), memory_ratio=memory["stic"] / memory["torch"],
    )  # fmt: skip


def same_work(keep, ours, theirs, what, tolerance=0.0):
    """That both sides did the same. What is compared otherwise is not worth much, and the report says so."""
    if not math.isclose(ours, theirs, rel_tol=tolerance):
        keep(unlike=f"{what}: stic {ours:.6g}, PyTorch {theirs:.6g}")


def decode(setting, keep):
    torch, size = TorchProcess(setting), setting.size
    keep(**both(torch, setting))
    peaks = torch.call("peaks")
    keep(peak_bytes_per_second=peaks["bytes_per_second"])
    squares = [str(path) for path in sorted((setting.work / "squares").glob("*.png"))]
    steps, many = size["decoded"] - 1, size["rows"]
    ours, theirs, most = {1: [], many: []}, {1: [], many: []}, {}
    options = ["--model", setting.model, "--device", setting.device, "--dtype", setting.dtype, "--json"]
    for turn in range(2):
        for rows in (1, many):
            memory = most.setdefault(rows, {})
            called = torch.call("decode", pictures=squares[:rows], prompt=SHORT[0], tokens=size["decoded"], rounds=2)
            theirs[rows] += [seconds / steps for seconds in called["seconds"]]
            memory["torch"] = called["memory"]
            torch.call("free")
            if rows == 1:
                ask = ["--max-new-tokens", size["decoded"], "--prompt", SHORT[0], "--image", *squares[:3]]
                said = setting.stic("generate", *options, *ask)
                answers = said.objects[1:]
                ours[1] += [answer["seconds"]["decode"] / (len(answer["tokens"]) - 1) for answer in answers]
                if said.objects:
                    positions = said.objects[0]["input_tokens"] + steps / 2
                    pairs = zip(said.objects[0]["tokens"], called["tokens"])
                    same = next((place for place, (a, b) in enumerate(pairs) if a != b), steps + 1)
                    keep(tokens_alike_until=same)
            else:
                said = decode_rows(setting, turn)
                nodes = said.nodes()
                paces = [nodes[name]["seconds_per_token"] for name in ("first", "second") if name in nodes]
                ours[rows] += [rows * pace for pace in paces if pace]
            memory["stic"] = said.memory
            if not ours[rows]:
                raise Failed(f"no time was left to decode {rows} rows")
            # A step cannot be faster than the bytes that it reads. The bandwidth is that of a copy.
            floor = decode_bytes(size, rows, positions, setting.width) / peaks["bytes_per_second"]
            found = {}
            compare(lambda **values: found.update(values), ours[rows], theirs[rows], memory)
            found |= {
                "positions": positions, "floor_seconds": floor, "share": floor / statistics.median(ours[rows]),
                "torch_share": floor / statistics.median(theirs[rows]),
                "tokens_per_second": rows / statistics.median(ours[rows]),
                "torch_tokens_per_second": rows / statistics.median(theirs[rows]),
            }  # fmt: skip
            keep(**{"one_row" if rows == 1 else "many_rows": found})
            if said.stopped:
                raise Failed("the time was over before all rounds were done")


def decode_rows(setting, turn):
    """Many prompts in one batch, three times; the first time warms up."""
    many = setting.size["rows"]
    text = f"[nodes.images]\nkind = 'sample'\nfrom = '{setting.work / 'squares'}'\ncount = {many}\n"
    for name, prompt in [("warm", "Describe the photo."), ("first", SHORT[0]), ("second", SHORT[1])]:
        text += response(name, "images", [prompt], setting.size["decoded"], temperature=0.0, batch=many)
    return setting.run(setting.pipeline(f"decode-{turn}", text))


def response(name, images, prompts, tokens, temperature, batch=None, seed=None):
    prompts = json.dumps(prompts) if isinstance(prompts, list) else f"'{prompts}'"
    text = f"[nodes.{name}]\nkind = 'describe'\ninputs.images = '{images}'\nmodel = 'base'\nprompts = {prompts}\n"
    text += f"max_new_tokens = {tokens}\ntemperature = {temperature}\n"
    text += f"batch_size = {batch}\n" if batch else ""
    return text + (f"seed = {seed}\n" if seed else "")


# The prompts of which stages 1 and 2 ask each picture one, written out: what is drawn depends on the picture.
THREE = [
    "Illustrate the details of the picture.",
    "Detail the composition and subjects within the frame.",
    "Describe the image with imaginative objects that may exist in the scene.",
]


def describe(setting, keep):
    torch, size = TorchProcess(setting), setting.size
    keep(**both(torch, setting))
    photographs = [str(path) for path in sorted((setting.work / "photographs").glob("*.jpg"))]
    asked = dict(pictures=photographs, prompts=THREE, tokens=size["answer"], temperature=0.2)
    torch.call("describe", **asked | {"tokens": 2})
    theirs = [torch.call("describe", **asked)]
    torch.call("free")
    # The first node loads the model. Of those that follow, the second round is what a long run is like.
    text = f"[nodes.one]\nkind = 'sample'\nfrom = '{setting.work / 'photographs'}'\ncount = 1\n"
    text += response("loads", "one", ["What?"], 1, temperature=0.0)
    text += f"[nodes.images]\nkind = 'sample'\nfrom = '{setting.work / 'photographs'}'\n"
    for turn in (1, 2):
        for number, prompt in enumerate(THREE):
            text += response(f"round{turn}_{number}", "images", [prompt], size["answer"], temperature=0.2, seed=turn)
    said = setting.run(setting.pipeline("describe", text))
    nodes = said.nodes()
    rounds = [[nodes.get(f"round{turn}_{number}") for number in range(3)] for turn in (1, 2)]
    rounds = [round for round in rounds if all(round)]
    if not rounds:
        raise Failed(f"the time was over before all three prompts were answered; what was done: {nodes}")
    seconds = [sum(node["seconds"] for node in round) for round in rounds]
    tokens = sum(node["tokens"] for node in rounds[-1])
    keep(stic_first_round_seconds=seconds[0], rounds=len(rounds), load_seconds=nodes["loads"]["seconds"])
    same_work(keep, tokens, theirs[0]["tokens"], "tokens written", tolerance=0.02)

    def keep_all():
        most = {"stic": said.memory, "torch": max(called["memory"] for called in theirs)}
        compare(keep, seconds[-1:], [called["seconds"] for called in theirs], most)
        answered = len(photographs) * len(THREE)
        times = [called["seconds"] for called in theirs]
        keep(
            answers=answered, answers_per_second=answered / seconds[-1],
            torch_answers_per_second=answered / statistics.median(times), tokens_per_second=tokens / seconds[-1],
        )  # fmt: skip

    keep_all()
    if setting.left() > 1.5 * theirs[0]["seconds"]:
        theirs.append(torch.call("describe", **asked))
        keep_all()


def train(setting, keep, kind):
    size = setting.size
    photographs = sorted((setting.work / "photographs").glob("*.jpg"))
    draws = random.Random(3)
    words = sorted({word for word in (ROOT / "README.md").read_text().split() if word.isalpha()})
    say = lambda: " ".join(draws.choice(words) for _ in range(draws.randint(size["words"] // 2, size["words"])))
    batch, steps = size["pairs" if kind == "dpo" else "examples"], size["steps"]
    # Every step sees the same examples, in the same order on both sides.
    shown = [photographs[number % len(photographs)] for number in range(batch)]
    rows = [{"image": path.name, "prompt": THREE[0], "chosen": say(), "rejected": say()} for path in shown]
    sides = ("chosen", "rejected") if kind == "dpo" else ("chosen",)
    examples = [(str(path), row["prompt"], [row[side] for side in sides]) for path, row in zip(shown, rows)]
    dropout = 0.05 if kind == "sft" else 0.0

    torch = TorchProcess(setting)
    keep(**both(torch, setting))
    torch.call("prepare_training", rank=size["rank"], dropout=dropout)
    variants = {
        "recompute": dict(recompute=True, at_once=batch),
        "recompute, a quarter at once": dict(recompute=True, at_once=max(1, batch // 4)),
        "keep all, one at once": dict(recompute=False, at_once=1),
    }
    tried = {}
    for name, variant in variants.items():
        try:
            tried[name] = torch.call("train", kind=kind, examples=examples, steps=steps, **variant)
        except Failed as failure:
            tried[name] = {"failed": str(failure)}
        keep(torch_variants=tried)
        torch.call("free")
        # Half of the time is stic's.
        if setting.left() < setting.options.limit / 2:
            break
    done = {name: result for name, result in tried.items() if "seconds" in result}
    if not done:
        raise Failed(f"PyTorch trained in no way: {tried}")
    best = min(done, key=lambda name: statistics.median(done[name]["seconds"]))
    theirs = done[best]
    keep(torch_variant=best)

    folder = setting.pipeline(kind, "")
    write_examples(folder, kind, rows)
    lora = f"rank = {size['rank']}, alpha = {2 * size['rank']}, dropout = {dropout}"
    text = (folder / "pipeline.toml").read_text()
    text += training(kind, setting.work / "photographs", batch, None, 1e-5, lora) + f"epochs = {steps + 2}\n"
    (folder / "pipeline.toml").write_text(text)
    said = setting.run(folder)
    if said.stopped:
        # Steps end where their count rises.
        told = [event for event in said.objects if event.get("event") == "progress" and event.get("done")]
        ends = [event["at"] for event, before in zip(told, [{"done": 0}, *told]) if event["done"] > before["done"]]
        seconds = [after - before for before, after in zip(ends, ends[1:])][1:]
        if not seconds:
            raise Failed(f"stic took {len(ends)} steps before the time was over; three are needed")
        keep(stopped_after_steps=len(ends))
    else:
        log = exported_log(setting, folder)
        keep(stic_losses=[line["loss"] for line in log], stic_all_seconds=[line["seconds"] for line in log])
        seconds = [line["seconds"] for line in log[2:]]
        same_work(keep, log[0]["loss"], theirs["loss"], "loss of the first step", tolerance=0.02)
        keep(stic_positions=log[-1]["tokens"], torch_positions=theirs["positions"])
    times = list(theirs["seconds"])
    compare(keep, seconds, times, {"stic": said.memory, "torch": theirs["memory"]})
    if setting.left() > 2 * (steps + 1) * max(times):
        called = torch.call("train", kind=kind, examples=examples, steps=steps, **variants[best])
        compare(keep, seconds, times + called["seconds"], {"stic": said.memory, "torch": theirs["memory"]})


def dpo(setting, keep):
    train(setting, keep, "dpo")


def sft(setting, keep):
    train(setting, keep, "sft")


def vllm(setting, keep):
    try:
        import vllm as engine
    except ImportError:
        keep(skipped="vLLM is not installed")
        print("  vLLM is not installed")
        return
    from PIL import Image, ImageOps

    photographs = sorted((setting.work / "photographs").glob("*.jpg"))
    model = engine.LLM(model=str(setting.model), max_model_len=4096, limit_mm_per_prompt={"image": 1}, seed=0)
    images = [ImageOps.exif_transpose(Image.open(path)).convert("RGB") for path in photographs]
    requests = [
        {"prompt": rendered(prompt), "multi_modal_data": {"image": image}} for image in images for prompt in THREE
    ]
    sampling = engine.SamplingParams(temperature=0.2, top_k=50, max_tokens=setting.size["answer"], ignore_eos=True)
    model.generate(requests[:2], sampling)
    began = time.perf_counter()
    model.generate(requests, sampling)
    seconds = time.perf_counter() - began
    keep(version=engine.__version__, seconds=seconds, answers_per_second=len(requests) / seconds)
