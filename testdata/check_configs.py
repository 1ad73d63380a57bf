"""Random configurations of every family: Foreword gives transformers' log-likelihoods, or refuses the model.

    python check_configs.py --foreword PATH [--per-family 10] [--seed 0] [--only NAME,…]

Head counts, head widths, tied and untied heads, biases, activations, windows, rotations and sizes are drawn; the weights are noise.
Each model is written as this version of transformers writes it, scored by `foreword classify --prompt none`, and by transformers.
A model that is neither refused nor the same to 1e-4 is an error; so is a family of which nothing was accepted. By hand, or where
Python is at hand: `cargo test` does not need it.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
sys.dont_write_bytecode = True
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from families import CONFIGS
from golden_common import Tokenizer, log_likelihoods

EAGER = {"attn_implementation": "eager", "experts_implementation": "eager"}
LABELS = {"negative": " negative", "positive": " positive"}
TEXTS = ["It rained all day, and the film was long.", "Good.", "She plays the mother with great care, and every scene with her is good."]


def drawn(name, rng):
    """A variation of a family's configuration."""
    config = dict(CONFIGS[name])
    heads = rng.choice([1, 2, 3, 4, 6])
    kv = rng.choice([k for k in range(1, heads + 1) if heads % k == 0])
    partial = name in ("phi3-tiny", "gpt-neox-tiny", "stablelm-tiny")  # a part of a head is rotated, which must be even
    width = rng.choice([8, 16, 24] if partial else [4, 8, 10, 12])
    sizes = {"hidden": heads * width, "heads": heads, "layers": rng.choice([1, 2, 3]), "inner": rng.choice([24, 40, 56])}
    aliases = {
        "hidden": ["hidden_size", "n_embd", "n_embed", "word_embed_proj_dim"],
        "heads": ["num_attention_heads", "n_head"],
        "layers": ["num_hidden_layers", "n_layer"],
        "inner": ["intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner"],
    }
    for size, keys in aliases.items():
        config.update({key: sizes[size] for key in keys if key in config})
    config.pop("no_rope_layers", None)
    config.pop("layer_types", None)
    for key in ["num_key_value_heads", "num_kv_heads"]:
        if key in config:
            config[key] = kv
    if "head_dim" in config:
        config["head_dim"] = rng.choice([4, 6, 12, 16])
        config["hidden_size"] = rng.choice([24, 36, sizes["hidden"]])
    for key in ("num_experts", "num_local_experts"):
        if key in config:
            config |= {key: rng.choice([3, 4, 7]), "num_experts_per_tok": rng.choice([1, 2, 3])}
    if "norm_topk_prob" in config:
        config["norm_topk_prob"] = rng.random() < 0.5
    if "rotary_dim" in config:
        config["rotary_dim"] = rng.choice([2, 4])
    for key in config:
        if key.endswith("bias") or key in ("qk_layernorm", "use_qk_norm", "use_parallel_residual", "parallel_attn", "multi_query"):
            config[key] = rng.random() < 0.5
    if "activation_function" in config or "hidden_act" in config:
        key = "activation_function" if "activation_function" in config else "hidden_act"
        config[key] = rng.choice([config[key], "gelu", "relu", "silu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "mish"])
    if name != "gptj-tiny":
        config["tie_word_embeddings"] = rng.random() < 0.5
    if "sliding_window" in config:
        config["sliding_window"] = rng.choice([1, 3, 17, 200, None])
    if "use_sliding_window" in config:
        config["use_sliding_window"] = rng.random() < 0.5 and config.get("sliding_window") is not None
    if "rope_theta" in config and name not in ("phi3-tiny",):
        config["rope_theta"] = rng.choice([10000.0, 500.0, 1000000.0])
        config["rope_scaling"] = rng.choice(
            [
                None,
                {"rope_type": "linear", "factor": 3.0},
                {"rope_type": "dynamic", "factor": 2.0},
                {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 16.0},
                {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 128, "mscale": 0.7, "mscale_all_dim": 0.4},
                {
                    "rope_type": "llama3",
                    "factor": 8.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 64,
                },
            ]
        )
    if name == "phi3-tiny":
        rotated = int(config["hidden_size"] // heads * 0.75) // 2
        factors = [1.0 + 0.2 * i for i in range(rotated)]
        config["rope_scaling"] = rng.choice([None, {"type": "longrope", "short_factor": factors, "long_factor": factors[::-1]}])
    config["vocab_size"] = rng.choice([291, 301, 512])
    return config


def run(args):
    rng = random.Random(args.seed)
    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    wrong, worst = [], 0.0
    for name in CONFIGS:
        if args.only and name not in args.only.split(","):
            continue
        tally = {"same": 0, "refused": 0, "not made": 0}
        refusals = set()
        for _ in range(args.per_family):
            config = drawn(name, rng)
            with tempfile.TemporaryDirectory() as scratch:
                directory = Path(scratch) / "model"
                directory.mkdir()
                (directory / "config.json").write_text(json.dumps(config))
                try:
                    found = AutoConfig.from_pretrained(str(directory))
                    model = AutoModelForCausalLM.from_config(found, dtype=torch.float32, **EAGER)
                except Exception as error:  # transformers refuses it: nothing to compare
                    tally["not made"] += 1
                    refusals.add(f"(transformers) {str(error).splitlines()[0][:90]}")
                    continue
                generator = torch.Generator().manual_seed(rng.randrange(1 << 30))
                for key, parameter in sorted(model.named_parameters()):
                    middle = 1.0 if key.endswith("weight") and ("norm" in key or "ln_" in key) and "gemma" not in name else 0.0
                    parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2 + middle
                model.eval().save_pretrained(str(directory))
                shutil.copy(HERE / "models" / name / "tokenizer.json", directory)
                labels = ",".join(f"{label}={text}" for label, text in LABELS.items())
                command = [args.foreword, "classify", "--prompt", "none", "--model", str(directory), "--labels", labels]
                ran = subprocess.run(
                    [*command, "--template", "{text}\\nLabel:", "--json", *TEXTS], capture_output=True, text=True
                )
                if ran.returncode == 1:
                    tally["refused"] += 1
                    refusals.add(ran.stderr.strip().splitlines()[-1][:150])
                    continue
                assert ran.returncode == 0, (config, ran.stderr)
                tokenizer = Tokenizer(directory / "tokenizer.json")
                ids = {label: tokenizer.label(text) for label, text in LABELS.items()}
                for line, text in zip(ran.stdout.splitlines(), TEXTS, strict=True):
                    expected = log_likelihoods(model, tokenizer.context(text + "\nLabel:"), ids)
                    for label, found in json.loads(line)["log_likelihoods"].items():
                        off = abs(found - expected[label]) / abs(expected[label])
                        worst = max(worst, off)
                        if off > 1e-4:
                            wrong.append((name, config, text, label, found, expected[label]))
                            print(f"WRONG {name}: {found} for {expected[label]}: {json.dumps(config)}")
                tally["same"] += 1
        print(f"{name}: {tally}")
        for refusal in sorted(refusals):
            print(f"    {refusal}")
        if tally["same"] == 0:
            wrong.append(name)
    print(f"largest relative difference of a log-likelihood: {worst:.1e}")
    if wrong:
        sys.exit(f"error: {len(wrong)} differ")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--foreword", required=True)
    parser.add_argument("--per-family", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    run(parser.parse_args())
