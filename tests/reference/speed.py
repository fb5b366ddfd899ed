"""Times transformers and PEFT at what `stic` does: describing pictures, and steps of DPO on the same pairs.

    python speed.py MODEL_DIR PICTURES_DIR PAIRS_DIR [--pictures N] [--batch N] [--new-tokens N] [--pairs N] [--steps N]
        [--recompute]

PAIRS_DIR is what `stic export FILE PAIRS_NODE DIR` writes. The model runs in float32 on the CPU, greedily; tokens are
counted up to each answer's end. A step of DPO is timed whole, as a node's log has it: the reference's pass, forward,
backward, clipping, update. `--recompute` trades time for memory as `stic` does: each layer runs again in the backward
pass. Prints medians, a JSON object each.
"""

import argparse
import glob
import json
import os
import statistics
import time

import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

arguments = argparse.ArgumentParser()
arguments.add_argument("model")
arguments.add_argument("pictures")
arguments.add_argument("pairs_folder")
arguments.add_argument("--pictures-count", type=int, default=256)
arguments.add_argument("--batch", type=int, default=16)
arguments.add_argument("--new-tokens", type=int, default=16)
arguments.add_argument("--pairs", type=int, default=8)
arguments.add_argument("--steps", type=int, default=10)
arguments.add_argument("--rank", type=int, default=16)
arguments.add_argument("--repeats", type=int, default=3)
arguments.add_argument("--prompt", default="Illustrate the details of the picture.")
arguments.add_argument("--recompute", action="store_true")
options = arguments.parse_args()

model = AutoModelForImageTextToText.from_pretrained(options.model, dtype=torch.float32).eval()
processor = AutoProcessor.from_pretrained(options.model)
processor.tokenizer.padding_side = "left"
paths = sorted(glob.glob(os.path.join(options.pictures, "*.jpg")))[: options.pictures_count]
end = model.generation_config.eos_token_id


def rendered(prompt):
    return f"[INST] <image>\n{prompt} [/INST]"


def describe():
    tokens = 0
    for start in range(0, len(paths), options.batch):
        batch = [Image.open(path).convert("RGB") for path in paths[start : start + options.batch]]
        inputs = processor(images=batch, text=[rendered(options.prompt)] * len(batch), return_tensors="pt", padding=True)
        with torch.no_grad():
            made = model.generate(**inputs, do_sample=False, max_new_tokens=options.new_tokens)
        made = made[:, inputs["input_ids"].shape[1] :].tolist()
        tokens += sum(row.index(end) + 1 if end in row else len(row) for row in made)
    return tokens


rates = []
for _ in range(options.repeats):
    start = time.perf_counter()
    tokens = describe()
    rates.append(tokens / (time.perf_counter() - start))
result = {"pictures": len(paths), "tokens": tokens, "describe_tokens_per_second": statistics.median(rates)}
print(json.dumps(result), flush=True)

targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
config = LoraConfig(r=options.rank, lora_alpha=2 * options.rank, target_modules=targets, exclude_modules=".*vision.*")
trained = get_peft_model(model, config)
trained.train()
if options.recompute:
    trained.enable_input_require_grads()
    trained.gradient_checkpointing_enable({"use_reentrant": False})
optimizer = torch.optim.AdamW([p for p in trained.parameters() if p.requires_grad], lr=1e-4, weight_decay=0.0)
rows = [json.loads(line) for line in open(os.path.join(options.pairs_folder, "pairs.jsonl"))]


def batch_of(index):
    chosen = range(index * options.pairs, (index + 1) * options.pairs)
    chosen = [i % len(rows) for i in chosen]
    pictures = [Image.open(rows[i]["image"]).convert("RGB") for i in chosen] * 2
    prompts = [rendered(rows[i]["instruction"]) for i in chosen] * 2
    answers = [f" {rows[i][side]} </s>" for side in ("chosen", "rejected") for i in chosen]
    processor.tokenizer.padding_side = "right"
    texts = [prompt + answer for prompt, answer in zip(prompts, answers)]
    inputs = processor(images=pictures, text=texts, return_tensors="pt", padding=True)
    alone = processor(images=pictures, text=prompts, return_tensors="pt", padding=True)
    mask = inputs["attention_mask"].clone()
    for row, length in enumerate(alone["attention_mask"].sum(1).tolist()):
        mask[row, :length] = 0
    return inputs, mask[:, 1:]


def log_probabilities(inputs, mask):
    logits = trained(**inputs).logits[:, :-1].float()
    picked = torch.log_softmax(logits, -1).gather(2, inputs["input_ids"][:, 1:, None])[..., 0]
    return (picked * mask).sum(1)


times = []
for index in range(options.steps + 1):
    start = time.perf_counter()
    inputs, mask = batch_of(index)
    with torch.no_grad(), trained.disable_adapter():
        reference = log_probabilities(inputs, mask)
    policy = log_probabilities(inputs, mask)
    chosen, rejected = (policy - reference).chunk(2)
    loss = (-torch.nn.functional.logsigmoid(0.1 * (chosen - rejected)) - policy[: options.pairs] / 1024).mean()
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
    optimizer.step()
    if index > 0:
        times.append(time.perf_counter() - start)
result = {"dpo_step_seconds": statistics.median(times), "threads": torch.get_num_threads()}
print(json.dumps(result | {"pairs": options.pairs, "recompute": options.recompute}))
