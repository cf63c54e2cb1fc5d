"""The composer in a real Chromium: drafts, files, and reading ahead of what is typed."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from engine.request import Finished, Request, Want
from tests.browser import (  # noqa: F401  # fixtures among them
    DROP,
    POLL,
    answers,
    ask,
    begin,
    browser,
    do,
    ended,
    file,
    kept,
    last_text,
    link,
    open_page,
    rows,
    serve,
)
from tests.conftest import DEMO
from tests.rig import ask as engine_ask
from tests.rig import load, rigs
from tests.stub import stub

pytestmark = pytest.mark.browser


@contextlib.contextmanager
def held(page: Page, what: str) -> Iterator[list[Route]]:
    """The requests of this kind that are made in the block; they wait until its end, if they are not answered before."""
    routes: list[Route] = []
    page.route(what, lambda route: routes.append(route))
    yield routes
    for route in routes:
        route.continue_()
    page.unroute(what)


def test_text_files_are_attached_counted_removed_and_sent(server, open_page):
    page = open_page(server)
    chips = page.locator("#files-list li")
    given = [file("a.txt", "one two three"), file("b.py", "x = 1\n"), file("c.bin", b"a\0b"), file("d.txt", b"\xff\xfe")]
    page.locator("#attach-files").set_input_files([*given, file("e.txt", "x" * 1_000_001)])
    expect(chips).to_have_text([re.compile(r"^a\.txt\d+ tokens"), re.compile(r"^b\.py\d+ tokens")])
    said = page.locator("#files-said")
    expect(said).to_have_text("c.bin is not a text. d.txt is not a text. e.txt is larger than 1.0 MB.")
    page.get_by_role("button", name="Remove b.py").click()
    expect(chips).to_have_count(1)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    for text in ("short", "long " * 500):
        page.evaluate("text => navigator.clipboard.writeText(text)", text)
        page.keyboard.press("Control+v")
    expect(chips).to_have_count(2)
    expect(page.get_by_label("Your message")).to_have_value("short")
    page.get_by_role("button", name="Insert as text").click()
    expect(page.get_by_label("Your message")).to_have_value(re.compile("^shortlong long"))
    page.evaluate(DROP, ["body", "f.md", "```\ncode\n```"])
    expect(chips).to_have_count(2)
    page.get_by_label("Your message").fill("What is in it?")
    with page.expect_request("**/chat/completions") as sent:
        page.keyboard.press("Enter")
    assert "f.md:\n````\n```\ncode\n```\n````" in sent.value.post_data_json["messages"][-1]["content"]
    expect(page.locator(".user .file summary")).to_have_text(["a.txt", "f.md"])
    expect(chips).to_have_count(0)


def test_each_chat_has_its_own_draft_that_a_reload_keeps_but_not_a_private_one(kept, open_page):
    page = open_page(kept)
    box = page.get_by_label("Your message")
    begin(page, "one")
    expect(box).to_have_value("")
    box.fill("draft of one")
    page.locator("#attach-files").set_input_files([file("a.txt", "one")])
    page.get_by_role("button", name="New chat", exact=True).click()
    expect(box).to_have_value("")
    box.fill("of a new one")
    link(page, "one").click()
    expect(box).to_have_value("draft of one")
    page.reload()
    expect(box).to_have_value("draft of one")
    expect(page.locator("#files-list li")).to_have_count(1)
    page.keyboard.press("Alt+p")
    expect(box).to_have_value("")
    with page.expect_request("**/api/prefill") as ahead:
        box.fill("a secret of more than 20 letters")
    assert ahead.value.post_data_json["private"] is True
    assert "secret" not in page.evaluate("JSON.stringify({ ...sessionStorage, ...localStorage })")
    page.keyboard.press("Control+Shift+O")
    expect(box).to_have_value("of a new one")


def test_what_could_not_be_sent_is_not_lost_and_leaves_no_chat_behind(kept, open_page):
    page = open_page(kept)
    box = page.get_by_label("Your message")
    begin(page, "one")
    box.fill("draft of one")
    page.route("**/messages", lambda route: route.fulfill(status=413, body="{}"))
    page.get_by_role("button", name="New chat", exact=True).click()
    ask(page, "too long")
    expect(answers(page).get_by_role("alert")).to_have_text("The server answered with status 413.")
    box.fill("of a new one")
    link(page, "one").click()
    expect(box).to_have_value("draft of one")
    expect(rows(page)).to_have_count(1)


def test_a_question_that_is_asked_while_an_answer_is_being_found_again_stays_a_draft(serve, tmp_path, open_page):
    may_end = threading.Event()

    def script(request: Request) -> Iterator[str]:
        yield "Yes, "
        assert may_end.wait(60)

    page = open_page(serve(script, chats=tmp_path / "chats.db"))
    ask(page, "one")
    expect(last_text(page)).to_have_text("Yes,")
    box = page.get_by_label("Your message")
    with held(page, "**/api/chats/chat_*"):
        with page.expect_request("**/api/chats/chat_*"):
            page.reload()
        ask(page, "two")
        page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    expect(box).to_have_value("two")
    may_end.set()
    ended(page)
    box.press("Enter")
    ended(page, 2)


def test_what_was_not_sent_or_was_attached_meanwhile_is_a_draft_of_its_chat(kept, open_page):
    page = open_page(kept)
    box, chips = page.get_by_label("Your message"), page.locator("#files-list li")
    a, b = (file(name, "text") for name in ("a.txt", "b.txt"))
    with held(page, "**/api/chats"):
        with page.expect_request("**/api/chats"):
            ask(page, "one")
        page.locator("#attach-files").set_input_files([a])
        expect(chips).to_have_count(1)
    ended(page)
    do(page, "New chat")
    expect(chips).to_have_count(0)
    page.route("**/messages", lambda route: route.fulfill(status=413, body="{}"))
    page.locator("#attach-files").set_input_files([b])
    expect(chips).to_have_text([re.compile("b.txt")])
    ask(page, "too long")
    expect(answers(page).get_by_role("alert")).to_have_text("The server answered with status 413.")
    box.fill("of a new one")
    link(page, "one").click()
    expect(last_text(page)).to_have_text("Yes.")
    expect(chips).to_have_text([re.compile("a.txt")])
    do(page, "New chat")
    expect(box).to_have_value("too long\n\nof a new one")
    expect(chips).to_have_text([re.compile("b.txt")])


def test_while_a_chat_is_fetched_nothing_is_done_to_another(kept, open_page):
    page = open_page(kept)
    box, text = page.get_by_label("Your message"), page.locator(".user .text")
    for question in ("one", "two"):
        do(page, "New chat")
        ask(page, question)
        ended(page)
    one, two = link(page, "one"), link(page, "two")
    path = f"**/api/chats/{one.get_attribute('href')[1:]}"
    n_asked = len(kept.engine.requests)
    with held(page, path):
        one.click()
        page.keyboard.press("Alt+r")
        box.fill("of one")
    expect(text).to_have_text("one")
    expect(box).to_have_value("of one")
    assert len(kept.engine.requests) == n_asked
    two.click()
    expect(text).to_have_text("two")
    expect(box).to_have_value("")
    with held(page, path) as routes:
        with page.expect_request(path):
            one.click()
        two.click()
        expect(text).to_have_text("two")
        with page.expect_response(path):
            routes.pop().fulfill(status=404, body="{}")
        page.evaluate(POLL)  # by its end the page knows that one is gone
        expect(text).to_have_text("two")
        expect(page.locator("#note")).to_be_empty()


def test_what_is_written_in_a_chat_that_is_gone_or_left_too_soon_is_not_lost(kept, open_page):
    page = open_page(kept)
    box, note = page.get_by_label("Your message"), page.locator("#note")
    for written in ("sent", "a draft"):
        ask(page, "one")
        ended(page)
        page.evaluate(POLL)
        with held(page, "**/status"):
            page.request.delete(f"{kept.url}/api/chats/{page.url.split('#')[1]}")  # as from another tab
            box.fill(written)
            if written == "sent":
                page.keyboard.press("Enter")
                expect(answers(page).last.get_by_role("alert")).to_be_visible()
        page.evaluate(POLL)
        expect(note).to_have_text("That chat is no longer there.")
        expect(box).to_have_value(written)
        expect(page.locator(".turn")).to_have_count(0)
    ask(page, "one")
    ended(page)
    page.route("**/messages", lambda route: routes.append(route))
    routes: list[Route] = []
    with page.expect_request("**/messages"):
        ask(page, "two")
    do(page, "New chat")
    routes[0].abort()
    expect(note).to_have_text("Not sent: two")


class Ahead:
    """The requests to read ahead that a server was sent."""

    def __init__(self, page: Page) -> None:
        self.bodies: list[Any] = []

        def keep(request: Any) -> None:
            if request.url.endswith("/api/prefill"):
                self.bodies.append(request.post_data_json)

        page.on("request", keep)


def test_a_draft_is_read_ahead_and_the_answer_then_reads_hardly_anything(server, open_page):
    page = open_page(server)
    box = page.get_by_label("Your message")
    question = "Please tell me in a few words what the capital of France is and why " * 8
    for text in (question[:-30], question):
        with page.expect_response("**/api/prefill") as response:
            box.fill(text)
        told = response.value.json()
        assert told["complete"]
    read = told["usage"]["prompt_tokens"]
    assert told["usage"]["prompt_tokens_details"]["cached_tokens"] > read * 0.8  # more was typed: only that is read
    page.keyboard.press("Enter")
    expect(answers(page).locator(".facts")).to_contain_text(f"prompt {read}, {read - 1} remembered")


def test_nothing_is_read_ahead_that_is_short_or_not_wanted_or_while_an_answer_runs(tmp_path, open_page):
    may_end = threading.Event()

    def script(request: Request) -> Iterator[str]:
        if not request.background and request.want is Want.ANSWER:
            yield "One."
            assert may_end.wait(60)

    with stub(script, chats=tmp_path / "chats.db") as server:
        page = open_page(server)
        ahead = Ahead(page)
        box = page.get_by_label("Your message")
        box.fill("short")
        page.clock.install()
        page.clock.run_for(1000)
        ask(page, "go on")
        expect(answers(page).locator(".text")).to_have_text("One.")
        box.fill("a draft that is long enough")
        page.clock.run_for(1000)
        assert ahead.bodies == []
        with page.expect_request("**/api/prefill"):
            may_end.set()
            expect(page.get_by_role("button", name="Send")).to_be_visible()
            page.clock.run_for(1000)
        said = [(message["role"], message["content"]) for message in ahead.bodies[0]["messages"]]
        assert said == [("user", "go on"), ("assistant", "One."), ("user", "a draft that is long enough")]
        page.evaluate("""localStorage.setItem("settings", JSON.stringify({ values: { prefillWhileTyping: false } }))""")
        page.reload()
        box.fill("a draft that is long enough, too")
        page.clock.run_for(1000)
        assert len(ahead.bodies) == 1
        page.close()


def test_a_draft_of_a_chat_that_is_being_fetched_is_read_ahead_with_the_chat(kept, open_page):
    page = open_page(kept)
    ask(page, "one")
    ended(page)
    page.get_by_label("Your message").fill("a draft that is worth it")
    read: list[int] = []
    page.on("request", lambda r: read.append(len(r.post_data_json["messages"])) if "/prefill" in r.url else None)
    with held(page, "**/api/chats/chat_*"):
        with page.expect_request("**/api/chats/chat_*"):
            page.reload()
        page.evaluate("new Promise((done) => setTimeout(done, 400))")  # a pause in the typing ends before
    with page.expect_request("**/prefill"):
        expect(last_text(page)).to_have_text("Yes.")
    assert set(read) == {3}


def test_reading_ahead_costs_an_answer_no_step_and_no_token():
    """In the engine, where each step can be counted."""
    with rigs(load(DEMO)) as rig:
        alone, busy = rig(), rig()
        alone.run(engine_ask("real", "hello"))
        busy.put(engine_ask("typed", "word " * 800, background=True))
        busy.step()
        n_steps, n_read = busy.n_steps, busy.n_read
        busy.put(engine_ask("real", "hello"))
        while not any(isinstance(word, Finished) and word.id == "real" for word in busy.words):
            busy.step()
        assert busy.n_steps - n_steps == alone.n_steps
        assert busy.n_read - n_read <= alone.n_read  # less, for their beginnings are the same
        busy.run()
        assert busy.end("typed").stop_reason == "read"  # it went on afterwards
