"""Times transformers and PEFT at what `stic` does: describing pictures, and a DPO step.

    python speed.py MODEL_DIR PICTURES_DIR [--pictures N] [--batch N] [--new-tokens N] [--pairs N] [--repeats N]

Prints medians as JSON. The model runs in float32 on the CPU with as many threads as `--threads` says. Greedy, with the
end token suppressed, so that both sides generate the same number of tokens.
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
arguments.add_argument("--pictures-count", type=int, default=64)
arguments.add_argument("--batch", type=int, default=32)
arguments.add_argument("--new-tokens", type=int, default=16)
arguments.add_argument("--pairs", type=int, default=8)
arguments.add_argument("--answer-tokens", type=int, default=16)
arguments.add_argument("--rank", type=int, default=16)
arguments.add_argument("--repeats", type=int, default=5)
arguments.add_argument("--threads", type=int, default=os.cpu_count())
arguments.add_argument("--prompt", default="[INST] <image>\nIllustrate the details of the picture. [/INST]")
options = arguments.parse_args()

torch.set_num_threads(options.threads)
model = AutoModelForImageTextToText.from_pretrained(options.model, torch_dtype=torch.float32).eval()
processor = AutoProcessor.from_pretrained(options.model)
paths = sorted(glob.glob(os.path.join(options.pictures, "*")))[: options.pictures_count]
pictures = [Image.open(path).convert("RGB") for path in paths]


def median_seconds(work):
    work()
    times = []
    for _ in range(options.repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def describe():
    for start in range(0, len(pictures), options.batch):
        batch = pictures[start : start + options.batch]
        inputs = processor(images=batch, text=[options.prompt] * len(batch), return_tensors="pt", padding=True)
        with torch.no_grad():
            model.generate(
                **inputs, do_sample=False, min_new_tokens=options.new_tokens, max_new_tokens=options.new_tokens
            )


seconds = median_seconds(describe)
result = {"describe_tokens_per_second": len(pictures) * options.new_tokens / seconds}

targets = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
trained = get_peft_model(model, LoraConfig(r=options.rank, lora_alpha=2 * options.rank, target_modules=targets))
trained.train()
optimizer = torch.optim.AdamW([p for p in trained.parameters() if p.requires_grad], lr=1e-4)
pairs = pictures[: options.pairs]
inputs = processor(images=pairs * 2, text=[options.prompt] * (2 * len(pairs)), return_tensors="pt", padding=True)
prompt_length = inputs["input_ids"].shape[1]
answers = torch.randint(10, min(90, model.config.text_config.vocab_size), (2 * len(pairs), options.answer_tokens))
inputs["input_ids"] = torch.cat([inputs["input_ids"], answers], 1)
inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])


def log_probabilities():
    logits = trained(**inputs).logits[:, prompt_length - 1 : -1].float()
    return torch.log_softmax(logits, -1).gather(2, answers[:, :, None])[..., 0].sum(1)


with torch.no_grad(), trained.disable_adapter():
    reference = log_probabilities()


def step():
    policy = log_probabilities()
    chosen, rejected = (policy - reference).chunk(2)
    loss = (-torch.nn.functional.logsigmoid(0.1 * (chosen - rejected)) - policy[: len(pairs)] / 1024).mean()
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
    optimizer.step()


result["dpo_step_seconds"] = median_seconds(step)
result["threads"] = options.threads
print(json.dumps(result))
