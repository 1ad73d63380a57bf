"""The study on a real model: what each method, placement, learning rate, length and number of steps is worth, by task.

    python3 bench/real_model.py --data DATA --work WORK --model NAME=PATH [--foreword PATH] [--minutes 120] [--threads 2] [--only prefix]
    python3 bench/real_model.py --results bench/real_model.jsonl --table     (the tables of docs/studies.md, from the runs they were made of)

DATA holds the folders sst2_sentences, ag_news, cola, sms_spam (JSONL files of "text" and "label") and e2e_clean ("input" and
"output"); support and feelings lie in bench/tasks. Of each task, drawn with a fixed seed: 400 examples to learn from, 100 to choose
by, 300 to report on. Called again it goes on with what is missing, and stops when the minutes are over: runs are taken in turns over
the tasks, the most informative first. Only the standard library is needed.
"""

import argparse
import json
import pathlib
import random
import subprocess
import tempfile
import time

from study import results

ROOT = pathlib.Path(__file__).resolve().parent.parent
N_TRAIN, N_DEV, N_TEST, DRAWN_BY = 400, 100, 300, 13
# train, test (None: from the same file), template
TASKS = {
    "sst2": ("sst2_sentences/train.jsonl", "sst2_sentences/test.jsonl", "{text}\nSentiment:"),
    "support": ("support/train.jsonl", "support/test.jsonl", "{text}\nTopic:"),
    "ag_news": ("ag_news/dev.jsonl", "ag_news/test.jsonl", "{text}\nTopic:"),
    "feelings": ("feelings/train.jsonl", "feelings/test.jsonl", "{text}\nFeeling:"),
    "cola": ("cola/train.jsonl", "cola/val.jsonl", "{text}\nLabel:"),
    "sms_spam": ("sms_spam/all.jsonl", None, "{text}\nLabel:"),
    "e2e": ("e2e_clean/dev.jsonl", "e2e_clean/test.jsonl", "{input}\nText:"),
}
SHORT = ["--steps", "60", "--batch-size", "16", "--patience", "0", "--eval-every", "20"]
LONG = ["--steps", "240", "--batch-size", "16", "--patience", "0", "--eval-every", "20"]
PREFIX = ["--method", "prefix"]


def runs():
    """Every run of a cell as (name, flags), the most informative first."""
    yield "prompt 6%", [*SHORT, "--learning-rate", "6%"]
    yield "prefix 1%", [*SHORT, *PREFIX, "--learning-rate", "1%"]
    yield "prefix 3%", [*SHORT, *PREFIX, "--learning-rate", "3%"]
    yield "prompt 15%", [*SHORT, "--learning-rate", "15%"]
    yield "prefix 10%", [*SHORT, *PREFIX, "--learning-rate", "10%"]
    yield "suffix 6%", [*SHORT, "--placement", "suffix", "--learning-rate", "6%"]
    yield "prompt 3%", [*SHORT, "--learning-rate", "3%"]
    yield "default", []
    yield "prefix 3% long", [*LONG, *PREFIX, "--learning-rate", "3%"]
    yield "prompt 6% long", [*LONG, "--learning-rate", "6%"]
    yield "prefix 3% P=50", [*SHORT, *PREFIX, "--learning-rate", "3%", "--virtual-tokens", "50"]
    yield "prompt 6% P=50", [*SHORT, "--learning-rate", "6%", "--virtual-tokens", "50"]
    yield "prefix 3% P=8", [*SHORT, *PREFIX, "--learning-rate", "3%", "--virtual-tokens", "8"]
    yield "prefix 3% labels", [*SHORT, *PREFIX, "--learning-rate", "3%", "--init", "labels"]
    yield "prefix 3% vocab", [*SHORT, *PREFIX, "--learning-rate", "3%", "--init", "vocab"]
    for option in ("token-dropout 0.1", "noise 0.1", "ema-decay 0.95", "trust-region 0.5"):
        yield f"prefix 3% {option}", [*SHORT, *PREFIX, "--learning-rate", "3%", "--" + option.split()[0], option.split()[1]]


def read(path):
    with open(path, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file if line.strip()]
    # Each input once.
    return list({(row.get("text") or row["input"]).strip(): row for row in rows}.values())


