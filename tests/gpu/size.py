"""What is computed at which size, and what the device has to do for it at least."""

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


class Failed(Exception):
    """A part cannot go on, and why."""


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
