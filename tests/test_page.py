"""The chat page in a real Chromium: what is read in it, what can be done in it, and what it keeps."""

from __future__ import annotations

import itertools
import json
import re
import signal
import threading
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from engine.request import Event, Failed, Finished, Progress, Request, Trouble
from engine.stream import State
from tests.browser import CONTRAST, POLL, answers, ask, browser, do, ended, endless, kept, last_text, open_page, serve  # noqa: F401  # fixtures among them
from tests.conftest import Server

pytestmark = pytest.mark.browser
CUT = Finished("", "length", "max_tokens", 3, 1, 2, 0.0, 0.1, 0.2)
FACTS = re.compile(r"^\d+ tokens · [\d.]+ tokens/s · first after \d+\.\d\d s · prompt \d+")


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> Iterator[Server]:
    """A server that keeps chats and answers."""
    folder = tmp_path_factory.mktemp("kept")
    with Server("--cache-dir", str(folder), "--chats", str(folder / "chats.db"), keep=True) as server:
        yield server


@pytest.fixture(scope="module")
def tireless(endless_model) -> Iterator[Server]:
    """A server whose answers go on until somebody stops them, for tests that leave it as it is."""
    server = Server("--ctx", "50000", "--keep-loops", "--no-draft", model=endless_model)
    yield server
    server.end(signal.SIGKILL)


def settings(**values: object) -> str:
    """A script that keeps these, for the next load of the page."""
    return f"localStorage.setItem('settings', JSON.stringify({{ values: {json.dumps(values)} }}))"


def test_what_goes_on_is_the_last_answer_only(serve, tmp_path, open_page):
    page = open_page(serve(lambda _: ["Half", CUT], chats=tmp_path / "chats.db"))
    ask(page, "one")
    ended(page)
    ask(page, "two")
    ended(page, 2)
    expect(page.get_by_role("button", name="Continue answer")).to_have_count(1)


def test_the_key_that_is_asked_for_in_between_costs_no_question(serve, tmp_path, open_page):
    page = open_page(serve(lambda _: ["Yes."], chats=tmp_path / "chats.db", api_key="secret"))
    tried = []
    page.on("request", lambda request: tried.append(request.post_data_json) if "/session" in request.url else None)
    key = page.get_by_role("textbox", name="API key")
    key.fill("half of i")
    page.keyboard.press("Escape")
    expect(key).to_be_hidden()
    ask(page, "well?")
    key.fill("secret")
    page.keyboard.press("Enter")
    expect(page.locator("#model")).to_have_text("stub")
    page.keyboard.press("Alt+r")
    expect(last_text(page)).to_have_text("Yes.")
    assert tried == [{"key": "secret"}]


def test_another_model_is_named_and_counts_and_reads_what_is_written(serve, open_page):
    server = serve(lambda _: ["Yes."])
    page = open_page(server)
    model, chips = page.locator("#model"), page.locator("#files-list li")
    expect(model).to_have_text("stub")
    page.route("**/v1/models", lambda route: route.fulfill(status=503, body="{}"))
    page.reload()
    expect(model).to_have_text("the server cannot be reached")
    page.unroute("**/v1/models")
    page.evaluate(POLL)
    expect(model).to_have_text("stub")
    page.route("**/tokenize", lambda route: route.fulfill(status=503, body="{}"))
    with page.expect_response("**/tokenize"):
        page.locator("#attach-files").set_input_files([{"name": "a.txt", "mimeType": "", "buffer": b"one two three"}])
    expect(chips).to_contain_text("1 kB")
    page.route("**/tokenize", lambda route: route.fulfill(json={"tokens": [1, 2, 3]}))
    status = page.request.get(f"{server.url}/status", headers={"Accept": "application/json"}).json()
    status |= {"model": "other", "models": [status["models"][0] | {"name": "other"}]}
    page.route("**/status", lambda route: route.fulfill(json=status))
    page.route("**/v1/models", lambda route: route.fulfill(json={"data": [{"id": "other"}]}))
    with page.expect_request("**/api/prefill"):
        page.evaluate(POLL)
    expect(chips).to_contain_text("3 tokens")
    expect(model).to_have_text("other")
    said = {"error": {"message": "It needs more memory.", "code": "model_too_large"}}
    page.route("**/chat/completions", lambda route: route.fulfill(status=507, json=said))
    ask(page, "well?")
    page.get_by_role("button", name="Choose a model").last.click()
    expect(page.get_by_role("dialog", name="Models")).to_be_visible()


