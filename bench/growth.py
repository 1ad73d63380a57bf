"""How the cost of a training step grows: time and memory against virtual tokens, length of the texts, batch, and prompts at once.

    python3 bench/growth.py --work ../bench-growth                  # the tables at the end; again with --table
    python3 bench/growth.py --work ../bench-growth --axes length --rounds 3

One setting varies, the others stay: 20 virtual tokens, 8 texts of 32 tokens, one prompt. The model has random weights, eight layers, 512
wide, and a context of 4,096 tokens; --model takes another directory. Each text is so many words that are one token each, of the
bundled tokenizer, behind its BOS, which is computed once a step with the virtual tokens. Every run is a process of its own, in
rounds over all of them. A time is the median over the steps of all rounds; the first step of each process is left out. Memory is the
peak resident set, less that of a run over one short text, which is the program and its model.

Nothing but the batch's tables has a limit on how many tokens are computed at a time, so that growth is seen and not the limit. Exponents
are fitted to the larger half of each table: 1 is growth as of the tokens. The nominal work (bench/nominal.py) says what growth there
should be. Rows are appended to WORK/growth.jsonl, and what is there is not measured again. Only the standard library is needed.
"""

import argparse
import array
import json
import math
import os
import random
import statistics
import struct
import subprocess
import sys
from pathlib import Path

from nominal import Shape, training_work

ROOT = Path(__file__).resolve().parent.parent
CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 8192, "hidden_size": 512, "intermediate_size": 1536,
    "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64, "hidden_act": "silu",
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": True, "attention_bias": False,
    "mlp_bias": False, "bos_token_id": 1, "eos_token_id": 0, "pad_token_id": 2, "torch_dtype": "float32",
}
FIXED = {"virtual": 20, "length": 32, "batch": 8, "prompts": 1, "at_a_time": None, "memory": None}
# What varies, its values, and what else differs from the fixed.
AXES = {
    "virtual": ("virtual tokens", "virtual", [5, 20, 50, 100, 200, 400], {"batch": 4}),
    "length": ("tokens of a text", "length", [16, 64, 256, 1024], {"batch": 4}),
    "batch": ("texts a step", "batch", [1, 4, 16, 64, 256], {}),
    "budget": ("texts a step, 2,048 tokens at a time", "batch", [1, 4, 16, 64, 256], {"at_a_time": 2048}),
    "prompts": ("prompts at once", "prompts", [1, 2, 4, 8], {}),
    "memory": ("--memory, 128 texts a step", "memory", ["1GB", "500MB", "350MB", "250MB"], {"batch": 128}),
}
FLOOR = {"virtual": 1, "length": 16, "batch": 1}
MORE_THAN_ENOUGH = 1_000_000


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="a folder for the checkpoint, texts and results")
    parser.add_argument("--axes", nargs="+", default=list(AXES), choices=list(AXES), help="which tables")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--steps", type=int, help="of each process, the first of which does not count; default: 4, of small steps more")
    parser.add_argument("--most", type=int, help="leave out steps of more tokens than this")
    parser.add_argument("--model", type=Path, help="a checkpoint with a tokenizer that knows the words, instead of the random one")
    parser.add_argument("--foreword", type=Path, default=ROOT / "target/release/foreword")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--table", action="store_true", help="print the tables of the results that are there")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    args.model = args.model or checkpoint(args.work / "model")
    results = args.work / "growth.jsonl"
    if not args.table:
        measure(args, results)
    print(tables(results, json.loads((args.model / "config.json").read_text(encoding="utf-8"))))


def measure(args, results):
    if not args.foreword.exists():
        sys.exit("build it first: cargo build --release")
    points = [("floor", FIXED | FLOOR)]
    for axis in args.axes:
        _, varies, values, more = AXES[axis]
        points += [(axis, FIXED | more | {varies: value}) for value in values]
    there = read(results)
    for round_ in range(args.rounds):
        for axis, point in points:
            if args.most and tokens(point) > args.most:
                continue
            key = {"axis": axis, "round": round_, "point": point, "model": args.model.name, "threads": args.threads}
            if any(key.items() <= row.items() for row in there):
                continue
            row = key | {"machine": processor(), **train(args, point)}
            with open(results, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), file=sys.stderr, flush=True)


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def tokens(point):
    """Tokens that a step computes: the trunk of each prompt, with the BOS, and the texts below it."""
    return point["prompts"] * (point["virtual"] + 1 + point["batch"] * point["length"])


