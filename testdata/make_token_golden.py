"""What transformers and llama.cpp make of tokenizers whose files beside tokenizer.json, or whose GGUF metadata, say more.

Writes testdata/tokens/. The tests read that and need no Python. In a virtual environment outside of the repository:

    pip install transformers==5.24.0 tokenizers==0.23.3 jinja2==3.1.6 gguf==0.19.0 xllamacpp==2026.10.11549 numpy==2.4.6
    python testdata/make_token_golden.py
"""

import json
import random
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import gguf
import numpy
import tokenizers
import transformers
import xllamacpp
from transformers import AutoTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

HERE = Path(__file__).resolve().parent
OUT = HERE / "tokens"
PINNED = {"transformers": "5.24.0", "tokenizers": "0.23.3", "jinja2": "3.1.6", "gguf": "0.19.0", "xllamacpp": "2026.10.11549"}


def token(content, **flags):
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True} | flags


TEXTS = [
    "I like it.",
    "the [ASPECT] of it",
    "a[ASPECT] \n b",
    "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n",
    "<|new|>  x <unk> <image> [PAD] [SEP]",
    "[ASPECT][ASPECT] <s>a</s>  b <|end|> c",
]
TEMPLATE = "{{ bos_token }}[{{ messages[0].content }}]{{ eos_token }}{{ image_token }}"

# name, tokenizer of testdata/chat, tokenizer_config.json, special_tokens_map.json, added_tokens.json
DIRECTORIES = [
    ("nothing", "byte-level", {}, None, None),
    ("decoder", "byte-level", {"added_tokens_decoder": {"{n+1}": token("[ASPECT]")}}, None, None),
    ("decoder-next-id", "byte-level", {"added_tokens_decoder": {"{n}": token("[ASPECT]", special=False, normalized=True)}}, None, None),
    ("decoder-several", "byte-level", {"added_tokens_decoder": {
        "{n+1}": token("<|new|>", rstrip=True), "{n}": token("[ASPECT]", lstrip=True, rstrip=True)}}, None, None),
    ("decoder-changes-flags", "byte-level", {"added_tokens_decoder": {"{id:<|im_end|>}": token("<|im_end|>", rstrip=True)}}, None, None),
    ("decoder-word", "byte-level", {"added_tokens_decoder": {"{n}": token("like", special=False, single_word=True)}}, None, None),
    ("decoder-hides-map", "byte-level", {"added_tokens_decoder": {"{n}": token("[ASPECT]")}},
     {"bos_token": "<|new|>", "additional_special_tokens": ["[SEP]"]}, {"[PAD]": "{n+1}"}),
    ("added-tokens", "byte-level", {}, None, {"[PAD]": "{n}", "[ASPECT]": "{n+1}"}),
    ("added-tokens-special", "byte-level", {"pad_token": "[PAD]"}, None, {"[PAD]": "{n}", "[ASPECT]": "{n+1}"}),
    ("added-tokens-other-order", "words-legacy", {}, None, {"[ASPECT]": "{n+1}", "[PAD]": "{n}"}),
    ("map", "byte-level", {}, {"bos_token": "<s>", "eos_token": token("</s>"), "pad_token": "[PAD]"}, None),
    ("map-before-config", "byte-level", {"bos_token": "<|im_start|>"}, {"bos_token": token("<|im_end|>", normalized=True)}, None),
    ("map-lists", "byte-level", {}, {"extra_special_tokens": ["[SEP]", "[ASPECT]"]}, None),
    ("map-lists-of-old", "byte-level", {}, {"additional_special_tokens": ["[SEP]", "[ASPECT]"]}, None),
    ("lists", "byte-level", {"extra_special_tokens": ["[SEP]"], "additional_special_tokens": ["[ASPECT]"]}, None, None),
    ("lists-of-old", "byte-level", {"additional_special_tokens": ["[ASPECT]", "<|im_start|>"]}, None, None),
    ("named-extra", "byte-level", {"extra_special_tokens": {"image_token": "<image>"}}, None, None),
    ("named-otherwise", "byte-level", {"image_token": "<image>", "bos_token": "<s>"}, None, None),
    ("mask", "byte-level", {"mask_token": {"__type": "AddedToken", "content": "[ASPECT]", "lstrip": True, "normalized": False,
                                         "rstrip": False, "single_word": False}}, None, None),
    ("no-bos", "words-legacy", {"add_bos_token": False, "bos_token": "<s>"}, None, None),
    ("bos", "byte-level", {"add_bos_token": True, "bos_token": "<s>"}, None, None),
    ("bos-unnamed", "byte-level", {"add_bos_token": True}, None, None),
    ("eos-alone", "words-legacy", {"add_eos_token": False, "bos_token": "<s>"}, None, None),
    ("bos-in-map", "byte-level", {"add_bos_token": True}, {"bos_token": "<|begin|>"}, None),
    ("words", "words-first", {"added_tokens_decoder": {"{n}": token("[ASPECT]", special=False, normalized=True)}}, None, None),
]


