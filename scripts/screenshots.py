"""make screenshots: the pictures of the page in docs/pictures/, taken in a real Chromium.

What the model says in them is written here: they are to show what the page can do, and to be the same each time.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from api.pool import Shelf
from models import catalog
from models.catalog import Entry
from tests.browser import QUIET, chromium
from tests.stub import END, StubServer, stub

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "pictures"
WIDE, NARROW = {"width": 1200, "height": 800}, {"width": 360, "height": 740}
PATIENCE_MS = 30_000
LETTERS = 4

QUESTION = "Why is the sum of the first n odd numbers a square? Show it in Python, too."
THOUGHTS = (
    "The k-th odd number is 2k - 1. Adding them one by one lays an L of tiles around a square, so the next square comes."
)
ANSWER = r"""The $k$-th odd number is $2k - 1$, and

$$\sum_{k=1}^{n} (2k - 1) = n^2.$$

**Each odd number is an L** that turns a square into the next larger one:

| $n$ | odd numbers | sum |
|---|---|---|
| 1 | 1 | 1 |
| 2 | 1 + 3 | 4 |
| 3 | 1 + 3 + 5 | 9 |

In Python:

```python
def sum_of_odd(n: int) -> int:
    # The next L goes around the square that is there.
    return sum(2 * k - 1 for k in range(1, n + 1))

assert all(sum_of_odd(n) == n**2 for n in range(100))
```
"""
FREE_BYTES, READ_BYTES_PER_S = 9.2e9, 15.9e9  # of the machine that the pictures show
STATUS = {  # what it has done
    "tokens_per_s": {"now": 27.4, "minutes": [0, 0, 11.2, 14.1, 13.8, 0, 0, 22.5, 27.9, 26.3, 14.2, 0, 3.1, 19.8, 27.4]},
    "cache": {"hits": 212, "misses": 391, "joined": 9, "entries": 388, "bytes": 911_360, "saved_s": 5210, "hit_rate": 0.361},
    "prefix": {"known_tokens": 214_332, "read_tokens": 98_120, "known_rate": 0.686},
    "slots": {"n": 4, "busy": 2},
    "memory": {"front_bytes": 129.7e6, "worker_bytes": 1.43e9, "available_bytes": FREE_BYTES},
    "description": "qwen2 1.5B Q4_K - Medium",
    "threads": 4,
    "engine": "llama-cpp-python 0.3.36",
    "models": [
        {
            "name": "example",
            "state": "loaded",
            "context": 4096,
            "busy": 2,
            "waiting": 0,
            "restarts": 0,
            "worker_bytes": 1.43e9,
        }
    ],
    "context": 4096,
    "answers": 612,
    "requests": 2,
    "uptime_s": 93_600,
}
OTHERS = ("Plan a week of simple dinners", "Translate a letter into French", "What does this error mean?")


def said(request: Any) -> Iterator[Any]:
    """The thoughts and the answer; something short to all other questions."""
    text = f"{THOUGHTS}\n</think>\n\n{ANSWER}" if request.messages[-1]["content"] == QUESTION else "Gladly.</think>Gladly."
    pieces = [text[at : at + LETTERS] for at in range(0, len(text), LETTERS)]
    yield from pieces
    yield replace(END, n_prompt=41, n_cached=12, n_answer=len(pieces), prompt_s=0.31, answer_s=len(pieces) / 14.2)


class Shop(Shelf):
    """The catalog, for a machine that is always the same."""

    def catalog(self, opened: object = ()) -> list[dict[str, Any]]:
        """As clients are told."""
        return [self._told(*named) for named in catalog.catalog().items()]

    def _told(self, name: str, entry: Entry) -> dict[str, Any]:
        rate, needs = READ_BYTES_PER_S / entry.bytes, 1.25 * entry.bytes
        fits = "runs well" if rate > 5 else "slow" if needs < FREE_BYTES else "does not fit"
        facts = {name: getattr(entry, name) for name in ("bytes", "parameters", "good_for", "licence", "reasoning")}
        return facts | {
            "name": name,
            "fetch": name,
            "installed": False,
            "memory_bytes": needs,
            "available_bytes": FREE_BYTES,
            "tokens_per_s": rate,
            "verdict": fits,
            "recommended": name == "r1-qwen-1.5b",
        }


def main() -> int:
    """The exit code."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        stub(said, "example", chats=Path(folder) / "chats.db", thinking="open", shelf=Shop()) as server,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium(), args=QUIET)
        for scheme in ("light", "dark"):
            for name, size in (("wide", WIDE), ("narrow", NARROW)):
                take(browser, server, scheme, name, size)
        browser.close()
    return 0


def take(browser: Browser, server: StubServer, scheme: str, name: str, size: dict[str, int]) -> None:
    """All states in one scheme and one width."""
    context = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(server.url)
    expect(page.locator("#status-facts")).not_to_be_empty()
    shoot(page, f"welcome-{name}-{scheme}")
    for question in (*OTHERS, QUESTION):
        ask(page, question)
    page.mouse.move(size["width"] / 2, size["height"] / 2)
    page.locator("main").evaluate("(main) => { main.scrollTop = 0; }")
    shoot(page, f"chat-{name}-{scheme}")
    page.locator("#open-settings").click()
    shoot(page, f"settings-{name}-{scheme}")
    page.keyboard.press("Escape")
    page.locator("#model").click()
    expect(page.locator(".model").filter(has_text="runs well").first).to_be_visible()
    shoot(page, f"models-{name}-{scheme}")
    page.route("**/status", busy)
    page.goto(f"{server.url}/status")
    expect(page.locator("#cards")).to_be_visible()
    shoot(page, f"status-{name}-{scheme}")
    context.close()


def busy(route: Route) -> None:
    """The same server at a busy time."""
    if route.request.resource_type == "document":
        route.continue_()
    else:
        route.fulfill(json=route.fetch().json() | STATUS)


def ask(page: Page, question: str) -> None:
    """In a chat of its own, to the end of the answer."""
    if page.locator(".turn").count():
        page.get_by_role("button", name="New chat", exact=True).first.click()
    page.get_by_label("Your message").fill(question)
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    expect(page.locator(".turn.assistant .facts")).to_contain_text("tokens/s")


def shoot(page: Page, name: str) -> None:
    """One picture."""
    page.screenshot(path=FOLDER / f"{name}.png")
    print(FOLDER / f"{name}.png")


if __name__ == "__main__":
    sys.exit(main())
