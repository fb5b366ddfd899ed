"""Writes the reference checkpoints and what transformers, PEFT and PyTorch compute with them.

    pip install -r requirements.txt && python make.py

Everything is small and drawn from fixed seeds; only this script writes the folders beside it.
"""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors, trainers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    LlavaProcessor,
    MistralConfig,
    PreTrainedTokenizerFast,
)
from trl import DPOConfig, DPOTrainer

HERE = Path(__file__).parent
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], dtype=np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], dtype=np.float32)
# Width and height: near square, tall, wide, smaller than a view, and one whose padding is odd.
PICTURES = {"square": (60, 56), "tall": (40, 130), "wide": (150, 44), "small": (20, 13), "odd": (51, 64)}
TEXTS = [
    "A chat between a curious user and an artificial intelligence assistant.",
    "The assistant gives helpful, detailed, and polite answers to the user's questions.",
    "[INST] What is shown in the picture? [/INST] A red circle is left of a blue square.",
    "USER: Describe the image in detail. ASSISTANT: The image shows a green triangle and a yellow ring.",
]
QUESTION = "[INST] <image>\nWhat is shown in the picture? [/INST]"
CHOSEN, REJECTED = " A red circle is left of a blue square.", " The image shows a green ring."


def scale_across_first():
    """Pillow 13 scales some tall pictures down before across; LLaVA's Pillow (10.3), torchvision and older versions do
    it the other way round. Both passes end in 8 bits, so one after the other is what those versions compute."""
    resize = Image.Image.resize

    def in_two(self, size, resample=None, box=None, reducing_gap=None):
        if box is not None or reducing_gap is not None or self.size == tuple(size):
            return resize(self, size, resample, box, reducing_gap)
        return resize(resize(self, (size[0], self.height), resample), size, resample)

    Image.Image.resize = in_two