def filled(value, base):
    """The value with {n}, {n+1} and {id:token} replaced."""
    n = base.get_vocab_size()
    if isinstance(value, dict):
        return {filled(k, base): filled(v, base) for k, v in value.items()}
    if value == "{n}":
        return n if isinstance(value, int) else str(n)
    if value == "{n+1}":
        return str(n + 1)
    if isinstance(value, str) and value.startswith("{id:"):
        return str(base.token_to_id(value[4:-1]))
    return value


def directories():
    cases = []
    for name, tokenizer, config, special_map, added in DIRECTORIES:
        base = tokenizers.Tokenizer.from_file(str(HERE / "chat" / f"{tokenizer}.json"))
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": TEMPLATE} | filled(config, base)
        special_map = special_map and filled(special_map, base)
        added = added and {k: int(v) for k, v in filled(added, base).items()}
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            (folder / "tokenizer.json").write_bytes((HERE / "chat" / f"{tokenizer}.json").read_bytes())
            for file, content in [("tokenizer_config.json", config), ("special_tokens_map.json", special_map), ("added_tokens.json", added)]:
                if content is not None:
                    (folder / file).write_text(json.dumps(content))
            loaded = AutoTokenizer.from_pretrained(folder)
            ids = [loaded(text)["input_ids"] for text in TEXTS]
            rendered = loaded.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
        eos = loaded.convert_tokens_to_ids("</s>")
        cases.append({"name": name, "tokenizer": tokenizer, "config": config, "special_tokens_map": special_map, "added_tokens": added,
                      "rendered": rendered, "ids": ids})
    return cases


LITERALS = [
    '"Paris.\\\nYour date."', r"'\x41\101\u00e9\U0001F600\a\b\f\v\0\/\d\%'", r'"\é\中\\é"', "'it\\'s\\\r\na'", r"'\777\8\1019'",
    "'a\r\nb\rc'", r"'\x4'", r"'\u12'", r"'\U00110000'", r"'\q' ~ '{{ \d }}' ~ '%}\n'",
]


def literals():
    from transformers.utils.chat_template_utils import render_jinja_template

    cases = []
    for literal in LITERALS:
        source = "a\r\n{{ " + literal + " }}{% set x = {'k': {'j': " + literal + "}} %}|{{ x.k.j }}{# '\\' #}{% raw %}{{ '\\d' }}{% endraw %}"
        try:
            rendered = render_jinja_template(conversations=[[{"role": "user", "content": "x"}]], chat_template=source)[0][0]
        except Exception as error:
            rendered = None
            print("refused:", literal, error)
        cases.append({"template": source, "rendered": rendered})
    return cases


KIND = {"normal": 1, "unknown": 2, "control": 3, "user": 4, "byte": 6}
HIDDEN, INNER, HEADS = 32, 32, 4


