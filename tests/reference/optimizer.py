"""Six steps of PyTorch's AdamW with global-norm clipping and transformers' cosine schedule.

Writes optimizer.json beside this file. Needs the versions of requirements.txt.
"""

import json
import math
from pathlib import Path

import torch
from transformers import get_cosine_schedule_with_warmup

STEPS, RATE, RATIO, DECAY, MAX_NORM = 6, 1e-2, 0.25, 0.1, 1.0
SHAPES = {"norm.weight": (3,), "projection.lora_A.weight": (2, 4), "patches.weight": (2, 1, 2, 2)}

torch.manual_seed(7)
parameters = {path: torch.nn.Parameter(torch.randn(shape)) for path, shape in SHAPES.items()}
flat = lambda tensors: {path: tensor.detach().flatten().tolist() for path, tensor in tensors.items()}
result = {
    "learning_rate": RATE,
    "warmup_ratio": RATIO,
    "weight_decay": DECAY,
    "max_norm": MAX_NORM,
    "initial": flat(parameters),
    "steps": [],
}
optimizer = torch.optim.AdamW(parameters.values(), lr=RATE, weight_decay=DECAY)
schedule = get_cosine_schedule_with_warmup(optimizer, math.ceil(RATIO * STEPS), STEPS)
for step in range(STEPS):
    # Odd steps stay below the limit, even ones are clipped.
    for parameter in parameters.values():
        parameter.grad = torch.randn_like(parameter) * (0.05 if step % 2 else 1.0)
    gradients = flat({path: parameter.grad for path, parameter in parameters.items()})
    norm = torch.nn.utils.clip_grad_norm_(parameters.values(), MAX_NORM).item()
    rate = schedule.get_last_lr()[0]
    optimizer.step()
    schedule.step()
    result["steps"].append(
        {"gradients": gradients, "norm": norm, "learning_rate": rate, "parameters": flat(parameters)}
    )
Path(__file__).with_suffix(".json").write_text(json.dumps(result) + "\n")
