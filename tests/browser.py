"""A real Chromium for the tests of the page, and what is done in it again and again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from bench.browser import QUIET as QUIET  # the pictures of the page are taken with the same browser
from bench.browser import chromium as chromium
from tests.conftest import PATIENCE_S, Server

Open = Callable[..., Page]
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
