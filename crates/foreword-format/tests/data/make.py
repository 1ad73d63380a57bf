"""Writes the PEFT directories here: python make.py, with peft 0.21.2, torch and transformers installed."""

import pathlib
import shutil

import torch
from peft import LoraConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

torch.manual_seed(0)
llama = LlamaConfig(hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
                    num_key_value_heads=2, vocab_size=32)
t5 = T5Config(d_model=8, d_kv=4, d_ff=16, num_layers=2, num_heads=2, vocab_size=32)
decoder = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 3}
encoder_decoder = {"task_type": "SEQ_2_SEQ_LM", "num_virtual_tokens": 3}

for name, make, config in [
    ("prompt-tuning", lambda: LlamaForCausalLM(llama), PromptTuningConfig(**decoder)),
    ("p-tuning", lambda: LlamaForCausalLM(llama), PromptEncoderConfig(encoder_hidden_size=4, **decoder)),
    ("lora", lambda: LlamaForCausalLM(llama), LoraConfig(task_type="CAUSAL_LM")),
    ("encoder-decoder", lambda: T5ForConditionalGeneration(t5), PromptTuningConfig(**encoder_decoder)),
]:
    to = pathlib.Path(__file__).parent / name
    shutil.rmtree(to, ignore_errors=True)
    get_peft_model(make(), config).save_pretrained(to)
    (to / "README.md").unlink()  # PEFT's empty model card
(pathlib.Path(__file__).parent / "lora" / "adapter_model.safetensors").unlink()  # only its config is read
