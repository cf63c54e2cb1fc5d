"""The list of chats and the keys, in a real Chromium."""

from __future__ import annotations

import json
import re
import threading
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from engine.request import Request
from tests.browser import DROP, POLL, answers, ask, begin, browser, file, kept, link, open_page, rows  # noqa: F401  # fixtures among them
from tests.stub import StubServer, stub
from tests.test_transfer import CHATGPT, LLAMA

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def unkept() -> Iterator[StubServer]:
    with stub(lambda _: ["Yes."]) as server:
        yield server


def do(page: Page, chat: str, name: str) -> None:
    """Something of the menu of a chat."""
    rows(page).filter(has_text=chat).get_by_role("button").click()
    page.get_by_role("menuitem", name=name).click()


def names(page: Page) -> list[str]:
    return page.locator("#chat-list .name").all_inner_texts()


def test_chats_are_listed_searched_renamed_pinned_deleted_and_brought_back(kept, open_page):
    page = open_page(kept)
    for text in ("about linnets", "about wrens", "about owls"):
        begin(page, text)
    assert names(page) == ["about owls", "about wrens", "about linnets"]
    expect(link(page, "about owls")).to_have_attribute("aria-current", "page")
    do(page, "wrens", "Pin")
    expect(page.get_by_role("heading", name="Pinned")).to_be_visible()
    assert names(page) == ["about wrens", "about owls", "about linnets"]
    do(page, "linnets", "Rename")
    page.get_by_label("Title of the chat").fill("Finches")
    page.keyboard.press("Enter")
    expect(link(page, "Finches")).to_be_focused()
    page.get_by_label("Search the chats").fill("linnets")
    expect(rows(page)).to_have_count(1)
    expect(page.locator(".snippet")).to_have_text("about linnets")
    page.get_by_label("Search the chats").fill("nothing of it")
    expect(page.locator("#chat-list")).to_have_text("Nothing was found.")
    page.get_by_label("Search the chats").fill("")
    expect(rows(page)).to_have_count(3)
    other = page.context.new_page()
    other.goto(kept.url)
    expect(rows(other)).to_have_count(3)
    with page.expect_download() as download:
        do(page, "owls", "Save as JSON")
    assert download.value.suggested_filename == "about owls.json"
    do(page, "owls", "Delete")  # which is open
    expect(rows(page)).to_have_count(2)
    expect(page.locator(".turn")).to_have_count(0)
    other.evaluate(POLL)
    expect(rows(other)).to_have_count(2)
    page.get_by_role("button", name="Undo").click()
    expect(link(page, "about owls")).to_be_visible()
    expect(page.locator(".user .text")).to_have_text("about owls")
    expect(page.get_by_role("button", name="Undo")).to_be_hidden()
    other.evaluate(POLL)
    expect(rows(other)).to_have_count(3)
    link(page, "Finches").click()
    expect(page.locator(".user .text")).to_have_text("about linnets")


def test_a_chat_that_is_being_answered_is_marked(tmp_path, open_page):
    may_end = threading.Event()

    def script(request: Request) -> Iterator[str]:
        yield "One."
        assert may_end.wait(60)

    with stub(script, chats=tmp_path / "chats.db") as server:
        page = open_page(server)
        ask(page, "go on")
        mark = page.locator("#chat-list").get_by_label("Being answered:")
        expect(mark).to_be_visible()
        page.get_by_role("button", name="New chat", exact=True).click()
        expect(mark).to_be_visible()
        may_end.set()
        page.wait_for_function("fetch('/api/chats').then((r) => r.json()).then(({ chats }) => !chats[0].running)")
        page.evaluate(POLL)
        expect(mark).to_have_count(0)
        page.close()  # else the server waits for it


