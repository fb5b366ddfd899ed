"""Cuts tokenizers down to what the tests need, and writes what transformers makes of the tests' texts.

    python text.py NAME=DIR …

Every DIR holds a checkpoint's `tokenizer.json` and `tokenizer_config.json` (NAME is `llama` or `mistral`). Ids, order of
merges and everything else stay; only vocabulary that cannot occur in the texts goes. Writes `text/NAME/tokenizer.json`,
`text/NAME/tokenizer_config.json` and `text/NAME/expected.json`, `[text, ids]` each; also, from `text/llama`,
`text/added.json`: added tokens of every kind, and `[text, ids]` with them. Needs the transformers of requirements.txt.
"""

import json
import pathlib
import re
import sys

from tokenizers import Tokenizer
from transformers import LlamaTokenizerFast, PreTrainedTokenizerFast

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
# Not tokenized as special tokens where a person wrote them.
SPELLED = ["a </s> b", "<s>", "<image> <unk>"]


def token(id, content, **flags):
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    return {"id": id, "content": content, **plain, **flags}


# Tokens that are not special, and texts in which they stand, or do not.
ADDED = [
    ([token(32001, "cat", single_word=True)],
     ["cat", "a cat", "concat", "cats", "a cat.", "cat_", "cat\u00e9", "cat\u0301", "cat\u00b2", "cat\u2160", "cat\u200dcat", "cat cat", "\U0001f408cat"]),
    ([token(32001, "cat", single_word=True, normalized=True)], ["cat", "a cat", "cats", "a cat.", "cat\u00b2", "cat cat"]),
    ([token(32001, "concat", single_word=True), token(32002, "cat")], ["concats", "a concat", "concats cat"]),
    ([token(32001, "<l>", lstrip=True), token(32002, "<r>", rstrip=True), token(32003, "<b>", lstrip=True, rstrip=True)],
     ["a <l> a", "a <r> a", "a <b> a", "<b> <b>", " <l>", "<r> ", "<r>  <l>", "a\n<b>\ta", "a\u00a0<l>"]),
    ([token(32001, "<n>", normalized=True, lstrip=True, rstrip=True)], ["a <n> a", "<n>", " <n> ", "a<n>a"]),
    ([token(32001, "is", normalized=True), token(32002, "sat", normalized=True)], [" isat", "isat sat", "a sat is"]),
    ([token(32001, "ca"), token(32002, "catis"), token(32003, "tis")], ["catis", "cati", "catcatis"]),
]


def added():
    folder = pathlib.Path(__file__).parent / "text"
    whole = json.loads((folder / "llama/tokenizer.json").read_text())
    own = whole["added_tokens"]
    cases = []
    for tokens, texts in ADDED:
        whole["added_tokens"] = own + tokens
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(whole)))
        cases.append([tokens, [[text, tokenizer(text).input_ids] for text in texts]])
    (folder / "added.json").write_text("[\n" + ",\n".join(map(json.dumps, cases)) + "\n]\n")


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
    added()


def encode(folder):
    tokenizer = LlamaTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), add_bos_token=True)
    spelled = LlamaTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), add_bos_token=True,
                                 split_special_tokens=True)
    spelled._tokenizer.encode_special_tokens = True
    return ([[text, tokenizer(text).input_ids] for text in TEXTS]
            + [[text, spelled(text).input_ids] for text in SPELLED])


if __name__ == "__main__":
    main()
