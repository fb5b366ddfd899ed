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
import ctypes
import gc
import glob
import hashlib
import json
import lzma
import math
import multiprocessing
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PACKED = ROOT / "target/gpu-bin"
PARTS = ["check", "devices", "parity", "weights", "prefill", "decode", "describe", "dpo", "sft", "vllm"]
NEED_WEIGHTS = PARTS[PARTS.index("weights") + 1 :]
GIB = 1 << 30

# What is computed. Shapes of `7b` are those of llava-hf/llava-v1.6-mistral-7b-hf.
SIZES = {
    "7b": dict(
        hidden=4096, intermediate=14336, layers=32, heads=32, cached_heads=8, vocabulary=32064, pieces=32000, tile=336,
        vision_hidden=1024, vision_intermediate=4096, vision_layers=24, vision_heads=16, shard="5GB",
        pictures=32, answer=256, decoded=129, rank=128, pairs=8, examples=16, words=150, steps=3, rounds=5, rows=32,
    ),
    "tiny": dict(
        hidden=64, intermediate=128, layers=2, heads=4, cached_heads=2, vocabulary=576, pieces=512, tile=112,
        vision_hidden=64, vision_intermediate=128, vision_layers=3, vision_heads=4, shard="300KB",
        pictures=4, answer=8, decoded=9, rank=4, pairs=2, examples=2, words=12, steps=2, rounds=2, rows=4,
    ),
}  # fmt: skip
PATCH = 14

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


class Failed(Exception):
    """A part cannot go on, and why."""


# ---- What the device has to do at least ----


def linear_parameters(size):
    """Of the decoder's layers, and of the head."""
    hidden, cached = size["hidden"], size["hidden"] // size["heads"] * size["cached_heads"]
    layer = 2 * hidden * hidden + 2 * hidden * cached + 3 * hidden * size["intermediate"]
    return size["layers"] * layer, hidden * size["vocabulary"]


def decode_bytes(size, rows, positions, width):
    """What a step reads: every weight of the decoder once, and the keys and values of all positions of every row."""
    cached = size["hidden"] // size["heads"] * size["cached_heads"]
    return width * (sum(linear_parameters(size)) + rows * positions * size["layers"] * 2 * cached)


def prefill_flop(size, positions, views, patches):
    """What a prompt takes. A product of n rows by a matrix of m values is 2 n m; of causal attention half of the square
    is counted; of the head one row; of the tower all layers but the last, which LLaVA leaves out."""
    layers, head = linear_parameters(size)
    attention = size["layers"] * 2 * positions**2 * size["hidden"]
    wide, seen = size["vision_hidden"], patches + 1
    tower_layer = 2 * seen * (4 * wide**2 + 2 * wide * size["vision_intermediate"]) + 4 * seen**2 * wide
    tower = views * (size["vision_layers"] - 1) * tower_layer
    projector = views * patches * 2 * (wide * size["hidden"] + size["hidden"] ** 2)
    return 2 * positions * layers + attention + 2 * head + tower + projector


# ---- The other side: PyTorch, in a process of its own ----


