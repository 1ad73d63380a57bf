"""How byte-level tokenizers cut texts, by the names that GGUF files have for them: what the tokenizers package makes of the
models' own patterns, held against llama.cpp.

Writes testdata/tokens/cuts.json. The tests read that and need no Python. In the virtual environment of make_token_golden.py:

    python testdata/make_cuts.py
"""

import json
import random
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import gguf
import numpy
import xllamacpp
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers.convert_slow_tokenizer import bytes_to_unicode

HERE = Path(__file__).resolve().parent
OUT = HERE / "tokens" / "cuts.json"
PINNED = {"transformers": "5.24.0", "tokenizers": "0.23.3", "gguf": "0.19.0", "xllamacpp": "2026.10.11549"}

# The patterns in the tokenizer.json of Llama 3, Qwen 2, GPT-4o, Mistral Nemo and Seed-Coder.
CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = CL100K.replace(r"\p{N}{1,3}", r"\p{N}")
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|"
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SEED_CODER = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def split(*patterns):
    steps = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
    return steps + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]


def gpt2():
    return [pre_tokenizers.ByteLevel(add_prefix_space=False)]


def digits_apart():
    return [pre_tokenizers.Digits(individual_digits=True)] + gpt2()


def deepseek_coder():
    steps = split("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-\ud7ff]+".encode("utf-16", "surrogatepass").decode("utf-16"))
    return steps[:-1] + [pre_tokenizers.Digits(individual_digits=True), steps[-1]]


# By name: the steps, whether words that are tokens skip the merges, whether the model's own tokenizer normalizes.
NAMES = {
    "gpt-2": (gpt2, False, False),
    "olmo": (gpt2, False, True),
    "llama-bpe": (lambda: split(CL100K), True, False),
    "falcon3": (lambda: split(CL100K), True, False),
    "dbrx": (lambda: split(CL100K), False, False),
    "smaug-bpe": (lambda: split(CL100K), False, False),
    "qwen2": (lambda: split(QWEN2), False, True),
    "stablelm2": (lambda: split(QWEN2), False, True),
    "gpt-4o": (lambda: split(O200K), False, False),
    "llama4": (lambda: split(O200K), False, False),
    "tekken": (lambda: split(TEKKEN), True, False),
    "smollm": (digits_apart, False, False),
    "seed-coder": (lambda: split(SEED_CODER), False, False),
    "deepseek-coder": (deepseek_coder, False, False),
}

TEXTS = [
    "I like it, DON'T I? we'Ve they'll Y'all'd", "1234567 12 3 1,000.50 3rd", "a  b   c\n\n d\t\te \n", "$5.00 + 3 = 8; ~x^2|y`z",
    "helloWorld HELLOworld McDonald's iPHONE XMLHttpRequest", "École ÉCOLE éCOLE straßeSTRASSE ΑθήναΑΘΗΝΑ МоскваМОСКВА ǅungla",
    "naïve 好看。你好！ été こんにちは世界 안녕하세요 한국", "नमस्ते दुनिया สวัสดี",
    "a/b//c/\n/d /\r\n//", "  ", " \n", "\n\n\n", "'s'll 'd 2's 's's", "x²³½ ٣٤٥ Ⅷ 12½", "…—“quoted” ‘it’ —the", "\u00a0a\u3000b\u2003 c \u200b d",
    "😀😀 ok 👩‍👩‍👧 🇩🇪!", "C++ <html> a=b-c_d __init__", "mixed123abc45 6A7b", "\r\nline\r\n\r\n  next", "   indented\n\tcode();\n", "end   ",
    "", "hello like 123", "ʰʲ ªº e\u0301a\u0300 Å n\u0303", "!!!\n\n??? \n...",
]
PIECES = ["a", "bc", "D", "EF", " ", "  ", "\n", "\t", "1", "23", "456", "'s", "'T", "'ll", ".", ",", "!", "/", "-", "_", "(", "$", "=", "^", "`", "é", "Ü",
          "ß", "好", "你", "。", "—", "”", "²", "½", "٣", "\u00a0", "\u3000", "😀", "€", "\r\n", "the", " Like", "क", "\u0301", "한", "ー", "Ω", "ω"]
