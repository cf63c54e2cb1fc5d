"""From messages to tokens: the model's own chat template, with what people wrote kept apart from control tokens.

A chat template marks turns with control tokens such as <|im_end|>. Were a message allowed to spell one, it could end its
own turn and speak as somebody else. So before the template is rendered, each such spelling in a message is split after
its first character by MARK, and after rendering the text is tokenized piece by piece between the marks: no piece holds
the whole spelling, so llama.cpp reads it as plain text. A prompt without such spellings is tokenized in one call, as
llama.cpp itself would.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Protocol

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

MARK = "\ud800"  # a lone surrogate: requests that hold one are refused, so no message can
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class PromptError(Exception):
    """These messages cannot be made into a prompt for this model; the message says why."""


class TooLongError(Exception):
    """The prompt has more tokens than it may have; the message counts them, "5000 tokens"."""


class Vocabulary(Protocol):
    """What is asked of a model here."""

    @property
    def adds_bos(self) -> bool: ...  # noqa: D102  # engine.native.Model says what each of them is
    @property
    def adds_space(self) -> bool: ...  # noqa: D102
    @property
    def longest_piece(self) -> int: ...  # noqa: D102
    @property
    def metadata(self) -> dict[str, str]: ...  # noqa: D102
    def token_text(self, name: str) -> str: ...  # noqa: D102
    def markers(self) -> dict[str, bool]: ...  # noqa: D102
    def tokenize(self, text: str, *, add_bos: bool) -> list[int]: ...  # noqa: D102


class Prompter:
    """Renders and tokenizes for one model. Raises PromptError at once when its template is not Jinja."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._bos, self._eos = vocabulary.token_text("bos"), vocabulary.token_text("eos")
        self._template = _compile(vocabulary.metadata.get("tokenizer.chat_template", CHATML))
        self._longest_piece = vocabulary.longest_piece  # now: it looks through the whole vocabulary
        markers = vocabulary.markers()
        self._control = _first_characters(text for text, control in markers.items() if control)
        self._any_marker = _first_characters(markers)
        # A tokenizer that puts a space before each text would put one into the middle of a split spelling. Behind a
        # newline it has no effect on what follows, so pieces are tokenized behind one, whose own tokens are dropped.
        self._lead = "\n" if vocabulary.adds_space else ""
        self._n_lead = len(vocabulary.tokenize(self._lead, add_bos=False)) if self._lead else 0

    def tokens(self, messages: list[dict[str, str]], n_max: int) -> list[int]:
        """The prompt of a chat, up to where the assistant is to speak. Raises PromptError, TooLongError."""
        text = self.render([self._defuse(message) for message in messages])
        # Counting the tokens of megabytes would keep the running answers waiting, only to refuse them.
        n_least = len(text) // self._longest_piece
        if n_least > n_max:
            raise TooLongError(f"at least {n_least} tokens")
        add_bos = self._vocabulary.adds_bos
        if add_bos and self._bos and text.startswith(self._bos):
            text = text.removeprefix(self._bos)  # the template wrote it; twice would be one too many
        first, *rest = text.split(MARK)
        tokens = self._vocabulary.tokenize(first, add_bos=add_bos)
        for piece in rest:
            tokens += self._vocabulary.tokenize(self._lead + piece, add_bos=False)[self._n_lead :]
        if not tokens:
            raise PromptError("The model's chat template makes an empty prompt of these messages.")
        if len(tokens) > n_max:
            raise TooLongError(f"{len(tokens)} tokens")
        return tokens

    def render(self, messages: list[dict[str, str]]) -> str:
        """The template's text, control tokens spelled out."""
        try:
            return self._template.render(
                messages=messages, add_generation_prompt=True, bos_token=self._bos, eos_token=self._eos
            )
        except jinja2.TemplateError as error:  # also what a template itself says by raise_exception
            raise PromptError(f"The model's chat template refuses these messages: {error}") from error
        except Exception as error:  # a template is a program by a stranger and can fail in any way
            raise PromptError(f"The model's chat template failed: {type(error).__name__}.") from error

    def _defuse(self, message: dict[str, str]) -> dict[str, str]:
        # Templates cut the reasoning out of earlier answers by looking for </think>, so it stays whole there.
        pattern = self._control if message["role"] == "assistant" else self._any_marker
        return {key: pattern.sub(lambda first: first[0] + MARK, text) for key, text in message.items()}


def _compile(source: str) -> jinja2.Template:
    # The names and options that Hugging Face's templates are written for.
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    try:
        return environment.from_string(source)
    except jinja2.TemplateError as error:
        raise PromptError(f"the chat template in it is broken ({error})") from error


def _raise_exception(message: str) -> Any:
    raise jinja2.TemplateError(message)


def _first_characters(spellings: Iterable[str]) -> re.Pattern[str]:
    """Matches the first character of each spelling, also of those that overlap."""
    spellings = list(spellings)
    if not spellings:
        return re.compile("(?!)")
    # The class of first characters makes it fast: most positions fail at once and not after a thousand alternatives.
    starts = "".join(re.escape(c) for c in sorted({spelling[0] for spelling in spellings}))
    return re.compile(f"(?=[{starts}])(?={'|'.join(map(re.escape, spellings))}).", re.DOTALL)
