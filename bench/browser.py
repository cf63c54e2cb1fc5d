"""How the chat page feels, by the browser's own clocks: its first paint, keys while an answer streams, typing ahead.

    python -m bench.browser MODEL.gguf [paint keys typed]     the last line is JSON

It needs Chromium and what `make test` installs. `keys`: 4,000 tokens of Markdown at 200 tokens/s while somebody types.
`typed`: a question of some 500 tokens, written at four words a second and sent with the last word, against the same kind
of question pasted and sent at once: time to the first text.
"""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import BrowserContext, Page, sync_playwright

from bench import parts, stream

QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
QUIET += ["--disable-component-update", "--disable-sync"]
N_LOADS = 9
N_TURNS = 3
N_TOKENS, LETTERS, TOKENS_PER_S = 4000, 4, 200.0
KEY_EVERY_MS = 90.0
N_WORDS, WORDS_PER_S, WORDS_AT_ONCE = 88, 4.0, 4
PATIENCE_MS = 120_000.0

READY = "#status-facts:not(:empty)"  # all of the page's scripts have run, and the server has answered them
BARE = "/health"
FIRST_PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
WATCH_KEYS = """() => {
  window.keys = [];
  const take = (list) => list.getEntries().forEach((e) => e.name === "keydown" && window.keys.push(e));
  new PerformanceObserver(take).observe({ type: "event", durationThreshold: 16 });
}"""
SLOW_KEYS = "window.keys.map(({ startTime, processingStart, duration }) => [processingStart - startTime, duration])"
WATCH_TEXT = """() => {
  window.sent = window.first = null;
  const box = document.getElementById("question");
  box.addEventListener("keydown", ({ key, timeStamp }) => key === "Enter" && (window.sent = timeStamp), true);
  new MutationObserver(() => {
    const text = [...document.querySelectorAll(".turn.assistant .text")].at(-1)?.textContent;
    if (window.sent !== null && window.first === null && text) window.first = performance.now();
  }).observe(document.getElementById("turns"), { subtree: true, childList: true, characterData: true });
}"""