def write_gguf(path, architecture, name, add_tokenizer, n_tokens):
    """A model of one layer with random weights."""
    writer = gguf.GGUFWriter(path, architecture)
    if name is not None:
        writer.add_name(name)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_block_count(1)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    add_tokenizer(writer)
    draw = numpy.random.default_rng(7)
    noise = lambda *shape: (0.1 * draw.standard_normal(shape)).astype(numpy.float16)
    writer.add_tensor("token_embd.weight", noise(n_tokens, HIDDEN))
    writer.add_tensor("output_norm.weight", numpy.ones(HIDDEN, numpy.float32))
    writer.add_tensor("output.weight", noise(n_tokens, HIDDEN))
    for norm in ["attn_norm", "ffn_norm"]:
        writer.add_tensor(f"blk.0.{norm}.weight", numpy.ones(HIDDEN, numpy.float32))
    if architecture == "phi3":
        writer.add_tensor("blk.0.attn_qkv.weight", noise(3 * HIDDEN, HIDDEN))
        writer.add_tensor("blk.0.ffn_up.weight", noise(2 * INNER, HIDDEN))
    else:
        for part in ["attn_q", "attn_k", "attn_v", "ffn_gate", "ffn_up"]:
            writer.add_tensor(f"blk.0.{part}.weight", noise(HIDDEN, HIDDEN))
    writer.add_tensor("blk.0.attn_output.weight", noise(HIDDEN, HIDDEN))
    writer.add_tensor("blk.0.ffn_down.weight", noise(HIDDEN, INNER))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def pieces(writer):
    """SentencePiece's tokens of words-legacy.json, and Phi-3's special ones. The texts of both are llama.cpp's to read."""
    file = json.loads((HERE / "chat" / "words-legacy.json").read_text())
    vocabulary = {id: text for text, id in file["model"]["vocab"].items()}
    ranks = {}
    for rank, merge in enumerate(file["model"]["merges"]):
        ranks.setdefault("".join(merge if isinstance(merge, list) else merge.split(" ")), rank)
    kinds = {"<unk>": "unknown", "<s>": "control", "</s>": "control"}
    tokens, scores, types = [], [], []
    for id in sorted(vocabulary):
        text = vocabulary[id]
        is_byte = len(text) == 6 and text.startswith("<0x")
        tokens.append(text)
        scores.append(float(-ranks.get(text, len(ranks))))
        types.append(KIND[kinds.get(text, "byte" if is_byte else "normal")])
    for text in ["<|endoftext|>", "<|assistant|>", "<|user|>", "<|system|>", "<|end|>"]:
        if text not in tokens:
            tokens.append(text)
            scores.append(-1000.0)
            types.append(KIND["control"])
    tokens.append("<|note|>")
    scores.append(-1000.0)
    types.append(KIND["user"])
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(tokens.index("<s>"))
    writer.add_eos_token_id(tokens.index("<|end|>"))
    writer.add_unk_token_id(tokens.index("<unk>"))
    writer.add_add_bos_token(True)
    return tokens


def pairs(writer, pre=None):
    """Byte pairs of byte-level.json."""
    file = json.loads((HERE / "chat" / "byte-level.json").read_text())
    vocabulary = {id: text for text, id in file["model"]["vocab"].items()}
    added = {token["id"]: token["content"] for token in file["added_tokens"]}
    tokens = [added.get(id) or vocabulary[id] for id in range(len(vocabulary.keys() | added.keys()))]
    writer.add_tokenizer_model("gpt2")
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    merges = [" ".join(merge) if isinstance(merge, list) else merge for merge in file["model"]["merges"]]
    # Whatever stands side by side in the texts can be one token: so that every cut shows.
    letters = bytes_to_unicode()
    for text in CUTS:
        written = [letters[byte] for byte in text.encode()]
        for left, right in zip(written, written[1:]):
            if left + right not in tokens:
                tokens.append(left + right)
                merges.append(f"{left} {right}")
    # Tokens that end a text are special to llama.cpp whatever the file calls them.
    types = [KIND["control"] if id in added and text != "<|im_end|>" else KIND["normal"] for id, text in enumerate(tokens)]
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_add_bos_token(False)
    return tokens


