"""OpenAI's newer endpoint: /v1/responses, without its memory: what was said before comes with each request.

A request is a chat in other words, so it is translated into one; the answer is told as items and as typed events.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from flask import Blueprint, Response, request

from api import chunks
from api.answer import Answer
from api.body import read
from api.choice import Choice, Piece
from api.errors import ApiError
from api.items import ResponsesBody, chat_of
from api.order import chat_request, orders
from api.pool import Pool
from api.reply import find, reply
from api.stream import told
from engine.request import Progress, Trouble
from settings import Settings

PARAMS = {Trouble.CONTEXT_LENGTH: "input", Trouble.BAD_PROMPT: "input"}


def blueprint(settings: Settings, pool: Pool) -> Blueprint:
    """The route."""
    routes = Blueprint("responses", __name__)

    @routes.post("/responses")
    def responses() -> Response:
        body = read(ResponsesBody, request.get_data(cache=False))
        model = pool.get(body.model)
        chat = chat_of(body)
        try:
            wanted = chat_request(chat, settings)
        except ApiError as error:
            raise replace(error, param=own(error.param)) from error
        founds = find(model.source, orders(chat, wanted, settings, 1))
        params = PARAMS | {Trouble.BAD_SHAPE: "tools" if wanted.tools else "text"}
        answer = Answer(founds, [Choice(bool(wanted.tools))], request.environ, params)
        writer = Writer(answer, heading(body, model.name))

        def whole() -> dict[str, Any]:
            for _, what in answer:
                if isinstance(what, Piece):
                    writer.piece(0, what)
            writer.end(0)
            return writer.response()

        return reply(answer, founds, writer if body.stream else None, whole)

    return routes


def own(param: str | None) -> str | None:
    """The field that a chat's is called here."""
    for theirs, ours in (
        ("response_format.json_schema", "text.format"),
        ("response_format", "text.format"),
        (".function", ""),
    ):
        param = param and param.replace(theirs, ours)
    return param


def heading(body: ResponsesBody, model_name: str) -> dict[str, Any]:
    """All of a response but what comes of it."""
    return {
        "id": f"resp_{uuid.uuid4().hex}",
        "object": "response",
        "created_at": float(int(time.time())),
        "model": model_name,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "metadata": body.metadata or {},
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": None,
        "reasoning": {"effort": body.reasoning.effort if body.reasoning else None, "summary": None},
        "store": False,
        "temperature": body.temperature,
        "text": {"format": body.text.format.told() if body.text and body.text.format else {"type": "text"}},
        "tool_choice": body.told_tool_choice(),
        "tools": [tool.model_dump() for tool in body.tools or []],
        "top_p": body.top_p,
        "truncation": "disabled",
        "output": [],
        "usage": None,
    }