def test_every_action_has_a_key_and_the_dialog_shows_them(kept, open_page):
    page = open_page(kept)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    press = page.keyboard.press
    for text in ("one", "two"):
        begin(page, text)
    press("Alt+c")
    page.wait_for_function("navigator.clipboard.readText().then((text) => text === 'Yes.')")
    press("Alt+r")
    expect(answers(page).get_by_label("Version 2 of 2")).to_be_visible()
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    press("ArrowLeft")
    expect(answers(page).get_by_label("Version 1 of 2")).to_be_visible()
    press("ArrowRight")
    expect(answers(page).get_by_label("Version 2 of 2")).to_be_visible()
    press("Alt+e")
    expect(page.get_by_label("Your question")).to_be_focused()
    press("Escape")
    press("Alt+Shift+c")
    page.wait_for_function("navigator.clipboard.readText().then((text) => text === 'two')")
    press("Alt+Shift+l")
    page.get_by_role("group", name="Delete this and what follows?").get_by_role("button", name="Delete").click()
    expect(answers(page).locator(".place")).to_have_count(0)
    page.on("filechooser", lambda _: None)  # else watching begins and ends with each, not always in time
    for key in ("Alt+u", "Alt+i"):
        with page.expect_file_chooser():
            press(key)
    press("Control+k")
    expect(page.get_by_label("Search the chats")).to_be_focused()
    press("ArrowDown")
    expect(link(page, "two")).to_be_focused()
    press("ArrowDown")
    expect(link(page, "one")).to_be_focused()
    press("F2")
    page.keyboard.type("first")
    press("Enter")
    press("Alt+n")
    expect(page.get_by_role("heading", name="Pinned")).to_be_visible()
    expect(link(page, "first")).to_be_focused()
    press("Delete")
    expect(rows(page)).to_have_count(1)
    expect(link(page, "two")).to_be_focused()
    press("Alt+z")
    expect(link(page, "first")).to_be_focused()
    press("/")
    expect(page.get_by_label("Your message")).to_be_focused()
    press("Control+Shift+Backspace")
    expect(rows(page)).to_have_count(1)
    for key, name in (("Alt+s", None), ("Alt+j", "first.json"), ("Alt+a", "linnet-chats.json")):
        link(page, "first").click()
        expect(page.locator(".user .text")).to_have_text("one")
        with page.expect_download() as download:
            press(key)
        assert download.value.suggested_filename == (name or "first.md")
    press("Control+b")
    expect(page.locator("#chats")).to_be_hidden()
    press("Control+b")
    press("Control+Shift+O")
    expect(page.locator(".turn")).to_have_count(0)
    expect(page.get_by_label("Your message")).to_be_focused()
    page.keyboard.type("?")
    expect(page.get_by_label("Your message")).to_have_value("?")
    for key, dialog in (("Alt+m", "Models"), ("Control+,", "Settings"), ("Control+/", "Keys")):
        press(key)
        expect(page.get_by_role("dialog", name=dialog)).to_be_visible()
        press("Escape")
    link(page, "first").focus()
    press("?")
    expect(page.locator("#keys dt")).to_have_count(len(set(page.locator("#keys dl > div").all_inner_texts())))


def test_a_chat_that_could_not_be_brought_back_can_be_later(kept, open_page):
    page = open_page(kept)
    for text in ("one", "two"):
        begin(page, text)
        page.keyboard.press("Control+Shift+Backspace")
        expect(rows(page)).to_have_count(0)
    expect(page.locator("#toast-text")).to_have_text("2 chats deleted.")
    page.route("**/restore", lambda route: route.abort(), times=1)
    page.keyboard.press("Alt+z")
    expect(link(page, "two")).to_be_visible()
    expect(page.locator("#note")).to_have_text("The server cannot be reached.")
    expect(page.locator("#toast")).to_be_visible()
    expect(page.locator("#toast-text")).to_have_text("Deleted.")
    page.keyboard.press("Alt+z")
    expect(link(page, "one")).to_be_focused()
    expect(rows(page)).to_have_count(2)
    expect(page.locator("#toast")).to_be_hidden()
    page.keyboard.press("Delete")
    expect(page.locator("#toast")).to_be_visible()
    page.route("**/restore", lambda route: route.fulfill(status=404, body="{}"))
    page.keyboard.press("Alt+z")
    expect(page.locator("#note")).to_have_text("The server answered with status 404.")
    assert page.locator("#toast").is_hidden(), "it is gone for good"


def test_keys_in_the_menu_of_a_chat_are_about_that_chat(kept, open_page):
    page = open_page(kept)
    for text in ("one", "two", "three"):
        begin(page, text)
    for chat, key in (("one", "F2"), ("two", "Control+Shift+Backspace")):
        page.get_by_role("button", name=f"{chat}: more").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("menuitem", name="Rename")).to_be_focused()
        page.keyboard.press(key)
        expect(page.get_by_role("menu")).to_be_hidden()
        if key == "F2":
            page.get_by_label("Title of the chat").fill("first")
            page.keyboard.press("Enter")
            expect(link(page, "first")).to_be_focused()
    expect(rows(page)).to_have_count(2)
    assert names(page) == ["three", "first"]
    expect(page.locator(".user .text")).to_have_text("three")