PHI = [
    "<|user|>\nOnce upon a time<|end|>\n<|assistant|>\n",
    "<|system|> \t\n You are kind. <|end|>\n\n<|user|>  two  spaces <|end|>",
    "<s> a </s>\n b<|endoftext|> \n c<unk> d",
    "<|note|> \n a note <|note|>b",
    "", " ", "the film", "  the film\n",
]
CUTS = [
    "I like it, don't I?", "1234567 12 3", "a  b   c\n\n d\t\te \n", "$5.00 + 3 = 8; ~x^2|y`z", "naïve 好看。你好！ été",
    "<|im_start|>user\nhello<|im_end|>\n", "  ", " \n", "'s'll 'd 2's", "x²³½ ٣٤٥ Ⅷ", "…—“quoted” ‘it’", "\u00a0a\u3000b\u2003 c", "😀😀 ok",
    "C++ <html> a=b-c_d", "100,000.50 3rd", "mixed123abc45 6", "\r\nline\r\n",
]


PIECES = ["a", "bc", " ", "  ", "\n", "\t", "1", "23", "456", "'s", "'t", ".", ",", "!", "?", "-", "_", "(", ")", "$", "+", "=", "~", "^", "|", "`", "<",
          ">", "é", "ü", "好", "你", "。", "—", "“", "”", "²", "½", "٣", "\u00a0", "\u3000", "😀", "€", "§", "©", "\r\n", "the", " like"]
DRAWN = random.Random(3)
CUTS += ["".join(DRAWN.choices(PIECES, k=DRAWN.randint(3, 24))) for _ in range(60)]


def by_llama_cpp(path, texts):
    import urllib.request

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = 64
    params.warmup = False
    server = xllamacpp.Server(params)
    found = []
    for text in texts:
        body = json.dumps({"content": text, "add_special": True, "parse_special": True}).encode()
        request = urllib.request.Request(server.listening_address + "/tokenize", body, {"Content-Type": "application/json"})
        found.append(json.loads(urllib.request.urlopen(request).read())["tokens"])
    return found


FILES = [
    ("phi3", "phi3", "Phi-3 mini", pieces, PHI),
    ("phi3-unnamed", "phi3", "Phi 3 Mini", pieces, PHI),
    ("unnamed-cuts", "llama", None, pairs, CUTS),
]


def files():
    cases = []
    for name, architecture, model, add_tokenizer, texts in FILES:
        path = OUT / f"{name}.gguf"
        n = []
        write_gguf(path, architecture, model, lambda writer: n.extend(add_tokenizer(writer)), n_tokens(add_tokenizer))
        cases.append({"file": path.name, "texts": texts, "ids": by_llama_cpp(path, texts)})
    return cases


def n_tokens(add_tokenizer):
    class Nothing:
        def __getattr__(self, _):
            return lambda *_: None

    return len(add_tokenizer(Nothing()))


def main():
    versions = {name: version(name) for name in PINNED}
    print("versions:", versions)
    if versions != PINNED and "--any-version" not in sys.argv:
        sys.exit(f"error: other versions than pinned: {versions}; wanted {PINNED} (--any-version goes on)")
    OUT.mkdir(exist_ok=True)
    line = lambda value: json.dumps(value, ensure_ascii=False)
    block = lambda cases: "[\n  " + ",\n  ".join(map(line, cases)) + "]"
    (OUT / "golden.json").write_text(
        f'{{"versions": {line(versions)}, "texts": {line(TEXTS)},\n "directories": {block(directories())},\n'
        f' "literals": {block(literals())},\n "files": {block(files())}}}\n')


main()
