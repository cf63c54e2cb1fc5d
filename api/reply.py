"""From a client's orders to the response: found, begun and told, in a stream of events or in one piece."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

from flask import Response, request

from api.answer import Answer, leave_seat, take_seat
from api.chunks import encode
from api.errors import ApiError
from api.source import Found, Order, Source, how
from api.stream import HEADERS, EventStream, Writer

PATIENCE_S = 1.0  # for a model to be loaded; then a stream begins, and what is refused has no status of its own any more


def find(source: Source, ordered: Sequence[Order], environ: dict[str, Any] | None = None) -> list[Found]:
    """An answer for each order of the request at hand, or of whose environ it is. Raises ApiError; then none is left."""
    founds: list[Found] = []
    environ = request.environ if environ is None else environ
    seat = functools.partial(take_seat, environ)
    try:
        for i, order in enumerate(ordered):
            again = i > 0 and order is ordered[i - 1]
            founds.append((again and source.again(founds[-1])) or source.get(order, seat))
    except ApiError:
        for found in founds:
            found.events.close()
        leave_seat(environ)
        raise
    return founds


def reply(answer: Answer, founds: Sequence[Found], writer: Writer | None, whole: Callable[[], dict[str, Any]]) -> Response:
    """The response, once the engine takes the request: by the writer, or else whole. Raises ApiError, ClientGone."""
    answer.accept(PATIENCE_S if writer else float("inf"))
    if writer:
        events = EventStream(answer, writer, at_once=how(founds) == "hit")
        return Response(events, mimetype="text/event-stream", headers=HEADERS | headers(founds))
    with closing(answer):
        return Response(encode(whole()), mimetype="application/json", headers=headers(founds))


def headers(founds: Sequence[Found]) -> dict[str, str]:
    """How the answers were found; their age is that of the oldest."""
    ages = [found.age_s for found in founds if found.age_s is not None]
    age = {"Age": str(max(ages))} if how(founds) == "hit" and ages else {}
    return {"X-Linnet-Cache": how(founds)} | age
