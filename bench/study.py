"""The study behind the defaults: what `foreword train` does with no flags, beside the best of a sweep, on several models and tasks.

    python3 bench/study.py --data DATA --work WORK --models NAME=DIR … [--foreword PATH] [--minutes 120] [--threads 2] [--only prefix]
    python3 bench/study.py … --only lm, then --only peft --peft PYTHON
    python3 bench/study.py --work WORK --table             (the tables, from what has been run)

DATA holds the folders sst2_sentences, ag_news, cola and sms_spam with JSONL files of "text" and "label". Of each task, drawn with a
fixed seed: 500 examples to learn from, 300 to choose by, 1,000 to report on. Of each cell (a model and a task): the defaults with
five seeds, and a sweep of six learning rates and three inits with one seed, of which the run with the lowest loss on dev is "best";
then the KV prefix with its defaults. Steps are fewer than the default's for all alike. Called again it goes on with what is missing,
and stops when the minutes are over: runs are taken in turns over the cells, the defaults first. Only the standard library is needed.
With --peft PYTHON, an interpreter that has PEFT: PEFT with the defaults of its own and the Trainer's, and PEFT with its best rate and
init, both by bench/accuracy_peft.py. Which are the best is found by Foreword with PEFT's loss (`--objective lm`), which is the same
run step for step (the tests hold them to 1e-4) in a fraction of the time; what counts is then PEFT's own.
"""

import argparse
import json
import os
import pathlib
import random
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
# How many examples there are to learn from, virtual tokens, examples per step; and what keeps a prompt from fitting few examples alone.
SIZES = [(n, p, 32) for n in (32, 128, 500) for p in (5, 20, 50)] + [(n, 20, b) for n in (32, 128, 500) for b in (8, 16)]
REGULARIZERS = ["token-dropout 0.1", "noise 0.1", "ema-decay 0.95", "trust-region 0.5"]
DEFAULT_RATE, KV_PREFIX = "3%", "prefix 1%"  # what `auto` is
LM = [(rate, init) for rate in ("10%", "3%", "30%", "1%") for init in ("default", "vocab")]
ROOT = pathlib.Path(__file__).resolve().parent.parent


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
            if (rate, init) == (DEFAULT_RATE, "default"):
                continue  # the first of the defaults
            flags = ["--learning-rate", rate] + ([] if init == "default" else ["--init", init])
            yield from ((cell, f"sweep {rate} {init}", flags) for cell in cells)
        if init == "default":
            for seed in SEEDS[1:]:
                yield from ((cell, f"default {seed}", ["--seed", str(seed)]) for cell in cells)
    for rate in RATES:
        flags = ["--method", "prefix", "--learning-rate", rate]
        yield from ((cell, f"prefix {rate}", flags) for cell in cells)
    for n, p, batch in SIZES:
        flags = ["--limit", str(n), "--virtual-tokens", str(p), "--batch-size", str(batch)]
        yield from ((cell, f"size {n} {p} {batch}", flags) for cell in cells)
    for n in (32, 500):
        for regularizer in REGULARIZERS:
            name, value = regularizer.split()
            flags = ["--limit", str(n), f"--{name}", value]
            yield from ((cell, f"regularizer {n} {regularizer}", flags) for cell in cells)
    yield from ((cell, "suffix 0", ["--placement", "suffix"]) for cell in cells)
    for rate, init in LM:
        flags = ["--objective", "lm", "--learning-rate", rate] + ([] if init == "default" else ["--init", init])
        yield from ((cell, f"lm {rate} {init}", flags) for cell in cells)
    for what in ("peft default", "peft best"):
        yield from ((cell, what, None) for cell in cells)


