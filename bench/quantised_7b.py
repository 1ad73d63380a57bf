"""A training step of a model of 7B shape in four bits: writes a random GGUF file of about 4 GB, trains on it, and tells the memory.

    pip install gguf==0.19.0 numpy==2.4.6
    python bench/quantised_7b.py --foreword target/release/foreword --work ../bench-7b [--format q4_k|q4_0]

The shapes are Llama 2 7B's: 32 layers, 4,096 wide, 32 heads, 11,008 inside, 32,000 tokens. Its numbers are noise, so nothing is
learned; memory and time are those of the real one. The tokenizer is the bundled model's. The file is deleted in the end.
"""

import argparse
import json
import subprocess
import time
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Type, GGUFWriter

LAYERS, HIDDEN, HEADS, INSIDE, VOCABULARY = 32, 4096, 32, 11008, 32000
HALVES = {Type.Q4_K: [0, 2], Type.Q4_0: [0], Type.Q6_K: [208], Type.Q8_0: [0]}


def noise(random: np.random.Generator, kind: Type, rows: int, cols: int) -> np.ndarray:
    """Random blocks whose numbers are about 0.02 large."""
    numbers, size = GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, (rows * cols // numbers, size), dtype=np.uint8)
    # Quotients times scales of the larger formats reach a hundred times as far.
    scale = {Type.Q4_K: 1e-4, Type.Q4_0: 4e-3, Type.Q6_K: 1.5e-5, Type.Q8_0: 2.5e-4}[kind]
    for at in HALVES[kind]:
        blocks[:, at : at + 2] = np.full(len(blocks), scale, "<f2").view(np.uint8).reshape(-1, 2)
    return blocks.reshape(rows, cols // numbers * size)


def write(path: Path, kind: Type, tokenizer: Path) -> None:
    random = np.random.default_rng(7)
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(4096)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INSIDE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_string("tokenizer.huggingface.json", tokenizer.read_text())
    table = Type.Q6_K if kind == Type.Q4_K else Type.Q8_0
    plan = [("token_embd", VOCABULARY, HIDDEN, table), ("output", VOCABULARY, HIDDEN, table)]
    for i in range(LAYERS):
        plan += [(f"blk.{i}.attn_{name}", HIDDEN, HIDDEN, kind) for name in ("q", "k", "v", "output")]
        plan += [(f"blk.{i}.ffn_{name}", INSIDE, HIDDEN, kind) for name in ("gate", "up")]
        plan.append((f"blk.{i}.ffn_down", HIDDEN, INSIDE, kind))
    norms = ["output_norm", *(f"blk.{i}.{name}_norm" for i in range(LAYERS) for name in ("attn", "ffn"))]
    for name in norms:
        writer.add_tensor_info(f"{name}.weight", (HIDDEN,), np.dtype("float32"), HIDDEN * 4)
    for name, rows, cols, kind_of in plan:
        numbers, size = GGML_QUANT_SIZES[kind_of]
        shape = (rows, cols // numbers * size)
        writer.add_tensor_info(f"{name}.weight", shape, np.dtype("uint8"), shape[0] * shape[1], raw_dtype=kind_of)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _ in norms:
        writer.write_tensor_data(np.ones(HIDDEN, "<f4"))
    for _, rows, cols, kind_of in plan:
        writer.write_tensor_data(noise(random, kind_of, rows, cols))
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--foreword", type=Path, default=Path("target/release/foreword"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--format", choices=["q4_k", "q4_0"], default="q4_k")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args()
    root = Path(__file__).parent.parent
    args.work.mkdir(parents=True, exist_ok=True)
    model, data = args.work / f"random-7b-{args.format}.gguf", args.work / "train.jsonl"
    if not model.exists():
        write(model, {"q4_k": Type.Q4_K, "q4_0": Type.Q4_0}[args.format], root / "crates/foreword-tiny/tokenizer.json")
    lines = (root / "testdata/parity/train.jsonl").read_text().splitlines()
    data.write_text("\n".join(lines[: 4 * args.batch_size]) + "\n")
    command = [args.foreword, "train", data, "--dev", data, "--model", model, "--template", "{text}\\nSentiment:"]
    command += ["--virtual-tokens", "8", "--steps", str(args.steps), "--batch-size", str(args.batch_size)]
    command += ["--eval-every", "0", "--limit", str(2 * args.batch_size), "--out", args.work / "prompt", "--force", "--json"]
    print(" ".join(map(str, command)), flush=True)
    started = time.monotonic()
    for line in subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines():
        event = json.loads(line)
        if event["event"] in ("step", "done"):
            print(line)
        if event["event"] == "done":
            print(
                f"{model.stat().st_size / 1e9:.2f} GB of weights, peak memory {event['peak_memory_bytes'] / 1e9:.2f} GB, "
                f"{time.monotonic() - started:.0f} s altogether"
            )
    if not args.keep:
        model.unlink()


if __name__ == "__main__":
    main()