class Torch:
    """What the process of PyTorch does, a call a method. Times are seconds, and end when the device is done."""

    def __init__(self, folder, device, size):
        os.environ["HF_HUB_OFFLINE"] = "1"
        import torch
        from transformers.utils import logging

        logging.disable_progress_bar()
        warnings.simplefilter("ignore")
        self.torch, self.folder, self.size = torch, Path(folder), size
        # Where there is no NVIDIA card, all that can be compared with is the CPU.
        self.device = device if device.startswith("cuda") else "cpu"
        self.dtype = torch.bfloat16 if self.device != "cpu" else torch.float32
        torch.manual_seed(0)
        self.model = self.processor = self.trained = None

    def synchronize(self):
        if self.device != "cpu":
            self.torch.cuda.synchronize()

    def timed(self, work):
        self.synchronize()
        began = time.perf_counter()
        value = work()
        self.synchronize()
        return time.perf_counter() - began, value

    def free(self):
        """Gives back what is cached, so that the other side has the card."""
        gc.collect()
        if self.device != "cpu":
            self.torch.cuda.empty_cache()

    def peaks(self):
        """What this card reaches: FLOP/s of a product of matrices, and bytes/s of a copy, read and written."""
        torch, on_cpu = self.torch, self.device == "cpu"
        side, count = (512, 1 << 24) if on_cpu else (8192, 1 << 30)
        left, right = (torch.randn(side, side, device=self.device, dtype=self.dtype) for _ in range(2))
        source = torch.empty(count, device=self.device, dtype=torch.uint8).random_(0, 255)
        target = torch.empty_like(source)

        def best(work):
            work()
            return min(self.timed(lambda: [work() for _ in range(10)])[0] for _ in range(3)) / 10

        flops = 2 * side**3 / best(lambda: torch.mm(left, right))
        return {"flops": flops, "bytes_per_second": 2 * count / best(lambda: target.copy_(source))}

    def make_weights(self, words):
        from transformers import (
            CLIPVisionConfig,
            LlavaNextConfig,
            LlavaNextForConditionalGeneration,
            LlavaNextImageProcessor,
            LlavaNextProcessor,
            MistralConfig,
        )

        torch, size = self.torch, self.size
        tokenizer = make_tokenizer(size["pieces"], words)
        tile, image = size["tile"], size["pieces"]
        grid = [[tile * high, tile * wide] for high, wide in [(1, 2), (2, 1), (2, 2), (3, 1), (1, 3)]]
        config = LlavaNextConfig(
            vision_config=CLIPVisionConfig(
                hidden_size=size["vision_hidden"], intermediate_size=size["vision_intermediate"], patch_size=PATCH,
                num_hidden_layers=size["vision_layers"], num_attention_heads=size["vision_heads"], image_size=tile,
                projection_dim=size["vision_hidden"], hidden_act="quick_gelu",
            ),
            text_config=MistralConfig(
                vocab_size=size["vocabulary"], hidden_size=size["hidden"], intermediate_size=size["intermediate"],
                num_hidden_layers=size["layers"], num_attention_heads=size["heads"],
                num_key_value_heads=size["cached_heads"], max_position_embeddings=32768, rope_theta=1e6,
                sliding_window=None, bos_token_id=1, eos_token_id=2, pad_token_id=image + 1,
            ),
            image_token_index=image, image_grid_pinpoints=grid, image_seq_length=(tile // PATCH) ** 2,
            vision_feature_layer=-2, vision_feature_select_strategy="default", tie_word_embeddings=False,
        )  # fmt: skip
        torch.set_default_dtype(torch.bfloat16)
        with torch.device(self.device):
            model = LlavaNextForConditionalGeneration(config)
        torch.set_default_dtype(torch.float32)
        # Tokens that no answer is made of, the one that ends answers among them, are never the likeliest: all answers
        # take as many tokens as they may, on both sides.
        with torch.no_grad():
            head = model.get_output_embeddings().weight
            head[[0, 1, 2]] = 0
            head[size["pieces"] :] = 0
        model.generation_config.eos_token_id, model.generation_config.pad_token_id = 2, image + 1
        model.save_pretrained(self.folder, max_shard_size=size["shard"])
        images = LlavaNextImageProcessor(
            size={"shortest_edge": tile}, crop_size={"height": tile, "width": tile}, image_grid_pinpoints=grid
        )
        LlavaNextProcessor(
            image_processor=images, tokenizer=tokenizer, patch_size=PATCH, num_additional_image_tokens=1,
            vision_feature_select_strategy="default", image_token="<image>",
        ).save_pretrained(self.folder)  # fmt: skip
        return {"parameters": sum(parameter.numel() for parameter in model.parameters())}

    def load(self):
        from transformers import AutoModelForImageTextToText, AutoProcessor

        # The best that there is.
        for attention in ["flash_attention_2", "sdpa"] if self.device != "cpu" else ["sdpa"]:
            try:
                model = AutoModelForImageTextToText.from_pretrained(
                    self.folder, dtype=self.dtype, attn_implementation=attention
                )
                break
            except (ImportError, ValueError):
                if attention == "sdpa":
                    raise
        self.model = model.to(self.device).eval()
        self.processor = AutoProcessor.from_pretrained(self.folder)
        return {"attention": attention, "device": self.device, "dtype": str(self.dtype).removeprefix("torch.")}

    def inputs(self, pictures, texts, side="left"):
        from PIL import Image, ImageOps

        self.processor.tokenizer.padding_side = side
        images = [ImageOps.exif_transpose(Image.open(path)).convert("RGB") for path in pictures]
        inputs = self.processor(images=images, text=texts, return_tensors="pt", padding=True)
        inputs["pixel_values"] = inputs["pixel_values"].to(self.dtype)
        return inputs.to(self.device)

    def prefill(self, picture, prompt, rounds):
        inputs = self.inputs([picture], [rendered(prompt)])

        def once():
            with self.torch.no_grad():
                self.model(**inputs, use_cache=True, logits_to_keep=1)

        once()
        seconds = [self.timed(once)[0] for _ in range(rounds)]
        views = inputs["pixel_values"].shape[1]
        return {"seconds": seconds, "positions": inputs["input_ids"].shape[1], "views": views}

    def generate(self, inputs, tokens, temperature):
        drawn = dict(do_sample=True, temperature=temperature, top_k=50) if temperature else dict(do_sample=False)
        with self.torch.no_grad():
            made = self.model.generate(**inputs, max_new_tokens=tokens, min_new_tokens=tokens, **drawn)
        return made[:, inputs["input_ids"].shape[1] :]

    def decode(self, pictures, prompt, tokens, rounds):
        """Seconds of all steps after the first."""
        inputs = self.inputs(pictures, [rendered(prompt)] * len(pictures))
        self.generate(inputs, 2, 0.0)
        first = min(self.timed(lambda: self.generate(inputs, 1, 0.0))[0] for _ in range(2))
        timed = [self.timed(lambda: self.generate(inputs, tokens, 0.0)) for _ in range(rounds)]
        written = timed[-1][1][0].tolist()
        return {"seconds": [seconds - first for seconds, _ in timed], "tokens": written}

    def describe(self, pictures, prompts, tokens, temperature):
        """Seconds to answer; preparing pictures, which a data loader does beside it, is left out."""
        from PIL import Image

        # Pictures of like shape take like numbers of positions.
        pictures = sorted(pictures, key=lambda path: (lambda size: size[1] / size[0])(Image.open(path).size))
        at_once = self.size["rows"]
        groups = [pictures[start : start + at_once] for start in range(0, len(pictures), at_once)]
        seconds = 0.0
        for prompt in prompts:
            for group in groups:
                inputs = self.inputs(group, [rendered(prompt)] * len(group))
                seconds += self.timed(lambda: self.generate(inputs, tokens, temperature))[0]
        return {"seconds": seconds, "tokens": tokens * len(pictures) * len(prompts)}

    def prepare_training(self, rank, dropout):
        from peft import LoraConfig, get_peft_model

        linears = "q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj"
        config = LoraConfig(
            r=rank, lora_alpha=2 * rank, lora_dropout=dropout, target_modules=rf".*language_model.*\.({linears})"
        )
        self.trained = get_peft_model(self.model, config)
        self.trained.train()
        self.trained.enable_input_require_grads()

    def train(self, kind, examples, recompute, at_once, steps):
        """Seconds of each step, and its loss; the first step warms up. `examples` are (picture, prompt, answers)."""
        torch, model = self.torch, self.trained
        base = model.get_base_model()
        if recompute:
            base.gradient_checkpointing_enable({"use_reentrant": False})
        else:
            base.gradient_checkpointing_disable()
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        # Each variant starts from an adapter that changes nothing.
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.zero_()
        optimizer = torch.optim.AdamW(parameters, lr=1e-5, weight_decay=0.0)
        groups = [self.masked(examples[at : at + at_once]) for at in range(0, len(examples), at_once)]
        answered = sum(mask.sum() for _, mask in groups)
        half = torch.autocast(self.device.split(":")[0], dtype=self.dtype, enabled=self.device != "cpu")

        def log_probabilities(inputs, mask):
            with half:
                logits = model(**inputs, use_cache=False).logits[:, :-1].float()
            picked = torch.log_softmax(logits, -1).gather(2, inputs["input_ids"][:, 1:, None])[..., 0]
            return (picked * mask).sum(1)

        def loss_of(inputs, mask):
            if kind == "sft":
                return -log_probabilities(inputs, mask).sum() / answered
            with torch.no_grad(), model.disable_adapter():
                reference = log_probabilities(inputs, mask)
            policy = log_probabilities(inputs, mask)
            chosen, rejected = (policy - reference).chunk(2)
            losses = -torch.nn.functional.logsigmoid(0.1 * (chosen - rejected)) - policy.chunk(2)[0] / 1024
            return losses.sum() / len(examples)

        def step():
            total = 0.0
            for inputs, mask in groups:
                loss = loss_of(inputs, mask)
                loss.backward()
                total += loss.detach()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            return float(total)

        first = step()
        seconds = [self.timed(step)[0] for _ in range(steps)]
        positions = sum(int(inputs["attention_mask"].sum()) for inputs, _ in groups)
        return {"seconds": seconds, "loss": first, "positions": positions}

    def masked(self, examples):
        """Chosen answers, then rejected ones where there are two; and which positions' next token is of an answer."""
        sides = range(len(examples[0][2]))
        pictures = [picture for _ in sides for picture, _, _ in examples]
        prompts = [rendered(prompt) for _ in sides for _, prompt, _ in examples]
        answers = [f" {answers[side]} </s>" for side in sides for _, _, answers in examples]
        inputs = self.inputs(pictures, [prompt + answer for prompt, answer in zip(prompts, answers)], "right")
        asked = self.inputs(pictures, prompts, "right")["attention_mask"].sum(1)
        mask = inputs["attention_mask"].clone()
        for row, length in enumerate(asked.tolist()):
            mask[row, :length] = 0
        return inputs, mask[:, 1:]


def rendered(prompt):
    """As LLaVA's template `mistral_instruct` has it."""
    return f"[INST] <image>\n{prompt} [/INST]"


def make_tokenizer(count, words):
    """Like Llama's, of `count` pieces: those that `words` are best written with, and made-up ones."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=count, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(words, trainer)
    state = json.loads(tokenizer.to_str())
    # Bytes are ordinary pieces.
    state["added_tokens"] = [entry for entry in state["added_tokens"] if not entry["content"].startswith("<0x")]
    pieces = state["model"]["vocab"]
    pieces.update({f"▁made{number:x}": number for number in range(len(pieces), count)})
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    tokenizer.add_special_tokens([AddedToken("<image>", normalized=False), AddedToken("<pad>", normalized=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>",
        model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip


def serve(connection, folder, device, size):
    """The process of PyTorch: runs calls until there are no more."""
    torch = Torch(folder, device, size)
    while True:
        try:
            name, arguments = connection.recv()
        except EOFError:
            return
        try:
            connection.send((True, getattr(torch, name)(**arguments)))
        except Exception as error:
            torch.free()
            connection.send((False, f"{type(error).__name__}: {error}".strip()[:2000]))


class TorchProcess:
    """A call of [`Torch`] a method, with the memory it took as `memory`."""

    def __init__(self, setting):
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.memory = setting.memory()
        arguments = (theirs, str(setting.model), setting.device, setting.size)
        self.process = context.Process(target=serve, args=arguments, daemon=True)
        self.process.start()
        theirs.close()

    def call(self, name, **arguments):
        self.memory.forget(self.process.pid)
        try:
            self.connection.send((name, arguments))
            good, value = self.connection.recv()
        except (EOFError, BrokenPipeError):
            raise Failed(f"the process of PyTorch ended during `{name}`") from None
        if not good:
            raise Failed(f"PyTorch, `{name}`: {value}")
        if isinstance(value, dict):
            value["memory"] = self.memory.peak(self.process.pid)
        return value


# ---- This side: stic, a process a command ----


class Card(ctypes.Structure):
    """NVML's `nvmlMemory_t`: bytes."""

    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


class Memory:
    """The most memory that a process takes: of an NVIDIA card as its driver sees it, beyond what was in use before it
    began; elsewhere of the machine."""

    def __init__(self, device):
        self.card, self.over = device.startswith("cuda"), threading.Event()
        if self.card:
            index = int((device.split(":") + ["0"])[1])
            visible = os.environ.get("CUDA_VISIBLE_DEVICES")
            name = visible.split(",")[index] if visible else str(index)
            self.nvml, self.handle = ctypes.CDLL("libnvidia-ml.so.1"), ctypes.c_void_p()
            self.nvml.nvmlInit_v2()
            if name.isdigit():
                code = self.nvml.nvmlDeviceGetHandleByIndex_v2(int(name), ctypes.byref(self.handle))
            else:
                code = self.nvml.nvmlDeviceGetHandleByUUID(name.encode(), ctypes.byref(self.handle))
            if code:
                raise Failed(f"NVML knows no card {name}: error {code}")
            self.base = self.used = self.now()
            threading.Thread(target=self.watch, daemon=True).start()

    def now(self):
        card = Card()
        if code := self.nvml.nvmlDeviceGetMemoryInfo(self.handle, ctypes.byref(card)):
            raise Failed(f"NVML does not say how much memory is used: error {code}")
        return card.used

    def watch(self):
        while not self.over.wait(0.02):
            self.used = max(self.used, self.now())

    def forget(self, process):
        """Begins a new peak."""
        if self.card:
            self.used = self.now()
        else:
            with contextlib.suppress(OSError):
                Path(f"/proc/{process}/clear_refs").write_text("5")

    def peak(self, process):
        if self.card:
            return self.used - self.base
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
        return int(found[1]) << 10

    def peak_of_ended(self, usage):
        """Of a process that has ended, from what the system says that it used."""
        self.over.set()
        return self.used - self.base if self.card else usage.ru_maxrss << 10


class Setting:
    """What is measured, where, and for how long."""

    def __init__(self, options):
        self.options = options
        self.size, self.device = SIZES[options.size], options.device
        name = f"{options.size}-{options.device}".replace(":", "")
        self.work = Path(options.work or ROOT / "target/gpu").resolve() / name
        self.model, self.results, self.logs = self.work / "model", self.work / "results", self.work / "logs"
        self.on_cuda = self.device.startswith("cuda")
        self.dtype, self.width = ("bf16", 2) if self.on_cuda else ("f32", 4)
        self.deadline = time.monotonic() + options.limit - 20
        self.environment = dict(os.environ)
        self.stic_file = None

    def memory(self):
        return Memory(self.device)

    def use(self):
        """Finds the program and what it needs to be run."""
        self.stic_file = find_stic(self)
        if self.on_cuda:
            found = find_cuda()
            if found.headers:
                self.environment["CUDA_PATH"] = str(found.headers)
            if found.nvrtc:
                paths = [str(found.nvrtc.parent), self.environment.get("LD_LIBRARY_PATH", "")]
                self.environment["LD_LIBRARY_PATH"] = ":".join(filter(None, paths))
        return self

    def left(self):
        return self.deadline - time.monotonic()

    def stic(self, *arguments, event=lambda event: None, expect=0):
        """Runs stic, and gives the JSON objects that it wrote, each with `at`, the time it came. It is stopped when the
        part's time is over: what it had written by then is given."""
        memory = self.memory()
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{self.options.inside or 'stic'}.txt"
        objects = []
        with open(log, "a") as errors:
            errors.write(f"$ stic {' '.join(map(str, arguments))}\n")
            errors.flush()
            began = errors.tell()
            command = [str(self.stic_file), *map(str, arguments)]
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, env=self.environment, cwd=ROOT
            )
            stopped = []
            timer = threading.Timer(max(self.left(), 1), lambda: (stopped.append(True), process.terminate()))
            timer.start()
            for line in process.stdout:
                if line.startswith("{"):
                    objects.append(json.loads(line) | {"at": time.monotonic()})
                    event(objects[-1])
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            timer.cancel()
            peak = memory.peak_of_ended(usage)
        if not stopped and process.returncode != expect:
            said = log.read_bytes()[began:].decode(errors="replace").strip()
            raise Failed(f"`stic {arguments[0]}` ended with {process.returncode}: {said[-1500:]} (all of it: {log})")
        return Said(objects, peak, bool(stopped))

    def pipeline(self, name, text):
        """A pipeline file with a cache of its own, and where they are."""
        folder = self.work / "pipelines" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        head = f"[pipeline]\nname = '{name}'\nlanguage = 1\nseed = 1\n[device]\nbackend = '{self.device}'\n"
        head += f"dtype = '{self.dtype}'\n[models.base]\nsource = '{self.model}'\n"
        (folder / "pipeline.toml").write_text(head + text)
        return folder

    def run(self, folder, event=lambda event: None):
        return self.stic("run", folder / "pipeline.toml", "--json", "--cache", folder / "cache", event=event)


