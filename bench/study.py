"""The study behind the defaults: what `foreword train` does with no flags, beside the best of a sweep, on several models and tasks.

    python3 bench/study.py --data DATA --work WORK --models NAME=DIR … [--foreword PATH] [--minutes 120] [--threads 2] [--only prefix]
    python3 bench/study.py … --only lm, then --only peft --peft PYTHON
    python3 bench/study.py --results bench/study.jsonl --table             (the tables of docs/studies.md, from the runs they were made of)

DATA holds the folders sst2_sentences, ag_news, cola and sms_spam with JSONL files of "text" and "label". Of each task, drawn with a
fixed seed: 500 examples to learn from, 300 to choose by, 1,000 to report on. Of each cell (a model and a task): a sweep of six learning
rates and three inits with one seed, of which the run with the lowest loss on dev is "best"; the defaults and the finalists, other rates
that might have become the default, with five seeds; then KV prefixes and what else there is to choose. Steps are fewer than the
default's for all alike. Called again it goes on with what is missing, and stops when the minutes are over: runs are taken in turns over
the cells, the defaults first. Several processes may share a WORK. Only the standard library is needed.
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
RATES = ["3%", "10%", "30%", "1%", "0.3%", "6%"]  # the likelier ones first, for when the minutes are over
INITS = ["default", "labels", "vocab"]
FINALISTS = ["3%"]
SEEDS = range(5)
FIXED = ["--steps", "150", "--patience", "0"]
FULL = ["3%", "6%", "10%"]  # with all at its default, steps too
# How many examples there are to learn from, virtual tokens, examples per step; and what keeps a prompt from fitting few examples alone.
SIZES = [(n, p, 32) for n in (32, 128, 500) for p in (5, 20, 50)] + [(n, 20, b) for n in (32, 128, 500) for b in (8, 16)]
REGULARIZERS = ["token-dropout 0.1", "noise 0.1", "ema-decay 0.95", "trust-region 0.5"]
DEFAULT_RATE = "6%"  # what `auto` is
LM = [("10%", "default"), ("3%", "default"), ("30%", "default"), ("10%", "vocab")]
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
    for what, flags in runs_of_a_cell():
        yield from ((cell, what, flags) for cell in cells)


def runs_of_a_cell():
    yield "default 0", ["--seed", "0"]
    for init in INITS:
        for rate in RATES:
            if (rate, init) != (DEFAULT_RATE, "default"):  # that is the first of the defaults
                yield f"sweep {rate} {init}", ["--learning-rate", rate, *begins(init)]
        if init == "default":
            for seed in SEEDS[1:]:
                yield f"default {seed}", ["--seed", str(seed)]
                for rate in FINALISTS:
                    yield f"finalist {rate} {seed}", ["--learning-rate", rate, "--seed", str(seed)]
    for seed in SEEDS:
        for rate in FULL:
            yield f"full {rate} {seed}", ["--learning-rate", rate, "--seed", str(seed)]
    for seed in SEEDS:  # the same run, but the test set is what is looked at on the way
        yield f"watched {seed}", ["--seed", str(seed), "--dev", "test.jsonl"]
    for seed in SEEDS:
        yield f"suffix {seed}", ["--placement", "suffix", "--seed", str(seed)]
    for rate in RATES:
        yield f"prefix {rate}", ["--method", "prefix", "--learning-rate", rate]
    for rate, init in LM:
        yield f"lm {rate} {init}", ["--objective", "lm", "--learning-rate", rate, *begins(init)]
    for n, p, batch in SIZES:
        yield f"size {n} {p} {batch}", ["--limit", str(n), "--virtual-tokens", str(p), "--batch-size", str(batch)]
    for n in (32, 500):
        for regularizer in REGULARIZERS:
            name, value = regularizer.split()
            yield f"regularizer {n} {regularizer}", ["--limit", str(n), f"--{name}", value]
    for seed in SEEDS:
        for settings in ("default", "best"):
            yield f"peft {settings} {seed}", None


def begins(init):
    return [] if init == "default" else ["--init", init]


def peft(args, model, folder, what, tried):
    """PEFT's own run, in a process of its own. `tried`: Foreword's runs with PEFT's loss on the cell, by name."""
    names = sorted({row["label"] for row in read(folder / "train.jsonl")})
    template = json.loads((folder / "task.toml").read_text().rsplit("template = ", 1)[1])
    _, settings, seed = what.split()
    command = [args.peft, ROOT / "bench/accuracy_peft.py", "--template", template, "--steps", "150", "--seeds", seed]
    command += ["--model", ROOT / "crates/foreword-tiny" if model == "foreword-tiny" else model]
    command += ["--labels", ",".join(f"{name}= {name}" for name in names)]
    for split in ("train", "dev", "test"):
        command += [f"--{split}", folder / f"{split}.jsonl"]
    if settings == "default":
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


