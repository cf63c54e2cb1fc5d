"""A real Chromium for the tests of the page, and what is done in it again and again."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from bench.browser import QUIET as QUIET  # the pictures of the page are taken with the same browser
from bench.browser import chromium as chromium
from tests.conftest import PATIENCE_S, Server
from tests.stub import StubServer, stub

Open = Callable[..., Page]
DROP = """([on, name, text]) => {
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([text], name));
  document.querySelector(on).dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
}"""
POLL = "import('/web/poll.js').then(({ pollNow }) => pollNow())"  # looks at the server at once


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium. Without one the tests are skipped; on CI that is a failure."""
    path = chromium()
    if not path:
        assert not os.environ.get("CI"), "no Chromium: the page was not tested"
        pytest.skip("no Chromium is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Opens a server's page; afterwards nothing may have gone wrong in it, nor any request elsewhere."""
    pages, faults = [], []

    def open_page(server: Server, **options) -> Page:
        page = browser.new_context(**options).new_page()
        page.set_default_timeout(PATIENCE_S * 1000)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda r: faults.append(r.url) if not r.url.startswith(server.url) else None)
        page.goto(server.url)
        pages.append(page)
        return page

    expect.set_options(timeout=PATIENCE_S * 1000)
    yield open_page
    for page in pages:
        page.context.close()
    assert faults == []


@pytest.fixture
def endless(endless_model) -> Iterator[Server]:
    """A server whose answers go on until somebody stops them."""
    server = Server("--ctx", "50000", "--keep-loops", "--no-draft", model=endless_model)
    yield server
    server.end(signal.SIGKILL)


def ask(page: Page, text: str) -> None:
    page.get_by_label("Your message").fill(text)
    page.keyboard.press("Enter")


def answers(page: Page):
    return page.locator(".turn.assistant")


@pytest.fixture
def serve() -> Iterator[Callable[..., StubServer]]:
    """Serves what a script tells until the test and its pages have ended: it must stand before `open_page`."""
    with contextlib.ExitStack() as stack:
        yield lambda script, **options: stack.enter_context(stub(script, **options))


def ended(page: Page, n: int = 1) -> None:
    """Until so many answers are shown and none is being made."""
    expect(answers(page)).to_have_count(n)
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    expect(answers(page).last.get_by_role("button", name="Delete answer")).to_be_attached()


def do(page: Page, name: str) -> None:
    """The last of the buttons of this name."""
    page.get_by_role("button", name=name, exact=True).last.click()


def last_text(page: Page):
    return answers(page).last.locator(".text")


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[StubServer]:
    """A server that keeps chats and answers at once."""
    with stub(lambda _: ["Yes."], chats=tmp_path / "chats.db") as server:
        yield server


def begin(page: Page, text: str) -> None:
    """A chat in which this was asked."""
    page.get_by_role("button", name="New chat", exact=True).click()
    ask(page, text)
    expect(answers(page).last.get_by_role("button", name="Delete answer")).to_be_attached()
    expect(rows(page).filter(has_text=text)).to_have_count(1)


def rows(page: Page):
    return page.locator("#chat-list li")


def link(page: Page, name: str):
    return page.locator("#chat-list").get_by_role("link", name=name)


def file(name: str, content: bytes | str) -> dict[str, Any]:
    return {"name": name, "mimeType": "", "buffer": content.encode() if isinstance(content, str) else content}


# The ratio of the luminances of text and ground, as WCAG defines it.
CONTRAST = """() => {
  const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const luminance = (color) => {
    const [r, g, b] = color.match(/[\\d.]+/g).map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const { color, backgroundColor } = getComputedStyle(document.body);
  const [a, b] = [luminance(color), luminance(backgroundColor)].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
}"""