class Writer:
    """Items and their events, one item open at a time. Who wants the whole response only has no use for the events."""

    done = b""

    def __init__(self, answer: Answer, head: dict[str, Any]) -> None:
        self._answer, self._head = answer, head
        self._output: list[dict[str, Any]] = []
        self._n_events = 0
        self._is_open = False

    def begin(self) -> Iterator[bytes]:
        """That there will be one."""
        yield self._event("response.created", response=self._head)
        yield self._event("response.in_progress", response=self._head)

    def piece(self, index: int, piece: Piece) -> bytes:
        """What is new, as events of the items that it belongs to."""
        events: list[bytes] = []
        if thought := piece.delta.get("reasoning_content"):
            events += self._text("reasoning", thought)
        if said := piece.delta.get("content"):
            events += self._text("message", said)
        for call in piece.delta.get("tool_calls", []):
            events += self._call(call)
        return b"".join(events)

    def end(self, index: int) -> bytes:
        """Closes the last item; an answer that says nothing is an empty message."""
        events = self._text("message", "") if not self._output else []
        return b"".join([*events, *self._close("incomplete" if self._is_cut() else "completed")])

    def finish(self) -> Iterator[bytes]:
        """The whole response."""
        response = self.response()
        yield self._event(f"response.{response['status']}", response=response)

    def progress(self, progress: Progress) -> bytes:
        """A comment."""
        return told(progress, self._answer.n_prompt)

    def error(self, error: ApiError) -> bytes:
        """What came of it, and what went wrong."""
        failure = {"code": "server_error", "message": error.message}
        return self._event(
            "response.failed", response=self._head | {"status": "failed", "error": failure, "output": self._output}
        )

    def response(self) -> dict[str, Any]:
        """All of it, once it has ended."""
        end = chunks.total(self._answer.choices)
        cut = self._is_cut()
        usage = {
            "input_tokens": end.n_prompt,
            "input_tokens_details": {"cached_tokens": end.n_cached, "cache_write_tokens": 0},
            "output_tokens": end.n_answer,
            "output_tokens_details": {"reasoning_tokens": end.n_thought},
            "total_tokens": end.n_prompt + end.n_answer,
        }
        return self._head | {
            "status": "incomplete" if cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": self._output,
            "usage": usage,
        }

    def _is_cut(self) -> bool:
        return self._answer.choices[0].finish_reason == "length"

    def _text(self, kind: str, text: str) -> Iterator[bytes]:
        name, part = _PARTS[kind]
        if not (self._is_open and self._output[-1]["type"] == kind):
            yield from self._open(_item(kind))
            self._output[-1]["content"].append(part | {"text": ""})
            if kind == "message":
                yield self._event("response.content_part.added", **self._at(), part=part | {"text": ""})
        self._output[-1]["content"][0]["text"] += text
        if text:
            more: dict[str, Any] = {"logprobs": []} if kind == "message" else {}
            yield self._event(f"response.{name}.delta", **self._at(), delta=text, **more)

    def _call(self, call: dict[str, Any]) -> Iterator[bytes]:
        function = call["function"]
        if "id" in call:
            item = {"type": "function_call", "id": f"fc_{uuid.uuid4().hex}", "call_id": call["id"], "status": "in_progress"}
            yield from self._open(item | {"name": function["name"], "arguments": ""})
        self._output[-1]["arguments"] += function["arguments"]
        if function["arguments"]:
            at = self._at()
            del at["content_index"]
            yield self._event("response.function_call_arguments.delta", **at, delta=function["arguments"])

    def _open(self, item: dict[str, Any]) -> Iterator[bytes]:
        yield from self._close()
        self._output.append(item)
        self._is_open = True
        yield self._event("response.output_item.added", output_index=len(self._output) - 1, item=item)

    def _close(self, status: str = "completed") -> Iterator[bytes]:
        if not self._is_open:
            return
        self._is_open = False
        item, at = self._output[-1], self._at()
        item["status"] = status
        if item["type"] == "function_call":
            del at["content_index"]
            arguments = item["arguments"]
            yield self._event("response.function_call_arguments.done", **at, name=item["name"], arguments=arguments)
        else:
            name, _ = _PARTS[item["type"]]
            more: dict[str, Any] = {"logprobs": []} if item["type"] == "message" else {}
            yield self._event(f"response.{name}.done", **at, text=item["content"][0]["text"], **more)
            if item["type"] == "message":
                yield self._event("response.content_part.done", **at, part=item["content"][0])
        yield self._event("response.output_item.done", output_index=at["output_index"], item=item)

    def _at(self) -> dict[str, Any]:
        return {"item_id": self._output[-1]["id"], "output_index": len(self._output) - 1, "content_index": 0}

    def _event(self, kind: str, **fields: Any) -> bytes:
        event = {"type": kind, "sequence_number": self._n_events} | fields
        self._n_events += 1
        return f"event: {kind}\n".encode() + chunks.sse(event)


_PARTS: dict[str, tuple[str, dict[str, Any]]] = {
    "reasoning": ("reasoning_text", {"type": "reasoning_text"}),
    "message": ("output_text", {"type": "output_text", "annotations": [], "logprobs": []}),
}


def _item(kind: str) -> dict[str, Any]:
    if kind == "reasoning":
        return {"type": kind, "id": f"rs_{uuid.uuid4().hex}", "summary": [], "content": [], "status": "in_progress"}
    return {"type": kind, "id": f"msg_{uuid.uuid4().hex}", "role": "assistant", "status": "in_progress", "content": []}
