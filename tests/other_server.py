"""A server of somebody else, as the comparison with others sees it. Needs nothing but Python: programs start it, too."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["Handler", "ThreadingHTTPServer"]


class Handler(BaseHTTPRequestHandler):
    """Says numbers, one a token."""

    bodies: list[dict[str, Any]] = []
    n_more = 0  # tokens beyond those it was asked for
    counts = True
    n_good, odd = 10**6, ""  # after so many answers it says this instead

    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.bodies.append(body)
        n_tokens = body["max_tokens"] + self.n_more
        self.send_response(200)
        self.end_headers()
        if len(self.bodies) > self.n_good:
            self.wfile.write(f"data: {self.odd}\n\n".encode())
            return
        for i in range(n_tokens):
            self.chunk(choices=[{"delta": {"content": f"{i} "}, "finish_reason": None}])
        self.chunk(choices=[{"delta": {}, "finish_reason": "length"}])
        if self.counts:
            self.chunk(choices=[], usage={"completion_tokens": n_tokens, "prompt_tokens": 7})

    def chunk(self, **fields):
        self.wfile.write(f"data: {json.dumps(fields)}\n\n".encode())

    def log_message(self, *arguments):
        pass