def test_what_is_pressed_keeps_the_focus_and_is_done_once(kept, open_page):
    page = open_page(kept)
    page.get_by_role("button", name="Who are you?").press("Enter")
    ended(page)
    expect(page.get_by_label("Your message")).to_be_focused()
    deleted = []
    page.on("request", lambda request: deleted.append(request.url) if request.method == "DELETE" else None)
    do(page, "Delete answer")
    page.get_by_role("group", name="Delete this and what follows?").get_by_role("button", name="Delete").dblclick()
    expect(answers(page)).to_have_count(0)
    page.keyboard.press("Alt+r")
    ended(page)
    assert len(deleted) == 1
    expect(page.locator("#note")).to_be_empty()


def test_a_link_says_the_host_that_a_browser_goes_to(serve, open_page):
    text = (
        "[a](https://bank.example@evil.example/) [b](https:///evil.example/x) [c](mailto:a@b.example) <https://b.example/x>"
    )
    page = open_page(serve(lambda _: [text, " [d](https:bank.example/in@evil.example)"]))
    ask(page, "where?")
    ended(page)
    hosts = last_text(page).locator("a").evaluate_all("(links) => links.map(({ dataset }) => dataset.host ?? null)")
    assert hosts == ["evil.example", "evil.example", "a@b.example", None]


def test_who_deletes_a_turn_is_then_at_the_one_before(serve, open_page):
    page = open_page(serve(lambda _: ["Yes."]))
    ask(page, "well?")
    ended(page)
    page.keyboard.press("Alt+Shift+L")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(answers(page)).to_have_count(0)
    expect(page.locator(".turn.user")).to_be_focused()


@pytest.mark.parametrize("kept", [True, False])
def test_an_answer_says_that_its_model_is_still_being_loaded(serve, open_page, tmp_path, kept):
    server = serve(lambda _: ["Hello."], chats=tmp_path / "chats.db" if kept else None)
    server.engine.loaded.clear()
    server.engine.state = State.LOADING
    page = open_page(server)
    ask(page, "hello")
    expect(answers(page).locator(".facts")).to_have_text("loading the model …")
    server.engine.state = State.READY
    server.engine.loaded.set()
    expect(last_text(page)).to_have_text("Hello.")


def test_an_answer_is_streamed_with_its_facts_under_it_and_the_chat_goes_on(server, open_page):
    page = open_page(server)
    expect(page.locator("#model")).to_have_text("demo")
    ask(page, "My name is Anna.")
    ended(page)
    expect(answers(page).locator(".facts")).to_have_text(FACTS)
    ask(page, "What is my name?")
    ended(page, 2)
    expect(last_text(page)).to_contain_text("Anna")
    expect(answers(page).last.locator(".facts")).to_have_text(re.compile(r"prompt \d+, \d+ remembered$"))
    expect(page.locator("#spoken")).to_contain_text("Anna")  # by whole sentences, to those who do not see it


def test_reasoning_is_a_block_of_its_own_that_folds_when_the_answer_begins(server, open_page):
    page = open_page(server)
    page.get_by_role("button", name="What is 47 + 38?").click()
    ended(page)
    expect(last_text(page)).to_have_text("47 + 38 = 85.")
    thoughts = answers(page).locator("details")
    expect(thoughts.locator("summary")).to_have_text(re.compile(r"^Thought for (a moment|\d+ s)$"))
    expect(thoughts).not_to_have_attribute("open", "")
    page.keyboard.press("Alt+t")
    expect(thoughts.locator("p").first).to_be_visible()


