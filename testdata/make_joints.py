"""Makes golden/joints.json: where a text ends and its label begins, and what the labels are worth.

    python make_joints.py

Pinned versions (checked at start): torch 2.15.0   transformers 5.24.0   tokenizers 0.23.3

`tokens`: for each tokenizer, texts with the strings of their labels. A text and a label are tokenised as one text, with never
two spaces between them; the context is what the text alone and all of those agree on, the rest of each is its label's.
`scores`: log P(label | text) by transformers in float64, under the full softmax; for a label that others continue, times the
probability that none of their tokens follows. Files in ../shared are named where they lie beside the repository; the numbers of
others stay as they are.
"""

import json
import math
import sys
from pathlib import Path

import tokenizers
import torch
import transformers
from transformers import AutoModelForCausalLM

from golden_common import Tokenizer

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "testdata/golden/joints.json"
PINNED = {torch: "2.15.0", transformers: "5.24.0", tokenizers: "0.23.3"}

TOKENIZERS = [
    "crates/foreword-tiny",
    "testdata/chat/byte-level.json",
    "testdata/chat/words-first.json",
    "testdata/chat/words-legacy.json",
    "testdata/models/gpt2-tiny",
    "../shared/models/stories260K",
    "../shared/tokenizers/t5",
]
TEXTS = [
    ("A fine film.\nSentiment:", [" negative", " positive"]),
    ("A fine film.\nSentiment: ", [" negative", " positive"]),
    ("A fine film.\nSentiment: ", ["negative", "positive"]),
    ("A fine film.\nSentiment:", ["negative", "positive"]),
    ("A fine film.\nSentiment:\n", ["negative", "positive"]),
    ("a big dog:", ["\nhappy", "\nsad"]),
    ("a big dog\n", ["happy", "sad"]),
    ("a big dog:", [" happy", "happy"]),
    ("Rating: ", ["1", "2", "10"]),
    ("a review  ", [" good", " bad"]),
    ("un", ["believable", " good"]),
    ("Is it? (", ["a", "b"]),
    ("The end:", [":)", " (sad)", "!"]),
    ("été", ["é", " à", "́"]),
    ("def f():\n    ", ["pass", "return"]),
]
SCORES = [
    ("crates/foreword-tiny", "A fine film.\nSentiment:", [" negative", " positive"]),
    ("crates/foreword-tiny", "A fine film.\nSentiment: ", ["negative", "positive"]),
    ("crates/foreword-tiny", "Please refund order 7\nLabel:", [" 3", " 33", " 4"]),
    ("crates/foreword-tiny", "Buy now!\nLabel:", [" spam", " spam not at all", " spam not"]),
    ("crates/foreword-tiny", "A fine film.\nSentiment:\n", ["negative", "positive"]),
    ("testdata/models/gpt2-tiny", "un", ["believable", " good"]),
    ("../shared/models/stories260K", "a big dog:", ["\nhappy", "\nsad"]),
    ("../shared/models/stories260K", "a big dog\n", ["happy", "sad"]),
    ("../shared/models/stories260K", "a big dog:", [" happy", "happy"]),
]


def path(name):
    """The tokenizer.json of a name, or None where it is not here."""
    file = ROOT / name if name.endswith(".json") else ROOT / name / "tokenizer.json"
    return file if file.exists() else None


@torch.no_grad()
def score(model, context, labels):
    """log P of each label, ended where another one goes on."""
    def log_probabilities(ids):
        return torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)

    scores = []
    for label in labels:
        table = log_probabilities(context + label)
        score = sum(table[len(context) - 1 + i, token].item() for i, token in enumerate(label))
        onward = {other[len(label)] for other in labels if len(other) > len(label) and other[: len(label)] == label}
        if onward:
            score += math.log1p(-sum(table[-1, token].exp().item() for token in onward))
        scores.append(score)
    return scores


def main():
    for package, version in PINNED.items():
        if package.__version__.split("+")[0] != version:
            sys.exit(f"{package.__name__} is {package.__version__}, not {version}")
    before = json.loads(OUT.read_text()) if OUT.exists() else {"tokens": [], "scores": []}
    kept = lambda part, name: [case for case in before[part] if case["model"] == name]
    tokens, scores = [], []
    for name in TOKENIZERS:
        if path(name) is None:
            tokens += kept("tokens", name)
            continue
        tokenizer = Tokenizer(path(name))
        for text, labels in TEXTS:
            context, answers = tokenizer.join(text, labels)
            if context and all(answers):
                tokens.append({"model": name, "text": text, "labels": labels, "context": context, "answers": answers})
    for name in dict.fromkeys(name for name, _, _ in SCORES):
        if path(name) is None:
            scores += kept("scores", name)
            continue
        tokenizer = Tokenizer(path(name))
        model = AutoModelForCausalLM.from_pretrained(ROOT / name, dtype=torch.float64, attn_implementation="eager").eval()
        for of, text, labels in SCORES:
            if of == name:
                log_likelihoods = score(model, *tokenizer.join(text, labels))
                scores.append({"model": name, "text": text, "labels": labels, "log_likelihoods": log_likelihoods})
    lines = lambda cases: ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    OUT.write_text(f'{{"tokens": [\n{lines(tokens)}\n],\n"scores": [\n{lines(scores)}\n]}}\n')


if __name__ == "__main__":
    main()