def write_pictures():
    """The pattern of the golden values for resampling, with a colour that leaves it nowhere grey."""
    folder = HERE / "pictures"
    folder.mkdir(exist_ok=True)
    for name, (width, height) in PICTURES.items():
        y, x = np.mgrid[0:height, 0:width]
        values = np.stack([(7 * x + 13 * y) % 256, (3 * x + 5 * y + 40) % 256, (x * x + y * y) // 8 % 256], axis=-1)
        Image.fromarray(values.astype(np.uint8)).save(folder / f"{name}.png")


def make_tokenizer():
    """Like Llama's: blanks as `▁`, one in front of the text, bytes where there is no piece, BOS in front."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trainer = trainers.BpeTrainer(
        vocab_size=380,
        special_tokens=["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)],
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    # The byte pieces are ordinary entries of the vocabulary, not special tokens.
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [entry for entry in state["added_tokens"] if not entry["content"].startswith("<0x")]
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
    )


def draw_weights(model, generator):
    """Weights at which activations neither vanish nor saturate, so that a mistake anywhere shows in the logits."""
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            noise = torch.randn(tensor.shape, generator=generator)
            if "norm" in name or "layrnorm" in name:
                tensor.copy_(0.1 * noise + (1.0 if name.endswith("weight") else 0.0))
            elif tensor.dim() == 1:
                tensor.copy_(0.3 * noise)
            elif "embed" in name:
                tensor.copy_(0.7 * noise)
            else:
                tensor.copy_(1.2 * noise / tensor[0].numel() ** 0.5)


def build(name, tokenizer):
    vocabulary, image_token = len(tokenizer), tokenizer.convert_tokens_to_ids("<image>")
    tokens = dict(bos_token_id=1, eos_token_id=2, pad_token_id=tokenizer.pad_token_id)
    if name == "llava":
        size, patch = 32, 8
        vision = CLIPVisionConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, image_size=size,
            patch_size=patch, projection_dim=16,
        )
        text = LlamaConfig(
            vocab_size=vocabulary, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=256, **tokens,
        )
        config = LlavaConfig(
            vision_config=vision, text_config=text, image_token_index=image_token, image_seq_length=(size // patch) ** 2)
        model = LlavaForConditionalGeneration(config)
        images = CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
        make = LlavaProcessor
    else:
        size, patch = 48, 16
        vision = CLIPVisionConfig(
            hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, image_size=size,
            patch_size=patch, projection_dim=16,
        )
        text = MistralConfig(
            vocab_size=vocabulary, hidden_size=48, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, head_dim=16, rope_theta=1e6, rms_norm_eps=1e-5, sliding_window=None,
            max_position_embeddings=512, **tokens,
        )
        pinpoints = [[48, 96], [96, 48], [96, 96], [144, 48], [48, 144]]
        config = LlavaNextConfig(
            vision_config=vision, text_config=text, image_token_index=image_token, image_grid_pinpoints=pinpoints,
            image_seq_length=(size // patch) ** 2,
        )
        model = LlavaNextForConditionalGeneration(config)
        images = LlavaNextImageProcessorPil(
            size={"shortest_edge": size}, crop_size={"height": size, "width": size}, image_grid_pinpoints=pinpoints
        )
        make = LlavaNextProcessor
    processor = make(
        image_processor=images, tokenizer=tokenizer, patch_size=patch, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, image_token="<image>",
    )
    return model, processor


def levels(pixels):
    """The 8-bit levels that a processor normalised; they give its values back to the bit."""
    values = np.asarray(pixels, dtype=np.float32)
    gray = np.rint((values * STD[:, None, None] + MEAN[:, None, None]) * 255).astype(np.uint8)
    scaled = (gray.astype(np.float64) * (1 / 255)).astype(np.float32)
    again = (scaled - MEAN[:, None, None]) / STD[:, None, None]
    assert np.array_equal(again.astype(np.float32), values), np.abs(again - values).max()
    return torch.from_numpy(gray)


def log_probabilities(logits, ids):
    """Of each token but the first, given those before."""
    return torch.log_softmax(logits[:-1].double(), -1).gather(1, ids[1:, None])[:, 0].float()


def encode(processor, text, picture):
    inputs = processor(images=picture, text=text, return_tensors="pt")
    return {name: value for name, value in inputs.items()}


def answer_inputs(processor, picture, answer):
    """Question and answer with its end token, tokenised as one text, and where the answer begins."""
    asked = encode(processor, QUESTION, picture)["input_ids"].shape[1]
    return encode(processor, QUESTION + answer + "</s>", picture), asked


def train_step(folder, cls, adapter, loss_of):
    """One step of AdamW on the adapter: the loss, the norm of the gradient, and the adapter after it."""
    base = cls.from_pretrained(folder, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, adapter, is_trainable=True)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    loss = loss_of(model)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    gradients = {
        name.replace(".default", ""): parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    optimizer.step()
    after = {
        name.replace(".default", ""): parameter.detach().clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    return loss.item(), norm.item(), gradients, after


def trl_step(folder, cls, adapter, batch, answered, beta, chosen_weight):
    """The same step of DPO by TRL's trainer: loss, norm of the gradient, and the adapter after it.

    TRL has no term for the summed log-probability of the chosen answer; its `sft` term is the mean over the answer's
    tokens with the sign turned, so that its weight is `chosen_weight` times their number.
    """
    model = PeftModel.from_pretrained(cls.from_pretrained(folder, dtype=torch.float32), adapter, is_trainable=True)
    # An adapter that is trained on is its own reference in TRL; without it, the reference is the base model.
    reference = cls.from_pretrained(folder, dtype=torch.float32)
    with tempfile.TemporaryDirectory() as scratch:
        settings = DPOConfig(
            scratch, beta=beta, loss_type=["sigmoid", "sft"], loss_weights=[1.0, chosen_weight * answered],
            max_steps=1, learning_rate=1e-3, lr_scheduler_type="constant", optim="adamw_torch", weight_decay=0.0,
            max_grad_norm=1.0, per_device_train_batch_size=1, gradient_checkpointing=False, bf16=False, use_cpu=True,
            disable_dropout=True, logging_steps=1, report_to=[], save_strategy="no", disable_tqdm=True,
            remove_unused_columns=False, max_length=None,
        )
        trainer = DPOTrainer(
            model, reference, settings, lambda _: dict(batch),
            Dataset.from_dict({"prompt": [QUESTION], "chosen": [CHOSEN], "rejected": [REJECTED], "images": [[None]]}),
            processing_class=LlavaProcessor.from_pretrained(folder) if cls is LlavaForConditionalGeneration
            else LlavaNextProcessor.from_pretrained(folder),
        )
        trainer.train()
        log = trainer.state.log_history[0]
    after = {
        name.replace(".default", ""): parameter.detach().clone()
        for name, parameter in trainer.model.named_parameters()
        if parameter.requires_grad
    }
    return log["loss"], log["grad_norm"], after


def make(name, tokenizer):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    model, processor = build(name, tokenizer)
    cls = type(model)
    draw_weights(model, torch.Generator().manual_seed(7))
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    if name == "llava":
        model.half().save_pretrained(folder)
    else:
        model.to(torch.bfloat16).save_pretrained(folder, max_shard_size="150KB")
    processor.save_pretrained(folder)
    model = cls.from_pretrained(folder, dtype=torch.float32).eval()

    tensors, facts = {}, {"pictures": {}, "question": QUESTION, "chosen": CHOSEN, "rejected": REJECTED}
    with torch.no_grad():
        for picture_name in PICTURES:
            picture = Image.open(HERE / "pictures" / f"{picture_name}.png")
            inputs = encode(processor, QUESTION, picture)
            views = inputs["pixel_values"].reshape(-1, *inputs["pixel_values"].shape[-3:])
            tensors[f"{picture_name}.levels"] = levels(views)
            ids = inputs["input_ids"][0]
            greedy = model.generate(**inputs, max_new_tokens=16, do_sample=False)[0][len(ids) :]
            # What no text is made of is not written.
            never = tokenizer.convert_tokens_to_ids(["<unk>", "<s>", "<pad>", "<image>"])
            written = model.generate(**inputs, max_new_tokens=16, do_sample=False, suppress_tokens=never)[0][len(ids) :]
            facts["pictures"][picture_name] = {
                "rows": int((ids == model.config.image_token_index).sum()),
                "ids": ids.tolist(),
                "greedy": greedy.tolist(),
                "written": written.tolist(),
            }
        for picture_name in ["square", "wide"]:
            picture = Image.open(HERE / "pictures" / f"{picture_name}.png")
            inputs, asked = answer_inputs(processor, picture, CHOSEN)
            logits = model(**inputs).logits[0]
            ids = inputs["input_ids"][0]
            tensors[f"{picture_name}.logits"] = logits
            tensors[f"{picture_name}.logprobs"] = log_probabilities(logits, ids)
            facts["pictures"][picture_name]["answered"] = {"ids": ids.tolist(), "asked": asked}
        plain = processor.tokenizer("[INST] What is a ring? [/INST]", return_tensors="pt")
        tensors["text.logits"] = model(**plain).logits[0]
        facts["text"] = plain["input_ids"][0].tolist()
        if name == "llava_next":
            windowed = cls.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
            windowed.model.language_model.config.sliding_window = 6
            tensors["text.window_logits"] = windowed(**plain).logits[0]

    # An adapter whose B is not zero, so that it changes the logits.
    config = LoraConfig(
        r=4, lora_alpha=8, lora_dropout=0.0, bias="none", task_type="CAUSAL_LM",
        target_modules=r".*language_model\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)",
    )
    adapted = get_peft_model(cls.from_pretrained(folder, dtype=torch.float32), config).eval()
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter_name, parameter in adapted.named_parameters():
            if "lora_B" in parameter_name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
            elif "lora_A" in parameter_name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter.shape[1] ** 0.5)
        adapted.save_pretrained(folder / "adapter")
        (folder / "adapter" / "README.md").unlink()
        settings = json.loads((folder / "adapter" / "adapter_config.json").read_text())
        settings["base_model_name_or_path"] = name
        (folder / "adapter" / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n")
        square = Image.open(HERE / "pictures" / "square.png")
        chosen, asked = answer_inputs(processor, square, CHOSEN)
        rejected, _ = answer_inputs(processor, square, REJECTED)
        tensors["square.adapter_logits"] = adapted(**chosen).logits[0]
        greedy = adapted.generate(**encode(processor, QUESTION, square), max_new_tokens=16, do_sample=False)[0]
        facts["adapter_greedy"] = greedy[asked:].tolist()

        def answer_logprob(model, inputs):
            return log_probabilities_tracked(model(**inputs).logits[0], inputs["input_ids"][0])[asked - 1 :]

        # The reference is the model without the adapter, so that the margin is not zero.
        reference = [answer_logprob(model, inputs).sum() for inputs in (chosen, rejected)]

    beta, chosen_weight = 0.1, 1 / 1024

    def sft(model):
        return -answer_logprob(model, chosen).mean()

    def dpo(model):
        policy = [answer_logprob(model, inputs).sum() for inputs in (chosen, rejected)]
        margin = (policy[0] - reference[0]) - (policy[1] - reference[1])
        return -torch.nn.functional.logsigmoid(beta * margin) - chosen_weight * policy[0]

    facts["rejected_ids"] = rejected["input_ids"][0].tolist()
    facts["reference_logprobs"] = [value.item() for value in reference]
    for step_name, loss_of in [("sft", sft), ("dpo", dpo)]:
        loss, norm, _, after = train_step(folder, cls, folder / "adapter", loss_of)
        facts[step_name] = {"loss": loss, "gradient_norm": norm, "learning_rate": 1e-3, "max_grad_norm": 1.0}
        if step_name == "dpo":
            facts[step_name] |= {"beta": beta, "chosen_weight": chosen_weight}
            batch = joined(chosen, rejected, asked, tokenizer.pad_token_id)
            answered = chosen["input_ids"].shape[1] - asked
            *trl, by_trl = trl_step(folder, cls, folder / "adapter", batch, answered, beta, chosen_weight)
            before = load_file(folder / "adapter" / "adapter_model.safetensors")
            size = lambda tensors: sum(tensor.square().sum() for tensor in tensors) ** 0.5
            apart = size(by_trl[name] - after[name] for name in after) / size(after[name] - before[name] for name in after)
            assert abs(trl[0] - loss) < 1e-4 and abs(trl[1] / norm - 1) < 1e-4 and apart < 1e-3, (trl, loss, norm, apart)
            facts[step_name]["trl"] = {"loss": trl[0], "gradient_norm": trl[1], "update_apart": apart.item()}
        save_file(after, folder / f"after_{step_name}.safetensors")

    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / "expected.safetensors")
    (folder / "expected.json").write_text(json.dumps(facts) + "\n")


def joined(chosen, rejected, asked, padding):
    """Both answers as one batch of TRL's, the shorter one filled up at its end."""
    longest = max(inputs["input_ids"].shape[1] for inputs in (chosen, rejected))
    batch = {"input_ids": [], "attention_mask": [], "completion_mask": []}
    for inputs in (chosen, rejected):
        ids = inputs["input_ids"][0]
        fill = torch.zeros(longest - len(ids), dtype=ids.dtype)
        answer = torch.ones_like(ids)
        answer[:asked] = 0
        batch["input_ids"].append(torch.cat([ids, fill + padding]))
        batch["attention_mask"].append(torch.cat([torch.ones_like(ids), fill]))
        batch["completion_mask"].append(torch.cat([answer, fill]))
    batch = {key: torch.stack(rows) for key, rows in batch.items()}
    for key in ("pixel_values", "image_sizes"):
        if key in chosen:
            batch[key] = torch.cat([chosen[key], rejected[key]])
    return batch


def log_probabilities_tracked(logits, ids):
    return torch.log_softmax(logits[:-1], -1).gather(1, ids[1:, None])[:, 0]


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)
    scale_across_first()
    write_pictures()
    for architecture in ["llava", "llava_next"]:
        make(architecture, make_tokenizer())
