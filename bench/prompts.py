"""The tasks that speed is measured with: 80 of our own, 20 each of chat, code, summary and copy, in prompts.jsonl.

A summary brings a text of 150 to 500 words along; a copy is to be repeated with one change, which is where guessing pays.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATH = Path(__file__).with_name("prompts.jsonl")
KINDS = ("chat", "code", "summary", "copy")
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Task:
    """What is asked, and how many tokens the answer may have."""

    id: str
    kind: str
    messages: list[dict[str, str]]
    max_tokens: int

    def __post_init__(self) -> None:
        if self.kind not in KINDS or not self.id.startswith(f"{self.kind}-"):
            raise ValueError(f"{self.id}: the kind is one of {', '.join(KINDS)}, and the id begins with it.")
        if type(self.max_tokens) is not int or self.max_tokens < 1:
            raise ValueError(f"{self.id}: max_tokens is a number from 1 on.")
        if not self.messages or not all(map(_is_message, self.messages)) or self.messages[-1]["role"] != "user":
            raise ValueError(f"{self.id}: messages are a role and a text each, and the last one is the user's.")


def load(kind: str | None = None, path: Path = PATH) -> list[Task]:
    """The tasks of one kind, or all. Raises ValueError for whatever is none or stands there twice."""
    tasks = [_task(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if len({task.id for task in tasks}) < len(tasks):
        raise ValueError("Two tasks have the same id.")
    if kind not in (None, *KINDS):
        raise ValueError(f"There are no tasks of the kind {kind}.")
    return [task for task in tasks if kind in (None, task.kind)]


def named(*ids: str) -> list[Task]:
    """Those of these ids, in this order."""
    by_id = {task.id: task for task in load()}
    return [by_id[one] for one in ids]


def _task(line: str) -> Task:
    try:
        return Task(**json.loads(line))
    except TypeError as error:
        raise ValueError(f"This is no task: {line[:60]}") from error


def _is_message(message: Any) -> bool:
    if not isinstance(message, dict) or set(message) != {"role", "content"} or message["role"] not in ROLES:
        return False
    return isinstance(message["content"], str) and bool(message["content"].strip())
