"""Pictures of many shapes by both rules of `anyres`: transformers', and the original repository's.

    python anyres.py        (after make.py)

Writes, beside this file,

- anyres_counts.txt: a line for each of 2,000 random sizes: width, height, and the image tokens that transformers counts
  and that the original rule counts, at a tower of 336 pixels with 24 patches a side and at the one of `llava_next/`;
- anyres.json: for each of some fifty shapes of the ramp picture, by either rule, the number of image tokens, SHA-256 of
  the 8-bit levels of all views and a few of the logits of the last position, by the model in `llava_next/`; for some of
  them also the levels at 336 pixels.

transformers' pixels are those of its Pillow processor. The original rule is written down here from its description; the
rows are packed by this script and go through transformers' tower, projector and decoder.
"""

import hashlib
import json
import math
import random

import numpy as np
import torch
from make import HERE, MEAN, QUESTION, STD, levels, scale_across_first
from PIL import Image
from transformers import LlavaNextForConditionalGeneration, LlavaNextImageProcessorPil, LlavaNextProcessor

# Near square, portrait and landscape, odd remainders on either axis, ties, tiny, extreme, and those whose padding or
# rounding is known to have gone wrong somewhere.
SHAPES = [
    (640, 427), (427, 640), (300, 200), (200, 300), (640, 480), (480, 640), (500, 375), (375, 500), (612, 612),
    (25, 25), (48, 48), (49, 49), (47, 47), (96, 96), (97, 97), (95, 97), (97, 95), (60, 56), (56, 60), (51, 64),
    (64, 51), (99, 70), (70, 99), (101, 67), (67, 101), (103, 59), (59, 103), (110, 73), (73, 110), (133, 100),
    (100, 133), (150, 44), (44, 150), (151, 45), (45, 151), (145, 47), (47, 145), (200, 31), (31, 200), (588, 49),
    (49, 588), (300, 5), (5, 300), (1, 1), (2, 1), (1, 2), (3, 3), (500, 1), (1, 500), (20, 13), (13, 20), (7, 90),
    (90, 7), (704, 396), (396, 704), (352, 748), (748, 352),
]
# At 336 pixels few, as these are large: odd padding, a tie, and one of which no line of patches is left.
LARGE = [(427, 640), (300, 200), (588, 49)]


