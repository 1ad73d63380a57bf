"""Foreword beside PEFT on the same machine, checkpoints and texts: training steps, label scoring, memory, and the share of the
machine's best products that a step comes to.

    python3 bench/speed.py --work ../bench-speed                     # PEFT is installed there
    python3 bench/speed.py --work ../bench-speed --shapes gpt2 --virtual-tokens 100 --rounds 1
    python3 bench/speed.py --work ../bench-speed --shapes gpt2 smollm2-135m qwen2.5-0.5b --rounds 1 --steps 2

Checkpoints have the shapes of real models and random weights: speed does not depend on what they are. Both tools run as
processes of their own, in turns, so that what else the machine does falls on both. A rate is the median over the steps of all
rounds of whole steps (tokenising, forward, backward, optimizer); the first step of each process is left out. What is too large for
the machine's memory is ended before the machine suffers, and the table says so.

The second table counts the work that a step needs, the same for all tools (bench/nominal.py), and divides it by the time. The
machine's best is the largest rate of any product that was measured in the same turns: PyTorch's, and with --own-products also
Foreword's (`cargo bench`, which builds the benchmark first). Shares of f32 runs are of the best f32 product, others of the best of all.

Rows are appended to WORK/results.jsonl, and what is there is not measured again; the tables are printed at the end, and again with
--table. Only what is in the first line of the three needs a network, once.
"""

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

from nominal import Shape, training_work

ROOT = Path(__file__).resolve().parent.parent
PINNED = ["torch==2.15.0", "transformers==5.23.0", "peft==0.21.2", "safetensors==0.8.0", "numpy==2.4.6"]
BATCH = 32
LABELS = "negative= negative,positive= positive"
TEMPLATE = "{text}\nSentiment:"
# Tokens of template, text and label that `foreword train` takes where nothing else is said.
MAX_LENGTH = 512
# Products whose rates are the machine's: rows, inputs, outputs. Two of a step of GPT-2, and a large square one.
PRODUCTS = [(356, 768, 3072), (356, 3072, 768), (2048, 2048, 2048)]

