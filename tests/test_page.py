"""The chat page in a real Chromium, against the real server."""

from __future__ import annotations

import re
import signal

import pytest
from playwright.sync_api import expect

from tests.browser import CONTRAST, answers, ask, browser, endless, open_page  # noqa: F401  # fixtures among them
from tests.conftest import Server

pytestmark = pytest.mark.browser


def test_a_known_answer_says_so_and_can_be_given_afresh(tmp_path, open_page):
    with Server("--cache-dir", str(tmp_path), keep=True) as server:
        page = open_page(server)
        for n in (1, 2):
            ask(page, "What is the capital of France?")
            expect(answers(page).locator(".facts")).to_have_text(re.compile("^11 tokens · (from memory|.*tokens/s)"))
            expect(page.locator("#kept")).to_have_text(re.compile(r"^1 kept · \d"))
            if n == 1:
                assert page.locator(".offer").count() == 0
                page.get_by_role("button", name="New chat").click()
        assert "from memory" in answers(page).locator(".facts").inner_text()
        page.get_by_role("button", name="Answer afresh").click()
        expect(answers(page).locator(".facts")).to_have_text(re.compile("tokens/s · first after"))
        expect(answers(page).locator(".text")).to_have_text("The capital of France is Paris.")
        ask(page, "What is 12 + 30?")
        expect(answers(page).nth(1).locator(".facts")).to_contain_text("tokens/s")
        assert page.locator(".offer").count() == 0


def test_an_answer_is_streamed_with_its_speed_under_it(server, open_page):
    page = open_page(server)
    expect(page.locator("#model")).to_have_text("demo")
    ask(page, "What is the capital of France?")
    expect(answers(page).locator(".text")).to_contain_text("Paris")
    expect(answers(page).locator(".facts")).to_have_text(
        re.compile(r"^\d+ tokens · [\d.]+ tokens/s · first after \d+\.\d\d s$")
    )
    expect(page.get_by_role("button", name="Send")).to_be_visible()


def test_brief_answers_end_with_their_second_sentence_and_the_choice_is_remembered(server, open_page):
    page = open_page(server)
    page.get_by_label("Brief").check()
    page.reload()
    expect(page.get_by_label("Brief")).to_be_checked()
    ask(page, "Tell me a story about a fox.")
    expect(answers(page).locator(".facts")).to_contain_text("brief")
    assert len(answers(page).locator(".text").inner_text()) < 400


def test_the_chat_goes_on_with_what_was_said_before(server, open_page):
    page = open_page(server)
    ask(page, "My name is Anna.")
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    ask(page, "What is my name?")
    expect(answers(page).nth(1).locator(".text")).to_contain_text("Anna")


def test_reasoning_is_a_folded_block_of_its_own(server, open_page):
    page = open_page(server)
    ask(page, "What is 47 + 38?")
    expect(answers(page).locator(".text")).to_contain_text("85")
    expect(answers(page).locator(".text")).not_to_contain_text("think")
    thoughts = answers(page).locator("details")
    expect(thoughts).not_to_have_attribute("open", "")
    thoughts.locator("summary").click()
    expect(thoughts.locator("p")).to_be_visible()


@pytest.mark.parametrize("how", ["button", "Escape"])
def test_stopping_keeps_the_text_and_stops_the_server_too(endless, open_page, how):
    page = open_page(endless)
    ask(page, "go on")
    expect(answers(page).locator(".text")).not_to_be_empty()
    log_length = len(endless.log)
    if how == "button":
        page.get_by_role("button", name="Stop").click()
    else:
        page.keyboard.press("Escape")
    expect(answers(page).locator(".facts")).to_contain_text("stopped")
    expect(answers(page).locator(".text")).not_to_be_empty()
    expect(answers(page).locator(".error")).to_have_count(0)
    endless.wait_for("client left", log_length)


