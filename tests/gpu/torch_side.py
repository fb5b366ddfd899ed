"""The other side: PyTorch, in a process of its own."""

import gc
import json
import multiprocessing
import os
import time
import warnings
from pathlib import Path

from size import Failed, PATCH

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
