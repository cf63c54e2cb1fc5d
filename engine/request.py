"""The words of the house: what can be asked of the engine and what it answers.

Every word is a frozen dataclass of plain data. Between the front process and the worker each travels as one line of JSON
(`dump`, `load`), so neither side can hand the other anything but data.

    to the worker    Config (once, first) | Request | Cancel
    from the worker  Ready or LoadFailed (once, first) | Accepted | Progress | Delta | Result | Finished | Failed

A stream of one request begins with one Accepted or Failed and ends with exactly one Finished or Failed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

DEFAULT_CTX = 4096  # tokens; what a model was trained for can be 131,072, and the memory for it is taken at once


class Trouble(StrEnum):
    """Why a request got no (whole) answer. `api.errors` says each of them in the caller's language."""

    CONTEXT_LENGTH = "context_length"  # the prompt does not fit into the context of one request
    BAD_PROMPT = "bad_prompt"  # the chat template refuses these messages
    BAD_TOKENS = "bad_tokens"  # the model has no such tokens
    BAD_BIAS = "bad_bias"  # nor such tokens to be made likelier
    BAD_SHAPE = "bad_shape"  # no grammar can be made of the shape that the answer is to have
    QUEUE_FULL = "queue_full"  # as many wait as may wait
    LOADING = "loading"  # the model is being loaded or loaded again
    NO_MODEL = "no_model"  # the model could not be loaded
    STOPPING = "stopping"  # the server is being shut down
    QUEUE_TIMEOUT = "queue_timeout"  # no slot became free in time
    PROMPT_TIMEOUT = "prompt_timeout"  # the prompt was not read in time
    ANSWER_TIMEOUT = "answer_timeout"  # the answer did not end in time
    STALLED = "stalled"  # a step for this request did not come back; the worker was replaced
    ENGINE_DIED = "engine_died"  # the worker process ended in the middle of it
    INTERNAL = "internal"  # a fault of ours; the log has the details


class Reason(StrEnum):
    """Why an answer ended."""

    END = "end_of_turn"  # the model said so
    STOP = "stop_string"
    SENTENCES = "sentences"  # early_stop
    LOOP = "loop"  # loop_stop
    MAX_TOKENS = "max_tokens"
    CONTEXT = "context"  # it is full
    READ = "read"  # a background request: the whole prompt is
    GAVE_WAY = "gave_way"  # a background request: its slot was needed

    @property
    def finish_reason(self) -> str:
        """As OpenAI's API knows it."""
        return "stop" if self in (Reason.END, Reason.STOP, Reason.SENTENCES) else "length"


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
    logit_bias: list[list[float]] = field(default_factory=list)  # [token, what is added to its score]


@dataclass(frozen=True)
class Shape:
    """What an answer must look like: `opening`, then what the schema or the grammar says, then `closing`."""

    schema: dict[str, Any] | None = None  # JSON schema, of the kind that api.schema lets pass
    grammar: str = ""  # GBNF with a rule `root`; instead of a schema
    opening: str = ""
    closing: str = ""
    lazy: bool = False  # anything may be said, but after each `opening` it is so
    many: bool = False  # one or more of these


class Want(StrEnum):
    """What is asked for."""

    ANSWER = "answer"
    VECTOR = "vector"  # the mean of what the model computes for the prompt's tokens
    TOKENS = "tokens"  # of the prompt
    PROMPT = "prompt"  # its tokens as the model would read it, with the one that begins a text
    TEXT = "text"  # of the prompt's tokens

    @property
    def computes(self) -> bool:
        """Whether the model itself is needed for it."""
        return self in (Want.ANSWER, Want.VECTOR)


@dataclass(frozen=True)
class Request:
    """One answer to be generated, or something else to be told about a text."""

    id: str
    messages: list[dict[str, Any]]  # [{"role": ..., "content": ..., maybe "tool_calls", "tool_call_id", "name"}]
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None  # None: until the model ends or the context is full
    stop: list[str] = field(default_factory=list)
    early_stop: bool = False  # end with the second sentence once 20 tokens are there
    loop_stop: bool = True  # end when the answer repeats itself for ever
    background: bool = False  # only reads the prompt, when nothing else is to do, for the request that will follow
    done: list[int] = field(default_factory=list)  # tokens of the answer that another worker has given already
    prompt: str | list[int] | None = None  # instead of messages: a text or its tokens, as they are
    tools: list[dict[str, Any]] = field(default_factory=list)  # [{"name", "description", "parameters"}]
    think: int | None = None  # tokens of thoughts before they are ended from outside; 0: none; None: as many as it takes
    logprobs: int | None = None  # so many alternatives to each token are told with their chances; None: no chances
    shape: Shape | None = None
    want: Want = Want.ANSWER
    thought: str = ""  # what the assistant has thought and said of this answer already: it goes on from there
    said: str = ""
    private: bool = False  # what is computed for it never goes to disk


