"""tokenizer.model: a SentencePiece vocabulary, in the little of the protobuf format that it is written in.

ModelProto       1: piece, again and again   2: trainer_spec   3: normalizer_spec
SentencePiece    1: text   2: score   3: type
TrainerSpec      3: model_type
NormalizerSpec   3: add_dummy_prefix   4: remove_extra_whitespaces
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from gguf import TokenType

from convert.errors import ConvertError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # the wire's types
BPE = 2  # of model_type; 1, unigrams, is merged otherwise


@dataclass
class Pieces:
    """The vocabulary in order of its ids."""

    tokens: list[bytes] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    types: list[int] = field(default_factory=list)  # the same numbers as in a GGUF
    has_prefix: bool = True  # a space is put before the text
    trims: bool = False  # runs of spaces become one


def read_pieces(data: bytes) -> Pieces:
    """Raises ConvertError."""
    pieces, model_type = Pieces(), 1
    try:
        for number, value in _fields(data):
            match number, value:
                case 1, bytes():
                    _add(pieces, value)
                case 2, bytes():
                    model_type = next((v for n, v in _fields(value) if n == 3 and isinstance(v, int)), 1)
                case 3, bytes():
                    said = {n: v for n, v in _fields(value) if isinstance(v, int)}
                    pieces.has_prefix, pieces.trims = bool(said.get(3, 1)), bool(said.get(4, 1))
    except (IndexError, struct.error, ValueError) as error:
        raise ConvertError("tokenizer.model is damaged or no SentencePiece model.") from error
    if not pieces.tokens:
        raise ConvertError("tokenizer.model has no vocabulary.")
    if model_type != BPE:
        raise ConvertError("tokenizer.model does not merge pairs (BPE); llama.cpp's Llama tokenizer would read it wrongly.")
    return pieces


def _add(pieces: Pieces, data: bytes) -> None:
    text, score, kind = b"", 0.0, int(TokenType.NORMAL)
    for number, value in _fields(data):
        match number, value:
            case 1, bytes():
                text = value
            case 2, float():
                score = value
            case 3, int():
                kind = TokenType(value)
    text.decode()
    pieces.tokens.append(text)
    pieces.scores.append(score)
    pieces.types.append(int(kind))


def _fields(data: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """Number and value of each field. Raises IndexError, struct.error or ValueError."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, at = _varint(data, at)
            yield number, value
        elif wire == BYTES:
            n, at = _varint(data, at)
            if n > len(data) - at:
                raise ValueError
            yield number, data[at : at + n]
            at += n
        elif wire == FIXED32:
            yield number, struct.unpack_from("<f", data, at)[0]
            at += 4
        elif wire == FIXED64:
            at += 8
        else:
            raise ValueError


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError
