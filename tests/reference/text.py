"""Cuts tokenizers down to what the tests need, and writes what transformers makes of the tests' texts.

    python text.py NAME=DIR …

Every DIR holds a checkpoint's `tokenizer.json` and `tokenizer_config.json` (NAME is `llama` or `mistral`). Ids, order of
merges and everything else stay; only vocabulary that cannot occur in the texts goes. Writes `text/NAME/tokenizer.json`,
`text/NAME/tokenizer_config.json` and `text/NAME/expected.json`, `[text, ids]` each. Needs the transformers of requirements.txt.
"""

import json
import pathlib
import re
import sys

from transformers import LlamaTokenizerFast

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
TEXTS = [
    "[INST] <image>\nWhat is this? [/INST]",
    "[INST] <image>\nWhat is this? [/INST] A cat. </s>",
    "[INST] <image>\nQ one? [/INST] Yes </s>[INST] And two? [/INST] No. </s>",
    SYSTEM + " USER: <image>\nWhat is this? ASSISTANT:",
    SYSTEM + " USER: <image>\nWhat is this? ASSISTANT: A cat.</s>",
    SYSTEM + " USER: <image>\nQ one? ASSISTANT: Yes</s>USER: And two? ASSISTANT: No.</s>",
    "<image>A cat.\n",
    "12 \u00e9t\u00e9s \U0001f408",
]
# Not tokenised as special tokens where a person wrote them.
SPELLED = ["a </s> b", "<s>", "<image> <unk>"]


def main():
    for argument in sys.argv[1:]:
        name, folder = argument.split("=", 1)
        target = pathlib.Path(__file__).parent / "text" / name
        target.mkdir(parents=True, exist_ok=True)
        source = pathlib.Path(folder)
        whole = json.loads((source / "tokenizer.json").read_text())
        config = json.loads((source / "tokenizer_config.json").read_text())
        token = {"id": 32000, "content": "<image>", "single_word": False, "lstrip": False, "rstrip": False,
                 "normalized": False, "special": True}
        whole["added_tokens"].append(token)
        (target / "tokenizer.json").write_text(json.dumps(whole))
        config = {key: config[key] for key in ("add_bos_token", "bos_token", "eos_token", "unk_token", "tokenizer_class")}
        (target / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
        expected = encode(target)

        # Every piece between special tokens gets a blank in front.
        seen = ["▁" + text.replace(" ", "▁") for text in TEXTS + SPELLED]
        seen += ["▁" + piece.replace(" ", "▁") for text in TEXTS for piece in re.split("</s>|<image>", text)]
        kept = {piece: id for piece, id in whole["model"]["vocab"].items()
                if id < 259 or any(piece in text for text in seen)}
        kept["<image>"] = token["id"]  # an added token beyond the vocabulary would get the next free id
        merges = [merge if isinstance(merge, list) else merge.split(" ") for merge in whole["model"]["merges"]]
        whole["model"]["vocab"] = kept
        whole["model"]["merges"] = [merge for merge in merges
                                    if merge[0] in kept and merge[1] in kept and "".join(merge) in kept]
        (target / "tokenizer.json").write_text(json.dumps(whole, ensure_ascii=False, separators=(",", ":")) + "\n")
        assert encode(target) == expected, "the tokenizer was cut down too far"
        lines = ",\n".join(json.dumps(pair, ensure_ascii=False) for pair in expected)
        (target / "expected.json").write_text(f"[\n{lines}\n]\n")


def encode(folder):
    tokenizer = LlamaTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), add_bos_token=True)
    spelled = LlamaTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), add_bos_token=True,
                                 split_special_tokens=True)
    spelled._tokenizer.encode_special_tokens = True
    return ([[text, tokenizer(text).input_ids] for text in TEXTS]
            + [[text, spelled(text).input_ids] for text in SPELLED])


if __name__ == "__main__":
    main()
