"""Makes foreign/: prompts as other tools write them, for `foreword import`.

    python make_foreign.py

Pinned versions (checked at start): torch 2.15.0   peft 0.21.2   numpy 2.4.6
"""

import os
import shutil
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy
import peft
import torch
from peft import CPTConfig, MultitaskPromptTuningConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

HERE = Path(__file__).resolve().parent
OUT = HERE / "foreign"
PINNED = {"torch": "2.15.0", "peft": "0.21.2", "numpy": "2.4.6"}
P, H = 3, 32


def main():
    found = {"torch": torch.__version__.split("+")[0], "peft": peft.__version__, "numpy": numpy.__version__}
    print("versions:", found)
    if found != PINNED and "--any-version" not in sys.argv:
        sys.exit(f"error: other versions than pinned: {found}; wanted {PINNED} (--any-version goes on)")
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    torch.manual_seed(0)
    rows = torch.arange(P * H, dtype=torch.float32).reshape(P, H) / 16 - 2
    numpy.save(OUT / "rows.npy", rows.numpy())
    numpy.save(OUT / "columns.npy", numpy.asfortranarray(rows.numpy()))
    torch.save(rows, OUT / "tensor.pt")
    torch.save(rows, OUT / "legacy.pt", _use_new_zipfile_serialization=False)
    module = torch.nn.Module()
    # A view with strides of its own, numbers of half the width, and a parameter.
    module.prompt_embeddings = torch.nn.Parameter(rows.T.contiguous().T.to(torch.bfloat16))
    module.register_buffer("steps", torch.tensor([7]))
    torch.save(module.state_dict(), OUT / "state_dict.pt")
    torch.save({"prompt": module.prompt_embeddings, "options": {"rate": 0.1, "name": "x", "on": True, "none": None}},
               OUT / "nested.pt")
    torch.save(module, OUT / "module.pt")
    torch.save({"a": rows, "b": rows}, OUT / "two.pt")

    def model():
        return LlamaForCausalLM(LlamaConfig(vocab_size=64, hidden_size=H, intermediate_size=32, num_hidden_layers=1,
                                            num_attention_heads=4, num_key_value_heads=4))

    shared = get_peft_model(model(), MultitaskPromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=P, num_tasks=2, num_ranks=2, prompt_tuning_init="RANDOM"))
    encoder = shared.prompt_encoder["default"]
    torch.nn.init.normal_(encoder.prefix_task_cols)
    torch.nn.init.normal_(encoder.prefix_task_rows)
    shared.save_pretrained(OUT / "mpt")
    for task in range(2):
        made = encoder(torch.arange(P)[None], torch.tensor([task]))[0]
        numpy.save(OUT / f"mpt-{task}.npy", made.detach().numpy())
    texts = {"cpt_token_ids": [5, 6, 7], "cpt_mask": [1, 1, 1], "cpt_tokens_type_mask": [1, 2, 4]}
    cpt = get_peft_model(model(), CPTConfig(task_type="CAUSAL_LM", **texts))
    cpt.save_pretrained(OUT / "cpt")
    for readme in OUT.glob("*/README.md"):
        readme.unlink()


main()
