"""Reads GGUF files that Foreword wrote with the `gguf` package, and holds them against the model that they were written from.

    pip install gguf==0.19.0 numpy==2.4.6
    foreword quantise crates/foreword-tiny tiny.gguf --to q8_0
    python testdata/check_gguf.py crates/foreword-tiny/model.safetensors tiny.gguf …

Every tensor must be there, readable, and as near to the safetensors file as its format allows; rows of queries and keys are in
the order of llama.cpp.
"""

import json
import struct
import sys
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize

# Relative L2 that each format may lose.
LOSS = {"F32": 0, "F16": 1e-3, "BF16": 4e-3, "Q8_0": 0.01, "Q6_K": 0.03, "Q4_K": 0.1, "Q4_0": 0.13}
NAMES = {
    "token_embd": "embed_tokens",
    "output_norm": "norm",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def safetensors(path: Path) -> dict[str, np.ndarray]:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    tensors = {}
    for name, info in json.loads(data[8 : 8 + length]).items():
        if name == "__metadata__":
            continue
        start, end = (8 + length + at for at in info["data_offsets"])
        if info["dtype"] == "BF16":
            values = (np.frombuffer(data[start:end], "<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            values = np.frombuffer(data[start:end], {"F32": "<f4", "F16": "<f2"}[info["dtype"]]).astype(np.float32)
        tensors[name.removeprefix("model.")] = values.reshape(info["shape"])
    return tensors


def by_pairs(rows: np.ndarray, heads: int) -> np.ndarray:
    return rows.reshape(heads, 2, -1, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def main() -> None:
    expected = safetensors(Path(sys.argv[1]))
    for path in sys.argv[2:]:
        reader = GGUFReader(path)
        field = lambda name: reader.fields[name].contents()  # noqa: E731
        assert field("general.architecture") == "llama", "only Llama models are checked"
        heads = {"attn_q": field("llama.attention.head_count"), "attn_k": field("llama.attention.head_count_kv")}
        left = dict(expected)
        worst: dict[str, float] = {}
        for tensor in reader.tensors:
            *layer, stem, _ = tensor.name.split(".")
            prefix = f"layers.{layer[1]}." if layer else ""
            of = left.pop(f"{prefix}{NAMES[stem]}.weight")
            of = by_pairs(of, heads[stem]) if stem in heads else of
            values = dequantize(tensor.data, tensor.tensor_type).reshape(of.shape)
            loss = float(np.linalg.norm(values - of) / np.linalg.norm(of))
            kind = tensor.tensor_type.name
            assert loss <= LOSS[kind], f"{tensor.name} as {kind} is off by {loss}"
            worst[kind] = max(worst.get(kind, 0), loss)
        assert not left, f"missing: {sorted(left)}"
        tokens, merges = field("tokenizer.ggml.tokens"), field("tokenizer.ggml.merges")
        print(f"{path}: {len(reader.tensors)} tensors, {len(tokens)} tokens, {len(merges)} merges, furthest {worst}")


if __name__ == "__main__":
    main()
