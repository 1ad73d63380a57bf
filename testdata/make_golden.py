"""Makes the tiny random models and every golden number beside this file.

    python make_golden.py [models] [golden] [parity] [--only=NAME,…]        (all three when none is named)

Pinned versions (checked at start; others may move the last digits, and a few bytes of PEFT's files):
    torch 2.15.0   transformers 5.23.0   peft 0.21.2   tokenizers 0.23.3   safetensors 0.8.0   numpy 2.4.6
Everything is computed on the CPU with one thread in float32. README.md lists the files and their keys.
"""

import json
import os
import shutil
import sys
import warnings
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
sys.dont_write_bytecode = True
HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE))

import torch
from peft import PeftModel, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer as RawTokenizer
from tokenizers import decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from families import CONFIGS
from golden_common import (
    Tokenizer,
    load_model,
    log_likelihoods,
    right_padded,
    sum_of_log_likelihoods,
    versions,
    write_json,
)

PINNED = {
    "torch": "2.15.0",
    "transformers": "5.23.0",
    "peft": "0.21.2",
    "tokenizers": "0.23.3",
    "safetensors": "0.8.0",
    "numpy": "2.4.6",
}


def main():
    found = versions()
    print("versions:", found)
    wrong = {name: found[name] for name, pin in PINNED.items() if found[name] != pin}
    if wrong and "--any-version" not in sys.argv:
        sys.exit(f"error: other versions than pinned: {wrong}; wanted {PINNED} (--any-version goes on)")
    torch.set_num_threads(1)
    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message="Position ids are not supported|`is_gradient_checkpointing`")
    torch.use_deterministic_algorithms(True)
    wanted = [word for word in sys.argv[1:] if not word.startswith("-")] or ["models", "golden", "parity"]
    only = [word.removeprefix("--only=").split(",") for word in sys.argv[1:] if word.startswith("--only=")]
    chosen = lambda names: [name for name in names if not only or name in only[0]]
    if "models" in wanted:
        for name in chosen(TINY_MODELS):
            make_model(name)
    if "golden" in wanted:
        for name in chosen(GOLDEN_MODELS):
            path = GOLDEN_MODELS[name]
            if (ROOT / path).is_dir():
                make_golden(name, path)
            else:
                print(f"{name}: skipped, no {path}")
    if "parity" in wanted:
        make_parity(chosen(PARITY_MODELS))
    for path in HERE.rglob("*.safetensors"):
        path.chmod(0o644)  # safetensors writes files that only their owner can read


# ---------------------------------------------------------------------------------------------- tiny models

PARAGRAPHS = """\
The film begins with a quiet street in the rain. A man is waiting for his brother, and the brother does not come. \
We watch him wait, and slowly we learn why he is afraid. It is a simple story, and it is told with great care.
I did not like this film. The plot is thin, the jokes are old, and the actors look as if they were waiting for the \
end of the day. There is one good scene in the middle, where the two sisters talk about their mother, but it is short.
Every summer we went to the house by the lake. My father would fish in the morning and read in the afternoon, and my \
sister and I would swim until it was dark. There was no telephone, and nobody missed it.
The town council met on Tuesday to talk about the new bridge. It will cost more than was said last year, and it will \
take longer to build. Some of the people who live near the river are not happy about that, and they said so.
A wonderful book: funny, sad and true. The writer knows the country and the people who work there, and she never \
makes them smaller than they are. I read it in two days and then I read it again.
The service was slow, the soup was cold and the waiter was rude. We will not come back to this place. The bread was \
good, but bread alone does not make a good dinner, and the price was too high for what we were given.
"""