def test_a_new_chat_is_empty_and_stops_what_ran(endless, open_page):
    page = open_page(endless)
    ask(page, "go on")
    expect(answers(page).locator(".text")).not_to_be_empty()
    log_length = len(endless.log)
    page.get_by_role("button", name="New chat").click()
    expect(page.locator(".turn")).to_have_count(0)
    expect(page.get_by_role("heading", name="What would you like to know?")).to_be_visible()
    endless.wait_for("client left", log_length)


def test_a_crash_is_told_in_the_turn_it_belongs_to_and_the_chat_goes_on(endless, open_page):
    page = open_page(endless)
    ask(page, "go on")
    expect(answers(page).locator(".text")).not_to_be_empty()
    log_length = len(endless.log)
    endless.worker.send_signal(signal.SIGSEGV)
    expect(answers(page).get_by_role("alert")).to_contain_text("crashed")
    endless.wait_for("runs again", log_length)
    ask(page, "again")
    expect(answers(page).nth(1).locator(".text")).not_to_be_empty()


def test_a_server_that_is_gone_is_told_in_the_turn(endless, open_page):
    page = open_page(endless)
    endless.end(signal.SIGKILL)
    ask(page, "hello")
    expect(answers(page).get_by_role("alert")).to_have_text("The server cannot be reached.")


def test_a_suggestion_is_asked_by_a_click(server, open_page):
    page = open_page(server)
    page.get_by_role("button", name="Who are you?").click()
    expect(answers(page).locator(".text")).to_contain_text("Linnet")


def test_shift_enter_breaks_the_line_and_the_enter_that_ends_a_composition_does_not_send(server, open_page):
    page = open_page(server)
    box = page.get_by_label("Your message")
    box.fill("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    expect(box).to_have_value("one\ntwo")
    box.dispatch_event("keydown", {"key": "Enter", "isComposing": True, "bubbles": True})
    expect(page.locator(".turn")).to_have_count(0)


def test_what_is_written_is_shown_as_text_and_never_becomes_part_of_the_page(server, open_page):
    page = open_page(server)
    evil = '<img src=x onerror="document.title=1"><script>document.title=2</script>'
    ask(page, evil)
    expect(page.locator(".turn.user .text")).to_have_text(evil)
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    assert page.locator(".turn img, .turn script").count() == 0
    assert page.title() == "Linnet"


def test_the_page_may_load_and_call_only_its_own_server(server, open_page):
    page = open_page(server)
    policy = page.request.get(server.url).headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'")
    assert "unsafe" not in policy


def test_a_server_with_a_key_asks_for_it_once(open_page):
    server = Server("--api-key", "sésame“")
    page = open_page(server)
    page.get_by_label("API key").fill("sésame“")
    page.get_by_role("button", name="Continue").click()
    expect(page.locator("#model")).to_have_text("demo")
    ask(page, "hello")
    expect(answers(page).locator(".facts")).to_contain_text("tokens")
    page.reload()
    expect(page.locator("#model")).to_have_text("demo")
    server.end()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1400])
def test_the_page_fits_any_width_and_its_text_stands_out_in_light_and_dark(server, open_page, width, scheme):
    page = open_page(server, viewport={"width": width, "height": 600}, color_scheme=scheme)
    ask(page, "Tell me a story about a fox. " + "word" * 60)
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CONTRAST) >= 7


def test_a_reader_who_has_scrolled_up_is_left_alone(endless, open_page):
    page = open_page(endless, viewport={"width": 600, "height": 400})
    ask(page, "go on")
    text = answers(page).locator(".text")
    expect(text).to_have_text(re.compile(r"^.{3000}"))
    assert page.evaluate("(m => m.scrollHeight - m.scrollTop - m.clientHeight)(document.querySelector('main'))") < 40
    page.evaluate("document.querySelector('main').scrollTop = 10")
    expect(text).to_have_text(re.compile(rf"^.{{{len(text.inner_text()) + 500}}}"))
    assert page.evaluate("document.querySelector('main').scrollTop") == 10
