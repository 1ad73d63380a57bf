"""What transformers makes of tokenizers of the older kind: vocab.json and merges.txt, without tokenizer.json.

Writes testdata/tokens/vocab_files.json. The tests read that and need no Python. In the virtual environment of
make_token_golden.py:

    python testdata/make_vocab_golden.py
"""

import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from transformers import AutoTokenizer

HERE = Path(__file__).resolve().parent
OUT = HERE / "tokens" / "vocab_files.json"
PINNED = {"transformers": "5.24.0", "tokenizers": "0.23.3"}
TEMPLATE = "{{ bos_token }}[{{ messages[0].content }}]{{ eos_token }}"


def token(content, **flags):
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True} | flags


TEXTS = [
    "I like it, don't I?", "1234567 12 3", "a  b   c\n\n d\t\te \n", "naïve 好看。 cafe\u0301 😀", "", " ", "<|im_start|>user\nhello<|im_end|>\n",
    "<s>a</s> <|endoftext|> b", "the [PAD] of [ASPECT]  it", "$5.00 + 3 = 8; DON'T", "  two  spaces",
]

# name, model_type, tokenizer_config.json, special_tokens_map.json, added_tokens.json
CASES = [
    ("gpt2-alone", "gpt2", None, None, None),
    ("gpt2-config", "gpt2", {"tokenizer_class": "GPT2Tokenizer", "model_max_length": 1024}, None, None),
    ("gpt2-fast", "gpt2", {"tokenizer_class": "GPT2TokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<s>"}, None, None),
    ("gpt2-space", "gpt2", {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True}, None, None),
    ("gpt2-bos", "gpt2", {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True, "bos_token": "<s>"}, None, None),
    ("gpt2-new-bos", "gpt2", {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True}, None, None),
    ("gpt2-eos", "gpt2", {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True, "add_eos_token": True, "bos_token": "<s>",
                          "eos_token": "</s>"}, None, None),
    ("gpt2-added", "gpt2", {"tokenizer_class": "GPT2Tokenizer"}, {"pad_token": "[PAD]"}, {"[PAD]": "{n}", "[ASPECT]": "{n+1}"}),
    ("gpt-neo", "gpt_neo", {"errors": "replace", "add_prefix_space": False}, {"bos_token": "<|endoftext|>"}, None),
    ("gptj", "gptj", None, {"bos_token": token("<s>"), "eos_token": token("</s>", normalized=True)}, None),
    ("opt", "opt", {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True, "errors": "replace",
                    "bos_token": {"__type": "AddedToken", **token("</s>", normalized=True)}, "eos_token": token("</s>", normalized=True),
                    "unk_token": token("</s>", normalized=True), "pad_token": "<s>"},
     {"bos_token": token("</s>", normalized=True), "eos_token": token("</s>", normalized=True), "unk_token": token("</s>", normalized=True),
      "pad_token": token("<s>", normalized=True)}, None),
    ("opt-alone", "opt", None, {"bos_token": "</s>"}, None),
    ("phi", "phi", {"tokenizer_class": "CodeGenTokenizer", "add_prefix_space": False}, None, {"[PAD]": "{n+1}", "[ASPECT]": "{n}"}),
    ("codegen-decoder", "phi", {"tokenizer_class": "CodeGenTokenizer", "added_tokens_decoder": {
        "{n}": token("[PAD]"), "{n+1}": token("[ASPECT]", special=False, normalized=True)}}, {"bos_token": "<s>"}, None),
    ("qwen2", "qwen2", {"tokenizer_class": "Qwen2Tokenizer", "bos_token": None, "eos_token": "<|im_end|>", "pad_token": "[PAD]",
                        "unk_token": None, "additional_special_tokens": ["<|im_start|>", "<|im_end|>"]}, None, None),
    ("qwen2-alone", "qwen2", None, None, None),
    ("qwen3-decoder", "qwen3", {"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": {
        "{n}": token("<|endoftext|>"), "{n+1}": token("[ASPECT]", special=False)}, "eos_token": "<|endoftext|>"}, None, None),
    ("llama-by-class", "llama", {"tokenizer_class": "GPT2TokenizerFast", "eos_token": "</s>", "bos_token": "<s>", "unk_token": "<s>"}, None, None),
]


def filled(value, n):
    if isinstance(value, dict):
        return {filled(k, n): filled(v, n) for k, v in value.items()}
    if value in ("{n}", "{n+1}"):
        return str(n + (value == "{n+1}"))
    return value


def main():
    versions = {name: version(name) for name in PINNED}
    if versions != PINNED and "--any-version" not in sys.argv:
        sys.exit(f"error: other versions than pinned: {versions}; wanted {PINNED} (--any-version goes on)")
    source = json.loads((HERE / "chat" / "byte-level.json").read_text())
    vocabulary = source["model"]["vocab"] | {token["content"]: token["id"] for token in source["added_tokens"]}
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in source["model"]["merges"]]
    n, cases = len(vocabulary), []
    assert sorted(vocabulary.values()) == list(range(n))
    for name, model_type, config, special_map, added in CASES:
        config, special_map = filled(config, n), filled(special_map, n)
        added = added and {k: int(v) for k, v in filled(added, n).items()}
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            (folder / "vocab.json").write_text(json.dumps(vocabulary))
            (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
            for file, content in [("config.json", {"model_type": model_type}), ("tokenizer_config.json", config),
                                  ("special_tokens_map.json", special_map), ("added_tokens.json", added)]:
                if content is not None:
                    (folder / file).write_text(json.dumps(content))
            loaded = AutoTokenizer.from_pretrained(folder)
            ids = [loaded(text)["input_ids"] for text in TEXTS]
            rendered = loaded.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False, chat_template=TEMPLATE)
        print(name, type(loaded).__name__, rendered, len(loaded), loaded("")["input_ids"])
        cases.append({"name": name, "model_type": model_type, "config": config, "special_tokens_map": special_map, "added_tokens": added,
                      "rendered": rendered, "ids": ids})
    line = lambda value: json.dumps(value, ensure_ascii=False)
    OUT.write_text(f'{{"versions": {line(versions)},\n "texts": {line(TEXTS)},\n "template": {line(TEMPLATE)},\n'
                   ' "cases": [\n  ' + ",\n  ".join(map(line, cases)) + "]}\n")


main()