def test_each_action_of_a_turn_makes_or_leaves_a_branch_that_a_reload_shows_again(house, open_page):
    page = open_page(house)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    ask(page, "What is the capital of France?")
    ended(page)
    expect(last_text(page)).to_have_text("The capital of France is Paris.")
    do(page, "Copy answer")
    assert page.evaluate("navigator.clipboard.readText()") == "The capital of France is Paris."
    do(page, "Edit question")
    page.get_by_label("Your question").fill("What is the capital of Spain?")
    page.keyboard.press("Enter")
    ended(page)
    expect(last_text(page)).to_contain_text("Madrid")
    do(page, "Answer again")
    expect(page.get_by_label("Version 2 of 2")).to_have_count(2)  # of the question and of the answer
    ended(page)
    address = page.url
    assert "#chat_" in address
    page.reload()
    expect(page.get_by_label("Version 2 of 2")).to_have_count(2)
    page.locator(".user").get_by_role("button", name="Earlier version").click()
    expect(last_text(page)).to_have_text("The capital of France is Paris.")
    expect(page.get_by_role("button", name="Earlier version")).to_be_disabled()
    do(page, "Delete question")
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Delete question")).to_be_focused()
    do(page, "Delete question")
    page.get_by_role("group", name="Delete this and what follows?").get_by_role("button", name="Delete").click()
    expect(last_text(page)).to_contain_text("Madrid")
    expect(page.locator(".user .place")).to_have_count(0)
    page.get_by_role("button", name="New chat").click()
    expect(page.locator(".turn")).to_have_count(0)
    page.go_back()
    expect(last_text(page)).to_contain_text("Madrid")
    assert page.url == address


def test_a_known_answer_says_so_and_can_be_given_afresh(house, open_page):
    page = open_page(house)
    for _ in range(2):
        page.get_by_role("button", name="New chat").click()
        ask(page, "What is the capital of Italy?")
        ended(page)
    expect(answers(page).locator(".facts")).to_have_text(re.compile(r"^\d+ tokens · from memory$"))
    expect(page.get_by_role("button", name="Answer afresh")).to_be_attached()
    page.keyboard.press("Alt+r")
    expect(answers(page).locator(".facts")).to_have_text(FACTS)
    expect(answers(page).get_by_label("Version 2 of 2")).to_be_visible()


def test_a_cut_answer_says_so_and_goes_on_where_it_was_cut(house, open_page):
    page = open_page(house)
    page.evaluate(settings(max_tokens=40))
    page.reload()
    ask(page, "Tell me a story about a fox.")
    ended(page)
    facts = answers(page).locator(".facts")
    expect(facts).to_contain_text("cut: the length allowed was used up")
    begun = last_text(page).inner_text()
    page.evaluate(settings())
    page.reload()
    ended(page)
    page.keyboard.press("Alt+g")
    ended(page)
    expect(facts).not_to_contain_text("cut")
    text = last_text(page).inner_text()
    assert text.startswith(begun.rstrip("…. ")) and len(text) > len(begun) + 100
    expect(answers(page)).to_have_count(1)


def test_two_tabs_show_the_same_chat_and_one_that_is_deleted_is_gone(house, open_page):
    page = open_page(house)
    ask(page, "My name is Anna.")
    ended(page)
    other = page.context.new_page()
    other.goto(page.url)
    ended(other)
    other.get_by_label("Your message").fill("half a draft")
    ask(page, "What is my name?")
    ended(page, 2)
    other.evaluate(POLL)
    ended(other, 2)
    expect(last_text(other)).to_contain_text("Anna")
    expect(other.get_by_label("Your message")).to_have_value("half a draft")
    id = page.url.partition("#")[2]
    page.evaluate("id => fetch(`/api/chats/${id}`, { method: 'DELETE' })", id)
    other.evaluate(POLL)
    expect(other.locator(".turn")).to_have_count(0)


def test_stopping_keeps_the_text_and_stops_the_server_too_and_the_answer_can_go_on(tireless, open_page):
    page = open_page(tireless)
    ask(page, "go on")
    facts = answers(page).locator(".facts")
    for stop in (page.get_by_role("button", name="Stop").click, lambda: page.keyboard.press("Escape")):
        log_length = len(tireless.log)
        n = len(last_text(page).inner_text())
        expect(last_text(page)).to_have_text(re.compile(rf"^.{{{n + 50}}}"))
        stop()
        expect(facts).to_contain_text("stopped")
        tireless.wait_for("client left", log_length)
        do(page, "Continue answer")
    expect(facts).not_to_contain_text("stopped")
    expect(answers(page)).to_have_count(1)
    expect(answers(page).locator(".error:not(:empty)")).to_have_count(0)
    do(page, "Edit question")  # while it runs: it gives way
    page.get_by_label("Your question").fill("go further")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Version 2 of 2")).to_be_visible()
    expect(last_text(page)).to_have_text(re.compile("^.{50}"))
    page.get_by_role("button", name="Earlier version").click()
    expect(facts).to_contain_text("stopped")
    page.get_by_role("button", name="Later version").click()
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    page.keyboard.press("Escape")
    expect(facts).to_contain_text("stopped")


