"""Which tokens begin and end a text, whether they are added to it, and how a chat is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from convert.config import Config
from convert.errors import ConvertError
from convert.folder import CONFIG_BYTES, TEMPLATE_BYTES, Folder
from convert.vocabulary import CONFIG, Vocabulary

KINDS = ("bos", "eos", "unk", "pad")
TEMPLATE, TEMPLATE_JSON, DEFAULT = "chat_template.jinja", "chat_template.json", "default"


@dataclass(frozen=True)
class Special:
    """The rest of what stands under tokenizer in a GGUF."""

    ids: dict[str, int]  # of bos, eos, unk, pad
    adds_bos: bool | None  # None: nothing says so
    adds_eos: bool | None
    template: str | None


def spelled(folder: Folder, kind: str) -> str | None:
    """A special token's text, as tokenizer_config.json has it: a string or an object."""
    said = folder.json_if_there(CONFIG, CONFIG_BYTES).get(f"{kind}_token")
    said = said.get("content") if isinstance(said, dict) else said
    return said if isinstance(said, str) else None


def read_special(folder: Folder, config: Config, vocabulary: Vocabulary, tokenizer: Tokenizer | None) -> Special:
    """Raises ConvertError."""
    ids = {}
    for kind in KINDS:
        text = spelled(folder, kind)
        number = vocabulary.id_of(text) if text else config.raw.get(f"{kind}_token_id")
        number = number[0] if isinstance(number, list) and number else number
        if type(number) is int and 0 <= number < len(vocabulary.tokens):
            ids[kind] = number
    said = folder.json_if_there(CONFIG, CONFIG_BYTES)
    frame = tokenizer.encode("").ids if tokenizer else None  # what is added to every text
    begins = frame and frame[0] == ids.get("bos")
    ends = frame and frame[-1] == ids.get("eos") and len(frame) > bool(begins)
    return Special(ids, _adds("bos", begins, said), _adds("eos", ends, said), read_template(folder))


def _adds(kind: str, framed: Any, said: dict[str, Any]) -> bool | None:
    told = said.get(f"add_{kind}_token")
    told = told if isinstance(told, bool) else None
    # transformers makes the frame of a Llama tokenizer anew from these settings; for the others tokenizer.json counts.
    if told is not None and "Llama" in str(said.get("tokenizer_class")):
        return told
    return True if framed else told if told is not None or framed is None else False


def read_template(folder: Folder) -> str | None:
    """The chat template; of several the one called "default". The others' names are never used. Raises ConvertError."""
    if folder.has(TEMPLATE):
        return _text(folder.text(TEMPLATE, TEMPLATE_BYTES))
    said = folder.json_if_there(CONFIG, CONFIG_BYTES).get("chat_template")
    if said is None:
        said = folder.json_if_there(TEMPLATE_JSON, TEMPLATE_BYTES).get("chat_template")
    if isinstance(said, list):
        said = {entry.get("name"): entry.get("template") for entry in said if isinstance(entry, dict) and _has_name(entry)}
    if isinstance(said, dict):
        said = said.get(DEFAULT)
    if said is None:
        return None
    if not isinstance(said, str):
        raise ConvertError("The checkpoint's chat template is no text.")
    return _text(said)


def _has_name(entry: dict[str, Any]) -> bool:
    return isinstance(entry.get("name"), str)


def _text(template: str) -> str:
    try:
        template.encode()
    except UnicodeEncodeError as error:  # half a surrogate pair
        raise ConvertError("The checkpoint's chat template is no text.") from error
    return template