# What config.json says of a model of that shape; the vocabulary's size counts, since PEFT makes logits for all of it.
SHAPES = {
    "gpt2": {"model_type": "gpt2", "vocab_size": 50257, "n_embd": 768, "n_layer": 12, "n_head": 12},
    "smollm2-135m": {
        "model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192, "tie_word_embeddings": True,
    },
    "qwen2.5-0.5b": {
        "model_type": "qwen2", "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
        "num_attention_heads": 14, "num_key_value_heads": 2, "max_position_embeddings": 32768, "tie_word_embeddings": True,
    },
    "foreword-tiny": None,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="a folder for the virtual environment, checkpoints and results")
    parser.add_argument("--shapes", nargs="+", default=["gpt2", "smollm2-135m"], choices=list(SHAPES))
    parser.add_argument("--virtual-tokens", nargs="+", type=int, default=[100, 20])
    parser.add_argument("--dtypes", nargs="+", choices=["f32", "bf16"], help="of PEFT; default: f32, and bf16 where the processor has it")
    parser.add_argument("--data", type=Path, default=ROOT / "examples/sentiment/train.jsonl", help="JSONL with text and label")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4, help="of each process, the first of which does not count")
    parser.add_argument("--memory", type=float, help="GB that a process may take; default: nine tenths of what is free")
    parser.add_argument("--foreword", type=Path, default=ROOT / "target/release/foreword")
    parser.add_argument("--python", type=Path, help="an interpreter that has PEFT already")
    parser.add_argument("--own-products", action="store_true", help="measure Foreword's products too, with cargo bench")
    parser.add_argument("--table", action="store_true", help="print the tables of the results that are there")
    parser.add_argument("--peft", nargs=5, metavar=("MODEL", "DTYPE", "P", "STEPS", "WHAT"), help=argparse.SUPPRESS)
    parser.add_argument("--products", nargs="*", metavar="DTYPE", help=argparse.SUPPRESS)
    parser.add_argument("--tokens", metavar="MODEL", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if args.peft:
        return print(json.dumps(peft_process(args.data, *args.peft)))
    if args.products:
        return print(json.dumps(products_process(args.products)))
    if args.tokens:
        return print(json.dumps(tokens_process(args.data, args.tokens)))
    if args.steps < 2:
        sys.exit("--steps: at least 2, since the first does not count")
    if not args.table:
        measure(args)
    print(tables(args.work / "results.jsonl"))


def measure(args):
    if not args.foreword.exists():
        sys.exit("build it first: cargo build --release")
    python = args.python or environment(args.work)
    dtypes = args.dtypes or (["f32", "bf16"] if "avx512_bf16" in processor()[1] else ["f32"])
    if args.own_products:
        run(["cargo", "bench", "-p", "foreword-kernels", "--bench", "products", "--no-run"], cwd=ROOT)
    # One file for both tools: as many examples as all steps of a run take.
    rows = [json.loads(line) for line in args.data.read_text(encoding="utf-8").splitlines() if line.strip()]
    n = BATCH * args.steps
    data = args.work / "data.jsonl"
    data.write_text("\n".join(json.dumps(rows[i % len(rows)]) for i in range(n)) + "\n", encoding="utf-8")
    dev = args.work / "dev.jsonl"
    dev.write_text("\n".join(json.dumps(row) for row in rows[:2]) + "\n", encoding="utf-8")
    results = Results(args.work / "results.jsonl")
    for shape in args.shapes:
        models = {dtype: checkpoint(python, args.work, shape, dtype) for dtype in ("f32", "bf16")}
        texts = json.loads(run([python, __file__, "--work", args.work, "--data", data, "--tokens", models["f32"]]))
        results.same(shape, texts)
        for round_ in range(args.rounds):
            results.add({"shape": shape, "round": round_, "what": "products"}, lambda: products(args, python, dtypes))
            for n_virtual in args.virtual_tokens:
                runs = [("foreword", dtype) for dtype in ("f32", "bf16")] + [("peft", dtype) for dtype in dtypes]
                for tool, dtype in runs:
                    for what in ("train", "score"):
                        key = {"shape": shape, "virtual_tokens": n_virtual, "round": round_, "tool": tool, "dtype": dtype}
                        one = foreword_run if tool == "foreword" else peft_run
                        results.add(
                            key | {"what": what}, lambda: one(args, python, models[dtype], dtype, n_virtual, what, data, dev)
                        )


class Results:
    """The file of rows: what is there is not measured again."""

    def __init__(self, path):
        self.path = path
        self.rows = read(path)

    def add(self, key, make):
        """Measures and appends a row, unless there is one of that key."""
        if any(key.items() <= row.items() for row in self.rows):
            return
        row = key | {"machine": processor()[0], "threads": os.cpu_count(), **make()}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self.rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)

    def same(self, shape, texts):
        """The tokens of the texts, which rows of one file must share."""
        if not any(row["shape"] == shape for row in self.rows):
            self.add({"shape": shape, "what": "tokens"}, lambda: texts)
        there = [row for row in self.rows if row["shape"] == shape and row["what"] == "tokens"]
        if not there or not texts.items() <= there[0].items():
            sys.exit(f"{self.path} was made of other texts or --steps: remove it, or take another --work")


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def foreword_run(args, python, model, dtype, n_virtual, what, data, dev):
    out = args.work / f"prompt-{model.name}-{n_virtual}"
    template = TEMPLATE.replace("\n", "\\n")
    common = ["--model", model, "--template", template, "--labels", LABELS, "--quiet", "--json"]
    train = [args.foreword, "train", data, "--dev", dev, *common, "--virtual-tokens", n_virtual, "--batch-size", BATCH, "--eval-every",
             0, "--no-shuffle", "--out", out, "--force", "--steps"]
    if what == "train":
        lines = [json.loads(line) for line in run([*train, args.steps]).splitlines()]
        rates = [line["examples_per_second"] for line in lines if line["event"] == "step"][1:]
        return {"examples_per_second": rates, "peak_memory_bytes": lines[-1]["peak_memory_bytes"]}
    if not (out / "foreword.json").exists():
        run([*train, 1])
    # What loading takes is taken off: three times the texts against once.
    seconds = []
    for n in (BATCH, 3 * BATCH):
        start = time.perf_counter()
        run([args.foreword, "classify", "--prompt", out, *common, "--data", data, "--limit", n])
        seconds.append(time.perf_counter() - start)
    return {"examples_per_second": [2 * BATCH / (seconds[1] - seconds[0])], "peak_memory_bytes": None}