@dataclass(frozen=True)
class Cancel:
    """Nobody waits for this request any more. Unknown ids are fine: it may have ended just now."""

    id: str


@dataclass(frozen=True)
class Limits:
    """After how many seconds a request is given up, by what it waits for."""

    queue_s: float = 600.0
    prompt_s: float = 1200.0
    answer_s: float = 3600.0
    step_s: float = 60.0  # one call of native code; watched from outside, for nobody else can


@dataclass(frozen=True)
class End:
    """The front is gone or going: keep what is worth keeping, and end."""


@dataclass(frozen=True)
class Config:
    """What a worker is told before anything else."""

    model_path: str
    n_ctx: int | None  # tokens one request may use; None: what the model was trained for, at most 4,096
    n_slots: int  # requests that run at once
    n_threads: int
    kv_type: str = "f16"  # of the numbers in the context: "f16" or "q8_0"
    draft: bool = True  # whether to guess tokens ahead where that pays
    slice_s: float | None = None  # how long a slice of a prompt may keep running answers waiting; None: by measure
    ram_bytes: int = 2**29  # for states of prefixes read before
    disk_bytes: int = 2**31  # the same, in the cache folder
    cache_dir: str | None = None  # None: nothing on disk
    limits: Limits = field(default_factory=Limits)


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
    file: str = ""  # the state of the model's file when it was loaded; see `stamp`


@dataclass(frozen=True)
class LoadFailed:
    """The model cannot be used; the worker ends itself after saying so."""

    message: str


@dataclass(frozen=True)
class Accepted:
    """The prompt is read as tokens and fits; the request now runs or waits its turn."""

    id: str
    n_prompt: int
    thinking: str = ""  # how the answer begins; see engine.thinking.Thinking


@dataclass(frozen=True)
class Progress:
    """How far it is before the first token: who waits wants to know."""

    id: str
    n_read: int  # tokens of the prompt, those known before included
    n_cached: int  # that were known before
    n_before: int  # requests that wait for a slot before this one
    seconds: float  # since it got a slot


@dataclass(frozen=True)
class Delta:
    """Text that will not change any more: whole characters, no beginning of a stop string."""

    id: str
    text: str
    tokens: list[int] = field(default_factory=list)  # those that came since the last one: what another worker would need
    held: list[str] = field(default_factory=list)  # what an answer that ended after each of them would end with; []: nothing
    # Of each token, where they are wanted: [its bytes as Latin-1, log of its chance, [[bytes, log], ...] of the likeliest]
    logprobs: list[list[Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Result:
    """What was asked for beside an answer: a vector of floats, tokens as [number, bytes as Latin-1], or [a text]."""

    id: str
    values: list[Any]


@dataclass(frozen=True)
class Finished:
    """The whole answer was given."""

    id: str
    finish_reason: str  # "stop": it is whole; "length": it was cut off
    stop_reason: str  # in detail: see Reason
    n_prompt: int
    n_cached: int  # tokens of the prompt that did not have to be read: their state was known
    n_answer: int  # tokens generated, the end-of-turn token not counted
    queue_s: float  # waited for a slot
    prompt_s: float  # from the slot to the first token
    answer_s: float  # from the first token to the last
    n_thought: int = 0  # of the answer's tokens, the first so many are thoughts


@dataclass(frozen=True)
class Failed:
    """There will be no (more) answer."""

    id: str
    trouble: Trouble
    message: str  # a sentence for the caller


Command = Config | Request | Cancel | End  # the last one only within the worker
Event = Accepted | Progress | Delta | Result | Finished | Failed
Word = Command | Ready | LoadFailed | Event

WORDS = {
    cls.__name__: cls
    for cls in (Config, Request, Cancel, Ready, LoadFailed, Accepted, Progress, Delta, Result, Finished, Failed)
}


def stamp(path: str | Path) -> str:
    """Tells one state of a file from another without reading it; "" when it is not there."""
    try:
        status = Path(path).stat()
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ino}"


_encode = json.JSONEncoder(separators=(",", ":"), default=vars).encode  # one encoder, not a new one per token


def dump(word: Word) -> bytes:
    """One line of JSON, newline included."""
    return _encode([type(word).__name__, vars(word)]).encode() + b"\n"


def load(line: bytes) -> Any:
    """The inverse of `dump`."""
    name, fields = json.loads(line)
    if name == "Request":
        fields["sampling"] = Sampling(**fields["sampling"])
        fields["shape"] = fields["shape"] and Shape(**fields["shape"])
        fields["want"] = Want(fields["want"])
    elif name == "Config":
        fields["limits"] = Limits(**fields["limits"])
    elif name == "Failed":
        fields["trouble"] = Trouble(fields["trouble"])
    return WORDS[name](**fields)
