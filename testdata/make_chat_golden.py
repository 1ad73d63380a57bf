"""Makes chat/: tiny tokenizers with special tokens, chat templates, and what transformers makes of them.

    python make_chat_golden.py

Pinned versions (checked at start): transformers 5.24.0   tokenizers 0.23.3   jinja2 3.1.6

The templates are written for this project, in the manner of well-known models' templates: they use what those use. Each case
of chat/golden.json is a template over one of the tokenizers, with conversations: the text that `apply_chat_template` renders
with a generation prompt, its tokens, and where the template takes one the tokens of the same chat with an answer; or the
message with which the template refuses. All chats take place on 26 July 2024.
"""

import datetime
import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import jinja2
import tokenizers
import transformers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as RawTokenizer
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

HERE = Path(__file__).resolve().parent
OUT = HERE / "chat"
PINNED = {"transformers": "5.24.0", "tokenizers": "0.23.3", "jinja2": "3.1.6"}

CORPUS = [
    "You are a helpful assistant. Say whether the film review is positive or negative.",
    "A joy from start to finish, and the actors are a delight.",
    "I want my two hours back; the plot is a mess and the jokes are flat.",
    "user system assistant model Cutting Knowledge Date: December 2023 Today Date: 26 Jul 2024",
]

BYTE_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>",
                "<|end_header_id|>", "<bos>", "<start_of_turn>", "<end_of_turn>"]
WORD_SPECIAL = ["<unk>", "<s>", "</s>"]
LATER_SPECIAL = ["[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"]
STRIPPING = ["<|user|>", "<|system|>", "<|assistant|>", "<|end|>"]


def byte_level():
    tokenizer = RawTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=340, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens(BYTE_SPECIAL)
    tokenizer.add_tokens(["<think>", "</think>"])
    return tokenizer


def words(kind):
    """A BPE over pieces with ▁ for spaces: `legacy` puts one before every piece of text, `first` before the first."""
    tokenizer = RawTokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if kind == "legacy":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    trained = RawTokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    trained.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=150, show_progress=False))
    learned = json.loads(trained.to_str())["model"]
    pieces = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    pieces += sorted(learned["vocab"], key=learned["vocab"].get)
    tokenizer.model = models.BPE(
        vocab={piece: i for i, piece in enumerate(dict.fromkeys(pieces))},
        merges=[tuple(merge) for merge in learned["merges"]],
        unk_token="<unk>", fuse_unk=True, byte_fallback=True,
    )
    tokenizer.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0),
    ])
    # Tokenizers of the older kind have no special tokens for turns.
    tokenizer.add_special_tokens(WORD_SPECIAL)
    if kind == "first":
        tokenizer.add_special_tokens(LATER_SPECIAL)
        tokenizer.add_special_tokens([AddedToken(content, rstrip=True, normalized=False) for content in STRIPPING])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))])
    return tokenizer


