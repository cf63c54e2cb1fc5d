"""The words of the house: what can be asked of the engine and what it answers.

Every word is a frozen dataclass of plain data. Between the front process and the worker each travels as one line of JSON
(`dump`, `load`), so neither side can hand the other anything but data.

    to the worker    Config (once, first) | Request | Cancel
    from the worker  Ready or LoadFailed (once, first) | Accepted | Delta | Finished | Failed

A stream of one request begins with one Accepted or Failed and ends with exactly one Finished or Failed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Trouble(StrEnum):
    """Why a request got no (whole) answer. `api.errors` says each of them in the caller's language."""

    CONTEXT_LENGTH = "context_length"  # the prompt does not fit into the context of one request
    BAD_PROMPT = "bad_prompt"  # the chat template refuses these messages
    QUEUE_FULL = "queue_full"  # as many wait as may wait
    LOADING = "loading"  # the model is being loaded or loaded again
    NO_MODEL = "no_model"  # the model could not be loaded
    STOPPING = "stopping"  # the server is being shut down
    ENGINE_DIED = "engine_died"  # the worker process ended in the middle of it
    INTERNAL = "internal"  # a fault of ours; the log has the details


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. A temperature of 0 is greedy: always the most likely token, everything else unused."""

    temperature: float = 0.0
    top_k: int = 40  # 0: all
    top_p: float = 1.0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repeat_penalty: float = 1.0
    seed: int = 0  # 32 bits


@dataclass(frozen=True)
class Request:
    """One answer to be generated."""

    id: str
    messages: list[dict[str, str]]  # [{"role": ..., "content": ...}]
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None  # None: until the model ends or the context is full
    stop: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Cancel:
    """Nobody waits for this request any more. Unknown ids are fine: it may have ended just now."""

    id: str


@dataclass(frozen=True)
class Config:
    """What a worker is told before anything else."""

    model_path: str
    n_ctx: int | None  # tokens one request may use; None: what the model was trained for, at most 4,096
    n_slots: int  # requests that run at once
    n_threads: int


@dataclass(frozen=True)
class Ready:
    """The model is loaded and warm."""

    n_ctx: int  # tokens one request may use
    n_ctx_train: int
    n_params: int
    size_bytes: int
    description: str  # llama.cpp's own words, e.g. "llama 1B Q4_K - Medium"
    build: str  # of llama.cpp and its binding
    load_s: float


@dataclass(frozen=True)
class LoadFailed:
    """The model cannot be used; the worker ends itself after saying so."""

    message: str


@dataclass(frozen=True)
class Accepted:
    """The prompt is read as tokens and fits; the request now runs or waits its turn."""

    id: str
    n_prompt: int


@dataclass(frozen=True)
class Delta:
    """Text that will not change any more: whole characters, no beginning of a stop string."""

    id: str
    text: str


@dataclass(frozen=True)
class Finished:
    """The whole answer was given."""

    id: str
    finish_reason: str  # "stop": the model or a stop string ended it; "length": max_tokens or the context did
    n_prompt: int
    n_answer: int  # tokens generated, the end-of-turn token not counted
    queue_s: float  # waited for a slot
    prompt_s: float  # from the slot to the first token
    answer_s: float  # from the first token to the last


@dataclass(frozen=True)
class Failed:
    """There will be no (more) answer."""

    id: str
    trouble: Trouble
    message: str  # a sentence for the caller


Command = Config | Request | Cancel
Event = Accepted | Delta | Finished | Failed
Word = Command | Ready | LoadFailed | Event

WORDS = {cls.__name__: cls for cls in (Config, Request, Cancel, Ready, LoadFailed, Accepted, Delta, Finished, Failed)}

_encode = json.JSONEncoder(separators=(",", ":"), default=vars).encode  # one encoder, not a new one per token


def dump(word: Word) -> bytes:
    """One line of JSON, newline included."""
    return _encode([type(word).__name__, vars(word)]).encode() + b"\n"


def load(line: bytes) -> Any:
    """The inverse of `dump`."""
    name, fields = json.loads(line)
    if name == "Request":
        fields["sampling"] = Sampling(**fields["sampling"])
    elif name == "Failed":
        fields["trouble"] = Trouble(fields["trouble"])
    return WORDS[name](**fields)
