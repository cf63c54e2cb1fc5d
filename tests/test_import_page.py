"""Files that are imported, and the status page, in a real Chromium."""

from __future__ import annotations

import json
import struct
import zipfile
from base64 import b64encode
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser import browser, open_page  # noqa: F401  # fixtures
from tests.stub import stub
from tests.test_transfer import CHATGPT, LLAMA

pytestmark = pytest.mark.browser
IMPORT = """async (encoded) => {
  const bytes = Uint8Array.from(atob(encoded), (letter) => letter.charCodeAt(0));
  const { importFiles } = await import("/web/transfer.js");
  return importFiles([new File([bytes], "all.zip")], () => {});
}"""


@pytest.fixture
def page(tmp_path: Path, open_page) -> Iterator[Page]:
    with stub(lambda _: ["Yes."], chats=tmp_path / "chats.db") as server:
        yield open_page(server)


def zipped(*contents: tuple[str, str]) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents:
            archive.writestr(name, content)
    return buffer.getvalue()


def says(archive: bytes, n_bytes: int) -> bytes:
    """The directory says that its first file has this size."""
    at = archive.index(b"PK\x01\x02") + 24
    return archive[:at] + struct.pack("<I", n_bytes) + archive[at + 4 :]


def take(page: Page, archive: bytes) -> tuple[Any, list[int]]:
    """What is told, and how many chats each request had."""
    sent: list[int] = []

    def note(request: Any) -> None:
        if request.url.endswith("/api/chats/import"):
            sent.append(len(request.post_data_json["items"]))

    page.on("request", note)
    told = page.evaluate(IMPORT, b64encode(archive).decode())
    page.remove_listener("request", note)
    return told, sent


def test_the_files_of_an_archive_are_sent_one_by_one_for_all_of_them_may_be_large(page):
    one, two = json.dumps([CHATGPT]), json.dumps([LLAMA, LLAMA])
    told, sent = take(page, zipped(("conversations-1.json", one), ("conversations-2.json", two)))
    assert (told, sent) == ({"n": 3, "failed": []}, [1, 2])


BOMB = zipped(("conversations.json", json.dumps([CHATGPT]) + " " * 5_000_000))


@pytest.mark.parametrize(
    ("archive", "words"),
    [
        (says(BOMB, 600_000_000), "It is too large (600.0 MB)."),
        (says(BOMB, 1000), "This zip file is not whole."),  # a directory that makes it small is held to what it says
        (BOMB[:40] + b"\xff" * 400 + BOMB[440:], "This zip file is not whole."),
        (BOMB[:1000] + BOMB[2000:], "This zip file is not whole."),
        (BOMB[:-30], "This zip file is not whole."),
        (zipped(("readme.txt", "x")), "There are no chats in it."),
    ],
)
def test_an_archive_that_would_fill_the_memory_or_is_broken_is_refused_in_words(page, archive, words):
    told, sent = take(page, archive)
    assert (told, sent) == ({"n": 0, "failed": [{"name": "all.zip", "message": words}]}, [])


def test_the_status_page_without_a_session_says_that_a_key_is_needed_and_leads_to_where_it_is_asked_for(browser):
    with stub(lambda _: ["Yes."], api_key="secret") as server, browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{server.url}/status")
        state = page.locator("#state")
        expect(state).to_have_text("An API key is needed: the chat page asks for it.")
        expect(page.locator("#cards")).to_be_hidden()
        expect(state.get_by_role("link")).to_have_attribute("href", "/")
        context.request.post(f"{server.url}/api/session", data={"key": "secret"})
        page.reload()
        expect(state).to_have_text("All is well.")
        expect(page.locator("#slots span")).to_have_count(4)


def test_the_status_page_looks_again_within_two_seconds_also_when_nothing_runs(open_page):
    with stub(lambda _: ["Yes."]) as server:
        page: Page = open_page(server)
        page.clock.install()
        page.goto(f"{server.url}/status")
        expect(page.locator("#state")).to_have_text("All is well.")
        with page.expect_response("**/status"):
            page.clock.fast_forward(2000)
