"""Makes the tables of docs/comparisons.md: prompts of the bundled model beside what costs no training, on four tasks.

    python3 bench/comparisons.py --data DATA --work WORK [--foreword PATH] [--tasks sst2 …] [--seeds 0 1]

DATA holds the folders sst2_sentences, ag_news, cola and sms_spam with JSONL files of "text" and "label". Drawn with a fixed seed:
1,000 examples to learn from (a tenth of which Foreword keeps aside as dev) and 500 to measure on. Only the standard library is
needed. Called again it goes on with what is missing.
"""

import argparse
import json
import pathlib
import random
import subprocess

TASKS = {
    "sst2": ("sst2_sentences/train.jsonl", "sst2_sentences/test.jsonl", "{text}\nSentiment:"),
    "ag_news": ("ag_news/dev.jsonl", "ag_news/test.jsonl", "{text}\nTopic:"),
    "cola": ("cola/train.jsonl", "cola/val.jsonl", "{text}\nLabel:"),
    "sms_spam": ("sms_spam/all.jsonl", None, "{text}\nLabel:"),
}
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


def table(name, runs):
    raw = runs["none"]
    lines = [
        f"== {name}: {raw['n']} test examples, template {raw['template']!r}, instruction {raw['instruction']!r}",
        "",
        "| row | accuracy | content-free | batch | macro F1 | loss | tokens before | ms/text | prompt's lead, points | p |",
        "|---|---|---|---|---|---|---|---|---|---|",
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
        cells = [row["name"], accuracy, *corrected, f"{row['macro_f1']:.3f}", loss, str(row["tokens_before"]), ms, lead, p]
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
    args = parser.parse_args()
    for name in args.tasks:
        train, test, template = TASKS[name]
        folder = args.work / name
        if not (folder / "task.toml").exists():
            prepare(args.data, folder, train, test, template)
        prompts = []
        for seed in args.seeds:
            prompts += ["--prompt", f"seed-{seed}"]
            if not (folder / f"seed-{seed}" / "foreword.json").exists():
                train_one = [args.foreword, "train", "task.toml", "--seed", str(seed), "--out", f"seed-{seed}", "-q"]
                subprocess.run(train_one, cwd=folder, check=True)
        compare = [args.foreword, "compare", "task.toml", *prompts, "--json", "-q"]
        runs = {}
        for how in ["none", "content-free", "batch"]:
            ran = subprocess.run([*compare, "--calibrate", how], cwd=folder, check=True, stdout=subprocess.PIPE)
            runs[how] = json.loads(ran.stdout)
        print(table(name, runs), flush=True)


if __name__ == "__main__":
    main()
