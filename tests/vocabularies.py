"""Tiny models that have the tokenizers and chat templates of real families, and random weights.

    write("llama3", path)     a GGUF of some 300 kB that llama.cpp loads and generates with

Special tokens are spelled, typed and used as in the families' own files; of their words there are a few hundred, made by
byte-pair encoding from TEXT. The templates do what the originals do, in fewer words.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from gguf import TokenType

N_MERGES = 300
N_EMBD, N_HEADS, N_FF, N_CTX = 64, 2, 128, 4096
TEXT = """
A linnet is a very small bird with a very good voice. What is the capital of France? The capital of France is Paris. Tell me
a story about a fox who lived in the forest by the sea. You are a helpful assistant and answer in one short sentence. The
weather in this city is cold and sunny, with some clouds there and a little rain in the evening. Please call the function
that adds two numbers and then say what it returned. I have been here before, said the user, and there was nothing to see.
They would not wait for the others, so we went on through the garden and over the river until it was dark. How do I make
coffee? First you need water, then you need to grind the beans, and last you wait for some minutes while it is hot. The
system should be able to do more than one thing at once, which is why it has many small parts that work together.
"""


@dataclass(frozen=True)
class Family:
    """What a family's GGUF files say of its tokenizer."""

    pre: str  # name of the rule that splits text into words; "" for a SentencePiece vocabulary
    control: list[str]
    bos: str
    eos: str
    template: str
    defined: tuple[str, ...] = ()  # tokens that are not control tokens but matched as a whole: "user-defined"
    add_bos: bool | None = None  # None: the file does not say