def chromium() -> str | None:
    """The program, if there is one."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextmanager
def browser_page(url: str) -> Iterator[Page]:
    """The page in a fresh Chromium."""
    program = chromium()
    if not program:
        raise RuntimeError("No Chromium is installed.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=QUIET)
        page = browser.new_context(viewport={"width": 1200, "height": 800}).new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(url)
        page.locator(READY).wait_for()
        yield page
        browser.close()


def paint(model: str) -> dict[str, float]:
    """Median milliseconds to the first paint: of a reload, of a new tab, and of a visitor who was never there before.

    The last two begin with a process of the browser: `bare_ms` is what a new tab needs for one line of text.
    """
    times: dict[str, list[float]] = {"reload_ms": [], "new_tab_ms": [], "new_visitor_ms": [], "bare_ms": []}
    with (
        tempfile.TemporaryDirectory() as folder,
        stream.linnet(model, *options(folder)) as url,
        browser_page(url) as page,
    ):
        assert page.context.browser
        for _ in range(N_LOADS):
            page.reload()
            page.locator(READY).wait_for()
            times["reload_ms"].append(first_paint(page))
            times["new_tab_ms"].append(opened(page.context, url))
            visitor = page.context.browser.new_context()
            times["new_visitor_ms"].append(opened(visitor, url))
            times["bare_ms"].append(opened(visitor, url + BARE, "pre"))
            visitor.close()
    return {name: statistics.median(all_of_them) for name, all_of_them in times.items()}


def opened(context: BrowserContext, url: str, ready: str = READY) -> float:
    """Milliseconds to the first paint in a new tab."""
    page = context.new_page()
    page.goto(url)
    page.locator(ready).wait_for()
    paint_ms = first_paint(page)
    page.close()
    return paint_ms


def first_paint(page: Page) -> float:
    """Milliseconds since the load began."""
    return float(page.evaluate(FIRST_PAINT))


def keys(_: str) -> dict[str, float]:
    """The longest delay of a key, and the longest time until it was painted, while an answer streams."""
    text = "\n\n".join(path.read_text() for path in sorted((stream.ROOT / "docs").glob("*.md")))[: N_TOKENS * LETTERS]
    with tempfile.NamedTemporaryFile("w", suffix=".md") as file:
        file.write(text)
        file.flush()
        command = [sys.executable, "-m", "tests.stub", file.name, str(TOKENS_PER_S)]
        process = subprocess.Popen(command, cwd=stream.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdin and process.stdout
        with process, browser_page(process.stdout.readline().strip()) as page:
            page.evaluate(WATCH_KEYS)
            page.get_by_label("Your message").fill("Tell me all of it.")
            page.keyboard.press("Enter")
            page.locator(".turn.assistant .text").filter(has_text="a").wait_for()
            n_keys, began = 0, time.perf_counter()
            while page.get_by_role("button", name="Stop").is_visible():
                page.keyboard.press("abcdefghij "[n_keys % 11])
                n_keys += 1
                page.wait_for_timeout(KEY_EVERY_MS)
            seconds = time.perf_counter() - began
            slow = page.evaluate(SLOW_KEYS)
            n_shown = len(page.locator(".turn.assistant .text").inner_text())
            process.stdin.close()
    delays, durations = ([pair[i] for pair in slow] or [0.0] for i in (0, 1))
    figures = {"n_keys": n_keys, "seconds": seconds, "letters_shown": n_shown}
    return figures | {"longest_delay_ms": max(delays), "longest_until_painted_ms": max(durations)}


def typed(model: str) -> dict[str, float]:
    """Seconds to the first text of a question typed and of one pasted, by turns; and their ratio."""
    pairs = []
    with (
        tempfile.TemporaryDirectory() as folder,
        stream.linnet(model, *options(folder), "--no-draft") as url,
        browser_page(url) as page,
    ):
        for _ in range(N_TURNS):
            pairs.append((first_text(page, in_words), first_text(page, at_once)))
    written, pasted = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratios = [a / b for a, b in pairs]
    figures = {"typed_s": written, "pasted_s": pasted, "ratio": statistics.median(ratios)}
    return figures | {"ratio_low": min(ratios), "ratio_high": max(ratios)}


def first_text(page: Page, write: Callable[[Page, list[str]], None]) -> float:
    """Seconds from Enter to the first text of the answer, in a new chat."""
    page.reload()
    page.goto(page.url.partition("#")[0])
    page.locator(READY).wait_for()
    page.get_by_role("button", name="New chat", exact=True).first.click()
    page.evaluate(WATCH_TEXT)
    page.get_by_label("Your message").focus()
    write(page, stream.text(N_WORDS, time.time_ns()).split())
    page.keyboard.press("Enter")
    page.locator(".turn.assistant .text").filter(has_text=re.compile(".")).wait_for()
    seconds = float(page.evaluate("window.first - window.sent")) / 1000
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Send").wait_for()
    return seconds


def in_words(page: Page, words: list[str]) -> None:
    """As somebody types who stops for a moment now and then."""
    for i in range(0, len(words), WORDS_AT_ONCE):
        page.keyboard.insert_text(" ".join(words[i : i + WORDS_AT_ONCE]) + " ")
        page.wait_for_timeout(1000 * WORDS_AT_ONCE / WORDS_PER_S)


def at_once(page: Page, words: list[str]) -> None:
    """As it is pasted."""
    page.keyboard.insert_text(" ".join(words))


def options(folder: str) -> tuple[str, ...]:
    """Of a server that leaves nothing behind."""
    return ("--cache-dir", folder, "--chats", str(Path(folder) / "chats.db"))


PARTS: parts.Parts = {"paint": paint, "keys": keys, "typed": typed}


if __name__ == "__main__":
    sys.exit(parts.run(PARTS, __doc__, sys.argv[1:]))
