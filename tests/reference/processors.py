"""Sums of the levels that transformers' image processors make of the ramp picture, for settings other than LLaVA's.

    python processors.py

Writes processors.json beside this file: mode, `size` of the processor, size of the picture, and for each channel the
sum of the 8-bit levels over all views of 336 pixels.
"""

import json

import numpy as np
from anyres import ramps
from make import HERE, levels, scale_across_first
from transformers import CLIPImageProcessorPil, LlavaImageProcessorPil, LlavaNextImageProcessorPil

EDGE, SMALL, EXACTLY = {"shortest_edge": 400}, {"shortest_edge": 301}, {"height": 400, "width": 310}
CASES = {
    "crop": [
        (EDGE, (50, 30)), (EDGE, (641, 480)), (EDGE, (30, 4000)), (SMALL, (50, 30)), (SMALL, (641, 480)),
        (EXACTLY, (50, 30)), (EXACTLY, (641, 480)),
    ],
    "pad": [(EDGE, (50, 30)), (EDGE, (641, 480)), (EXACTLY, (50, 30)), (EXACTLY, (641, 480))],
    "anyres": [(EDGE, (50, 30)), (EDGE, (641, 480)), (EDGE, (427, 640)), (EXACTLY, (50, 30)), (EXACTLY, (641, 480))],
}
MODES = {"crop": CLIPImageProcessorPil, "pad": LlavaImageProcessorPil, "anyres": LlavaNextImageProcessorPil}

scale_across_first()
lines = []
for mode, cases in CASES.items():
    for size, picture in cases:
        processor = MODES[mode](size=size, crop_size={"height": 336, "width": 336}, do_pad=mode != "crop")
        views = np.asarray(processor(ramps(*picture), return_tensors="np")["pixel_values"])
        views = levels(views.reshape(-1, *views.shape[-3:])).numpy().astype(np.int64)
        case = {"mode": mode, "size": size, "picture": picture, "sums": views.sum(axis=(0, 2, 3)).tolist()}
        lines.append(json.dumps(case))
(HERE / "processors.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")
