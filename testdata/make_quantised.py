"""A tiny Llama as a GGUF file in three parts, in the formats that Foreword only reads, and its logits in transformers.

    python testdata/make_quantised.py     # testdata/quantised/, the same bytes every time

Needs gguf 0.19.0 beside the versions of make_golden.py. The matrices are random blocks, which the
gguf package's `dequantize` reads for transformers.
"""

import json
import os
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from gguf import GGUFReader, GGUFWriter
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize
from transformers import LlamaConfig, LlamaForCausalLM

HERE = Path(__file__).resolve().parent
HIDDEN, WIDTH, INNER, VOCAB = 256, 32, 64, 401
# Where in a block half-precision numbers lie: they must be ordinary ones.
HALVES = {
    Type.Q5_1: [0, 2],
    Type.Q4_1: [0, 2],
    Type.IQ4_NL: [0],
    Type.IQ4_XS: [0],
    Type.Q3_K: [108],
    Type.Q2_K: [80, 82],
    Type.MXFP4: [],
}
# Scales that make numbers of about the same size.
SIZES = {Type.IQ4_NL: 8e-4, Type.IQ4_XS: 5e-5, Type.Q3_K: 1.5e-3, Type.Q2_K: 8e-4, Type.Q5_1: 4e-3, Type.Q4_1: 8e-3}
MATRICES = {
    "token_embd.weight": (VOCAB, HIDDEN, Type.Q2_K),
    "blk.0.attn_q.weight": (2 * WIDTH, HIDDEN, Type.IQ4_NL),
    "blk.0.attn_k.weight": (WIDTH, HIDDEN, Type.Q5_1),
    "blk.0.attn_v.weight": (WIDTH, HIDDEN, Type.MXFP4),
    "blk.0.attn_output.weight": (HIDDEN, 2 * WIDTH, Type.Q4_1),
    "blk.0.ffn_gate.weight": (INNER, HIDDEN, Type.IQ4_XS),
    "blk.0.ffn_up.weight": (INNER, HIDDEN, Type.Q3_K),
    "blk.0.ffn_down.weight": (HIDDEN, INNER, Type.Q5_1),
}
NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "attn_q.weight": "model.layers.0.self_attn.q_proj.weight",
    "attn_k.weight": "model.layers.0.self_attn.k_proj.weight",
    "attn_v.weight": "model.layers.0.self_attn.v_proj.weight",
    "attn_output.weight": "model.layers.0.self_attn.o_proj.weight",
    "ffn_gate.weight": "model.layers.0.mlp.gate_proj.weight",
    "ffn_up.weight": "model.layers.0.mlp.up_proj.weight",
    "ffn_down.weight": "model.layers.0.mlp.down_proj.weight",
    "attn_norm.weight": "model.layers.0.input_layernorm.weight",
    "ffn_norm.weight": "model.layers.0.post_attention_layernorm.weight",
}
NORMS = ["blk.0.attn_norm.weight", "blk.0.ffn_norm.weight", "output_norm.weight"]


def blocks(rows: int, cols: int, kind: Type, random: np.random.Generator) -> np.ndarray:
    numbers, size = GGML_QUANT_SIZES[kind]
    made = random.integers(0, 256, (rows * cols // numbers, size), dtype=np.uint8)
    for i, at in enumerate(HALVES[kind]):
        scales = random.uniform(0.5, 1.5, len(made)) * SIZES[kind]
        if i == 1 and kind in (Type.Q5_1, Type.Q4_1):
            # A minimum that makes half of the numbers negative.
            scales *= -(16 if kind == Type.Q5_1 else 8)
        made[:, at : at + 2] = scales.astype("<f2").view(np.uint8).reshape(-1, 2)
    if kind == Type.MXFP4:
        made[:, 0] = 120
    return made.reshape(rows, cols // numbers * size)


def write(path: Path, **split) -> None:
    random = np.random.default_rng(21)
    writer = GGUFWriter(path, "llama", **split)
    writer.add_context_length(256)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(1)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_key_length(WIDTH)
    writer.add_value_length(WIDTH)
    writer.add_rope_dimension_count(WIDTH)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_string("tokenizer.huggingface.json", (HERE / "models/llama-tiny/tokenizer.json").read_text())
    for name, (rows, cols, kind) in MATRICES.items():
        writer.add_tensor(name, blocks(rows, cols, kind, random), raw_dtype=kind)
    for name in NORMS:
        writer.add_tensor(name, random.uniform(0.5, 1.5, HIDDEN).astype("<f4"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def dequantized(file: GGUFReader) -> LlamaForCausalLM:
    """The model of the file. There the rows of queries and keys are interleaved by pairs that are rotated together."""
    tensors = {}
    for tensor in file.tensors:
        value = torch.tensor(dequantize(tensor.data, tensor.tensor_type).astype("<f4"))
        if "attn_q" in tensor.name or "attn_k" in tensor.name:
            value = value.reshape(-1, WIDTH // 2, 2, HIDDEN).transpose(1, 2).reshape(-1, HIDDEN)
        stem = tensor.name.removeprefix("blk.0.")
        tensors[NAMES.get(stem, f"model.layers.0.{stem}")] = value
    config = LlamaConfig(
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=WIDTH,
        vocab_size=VOCAB,
        max_position_embeddings=256,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        attn_implementation="eager",
    )
    model = LlamaForCausalLM(config)
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert missing == ["lm_head.weight"] and not unexpected, (missing, unexpected)
    return model


def main() -> None:
    torch.set_num_threads(1)
    out = HERE / "quantised"
    out.mkdir(exist_ok=True)
    for file in out.glob("*.gguf"):
        file.unlink()
    write(out / "tiny.gguf", split_max_tensors=4)
    ids = [(i * 37 + 5) % VOCAB for i in range(30)]
    with tempfile.TemporaryDirectory() as directory:
        whole = Path(directory) / "tiny.gguf"
        write(whole)
        model = dequantized(GGUFReader(whole))
    with torch.no_grad():
        logits = model.eval()(input_ids=torch.tensor([ids])).logits[0, -1]
    golden = {"ids": ids, "logits": [float(f"{value:.7g}") for value in logits.tolist()]}
    (out / "golden.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
