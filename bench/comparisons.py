"""Makes the tables of docs/comparisons.md: what the bundled model learns beside what costs no training, on four tasks.

    python3 bench/comparisons.py --data DATA --work WORK [--foreword PATH] [--tasks sst2 …] [--seeds 0 1] [--steps N]

DATA holds the folders sst2_sentences, ag_news, cola and sms_spam with JSONL files of "text" and "label". Drawn with a fixed seed:
1,000 examples to learn from (a tenth of which Foreword keeps aside as dev) and 500 to measure on. Learned are a soft prompt with
each seed, a KV prefix, and the best three of eight candidates, which are an ensemble; the first soft prompt is what the others are
tested against. Only the standard library is needed. Called again it goes on with what is missing; for other --steps take another
WORK.
"""

import argparse
import json
import pathlib
import random
import subprocess
import sys

TASKS = {
    "sst2": ("sst2_sentences/train.jsonl", "sst2_sentences/test.jsonl", "{text}\nSentiment:"),
    "ag_news": ("ag_news/dev.jsonl", "ag_news/test.jsonl", "{text}\nTopic:"),
    "cola": ("cola/train.jsonl", "cola/val.jsonl", "{text}\nLabel:"),
    "sms_spam": ("sms_spam/all.jsonl", None, "{text}\nLabel:"),
}
HEADINGS = ["row", "accuracy", "content-free", "batch", "macro F1", "loss", "learned numbers", "bytes", "training, s"]
HEADINGS += ["tokens before", "ms/text", "first prompt's lead, points", "p"]
N_TRAIN, N_TEST, DRAWN_BY = 1000, 500, 13


def read(path):
    with open(path, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file if line.strip()]
    # Each text once.
    return list({row["text"].strip(): row for row in rows}.values())


def write(path, rows):
    with open(path, "w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps({"text": row["text"], "label": row["label"]}, ensure_ascii=False) + "\n")


def prepare(data, folder, train, test, template):
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(DRAWN_BY)
    rows = read(data / train)
    draw.shuffle(rows)
    if test is None:
        held_out, rows = rows[:N_TEST], rows[N_TEST:]
    else:
        known = {row["text"].strip() for row in rows}
        held_out = [row for row in read(data / test) if row["text"].strip() not in known]
        draw.shuffle(held_out)
    write(folder / "train.jsonl", rows[:N_TRAIN])
    write(folder / "test.jsonl", held_out[:N_TEST])
    (folder / "task.toml").write_text(
        '[data]\ntrain = "train.jsonl"\ntest = "test.jsonl"\n[task]\ntemplate = ' + json.dumps(template) + "\n"
    )


def learned(seeds):
    """What is trained, from its directory to its flags; the reference first."""
    prompts = {f"seed-{seed}": ["--seed", str(seed)] for seed in seeds}
    first = ["--seed", str(seeds[0])]
    prompts["kv-prefix"] = ["--method", "prefix", *first]
    prompts["candidates"] = ["--candidates", "8", "--ensemble", "3", *first]
    return prompts


def table(name, runs):
    raw = runs["none"]
    lines = [
        f"== {name}: {raw['n']} test examples, template {raw['template']!r}, instruction {raw['instruction']!r}",
        "",
        "| " + " | ".join(HEADINGS) + " |",
        "|" + "---|" * len(HEADINGS),
    ]
    for at, row in enumerate(raw["rows"]):
        low, high = row["interval"]
        tuned = row["kind"] in ("prompt", "ensemble", "majority")
        corrected = ["" if tuned else percent(runs[how]["rows"][at]["accuracy"]) for how in ("content-free", "batch")]
        loss = "" if row["loss"] is None else f"{row['loss']:.3f}"
        ms = "" if row["milliseconds_per_text"] is None else f"{row['milliseconds_per_text']:.1f}"
        lead = p = ""
        if row["against"]:
            a = row["against"]
            points = [100 * value for value in (a["difference"], *a["interval"])]
            lead = "{:+.1f} ({:+.1f} to {:+.1f})".format(*points)
            p = "< 0.001" if a["p"] < 0.001 else f"{a['p']:.3f}"
        accuracy = f"{percent(row['accuracy'])} ({100 * low:.1f}–{100 * high:.1f})"
        seconds = "" if row["training_seconds"] is None else f"{row['training_seconds']:.0f}"
        took = [f"{row['learned']:,}", f"{row['bytes']:,}", seconds, str(row["tokens_before"]), ms]
        cells = [row["name"], accuracy, *corrected, f"{row['macro_f1']:.3f}", loss, *took, lead, p]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", raw["verdict"], ""])


def percent(share):
    return f"{100 * share:.1f} %"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--foreword", default="foreword")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, help="steps of each run, to see that all works [default: those of train]")
    args = parser.parse_args()
    for name in args.tasks:
        train, test, template = TASKS[name]
        folder = args.work / name
        if not (folder / "task.toml").exists():
            prepare(args.data, folder, train, test, template)
        prompts = []
        for out, flags in learned(args.seeds).items():
            prompts += ["--prompt", out]
            if not (folder / out / "foreword.json").exists():
                steps = [] if args.steps is None else ["--steps", str(args.steps)]
                train_one = [args.foreword, "train", "task.toml", *flags, *steps, "--out", out, "-q"]
                # What it says of each run is no part of the tables.
                subprocess.run(train_one, cwd=folder, check=True, stdout=sys.stderr)
        compare = [args.foreword, "compare", "task.toml", *prompts, "--json", "-q"]
        runs = {}
        for how in ["none", "content-free", "batch"]:
            ran = subprocess.run([*compare, "--calibrate", how], cwd=folder, check=True, stdout=subprocess.PIPE)
            runs[how] = json.loads(ran.stdout)
        print(table(name, runs), flush=True)


if __name__ == "__main__":
    main()
