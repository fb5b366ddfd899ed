"""Writes adapter settings as the installed PEFT saves them, and what trainings leave beside adapters.

    pip install peft==0.11.1 && python peft_files.py
    pip install peft==0.14.0 && python peft_files.py
    pip install -r requirements.txt && python peft_files.py

`peft/VERSION.json` has every field of that version's `LoraConfig`, all but rank, alpha and targets by default.
The pickles are `non_lora_trainables.bin` as LLaVA's trainer writes it: without tensors (both formats of `torch.save`), and
with a trained projector.
"""

import tempfile
from pathlib import Path

import peft
import torch

folder = Path(__file__).parent / "peft"
folder.mkdir(exist_ok=True)
with tempfile.TemporaryDirectory() as saved:
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj"], task_type="CAUSAL_LM")
    config.save_pretrained(saved)
    (folder / f"{peft.__version__}.json").write_text((Path(saved) / "adapter_config.json").read_text() + "\n")
torch.save({}, folder / "empty.bin")
torch.save({}, folder / "empty_old.bin", _use_new_zipfile_serialization=False)
torch.save({"model.mm_projector.0.bias": torch.zeros(2)}, folder / "projector.bin")