TINY_MODELS = {
    "llama-tiny": dict(
        seed=11,
        entries=384,
        bos=True,
        dtype=torch.float32,
        config={
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": True,
            "attention_dropout": 0.0,
            "bos_token_id": 0,
            "dtype": "float32",
            "eos_token_id": 1,
            "head_dim": 12,
            "hidden_act": "silu",
            "hidden_size": 32,
            "initializer_range": 0.2,
            "intermediate_size": 56,
            "max_position_embeddings": 512,
            "mlp_bias": True,
            "model_type": "llama",
            "num_attention_heads": 4,
            "num_hidden_layers": 2,
            "num_key_value_heads": 2,
            "pad_token_id": 2,
            "pretraining_tp": 1,
            "rms_norm_eps": 1e-05,
            "rope_parameters": {
                "factor": 8.0,
                "high_freq_factor": 4.0,
                "low_freq_factor": 1.0,
                "original_max_position_embeddings": 64,
                "rope_theta": 10000.0,
                "rope_type": "llama3",
            },
            "tie_word_embeddings": False,
            "transformers_version": "5.23.0",
            "use_cache": True,
            "vocab_size": 401,
        },
    ),
    "llama-plain": dict(
        seed=12,
        entries=390,
        bos=True,
        dtype=torch.bfloat16,
        shards=2,
        config={
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": False,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "hidden_act": "silu",
            "hidden_size": 48,
            "initializer_range": 0.2,
            "intermediate_size": 80,
            "max_position_embeddings": 256,
            "model_type": "llama",
            "num_attention_heads": 3,
            "num_hidden_layers": 3,
            "num_key_value_heads": 1,
            "rms_norm_eps": 1e-06,
            "rope_scaling": None,
            "rope_theta": 10000.0,
            "tie_word_embeddings": True,
            "torch_dtype": "bfloat16",
            "transformers_version": "4.44.2",
            "use_cache": True,
            "vocab_size": 403,
        },
    ),
    "qwen2-tiny": dict(
        seed=13,
        entries=380,
        bos=False,
        dtype=torch.float16,
        config={
            "architectures": ["Qwen2ForCausalLM"],
            "attention_dropout": 0.0,
            "bos_token_id": 1,
            "eos_token_id": 1,
            "hidden_act": "silu",
            "hidden_size": 32,
            "initializer_range": 0.2,
            "intermediate_size": 64,
            "max_position_embeddings": 256,
            "max_window_layers": 2,
            "model_type": "qwen2",
            "num_attention_heads": 4,
            "num_hidden_layers": 2,
            "num_key_value_heads": 2,
            "rms_norm_eps": 1e-06,
            "rope_theta": 1000000.0,
            "sliding_window": 128,
            "tie_word_embeddings": False,
            "torch_dtype": "float16",
            "transformers_version": "4.43.1",
            "use_cache": True,
            "use_sliding_window": False,
            "vocab_size": 397,
        },
    ),
    "gpt2-tiny": dict(
        seed=14,
        entries=376,
        bos=False,
        dtype=torch.float32,
        config={
            "activation_function": "gelu_new",
            "architectures": ["GPT2LMHeadModel"],
            "attn_pdrop": 0.1,
            "bos_token_id": 1,
            "embd_pdrop": 0.1,
            "eos_token_id": 1,
            "initializer_range": 0.2,
            "layer_norm_epsilon": 1e-05,
            "model_type": "gpt2",
            "n_ctx": 128,
            "n_embd": 36,
            "n_head": 3,
            "n_layer": 2,
            "n_positions": 128,
            "resid_pdrop": 0.1,
            "summary_activation": None,
            "summary_first_dropout": 0.1,
            "summary_proj_to_labels": True,
            "summary_type": "cls_index",
            "summary_use_proj": True,
            "vocab_size": 391,
        },
    ),
}


FAMILIES = {
    name: dict(
        seed=100 + i, entries=290, bos=i % 2 == 0, dtype=torch.bfloat16 if i % 3 else torch.float32, config=config
    )
    for i, (name, config) in enumerate(CONFIGS.items())
}
TINY_MODELS |= FAMILIES