CHATML = """\
{%- if messages[0]['role'] == 'system' -%}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else -%}
    {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif -%}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or message.role == "assistant" %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

THINKING = """\
{%- if tools %}
    {{- raise_exception('no tools here') }}
{%- endif %}
{%- set ns = namespace(last=messages|length - 1, searching=true) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == "user" and message.content is string and not (message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.searching = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == "assistant" %}
        {%- set thought = '' %}
        {%- if '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\\n<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""

DATED = """\
{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "1 Jan 2000" %}
    {%- endif %}
{%- endif %}
{#- The system message comes first, whoever wrote it. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

TURNS = """\
{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '
' + message['content'] | trim + '<end_of_turn>
' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model
'}}{% endif %}
"""

MACRO = """\
{% macro turn(role, content) %}
<|im_start|>{{ role | title }}
{{ content }}<|im_end|>
{% endmacro %}
{%- for message in messages %}
    {% if message.role == 'assistant' and not message.content %}{% continue %}{% endif %}
{{ turn(message.role, message.content) }}
    {%- if loop.index0 > 5 %}{% break %}{% endif %}
{%- endfor %}
{{ {'chat': messages | length, 'first': messages[0].role, 'more': [true, none]} | tojson }}{{ none }} {{ true }}
{%- for key, value in {'a': 1, 'b': 'é"<'}.items() %} {{ key.upper() }}={{ value | tojson }}{% endfor %}
{% if add_generation_prompt %}<|im_start|>Assistant
{% endif %}
"""

INSTRUCT = """\
{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}
"""

SYSTEM_INST = """\
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- bos_token }}
{%- if system_message is defined %}
    {{- "[SYSTEM_PROMPT]" + system_message + "[/SYSTEM_PROMPT]" }}
{%- endif %}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {{- "[INST]" + message["content"] + "[/INST]" }}
    {%- elif message["role"] == "assistant" %}
        {{- message["content"] | trim + eos_token }}
    {%- else %}
        {{- raise_exception("Only user, system and assistant roles are supported!") }}
    {%- endif %}
{%- endfor %}
"""

SYS = """\
{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}
"""

BARS = """\
{% for message in messages %}
{% if message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + '<|end|>\\n' }}
{% elif message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + '<|end|>\\n' }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n' + message['content'] + '<|end|>\\n' }}
{% endif %}
{% endfor %}
{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}
"""

LINES = """\
{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{% generation %}
{{ '<|assistant|>
'  + message['content'] + eos_token }}
{% endgeneration %}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}
"""

# name, tokenizer, template, special tokens
CASES = [
    ("chatml", "byte-level", CHATML, {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}),
    ("thinking", "byte-level", THINKING, {"eos_token": "<|im_end|>"}),
    ("dated", "byte-level", DATED, {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}),
    ("turns", "byte-level", TURNS, {"bos_token": "<bos>", "eos_token": "<end_of_turn>"}),
    ("macro", "byte-level", MACRO, {"eos_token": "<|im_end|>"}),
    ("instruct", "words-legacy", INSTRUCT, {"bos_token": "<s>", "eos_token": "</s>"}),
    ("system-inst", "words-first", SYSTEM_INST, {"bos_token": "<s>", "eos_token": "</s>"}),
    ("sys", "words-legacy", SYS, {"bos_token": "<s>", "eos_token": "</s>"}),
    ("bars", "words-first", BARS, {"bos_token": "<s>", "eos_token": "</s>"}),
    ("lines", "words-legacy", LINES, {"bos_token": "<s>", "eos_token": "</s>"}),
]

SYSTEM = "Say whether the review is positive or negative."
TEXTS = [
    (None, "A joy from start to finish."),
    (SYSTEM, "I want my two hours back; the plot is a mess."),
    (SYSTEM, "  \n spaces and\n\nlines, at both ends \n"),
    (None, "\nÉtait-ce bien ? 好看 {{ bos_token }} {% raw %}"),
]
ANSWER = "positive"


def conversation(tokenizer, system, text):
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": text})
    found = {"system": system, "message": text}
    try:
        rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        messages.append({"role": "assistant", "content": ANSWER})
        whole = tokenizer.apply_chat_template(messages, tokenize=False)
        whole_ids = tokenizer.apply_chat_template(messages, return_dict=False)
    except jinja2.exceptions.TemplateError as error:
        return found | {"error": str(error)}
    assert ids == tokenizer(rendered, add_special_tokens=False)["input_ids"]
    found |= {"rendered": rendered, "ids": ids}
    if whole.startswith(rendered) and whole[len(rendered):].strip().startswith(ANSWER):
        found["answered_ids"] = whole_ids
    return found


def main():
    versions = {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__, "jinja2": jinja2.__version__}
    print("versions:", versions)
    if versions != PINNED and "--any-version" not in sys.argv:
        sys.exit(f"error: other versions than pinned: {versions}; wanted {PINNED} (--any-version goes on)")

    class Day(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2024, 7, 26, tzinfo=tz)

    chat_template_utils.datetime = Day
    OUT.mkdir(exist_ok=True)
    raw = {"byte-level": byte_level(), "words-legacy": words("legacy"), "words-first": words("first")}
    for name, tokenizer in raw.items():
        file = json.loads(tokenizer.to_str())
        (OUT / f"{name}.json").write_text(json.dumps(file, ensure_ascii=False, separators=(",", ":")) + "\n")
    cases = []
    for name, tokenizer_name, template, special in CASES:
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=RawTokenizer.from_file(str(OUT / f"{tokenizer_name}.json")), chat_template=template, **special)
        found = [conversation(tokenizer, system, text) for system, text in TEXTS]
        cases.append({"name": name, "tokenizer": tokenizer_name, "template": template, "special_tokens": special,
                      "conversations": found})
    # A line for each conversation.
    line = lambda value: json.dumps(value, ensure_ascii=False)
    for case in cases:
        conversations = ",\n   ".join(map(line, case.pop("conversations")))
        case["line"] = line(case)[:-1] + f',\n  "conversations": [\n   {conversations}]}}'
    lines = ",\n ".join(case["line"] for case in cases)
    (OUT / "golden.json").write_text(f'{{"versions": {line(versions)}, "answer": {line(ANSWER)}, "cases": [\n {lines}]}}\n')


main()