def peft(args, model, folder, what, tried):
    """PEFT's own run, in a process of its own. `tried`: Foreword's runs with PEFT's loss on the cell, by name."""
    names = sorted({row["label"] for row in read(folder / "train.jsonl")})
    template = json.loads((folder / "task.toml").read_text().rsplit("template = ", 1)[1])
    command = [args.peft, ROOT / "bench/accuracy_peft.py", "--template", template, "--steps", "150", "--seeds", "0"]
    command += ["--model", ROOT / "crates/foreword-tiny" if model == "foreword-tiny" else model]
    command += ["--labels", ",".join(f"{name}= {name}" for name in names)]
    for split in ("train", "dev", "test"):
        command += [f"--{split}", folder / f"{split}.jsonl"]
    if what == "peft default":
        best, flags = "", ["--trainer-defaults"]
    else:
        if len(tried) < len(LM):
            return None
        best = min(tried, key=lambda name: tried[name]["dev_loss"])
        _, rate, init = best.split()
        text = tried[best]["init"].removeprefix("text:")
        flags = ["--learning-rates", rate, *(["--init", "vocab"] if init == "vocab" else ["--init-text", text])]
    with tempfile.TemporaryDirectory() as scratch:
        out = pathlib.Path(scratch, "peft.jsonl")
        environment = os.environ | {"OMP_NUM_THREADS": str(args.threads)}
        command = [str(part) for part in [*command, *flags, "--out", out]]
        ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        if ran.returncode != 0:
            return {"error": ran.stderr.strip()[-300:]}
        row = json.loads(out.read_text())
    return {"how": best, "dev_loss": row["dev_loss"], "dev": row["dev_accuracy"], "test": row["test_accuracy"], "best_step": row["best_step"]}


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
            "init": passport["training"]["init"],
        }


def results(work):
    path = work / "study.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return {(row["model"], row["task"], row["what"]): row for row in map(json.loads, lines)}


def table(done):
    """The study as Markdown tables, of what has been run."""
    cells = sorted({key[:2] for key in done})
    runs = {cell: {what: row for (m, t, what), row in done.items() if (m, t) == cell and "error" not in row} for cell in cells}
    for of in runs.values():
        if "default 0" in of:  # the same run
            of.setdefault(f"sweep {DEFAULT_RATE} default", of["default 0"])
    print_cells(runs)
    print("\nMean test accuracy by learning rate and init, over the cells that have all of a row's runs:\n")
    print_rates(runs)
    for prefix in ("size", "regularizer", "suffix"):
        print_beside_default(runs, prefix)


def print_cells(runs):
    """A line for each cell: the defaults beside the best of the sweep and beside PEFT, and over all cells what they lead by."""
    print("| model, task | majority | bare | PEFT, defaults | PEFT, best | defaults | best of sweep | defaults / best | KV prefix |")
    print("|---|---|---|---|---|---|---|---|---|")
    shares, leads = [], {"peft default": [], "peft best": []}
    for (model, task), of in runs.items():
        defaults = [of[f"default {seed}"]["test"] for seed in SEEDS if f"default {seed}" in of]
        sweep = {what: row for what, row in of.items() if what.startswith("sweep")}
        if not defaults or not sweep:
            continue
        mean, row = statistics.mean(defaults), of["default 0"]
        best = min(sweep, key=lambda what: sweep[what]["dev_loss"])
        share = mean / sweep[best]["test"]
        shares.append(share)
        spread = f" ± {100 * statistics.stdev(defaults):.1f}" if len(defaults) > 1 else ""
        peft = []
        for what, lead in leads.items():
            peft.append(percent(of[what]["test"]) if what in of else "")
            if what in of:
                lead.append(mean - of[what]["test"])
        if peft[1]:
            peft[1] += f" ({of['peft best']['how'].removeprefix('lm ')})"
        prefix = percent(of[KV_PREFIX]["test"]) if KV_PREFIX in of else ""
        line = [f"{model}, {task}", percent(row["majority"]), percent(row["bare"]), *peft, percent(mean) + spread + f" ({len(defaults)})"]
        line += [f"{percent(sweep[best]['test'])} ({best.removeprefix('sweep ')}, of {len(sweep)})", percent(share), prefix]
        print("| " + " | ".join(line) + " |")
    if shares:
        print(f"\ndefaults / best: mean {percent(statistics.mean(shares))}, least {percent(min(shares))}")
    for what, lead in leads.items():
        if lead:
            low, high = interval(lead)
            wins = sum(value > 0 for value in lead)
            told = f"{100 * statistics.mean(lead):+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"
            print(f"defaults over {what}: {told}, ahead in {wins} of {len(lead)} cells")


