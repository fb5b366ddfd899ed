"""Digests of pixels after torchvision's transforms on Pillow pictures.

    python tests/reference/corruptions.py

writes tests/reference/corruptions.json: name, arguments, size and SHA-256 of size and pixels of the ramp picture
(tests/reference/pictures.py) after each; for the Gaussian blur, whose last bit torch leaves open, a PNG file of the
pixels. torchvision's code for Pillow pictures is the same in 0.16 and in the version of requirements.txt.
"""

import hashlib
import json
import pathlib
import struct

import numpy
from PIL import Image
from torchvision.transforms import functional

HERE = pathlib.Path(__file__).parent


def ramps(width, height):
    y, x = numpy.mgrid[0:height, 0:width]
    values = [(7 * x + 13 * y) % 256, (3 * x + 5 * y + 40) % 256, ((x * x + y * y) // 8) % 256]
    return Image.fromarray(numpy.stack(values, -1).astype(numpy.uint8), "RGB")


def colors():
    """Every 17th value of each channel, and its neighbours."""
    steps = sorted({min(255, max(0, 17 * n + d)) for n in range(16) for d in (-1, 0)})
    grid = numpy.stack(numpy.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, len(steps) ** 2, 3)
    return Image.fromarray(grid.astype(numpy.uint8), "RGB")


def digest(image):
    return hashlib.sha256(struct.pack("<II", *image.size) + image.tobytes()).hexdigest()


def main():
    cases = []
    pictures = {"ramps": ramps(50, 30), "colours": colors()}
    for picture, image in pictures.items():
        for name in ["brightness", "contrast", "saturation", "hue"]:
            factors = [-0.5, -0.3, -0.1, 0.0, 0.1, 0.237, 0.5] if name == "hue" else [0.0, 0.5, 0.73, 1.0, 1.31, 2.5]
            for factor in factors:
                made = getattr(functional, f"adjust_{name}")(image, factor)
                cases.append({"picture": picture, "name": name, "argument": factor, "digest": digest(made)})
        made = functional.rgb_to_grayscale(image, 3)
        cases.append({"picture": picture, "name": "greyscale", "argument": 0.0, "digest": digest(made)})
    for size in [7, 20, 30, 64]:
        made = functional.resize(pictures["ramps"], size)
        cases.append({"picture": "ramps", "name": "low_resolution", "argument": float(size), "digest": digest(made)})
    (HERE / "corruptions.json").write_text(json.dumps(cases, indent=1) + "\n")
    functional.gaussian_blur(ramps(50, 30), 13, 2.0).save(HERE / "blurred.png")


main()