def run(args, model, folder, what, flags):
    with tempfile.TemporaryDirectory() as scratch:
        command = [args.foreword, "train", "task.toml", "--model", model, "--json", "-q", "--threads", str(args.threads)]
        command += ["--out", scratch + "/prompt", *([] if what.startswith("full") else FIXED), *flags]
        ran = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if ran.returncode != 0:
            return {"error": ran.stderr.strip()[-300:]}
        passport = json.loads(pathlib.Path(scratch, "prompt", "foreword.json").read_text())
        metrics = passport["metrics"]
        row = {
            "dev_loss": metrics["dev"]["loss"],
            "dev": metrics["dev"]["accuracy"],
            "test": metrics["test"]["accuracy"],
            "bare": metrics["test.bare"]["accuracy"],
            "majority": metrics["test.majority"]["accuracy"],
            "best_step": passport["training"]["best_step"],
            "init": passport["training"]["init"],
        }
        if what.startswith(("default", "watched")):
            events = [event for event in map(json.loads, ran.stdout.splitlines()) if event["event"] == "eval" and event["split"] == "dev"]
            row["evaluations"] = [[event["step"], round(event["loss"], 4), event["accuracy"]] for event in events]
        return row


def results(path):
    lines = path.read_text().splitlines() if path.exists() else []
    return {(row["model"], row["task"], row["what"]): row for row in map(json.loads, lines)}


def table(done):
    """The study as Markdown tables, of what has been run."""
    cells = sorted({key[:2] for key in done})
    runs = {cell: {what: row for (m, t, what), row in done.items() if (m, t) == cell and "error" not in row} for cell in cells}
    for of in runs.values():
        if "default 0" in of:  # the same runs
            of[f"sweep {DEFAULT_RATE} default"] = of["default 0"]
        for rate in FINALISTS:
            if f"sweep {rate} default" in of:
                of[f"finalist {rate} 0"] = of[f"sweep {rate} default"]
    print_rates(runs)
    print_means(runs)
    print_defaults(runs)
    print_seeds(runs)
    print_keeps(runs)
    sweep = [f"sweep {rate} {init}" for init in INITS for rate in by_size(RATES)]
    prefix = [f"prefix {rate}" for rate in by_size(RATES)]
    sizes = [f"size {n} {p} {batch}" for n, p, batch in sorted(SIZES)]
    regularizers = [f"regularizer {n} {regularizer}" for n in (32, 500) for regularizer in REGULARIZERS]
    for names in (sweep, prefix, sizes, regularizers):
        print_beside_default(runs, names)


def by_size(rates):
    return sorted(rates, key=lambda rate: float(rate.rstrip("%")))


def print_rates(runs):
    """A line for each cell: the learning rates with the default's init; in bold the one with the lowest loss on dev."""
    print("| model, task | majority | bare | " + " | ".join(by_size(RATES)) + " |\n" + "|---" * (3 + len(RATES)) + "|")
    for cell, of in runs.items():
        swept = {rate: of.get(f"sweep {rate} default") for rate in by_size(RATES)}
        if not any(swept.values()):
            continue
        best = min((rate for rate in swept if swept[rate]), key=lambda rate: swept[rate]["dev_loss"])
        line = [", ".join(cell), percent(swept[best]["majority"]), percent(swept[best]["bare"])]
        for rate, row in swept.items():
            bold = "**" if rate == best else ""
            line.append(bold + percent(row["test"]) + bold if row else "")
        print("| " + " | ".join(line) + " |")


