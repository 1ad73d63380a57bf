"""What a setting is worth: trains soft prompts that differ in one setting each, and prints docs/studies.md's tables.

    cargo build --release
    python bench/choosing.py --data DATA --work WORK --seeds 1 2 3

DATA holds sst2_sentences/{train,dev,test}.jsonl, ag_news/{dev,test}.jsonl and sms_spam/all.jsonl, each line an object with
`text` and `label`. WORK keeps the cut data and one line per finished run in runs.jsonl; called again, only what is missing is
run, so it may be stopped at any time. `--tables` prints what there is and runs nothing. Only the standard library is needed.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
from pathlib import Path

STEPS, BATCH, N_DEV, N_TEST = 150, 16, 200, 500
SEED_OF_THE_CUT = 0
# Shares of the RMS of the bundled model's embeddings (0.216). Where nothing else is varied it is 3 %, which `auto` was.
EMBEDDING_RMS = 0.216
SHARES = {"0.3 %": 0.003, "1 %": 0.01, "3 %": 0.03, "10 %": 0.1, "30 %": 0.3}

TASKS = {
    "sst2": {"template": "{text}", "labels": "negative= negative,positive= positive"},
    "sms": {"template": "{text}\\nLabel:", "labels": "ham= ham,spam= spam"},
    "ag": {
        "template": "{text}\\nTopic:",
        "labels": "World= world,Sports= sports,Business= business,Sci/Tech= science",
    },
}

# Axis, choice, flags. The base has none of them: 20 rows, an instruction, front, label, 3 %, 150 steps.
BASE = ("base", "defaults", [])


def rate(name):
    return ("learning rate", f"{name} of the RMS", ["--learning-rate", f"{SHARES[name] * EMBEDDING_RMS:.3g}"])


def length(n):
    return ("virtual tokens", str(n), ["--virtual-tokens", str(n)])


def init(how):
    return ("init", how, ["--init", how])


def steps(n):
    return ("steps", str(n), ["--steps", str(n)])


SUFFIX = ("placement", "suffix", ["--placement", "suffix"])
AFTER_BOS = ("placement", "after-bos", ["--placement", "after-bos"])
LM = ("objective", "lm", ["--objective", "lm"])
FEW = [BASE, SUFFIX, length(5), length(50), init("random"), rate("10 %"), LM, init("labels"), rate("1 %")]
SETTINGS = {
    "sst2": FEW
    + [length(1), length(100), init("vocab"), AFTER_BOS, rate("0.3 %"), rate("30 %"), steps(50), steps(400)]
    + [
        ("template", "{text}\\nLabel:", ["--template", "{text}\\nLabel:"]),
        ("template", "{text}\\nSentiment:", ["--template", "{text}\\nSentiment:"]),
    ],
    "sms": FEW,
    "ag": FEW,
}
DEFAULT_OF = {
    "virtual tokens": "20",
    "init": "text: an instruction",
    "placement": "front",
    "objective": "label",
    "learning rate": "3 % of the RMS",
    "steps": str(STEPS),
    "template": "{text}",
}


def main():
    args = arguments()
    args.work.mkdir(parents=True, exist_ok=True)
    if not args.tables:
        run_all(args)
    tables(args)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder of the data sets")
    parser.add_argument("--work", type=Path, required=True, help="where cut data and results are kept")
    parser.add_argument("--foreword", default="target/release/foreword", help="the program")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--tables", action="store_true", help="print the tables of the runs that there are")
    args = parser.parse_args()
    if not args.tables and args.data is None:
        parser.error("--data is needed to run anything")
    return args


def run_all(args):
    for seed in args.seeds:
        for task in args.tasks:
            split = cut(args, task)
            for axis, choice, flags in SETTINGS[task]:
                key = {"task": task, "axis": axis, "choice": choice, "seed": seed}
                if any(all(run[k] == v for k, v in key.items()) for run in finished(args)):
                    continue
                result = one_run(args, task, split, flags, seed)
                with (args.work / "runs.jsonl").open("a", encoding="utf-8") as file:
                    file.write(json.dumps({**key, **result}, ensure_ascii=False) + "\n")
                print(f"{task} seed {seed} {axis} {choice}: {100 * result['accuracy']:.1f} %", flush=True)


def finished(args):
    path = args.work / "runs.jsonl"
    return read(path) if path.exists() else []


def one_run(args, task, split, flags, seed):
    """Trains once, and returns what the prompt's passport says of it."""
    out = args.work / "prompt"
    settings = {
        "--template": TASKS[task]["template"],
        "--labels": TASKS[task]["labels"],
        "--steps": str(STEPS),
        "--batch-size": str(BATCH),
        "--patience": "0",
        "--learning-rate": rate("3 %")[2][1],
    }
    settings.update(zip(flags[::2], flags[1::2]))
    settings["--eval-every"] = str(int(settings["--steps"]) // 2)
    command = [args.foreword, "train", "--seed", str(seed), "--threads", "1", "--quiet", "--json"]
    command += ["--out", str(out), "--force"]
    command += [f"--{part}={path}" for part, path in split.items()]
    command += [f"{flag}={value}" for flag, value in settings.items()]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{ran.stderr}")
    done = json.loads(ran.stdout.splitlines()[-1])
    metrics = json.loads((out / "foreword.json").read_text(encoding="utf-8"))["metrics"]
    return {
        "accuracy": metrics["test"]["accuracy"],
        "macro_f1": metrics["test"]["macro_f1"],
        "loss": metrics["test"]["loss"],
        "bare": metrics["test.bare"]["accuracy"],
        "majority": metrics["test.majority"]["accuracy"],
        "best_step": done["best_step"],
        "seconds": done["seconds"],
    }


def cut(args, task):
    """-> the files of the task's splits, cut once: text that is there twice is taken once."""
    folder = args.work / task
    files = {part: folder / f"{part}.jsonl" for part in ("train", "dev", "test")}
    if all(path.exists() for path in files.values()):
        return files
    rng = random.Random(SEED_OF_THE_CUT)
    if task == "sst2":
        source = args.data / "sst2_sentences"
        train, dev, test = (unique(read(source / f"{part}.jsonl")) for part in ("train", "dev", "test"))
        for rows in (dev, test):
            rng.shuffle(rows)
    elif task == "ag":
        rest, test = (unique(read(args.data / "ag_news" / f"{part}.jsonl")) for part in ("dev", "test"))
        rng.shuffle(rest)
        rng.shuffle(test)
        dev, train = rest[:N_DEV], rest[N_DEV:]
    else:
        rest = unique(read(args.data / "sms_spam" / "all.jsonl"))
        rng.shuffle(rest)
        test, dev, train = rest[:N_TEST], rest[N_TEST : N_TEST + N_DEV], rest[N_TEST + N_DEV :]
    folder.mkdir(parents=True, exist_ok=True)
    for part, rows in (("train", train), ("dev", dev[:N_DEV]), ("test", test[:N_TEST])):
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        files[part].write_text("".join(lines), encoding="utf-8")
    return files


def read(path):
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def unique(rows):
    return list({row["text"].strip(): row for row in rows}.values())


def tables(args):
    runs = finished(args)
    for task, settings in SETTINGS.items():
        of_task = [run for run in runs if run["task"] == task]
        if not of_task:
            continue
        first = of_task[0]
        print(f"\n{task}: majority {100 * first['majority']:.1f} %, bare {100 * first['bare']:.1f} %\n")
        print("| setting | choice | test accuracy | each seed | loss | step kept |")
        print("|---|---|---|---|---|---|")
        row(of_task, "all", "default", "base", "defaults")
        for axis in dict.fromkeys(axis for axis, _, _ in settings if axis != "base"):
            choices = [run["choice"] for run in of_task if run["axis"] == axis]
            for choice in sorted({*choices, DEFAULT_OF[axis]} if choices else (), key=in_order):
                if choice == DEFAULT_OF[axis]:
                    row(of_task, axis, f"**{choice}**", "base", "defaults")
                else:
                    row(of_task, axis, choice, axis, choice)


def in_order(choice):
    """Numbers by their size, then words."""
    number = choice.split()[0]
    return (0, float(number), "") if number.replace(".", "").isdigit() else (1, 0.0, choice)


def row(runs, axis_shown, shown, axis, choice):
    chosen = [run for run in runs if (run["axis"], run["choice"]) == (axis, choice)]
    if not chosen:
        return
    accuracies = [100 * run["accuracy"] for run in chosen]
    each = ", ".join(f"{accuracy:.1f}" for accuracy in accuracies)
    loss = statistics.mean(run["loss"] for run in chosen)
    kept = ", ".join(str(run["best_step"]) for run in chosen)
    bare = f" (bare {100 * chosen[0]['bare']:.1f})" if axis_shown == "template" else ""
    print(f"| {axis_shown} | {shown} | {statistics.mean(accuracies):.1f} %{bare} | {each} | {loss:.3f} | {kept} |")


if __name__ == "__main__":
    main()