def make_model(name):
    """A Hugging Face directory: config.json, tokenizer.json, random but not degenerate weights."""
    spec = TINY_MODELS[name]
    directory = HERE / "models" / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    write_json(directory / "config.json", spec["config"])
    tokenizer = train_tokenizer(spec["entries"], spec["bos"])
    tokenizer.save(str(directory / "tokenizer.json"), pretty=False)
    assert tokenizer.get_vocab_size() < spec["config"]["vocab_size"]

    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(str(directory)))
    generator = torch.Generator().manual_seed(spec["seed"])
    for parameter_name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        middle = 0.0 if name.startswith("gemma") else center(parameter_name)  # Gemma stores gains less 1
        parameter.data = (noise * spread(parameter_name) + middle).to(spec["dtype"])

    # `named_parameters` names a tied head once, under the embedding table, as checkpoints do.
    tensors = {key: value.data.contiguous() for key, value in sorted(model.named_parameters())}
    if any("experts" in key for key in tensors):  # experts apart, as checkpoints have them
        model.save_pretrained(str(directory / "saved"))
        tensors = load_file(directory / "saved" / "model.safetensors")
        shutil.rmtree(directory / "saved")
    if name == "gpt2-tiny":  # the names of the original checkpoint, its causal-mask buffers included
        tensors = {key.removeprefix("transformer."): value for key, value in tensors.items()}
        n = spec["config"]["n_positions"]
        for layer in range(spec["config"]["n_layer"]):
            tensors[f"h.{layer}.attn.bias"] = torch.ones(n, n).tril().view(1, 1, n, n)
    save_shards(directory, tensors, spec.get("shards", 1))
    if name in FAMILIES:  # the same configuration as this version of transformers writes it
        saved = json.loads(model.config.to_json_string(use_diff=False))
        write_json(HERE / "configs" / f"{name}.json", {k: v for k, v in saved.items() if k != "_name_or_path"})

    loaded = load_model(directory)
    for key, value in loaded.named_parameters():
        if "mlp.experts." in key or "mlp.gate." in key:
            continue  # stacked, and called otherwise, while in memory
        expected = tensors[key.removeprefix("transformer.") if name == "gpt2-tiny" else key]
        assert torch.equal(value, expected.float()), key
    print(f"{name}: {sum(p.numel() for p in loaded.parameters())} parameters")


def spread(name):
    """Standard deviation of a random parameter: large enough that logits vary and every bias matters."""
    if "norm" in name or "ln_" in name:
        return 0.2
    if "embed" in name or "wte" in name:
        return 0.25
    return 0.15 if "wpe" in name or "bias" in name else 0.2


def center(name):
    return 1.0 if name.endswith("weight") and ("norm" in name or "ln_" in name) else 0.0


def save_shards(directory, tensors, shards):
    """model.safetensors, or shards with an index as the Hugging Face hub has them."""
    if shards == 1:
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        return
    keys, weight_map = sorted(tensors), {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        # Alternating, so that a layer is spread over both files.
        part = {key: tensors[key] for key in keys[shard::shards]}
        save_file(part, directory / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(part, file))
    total = sum(value.numel() * value.element_size() for value in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    write_json(directory / "model.safetensors.index.json", index)


def train_tokenizer(entries, bos):
    """A byte-level BPE with `<s>` 0, `</s>` 1, `<pad>` 2; `<s>` is put in front where `bos`."""
    tokenizer = RawTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=entries,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(PARAGRAPHS.splitlines(), trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)]
        )
    else:
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


# ------------------------------------------------------------------------------------------- golden numbers

