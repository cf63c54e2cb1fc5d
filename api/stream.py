"""An answer as server-sent events."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, Self

from api.answer import SILENCE_S, Answer, ClientGone
from api.body import Sampled
from api.choice import Piece
from api.chunks import CHUNK, DONE, Heading, comment, pattern, prompt_progress, sse, total, usage
from api.errors import ApiError, ours
from engine.request import Finished, Progress

log = logging.getLogger("linnet")
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class Writer(Protocol):
    """How one of OpenAI's endpoints writes the events of a stream."""

    done: bytes

    def begin(self) -> Iterable[bytes]: ...  # noqa: D102  # what comes before the first text
    def piece(self, index: int, piece: Piece) -> bytes: ...  # noqa: D102
    def end(self, index: int) -> bytes: ...  # noqa: D102  # of one choice
    def finish(self) -> Iterable[bytes]: ...  # noqa: D102  # when all have ended
    def progress(self, progress: Progress) -> bytes: ...  # noqa: D102
    def error(self, error: ApiError) -> bytes: ...  # noqa: D102


class EventStream:
    """The body of a streamed answer. An object with `close`, for a generator that never began closes without a word."""

    def __init__(self, answer: Answer, writer: Writer, at_once: bool = False) -> None:
        """`at_once`: the whole answer is there; in one piece it is faster for both sides."""
        self._answer = answer
        self._writer = writer
        self._events = iter([b"".join(self._generate())]) if at_once else self._generate()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        return next(self._events)

    def close(self) -> None:
        """The server calls it at the end and when the client has gone."""
        self._answer.close()

    def _generate(self) -> Iterator[bytes]:
        writer = self._writer
        try:
            silence_s = 0.0
            while not self._answer.accept(silence_s):
                yield comment("the model is being loaded" if self._answer.loads else "still here")
                silence_s = SILENCE_S
            yield from writer.begin()
            for index, what in self._answer:
                match what:
                    case Piece():
                        yield writer.piece(index, what)
                    case Finished():
                        yield writer.end(index)
                    case Progress():
                        yield writer.progress(what)
                    case None:
                        yield comment("still here")
            yield from writer.finish()
        except ApiError as error:
            yield writer.error(error)
        except ClientGone:
            return
        except Exception:  # too late for a status, but whoever reads must not wait for what will not come
            log.exception("A fault of ours in the middle of a stream")
            yield writer.error(ours())
        yield writer.done


def told(progress: Progress, n_prompt: int) -> bytes:
    """A comment for who looks at the stream itself: clients skip it, and know that the connection lives."""
    if progress.n_before or not progress.seconds:
        return comment(f"waiting, {progress.n_before} before")
    return comment(f"reading the prompt, {progress.n_read} of {n_prompt} tokens")


class ChunkWriter:
    """What the chunks of chats and of plain completions have in common."""

    done = DONE

    def __init__(self, kind: str, answer: Answer, heading: Heading, body: Sampled, n_each: int = 0) -> None:
        """`kind`: the name of the objects; so many choices share a prompt, or all (0)."""
        self._kind, self._answer, self._heading, self._n_each = kind, answer, heading, n_each
        self._include_usage, self._return_progress = body.include_usage, bool(body.return_progress)

    def finish(self) -> Iterator[bytes]:
        """The usage, where it is wanted."""
        if self._include_usage:
            end = total(self._answer.choices, self._n_each)
            yield sse(self._heading.object(self._kind, []) | {"usage": usage(end)})

    def progress(self, progress: Progress) -> bytes:
        """An event for those who know it; else a comment."""
        if not self._return_progress:
            return told(progress, self._answer.n_prompt)
        read = prompt_progress(progress, self._answer.n_prompt)
        return self._sse(self._heading.object(self._kind, []) | {"prompt_progress": read})

    def error(self, error: ApiError) -> bytes:
        """In the middle of a stream it is an event like others."""
        return sse(error.body())

    def _with_usage(self, chunk: dict[str, Any]) -> dict[str, Any]:
        return chunk | {"usage": None} if self._include_usage else chunk

    def _sse(self, chunk: dict[str, Any]) -> bytes:
        return sse(self._with_usage(chunk))


class ChatWriter(ChunkWriter):
    """Chunks of a chat completion."""

    def __init__(self, answer: Answer, heading: Heading, body: Sampled) -> None:
        super().__init__(CHUNK, answer, heading, body)
        self._texts: dict[int, Callable[[str], bytes]] = {}  # by choice

    def begin(self) -> Iterator[bytes]:
        """The role, once for each choice. The content of a call folds to null, as it is where it is told whole."""
        for i, choice in enumerate(self._answer.choices):
            content = None if choice.may_call else ""
            yield self._sse(self._heading.chunk(i, Piece({"role": "assistant", "content": content, "refusal": None})))

    def piece(self, index: int, piece: Piece) -> bytes:
        """A delta; the usual one, text alone, costs the least."""
        if piece.logprobs is None and len(piece.delta) == 1 and "content" in piece.delta:
            if index not in self._texts:
                self._texts[index] = pattern(self._with_usage(self._heading.text_chunk(index)))
            return self._texts[index](piece.delta["content"])
        return self._sse(self._heading.chunk(index, piece))

    def end(self, index: int) -> bytes:
        """Why a choice ended."""
        return self._sse(self._heading.last_chunk(index, self._answer.choices[index]))