def test_keys_of_a_composition_are_left_to_it(kept, open_page):
    page = open_page(kept)
    begin(page, "one")
    search, title = page.get_by_label("Search the chats"), page.get_by_label("Title of the chat")
    search.focus()
    search.dispatch_event("keydown", {"key": "ArrowDown", "keyCode": 229, "isComposing": True})
    expect(search).to_be_focused()
    page.keyboard.press("F2")
    title.dispatch_event("keydown", {"key": "Enter", "keyCode": 229})  # as Safari ends one
    expect(title).to_be_focused()


def test_copying_says_its_outcome_also_to_who_does_not_see_it_and_never_that_it_was_done_where_it_was_not(kept, open_page):
    page = open_page(kept)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    begin(page, "one")
    spoken = page.locator("#spoken")
    expect(spoken).to_have_text("Yes.")
    page.keyboard.press("Alt+c")
    expect(spoken).to_have_text("Copied")
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: null }); document.execCommand = () => false")
    page.keyboard.press("Alt+Shift+c")
    expect(spoken).to_have_text("Not allowed")
    expect(page.get_by_role("button", name="Copy question")).to_have_text("Not allowed")


def test_who_goes_to_the_end_by_a_key_can_write_there_and_a_finger_brings_up_no_keyboard(unkept, open_page):
    page = open_page(unkept, viewport={"width": 320, "height": 300}, has_touch=True)
    box, to_end = page.get_by_label("Your message"), page.get_by_role("button", name="To the end")
    ask(page, "line\n" * 40)
    expect(answers(page).locator(".facts")).to_contain_text("token")
    page.locator("main").evaluate("(main) => main.scrollTo(0, 0)")
    to_end.focus()
    page.keyboard.press("Enter")
    expect(to_end).to_be_hidden()
    expect(box).to_be_focused()
    page.locator("main").evaluate("(main) => main.scrollTo(0, 0)")
    to_end.tap()
    expect(to_end).to_be_hidden()
    expect(box).not_to_be_focused()


def test_where_it_is_narrow_the_chats_are_a_drawer_that_keeps_the_focus(kept, open_page):
    page = open_page(kept, viewport={"width": 320, "height": 600})
    ask(page, "about linnets")
    expect(rows(page)).to_have_count(1)
    opener = page.locator("#open-chats")
    opener.click()
    expect(opener).to_have_attribute("aria-expanded", "true")
    expect(link(page, "about linnets")).to_be_focused()
    assert page.evaluate("document.querySelector('main').inert")
    page.keyboard.press("Escape")
    expect(page.locator("#chats")).to_be_hidden()
    expect(opener).to_be_focused()
    opener.click()
    page.get_by_role("button", name="New private chat").click()
    expect(page.locator("#chats")).to_be_hidden()
    expect(page.locator("#private")).to_have_text("Private: not stored")
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    ask(page, "a secret")
    expect(answers(page).locator(".text")).to_have_text("Yes.")
    opener.click()
    expect(rows(page)).to_have_count(1)
    link(page, "about linnets").click()
    expect(page.locator(".user .text")).to_have_text("about linnets")
    expect(page.locator("#private")).to_be_hidden()
    expect(page.locator("#note")).to_have_text("The private chat has ended: it is not stored.")
    opener.click()
    page.mouse.click(310, 300)
    expect(page.locator("#chats")).to_be_hidden()
    opener.click()
    page.keyboard.press("Control+,")
    page.keyboard.press("Escape")
    expect(page.locator("#settings")).to_be_hidden()
    expect(page.locator("#chats")).to_be_visible()
    for key in ("/", "Control+Shift+O"):
        page.keyboard.press(key)
        expect(page.locator("#chats")).to_be_hidden()
        expect(page.get_by_label("Your message")).to_be_focused()
        opener.click()