def interval(values):
    """A 95 % interval of the mean of paired differences, by the bootstrap over cells (percentiles of 10,000 draws)."""
    draw = random.Random(0)
    means = sorted(statistics.mean(draw.choices(values, k=len(values))) for _ in range(10_000))
    return means[250], means[9_749]


def print_rates(runs):
    columns = [f"sweep {{}} {init}" for init in INITS] + ["prefix {}"]
    print("| | " + " | ".join([*INITS, "KV prefix"]) + " |\n|---|" + "---|" * len(columns))
    wanted = {name: [of for of in runs.values() if sum(name.format(rate) in of for rate in RATES) > 1] for name in columns}
    for rate in sorted(RATES, key=lambda rate: float(rate.rstrip("%"))):
        line = []
        for name in columns:
            found = [of[name.format(rate)]["test"] for of in wanted[name] if name.format(rate) in of]
            line.append(f"{percent(statistics.mean(found))} ({len(found)})" if found else "")
        print(f"| {rate} | " + " | ".join(line) + " |")


def print_beside_default(runs, prefix):
    """Every run of a kind, a column for each cell, beside the defaults with the same seed."""
    names = dict.fromkeys(what for of in runs.values() for what in of if what.startswith(prefix))
    cells = [cell for cell, of in runs.items() if any(what in of for what in names)]
    if not names:
        return
    show = lambda row: f"{percent(row['test'])} ({row['dev_loss']:.3f})" if row else ""
    print(f"\n{prefix}: test accuracy, and the loss on dev that it was kept for\n")
    print("| | " + " | ".join(map(", ".join, cells)) + " |\n|---|" + "---|" * len(cells))
    for what in ["default 0", *sorted(names)]:
        print(f"| {what} | " + " | ".join(show(runs[cell].get(what)) for cell in cells) + " |")


def percent(share):
    return f"{100 * share:.1f} %"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--models", nargs="+", default=["foreword-tiny=foreword-tiny"], metavar="NAME=DIR")
    parser.add_argument("--foreword", default="foreword")
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peft", metavar="PYTHON", help="an interpreter with torch, transformers and peft")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORD", help="only the runs whose names begin so: default, sweep, prefix, size, regularizer, suffix, lm, peft")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if args.table:
        return table(results(args.work))
    end = time.monotonic() + 60 * args.minutes
    for task in args.tasks:
        cut(args.data, args.work / task, task)
    models = dict(pair.split("=", 1) for pair in args.models)
    cells = [(model, task) for model in models for task in args.tasks]
    done = results(args.work)
    with open(args.work / "study.jsonl", "a", encoding="utf-8") as file:
        for (model, task), what, flags in wanted(cells):
            if (model, task, what) in done or not what.startswith(tuple(args.only)):
                continue
            if time.monotonic() > end:
                print("the minutes are over; called again, it goes on")
                break
            # Another process may be at the same cells.
            if (model, task, what) in results(args.work):
                continue
            folder = args.work / task
            if what.startswith("peft"):
                rows = results(args.work).items()
                tried = {name: row for (m, t, name), row in rows if (m, t) == (model, task) and name.startswith("lm ")}
                found = peft(args, models[model], folder, what, tried) if args.peft else None
            else:
                found = run(args, models[model], folder, flags)
            if found is None:
                continue
            row = {"model": model, "task": task, "what": what, **found}
            file.write(json.dumps(row) + "\n")
            file.flush()
            print(row, flush=True)
    table(results(args.work))


if __name__ == "__main__":
    main()