def test_an_answer_outlives_a_reload_and_is_taken_up_where_it_was(serve, tmp_path, open_page):
    may_end = threading.Event()

    def script(request: Request) -> Iterator[str]:
        yield from ("One sentence. ", "Another. ")
        assert may_end.wait(60)
        yield "The last."

    server = serve(script, chats=tmp_path / "chats.db")
    page = open_page(server)
    ask(page, "go on")
    expect(last_text(page)).to_contain_text("Another.")
    page.reload()
    expect(last_text(page)).to_contain_text("Another.")
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    page.get_by_role("button", name="New chat").click()
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    page.go_back()
    expect(last_text(page)).to_contain_text("Another.")
    may_end.set()
    ended(page)
    expect(last_text(page)).to_have_text("One sentence. Another. The last.")
    assert len(server.engine.requests) == 1
    may_end.clear()
    page.route("**/api/answers/**", lambda route: route.abort())
    ask(page, "again")
    facts = answers(page).last.locator(".facts")
    expect(facts).to_contain_text("connection is lost")
    page.keyboard.press("Escape")  # the server is not reached; here it ends all the same
    expect(facts).to_contain_text("stopped")
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    with page.expect_response(lambda response: response.request.method == "DELETE"):  # the page may ask by itself
        page.unroute("**/api/answers/**")
        may_end.set()
        page.evaluate(POLL)


MARKDOWN = (
    """# A title

Some **bold** words and <img src=x onerror="document.title=1"> and [a link](https://example.org/x).

| a | b |
|---|---|
"""
    + "| "
    + "wide" * 60
    + """ | 2 |

```python
def one():
    return 1
```

$$\\frac{1}{2}$$

"""
    + "long" * 300
    + "\n\n```unfinished\n<b>and open"
)


def test_markdown_is_rendered_as_it_grows_and_what_is_wide_scrolls_inside_itself(serve, open_page):
    def script(request: Request) -> Iterator[str]:
        yield from (MARKDOWN[i : i + 5] for i in range(0, len(MARKDOWN), 5))

    server = serve(script)
    page = open_page(server, viewport={"width": 320, "height": 600})
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    ask(page, "<b>write</b>")
    ended(page)
    text = last_text(page)
    for what in ("h1", "strong", "table", "math mfrac", ".code-box pre .k"):
        expect(text.locator(what).first).to_be_visible()
    expect(text.locator(".plain")).to_have_count(0)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    assert page.evaluate("(m => m.scrollWidth <= m.clientWidth)(document.querySelector('main'))")
    assert text.locator(".table").evaluate("table => table.scrollWidth > table.clientWidth")
    assert text.locator("img, b, script").count() == 0
    expect(text.locator(".code-box").last).to_contain_text("<b>and open")
    page.keyboard.press("Alt+k")
    page.wait_for_function("navigator.clipboard.readText().then((text) => text.includes('and open'))")
    text.get_by_role("button", name="Copy code").first.click()
    assert page.evaluate("navigator.clipboard.readText()") == "def one():\n    return 1\n"
    expect(page.locator(".user .text")).to_have_text("<b>write</b>")
    assert page.title() == "<b>write</b> · Linnet"


@pytest.mark.parametrize("touch", [True, False])
def test_a_link_shows_where_it_goes_also_to_who_has_no_mouse(serve, open_page, touch):
    page = open_page(serve(lambda _: ["[your bank](https://evil.example/x)"]), has_touch=touch, is_mobile=touch)
    ask(page, "where?")
    ended(page)
    link = last_text(page).get_by_role("link", name="your bank")
    shown = "(link) => getComputedStyle(link, '::after').content"
    assert touch or link.evaluate(shown) == "none"
    if not touch:
        link.focus()
    assert "evil.example" in link.evaluate(shown) or "data-host" in link.evaluate(shown)
    assert link.get_attribute("data-host") == "evil.example"