def test_a_chat_in_the_list_stays_the_stop_of_tab_while_the_list_changes(kept, open_page):
    page = open_page(kept)
    for text in ("first", "second"):
        begin(page, text)
    link(page, "second").focus()
    page.keyboard.press("ArrowDown")
    expect(link(page, "first")).to_be_focused()
    page.request.post(f"{kept.url}/api/chats", data={"title": "third"})
    page.evaluate(POLL)
    expect(link(page, "third")).to_be_visible()
    expect(link(page, "first")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="first: more")).to_be_focused()


def zipped(**files: str) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name.replace("_", "."), text, zipfile.ZIP_STORED if name == "b_jsonl" else None)
    return buffer.getvalue()


def test_chats_of_others_are_imported_from_files_and_ours_come_back(kept, open_page):
    page = open_page(kept)
    lines = [{"type": "session", **LLAMA["conv"]}, *({"type": "message", "message": m} for m in LLAMA["messages"])]
    jsonl = "\n".join(json.dumps(line) for line in lines)
    large = CHATGPT | {"title": "Large", "more": "x" * 8_100_000}

    def take(n: int, *files: dict[str, Any]) -> None:
        page.locator("#import-files").set_input_files(files)
        expect(page.locator("#chats-said")).to_contain_text(f"{n} chat{'s have' if n > 1 else ' has'} come.")

    take(2, file("a.jsonl", f"{jsonl}\n{jsonl}\n"), file("no.json", "no"), file("none.json", '{"a": 1}'))
    said = page.locator("#chats-said .error")
    expect(said).to_have_text([re.compile("^no.json: It is not JSON"), re.compile("^chat 1: This is neither")])
    take(3, file("old.json", json.dumps([LLAMA])), file("conversations.json", json.dumps([CHATGPT, large, CHATGPT])))
    expect(said).to_have_text("Large: It is too large (8.1 MB).")
    take(2, file("chatgpt.zip", zipped(user_json='{"id": 1}', conversations_json=json.dumps([CHATGPT, CHATGPT]))))
    expect(said).to_have_count(0)
    take(3, file("llama.zip", zipped(a_jsonl=jsonl, b_jsonl=f"{jsonl}\n{jsonl}", c_txt="no")))
    expect(rows(page)).to_have_count(10)
    with page.expect_download() as download:
        page.get_by_role("link", name="Export all").click()
    whole = Path(download.value.path()).read_text()
    assert len(json.loads(whole)["chats"]) == 10
    page.evaluate(DROP, ["#chats", "linnet-chats.json", whole])
    expect(rows(page)).to_have_count(20)
    expect(page.locator("#files-list li")).to_have_count(0)


def test_the_open_chat_gets_other_instructions_once_they_are_written_and_from_this_tab_alone(kept, open_page):
    page = open_page(kept)
    begin(page, "one")
    other = page.context.new_page()
    other.goto(page.url)
    expect(other.locator(".user .text")).to_have_text("one")
    changes: list[Any] = []
    for tab in (page, other):
        tab.on("request", lambda request: changes.append(request.post_data_json) if request.method == "PATCH" else None)
    page.keyboard.press("Control+,")
    page.get_by_label("Text of the instructions").press_sequentially("Be brief.")
    with page.expect_response(lambda response: response.request.method == "PATCH"):
        page.keyboard.press("Tab")
    assert changes == [{"system": "Be brief."}]
    page.keyboard.press("Escape")
    page.get_by_role("button", name="New chat", exact=True).click()
    page.keyboard.press("Control+,")
    page.get_by_label("Instructions", exact=True).select_option("Nothing")
    page.keyboard.press("Escape")
    link(page, "one").click()
    expect(page.locator("#set-system-said")).to_contain_text("The open chat has others: “Be brief.”")
    assert len(changes) == 1


def test_a_server_that_keeps_no_chats_shows_none(unkept, open_page):
    page = open_page(unkept)
    expect(page.locator("#chats")).to_be_hidden()
    expect(page.locator("#open-chats")).to_be_hidden()
    for key in ("Control+k", "Control+b", "F2", "Alt+a", "Alt+i", "Alt+s", "Alt+z"):
        page.keyboard.press(key)
    expect(page.locator("#note")).to_have_text("This chat is not stored.")
    ask(page, "hello")
    expect(answers(page).locator(".text")).to_have_text("Yes.")
    page.keyboard.press("Alt+p")
    expect(page.locator("#private")).to_be_visible()
