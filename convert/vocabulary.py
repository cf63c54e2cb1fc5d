"""The tokenizer of a checkpoint, as a GGUF has it: tokens with scores or merges, their types, and how words are split.

tokenizer.model     SentencePiece: Llama 2, TinyLlama, Mistral
tokenizer.json      the same kind (pairs with byte fallback), or byte-level pairs: Llama 3, Qwen2, GPT-2
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

from gguf import TokenType
from tokenizers import Tokenizer

from convert.config import Config
from convert.errors import ConvertError
from convert.folder import CONFIG_BYTES, TOKENIZER_BYTES, Folder, parse_object
from convert.pieces import read_pieces
from convert.rules import rule_of

BYTE = re.compile(rb"<0x[0-9A-F]{2}>")
ADDED_SCORE = -1000.0
MODEL, JSON, CONFIG, ADDED = "tokenizer.model", "tokenizer.json", "tokenizer_config.json", "added_tokens.json"


@dataclass
class Vocabulary:
    """Everything under tokenizer.ggml but the special tokens and the template."""

    model: str  # "llama" or "gpt2"
    pre: str
    tokens: list[bytes]  # one for each row of the embedding
    types: list[int]
    scores: list[float] | None = None  # SentencePiece
    merges: list[str] | None = None  # byte-level
    has_prefix: bool | None = None  # SentencePiece: a space is put before the text
    notes: list[str] = field(default_factory=list)  # what the user should know

    def id_of(self, token: str) -> int | None:
        """A token's number."""
        text = token.encode(errors="surrogatepass")
        return self.tokens.index(text) if text in self.tokens else None


@dataclass(frozen=True)
class Added:
    """A token that is matched as a whole."""

    text: str
    is_special: bool

    @property
    def type(self) -> int:
        """Special ones are never shown. Some that ought to be special are not said to be: llama.cpp goes by the looks."""
        looks_special = self.text.startswith(("<|", "<｜")) and self.text.endswith(("|>", "｜>"))
        is_control = self.is_special or looks_special or self.text == "<pad>"
        return int(TokenType.CONTROL if is_control else TokenType.USER_DEFINED)


def read_vocabulary(folder: Folder, config: Config, bos: str | None) -> tuple[Vocabulary, Tokenizer | None]:
    """The vocabulary and, if there is a tokenizer.json, what `tokenizers` makes of it. Raises ConvertError."""
    text = folder.text(JSON, TOKENIZER_BYTES) if folder.has(JSON) else None
    parsed = parse_object(text, JSON) if text else {}
    tokenizer = _tokenizer(text) if text else None
    added = _added(folder, parsed)
    if folder.has(MODEL) and not _is_byte_level(parsed):
        vocabulary = _from_pieces(folder, config)
    elif tokenizer is None:
        raise ConvertError(f"There is neither {MODEL} nor {JSON} in {folder.path}.")
    elif _is_byte_level(parsed):
        vocabulary = _byte_level(parsed, config)
        bos_id = tokenizer.token_to_id(bos) if bos else None
        vocabulary.pre = rule_of(tokenizer, parsed, bos_id)
    else:
        vocabulary = _with_byte_fallback(parsed, config)
    _add(vocabulary, added)
    if len(set(vocabulary.tokens)) < len(vocabulary.tokens):
        raise ConvertError("The checkpoint's vocabulary has the same token twice.")
    return vocabulary, tokenizer


def _tokenizer(text: str) -> Tokenizer:
    try:
        return Tokenizer.from_str(text)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic in Rust is no Exception
        raise ConvertError(f"{JSON} cannot be used: {str(error)[:200]}.") from error


def _is_byte_level(parsed: dict[str, Any]) -> bool:
    model = parsed.get("model")
    return isinstance(model, dict) and model.get("type") == "BPE" and not model.get("byte_fallback")


def _from_pieces(folder: Folder, config: Config) -> Vocabulary:
    pieces = read_pieces(folder.read(MODEL, TOKENIZER_BYTES))
    if len(pieces.tokens) > config.n_vocab:
        raise ConvertError(f"{MODEL} has {len(pieces.tokens)} tokens, but the network only {config.n_vocab}.")
    if not all(map(math.isfinite, pieces.scores)):
        raise ConvertError(f"{MODEL} has a score that is no number.")
    notes = ["Its tokenizer makes one space of several; llama.cpp will not."] if pieces.trims else []
    vocabulary = _unused("llama", "default", config.n_vocab)
    vocabulary.notes, vocabulary.has_prefix = notes, pieces.has_prefix
    n = len(pieces.tokens)
    vocabulary.tokens[:n], vocabulary.types[:n] = pieces.tokens, pieces.types
    vocabulary.scores = pieces.scores + [ADDED_SCORE] * (config.n_vocab - n)
    return vocabulary