ZEPHYR = """{% for message in messages %}
{% if message['role'] in ('system', 'user', 'assistant') %}
{{ '<|' + message['role'] + '|>\\n' + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""

CHATML_WITH_TOOLS = """{%- set system = 'You are a helpful assistant.' %}
{%- if messages[0].role == 'system' %}{%- set system = messages[0].content %}{%- endif %}
{{- '<|im_start|>system\\n' + system }}
{%- if tools %}
    {{- '\\n\\n# Tools\\n\\nThe signatures of your functions are within <tools></tools>:\\n<tools>' }}
    {%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{%- endfor %}
    {{- '\\n</tools>\\n\\nWrite each call within <tool_call></tool_call>:\\n<tool_call>\\n' }}
    {{- '{"name": <function-name>, "arguments": <args-json-object>}\\n</tool_call>' }}
{%- endif %}
{{- '<|im_end|>\\n' }}
{%- for message in messages %}
    {%- if message.role == 'tool' %}
        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- elif message.role != 'system' or not loop.first %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content or not message.tool_calls %}{{- '\\n' + message.content }}{%- endif %}
        {%- for call in message.tool_calls or [] %}
            {{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
            {{- (call.function.arguments | tojson) + '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""

LLAMA3 = """{{- bos_token }}
{%- macro head(role) %}{{- '<|start_header_id|>' + role + '<|end_header_id|>\\n\\n' }}{%- endmacro %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- set system = '' %}
{%- if messages[0].role == 'system' %}
    {%- set system = messages[0].content | trim %}
    {%- set messages = messages[1:] %}
{%- endif %}
{{- head('system') + 'Today Date: 26 Jul 2024\\n\\n' + system + '<|eot_id|>' }}
{%- if tools is not none %}
    {%- if not messages %}{{- raise_exception('Tools need a first message of the user.') }}{%- endif %}
    {{- head('user') + 'Answer with a call as {"name": function name, "parameters": dictionary}.\\n\\n' }}
    {%- for tool in tools %}{{- tool | tojson(indent=4) }}{{- '\\n\\n' }}{%- endfor %}
    {{- (messages[0].content | trim) + '<|eot_id|>' }}
    {%- set messages = messages[1:] %}
{%- endif %}
{%- for message in messages %}
    {%- if 'tool_calls' in message %}
        {%- if message.tool_calls | length != 1 %}{{- raise_exception('One call at a time.') }}{%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- head('assistant') + '{"name": "' + call.name + '", "parameters": ' + (call.arguments | tojson) + '}<|eot_id|>' }}
    {%- elif message.role in ('tool', 'ipython') %}
        {{- head('ipython') + (message.content | tojson) + '<|eot_id|>' }}
    {%- else %}
        {{- head(message.role) + (message.content | trim) + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- head('assistant') }}{%- endif %}"""

DEEPSEEK_R1 = """{%- set ns = namespace(system='', after_tool=false) %}
{%- for message in messages if message.role == 'system' %}{%- set ns.system = message.content %}{%- endfor %}
{{- bos_token + ns.system }}
{%- for message in messages %}
    {%- if message.role == 'user' %}{{- '<｜User｜>' + message.content }}{%- endif %}
    {%- if message.role == 'assistant' and message.tool_calls %}
        {{- '<｜Assistant｜><｜tool▁calls▁begin｜>' }}
        {%- for call in message.tool_calls %}
            {{- '' if loop.first else '\\n' }}
            {{- '<｜tool▁call▁begin｜>' + call.type + '<｜tool▁sep｜>' + call.function.name }}
            {{- '\\n```json\\n' + (call.function.arguments | tojson) + '\\n```<｜tool▁call▁end｜>' }}
        {%- endfor %}
        {{- '<｜tool▁calls▁end｜><｜end▁of▁sentence｜>' }}
    {%- elif message.role == 'assistant' %}
        {{- '<｜tool▁outputs▁end｜>' if ns.after_tool else '<｜Assistant｜>' }}
        {{- message.content.split('</think>')[-1] + '<｜end▁of▁sentence｜>' }}
    {%- endif %}
    {%- if message.role == 'tool' %}
        {{- '\\n' if ns.after_tool else '<｜tool▁outputs▁begin｜>' }}
        {{- '<｜tool▁output▁begin｜>' + message.content + '<｜tool▁output▁end｜>' }}
    {%- endif %}
    {%- set ns.after_tool = message.role == 'tool' %}
{%- endfor %}
{%- if ns.after_tool %}{{- '<｜tool▁outputs▁end｜>' }}
{%- elif add_generation_prompt %}{{- '<｜Assistant｜><think>\\n' }}{%- endif %}"""

QWEN_VISION = [f"<|{name}|>" for name in "vision_start vision_end vision_pad image_pad video_pad".split()]
FIM = [f"<|{name}|>" for name in "fim_prefix fim_middle fim_suffix fim_pad repo_name file_sep".split()]
R1_TOOLS = "calls▁begin calls▁end call▁begin call▁end outputs▁begin outputs▁end output▁begin output▁end sep".split()
FAMILIES = {
    "tinyllama": Family(  # its <|user|> is plain text
        pre="",
        control=["<s>", "</s>"],
        bos="<s>",
        eos="</s>",
        add_bos=True,
        template=ZEPHYR,
    ),
    "chatml": Family(  # Qwen2.5
        pre="qwen2",
        control=["<|endoftext|>", "<|im_start|>", "<|im_end|>", *QWEN_VISION, *FIM],
        defined=("<tool_call>", "</tool_call>"),
        bos="<|endoftext|>",
        eos="<|im_end|>",
        add_bos=False,
        template=CHATML_WITH_TOOLS,
    ),
    "llama3": Family(  # the rule "llama-bpe" adds BOS by itself
        pre="llama-bpe",
        control=[
            *("<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|finetune_right_pad_id|>"),
            *("<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>"),
        ],
        bos="<|begin_of_text|>",
        eos="<|eot_id|>",
        template=LLAMA3,
    ),
    "deepseek_r1": Family(  # as distilled to Qwen; its tokens for tools are those of the big R1
        pre="deepseek-r1-qwen",
        control=[
            *("<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<｜begin▁of▁sentence｜>", "<|EOT|>"),
            *(f"<｜tool▁{name}｜>" for name in R1_TOOLS),
            *QWEN_VISION,
            *FIM,
        ],
        defined=("<think>", "</think>", "<tool_call>", "</tool_call>"),
        bos="<｜begin▁of▁sentence｜>",
        eos="<｜end▁of▁sentence｜>",
        add_bos=True,
        template=DEEPSEEK_R1,
    ),
}


def write(family: str, path: Path, template: str | None = None) -> Path:
    """Writes a family's model and returns its path; `template` is used instead of the family's own."""
    shape = FAMILIES[family]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(f"tiny {family}")
    tokens = _sentencepiece(writer, shape) if not shape.pre else _byte_pairs(writer, shape)
    writer.add_bos_token_id(tokens.index(shape.bos))
    writer.add_eos_token_id(tokens.index(shape.eos))
    if shape.add_bos is not None:
        writer.add_add_bos_token(shape.add_bos)
    writer.add_chat_template(shape.template if template is None else template)
    _network(writer, len(tokens))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _sentencepiece(writer: gguf.GGUFWriter, family: Family) -> list[str]:
    merges = _merges([f"▁{word}" for word in TEXT.split()])
    letters = ["▁", *map(chr, range(33, 127))]
    words = dict.fromkeys(["".join(pair) for pair in merges] + letters)  # the earlier a merge, the better its score
    kinds = {"<unk>": TokenType.UNKNOWN}
    kinds |= dict.fromkeys(family.control, TokenType.CONTROL)
    kinds |= {f"<0x{byte:02X}>": TokenType.BYTE for byte in range(256)}
    kinds |= dict.fromkeys(words, TokenType.NORMAL)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(list(kinds))
    writer.add_token_scores([-float(i) for i in range(len(kinds))])
    writer.add_token_types(list(kinds.values()))
    writer.add_unk_token_id(0)
    return list(kinds)


def _byte_pairs(writer: gguf.GGUFWriter, family: Family) -> list[str]:
    letters = _letters()
    merges = _merges(["".join(letters[byte] for byte in f" {word}".encode()) for word in TEXT.split()])
    kinds = dict.fromkeys([*letters, *("".join(pair) for pair in merges)], TokenType.NORMAL)
    kinds |= dict.fromkeys(family.control, TokenType.CONTROL)
    kinds |= dict.fromkeys(family.defined, TokenType.USER_DEFINED)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(family.pre)
    writer.add_token_list(list(kinds))
    writer.add_token_types(list(kinds.values()))
    writer.add_token_merges([" ".join(pair) for pair in merges])
    return list(kinds)


def _letters() -> list[str]:
    """The letter that GPT-2 writes for each byte: itself where it can be seen, else one from U+0100 on."""
    seen = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = itertools.count(256)
    return [chr(byte if byte in seen else next(others)) for byte in range(256)]


def _merges(words: list[str]) -> list[tuple[str, str]]:
    """Byte-pair encoding: the commonest pair of neighbours becomes one, again and again."""
    counts, merges = {tuple(word): n for word, n in Counter(words).items()}, []
    for _ in range(N_MERGES):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, n in counts.items():
            for pair in itertools.pairwise(word):
                pairs[pair] += n
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        counts = {_merged(word, best): n for word, n in counts.items()}
    return merges


def _merged(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    parts: list[str] = []
    for part in word:
        if parts and (parts[-1], part) == pair:
            parts[-1] += part
        else:
            parts.append(part)
    return tuple(parts)


def _network(writer: gguf.GGUFWriter, n_vocab: int) -> None:
    """One layer of a llama."""
    writer.add_vocab_size(n_vocab)
    writer.add_context_length(N_CTX)
    writer.add_embedding_length(N_EMBD)
    writer.add_block_count(1)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEADS)
    writer.add_head_count_kv(N_HEADS)
    writer.add_rope_dimension_count(N_EMBD // N_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    rng = np.random.default_rng(0)
    matrices = {"token_embd": (n_vocab, N_EMBD), "output": (n_vocab, N_EMBD)}
    matrices |= {f"blk.0.attn_{name}": (N_EMBD, N_EMBD) for name in ("q", "k", "v", "output")}
    matrices |= {"blk.0.ffn_gate": (N_FF, N_EMBD), "blk.0.ffn_up": (N_FF, N_EMBD), "blk.0.ffn_down": (N_EMBD, N_FF)}
    for name, (rows, columns) in matrices.items():
        writer.add_tensor(f"{name}.weight", rng.standard_normal((rows, columns), np.float32) / 8)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(N_EMBD, np.float32))