GOLDEN_MODELS = {  # name: path from the repository's root
    **{name: f"testdata/models/{name}" for name in TINY_MODELS},
    "foreword-tiny": "crates/foreword-tiny",
    "stories260K": "../shared/models/stories260K",
}
ROWS = 5  # learned rows P
TEXTS = [
    "",  # one token, the BOS; "a" where the tokenizer has none
    "Good film.",
    "It rained all day.\nSentiment:",
    "The plot was thin, but I laughed.",
    "Café, naïve, 12.5 % ☃!",
    "A slow and careful story about two brothers who cross the country in winter, and every scene of it is "
    "worth the time it takes.",
]
BATCH = {"texts": [1, 2, 3, 5], "true": [0, 2, 1, 2]}  # text numbers, and the number of each one's true label
GENERATED = {"texts": [2, 3], "tokens": 24}
LABEL_WORDS = [
    " good", " bad", " yes", " no", " positive", " negative", " the", " film", " funny", " wonderful", " terrible",
    " great", " sad", " boring", " nothing", " magnificent", " brother", " splendid", " undecided", " mediocre",
    " forgettable", " unremarkable", " lukewarm", " so-so", " not bad", " very good", " not at all",
]  # fmt: skip


def make_golden(name, path):
    model = load_model(ROOT / path)
    tokenizer = Tokenizer(ROOT / path / "tokenizer.json")
    big = model.config.vocab_size > 1000  # keeps the committed file small
    texts = (TEXTS if tokenizer.bos is not None else ["a", *TEXTS[1:]]).copy()
    ids = [tokenizer.context(text) for text in texts]
    labels = labels_of_lengths(tokenizer, [1, 2, 3])
    placements = ["front", "suffix"] if tokenizer.bos is None else ["front", "after-bos", "suffix"]
    table = model.get_input_embeddings().weight
    generator = torch.Generator().manual_seed(77)
    soft = torch.randn(ROWS, table.shape[1], generator=generator) * table.std()

    all_logits_of = [1, 3] if not big else [0, 1]
    rows_of = list(range(len(texts))) if not big else [1, 2, 3]
    arrays = {"soft_prompt": soft}
    for text in all_logits_of:
        arrays[f"logits.{text}"] = logits_of(model, None, "bare", ids[text])
    for placement in ["bare", *placements]:
        rows = [logits_of(model, soft, placement, ids[text])[-1] for text in rows_of]
        arrays[f"last_logits.{placement}"] = torch.stack(rows)
        arrays[f"log_likelihoods.{placement}"] = scores_of(model, soft, placement, ids, labels)

    losses = {}
    for placement in placements:
        for objective in ("lm", "label"):
            loss, gradient = gradient_of(model, soft, placement, objective, ids, labels)
            losses.setdefault(placement, {})[objective] = loss
            arrays[f"gradient.{placement}.{objective}"] = gradient

    n_tokens = 64 if name in TINY_MODELS else GENERATED["tokens"]
    generation = [greedy(model, soft, ids[text], n_tokens) for text in GENERATED["texts"]]
    facts = {
        "versions": versions(),
        "model": path,
        "bos": tokenizer.bos,
        "virtual_tokens": ROWS,
        "texts": texts,
        "ids": ids,
        "labels": [{"text": text, "ids": label} for text, label in labels.items()],
        "placements": placements,
        "logits_texts": all_logits_of,
        "last_logits_texts": rows_of,
        "batch": BATCH,
        "losses": losses,
        "generation": {
            "texts": GENERATED["texts"],
            "ids": [tokens for tokens, _ in generation],
            "margins": [margins for _, margins in generation],
        },
    }
    facts["float32_noise"] = noise(model, soft, placements, ids, labels, arrays)
    check_against_library(model, tokenizer, soft, ids, labels, arrays, facts)
    arrays = {key: value.detach().float().contiguous() for key, value in sorted(arrays.items())}
    assert all(value.isfinite().all() for value in arrays.values())
    (HERE / "golden").mkdir(exist_ok=True)
    save_file(arrays, HERE / "golden" / f"{name}.safetensors", metadata={"versions": json.dumps(versions())})
    write_json(HERE / "golden" / f"{name}.json", facts)
    print(f"{name}: lengths {[len(i) for i in ids]}, labels {labels}, losses {losses}")
    print(f"    noise {facts['float32_noise']}, least margin {min(map(min, facts['generation']['margins'])):.1e}")
    spread_of_logits = arrays["last_logits.front"].std(-1).mean()
    assert spread_of_logits > 0.3, "degenerate logits"


