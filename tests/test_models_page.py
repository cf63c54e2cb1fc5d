"""The models dialog of the chat page, in a real Chromium, against the real server and a hub of our own."""

from __future__ import annotations

import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests import hub as fake
from tests.browser import CONTRAST, answers, ask, browser, endless, open_page  # noqa: F401  # fixtures among them
from tests.conftest import DEMO, Server
from tests.hub import NAME, REPO, File, Hub

pytestmark = pytest.mark.browser
MODEL = NAME.removesuffix(".gguf")
OTHER = "other"  # a second model, installed
FACTS = {"good_for": "tests", "licence": "MIT", "reasoning": True, "parameters": 1_100_000_000}
Dialog = Callable[..., Page]


def entry(name: str, **more: object) -> dict[str, Any]:
    """One of the catalog, as the server tells it."""
    unknown = dict.fromkeys(["fetch", "parameters", "good_for", "licence", "reasoning", "memory_bytes", "tokens_per_s"])
    known = {"name": name, "installed": False, "bytes": 4_680_000_000, "available_bytes": 6 * 10**9, "verdict": "unknown"}
    return known | unknown | {"recommended": False} | more


@pytest.fixture
def hub() -> Iterator[Hub]:
    """It has one model: the demo under another name."""
    with Hub({NAME: File(DEMO.read_bytes())}) as hub:
        yield hub


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the models of these tests are."""
    folder = tmp_path / "models"
    folder.mkdir()
    shutil.copy(DEMO, folder / f"{OTHER}.gguf")
    return folder


@pytest.fixture
def house(hub, folder, monkeypatch) -> Iterator[Server]:
    """A server with this folder and this hub."""
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    server = Server("--models-dir", str(folder))
    yield server
    server.end(signal.SIGKILL)


@pytest.fixture
def dialog(house, open_page) -> Dialog:
    """Opens the page and its dialog, in which these are the catalog."""

    def dialog(*entries: dict[str, Any], **options) -> Page:
        page: Page = open_page(house, **options)
        tell_catalog(page, *entries)
        page.locator("#model").click()
        expect(row(page, "demo").get_by_role("button", name="In use")).to_be_visible()
        return page

    return dialog


def tell_catalog(page: Page, *entries: dict[str, Any]) -> None:
    page.route("**/models/catalog", lambda route: route.fulfill(json={"object": "list", "data": entries}))


def row(page: Page, name: str) -> Locator:
    return page.locator("#models-list > li", has=page.get_by_role("heading", name=name, exact=True))


def press(where: Locator, name: str) -> None:
    where.get_by_role("button", name=name, exact=True).click()


def fetch(page: Page, wanted: str) -> None:
    page.get_by_label("Another model").fill(wanted)
    page.keyboard.press("Enter")


def slowly(handler: fake.Handler, content: bytes) -> bool:
    """The whole file in two seconds."""
    handler.begin(200, Content_Length=len(content))
    n_bytes = len(content) // 40 + 1
    for start in range(0, len(content), n_bytes):
        handler.wfile.write(content[start : start + n_bytes])
        time.sleep(0.05)
    return True


def test_a_row_tells_what_is_known_of_a_model(dialog):
    facts = FACTS | {"memory_bytes": 5_200_000_000, "tokens_per_s": 2.31, "verdict": "slow", "recommended": True}
    page = dialog(entry("tiny", **facts), entry("huge", fetch="owner/huge", verdict="does not fit"))
    text = row(page, "tiny").inner_text()
    for fact in ("recommended", "tests", "4.68 GB · 1.1 B parameters · MIT · thinks aloud", "slow · about 2.3 tokens/s"):
        assert fact in text
    assert "needs 5.20 GB of memory; 6.00 GB free" in text
    expect(row(page, "huge").locator(".bad")).to_have_text("does not fit")
    assert row(page, "huge").get_by_role("button").all_inner_texts() == ["Download"]
    assert row(page, "demo").get_by_role("button").all_inner_texts() == ["In use"], "the default cannot be deleted"
    assert row(page, OTHER).get_by_role("button").all_inner_texts() == ["Use", "Delete"]


def test_another_model_is_fetched_used_remembered_and_deleted(dialog, folder):
    page = dialog()
    fetch(page, REPO)
    press(row(page, MODEL), "Use")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.get_by_label("Your message")).to_be_focused()
    page.reload()
    expect(page.locator("#model")).to_have_text(MODEL)
    with page.expect_request("**/v1/chat/completions") as sent:
        ask(page, "What is the capital of France?")
    assert sent.value.post_data_json["model"] == MODEL
    expect(answers(page).locator(".text")).to_contain_text("Paris")
    expect(answers(page).locator(".facts")).to_contain_text("tokens/s")

    page.locator("#model").click()
    press(row(page, MODEL), "Delete")
    expect(page.get_by_role("button", name="No")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Delete it")).to_be_hidden()
    assert (folder / NAME).exists()
    press(row(page, MODEL), "Delete")
    press(row(page, MODEL), "Delete it")
    expect(row(page, MODEL)).to_have_count(0)
    assert not (folder / NAME).exists()
    expect(page.locator("#note")).to_have_text(f"The model {MODEL} is no longer there; demo answers from now on.")
    expect(page.locator("#model")).to_have_text("demo")
    assert page.evaluate("localStorage.model") is None


def test_a_download_survives_closing_and_reloading_and_is_cancelled_by_the_button_only(dialog, hub, folder):
    hub.faults.append(fake.stall(300_000))
    page = dialog(entry("tiny", fetch=REPO))
    press(row(page, "tiny"), "Download")
    expect(row(page, "tiny").get_by_text(re.compile(r"^\d+ kB of 6\.0 MB$"))).to_be_visible()
    expect(row(page, "tiny").get_by_role("progressbar", name="Download of tiny")).to_be_visible()
    expect(row(page, "tiny").get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.locator("#model").click()
    expect(row(page, "tiny").get_by_role("progressbar")).to_be_visible()
    page.reload()
    page.locator("#model").click()
    expect(row(page, "tiny").get_by_role("progressbar")).to_be_visible()
    press(row(page, "tiny"), "Cancel")
    expect(row(page, "tiny").get_by_role("button", name="Download")).to_be_focused()
    expect(row(page, "tiny").get_by_role("alert")).to_have_count(0)
    assert len(hub.bodies()) == 1
    press(row(page, "tiny"), "Download")
    expect(row(page, MODEL).get_by_role("button", name="Use")).to_be_visible()
    assert (folder / NAME).read_bytes() == DEMO.read_bytes()


def test_nothing_moves_while_a_download_goes_on(dialog, hub):
    hub.faults.append(slowly)
    page = dialog(entry("tiny", fetch=REPO), entry("below", fetch="owner/below"), viewport={"width": 320, "height": 900})
    press(row(page, "tiny"), "Download")
    speed = row(page, "tiny").locator("[data-part=speed]")
    expect(speed).to_have_text(re.compile(r"^[\d.]+ [kM]B/s · \d\d:\d\d left$"))
    seen = set()
    while row(page, "tiny").get_by_role("button", name="Cancel").is_visible():
        if box := row(page, "below").bounding_box():
            seen.add((speed.inner_text()[-4:] == "left", box["y"]))
        time.sleep(0.05)
    assert len({y for downloading, y in seen if downloading}) == 1


def test_an_error_is_told_in_its_row_in_the_servers_words_and_as_text(dialog, hub):
    page = dialog(entry("tiny", fetch=REPO))
    for wanted in ("owner/none", "owner/<img src=x>"):
        with page.expect_response("**/models/download") as answer:
            fetch(page, wanted)
        alert = row(page, wanted).get_by_role("alert")
        expect(alert).to_contain_text(re.compile("hub|no model"))
        if answer.value.status == 400:
            assert alert.inner_text() == answer.value.json()["error"]["message"]
    assert page.locator("dialog img").count() == 0
    hub.files[NAME].record["sha256"] = "0" * 64
    press(row(page, "tiny"), "Download")
    expect(row(page, "tiny").get_by_role("alert")).not_to_be_empty()
    assert row(page, "tiny").get_by_role("button").all_inner_texts() == ["Download"]


def test_what_is_no_model_is_told_when_it_is_to_be_used_and_the_one_before_stays(dialog, folder):
    (folder / f"{OTHER}.gguf").write_bytes(b"GGUF" + b"x" * 100)
    page = dialog()
    press(row(page, OTHER), "Use")
    expect(row(page, OTHER).get_by_role("alert")).to_contain_text("cannot be loaded")
    expect(page.locator("#model")).to_have_text("demo")
    assert page.evaluate("localStorage.model") is None


def test_a_model_that_should_not_be_loaded_needs_another_click(dialog):
    page = dialog()
    bodies: list[Any] = []

    def load(route: Route) -> None:
        bodies.append(route.request.post_data_json)
        if bodies[-1]["force"]:
            return route.continue_()
        error = {"message": "It would be slow.", "type": "x", "param": "model", "code": "model_needs_force"}
        return route.fulfill(status=409, json={"error": error})

    page.route("**/models/load", load)
    press(row(page, OTHER), "Use")
    expect(row(page, OTHER).get_by_text("It would be slow.")).to_be_visible()
    expect(row(page, OTHER).get_by_role("button", name="No")).to_be_focused()
    expect(page.locator("#model")).to_have_text("demo")
    press(row(page, OTHER), "Load it all the same")
    expect(page.locator("#model")).to_have_text(OTHER)
    assert bodies == [{"model": OTHER, "force": False}, {"model": OTHER, "force": True}]


def test_the_page_says_that_a_model_is_being_loaded(dialog):
    page = dialog()
    held: list[Route] = []
    page.route("**/models/load", lambda route: held.append(route))
    press(row(page, OTHER), "Use")
    expect(page.locator("#model")).to_have_text(f"loading {OTHER} …")
    expect(row(page, OTHER).get_by_role("button", name="Loading …")).to_be_focused()
    held.pop().continue_()
    expect(page.locator("#model")).to_have_text(OTHER)


def test_a_chosen_model_that_is_gone_gives_way_to_the_default(house, folder, open_page):
    page = open_page(house)
    page.evaluate(f"localStorage.model = '{OTHER}'")
    page.reload()
    expect(page.locator("#model")).to_have_text(OTHER)
    (folder / f"{OTHER}.gguf").unlink()
    ask(page, "hello")
    expect(answers(page).get_by_role("alert")).to_contain_text("does not exist")
    expect(page.locator("#note")).to_contain_text("demo answers from now on")
    ask(page, "hello")
    expect(answers(page).nth(1).locator(".facts")).to_contain_text("tokens")
    expect(page.locator("#note")).to_be_empty()


def test_escape_closes_the_dialog_and_leaves_the_answer_alone(endless, open_page):
    page = open_page(endless)
    tell_catalog(page)
    ask(page, "go on")
    expect(answers(page).locator(".text")).not_to_be_empty()
    page.locator("#model").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="Models")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.locator("#model")).to_be_focused()
    expect(page.get_by_role("button", name="Stop")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_dialog_fits_a_narrow_screen(dialog, scheme):
    page = dialog(entry("a" * 60, fetch=REPO), viewport={"width": 320, "height": 500}, color_scheme=scheme)
    for box in ("document.documentElement", "document.querySelector('#models-body')"):
        assert page.evaluate(f"{box}.scrollWidth <= {box}.clientWidth")
    expect(page.get_by_label("Another model")).to_be_in_viewport(ratio=1)
    assert page.evaluate(CONTRAST.replace("document.body", "document.querySelector('#models')")) >= 7