def print_means(runs):
    """By learning rate and init the mean test accuracy, and loss on dev, of the cells that have the whole sweep."""
    whole = [of for of in runs.values() if all(f"sweep {rate} {init}" in of for rate in RATES for init in INITS)]
    if not whole:
        return
    print(f"\nMeans of {len(whole)} cells: test accuracy, and in brackets the loss on dev\n")
    print("| | " + " | ".join(by_size(RATES)) + " |\n" + "|---" * (1 + len(RATES)) + "|")
    for init in INITS:
        cells = [[of[f"sweep {rate} {init}"] for of in whole] for rate in by_size(RATES)]
        means = [(statistics.mean(row["test"] for row in rows), statistics.mean(row["dev_loss"] for row in rows)) for rows in cells]
        print(f"| {init} | " + " | ".join(f"{percent(test)} ({loss:.3f})" for test, loss in means) + " |")


def print_defaults(runs):
    """A line for each cell: the defaults beside the best of the sweep and beside PEFT, and over all cells what they lead by."""
    print("\n| model, task | majority | PEFT, defaults | PEFT, best | defaults | best of sweep | defaults / best |\n" + "|---" * 7 + "|")
    shares, leads = [], {"peft default": [], "peft best": []}
    for cell, of in runs.items():
        sweep = {what: row for what, row in of.items() if what.startswith("sweep")}
        if "default 0" not in of or len(sweep) < 2:
            continue
        best = min(sweep, key=lambda what: sweep[what]["dev_loss"])
        mean = statistics.mean(seeds(of, "default"))
        shares.append(mean / sweep[best]["test"])
        line = [", ".join(cell), percent(of["default 0"]["majority"])]
        for what, lead in leads.items():
            found = seeds(of, what)
            how = f", {of[f'{what} 0']['how'].removeprefix('lm ')}" if found and what == "peft best" else ""
            line.append(spread(found) + how)
            lead += [mean - statistics.mean(found)] if found else []
        line += [spread(seeds(of, "default")), f"{percent(sweep[best]['test'])} ({best.removeprefix('sweep ')}, of {len(sweep)})", percent(shares[-1])]
        print("| " + " | ".join(line) + " |")
    if shares:
        print(f"\ndefaults / best: mean {percent(statistics.mean(shares))}, least {percent(min(shares))}")
    for what, lead in leads.items():
        print(f"defaults over {what}: {told(lead)}")


def print_seeds(runs):
    """What was run with several seeds, a column each, and what each leads the defaults by."""
    columns = ["default", *(f"finalist {rate}" for rate in FINALISTS), "suffix", *(f"full {rate}" for rate in FULL)]
    print("\n| model, task | " + " | ".join(columns) + " |\n" + "|---" * (1 + len(columns)) + "|")
    for cell, of in runs.items():
        print(f"| {', '.join(cell)} | " + " | ".join(spread(seeds(of, what)) for what in columns) + " |")
    for what in columns[1:]:
        both = [(seeds(of, what), seeds(of, "default")) for of in runs.values() if seeds(of, what) and seeds(of, "default")]
        print(f"\n{what} over the defaults: {told([statistics.mean(ours) - statistics.mean(default) for ours, default in both])}")


def print_keeps(runs):
    """What the test accuracy is of the step that is kept: by the loss on dev, by the accuracy on dev (then the loss), or the last one."""
    keeps = {"lowest loss": lambda dev: (-dev[1], dev[2]), "highest accuracy": lambda dev: (dev[2], -dev[1]), "last": lambda dev: dev[0]}
    print("\n| model, task | " + " | ".join(keeps) + " |\n" + "|---" * (1 + len(keeps)) + "|")
    found = {name: {} for name in keeps}
    for cell, of in runs.items():
        both = [(of[f"default {seed}"], of[f"watched {seed}"]) for seed in SEEDS if f"default {seed}" in of and f"watched {seed}" in of]
        if not both:
            continue
        for name, worth in keeps.items():
            tests = []
            for default, watched in both:
                kept = max(default["evaluations"], key=worth)
                tests += [accuracy for step, _, accuracy in watched["evaluations"] if step == kept[0]]
            found[name][cell] = tests
        print(f"| {', '.join(cell)} | " + " | ".join(spread(found[name][cell]) for name in keeps) + " |")
    base = found["lowest loss"]
    for name in list(keeps)[1:]:
        print(f"\n{name} over the lowest loss: {told([statistics.mean(found[name][cell]) - statistics.mean(base[cell]) for cell in base])}")


