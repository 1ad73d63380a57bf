"""What the Python scripts share: Foreword's token rules, label scoring, versions.

The token rules are Foreword's own, so they are spelled out here on the `tokenizers` library alone
(`AutoTokenizer` may rebuild a tokenizer instead of reading tokenizer.json):

* a context is tokenised whole; leading special tokens (`<s>`) stay, trailing ones go;
* a text and a label are tokenised as one text, with never two spaces between them: the context is what the
  text alone and the text with each label agree on, the rest is the label's (`join`);
* behind a template that ends in a word, a label with a leading space has the same tokens on its own (`label`).
"""

import importlib.metadata
import json
import platform
from pathlib import Path

import torch
from tokenizers import Tokenizer as RawTokenizer

PACKAGES = ("torch", "transformers", "peft", "tokenizers", "safetensors", "numpy")


def versions():
    """{package: version} of everything that can move a golden number."""
    found = {name: importlib.metadata.version(name).split("+")[0] for name in PACKAGES}
    return {"python": platform.python_version(), **found}


class Tokenizer:
    """tokenizer.json with Foreword's rules for contexts and labels."""

    def __init__(self, path):
        self.raw = RawTokenizer.from_file(str(path))
        self.raw.no_padding()
        self.raw.no_truncation()
        self.pad = next((i for i in map(self.raw.token_to_id, ("<pad>", "</s>")) if i is not None), 0)
        self.adds_space = self.raw.encode("a", add_special_tokens=False).tokens[0][0] in "▁Ġ"
        example = self.raw.encode("a", add_special_tokens=True)
        self.bos = example.ids[0] if example.special_tokens_mask[0] else None

    def context(self, text):
        """-> [T] ids of a whole context."""
        encoding = self.raw.encode(text, add_special_tokens=True)
        end = len(encoding.ids)
        while end > (self.bos is not None) and encoding.special_tokens_mask[end - 1]:
            end -= 1
        return encoding.ids[:end]

    def plain(self, text):
        """-> ids of a label, or of an init text: no special tokens."""
        return self.raw.encode(text, add_special_tokens=False).ids

    def join(self, text, labels):
        """text, label strings -> (ids of the context, ids of each label)"""
        alone = self.context(text)
        both = [self.context(text + (label.lstrip(" ") if text.endswith(" ") else label)) for label in labels]
        n = 0
        while n < len(alone) and all(n < len(ids) and ids[n] == alone[n] for ids in both):
            n += 1
        return alone[:n], [ids[n:] for ids in both]

    def label(self, text):
        return self.plain(text[1:] if self.adds_space and text.startswith(" ") else text)


def read_jsonl(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def render(template, row):
    """`{field}` slots of a template, filled from a row."""
    for field, value in row.items():
        template = template.replace("{" + field + "}", str(value))
    return template


def load_model(directory, attention="eager"):
    """A frozen causal language model in float32."""
    from transformers import AutoModelForCausalLM

    ways = {"attn_implementation": attention, "experts_implementation": "eager"}
    model = AutoModelForCausalLM.from_pretrained(str(directory), dtype=torch.float32, **ways)
    model.eval().requires_grad_(False)
    # PEFT copies this name into adapter_config.json: keep paths out of it.
    model.name_or_path = model.config._name_or_path = Path(directory).name
    return model


def sum_of_log_likelihoods(logits, label):
    """logits: [T, V] of a sequence that ends in the label.  -> scalar, sum over the label's tokens."""
    rows = logits[-len(label) - 1 : -1].log_softmax(-1)
    return rows.gather(-1, torch.tensor(label).unsqueeze(-1)).sum()


@torch.no_grad()
def log_likelihoods(model, context, labels):
    """context: [T] ids, labels: {name: ids}.  -> {name: log-likelihood}, one sequence at a time, no padding."""
    scores = {}
    for name, label in labels.items():
        logits = model(input_ids=torch.tensor([context + label]), use_cache=False).logits[0]
        scores[name] = sum_of_log_likelihoods(logits, label).item()
    return scores


def right_padded(rows, pad):
    """rows: list of id lists.  -> input_ids [B, T], attention_mask [B, T]."""
    width = max(map(len, rows))
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return ids, mask


def parse_labels(text):
    """'negative= negative,positive= positive' -> {"negative": " negative", "positive": " positive"}"""
    pairs = [part.split("=", 1) for part in text.split(",")]
    if any(len(pair) != 2 for pair in pairs):
        raise SystemExit(f"--labels wants name=string,name=string and got {text!r}")
    return {name.strip(): string for name, string in pairs}
