"""Foreword beside PEFT on the same machine, checkpoints and texts: training steps, label scoring, memory.

    python3 bench/speed.py --work ../bench-speed                     # everything; PEFT is installed there
    python3 bench/speed.py --work ../bench-speed --shapes gpt2 --virtual-tokens 100 --rounds 1

Checkpoints have the shapes of real models and random weights: speed does not depend on what they are. Both tools run as
processes of their own, in turns, so that what else the machine does falls on both. A rate is the median over the steps of all
rounds of whole steps (tokenising, forward, backward, optimizer); the first step of each process is left out. Rows are appended to
WORK/results.jsonl; the table is printed at the end, and again with --table.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PINNED = ["torch==2.15.0", "transformers==5.23.0", "peft==0.21.2", "safetensors==0.8.0", "numpy==2.4.6"]
BATCH = 32
LABELS = "negative= negative,positive= positive"

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
    parser.add_argument("--foreword", type=Path, default=ROOT / "target/release/foreword")
    parser.add_argument("--python", type=Path, help="an interpreter that has PEFT already")
    parser.add_argument("--table", action="store_true", help="print the table of the results that are there")
    parser.add_argument("--peft", nargs=5, metavar=("MODEL", "DTYPE", "P", "STEPS", "WHAT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if args.peft:
        return print(json.dumps(peft_process(args.data, *args.peft)))
    if not args.table:
        measure(args)
    print(table(args.work / "results.jsonl"))


def measure(args):
    if not args.foreword.exists():
        sys.exit("build it first: cargo build --release")
    python = args.python or environment(args.work)
    dtypes = args.dtypes or (["f32", "bf16"] if "avx512_bf16" in processor()[1] else ["f32"])
    # One file for both tools: as many examples as all steps of a run take.
    rows = [json.loads(line) for line in args.data.read_text(encoding="utf-8").splitlines() if line.strip()]
    n = BATCH * args.steps
    data = args.work / "data.jsonl"
    data.write_text("\n".join(json.dumps(rows[i % len(rows)]) for i in range(n)) + "\n", encoding="utf-8")
    dev = args.work / "dev.jsonl"
    dev.write_text("\n".join(json.dumps(row) for row in rows[:2]) + "\n", encoding="utf-8")
    for shape in args.shapes:
        models = {dtype: checkpoint(python, args.work, shape, dtype) for dtype in {"f32", "bf16"}}
        for n_virtual in args.virtual_tokens:
            for round_ in range(args.rounds):
                runs = [("foreword", dtype) for dtype in ("f32", "bf16")] + [("peft", dtype) for dtype in dtypes]
                for tool, dtype in runs:
                    for what in ("train", "score"):
                        run = foreword_run if tool == "foreword" else peft_run
                        found = run(args, python, models[dtype], dtype, n_virtual, what, data, dev)
                        row = {"shape": shape, "virtual_tokens": n_virtual, "round": round_, "tool": tool, "dtype": dtype}
                        row |= {"what": what, "machine": processor()[0], "threads": os.cpu_count(), **found}
                        with open(args.work / "results.jsonl", "a", encoding="utf-8") as file:
                            file.write(json.dumps(row) + "\n")
                        print(json.dumps(row), file=sys.stderr, flush=True)


def foreword_run(args, python, model, dtype, n_virtual, what, data, dev):
    out = args.work / "prompt"
    common = ["--model", str(model), "--template", "{text}\\nSentiment:", "--labels", LABELS, "--quiet", "--json"]
    train = [args.foreword, "train", data, "--dev", dev, *common, "--virtual-tokens", str(n_virtual), "--batch-size", str(BATCH),
             "--steps", str(args.steps), "--eval-every", "0", "--no-shuffle", "--out", out, "--force"]
    if what == "train":
        lines = [json.loads(line) for line in run(train).splitlines()]
        rates = [line["examples_per_second"] for line in lines if line["event"] == "step"][1:]
        return {"examples_per_second": rates, "peak_memory_bytes": lines[-1]["peak_memory_bytes"]}
    run(train[: train.index("--steps") + 1] + ["1", "--eval-every", "0", "--out", out, "--force"])
    # What loading takes is taken off: twice the texts against once.
    seconds = []
    for n in (BATCH, 3 * BATCH):
        start = time.perf_counter()
        run([args.foreword, "classify", "--prompt", out, *common, "--data", data, "--limit", str(n)])
        seconds.append(time.perf_counter() - start)
    return {"examples_per_second": [2 * BATCH / (seconds[1] - seconds[0])], "peak_memory_bytes": None}


def peft_run(args, python, model, dtype, n_virtual, what, data, dev):
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false"}
    allocator = next(Path("/usr/lib").glob("*/libjemalloc.so.2"), None)
    if allocator:
        environment["LD_PRELOAD"] = str(allocator)
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        environment.pop(name, None)
    command = [python, __file__, "--work", args.work, "--data", data, "--peft", model, dtype, str(n_virtual), str(args.steps), what]
    return json.loads(run(command, env=environment).splitlines()[-1])


def run(command, **more):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **more)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr[-3000:]}")
    return done.stdout


def peft_process(data, model, dtype, n_virtual, steps, what):
    """PEFT as its documentation has it, in a process of its own: right padding, labels −100 but on the label's tokens."""
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
            context = tokenizer.encode(f"{row['text']}\nSentiment:").ids
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


def table(path):
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    cells = {}
    for row in rows:
        key = (row["shape"], row["virtual_tokens"], row["what"])
        cell = cells.setdefault(key, {}).setdefault((row["tool"], row["dtype"]), {"rates": [], "peak": []})
        cell["rates"] += row["examples_per_second"]
        cell["peak"] += [row["peak_memory_bytes"]] if row["peak_memory_bytes"] else []
    lines = [f"{rows[-1]['machine']}, {rows[-1]['threads']} threads, batches of {BATCH}", ""]
    lines += ["| model shape | P | | PEFT f32 | PEFT's best | Foreword f32 | Foreword bf16 weights | f32 / f32 | best / best |"]
    lines += ["|---|---|---|---|---|---|---|---|---|"]
    for (shape, n_virtual, what), tools in cells.items():
        rate = {key: statistics.median(cell["rates"]) for key, cell in tools.items()}
        peft = max(value for key, value in rate.items() if key[0] == "peft")
        ours = max(value for key, value in rate.items() if key[0] == "foreword")
        show = lambda *key: f"{rate[key]:.1f}" if key in rate else ""
        unit = {"train": "training, examples/s", "score": "label scoring, examples/s"}[what]
        lines.append(
            f"| {shape} | {n_virtual} | {unit} | {show('peft', 'f32')} | {peft:.1f} | {show('foreword', 'f32')} | "
            f"{show('foreword', 'bf16')} | {rate['foreword', 'f32'] / rate['peft', 'f32']:.1f} × | {ours / peft:.1f} × |"
        )
        peaks = {key: max(cell["peak"]) / 1e6 for key, cell in tools.items() if cell["peak"]}
        if what == "train":
            show = lambda *key: f"{peaks[key]:,.0f}" if key in peaks else ""
            least = min(value for key, value in peaks.items() if key[0] == "peft")
            ratio = lambda key: f"1 / {peaks['peft', 'f32'] / peaks[key]:.1f}"
            lines.append(
                f"| {shape} | {n_virtual} | peak memory, MB | {show('peft', 'f32')} | {least:,.0f} | {show('foreword', 'f32')} | "
                f"{show('foreword', 'bf16')} | {ratio(('foreword', 'f32'))} | {ratio(('foreword', 'bf16'))} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