def labels_of_lengths(tokenizer, lengths):
    """The first word of LABEL_WORDS with each length, in tokens.  -> {text: ids}, in the order of `lengths`"""
    words = {word: tokenizer.label(word) for word in LABEL_WORDS}
    return dict(next(item for item in words.items() if len(item[1]) == length) for length in lengths)


def placed(model, soft, placement, context, label):
    """-> [1, T, H] the embedded path: context and label, with the learned rows where `placement` has them."""
    embed = model.get_input_embeddings()
    rows = embed(torch.tensor(context + label, dtype=torch.long))
    at = {"bare": 0, "front": 0, "after-bos": 1, "suffix": len(context)}[placement]
    soft = rows[:0] if placement == "bare" else soft.to(rows.dtype)
    return torch.cat([rows[:at], soft, rows[at:]]).unsqueeze(0)


def logits_of(model, soft, placement, context, label=()):
    """-> [T, V]"""
    embedded = placed(model, soft, placement, context, list(label))
    return model(inputs_embeds=embedded, use_cache=False).logits[0]


def scores_of(model, soft, placement, ids, labels):
    """-> [n, C] log-likelihood of every candidate after every text"""
    with torch.no_grad():
        return torch.stack([candidates(model, soft, placement, context, labels) for context in ids])


def candidates(model, soft, placement, context, labels):
    """-> [C]"""
    scores = [
        sum_of_log_likelihoods(logits_of(model, soft, placement, context, label), label) for label in labels.values()
    ]
    return torch.stack(scores)


def gradient_of(model, soft, placement, objective, ids, labels):
    """-> loss, d loss / d soft [P, H] of BATCH"""
    soft = soft.clone().to(model.dtype).requires_grad_()
    label_ids = list(labels.values())
    terms, tokens = [], 0
    for text, true in zip(BATCH["texts"], BATCH["true"]):
        if objective == "lm":
            label = label_ids[true]
            terms.append(-sum_of_log_likelihoods(logits_of(model, soft, placement, ids[text], label), label))
            tokens += len(label)
        else:
            terms.append(-candidates(model, soft, placement, ids[text], labels).log_softmax(-1)[true])
            tokens += 1
    loss = torch.stack(terms).sum() / tokens
    loss.backward()
    return loss.item(), soft.grad


@torch.no_grad()
def greedy(model, soft, context, count):
    """[soft; context], recomputed for every token; an end token does not stop it.  -> ids, margins of the top two"""
    context, tokens, margins = list(context), [], []
    for _ in range(count):
        top = logits_of(model, soft, "front", context + tokens)[-1].topk(2)
        tokens.append(top.indices[0].item())
        margins.append((top.values[0] - top.values[1]).item())
    return tokens, margins


def relative(a, b):
    """Relative L2 distance over the whole tensor."""
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


def noise(model, soft, placements, ids, labels, arrays):
    """How far float32 is from float64, so that a test's tolerance can be judged."""
    double = model.double()
    scores = max(
        relative(arrays[f"log_likelihoods.{p}"], scores_of(double, soft, p, ids, labels)) for p in placements
    )
    gradients = max(
        relative(arrays[f"gradient.{p}.{o}"], gradient_of(double, soft, p, o, ids, labels)[1])
        for p in placements
        for o in ("lm", "label")
    )
    model.float()
    assert scores < 1e-5 and gradients < 1e-5, (scores, gradients)
    return {"log_likelihoods": scores, "gradients": gradients}


