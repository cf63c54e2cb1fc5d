"""A model's chat template: a program in Jinja by a stranger, rendered in a sandbox and within limits.

It comes out of a downloaded file, so it may try to reach the computer, to run for ever or to fill the memory. Jinja's
sandbox keeps it off the computer. Time and memory are limited by the kernel, an alarm and a limit of the address space: a
template has more ways to double a string than could each be watched. Both hold for the whole process and only the main
thread may set them; there the worker renders. In other threads there is the time limit alone, and rendering is slower.

One step of arithmetic with endless integers would be over only after years, alarm or not, so their length is limited too.
"""

from __future__ import annotations

import gc
import json
import re
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar

import jinja2
import psutil
from jinja2.ext import Extension
from jinja2.filters import do_int, do_round
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

LIMIT_S = 2.0
AGAIN_S = 0.05  # code that runs just then may swallow the alarm's exception, so the alarm is repeated
MEMORY_BYTES = 2**29  # 512 MiB more than the process has when rendering begins
N_CHARACTERS = 2**24  # of the text that is made: twice the largest request
N_REASON = 500  # characters of what a template says by raise_exception
N_BITS = 2**14  # of an integer: more than the 4300 digits that Python reads
N_DIGITS = 300  # of a number to be rounded
# A template can spell them, but they are no text. U+D800 is let through: engine.prompt marks places with it.
SURROGATE = re.compile("[\ud801-\udfff]")

Result = TypeVar("Result")


class TemplateError(Exception):
    """The template is broken or will not do; the message is a sentence."""


class _ExpiredError(BaseException):
    """The time is over. Not an Exception: those are caught in many places in Jinja."""


class _TooMuchError(Exception):
    """The text is too long."""


class Template:
    """One template, compiled. Raises TemplateError when it is not Jinja."""

    def __init__(self, source: str) -> None:
        try:
            self._template = _limited(lambda: _Environment().from_string(source))
        except jinja2.TemplateError as error:
            raise TemplateError(f"the chat template in it is broken ({_clean(str(error))})") from error
        except (Exception, _ExpiredError) as error:
            raise TemplateError(f"the chat template in it is broken (it {_why(error)})") from error

    def render(self, **variables: Any) -> str:
        """The text it makes of messages and whatever else it is given. Raises TemplateError."""
        try:
            return _limited(lambda: self._text(variables))
        except jinja2.TemplateError as error:  # also what the template itself says by raise_exception
            why = f"refuses these messages: {_clean(str(error))}"
            raise TemplateError(f"The model's chat template {why}") from error
        except (Exception, _ExpiredError) as error:  # a program by a stranger can fail in any way
            raise TemplateError(f"The model's chat template {_why(error)}.") from error

    def _text(self, variables: Mapping[str, Any]) -> str:
        pieces, n = [], 0
        for piece in self._template.generate(variables):
            pieces.append(piece)
            n += len(piece)
            if n > N_CHARACTERS:
                raise _TooMuchError
        return SURROGATE.sub("\ufffd", "".join(pieces))


def _why(error: BaseException) -> str:
    match error:
        case _ExpiredError():
            return f"takes longer than {LIMIT_S:g} s"
        case _TooMuchError():
            return f"makes more than {N_CHARACTERS} characters"
        case MemoryError():
            return f"takes more than {MEMORY_BYTES >> 20} MiB of memory"
    return f"failed: {type(error).__name__}"


def _clean(text: str) -> str:
    """As much of a text as can be shown and sent."""
    return text[:N_REASON].encode(errors="ignore").decode()


def _limited(act: Callable[[], Result]) -> Result:
    """What `act` returns. Raises what it raises, _ExpiredError after LIMIT_S, MemoryError at MEMORY_BYTES."""
    try:
        return _by_alarm(act) if threading.current_thread() is threading.main_thread() else _by_trace(act)
    except (Exception, _ExpiredError) as error:
        error.__traceback__ = None  # its frames hold on to all that the template made, and so do circles in them
        if not isinstance(error, jinja2.TemplateError):
            gc.collect()
        raise error


def _by_alarm(act: Callable[[], Result]) -> Result:
    armed = True

    def expire(*_: object) -> None:
        if armed:
            raise _ExpiredError

    limits = soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    ceiling = psutil.Process().memory_info().vms + MEMORY_BYTES
    handler, timer = signal.signal(signal.SIGALRM, expire), signal.getitimer(signal.ITIMER_REAL)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (ceiling if soft == resource.RLIM_INFINITY else min(soft, ceiling), hard))
        signal.setitimer(signal.ITIMER_REAL, LIMIT_S, AGAIN_S)
        return act()
    finally:
        armed = False  # an alarm on its way does nothing from here on
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *timer)


def _by_trace(act: Callable[[], Result]) -> Result:
    end = time.monotonic() + LIMIT_S

    def trace(*_: object) -> Any:  # at every line of Python
        if time.monotonic() > end:
            raise _ExpiredError
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        return act()
    finally:
        sys.settrace(before)


class _Generation(Extension):
    """{% generation %} ... {% endgeneration %} tells a training what the assistant said; here it says nothing."""

    tags = frozenset(["generation"])  # type: ignore[assignment]  # only looked into

    def parse(self, parser: Parser) -> list[Node]:
        """The content of the block."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Environment(ImmutableSandboxedEnvironment):
    """The names and options that Hugging Face's templates are written for."""

    intercepted_binops = frozenset(["+", "-", "*", "/", "//", "%", "**"])

    def __init__(self) -> None:
        extensions = ["jinja2.ext.loopcontrols", _Generation]
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        self.filters |= {"tojson": _tojson, "int": _int, "round": _round}

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Refuses what would take too long, and says no at once to what would never fit into memory."""
        if isinstance(left, int) and isinstance(right, int):
            n_bits = left.bit_length() * right if operator == "**" else left.bit_length() + right.bit_length()
            if n_bits > N_BITS:
                raise OverflowError
        elif operator == "*":
            for times, text in ((left, right), (right, left)):
                is_repeated = isinstance(times, int) and isinstance(text, str | bytes | list | tuple)
                if is_repeated and times * len(text) > N_CHARACTERS:
                    raise _TooMuchError
        return super().call_binop(context, operator, left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Nothing of integers: they could be made of any length with from_bytes."""
        return not isinstance(obj, int) and super().is_safe_attribute(obj, attr, value)


def _raise_exception(message: str) -> Any:
    raise jinja2.TemplateError(message)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own escapes what is special in HTML and sorts the keys: models were not trained on that.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _int(value: Any, default: int = 0, base: int = 10) -> int:
    number = do_int(value, default, base)
    if number.bit_length() > N_BITS:
        raise OverflowError
    return number


def _round(value: float, precision: int = 0, method: Any = "common") -> float:
    if abs(precision) > N_DIGITS:
        raise OverflowError
    return do_round(value, precision, method)