class Said:
    """What stic wrote, the memory that it took, and whether it was stopped."""

    def __init__(self, objects, memory, stopped):
        self.objects, self.memory, self.stopped = objects, memory, stopped

    def nodes(self):
        """The nodes that ended: seconds, tokens, and the seconds of a token but the first ones."""
        found = {}
        for node in [event["node"] for event in self.objects if event.get("event") == "finished"]:
            mine = [event for event in self.objects if event.get("node") == node]
            told = [event for event in mine if event["event"] == "progress" and event.get("tokens")]
            tokens = told[-1]["tokens"] if told else 0
            # An event has the count of the moment at which it is written.
            more = tokens - told[0]["tokens"] if told else 0
            pace = (told[-1]["at"] - told[0]["at"]) / more if more else None
            found[node] = {"seconds": mine[-1]["seconds"], "tokens": tokens, "seconds_per_token": pace}
        return found


def find_stic(setting):
    named = setting.options.stic or os.environ.get("STIC")
    if named:
        return Path(named).resolve()
    packed, built = PACKED / "stic.xz", ROOT / "target/release/stic"
    if packed.exists() and not (built.exists() and built.stat().st_mtime > packed.stat().st_mtime):
        return unpacked(packed)
    return built


def unpacked(packed):
    """The program in an xz file, unpacked beside it unless it is already."""
    file = ROOT / "target/gpu" / packed.stem
    if not file.exists() or file.stat().st_mtime < packed.stat().st_mtime:
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_suffix(".new")
        with lzma.open(packed) as source, open(new, "wb") as target:
            shutil.copyfileobj(source, target)
        new.chmod(0o755)
        new.replace(file)
    return file