def peft_run(args, python, model, dtype, n_virtual, what, data, dev):
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false"}
    allocator = next(Path("/usr/lib").glob("*/libjemalloc.so.2"), None)
    if allocator:
        environment["LD_PRELOAD"] = str(allocator)
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        environment.pop(name, None)
    command = [python, __file__, "--work", args.work, "--data", data, "--peft", model, dtype, n_virtual, args.steps, what]
    limit = 1e9 * args.memory if args.memory else 0.9 * kibibytes("/proc/meminfo", "MemAvailable")
    try:
        return json.loads(run(command, limit, env=environment).splitlines()[-1])
    except MemoryError:
        return {"examples_per_second": [], "peak_memory_bytes": None, "error": "out of memory", "memory_limit_bytes": int(limit)}


def products(args, python, dtypes):
    """Rates of products alone, GFLOP/s by whose, format and sizes."""
    rates = json.loads(run([python, __file__, "--work", args.work, "--products", *dtypes]).splitlines()[-1])
    if args.own_products:
        sizes = "|".join("x".join(map(str, product)) for product in PRODUCTS)
        wanted = f"^({sizes})/forward/({'|'.join(dtypes)})$"
        command = ["cargo", "bench", "-p", "foreword-kernels", "--bench", "products", "--", wanted, "--measurement-time", 2]
        # A line with the name, or the name and then a line with the time; then the least, likeliest and most of the throughput.
        found = re.findall(r"^(\w+)/forward/(\w+)\s.*?thrpt:\s*\[[\d.]+ \w+/s ([\d.]+) (\w)elem/s", run(command, cwd=ROOT), re.M | re.S)
        giga = {"K": 1e-6, "M": 1e-3, "G": 1.0, "T": 1e3}
        rates |= {f"Foreword {dtype} {size}": float(rate) * giga[unit] for size, dtype, rate, unit in found}
    return {"gflops": rates}


def run(command, limit=None, **more):
    """What a command prints. MemoryError, where it took more than the limit in bytes and was ended, or got no more."""
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)
    too_much = threading.Event()

    def watch():
        while process.poll() is None:
            if kibibytes(f"/proc/{process.pid}/status", "RssAnon") > limit:
                too_much.set()
                return process.kill()
            time.sleep(0.05)

    if limit:
        threading.Thread(target=watch, daemon=True).start()
    out, errors = process.communicate()
    if limit and process.returncode:
        if too_much.is_set() or process.returncode == -9 or "allocate memory" in errors or "not enough memory" in errors:
            raise MemoryError
    if process.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{errors[-3000:]}")
    return out


def kibibytes(path, key):
    """The bytes that a file of /proc states; 0 where it does not, or is gone."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{key}:")), 0)


def products_process(dtypes):
    """The best rate of each product in PyTorch, GFLOP/s, with weights as a model has them."""
    import torch

    rates = {}
    for dtype in dtypes:
        of = torch.float32 if dtype == "f32" else torch.bfloat16
        for rows, inputs, outputs in PRODUCTS:
            x, weights = torch.randn(rows, inputs, dtype=of), torch.randn(outputs, inputs, dtype=of)
            times, end = [], time.perf_counter() + 1.5
            while len(times) < 3 or time.perf_counter() < end:
                start = time.perf_counter()
                torch.nn.functional.linear(x, weights)
                times.append(time.perf_counter() - start)
            rates[f"PyTorch {dtype} {rows}x{inputs}x{outputs}"] = 2 * rows * inputs * outputs / min(times) / 1e9
    return rates


def tokens_process(data, model):
    """How many tokens begin all texts, and how many each has after them, by batches; and those of the labels."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(model) / "tokenizer.json"))
    rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    texts = [tokenizer.encode(TEMPLATE.replace("{text}", row["text"])).ids for row in rows]
    labels = [len(tokenizer.encode(label.split("=")[1], add_special_tokens=False).ids) for label in LABELS.split(",")]
    if max(map(len, texts)) + max(labels) > MAX_LENGTH:
        sys.exit(f"--data: texts of more than {MAX_LENGTH} tokens with their label would be cut by one tool only")
    # Each keeps at least its last token.
    alike = [len(set(column)) == 1 for column in zip(*(text[:-1] for text in texts))]
    shared = (alike + [False]).index(False)
    own = [len(text) - shared for text in texts]
    return {"shared": shared, "texts": [own[i : i + BATCH] for i in range(0, len(own), BATCH)], "labels": labels}