def _with_byte_fallback(parsed: dict[str, Any], config: Config) -> Vocabulary:
    """A SentencePiece vocabulary that only tokenizer.json tells of: the earlier a merge, the better its token's score."""
    model = parsed.get("model")
    if not isinstance(model, dict) or model.get("type") != "BPE":
        raise ConvertError(f"{JSON} does not merge pairs (BPE), as the tokenizers of Llama and Qwen2 do.")
    vocabulary = _unused("llama", "default", config.n_vocab)
    _place(vocabulary, model)
    best: dict[bytes, float] = {}
    for rank, (left, right) in enumerate(_merges(model)):
        best.setdefault(_bytes(left + right), -float(rank + 1))
    vocabulary.scores = [
        best.get(token, ADDED_SCORE if type_ == TokenType.UNUSED else 0.0) for token, type_ in _both(vocabulary)
    ]
    vocabulary.types = [
        int(TokenType.BYTE) if type_ == TokenType.NORMAL and BYTE.fullmatch(token) else type_
        for token, type_ in _both(vocabulary)
    ]
    unknown = model.get("unk_token")
    if isinstance(unknown, str) and (at := vocabulary.id_of(unknown)) is not None:
        vocabulary.types[at] = int(TokenType.UNKNOWN)
    vocabulary.has_prefix = _prepends(parsed.get("normalizer")) or _prepends(parsed.get("pre_tokenizer"))
    return vocabulary


def _both(vocabulary: Vocabulary) -> list[tuple[bytes, int]]:
    return list(zip(vocabulary.tokens, vocabulary.types, strict=True))


def _prepends(part: Any) -> bool:
    """Whether this normalizer or pre-tokenizer puts a space before the text."""
    if not isinstance(part, dict):
        return False
    inner = part.get("normalizers") or part.get("pretokenizers") or []
    if isinstance(inner, list) and any(_prepends(one) for one in inner):
        return True
    prepends = part.get("type") == "Metaspace" and part.get("prepend_scheme", "always") != "never"
    return prepends or (part.get("type") == "Prepend" and part.get("prepend") == "▁")


def _byte_level(parsed: dict[str, Any], config: Config) -> Vocabulary:
    normalizer = parsed.get("normalizer")
    vocabulary = _unused("gpt2", "", config.n_vocab)
    match normalizer:
        case None | {"type": "Sequence", "normalizers": []}:
            pass
        case {"type": "NFC"}:
            vocabulary.notes = [
                "Its tokenizer composes letters with accents (NFC) first; llama.cpp takes them as they come."
            ]
        case _:
            raise ConvertError(f"{JSON} changes the text before it splits it (normalizer), which llama.cpp would not do.")
    _place(vocabulary, parsed["model"])
    # A space in a merge would be taken for the one between the two.
    vocabulary.merges = [" ".join(part.replace(" ", "Ġ") for part in pair) for pair in _merges(parsed["model"])]
    for merge in vocabulary.merges:
        _bytes(merge)
    return vocabulary


def _unused(model: str, pre: str, n: int) -> Vocabulary:
    tokens = [f"[PAD{i}]".encode() for i in range(n)]
    return Vocabulary(model, pre, tokens, [int(TokenType.UNUSED)] * n)


def _place(vocabulary: Vocabulary, model: dict[str, Any]) -> None:
    entries = model.get("vocab")
    if not isinstance(entries, dict) or not entries:
        raise ConvertError(f"{JSON} has no vocabulary.")
    n = len(vocabulary.tokens)
    for token, i in entries.items():
        if type(i) is not int or not 0 <= i < n or vocabulary.types[i] != TokenType.UNUSED:
            raise ConvertError(f"{JSON} gives the token {token[:40]!r} the impossible number {str(i)[:20]} (of {n}).")
        vocabulary.tokens[i], vocabulary.types[i] = _bytes(token), int(TokenType.NORMAL)


def _merges(model: dict[str, Any]) -> list[tuple[str, str]]:
    merges = []
    for merge in model.get("merges") or []:
        match merge.split(" ") if isinstance(merge, str) else merge:  # a list since transformers 4.45
            case [str(left), str(right)]:
                merges.append((left, right))
            case _:
                raise ConvertError(f"{JSON} has the impossible merge {str(merge)[:60]!r}.")
    return merges


def _added(folder: Folder, parsed: dict[str, Any]) -> dict[int, Added]:
    """From all places that may name them, the most trusted last."""
    found: dict[int, Added] = {}
    try:
        for text, i in folder.json_if_there(ADDED, CONFIG_BYTES).items():
            found[int(i)] = Added(str(text), False)
        for entry in parsed.get("added_tokens") or []:
            found[int(entry["id"])] = Added(str(entry["content"]), bool(entry.get("special")))
        decoder = folder.json_if_there(CONFIG, CONFIG_BYTES).get("added_tokens_decoder") or {}
        for number, entry in decoder.items():
            found[int(number)] = Added(str(entry["content"]), bool(entry.get("special")))
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise ConvertError("The checkpoint's list of added tokens is damaged.") from error
    return found


def _add(vocabulary: Vocabulary, added: dict[int, Added]) -> None:
    for i, token in sorted(added.items()):
        if not 0 <= i < len(vocabulary.tokens):
            vocabulary.notes.append(f"The added token {token.text[:40]!r} has no row in the embedding and is left out.")
            continue
        is_shown = token.type == TokenType.USER_DEFINED
        vocabulary.tokens[i] = _bytes(token.text.replace("▁", " ") if is_shown and vocabulary.scores else token.text)
        if vocabulary.types[i] != TokenType.UNKNOWN:
            vocabulary.types[i] = token.type
        if vocabulary.scores:
            vocabulary.scores[i] = ADDED_SCORE


def _bytes(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:  # half a surrogate pair
        raise ConvertError(f"The vocabulary has a token that is no text: {text[:40]!r}.") from error