def check_against_library(model, tokenizer, soft, ids, labels, arrays, facts):
    """The numbers above against other ways to the same: token ids, padding, PEFT's placement, `generate`."""
    for text in facts["logits_texts"]:
        by_ids = model(input_ids=torch.tensor([ids[text]])).logits[0]
        assert relative(by_ids, arrays[f"logits.{text}"]) < 1e-6

    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=ROWS)
    tuned = get_peft_model(model, config).eval()
    set_prompt(tuned, soft)
    label_ids = list(labels.values())
    pairs = [(ids[text], label_ids[true]) for text, true in zip(BATCH["texts"], BATCH["true"])]
    loss = padded_loss(tuned, pairs, tokenizer.pad)
    loss.backward()
    gradient = tuned.prompt_encoder["default"].embedding.weight.grad
    assert abs(loss.item() - facts["losses"]["front"]["lm"]) < 1e-5 * loss.item()
    assert relative(gradient, arrays["gradient.front.lm"]) < 1e-5

    for text, tokens in zip(GENERATED["texts"], facts["generation"]["ids"]):
        out = tuned.generate(
            input_ids=torch.tensor([ids[text]]),
            attention_mask=torch.ones(1, len(ids[text]), dtype=torch.long),
            max_new_tokens=len(tokens),
            min_new_tokens=len(tokens),
            eos_token_id=None,
            pad_token_id=tokenizer.pad,
            do_sample=False,
        )
        # Up to a near tie: `generate` may also suppress the end token.
        found = out[0].tolist()[-len(tokens) :]
        if found != tokens:
            print(f"    note: generate() differs on text {text}: {found} instead of {tokens}")
    model.requires_grad_(False)


# -------------------------------------------------------------------------------------------- PEFT parity

PARITY_MODELS = ["llama-tiny", "gpt2-tiny", "qwen2-tiny", *FAMILIES]
SETTINGS = {
    "virtual_tokens": 6,
    "template": "{text}\nLabel:",
    "labels": {"negative": " negative", "positive": " positive"},
    "objective": "lm",
    "steps": 10,
    "batch_size": 4,
    "learning_rate": 0.02,
    "betas": [0.9, 0.999],
    "eps": 1e-8,
    "weight_decay": 0.0,
    "warmup": 0,
    "schedule": "constant",
    "clip": None,
    "order": "file order, wrapping after the last row",
}
SCORED = 8  # the first rows of train.jsonl are scored
SENTENCES = [
    ("negative", "The plot is thin and the jokes are old."),
    ("positive", "A warm, funny film about two sisters."),
    ("positive", "I laughed until it hurt."),
    ("negative", "The soup was cold and the waiter was rude."),
    ("negative", "Dull."),
    ("positive", "She plays the mother with great care, and every scene with her is good."),
    ("negative", "Nobody in this film seems to want to be there."),
    ("positive", "Two hours went by like ten minutes!"),
    ("positive", "A simple story, simply told, and it works."),
    ("negative", "It is long, it is loud and it says nothing."),
    ("positive", "The best bread in the town."),
    ("negative", "We waited for an hour and then we left."),
    ("negative", "I wanted to like it; I could not."),
    ("positive", "Go and see it with somebody you love."),
    ("negative", "The ending makes no sense at all."),
    ("positive", "Wonderful music, and a lake in the summer."),
    ("positive", "Small, quiet and true."),
    ("negative", "The book was better, and the book was bad."),
    ("positive", "My father read it twice in one week."),
    ("negative", "They took a sad story and made it boring."),
    ("negative", "Too high a price for a short night."),
    ("positive", "Clean rooms, kind people, a view of the river."),
    ("negative", "Half of the actors forget their accents."),
    ("positive", "Not a single weak moment in it."),
]


