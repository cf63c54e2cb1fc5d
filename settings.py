"""What can be set: each setting once, with default, unit and help. The command line, the environment and the docs follow.

`python server.py --port 9000` and `LINNET_PORT=9000 python server.py` mean the same; the command line wins.
"""

from __future__ import annotations

import argparse
import functools
import ipaddress
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn

PREFIX = "LINNET_"
CTX_BOUNDS = 64, 2**20  # tokens
YES, NO = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


class SettingsError(Exception):
    """A setting that is unknown or makes no sense; the message is a sentence for the user."""


def setting(
    default: Any, help: str, *, parse: Callable[[str], Any] = str, metavar: str = "", low: float = 0, high: float = 0
) -> Any:
    """A dataclass field that knows how it is written on the command line. `low` <= a number <= `high`, where given."""
    return field(default=default, metadata={"help": help, "parse": parse, "metavar": metavar, "low": low, "high": high})


def seconds(default: float | None, help: str, low: float = 0.01, high: float = 10**6) -> Any:
    """A setting that is a limit of time."""
    return setting(default, help, parse=float, metavar="SECONDS", low=low, high=high)


def megabytes(default: int, help: str, high: int) -> Any:
    """A setting that is a limit of room."""
    return setting(default, help, parse=int, metavar="MB", low=0, high=high)


def one_of(*choices: str) -> Callable[[str], str]:
    """Takes one of these words and nothing else."""

    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(text)
        return text

    return parse


@dataclass(frozen=True)
class Settings:
    """All settings of one run, checked."""

    model: str | None = setting(
        None,
        "GGUF file, or the name of one in models/ (default: the last used one, else the demo)",
        metavar="PATH|NAME",
    )
    models_dir: Path | None = setting(  # noqa: RUF009  # it is a field
        None, "folder of the models (default: models/ beside server.py)", parse=Path, metavar="DIR"
    )
    force: bool = setting(False, "load a model that does not fit into memory or would say less than one token a second")
    host: str = setting("127.0.0.1", "address to listen on; any but this computer's own needs --api-key")
    port: int = setting(8000, "port to listen on; 0: any free one", parse=int, metavar="N", low=0, high=65535)
    ctx: int | None = setting(
        None,
        "tokens one request may use, prompt and answer together (default: what the model was trained for, at most 4096)",
        parse=int,
        metavar="N",
        low=CTX_BOUNDS[0],
        high=CTX_BOUNDS[1],
    )
    slots: int = setting(4, "requests that run at once; more wait", parse=int, metavar="N", low=1, high=64)
    threads: int | None = setting(
        None,
        "threads that compute (default: CPUs we may use, at most one per physical core)",
        parse=int,
        metavar="N",
        low=1,
        high=1024,
    )
    api_key: str | None = setting(None, "clients of the API must send this key, or one of several", metavar="KEY[,KEY...]")
    cache_dir: Path = setting(  # noqa: RUF009  # a Path cannot be changed
        Path("~/.cache/linnet"),
        "folder for what outlives a run: the last used model, computed states, answers",
        parse=Path,
        metavar="DIR",
    )
    no_cache: bool = setting(False, "keep nothing on disk, and no answers")
    chats: Path | None = setting(  # noqa: RUF009
        None,
        "file or folder for the chats of the page, which only you can read; none: keep no chats "
        "(default: linnet/chats.db in $XDG_DATA_HOME or ~/.local/share; none with --no-cache)",
        parse=Path,
        metavar="FILE|DIR|none",
    )
    unwatched: float = seconds(600.0, "seconds an answer of the page goes on when nobody reads it", low=0)
    alias: str | None = setting(None, "name of the model in the API (default: its file's name)", metavar="NAME")
    keep_alive: float | None = seconds(
        None,
        "seconds without a request after which the model is unloaded; the next one loads it (default: never)",
        low=0.1,
        high=10**9,
    )
    max_queue: int = setting(
        32, "requests that may wait; more are answered with status 429", parse=int, metavar="N", low=0, high=1000
    )
    temperature: float = setting(0.0, "temperature of requests that name none", parse=float, metavar="T", low=0, high=2)
    greedy_below: float = setting(
        0.3,
        "a lower temperature is greedy: always the most likely token, faster and repeatable",
        parse=float,
        metavar="T",
        low=0,
        high=2,
    )

    early_stop: bool = setting(False, "end answers with the second sentence after 20 tokens, where a request does not say")
    keep_loops: bool = setting(False, "let answers that repeat themselves for ever go on, where a request does not say")
    think_budget: int | None = setting(
        None,
        "tokens that a reasoning model may think before it must answer (default: as many as it takes)",
        parse=int,
        metavar="N",
        low=1,
        high=10**6,
    )
    no_draft: bool = setting(False, "never guess tokens ahead (a guess changes the speed of an answer, never its words)")
    kv_type: str = setting(
        "f16", "numbers of the context: f16, or q8_0 for half the memory", parse=one_of("f16", "q8_0"), metavar="TYPE"
    )
    prefix_ram: int = megabytes(512, "MB of memory for what was computed of earlier prompts and answers", 10**6)
    prefix_disk: int = megabytes(2048, "MB of disk for the same, in the cache folder", 10**7)
    answer_ram: int = megabytes(64, "MB of memory for answers given before", 10**6)
    answer_disk: int = megabytes(256, "MB of disk for the same, in the cache folder", 10**7)
    answer_age: float | None = seconds(
        None, "seconds after which an answer is not given again (default: it never grows too old)", low=0.1, high=10**10
    )
    share_answers: bool = setting(False, "clients with different API keys share the answers given before")
    slice_ms: float | None = setting(
        None,
        "how long a slice of a prompt may keep running answers waiting (default: 24 of their tokens, at most 1 s)",
        parse=float,
        metavar="MS",
        low=1,
        high=60000,
    )
    queue_timeout: float = seconds(600.0, "seconds a request may wait for its turn")
    prompt_timeout: float = seconds(1200.0, "seconds the reading of its prompt may take")
    answer_timeout: float = seconds(3600.0, "seconds its answer may take")
    step_timeout: float = seconds(
        60.0, "seconds one step may take before the engine is taken for stuck and replaced", low=0.1
    )

    def __post_init__(self) -> None:
        for f in (f for f in fields(self) if f.metadata["parse"] is Path and getattr(self, f.name)):
            try:
                object.__setattr__(self, f.name, getattr(self, f.name).expanduser())
            except RuntimeError as error:
                raise SettingsError(f"{option(f)} {getattr(self, f.name)} cannot be found: {error}") from error
        for f in fields(self):
            value, low, high = getattr(self, f.name), f.metadata["low"], f.metadata["high"]
            if high and value is not None and not low <= value <= high:
                raise SettingsError(f"{option(f)} must be from {low:,} to {high:,}, not {value}.")
            if value == "":
                raise SettingsError(f"{option(f)} must not be empty.")
        if self.api_key and not self.api_keys:
            raise SettingsError("--api-key has no key in it.")
        if not self.local and not self.api_keys:
            raise SettingsError(f"--host {self.host} can be reached by other computers: set --api-key KEY too.")

    @functools.cached_property  # this and the next are asked in each request
    def api_keys(self) -> list[str]:
        """Each of them lets its client in; none: everybody may come."""
        return [key for key in map(str.strip, (self.api_key or "").split(",")) if key]

    @functools.cached_property
    def local(self) -> bool:
        """Whether only this computer can reach the server."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def option(f: Field[Any]) -> str:
    """A setting's name on the command line."""
    return "--" + f.name.replace("_", "-")