def work(shape, point):
    """The nominal work of a step: of each prompt, whose texts are its own."""
    one = training_work(shape, point["virtual"], 1, [point["length"]] * point["batch"])
    return point["prompts"] * one.operations, one.attention / one.operations


def train(args, point):
    """The times of a process's steps, and its peak memory."""
    # Even of one text a step there are several, since what all texts share is computed once.
    data = texts(args.work / f"texts-{point['length']}.jsonl", point["length"], max(8, point["batch"]))
    dev = texts(args.work / f"dev-{point['length']}.jsonl", point["length"], 2)
    steps = args.steps or min(16, max(4, 4000 // tokens(point)))
    command = [
        args.foreword, "train", data, "--dev", dev, "--model", args.model, "--template", "{text}", "--labels",
        "negative= negative,positive= positive", "--virtual-tokens", point["virtual"], "--batch-size", point["batch"],
        "--max-length", point["length"] + 2, "--steps", steps, "--learning-rate", "0.001", "--eval-every", 0, "--no-shuffle",
        "--limit", max(8, point["batch"]), "--threads", args.threads, "--out", args.work / "prompt", "--force", "--quiet", "--json",
    ]
    if point["prompts"] > 1:
        command += ["--candidates", point["prompts"], "--ensemble", point["prompts"]]
    command += ["--memory", point["memory"] or "1000GB"]
    if not point["memory"]:
        command += ["--micro-batch-tokens", point["at_a_time"] or MORE_THAN_ENOUGH]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if point["memory"] and "is too little" in done.stderr:
        return {"seconds": [], "peak_memory_bytes": None}
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr[-3000:]}")
    # A text of so many words has as many tokens or more, and not more, or it were cut.
    if "were cut" in done.stderr:
        sys.exit(f"{args.model}: its tokenizer makes more than one token of a word\n{done.stderr}")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    # Each prompt tells of each step, and of the step's texts of all of them.
    rates = {line["step"]: line["examples_per_second"] for line in lines if line["event"] == "step"}
    times = [point["prompts"] * point["batch"] / rate for _, rate in sorted(rates.items())]
    return {"seconds": times[1:], "peak_memory_bytes": lines[-1]["peak_memory_bytes"]}


def texts(path, length, n):
    """At least `n` texts of so many tokens, behind the BOS, which alone they share."""
    if path.exists() and len(read(path)) >= n:
        return path
    vocabulary = json.loads((ROOT / "crates/foreword-tiny/tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    words = [word for word in vocabulary if word.isascii() and word.isalpha() and word.islower() and len(word) > 2]
    # A token of its own at the beginning and behind a space.
    words = [word for word in words if f"Ġ{word}" in vocabulary]
    draw = random.Random(length)
    rows = []
    for i in range(n):
        text = " ".join([words[i % len(words)], *draw.choices(words, k=length - 1)])
        rows.append(json.dumps({"text": text, "label": ("negative", "positive")[i % 2]}))
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def checkpoint(directory):
    """A directory with random weights of the configuration, made once."""
    if (directory / "tokenizer.json").exists():
        return directory
    hidden, inside, kv = CONFIG["hidden_size"], CONFIG["intermediate_size"], CONFIG["num_key_value_heads"] * CONFIG["head_dim"]
    tensors = {"model.embed_tokens.weight": [CONFIG["vocab_size"], hidden], "model.norm.weight": [hidden]}
    for layer in range(CONFIG["num_hidden_layers"]):
        of_layer = {
            "input_layernorm": [hidden], "post_attention_layernorm": [hidden],
            "self_attn.q_proj": [hidden, hidden], "self_attn.k_proj": [kv, hidden], "self_attn.v_proj": [kv, hidden],
            "self_attn.o_proj": [hidden, hidden],
            "mlp.gate_proj": [inside, hidden], "mlp.up_proj": [inside, hidden], "mlp.down_proj": [hidden, inside],
        }
        tensors |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in of_layer.items()}
    header, end = {}, 0
    for name, shape in tensors.items():
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    draw = random.Random(0)
    # Random enough: each matrix begins elsewhere in the same million numbers.
    noise = array.array("f", (draw.gauss(0, 0.02) for _ in range(1_000_003)))
    if sys.byteorder == "big":
        noise.byteswap()
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for shape in tensors.values():
            if len(shape) == 1:
                file.write(struct.pack("<f", 1.0) * shape[0])
                continue
            left, at = math.prod(shape), draw.randrange(len(noise))
            while left:
                part = noise[at : at + left]
                file.write(part.tobytes())
                left, at = left - len(part), 0
    (directory / "config.json").write_text(json.dumps(CONFIG, indent=2), encoding="utf-8")
    (directory / "tokenizer.json").write_bytes((ROOT / "crates/foreword-tiny/tokenizer.json").read_bytes())
    return directory


def processor():
    """The processor's name, and what it has of wide instructions."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    value = lambda key: next((line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith(key)), "")
    flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in value("flags").split()]
    return f"{value('model name')} ({', '.join(flags)})"


def tables(path, config):
    """A table and a verdict of each axis, of as much as has been measured."""
    rows = read(path)
    floors = [row["peak_memory_bytes"] for row in rows if row["axis"] == "floor"]
    if not floors:
        sys.exit(f"{path}: no results")
    floor, shape = min(floors), Shape.of(config)
    lines = [f"{rows[-1]['machine']}, {rows[-1]['threads']} threads; the program and its model take {floor / 1e6:,.0f} MB", ""]
    for axis, (name, varies, values, more) in AXES.items():
        found = []
        for value in values:
            point = FIXED | more | {varies: value}
            of_point = [row for row in rows if row["axis"] == axis and row["point"] == point and row["seconds"]]
            if of_point:
                times = [seconds for row in of_point for seconds in row["seconds"]]
                peak = max(row["peak_memory_bytes"] for row in of_point) - floor
                found.append((value, tokens(point), statistics.median(times), *work(shape, point), max(peak, 0)))
        if found:
            lines += table(name, found) + ["", verdict(axis, found), ""]
    return "\n".join(lines)


def table(name, found):
    lines = [f"| {name} | tokens a step | ms a step | ms per 1,000 tokens | GFLOP a step | of it attention | MB above the model | bytes per token |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for value, n, seconds, operations, attention, peak in found:
        value = f"{value:,}" if isinstance(value, int) else value
        lines.append(
            f"| {value} | {n:,} | {1e3 * seconds:,.0f} | {1e6 * seconds / n:,.0f} | {operations / 1e9:,.1f} | {100 * attention:.1f} % | "
            f"{peak / 1e6:,.0f} | {peak / n:,.0f} |"
        )
    return lines


def verdict(axis, found):
    """In one line, what the numbers say."""
    _, n, seconds, operations, _, peaks = zip(*found)
    if axis == "memory":
        ratio = max(seconds) / min(seconds)
        return f"The least memory takes {seconds[-1] / seconds[0]:.2f} times as long as the most; slowest over fastest {ratio:.2f}."
    half = slice(min(len(found) // 2, max(len(found) - 2, 0)), None)
    if len(found[half]) < 2:
        return "Too few sizes for an exponent."
    grows = lambda values: f"{exponent(n[half], values[half]):.2f}"
    memory = f"memory {grows(peaks)}"
    if axis == "budget":
        # Bounded by the tokens that are computed at a time.
        full = next((i for i, tokens in enumerate(n) if tokens >= AXES[axis][3]["at_a_time"]), None)
        if full is not None and peaks[full]:
            memory = f"memory none: {n[-1] / n[full]:.1f} times the tokens take {peaks[-1] / peaks[full]:.2f} times the memory"
    return f"From {n[half][0]:,} to {n[half][-1]:,} tokens, exponents: time {grows(seconds)}, nominal work {grows(operations)}, {memory}."


def exponent(x, y):
    """e of the least-squares y = c·xᵉ.

    >>> exponent([1, 2, 4], [3, 12, 48])
    2.0
    """
    if min(y) <= 0:
        return math.nan
    x, y = [math.log2(value) for value in x], [math.log2(value) for value in y]
    return statistics.linear_regression(x, y).slope


if __name__ == "__main__":
    main()