def print_beside_default(runs, names):
    """Runs of a kind, a column for each cell, beside the defaults with the same seed."""
    names = [what for what in names if any(what in of for of in runs.values())]
    cells = [cell for cell, of in runs.items() if any(what in of for what in names)]
    if not names:
        return
    show = lambda row: f"{percent(row['test'])} ({row['dev_loss']:.3f}, {row['best_step']})" if row else ""
    print("\nTest accuracy, and in brackets the loss on dev and the step that was kept:\n")
    print("| | " + " | ".join(map(", ".join, cells)) + " |\n|---|" + "---|" * len(cells))
    for what in ["default 0", *names]:
        print(f"| {what} | " + " | ".join(show(runs[cell].get(what)) for cell in cells) + " |")


def seeds(of, what):
    """The test accuracies of a cell's runs that differ in the seed alone."""
    return [of[f"{what} {seed}"]["test"] for seed in SEEDS if f"{what} {seed}" in of]


def spread(values):
    """Mean, deviation and number."""
    if not values:
        return ""
    deviation = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{percent(statistics.mean(values))}{deviation} ({len(values)})"


def told(leads):
    """The mean of paired differences, one for each cell, with its 95 % interval by the bootstrap over cells (percentiles of 10,000 draws)."""
    if not leads:
        return "not run"
    draw = random.Random(0)
    means = sorted(statistics.mean(draw.choices(leads, k=len(leads))) for _ in range(10_000))
    mean, low, high = (f"{100 * value:+.1f}" for value in (statistics.mean(leads), means[250], means[9_749]))
    return f"{mean} points ({low} to {high}), ahead in {sum(value > 0 for value in leads)} of {len(leads)} cells"


def percent(share):
    return f"{100 * share:.1f} %"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--work", type=pathlib.Path)
    parser.add_argument("--results", type=pathlib.Path, metavar="FILE", help="a JSON line for each run; study.jsonl in WORK if nothing is said")
    parser.add_argument("--models", nargs="+", default=["foreword-tiny=foreword-tiny"], metavar="NAME=DIR")
    parser.add_argument("--foreword", default="foreword")
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peft", metavar="PYTHON", help="an interpreter with torch, transformers and peft")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORD", help="only the runs whose names begin so: default, finalist, sweep, full, watched, suffix, prefix, lm, size, regularizer, peft")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if not (args.work or (args.results and args.table)) or not (args.data or args.table):
        parser.error("--data and --work, or --results and --table")
    args.results = args.results or args.work / "study.jsonl"
    if args.table:
        return table(results(args.results))
    args.work.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * args.minutes
    for task in args.tasks:
        cut(args.data, args.work / task, task)
    models = dict(pair.split("=", 1) for pair in args.models)
    cells = [(model, task) for model in models for task in args.tasks]
    with open(args.results, "a", encoding="utf-8") as file:
        for (model, task), what, flags in wanted(cells):
            done = results(args.results)  # each time: another process may be at the same cells
            if (model, task, what) in done or not what.startswith(tuple(args.only)):
                continue
            if time.monotonic() > end:
                print("the minutes are over; called again, it goes on")
                break
            folder = args.work / task
            if what.startswith("peft"):
                tried = {name: row for (m, t, name), row in done.items() if (m, t) == (model, task) and name.startswith("lm ")}
                found = peft(args, models[model], folder, what, tried) if args.peft else None
            else:
                found = run(args, models[model], folder, what, flags)
            if found is None:
                continue
            row = {"model": model, "task": task, "what": what, **found}
            file.write(json.dumps(row) + "\n")
            file.flush()
            print(row, flush=True)
    table(results(args.results))


if __name__ == "__main__":
    main()