def ramps(width, height):
    y, x = np.mgrid[0:height, 0:width]
    values = np.stack([(7 * x + 13 * y) % 256, (3 * x + 5 * y + 40) % 256, (x * x + y * y) // 8 % 256], axis=-1)
    return Image.fromarray(values.astype(np.uint8))


class Original:
    """The original rule: resolutions are (width, height), kept sides are truncated."""

    def __init__(self, size, patches, resolutions):
        self.size, self.patches, self.resolutions = size, patches, resolutions

    def best(self, width, height):
        def key(resolution):
            scale = min(resolution[0] / width, resolution[1] / height)
            shown = min(int(width * scale) * int(height * scale), width * height)
            return -shown, resolution[0] * resolution[1] - shown

        return min(self.resolutions, key=key)  # the first of equal ones

    def views(self, picture):
        width, height = picture.size
        across, down = self.best(width, height)
        if across / width < down / height:
            scaled = across, min(math.ceil(height * (across / width)), down)
        else:
            scaled = min(math.ceil(width * (down / height)), across), down
        canvas = Image.new("RGB", (across, down))
        canvas.paste(picture.resize(scaled, Image.BICUBIC), ((across - scaled[0]) // 2, (down - scaled[1]) // 2))
        views = [picture.resize((self.size, self.size), Image.BICUBIC)]
        for y in range(0, down, self.size):
            views += [canvas.crop((x, y, x + self.size, y + self.size)) for x in range(0, across, self.size)]
        return torch.from_numpy(np.stack([np.asarray(view).transpose(2, 0, 1) for view in views]))

    def kept(self, width, height):
        """First and one past the last of the lines and columns of patches that are not padding."""
        across, down = (side // self.size * self.patches for side in self.best(width, height))
        if width / height > across / down:
            padding = (down - int(height * (across / width))) // 2
            return (padding, down - padding), (0, across)
        padding = (across - int(width * (down / height))) // 2
        return (0, down), (padding, across - padding)

    def count(self, width, height):
        (top, bottom), (left, right) = self.kept(width, height)
        return self.patches**2 + (bottom - top) * (right - left + 1)

    def rows(self, patches, newline, width, height):
        """`patches`: [views, patches, features], projected. The rows that stand for the picture."""
        across, down = (side // self.size for side in self.best(width, height))
        side = self.patches
        grid = patches[1:].reshape(down, across, side, side, -1).transpose(1, 2).reshape(down * side, across * side, -1)
        (top, bottom), (left, right) = self.kept(width, height)
        grid = grid[top:bottom, left:right]
        grid = torch.cat([grid, newline.expand(len(grid), 1, -1)], 1)
        return torch.cat([patches[0], grid.flatten(0, 1)])


def digest(views):
    return hashlib.sha256(np.ascontiguousarray(views.numpy()).tobytes()).hexdigest()


def main():
    scale_across_first()
    torch.set_num_threads(1)
    folder = HERE / "llava_next"
    model = LlavaNextForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    processor = LlavaNextProcessor.from_pretrained(folder)
    processor.image_processor = small = LlavaNextImageProcessorPil.from_pretrained(folder)
    large = LlavaNextImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})
    by_size = {
        48: (small, Original(48, 3, small.image_grid_pinpoints)), 336: (large, Original(336, 24, large.image_grid_pinpoints))
    }

    def counted(width, height, size):
        """By both rules."""
        images, original = by_size[size]
        asking = LlavaNextProcessor(
            images, processor.tokenizer, patch_size=size // original.patches, vision_feature_select_strategy="default",
            num_additional_image_tokens=1, image_token="<image>",
        )
        theirs = asking._get_number_of_features(height, width, size, size) - 1
        return theirs, original.count(width, height)

    generator = random.Random(5)
    lines = []
    for index in range(2000):
        # Half of the sizes are those of small pictures, where a pixel matters most.
        most = (1300, 120)[index % 2]
        width, height = generator.randint(1, most), generator.randint(1, most)
        numbers = [width, height, *counted(width, height, 336), *counted(width, height, 48)]
        lines.append(" ".join(map(str, numbers)) + "\n")
    (HERE / "anyres_counts.txt").write_text("".join(lines))

    def asked(rows):
        return processor.tokenizer(QUESTION.replace("<image>", "<image>" * rows), return_tensors="pt")["input_ids"]

    def shown(logits):
        return [round(value, 5) for value in logits[0, -1, ::48].tolist()]

    cases = []
    with torch.no_grad():
        for width, height in SHAPES:
            picture = ramps(width, height)
            inputs = processor(images=picture, text=QUESTION, return_tensors="pt")
            views = inputs["pixel_values"][0]
            count = int((inputs["input_ids"] == model.config.image_token_index).sum())
            assert count == counted(width, height, 48)[0]
            found = {"rows": count, "views": digest(levels(views)), "logits": shown(model(**inputs).logits)}
            case = {"size": [width, height], "huggingface": found}

            original = by_size[48][1]
            views = original.views(picture)
            features = model.model.vision_tower(normalized(views), output_hidden_states=True).hidden_states[-2][:, 1:]
            rows = original.rows(
                model.model.multi_modal_projector(features), model.model.image_newline, width, height
            )
            assert len(rows) == original.count(width, height)
            ids = asked(len(rows))
            embedded = model.get_input_embeddings()(ids)
            embedded[ids == model.config.image_token_index] = rows
            found = {"rows": len(rows), "views": digest(views), "logits": shown(model(inputs_embeds=embedded).logits)}
            case["original"] = found

            if (width, height) in LARGE:
                images, original = by_size[336]
                views = torch.from_numpy(np.asarray(images(picture)["pixel_values"][0]))
                case["huggingface_336"] = {"rows": counted(width, height, 336)[0], "views": digest(levels(views))}
                case["original_336"] = {"rows": original.count(width, height), "views": digest(original.views(picture))}
            cases.append(json.dumps(case))
    (HERE / "anyres.json").write_text("[\n" + ",\n".join(cases) + "\n]\n")


def normalized(views):
    scaled = (views.numpy().astype(np.float64) * (1 / 255)).astype(np.float32)
    return torch.from_numpy((scaled - MEAN[:, None, None]) / STD[:, None, None])


if __name__ == "__main__":
    main()