def prepare(data, folder, train, test, template):
    if (folder / "task.toml").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(DRAWN_BY)
    at = lambda path: next(path for path in (data / path, ROOT / "bench/tasks" / path) if path.exists())
    rows = read(at(train))
    draw.shuffle(rows)
    known = {(row.get("text") or row["input"]).strip() for row in rows}
    if test is None:
        held_out, rows = rows[:N_TEST], rows[N_TEST:]
    else:
        held_out = [row for row in read(at(test)) if (row.get("text") or row["input"]).strip() not in known]
        draw.shuffle(held_out)
    dev = at(train).with_name("dev.jsonl") if at(train).is_relative_to(ROOT) else None
    parts = {"test": held_out[:N_TEST], "train": rows[:N_TRAIN], "dev": read(dev)[:N_DEV] if dev else rows[N_TRAIN : N_TRAIN + N_DEV]}
    for split, part in parts.items():
        with open(folder / f"{split}.jsonl", "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in part)
    toml = "[data]\n" + "".join(f'{split} = "{split}.jsonl"\n' for split in ("train", "dev", "test"))
    toml += "[task]\ntemplate = " + json.dumps(template) + "\n"
    if "input" in parts["train"][0]:
        toml = toml.replace("[task]\n", 'target_field = "output"\n[task]\nkind = "generation"\n')
    (folder / "task.toml").write_text(toml)


def run(args, path, folder, flags):
    with tempfile.TemporaryDirectory() as scratch:
        command = [args.foreword, "train", "task.toml", "--model", path, "--json", "-q", "--threads", str(args.threads)]
        command += ["--out", scratch + "/prompt", *flags]
        started = time.monotonic()
        ran = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if ran.returncode != 0:
            return {"error": ran.stderr.strip()[-300:]}
        passport = json.loads(pathlib.Path(scratch, "prompt", "foreword.json").read_text())
        metrics, training = passport["metrics"], passport["training"]
        events = [json.loads(line) for line in ran.stdout.splitlines()]
        steps = [event for event in events if event["event"] == "step"]
        row = {name: metrics.get(split, {}) for name, split in (("dev", "dev"), ("test", "test"), ("bare", "test.bare"), ("majority", "test.majority"))}
        row |= {"best_step": training["best_step"], "steps": steps[-1]["step"]}
        row["bytes"] = sum(file.stat().st_size for file in pathlib.Path(scratch, "prompt").iterdir())
        row["evaluations"] = [[e["step"], round(e["loss"], 4), e["accuracy"]] for e in events if e["event"] == "eval" and e["split"] == "dev"]
        return row | {"minutes": round((time.monotonic() - started) / 60, 2)}


def table(done):
    """Of each model a table: a line for each run, a column for each task; in bold what is best in a column."""
    for model in sorted({key[0] for key in done}):
        of = {key[1:]: row for key, row in done.items() if key[0] == model and "error" not in row}
        tasks = [task for task in TASKS if any(key[0] == task for key in of)]
        names = [name for name, _ in runs() if any(key[1] == name for key in of)]
        print(f"\n{model}: test accuracy, or the mean loss of a target's tokens\n\n| | " + " | ".join(tasks) + " |\n" + "|---" * (1 + len(tasks)) + "|")
        best = {task: max((worth(row["test"]) for key, row in of.items() if key[0] == task)) for task in tasks}
        for name in ("majority", "bare"):
            first = [next(row for key, row in of.items() if key[0] == task) for task in tasks]
            print(f"| {name} | " + " | ".join(show(row[name]) for row in first) + " |")
        for name in names:
            cells = [of.get((task, name)) for task in tasks]
            shown = [bold(show(row["test"]), worth(row["test"]) == best[task]) if row else "" for task, row in zip(tasks, cells)]
            print(f"| {name} | " + " | ".join(shown) + " |")


def worth(scores):
    return scores.get("accuracy", -scores["loss"])


def show(scores):
    if not scores:
        return ""
    return f"{100 * scores['accuracy']:.1f} %" if "accuracy" in scores else f"{scores['loss']:.3f}"


def bold(text, is_best):
    return f"**{text}**" if is_best else text


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--work", type=pathlib.Path)
    parser.add_argument("--results", type=pathlib.Path, metavar="FILE", help="a JSON line for each run; real_model.jsonl in WORK if nothing is said")
    parser.add_argument("--model", default="foreword-tiny=foreword-tiny", metavar="NAME=PATH")
    parser.add_argument("--foreword", default="foreword")
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORD", help="only the runs whose names begin so")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if not (args.work or (args.results and args.table)) or not (args.data or args.table):
        parser.error("--data and --work, or --results and --table")
    args.results = args.results or args.work / "real_model.jsonl"
    if args.table:
        return table(results(args.results))
    end = time.monotonic() + 60 * args.minutes
    args.work.mkdir(parents=True, exist_ok=True)
    name, path = args.model.split("=", 1)
    with open(args.results, "a", encoding="utf-8") as file:
        for what, flags in runs():
            for task in args.tasks:
                if (name, task, what) in results(args.results) or not what.startswith(tuple(args.only)):
                    continue
                if time.monotonic() > end:
                    return print("the minutes are over; called again, it goes on")
                try:
                    prepare(args.data, args.work / task, *TASKS[task])
                except StopIteration:
                    continue
                row = {"model": name, "task": task, "what": what, **run(args, path, args.work / task, flags)}
                file.write(json.dumps(row) + "\n")
                file.flush()
                print(row, flush=True)
    table(results(args.results))


if __name__ == "__main__":
    main()
