"""Waitress as we use it: one process, many threads, and its own refusals in OpenAI's shape too."""

from __future__ import annotations

import json
import socket
import time

import waitress
from flask import Flask
from waitress.channel import HTTPChannel
from waitress.server import BaseWSGIServer
from waitress.task import ErrorTask

from api.app import LARGEST_BODY_BYTES
from api.errors import from_http_status
from api.runs import MOST_READERS

SPARE_THREADS = (
    8 + MOST_READERS
)  # for those who read answers of chats, for the page, /health and those told to come back later
CONNECTIONS = 1000
FLUSH_S = 1.0  # for the last events to reach their clients


class Refusal(ErrorTask):  # type: ignore[misc]  # waitress has no types
    """What waitress refuses before the application sees it: a body far too large, headers that are none."""

    def execute(self) -> None:
        """Writes the answer and ends the connection."""
        error = self.request.error
        body = json.dumps(from_http_status(error.code, f"{error.reason}: {error.body}").body()).encode()
        self.status = f"{error.code} {error.reason}"
        self.response_headers.append(("Content-Type", "application/json"))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class Channel(HTTPChannel):  # type: ignore[misc]
    """A connection."""

    error_task_class = Refusal


def create_server(app: Flask, listener: socket.socket, n_requests: int) -> BaseWSGIServer:
    """A server for so many requests at once; `run` serves until the process ends."""
    server = waitress.create_server(
        app,
        sockets=[listener],
        threads=n_requests + SPARE_THREADS,
        connection_limit=CONNECTIONS,
        channel_timeout=60,
        channel_request_lookahead=5,  # keeps reading while an answer is made: that is how a vanished client is noticed
        max_request_body_size=2 * LARGEST_BODY_BYTES,  # beyond that not even read; up to it the application answers
        asyncore_use_poll=True,  # select() fails for good once a file's number reaches 1,024
        clear_untrusted_proxy_headers=True,
        ident="linnet",
    )
    server.channel_class = Channel
    return server


def flush(server: BaseWSGIServer) -> None:
    """Gives the last events a moment to reach their clients."""
    server.task_dispatcher.shutdown(timeout=FLUSH_S)
    deadline = time.monotonic() + FLUSH_S
    while time.monotonic() < deadline and any(c.total_outbufs_len for c in list(server.active_channels.values())):
        time.sleep(0.01)
