"""Cross-entropy over answer tokens and STIC's regularized DPO loss, with gradients for the logits, by PyTorch.

Writes losses.json beside this file. Needs the torch of requirements.txt.
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F

VOCABULARY, BETA, CHOSEN_WEIGHT = 5, 0.1, 1 / 1024

torch.manual_seed(11)
logits = (torch.randn(4, 6, VOCABULARY) * 2).requires_grad_()
labels = torch.randint(VOCABULARY, (4, 6))
for sequence, (start, end) in enumerate([(2, 5), (3, 6), (1, 6), (4, 5)]):
    labels[sequence, :start] = -100
    labels[sequence, end:] = -100

shifted, targets = logits[:, :-1], labels[:, 1:]
loss = F.cross_entropy(shifted.reshape(-1, VOCABULARY), targets.reshape(-1), ignore_index=-100)
sft = {"loss": loss.item(), "gradient": torch.autograd.grad(loss, logits)[0].tolist()}

mask = targets != -100
tokens = torch.gather(shifted.log_softmax(-1), 2, targets.clamp(min=0).unsqueeze(2)).squeeze(2)
sums = (tokens * mask).sum(-1)
reference = sums.detach() + torch.tensor([-3.0, 2.0, 0.5, -4.0])
chosen, rejected = sums[0::2], sums[1::2]
z = BETA * (chosen - reference[0::2]) - BETA * (rejected - reference[1::2])
loss = (-F.logsigmoid(z) - CHOSEN_WEIGHT * chosen).mean()
dpo = {"loss": loss.item(), "gradient": torch.autograd.grad(loss, logits)[0].tolist()}

result = {
    "vocabulary": VOCABULARY,
    "logits": logits.tolist(),
    "labels": labels.tolist(),
    "sft": sft,
    "beta": BETA,
    "chosen_weight": CHOSEN_WEIGHT,
    "reference": reference.tolist(),
    "dpo": dpo,
}
Path(__file__).with_suffix(".json").write_text(json.dumps(result) + "\n")