def test_awkward_answers_are_told_in_the_turn_that_they_belong_to(serve, tmp_path, open_page):
    died = Failed("", Trouble.ENGINE_DIED, "It crashed.")
    scripts = iter([["</think>", " \n"], ["Only a thought"], ["A thought</think>", "Half", died], ["</think>Whole."]])

    server = serve(lambda request: next(scripts), chats=tmp_path / "chats.db", thinking="open")
    page = open_page(server)
    ask(page, "nothing")
    ended(page)
    expect(last_text(page)).to_be_empty()
    ask(page, "a thought")
    ended(page, 2)
    expect(last_text(page)).to_be_empty()
    expect(answers(page).last.locator("summary")).to_contain_text("Thought")
    ask(page, "half")
    ended(page, 3)
    expect(answers(page).last.get_by_role("alert")).to_have_text("It crashed.")
    expect(last_text(page)).to_have_text("Half")
    ask(page, "whole")
    ended(page, 4)
    said = [(message["role"], message["content"]) for message in server.engine.requests[-1].messages]
    # Questions without an answer are not asked again, thoughts do not go back.
    assert said == [("user", "half"), ("assistant", "Half"), ("user", "whole")]


def test_thoughts_that_were_cut_go_on_where_they_were_cut(serve, tmp_path, open_page):
    may_end = threading.Event()

    def script(request: Request) -> Iterator[Event | str]:
        if len(server.engine.requests) > 1:
            yield from ("and two.", "</think>", "Three.")
        else:
            yield "One, "
            assert may_end.wait(60)
            yield CUT

    server = serve(script, chats=tmp_path / "chats.db", thinking="open")
    page = open_page(server)
    ask(page, "think")
    thoughts = answers(page).locator("details")
    expect(thoughts).to_have_attribute("open", "")  # live, while it thinks
    expect(thoughts).to_have_text(re.compile(r"^Thinking.*One,\s*$"))
    may_end.set()
    ended(page)
    do(page, "Continue answer")
    expect(last_text(page)).to_have_text("Three.")
    page.keyboard.press("Alt+t")
    expect(thoughts.locator(".thought")).to_have_text(re.compile(r"^One,\s*and two\.\s*$"))
    assert server.engine.requests[1].thought.strip() == "One,"


def test_a_question_without_an_answer_can_be_answered_and_what_is_refused_says_so(serve, tmp_path, open_page):
    full = Failed("", Trouble.CONTEXT_LENGTH, "It is too long.")
    scripts = iter([[full], ["Half"], ["Less", CUT], [full], [full], [" and more."], []])
    server = serve(lambda request: [] if request.background else next(scripts), chats=tmp_path / "chats.db")
    page = open_page(server)
    alert = answers(page).last.get_by_role("alert")
    ask(page, "one")
    expect(alert).to_have_text("It is too long.")
    do(page, "Delete answer")
    page.get_by_role("group", name="Delete this and what follows?").get_by_role("button", name="Delete").click()
    expect(answers(page)).to_have_count(0)
    page.reload()
    expect(page.get_by_role("button", name="Answer", exact=True)).to_be_attached()
    page.keyboard.press("Alt+r")
    expect(last_text(page)).to_have_text("Half")
    ended(page)
    ask(page, "two")
    ended(page, 2)
    do(page, "Continue answer")
    expect(alert).to_have_text("It is too long.")
    expect(last_text(page)).to_have_text("Less")
    page.evaluate(settings(onContextFull="leave-out-oldest"))
    page.reload()
    do(page, "Continue answer")
    expect(last_text(page)).to_have_text("Less and more.")
    expect(answers(page).last.locator(".note")).to_contain_text("left out")
    said = json.dumps({"error": {"message": "The disk is full.", "code": "chats_unavailable"}})
    page.route("**/messages/*", lambda route: route.fulfill(status=503, body=said))
    do(page, "Delete answer")
    page.get_by_role("group", name="Delete this and what follows?").get_by_role("button", name="Delete").click()
    expect(page.locator("#note")).to_have_text("The disk is full.")


def test_who_waits_is_told_for_what(serve, open_page):
    goes_on = threading.Semaphore(0)

    def script(request: Request) -> Iterator[Event | str]:
        for progress in (Progress("", 0, 0, 2, 0.0), Progress("", 1, 0, 0, 5.0)):
            yield progress
            assert goes_on.acquire(timeout=60)
        yield "Done."

    server = serve(script)
    page = open_page(server)
    ask(page, "wait")
    facts = answers(page).locator(".facts")
    expect(facts).to_have_text(re.compile("^waiting"))
    goes_on.release()
    expect(facts).to_have_text("reading 3 tokens … 33 %, 10 s left")
    goes_on.release()
    ended(page)
    expect(last_text(page)).to_have_text("Done.")