def variable(f: Field[Any]) -> str:
    """A setting's name in the environment."""
    return PREFIX + f.name.upper()


def parser() -> argparse.ArgumentParser:
    """The command line; values stay text until `read` looks at them together with the environment's."""
    result = _Parser(
        prog="python server.py",
        description="Linnet: a chat and an OpenAI-compatible API for GGUF models on machines without a GPU.",
        epilog=f"Every option can be set in the environment too: --cache-dir as {PREFIX}CACHE_DIR, and so on.",
        allow_abbrev=False,
    )
    for f in fields(Settings):
        help = f.metadata["help"]
        if "(default" not in help and f.default is not None and f.default is not False:
            help += f" (default: {f.default})"
        if isinstance(f.default, bool):
            result.add_argument(option(f), action="store_const", const="1", help=help)
        else:
            result.add_argument(option(f), metavar=f.metadata["metavar"] or f.name.upper(), help=help)
    return result


def read(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Settings:
    """Settings from both sources. Raises SettingsError; `--help` prints and exits."""
    given = vars(parser().parse_args(arguments))
    known = {variable(f) for f in fields(Settings)}
    for name in environment:
        if name.startswith(PREFIX) and name not in known:
            raise SettingsError(f"{name} in the environment is not a setting; python server.py --help lists them.")
    values = {}
    for f in fields(Settings):
        name, text = option(f), given[f.name]
        if text is None:
            name, text = variable(f), environment.get(variable(f))
        if text is not None:
            values[f.name] = _value(f, name, text)
    return Settings(**values)


def _value(f: Field[Any], name: str, text: str) -> Any:
    if isinstance(f.default, bool):
        if text.lower() not in YES + NO:
            raise SettingsError(f"{name} must be yes or no, not {text!r}.")
        return text.lower() in YES
    try:
        return f.metadata["parse"](text)
    except ValueError:
        kind = "a whole number" if f.metadata["parse"] is int else "a number"
        raise SettingsError(f"{name} must be {kind}, not {text!r}.") from None


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, without a page of usage before it."""

    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message[0].upper()}{message[1:]}; python server.py --help lists the options.")
