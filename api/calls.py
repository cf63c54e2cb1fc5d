"""Calls of functions in an answer's text, as they are written (see engine.tools) and as OpenAI's API tells them.

Text goes in piece by piece; out come what is no call, and pieces of calls whose arguments are streamed as they are
written. What begins like a call and turns out to be none is text.
"""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

from engine.text import n_overlap
from engine.tools import CALL, CALL_END

HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*(?=\{)')


class Calls:
    """The calls of one answer. `push` and `finish` return text and the entries of a delta's `tool_calls`."""

    def __init__(self) -> None:
        self.n = 0
        self._held = ""  # may be the beginning of a call, or space before one
        self._inside = False  # between CALL and CALL_END
        self._space = ""  # before the CALL: dropped when it is one
        self._named = False  # and its name was told: what follows are its arguments, then nothing
        self._depth = 0  # of brackets in the arguments; 0: not in them
        self._quoted = False
        self._escaped = False

    def push(self, text: str) -> tuple[str, list[dict[str, Any]]]:
        """Takes the next piece of the answer."""
        self._held += text
        said, entries = "", []
        while True:
            before = (len(self._held), self._inside, self._depth)
            if self._depth:
                entries.append(self._entry(self._arguments()))
            elif self._inside:
                more, entry = self._call()
                said += more
                entries += entry
            else:
                said += self._outside()
            if (len(self._held), self._inside, self._depth) == before or not self._held:
                return said, _joined(entries)

    def finish(self) -> str:
        """What was held back and is no call."""
        held, self._held = self._held, ""
        if self._inside and self._named:
            return ""  # it was cut off, and its arguments with it
        return (self._space + CALL if self._inside else "") + (held if not self.n or held.strip() else "")

    def _outside(self) -> str:
        said, tag, rest = self._held.partition(CALL)
        if tag:
            self._inside, self._named, self._held = True, False, rest
            shown = said.rstrip()
            self._space = said[len(shown) :]
            return shown
        shown = said[: len(said) - n_overlap(said, CALL)].rstrip()
        self._held = said[len(shown) :]
        return shown

    def _call(self) -> tuple[str, list[dict[str, Any]]]:
        """Between the tags, but not in arguments that are being streamed."""
        if not self._named and (head := HEAD.match(self._held)) and (name := _text(head[1])) is not None:
            self._held = self._held[head.end() :]
            self._named = True
            entry = self._begin(name)
            entry["function"]["arguments"] = self._arguments()
            return "", [entry]
        block, tag, rest = self._held.partition(CALL_END)
        if not tag:
            return "", []
        self._inside, self._held = False, rest
        if self._named:
            return "", []
        try:
            call = json.loads(block)
            name, arguments = call["name"], call.get("arguments", call.get("parameters", {}))
        except (ValueError, TypeError, KeyError, AttributeError):
            name = None
        if not isinstance(name, str):
            return self._space + CALL + block + CALL_END, []
        entry = self._begin(name)
        entry["function"]["arguments"] = arguments if isinstance(arguments, str) else json.dumps(arguments)
        return "", [entry]

    def _begin(self, name: str) -> dict[str, Any]:
        self.n += 1
        function = {"name": name, "arguments": ""}
        return {"index": self.n - 1, "id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}

    def _entry(self, arguments: str) -> dict[str, Any]:
        return {"index": self.n - 1, "function": {"arguments": arguments}}

    def _arguments(self) -> str:
        """Takes from what is held all that belongs to the arguments' object."""
        for at, c in enumerate(self._held):
            if self._escaped:
                self._escaped = False
            elif self._quoted and c == "\\":
                self._escaped = True
            elif c == '"':
                self._quoted = not self._quoted
            elif c in "{}" and not self._quoted:
                self._depth += 1 if c == "{" else -1
                if self._depth == 0:
                    taken, self._held = self._held[: at + 1], self._held[at + 1 :]
                    return taken
        taken, self._held = self._held, ""
        return taken


def _text(spelled: str) -> str | None:
    """Of a JSON string; None: it is none."""
    try:
        return str(json.loads(spelled))
    except ValueError:
        return None


def _joined(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry for each call: some clients take only one of a delta."""
    calls: dict[int, dict[str, Any]] = {}
    for entry in entries:
        if entry["index"] in calls:
            calls[entry["index"]]["function"]["arguments"] += entry["function"]["arguments"]
        elif entry["function"].get("name") is not None or entry["function"]["arguments"]:
            calls[entry["index"]] = entry
    return list(calls.values())
