"""Scores labels with PEFT, from a prompt directory that Foreword wrote, and compares.

    python check_with_peft.py MODEL_DIR PROMPT_DIR DATA.jsonl --template '{text}\\nLabel:' \\
        --labels 'negative= negative,positive= positive' [--expect OURS.jsonl]

Prints one JSON line per text: {"text": …, "log_likelihoods": {label: value}}. `--expect` names the output of
`foreword classify --json` on the same data; the exit status is 1 when a value differs by more than 1e-4 of the
text's largest log-likelihood.
"""

import argparse
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

from golden_common import Tokenizer, load_model, log_likelihoods, parse_labels, read_jsonl, render


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("prompt", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--template", default="{text}\nLabel:", help=r"\n stands for a newline")
    parser.add_argument("--labels", required=True, type=parse_labels)
    parser.add_argument("--expect", type=Path)
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument("--limit", type=int, help="only the first N texts")
    args = parser.parse_args()

    from peft import PeftModel

    tokenizer = Tokenizer(args.model / "tokenizer.json")
    model = PeftModel.from_pretrained(load_model(args.model), str(args.prompt.resolve())).eval()
    template = args.template.replace("\\n", "\n")

    found = []
    for row in read_jsonl(args.data)[: args.limit]:
        context, answers = tokenizer.join(render(template, row), args.labels.values())
        scores = log_likelihoods(model, context, dict(zip(args.labels, answers)))
        found.append({"text": row.get("text"), "log_likelihoods": scores})
        print(json.dumps(found[-1], ensure_ascii=False), flush=True)

    if args.expect:
        expected = [row for row in read_jsonl(args.expect) if "log_likelihoods" in row]
        sys.exit(compare(found, expected, args.tolerance))


def compare(found, expected, tolerance):
    """Prints the worst difference on stderr.  -> exit status"""
    if not found or len(found) != len(expected):
        print(f"error: {len(found)} texts here, {len(expected)} expected lines", file=sys.stderr)
        return 1
    worst = (-1.0, "", None, None, None)
    failed = False
    for ours, theirs in zip(found, expected):
        here, there = ours["log_likelihoods"], theirs["log_likelihoods"]
        if here.keys() != there.keys() or theirs.get("text", ours["text"]) != ours["text"]:
            print(f"error: text or labels differ: {ours} and {theirs}", file=sys.stderr)
            return 1
        scale = max(max(map(abs, here.values())), 1e-6)
        for name in here:
            difference = abs(here[name] - there[name]) / scale
            failed |= not difference <= tolerance  # a NaN fails too
            if not difference <= worst[0]:
                worst = (difference, ours["text"], name, here[name], there[name])
    difference, text, name, here, there = worst
    print(f"worst relative difference {difference:.2e}: {name} of {text!r}: PEFT {here}, expected {there}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    main()