def peft_process(data, model, dtype, n_virtual, steps, what):
    """PEFT as its documentation has it, in a process of its own: right padding, labels −100 but on the label's tokens."""
    # Should memory run out, it is this process that goes.
    Path("/proc/self/oom_score_adj").write_text("1000", encoding="utf-8")
    import torch
    from peft import PromptTuningConfig, get_peft_model
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM

    tokenizer = Tokenizer.from_file(str(Path(model) / "tokenizer.json"))
    rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32 if dtype == "f32" else torch.bfloat16)
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=int(n_virtual), prompt_tuning_init="RANDOM")
    peft = get_peft_model(base, config)
    label_ids = {name: tokenizer.encode(f" {name}", add_special_tokens=False).ids for name in ("negative", "positive")}

    def batch(step, with_label):
        ids = []
        for row in rows[step * BATCH : (step + 1) * BATCH]:
            context = tokenizer.encode(TEMPLATE.replace("{text}", row["text"])).ids
            ids.append((context, label_ids[row["label"]] if with_label else []))
        width = max(len(context) + len(label) for context, label in ids)
        pad = lambda values, with_: values + [with_] * (width - len(values))
        return {
            "input_ids": torch.tensor([pad(c + l, 0) for c, l in ids]),
            "attention_mask": torch.tensor([pad([1] * len(c + l), 0) for c, l in ids]),
            "labels": torch.tensor([pad([-100] * len(c) + l, -100) for c, l in ids]),
        }, [len(c) for c, _ in ids]

    optimizer = torch.optim.AdamW([p for p in peft.parameters() if p.requires_grad], lr=1e-3)
    rates = []
    for step in range(int(steps)):
        start = time.perf_counter()
        if what == "train":
            inputs, _ = batch(step, True)
            peft(**inputs).loss.backward()
            torch.nn.utils.clip_grad_norm_([p for p in peft.parameters() if p.requires_grad], 1.0)
            optimizer.step()
            optimizer.zero_grad()
        else:
            inputs, lengths = batch(step, False)
            del inputs["labels"]
            with torch.no_grad():
                logits = peft(**inputs).logits
            at = torch.tensor(lengths) - 1 + int(n_virtual)
            torch.log_softmax(logits[torch.arange(len(lengths)), at].float(), -1)[:, [ids[0] for ids in label_ids.values()]]
        rates.append(BATCH / (time.perf_counter() - start))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"examples_per_second": rates[1:], "peak_memory_bytes": peak}


def environment(work):
    """A virtual environment with PEFT, made once."""
    python = work / "venv/bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", work / "venv"], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PINNED], check=True)
    return python


def checkpoint(python, work, shape, dtype):
    """A directory with random weights of that shape; the bundled model as it is."""
    if SHAPES[shape] is None:
        return ROOT / "crates/foreword-tiny"
    directory = work / f"{shape}-{dtype}"
    if not (directory / "tokenizer.json").exists():
        make = (
            "import json, sys, torch\n"
            "from transformers import AutoConfig, AutoModelForCausalLM\n"
            "shape, dtype, out = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]\n"
            "torch.manual_seed(0)\n"
            "config = AutoConfig.for_model(shape.pop('model_type'), **shape)\n"
            "model = AutoModelForCausalLM.from_config(config)\n"
            "model.to(torch.float32 if dtype == 'f32' else torch.bfloat16).save_pretrained(out)\n"
        )
        run([python, "-c", make, json.dumps(SHAPES[shape]), dtype, directory])
        tokenizer = (ROOT / "crates/foreword-tiny/tokenizer.json").read_bytes()
        (directory / "tokenizer.json").write_bytes(tokenizer)
    return directory


