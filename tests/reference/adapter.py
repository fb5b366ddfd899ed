"""Opens an exported adapter in PEFT and compares what it says with `stic score`.

    python adapter.py STIC MODEL_DIR ADAPTER_DIR PICTURE...

Prints the largest difference of a token's log-probability over the pictures, with the adapter and without it, and fails
when one is above 1e-3 nats or when the adapter makes no difference at all.
"""

import json
import os
import subprocess
import sys
import tempfile

import torch
from peft import PeftModel
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

stic, model_dir, adapter_dir, *pictures = sys.argv[1:]
PROMPT = "[INST] <image>\nIllustrate the details of the picture. [/INST]"
RESPONSE = " top-left red-circle </s>"

processor = AutoProcessor.from_pretrained(model_dir)
model = AutoModelForImageTextToText.from_pretrained(model_dir, dtype=torch.float32).eval()


def ours(adapter):
    lines = [{"image": os.path.abspath(path), "prompt": PROMPT, "response": RESPONSE} for path in pictures]
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines))
        file.flush()
        command = [stic, "score", "--model", model_dir, "--input", file.name, "--template", "none", "--json"]
        command += ["--device", "cpu", "--dtype", "f32"] + (["--adapter", adapter] if adapter else [])
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in output.splitlines()]


def theirs(scored):
    """The log-probabilities of the tokens that `stic score` scored."""
    result = []
    for path, line in zip(pictures, scored):
        inputs = processor(images=Image.open(path).convert("RGB"), text=PROMPT, return_tensors="pt")
        answer = torch.tensor([line["tokens"]])
        start = inputs["input_ids"].shape[1]
        inputs["input_ids"] = torch.cat([inputs["input_ids"], answer], 1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        with torch.no_grad():
            logits = model(**inputs).logits[0, start - 1 : -1].float()
        result.append(torch.log_softmax(logits, -1).gather(1, answer[0][:, None])[:, 0])
    return result


def difference(scored):
    pairs = zip(scored, theirs(scored))
    return max((torch.tensor(line["token_logprobs"]) - reference).abs().max().item() for line, reference in pairs)


base = ours(None)
report = {"pictures": len(pictures), "base": difference(base)}
model = PeftModel.from_pretrained(model, adapter_dir).eval()
adapted = ours(adapter_dir)
report["adapter"] = difference(adapted)
report["effect"] = max(abs(a["logprob"] - b["logprob"]) for a, b in zip(adapted, base))
print(json.dumps(report))
sys.exit(report["base"] > 1e-3 or report["adapter"] > 1e-3 or report["effect"] == 0)