DRAWN = random.Random(5)
TEXTS += ["".join(DRAWN.choices(PIECES, k=DRAWN.randint(4, 26))) for _ in range(40)]
# Tokens that no merge makes.
WHOLE = ["hello", "Ġlike", "123", "ĠMoscow", "Ġok"]


def vocabulary():
    """All bytes, and a merge for whatever stands side by side in a text: so that cuts show."""
    letters = bytes_to_unicode()
    tokens = [letters[byte] for byte in range(256)]
    pairs = []
    for text in TEXTS:
        written = [letters[byte] for byte in text.encode()]
        pairs += [pair for pair in zip(written, written[1:])]
    pairs = list(dict.fromkeys(pairs))
    DRAWN.shuffle(pairs)
    known, merges = set(tokens), []
    for left, right in pairs:
        if left + right not in known:
            known.add(left + right)
            tokens.append(left + right)
        merges.append([left, right])
    return tokens + WHOLE, merges


def by_tokenizers(tokens, merges, name):
    steps, ignore_merges, nfc = NAMES[name]
    vocab = {token: id for id, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[tuple(merge) for merge in merges], ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps())
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    return [tokenizer.encode(text).ids for text in TEXTS]


def by_llama_cpp(tokens, merges, name, folder):
    import urllib.request

    path = Path(folder) / f"{name}.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(32)
    writer.add_block_count(1)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(8)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(name)
    writer.add_token_list(tokens)
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_token_types([1] * len(tokens))
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(False)
    zeros = lambda *shape: numpy.zeros(shape, numpy.float16)
    for tensor in ["token_embd", "output"]:
        writer.add_tensor(f"{tensor}.weight", zeros(len(tokens), 32))
    for tensor in ["output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"]:
        writer.add_tensor(f"{tensor}.weight", numpy.ones(32, numpy.float32))
    for tensor in ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]:
        writer.add_tensor(f"blk.0.{tensor}.weight", zeros(32, 32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = 64
    params.warmup = False
    server = xllamacpp.Server(params)
    found = []
    for text in TEXTS:
        body = json.dumps({"content": text, "add_special": False, "parse_special": True}).encode()
        request = urllib.request.Request(server.listening_address + "/tokenize", body, {"Content-Type": "application/json"})
        found.append(json.loads(urllib.request.urlopen(request).read())["tokens"])
    return found


def main():
    versions = {name: version(name) for name in PINNED}
    if versions != PINNED and "--any-version" not in sys.argv:
        sys.exit(f"error: other versions than pinned: {versions}; wanted {PINNED} (--any-version goes on)")
    tokens, merges = vocabulary()
    ids, differs = {}, {}
    # Names for the same are one entry.
    same = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES:
            ids[name] = by_tokenizers(tokens, merges, name)
            theirs = by_llama_cpp(tokens, merges, name, folder)
            differs[name] = [i for i, (a, b) in enumerate(zip(ids[name], theirs)) if a != b]
            same.setdefault(json.dumps(ids[name]), []).append(name)
            print(name, "llama.cpp differs in", [TEXTS[i] for i in differs[name]])
    line = lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    rows = ",\n  ".join(f'{{"names": {line(names)}, "ids": {ids}}}' for ids, names in same.items())
    OUT.write_text(
        f'{{"versions": {line(versions)},\n "tokens": {line(tokens)},\n "merges": {line([" ".join(merge) for merge in merges])},\n "texts": {line(TEXTS)},\n'
        f' "llama_cpp_differs": {line(differs)},\n "cases": [\n  {rows}]}}\n')


main()
