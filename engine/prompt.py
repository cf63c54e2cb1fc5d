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
from typing import Any, NamedTuple, Protocol

from engine.request import Request, Want
from engine.template import Template, TemplateError
from engine.thinking import BEGIN, CLOSING, Thinking, state_after
from engine.tools import as_objects, in_words, known_to

MARK = "\ud800"  # a lone surrogate: requests that hold one are refused, so no message can
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class PromptError(Exception):
    """These messages cannot be made into a prompt for this model; the message says why."""


class TooLongError(Exception):
    """The prompt has more tokens than it may have; the message counts them, "5000 tokens"."""


class TokensError(Exception):
    """The prompt has tokens that the model does not have; the message says which it has."""


class Prompt(NamedTuple):
    """What the model reads before it answers, and how it will begin."""

    tokens: list[int]
    thinking: Thinking


class Vocabulary(Protocol):
    """What is asked of a model here."""

    n_tokens: int

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
        self._source = vocabulary.metadata.get("tokenizer.chat_template", CHATML)
        try:
            self._template = Template(self._source)
        except TemplateError as error:
            raise PromptError(str(error)) from error
        self._knows_tools = known_to(self._source)
        self._longest_piece = vocabulary.longest_piece  # now: it looks through the whole vocabulary
        markers = vocabulary.markers()
        self._control = _first_characters(text for text, control in markers.items() if control)
        self._any_marker = _first_characters(markers)
        # A tokenizer that puts a space before each text would put one into the middle of a split spelling. Behind a
        # newline it has no effect on what follows, so pieces are tokenized behind one, whose own tokens are dropped.
        self._lead = "\n" if vocabulary.adds_space else ""
        self._n_lead = len(vocabulary.tokenize(self._lead, add_bos=False)) if self._lead else 0

    def read(self, request: Request, n_max: int) -> Prompt:
        """A chat up to where the assistant is to speak, or a given prompt. Raises PromptError, TooLongError."""
        if isinstance(request.prompt, list):
            tokens, thinking = list(request.prompt), Thinking.NEVER
            if not all(0 <= token < self._vocabulary.n_tokens for token in tokens):
                raise TokensError(f"Tokens of this model are numbers from 0 to {self._vocabulary.n_tokens - 1}.")
        else:
            if request.prompt is None:
                text, thinking = self.render(request)
            else:
                text, thinking = request.prompt, Thinking.NEVER
                if (
                    request.want is Want.VECTOR
                ):  # of a text; in a prompt that somebody has written out, spellings are control
                    text = self._defused(text, self._any_marker)
            tokens = self._tokenize(text, n_max, self._vocabulary.adds_bos and request.want is not Want.TOKENS)
        if not tokens and request.want.computes:
            raise PromptError("The prompt is empty.")
        if len(tokens) > n_max:
            raise TooLongError(f"{len(tokens)} tokens")
        return Prompt(tokens, thinking)

    def _tokenize(self, text: str, n_max: int, add_bos: bool) -> list[int]:
        # Counting the tokens of megabytes would keep the running answers waiting, only to refuse them.
        n_least = len(text) // self._longest_piece
        if n_least > n_max:
            raise TooLongError(f"at least {n_least} tokens")
        if add_bos and self._bos and text.startswith(self._bos):
            text = text.removeprefix(self._bos)  # the template wrote it; twice would be one too many
        first, *rest = text.split(MARK)
        tokens = self._vocabulary.tokenize(first, add_bos=add_bos)
        for piece in rest:
            tokens += self._vocabulary.tokenize(self._lead + piece, add_bos=False)[self._n_lead :]
        return tokens

    def render(self, request: Request) -> tuple[str, Thinking]:
        """The template's text, control tokens spelled out, and what it says about the answer's beginning."""
        messages, tools = request.messages, request.tools
        if self._knows_tools:
            messages = as_objects(messages)
        else:
            messages, tools = in_words(messages, tools), []
        try:
            text = self._template.render(
                messages=[self._defuse(message) for message in messages],
                tools=[{"type": "function", "function": self._defused(tool, self._any_marker)} for tool in tools] or None,
                add_generation_prompt=True,
                enable_thinking=request.think != 0,
                bos_token=self._bos,
                eos_token=self._eos,
            )
        except TemplateError as error:
            raise PromptError(str(error)) from error
        thinking = state_after(text, self._source)
        thought, said = (self._defused(part, self._any_marker) for part in (request.thought, request.said))
        if thinking is Thinking.MAYBE and (thought or request.think == 0):
            text, thinking = f"{text}{BEGIN}\n", Thinking.OPEN
        if thinking is Thinking.OPEN:
            text, thinking = text + thought, Thinking.AMID if thought else thinking
            if said or request.think == 0:
                text, thinking = text + CLOSING, Thinking.NEVER
        return text + said, Thinking.NEVER if said else thinking

    def _defuse(self, message: dict[str, Any]) -> dict[str, Any]:
        # Templates cut the reasoning out of earlier answers by looking for </think>, so it stays whole there.
        pattern = self._control if message["role"] == "assistant" else self._any_marker
        return {key: value if key == "role" else self._defused(value, pattern) for key, value in message.items()}

    def _defused(self, value: Any, pattern: re.Pattern[str]) -> Any:
        match value:
            case str():
                return pattern.sub(lambda first: first[0] + MARK, value)
            case list():
                return [self._defused(item, pattern) for item in value]
            case dict():
                return {self._defused(key, pattern): self._defused(item, pattern) for key, item in value.items()}
        return value


def _first_characters(spellings: Iterable[str]) -> re.Pattern[str]:
    """Matches the first character of each spelling, also of those that overlap."""
    spellings = list(spellings)
    if not spellings:
        return re.compile("(?!)")
    # The class of first characters makes it fast: most positions fail at once and not after a thousand alternatives.
    starts = "".join(re.escape(c) for c in sorted({spelling[0] for spelling in spellings}))
    return re.compile(f"(?=[{starts}])(?={'|'.join(map(re.escape, spellings))}).", re.DOTALL)