# ---- Parts ----


class Cuda:
    """NVRTC and the headers that kernels are compiled with, where they were found."""

    nvrtc = headers = None


HEADERS = [
    "cuda_fp16.h", "cuda_bf16.h", "mma.h", "cooperative_groups.h", "cooperative_groups/memcpy_async.h", "cuda/barrier",
]  # fmt: skip


def find_cuda():
    installed = sorted(glob.glob("/usr/local/cuda*"), reverse=True)
    roots = [os.environ.get("CUDA_PATH"), os.environ.get("CUDA_HOME"), *installed]
    roots = [Path(root) for root in roots if root]
    for folder in sys.path:
        roots += [Path(found) for found in sorted(glob.glob(f"{folder}/nvidia/cu*"), reverse=True)]
    found = Cuda()
    has = lambda root, name: any((root / "include" / inner / name).exists() for inner in ("", "cccl"))
    count = lambda root: sum(has(root, name) for name in [*HEADERS, "crt/mma.h"])
    # The first that has the most of them.
    best = max(roots, key=count, default=None)
    found.headers = best if best and count(best) else None
    for root in roots:
        for inner in ("lib64", "lib", "targets/x86_64-linux/lib"):
            libraries = sorted(root.glob(f"{inner}/libnvrtc.so*"))
            if libraries and not found.nvrtc:
                found.nvrtc = libraries[0]
    return found


def compile_with_nvrtc(library, headers):
    """Has NVRTC compile something that needs every header; what it says against it, or None."""
    nvrtc = ctypes.CDLL(str(library))
    text = "".join(f"#include <{name}>\n" for name in HEADERS) + 'extern "C" __global__ void nothing() {}\n'
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    if nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), None, 0, None, None):
        return "it makes no program"
    paths = [f"--include-path={headers}/include{inner}".encode() for inner in ("", "/cccl")]
    options = (ctypes.c_char_p * 3)(b"--gpu-architecture=compute_80", *paths)
    if nvrtc.nvrtcCompileProgram(program, 3, options) == 0:
        return None
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    return next((line for line in log.value.decode().splitlines() if "error" in line), "it compiles nothing")


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


# ---- Results ----


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
        globals()[part](setting, keep)
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

    parts = [part for part in PARTS if part in options.parts] if options.parts else PARTS
    if any(part in NEED_WEIGHTS for part in parts) and not (setting.model / "made.json").exists():
        parts = [part for part in PARTS if part in parts or part == "weights"]
    program, failed = digest(setting.stic_file), []
    passed_on = [word for name in ("size", "device", "stic", "work", "limit") for word in option(options, name)]
    for part in parts:
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
