"""The study behind the defaults: what `foreword train` does with no flags, beside the best of a sweep, on several models and tasks.

    python3 bench/study.py --data DATA --work WORK --models NAME=DIR … [--foreword PATH] [--minutes 120] [--threads 2] [--only prefix]
    python3 bench/study.py --work WORK --table             (the tables, from what has been run)

DATA holds the folders sst2_sentences, ag_news, cola and sms_spam with JSONL files of "text" and "label". Of each task, drawn with a
fixed seed: 500 examples to learn from, 300 to choose by, 1,000 to report on. Of each cell (a model and a task): the defaults with
five seeds, and a sweep of six learning rates and three inits with one seed, of which the run with the lowest loss on dev is "best";
then the KV prefix with its defaults. Steps are fewer than the default's for all alike. Called again it goes on with what is missing,
and stops when the minutes are over: runs are taken in turns over the cells, the defaults first. Only the standard library is needed.
PEFT's side is made by bench/accuracy_peft.py on the same files.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

from comparisons import TASKS, prepare, read, write

N_TRAIN, N_DEV, N_TEST = 500, 300, 1000
RATES = ["6%", "10%", "1%", "30%", "0.3%", "3%"]  # the likelier ones first, for when the minutes are over
INITS = ["default", "labels", "vocab"]
SEEDS = range(5)
FIXED = ["--steps", "150", "--patience", "0"]


def cut(data, folder, task):
    """The files of a task, once."""
    if (folder / "task.toml").exists():
        return
    import comparisons

    comparisons.N_TRAIN, comparisons.N_TEST = N_TRAIN + N_DEV, N_TEST
    prepare(data, folder, *TASKS[task])
    rows = read(folder / "train.jsonl")
    write(folder / "dev.jsonl", rows[N_TRAIN:])
    write(folder / "train.jsonl", rows[:N_TRAIN])
    toml = (folder / "task.toml").read_text()
    (folder / "task.toml").write_text(toml.replace('test = "test.jsonl"', 'dev = "dev.jsonl"\ntest = "test.jsonl"'))


def wanted(cells):
    """Every run as (cell, what, flags), the ones that matter most first."""
    for seed in SEEDS[:1]:
        yield from ((cell, f"default {seed}", ["--seed", str(seed)]) for cell in cells)
    for init in INITS:
        for rate in RATES:
            flags = ["--learning-rate", rate] + ([] if init == "default" else ["--init", init])
            yield from ((cell, f"sweep {rate} {init}", flags) for cell in cells)
        if init == "default":
            for seed in SEEDS[1:]:
                yield from ((cell, f"default {seed}", ["--seed", str(seed)]) for cell in cells)
    yield from ((cell, "prefix 0", ["--method", "prefix"]) for cell in cells)
    for rate in RATES:
        flags = ["--method", "prefix", "--learning-rate", rate]
        yield from ((cell, f"prefix {rate}", flags) for cell in cells)


def run(args, model, folder, flags):
    with tempfile.TemporaryDirectory() as scratch:
        command = [args.foreword, "train", "task.toml", "--model", model, "--json", "-q", "--threads", str(args.threads)]
        command += ["--out", scratch + "/prompt", *FIXED, *flags]
        ran = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if ran.returncode != 0:
            return {"error": ran.stderr.strip()[-300:]}
        passport = json.loads(pathlib.Path(scratch, "prompt", "foreword.json").read_text())
        metrics = passport["metrics"]
        return {
            "dev_loss": metrics["dev"]["loss"],
            "dev": metrics["dev"]["accuracy"],
            "test": metrics["test"]["accuracy"],
            "bare": metrics["test.bare"]["accuracy"],
            "majority": metrics["test.majority"]["accuracy"],
            "best_step": passport["training"]["best_step"],
        }


def results(work):
    path = work / "study.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return {(row["model"], row["task"], row["what"]): row for row in map(json.loads, lines)}


def table(done):
    cells = sorted({key[:2] for key in done})
    print("| model, task | majority | bare | defaults | best of sweep (its test) | defaults / best | KV prefix | best KV prefix |")
    print("|---|---|---|---|---|---|---|---|")
    shares = []
    for model, task in cells:
        of = {what: row for (m, t, what), row in done.items() if (m, t) == (model, task) and "error" not in row}
        defaults = [of[f"default {seed}"]["test"] for seed in SEEDS if f"default {seed}" in of]
        sweep = {what: row for what, row in of.items() if what.startswith("sweep")}
        prefixes = {what: row for what, row in of.items() if what.startswith("prefix")}
        if not defaults or not sweep:
            continue
        best = min(sweep, key=lambda what: sweep[what]["dev_loss"])
        mean = statistics.mean(defaults)
        share = mean / sweep[best]["test"]
        shares.append(share)
        spread = f" ± {100 * statistics.stdev(defaults):.1f}" if len(defaults) > 1 else ""
        prefix = f"{100 * of['prefix 0']['test']:.1f} %" if "prefix 0" in of else ""
        best_prefix = ""
        if prefixes:
            name = min(prefixes, key=lambda what: prefixes[what]["dev_loss"])
            best_prefix = f"{100 * prefixes[name]['test']:.1f} % ({name.split()[1]})".replace("(0)", "(default)")
        row = of[best]
        print(
            f"| {model}, {task} | {100 * row['majority']:.1f} % | {100 * row['bare']:.1f} % | {100 * mean:.1f} %{spread} ({len(defaults)}) "
            f"| {100 * row['test']:.1f} % ({best.removeprefix('sweep ')}, of {len(sweep)}) | {100 * share:.1f} % | {prefix} | {best_prefix} |"
        )
    if shares:
        print(f"\nmean of defaults / best: {100 * statistics.mean(shares):.1f} %, least {100 * min(shares):.1f} %")
    print("\nmean test accuracy over the cells that have all of a row's runs, by learning rate and init:\n")
    print("| | " + " | ".join(INITS) + " | KV prefix |\n|---|" + "---|" * (len(INITS) + 1))
    for rate in sorted(RATES, key=lambda rate: float(rate.rstrip("%"))):
        names = [f"sweep {rate} {init}" for init in INITS] + [f"prefix {rate}"]
        cell = []
        for name in names:
            values = [done[(m, t, name)] for m, t in cells if (m, t, name) in done]
            good = [row["test"] for row in values if "error" not in row]
            cell.append(f"{100 * statistics.mean(good):.1f} % ({len(good)})" if good else "")
        print(f"| {rate} | " + " | ".join(cell) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--models", nargs="+", default=["foreword-tiny=foreword-tiny"], metavar="NAME=DIR")
    parser.add_argument("--foreword", default="foreword")
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", metavar="WORD", help="only the runs whose names begin so: default, sweep, prefix")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if args.table:
        return table(results(args.work))
    end = time.monotonic() + 60 * args.minutes
    for task in TASKS:
        cut(args.data, args.work / task, task)
    models = dict(pair.split("=", 1) for pair in args.models)
    cells = [(model, task) for model in models for task in TASKS]
    done = results(args.work)
    with open(args.work / "study.jsonl", "a", encoding="utf-8") as file:
        for (model, task), what, flags in wanted(cells):
            if (model, task, what) in done or not what.startswith(args.only):
                continue
            if time.monotonic() > end:
                print("the minutes are over; called again, it goes on")
                break
            row = {"model": model, "task": task, "what": what, **run(args, models[model], args.work / task, flags)}
            file.write(json.dumps(row) + "\n")
            file.flush()
            print(row, flush=True)
    table(results(args.work))


if __name__ == "__main__":
    main()
