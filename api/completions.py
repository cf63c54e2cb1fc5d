"""OpenAI's older endpoint: /v1/completions, which goes on from a text as it is, without a chat template."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from typing import Any

from flask import Blueprint, Response, request

from api import chunks, texts
from api.answer import Answer
from api.body import CompletionBody, read
from api.choice import Choice, Piece
from api.errors import unsupported, wrong
from api.openai import check_options
from api.order import completion_request, orders
from api.pool import Pool
from api.reply import find, reply
from api.stream import ChunkWriter
from engine.request import Trouble
from settings import Settings

KIND = "text_completion"
PARAMS = dict.fromkeys((Trouble.CONTEXT_LENGTH, Trouble.BAD_PROMPT, Trouble.BAD_TOKENS), "prompt") | {
    Trouble.BAD_BIAS: "logit_bias",
    Trouble.BAD_SHAPE: "grammar",
}


def blueprint(settings: Settings, pool: Pool) -> Blueprint:
    """The route."""
    routes = Blueprint("completions", __name__)

    @routes.post("/completions")
    def completions() -> Response:
        body = read(CompletionBody, request.get_data(cache=False))
        prompts = texts.listed(body.prompt)
        n, n_made = body.n or 1, max(body.n or 1, body.best_of or 1)
        check_options(body, len(prompts) * n_made, settings)
        check(body)
        model = pool.get(body.model)
        wanted = [completion_request(body, prompt, settings) for prompt in prompts]
        echo = texts.spelled(model.working(), prompts, "prompt") if body.echo else [""] * len(prompts)
        ordered = [order for one in wanted for order in orders(body, one, settings, n_made)]
        founds = find(model.source, ordered)
        choices = [Choice(logprobs=wanted[0].logprobs is not None) for _ in founds]
        answer = Answer(founds, choices, request.environ, PARAMS)
        heading = chunks.Heading(model.name, founds[0].fingerprint, f"cmpl-{wanted[0].id}")

        def whole() -> dict[str, Any]:
            answer.read()
            told: list[dict[str, Any]] = []
            for i, text in enumerate(echo):
                for choice in best(choices[i * n_made : (i + 1) * n_made], n):
                    told.append(told_whole(len(told), choice, text, body.logprobs is not None))
            return heading.object(KIND, told) | heading.counts(choices, n_made)

        return reply(answer, founds, Writer(answer, heading, body, echo) if body.stream else None, whole)

    return routes


def check(body: CompletionBody) -> None:
    """Raises ApiError 400 for what does not go together."""
    if body.best_of is not None and body.best_of < (body.n or 1):
        raise wrong("best_of", "best_of must not be less than n.")
    if body.best_of is not None and body.best_of > (body.n or 1) and body.stream:
        raise wrong("best_of", "Which answer is best is known when all are whole: best_of cannot be streamed.")
    if body.echo and body.logprobs is not None:
        raise unsupported("echo", "echo together with logprobs is not supported: chances of the prompt are not computed.")


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
        "logprobs": Legacy().push(chances["content"]) if chances else None,
        "finish_reason": choice.finish_reason,
    }


class Legacy:
    """Chances as this endpoint tells them. `n_before`: characters of the text before the first token."""

    def __init__(self, n_before: int = 0) -> None:
        self._n = n_before
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, chances: list[dict[str, Any]]) -> dict[str, Any]:
        """Of the next tokens. One that is a part of a character begins where the character does."""
        offsets = []
        for chance in chances:
            offsets.append(self._n)
            self._n += len(self._decoder.decode(bytes(chance["bytes"])))
        return {
            "tokens": [spelled(chance) for chance in chances],
            "token_logprobs": [chance["logprob"] for chance in chances],
            "top_logprobs": [{spelled(t): t["logprob"] for t in [*c["top_logprobs"], c]} for c in chances],
            "text_offset": offsets,
        }


def spelled(chance: dict[str, Any]) -> str:
    """A token as text; as OpenAI's bytes, where it is none by itself."""
    data = bytes(chance["bytes"])
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


class Writer(ChunkWriter):
    """The same object again and again, each time with the next piece of text."""

    def __init__(self, answer: Answer, heading: chunks.Heading, body: CompletionBody, echo: Sequence[str]) -> None:
        """`echo`: of each prompt, what comes first."""
        n = len(answer.choices) // len(echo)
        super().__init__(KIND, answer, heading, body, n)
        self._echo = [text for text in echo for _ in range(n)]
        self._legacy = [Legacy() for _ in answer.choices]

    def begin(self) -> Iterator[bytes]:
        """What is echoed."""
        for i, text in enumerate(self._echo):
            if text:
                yield self._sse(self._object(i, text))

    def piece(self, index: int, piece: Piece) -> bytes:
        """The next piece of a choice's text."""
        chances = self._legacy[index].push(piece.logprobs["content"]) if piece.logprobs else None
        return self._sse(self._object(index, piece.delta.get("content", ""), chances))

    def end(self, index: int) -> bytes:
        """Why a choice ended."""
        choice = self._answer.choices[index]
        told = self._object(index, "", None, choice.finish_reason)
        return self._sse(told | {"timings": chunks.timings(chunks.total([choice]))})

    def _object(
        self, i: int, text: str, logprobs: dict[str, Any] | None = None, reason: str | None = None
    ) -> dict[str, Any]:
        choice = {"index": i, "text": text, "logprobs": logprobs, "finish_reason": reason}
        return self._heading.object(KIND, [choice])