def make_parity(names):
    directory = HERE / "parity"
    directory.mkdir(exist_ok=True)
    rows = [json.dumps({"text": text, "label": label}) for label, text in SENTENCES]
    (directory / "train.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    for seed, name in enumerate(PARITY_MODELS):
        if name not in names:
            continue
        shutil.rmtree(directory / name, ignore_errors=True)
        golden = train_with_peft(name, directory / name, 100 + seed)
        if name not in FAMILIES:
            golden["prefix"] = train_prefix_with_peft(name, directory / name, 200 + seed)
        if name == "llama-tiny":
            golden["p_tuning"] = other_method(
                name,
                directory / name / "p-tuning",
                PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=6, encoder_hidden_size=24),
            )
            golden["prefix_tuning"] = other_method(
                name,
                directory / name / "prefix-tuning",
                PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=6),
            )
        write_json(directory / name / "golden.json", golden)
    for path in sorted(directory.rglob("*")):  # nothing of this machine gets in
        assert not path.is_file() or str(ROOT).encode() not in path.read_bytes(), path


def parity_inputs(name):
    """-> tokenizer, {label: ids}, [(context ids, label ids)] of every row"""
    tokenizer = Tokenizer(HERE / "models" / name / "tokenizer.json")
    labels = {label: tokenizer.label(string) for label, string in SETTINGS["labels"].items()}
    contexts = [tokenizer.context(SETTINGS["template"].replace("{text}", text)) for _, text in SENTENCES]
    return tokenizer, labels, [(c, labels[label]) for c, (label, _) in zip(contexts, SENTENCES)]


def start_prompt(model, seed):
    """[P, H] rows of the embedding table, drawn without replacement."""
    table = model.get_input_embeddings().weight
    rows = torch.randperm(len(table), generator=torch.Generator().manual_seed(seed))[: SETTINGS["virtual_tokens"]]
    return table[rows].clone()


def train_with_peft(name, directory, seed):
    start = start_prompt(load_model(HERE / "models" / name), seed)
    model, losses = run_training(name, start, torch.float32)
    end = prompt_of(model)
    # The same in float64: how much of a difference is rounding. Row by row, since behind a window in float64 padding that
    # sees nothing but padding becomes NaN.
    double, double_losses = run_training(name, start, torch.float64, padded=False)

    save_prompt(model, start, directory / "start")
    save_prompt(model, end, directory / "end")
    golden = {
        "versions": versions(),
        "model": f"testdata/models/{name}",
        "data": "testdata/parity/train.jsonl",
        "settings": SETTINGS,
        "label_ids": parity_inputs(name)[1],
        "context_ids": [context for context, _ in parity_inputs(name)[2]],
        "losses": losses,
        "start": scores_with_peft(name, directory / "start"),
        "end": scores_with_peft(name, directory / "end"),
        "float32_noise": {
            "losses": relative(torch.tensor(losses), torch.tensor(double_losses)),
            "final_prompt": relative(end, prompt_of(double)),
        },
    }
    print(f"{name}: losses {[round(loss, 4) for loss in losses]}, noise {golden['float32_noise']}")
    assert max(golden["float32_noise"].values()) < 1e-4
    assert relative(end, start) > 0.02 and losses[0] != losses[-1]
    return golden


def train_prefix_with_peft(name, directory, seed):
    """The same for a KV prefix that begins with noise."""
    config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=SETTINGS["virtual_tokens"])
    shape = get_peft_model(load_model(HERE / "models" / name), config).prompt_encoder["default"].embedding.weight.shape
    start = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.5
    model, losses = run_training(name, start, torch.float32, config)
    end = prompt_of(model)
    double, double_losses = run_training(name, start, torch.float64, config)
    save_prompt(model, start, directory / "prefix-start")
    save_prompt(model, end, directory / "prefix-end")
    noise = {
        "losses": relative(torch.tensor(losses), torch.tensor(double_losses)),
        "final_prompt": relative(end, prompt_of(double)),
    }
    print(f"{name}: prefix losses {[round(loss, 4) for loss in losses]}, noise {noise}")
    assert max(noise.values()) < 1e-4 and losses[0] != losses[-1]
    return {"losses": losses, "end": scores_with_peft(name, directory / "prefix-end"), "float32_noise": noise}


