"""OpenAI's older endpoint: /v1/completions, which goes on from a text as it is, without a chat template."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

from flask import Blueprint, Response, request

from api import chunks, texts
from api.answer import Answer
from api.body import CompletionBody, read
from api.choice import Choice, Piece
from api.errors import unsupported, wrong
from api.openai import check_options, fingerprint, get, streamed, whole
from api.order import completion_request, orders
from api.source import Source, how
from api.stream import ChunkWriter, EventStream
from engine.request import Trouble
from settings import Settings

KIND = "text_completion"
PARAMS = dict.fromkeys((Trouble.CONTEXT_LENGTH, Trouble.BAD_PROMPT, Trouble.BAD_TOKENS), "prompt") | {
    Trouble.BAD_SHAPE: "grammar"
}


def blueprint(settings: Settings, source: Source, model_name: str) -> Blueprint:
    """The route."""
    routes = Blueprint("completions", __name__)

    @routes.post("/completions")
    def completions() -> Response:
        body = read(CompletionBody, request.get_data(cache=False))
        check_options(body, model_name)
        prompts = texts.listed(body.prompt)
        n, n_made = body.n or 1, max(body.n or 1, body.best_of or 1)
        check(body, len(prompts) * n_made, settings)
        made_by = fingerprint(source.engine)
        wanted = [completion_request(body, prompt, settings) for prompt in prompts]
        echo = texts.spelled(source.engine, prompts, "prompt") if body.echo else [""] * len(prompts)
        founds = get(source, [order for one in wanted for order in orders(body, one, settings, made_by, n_made)])
        choices = [Choice(logprobs=wanted[0].logprobs is not None) for _ in founds]
        answer = Answer(founds, choices, request.environ, PARAMS)
        heading = chunks.Heading(model_name, founds[0].fingerprint or made_by, f"cmpl-{wanted[0].id}")
        answer.accept()
        if body.stream:
            writer = Writer(answer, heading, body.include_usage, [text for text in echo for _ in range(n)])
            return streamed(answer, EventStream(answer, writer, at_once=how(founds) == "hit"), founds)
        with closing(answer):
            answer.read()
            told: list[dict[str, Any]] = []
            for i, text in enumerate(echo):
                for choice in best(choices[i * n_made : (i + 1) * n_made], n):
                    told.append(told_whole(len(told), choice, text, body.logprobs is not None))
            return whole(heading.object(KIND, told) | heading.counts(choices, n_made), founds)

    return routes


def check(body: CompletionBody, n_all: int, settings: Settings) -> None:
    """Raises ApiError 400 for what does not go together."""
    if body.best_of is not None and body.best_of < (body.n or 1):
        raise wrong("best_of", "best_of must not be less than n.")
    if body.best_of is not None and body.best_of > (body.n or 1) and body.stream:
        raise wrong("best_of", "Which answer is best is known when all are whole: best_of cannot be streamed.")
    if body.echo and body.logprobs is not None:
        raise unsupported("echo", "echo together with logprobs is not supported: chances of the prompt are not computed.")
    if n_all > settings.slots + settings.max_queue:
        raise wrong(
            "prompt", f"{n_all} answers at once are more than may wait here ({settings.slots + settings.max_queue})."
        )


def best(choices: Sequence[Choice], n: int) -> list[Choice]:
    """Those whose tokens were the likeliest on average."""
    return sorted(choices, key=_likely, reverse=True)[:n] if len(choices) > n else list(choices)


def _likely(choice: Choice) -> float:
    told = (choice.logprobs() or {"content": []})["content"]
    return sum(chance["logprob"] for chance in told) / len(told) if told else 0.0


def told_whole(index: int, choice: Choice, before: str, logprobs: bool) -> dict[str, Any]:
    """One of the choices; `before`: what it echoes."""
    chances = choice.logprobs() if logprobs else None
    return {
        "index": index,
        "text": before + choice.text,
        "logprobs": legacy(chances["content"], 0) if chances else None,
        "finish_reason": choice.finish_reason,
    }


def legacy(chances: list[dict[str, Any]], offset: int) -> dict[str, Any]:
    """Chances as this endpoint tells them; `offset`: characters of the text before the first token."""
    offsets = []
    for chance in chances:
        offsets.append(offset)
        offset += len(chance["token"])
    return {
        "tokens": [chance["token"] for chance in chances],
        "token_logprobs": [chance["logprob"] for chance in chances],
        "top_logprobs": [{t["token"]: t["logprob"] for t in [*c["top_logprobs"], c]} for c in chances],
        "text_offset": offsets,
    }


class Writer(ChunkWriter):
    """The same object again and again, each time with the next piece of text."""

    def __init__(self, answer: Answer, heading: chunks.Heading, include_usage: bool, echo: Sequence[str]) -> None:
        super().__init__(answer, heading, include_usage)
        self._echo = echo
        self._n_characters = [0] * len(echo)

    def begin(self) -> Iterator[bytes]:
        """What is echoed."""
        for i, text in enumerate(self._echo):
            if text:
                yield self._text(i, text)

    def piece(self, index: int, piece: Piece) -> bytes:
        """The next piece of a choice's text."""
        chances = legacy(piece.logprobs["content"], self._n_characters[index]) if piece.logprobs else None
        self._n_characters[index] += sum(len(token) for token in chances["tokens"]) if chances else 0
        return self._text(index, piece.delta.get("content", ""), chances)

    def end(self, index: int) -> bytes:
        """Why a choice ended."""
        return self._text(index, "", None, self._answer.choices[index].finish_reason)

    def finish(self) -> Iterator[bytes]:
        """The usage, where it is wanted."""
        if self._include_usage:
            yield chunks.sse(self._heading.object(KIND, []) | self._heading.counts(self._answer.choices))

    def _text(self, i: int, text: str, logprobs: dict[str, Any] | None = None, reason: str | None = None) -> bytes:
        choice = {"index": i, "text": text, "logprobs": logprobs, "finish_reason": reason}
        return self._sse(self._heading.object(KIND, [choice]))