def test_a_chat_that_outgrows_the_context_says_so_or_leaves_out_its_oldest_turns(tmp_path, open_page):
    with Server("--ctx", "256", "--chats", str(tmp_path / "chats.db"), keep=True) as server:
        page = open_page(server)
        long = "word " * 60
        ask(page, f"What is the capital of France? {long}")
        ended(page)
        ask(page, f"What is the capital of Spain? {long * 3}")
        ended(page, 2)
        expect(answers(page).last.get_by_role("alert")).to_contain_text("context")
        page.evaluate(settings(onContextFull="leave-out-oldest"))
        page.reload()
        ask(page, f"What is the capital of Italy? {long * 3}")
        expect(answers(page).last.locator(".note")).to_have_text(re.compile(r"^The first \d turns were left out"))
        ended(page, 2)
        expect(answers(page).last.get_by_role("alert")).to_have_count(0)


def test_a_crash_is_told_in_the_turn_it_belongs_to_and_the_chat_goes_on(endless, open_page):
    page = open_page(endless)
    ask(page, "go on")
    expect(last_text(page)).not_to_be_empty()
    log_length = len(endless.log)
    endless.worker.send_signal(signal.SIGSEGV)
    expect(answers(page).get_by_role("alert")).to_contain_text("crashed")
    endless.wait_for("runs again", log_length)
    ask(page, "again")
    expect(answers(page).nth(1).locator(".text")).not_to_be_empty()
    endless.end(signal.SIGKILL)
    page.get_by_role("button", name="New chat").click()
    ask(page, "hello")
    expect(answers(page).get_by_role("alert")).to_have_text("The server cannot be reached.")
    expect(page.locator(".user .text")).to_have_text("hello")


def test_shift_enter_breaks_the_line_and_the_enter_that_ends_a_composition_does_not_send(server, open_page):
    page = open_page(server)
    box = page.get_by_label("Your message")
    box.fill("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    expect(box).to_have_value("one\ntwo")
    box.dispatch_event("keydown", {"key": "Enter", "isComposing": True, "bubbles": True})
    expect(page.locator(".turn")).to_have_count(0)


def test_the_page_may_load_and_call_only_its_own_server(server, open_page):
    page = open_page(server)
    policy = page.request.get(server.url).headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'")
    assert "unsafe" not in policy


def test_a_server_with_a_key_asks_for_it_once_and_again_after_signing_out(open_page):
    server = Server("--api-key", "sésame“")
    page = open_page(server)
    page.get_by_role("textbox", name="API key").fill("wrong")
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_have_text("That is not its key.")
    page.get_by_role("textbox", name="API key").fill("sésame“")
    page.get_by_role("button", name="Continue").click()
    expect(page.locator("#model")).to_have_text("demo")
    ask(page, "hello")
    ended(page)
    page.reload()
    expect(page.locator("#model")).to_have_text("demo")
    page.get_by_role("button", name="Settings").click()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("textbox", name="API key")).to_be_visible()
    assert page.request.get(f"{server.url}/status").status == 401
    server.end()


def test_the_page_fits_any_width_and_its_text_stands_out_in_light_and_dark(server, open_page):
    page = open_page(server)
    ask(page, "Tell me a story about a fox. " + "word" * 60)
    ended(page)
    for width, scheme in itertools.product((320, 800, 1400), ("light", "dark")):
        page.set_viewport_size({"width": width, "height": 600})
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(CONTRAST) >= 7


# As it is painted: asked for where the page itself, which has observed it for longer, has just followed the end.
LEFT_BELOW = """new Promise((done) => {
  const main = document.querySelector("main");
  const tell = () => done(main.scrollHeight - main.scrollTop - main.clientHeight);
  new ResizeObserver(tell).observe(document.getElementById("turns"));
})"""


def test_a_reader_who_has_scrolled_up_is_left_alone(tireless, open_page):
    page = open_page(tireless, viewport={"width": 600, "height": 400})
    ask(page, "go on")
    text = last_text(page)
    expect(text).to_have_text(re.compile(r"^.{3000}"))
    assert page.evaluate(LEFT_BELOW) < 40
    page.evaluate("document.querySelector('main').scrollTop = 10")
    expect(text).to_have_text(re.compile(rf"^.{{{len(text.inner_text()) + 500}}}"))
    assert page.evaluate("document.querySelector('main').scrollTop") == 10
    page.keyboard.press("Alt+End")
    expect(page.get_by_role("button", name="To the end")).to_be_hidden()
    page.keyboard.press("Escape")