def run_training(name, start, dtype, config=None, padded=True):
    """-> the PEFT model after SETTINGS["steps"] steps, the losses before each update"""
    tokenizer, _, pairs = parity_inputs(name)
    config = config or PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=SETTINGS["virtual_tokens"])
    model = get_peft_model(load_model(HERE / "models" / name).to(dtype), config)
    set_prompt(model, start.to(dtype))
    model.eval()  # no dropout: GPT-2's config has some
    assert [n for n, p in model.named_parameters() if p.requires_grad] == ["prompt_encoder.default.embedding.weight"]
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        lr=SETTINGS["learning_rate"],
        betas=tuple(SETTINGS["betas"]),
        eps=SETTINGS["eps"],
        weight_decay=SETTINGS["weight_decay"],
    )
    losses, size = [], SETTINGS["batch_size"]
    for step in range(SETTINGS["steps"]):
        batch = [pairs[(step * size + i) % len(pairs)] for i in range(size)]
        if padded:
            loss = padded_loss(model, batch, tokenizer.pad)
        else:
            n_tokens = sum(len(label) for _, label in batch)
            rows = [padded_loss(model, [pair], tokenizer.pad) * len(pair[1]) / n_tokens for pair in batch]
            loss = torch.stack(rows).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return model, losses


def padded_loss(model, pairs, pad):
    """PEFT's own loss of a right-padded batch: the mean over its label tokens."""
    ids, mask = right_padded([context + label for context, label in pairs], pad)
    targets = torch.full_like(ids, -100)
    for row, (context, label) in enumerate(pairs):
        targets[row, len(context) : len(context) + len(label)] = torch.tensor(label)
    return model(input_ids=ids, attention_mask=mask, labels=targets, use_cache=False).loss


def set_prompt(model, rows):
    weight = model.prompt_encoder["default"].embedding.weight
    assert weight.shape == rows.shape
    weight.data = rows.detach().clone()


def prompt_of(model):
    return model.prompt_encoder["default"].embedding.weight.detach().clone()


def save_prompt(model, rows, directory):
    set_prompt(model, rows)
    save_adapter(model, directory)
    assert torch.equal(load_file(directory / "adapter_model.safetensors")["prompt_embeddings"], rows)


def save_adapter(model, directory):
    """adapter_config.json and adapter_model.safetensors exactly as PEFT writes them; its model card goes."""
    model.save_pretrained(str(directory), save_embedding_layers=False)
    (directory / "README.md").unlink(missing_ok=True)


def scores_with_peft(name, directory):
    """-> [{"text", "log_likelihoods"}] of the first rows, one by one, and checked against a padded batch"""
    tokenizer, labels, pairs = parity_inputs(name)
    model = PeftModel.from_pretrained(load_model(HERE / "models" / name), str(directory)).eval()
    found = [log_likelihoods(model, context, labels) for context, _ in pairs[:SCORED]]
    prefix = model.active_peft_config.peft_type == "PREFIX_TUNING"
    with torch.no_grad():
        for label, ids in labels.items():
            rows = [context + ids for context, _ in pairs[:SCORED]]
            logits = model(**dict(zip(("input_ids", "attention_mask"), right_padded(rows, tokenizer.pad)))).logits
            skip = 0 if prefix else SETTINGS["virtual_tokens"]
            for row, scores, own in zip(rows, found, logits):
                padded = sum_of_log_likelihoods(own[: skip + len(row)], ids).item()
                assert abs(padded - scores[label]) < 1e-5 * abs(padded), (padded, scores[label])
    return [{"text": text, "log_likelihoods": scores} for (_, text), scores in zip(SENTENCES, found)]


def other_method(name, directory, config):
    """Another of PEFT's methods with a random start, saved and scored."""
    torch.manual_seed(5)
    model = get_peft_model(load_model(HERE / "models" / name), config)
    save_adapter(model, directory)
    return scores_with_peft(name, directory)


if __name__ == "__main__":
    main()