def processor():
    """The processor's name, and its flags."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    value = lambda key: next((line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith(key)), "")
    flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in value("flags").split()]
    return f"{value('model name')} ({', '.join(flags)})", flags


def tables(path):
    """Both tables, of as much as has been measured."""
    rows = [row for row in read(path) if "what" in row]
    if not rows:
        sys.exit(f"{path}: no results")
    cells = {}
    for row in rows:
        if row["what"] not in ("train", "score"):
            continue
        key = (row["shape"], row["virtual_tokens"], row["what"])
        cell = cells.setdefault(key, {}).setdefault((row["tool"], row["dtype"]), {"rates": [], "peak": [], "error": None})
        cell["rates"] += row["examples_per_second"]
        cell["peak"] += [row["peak_memory_bytes"]] if row["peak_memory_bytes"] else []
        cell["error"] = cell["error"] or row.get("error")
    lines = [f"{rows[-1]['machine']}, {rows[-1]['threads']} threads, batches of {BATCH}", ""]
    lines += comparison(cells) + [""] + shares(rows, cells)
    return "\n".join(lines)


def comparison(cells):
    lines = ["| model shape | P | | PEFT f32 | PEFT's best | Foreword f32 | Foreword bf16 weights | f32 / f32 | best / best |"]
    lines += ["|---|---|---|---|---|---|---|---|---|"]
    for (shape, n_virtual, what), tools in cells.items():
        rate = {key: statistics.median(cell["rates"]) for key, cell in tools.items() if cell["rates"]}
        unit = {"train": "training, examples/s", "score": "label scoring, examples/s"}[what]
        line = compared(tools, rate, max, "{:.1f}".format, lambda peft, ours: f"{ours / peft:.1f} ×")
        lines.append(f"| {shape} | {n_virtual} | {unit} | {line} |")
        if what == "train":
            peaks = {key: max(cell["peak"]) / 1e6 for key, cell in tools.items() if cell["peak"]}
            line = compared(tools, peaks, min, "{:,.0f}".format, lambda peft, ours: f"1 / {peft / ours:.1f}")
            lines.append(f"| {shape} | {n_virtual} | peak memory, MB | {line} |")
    return lines


def compared(tools, values, best, show, ratio):
    """Six cells: of values by tool and format, the best of each, and ratios, as far as they are there."""
    def cell(*key):
        error = tools.get(key, {}).get("error")
        return show(values[key]) if key in values else error or ""

    peft, ours = ([value for key, value in values.items() if key[0] == tool] for tool in ("peft", "foreword"))
    f32 = [values.get((tool, "f32")) for tool in ("peft", "foreword")]
    return " | ".join([
        cell("peft", "f32"), show(best(peft)) if peft else cell("peft", "f32"), cell("foreword", "f32"), cell("foreword", "bf16"),
        ratio(*f32) if all(f32) else "", ratio(best(peft), best(ours)) if peft and ours else "",
    ])


def shares(rows, cells):
    """The nominal work of a step over its time, beside the machine's best products."""
    rates = {}
    for row in rows:
        if row["what"] == "products":
            for name, rate in row["gflops"].items():
                rates.setdefault(name, []).append(rate)
    texts = {row["shape"]: row for row in rows if row["what"] == "tokens"}
    if not rates or not texts:
        return []
    best = {name: max(found) for name, found in rates.items()}
    of = lambda dtype: max((name for name in best if dtype is None or f" {dtype} " in name), key=best.get)
    lines = ["The machine's best products, GFLOP/s, the best and the least of all turns: "]
    lines[0] += "; ".join(f"{name} {best[name]:.0f} ({min(rates[name]):.0f})" for name in sorted(rates))
    lines += ["", "Nominal work over time, GFLOP/s, and the share of the machine's best that it is:", ""]
    lines += ["| model shape | P | tokens a step | GFLOP a step | of it attention | PEFT f32 | PEFT bf16 | Foreword f32 | Foreword bf16 weights |"]
    lines += ["|---|---|---|---|---|---|---|---|---|"]
    for (shape, n_virtual, what), tools in cells.items():
        if what != "train" or shape not in texts:
            continue
        counted = texts[shape]
        config = SHAPES[shape] or json.loads((ROOT / "crates/foreword-tiny/config.json").read_text(encoding="utf-8"))
        # The first step does not count.
        works = [
            training_work(Shape.of(config), n_virtual, counted["shared"], batch, counted["labels"]) for batch in counted["texts"][1:]
        ]
        mean = lambda of_work: statistics.mean(map(of_work, works))
        operations = mean(lambda work: work.operations)

        def cell(tool, dtype):
            found = tools.get((tool, dtype), {"rates": [], "error": None})
            if not found["rates"]:
                return found["error"] or ""
            rate = operations / 1e9 * statistics.median(found["rates"]) / BATCH
            return f"{rate:.1f} ({100 * rate / best[of('f32' if dtype == 'f32' else None)]:.0f} %)"

        lines.append(
            f"| {shape} | {n_virtual} | {mean(lambda work: work.tokens):,.0f} | {operations / 1e9:,.1f} | "
            f"{100 * mean(lambda work: work.attention) / operations:.1f} % | {cell('peft', 'f32')} | {cell('peft', 'bf16')} | "
            f"{cell('foreword', 'f32')} | {cell('foreword', 'bf16')} |"
        )
    return lines


if __name__ == "__main__":
    main()
