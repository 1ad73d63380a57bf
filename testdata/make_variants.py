"""Logits of the tiny models under configurations that leave out what transformers fills in, and of a text part in a larger model.

    python testdata/make_variants.py        # testdata/golden/variants.json, the same bytes every time

For each variant: the model whose weights it has, its config.json, and the last logits of a text that transformers gives with them,
in single precision. `tensors` are the names under which transformers saves the model that also sees images: the name of the tiny
model's tensor, or the shape of one that belongs to the other part.
"""

import json
import os
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, Gemma3Config, Gemma3ForConditionalGeneration

HERE = Path(__file__).resolve().parent
# Long enough for the slow rotations to count.
LENGTH = 90


def config_of(model: str) -> dict:
    return json.loads((HERE / "models" / model / "config.json").read_text())


def rotated(model: str, parameters: dict, **outer) -> dict:
    """The model's configuration with other rotations, in the newer form."""
    config = config_of(model)
    config.pop("rope_scaling", None)
    theta = config.get("rope_theta", 10000.0)
    return {**config, "rope_parameters": {"rope_theta": theta, **parameters}, **outer}


def older(model: str, scaling: dict) -> dict:
    config = config_of(model)
    config.pop("rope_parameters", None)
    return {**config, "rope_scaling": scaling}


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
VARIANTS = {
    "llama3 without an original context": ("llama-tiny", rotated("llama-tiny", LLAMA3)),
    "yarn without an original context": ("llama-tiny", rotated("llama-tiny", {"rope_type": "yarn", "factor": 4.0})),
    "yarn with an original context outside": (
        "llama-tiny",
        rotated(
            "llama-tiny",
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128},
            original_max_position_embeddings=32,
        ),
    ),
    "yarn as older programs write it": (
        "qwen2-tiny",
        older("qwen2-tiny", {"type": "yarn", "factor": 4.0, "finetuned": True}),
    ),
}


def tokens(vocab: int) -> list[int]:
    return [(i * 37 + 5) % vocab for i in range(LENGTH)]


def last_logits(model, ids: list[int]) -> list[float]:
    with torch.no_grad():
        logits = model.eval()(input_ids=torch.tensor([ids])).logits[0, -1]
    return [float(f"{value:.7g}") for value in logits.tolist()]


def of_config(model: str, config: dict) -> dict:
    with tempfile.TemporaryDirectory() as directory:
        directory = Path(directory)
        for file in (HERE / "models" / model).iterdir():
            (directory / file.name).write_bytes(file.read_bytes())
        (directory / "config.json").write_text(json.dumps(config))
        loaded = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager")
    ids = tokens(config["vocab_size"])
    return {"model": model, "config": config, "ids": ids, "logits": last_logits(loaded, ids)}


def multimodal() -> dict:
    """Gemma 3 with a tower for images, its text part the tiny model's."""
    torch.manual_seed(5)
    text = config_of("gemma3-tiny")
    vision = dict(
        hidden_size=16,
        image_size=28,
        intermediate_size=24,
        model_type="siglip_vision_model",
        num_attention_heads=2,
        num_hidden_layers=1,
        patch_size=14,
    )
    # Beyond the vocabulary, as no text has them.
    above = text["vocab_size"]
    config = Gemma3Config(
        text_config=text,
        vision_config=vision,
        mm_tokens_per_image=4,
        image_token_index=above,
        boi_token_index=above + 1,
        eoi_token_index=above + 2,
    )
    model = Gemma3ForConditionalGeneration._from_config(config, dtype=torch.float32, attn_implementation="eager")
    weights = load_file(HERE / "models/gemma3-tiny/model.safetensors")
    inner = model.model.language_model.state_dict()
    for name, value in weights.items():
        inner[name.removeprefix("model.")].copy_(value.float())
    ids = tokens(text["vocab_size"])
    logits = last_logits(model, ids)
    with tempfile.TemporaryDirectory() as directory:
        model.save_pretrained(directory)
        written = json.loads((Path(directory) / "config.json").read_text())
        tensors = {}
        with safe_open(Path(directory) / "model.safetensors", "pt") as file:
            for name in sorted(file.keys()):
                stem = name.split("language_model.")[-1].removeprefix("model.")
                own = f"model.{stem}"
                is_text = "language_model" in name and own in weights
                tensors[name] = own if is_text else list(file.get_slice(name).get_shape())
    return {"model": "gemma3-tiny", "config": written, "ids": ids, "logits": logits, "tensors": tensors}


def main() -> None:
    torch.set_num_threads(1)
    variants = {name: of_config(*variant) for name, variant in VARIANTS.items()}
    variants["the text part of a model that sees images"] = multimodal()
    path = HERE / "golden" / "variants.json"
    path.write_text(json.dumps(variants, sort_keys=True, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
