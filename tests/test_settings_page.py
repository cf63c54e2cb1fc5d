"""The settings, the status line and the first run, in a real Chromium."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from engine.tally import MINUTES
from tests import hub as fake
from tests.browser import CONTRAST, POLL, browser, open_page  # noqa: F401  # fixtures
from tests.conftest import DEMO, Server
from tests.hub import NAME, REPO, File, Hub
from tests.stub import StubServer, stub
from tests.test_models_page import entry, tell_catalog

pytestmark = pytest.mark.browser
MODEL = NAME.removesuffix(".gguf")
DEFAULTS = {"max_tokens": 2048}  # what the page asks for where nothing was chosen
# Controls without a name, as those who do not see the page are told it.
NAMELESS = """() => [...document.querySelectorAll("dialog[open] :is(input, select, textarea, button)")]
  .filter((node) => node.offsetParent && !(node.labels?.length || node.ariaLabel || node.textContent.trim()))
  .map((node) => node.id)"""


@pytest.fixture(scope="module")
def told() -> Iterator[StubServer]:
    """A server that answers at once."""
    with stub(lambda _: ["Yes."]) as server:
        yield server


@pytest.fixture(scope="module")
def own_minded() -> Iterator[StubServer]:
    """Another one, whose defaults are its own."""
    with stub(lambda _: ["Yes."], temperature=0.9, greedy_below=0.5, early_stop=True) as server:
        yield server


def settings(page: Page) -> Page:
    page.get_by_role("button", name="Settings", exact=True).click()
    expect(page.get_by_role("dialog", name="Settings")).to_be_visible()
    return page


def module(page: Page, expression: str) -> Any:
    """What the module of the settings tells the others."""
    return page.evaluate(f"import('/web/settings.js').then((settings) => {expression})")


def options(page: Page) -> Any:
    return module(page, "settings.options()")


def test_what_is_chosen_is_asked_for_kept_and_can_be_taken_back(told, open_page):
    page = settings(open_page(told))
    assert options(page) == DEFAULTS
    expect(page.get_by_label("Seed")).to_be_disabled()
    page.get_by_label("Temperature as a number").fill("9")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Temperature", exact=True)).to_have_value("2")
    page.get_by_label("Temperature", exact=True).fill("0.8")
    expect(page.get_by_text("Answers vary")).to_be_visible()
    page.get_by_label("Seed").fill("7")
    page.get_by_label("Longest answer").select_option("256")
    page.get_by_label("Brief answers").check()
    page.get_by_label("Reasoning").select_option("none")
    page.get_by_label("When a chat outgrows the context").select_option("leave-out-oldest")
    page.get_by_label("Read while I type").uncheck()
    page.reload()
    chosen = {"temperature": 0.8, "seed": 7, "max_tokens": 256, "early_stop": True, "reasoning_effort": "none"}
    assert options(page) == chosen
    assert module(page, "['onContextFull', 'prefillWhileTyping'].map(settings.preference)") == ["leave-out-oldest", False]
    settings(page)
    expect(page.get_by_label("Seed")).to_have_value("7")
    page.get_by_label("Temperature", exact=True).fill("0.25")
    assert "seed" not in options(page), "a greedy answer needs none"
    page.get_by_label("Longest answer").select_option("No limit but the context")
    assert "max_tokens" not in options(page)
    page.get_by_role("button", name="Restore defaults").click()
    assert options(page) == DEFAULTS
    expect(page.get_by_label("Read while I type")).to_be_checked()


def test_what_the_server_is_set_to_counts_where_nothing_is_chosen(own_minded, open_page):
    page = settings(open_page(own_minded))
    expect(page.get_by_label("Temperature as a number")).to_have_value("0.9")
    expect(page.get_by_text("Below 0.5 is greedy")).to_be_visible()
    expect(page.get_by_label("Brief answers")).to_be_checked()
    assert options(page) == DEFAULTS
    page.get_by_label("Brief answers").uncheck()
    assert options(page) == DEFAULTS | {"early_stop": False}


def test_instructions_come_from_presets_are_written_anew_and_saved(told, open_page):
    page = settings(open_page(told))
    presets, text = page.get_by_label("Instructions", exact=True), page.get_by_label("Text of the instructions")
    presets.select_option("Tutor")
    assert module(page, "settings.systemPrompt()") == text.input_value() != ""
    text.fill("You are a pirate.")
    expect(presets).to_have_value("custom")
    name = page.get_by_label("Name of a preset")
    name.fill("Pirate")
    name.dispatch_event("keydown", {"key": "Enter", "keyCode": 229, "isComposing": True})  # which ends a composition
    expect(name).to_have_value("Pirate")
    page.keyboard.press("Enter")
    expect(presets.locator("option:checked")).to_have_text("Pirate")
    presets.select_option("Nothing")
    assert module(page, "settings.systemPrompt()") == ""
    other = page.context.new_page()
    other.goto(told.url)
    settings(other).get_by_label("Instructions", exact=True).select_option("Pirate")
    expect(text).to_have_value("You are a pirate.")  # two tabs agree
    page.get_by_role("button", name="Delete the preset").click()
    expect(presets.locator("option", has_text="Pirate")).to_have_count(0)
    assert module(page, "settings.systemPrompt()") == "You are a pirate."


def test_the_answers_kept_are_told_and_forgotten(tmp_path, open_page):
    with Server("--cache-dir", str(tmp_path), "--chats", "none", keep=True) as server, server.client() as client:
        client.chat.completions.create(model="demo", messages=[{"role": "user", "content": "hello"}])
        page = open_page(server)
        expect(page.locator("#status-line")).to_contain_text("1 kept")
        settings(page)
        expect(page.locator("#set-kept")).to_have_text(re.compile(r"^1 kept · \d"))
        page.get_by_role("button", name="Forget them all").click()
        expect(page.locator("#settings-said")).to_have_text("1 answer is forgotten.")
        expect(page.locator("#set-kept")).to_have_text(re.compile("^0 kept"))
        expect(page.locator("#status-line")).to_contain_text("0 kept")


def test_the_model_is_loaded_anew_for_longer_chats(open_page):
    with Server("--ctx", "1500") as server:
        page = settings(open_page(server))
        choice, said = page.get_by_label("Longest chat"), page.locator("#settings-said")
        expect(choice).to_have_value("1500")
        assert choice.locator("option").evaluate_all("(all) => all.map(({ value }) => value)") == ["1024", "1500", "2048"]
        choice.select_option("2048")
        page.get_by_role("button", name="Load with this context").click()
        expect(said).to_have_text("The model is loaded.")
        expect(page.locator("#status-facts")).to_contain_text("of 2,048 tokens")
        assert page.evaluate("localStorage.model ?? null") is None, "the default was not chosen"


def test_a_context_that_does_not_fit_needs_the_same_yes_as_a_model_and_a_second_click_does_nothing(told, open_page):
    page = settings(open_page(told))
    tell_catalog(page)
    asked: list[Route] = []

    def load(route: Route) -> None:
        asked.append(route)
        if len(asked) > 1:
            route.fulfill(json={})

    page.route("**/models/load", load)
    page.get_by_label("Longest chat").select_option("1024")
    button, said = page.get_by_role("button", name="Load with this context"), page.locator("#settings-said")
    for _ in range(2):
        button.click()
        expect(said).to_have_text("Loading the model …")
    for _ in range(3):
        page.evaluate("import('/web/models.js').then((models) => models.lookForModels())")  # one more would open it
    expect(page.get_by_role("dialog", name="Models")).to_be_hidden()
    error = {"message": "It does not fit.", "type": "x", "param": "model", "code": "model_needs_force"}
    asked[0].fulfill(status=409, json={"error": error})
    question = page.get_by_role("group", name="It does not fit.")
    expect(question.get_by_role("button", name="No")).to_be_focused()
    expect(said).to_be_empty()
    question.get_by_role("button", name="Load it all the same").click()
    expect(page.get_by_role("dialog", name="Models")).to_be_hidden()
    expect(button).to_be_focused()
    bodies = [route.request.post_data_json for route in asked]
    assert bodies == [{"model": "stub", "force": force, "ctx": 1024} for force in (False, True)]


def test_the_dialog_is_named_and_needs_no_mouse(told, open_page):
    page = open_page(told)
    opener = page.get_by_role("button", name="Settings", exact=True)
    opener.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="Settings")).to_be_visible()
    assert page.evaluate(NAMELESS) == []
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(opener).to_be_focused()
    page.keyboard.press("Enter")
    page.locator("#settings").get_by_role("button", name="stub").click()
    expect(page.get_by_role("dialog", name="Models")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_dialog_fits_a_narrow_screen(told, open_page, scheme):
    page = settings(open_page(told, viewport={"width": 320, "height": 500}, color_scheme=scheme))
    for box in ("document.documentElement", "document.querySelector('#settings-body')"):
        assert page.evaluate(f"{box}.scrollWidth <= {box}.clientWidth")
    expect(page.get_by_role("button", name="Restore defaults")).to_be_in_viewport(ratio=1)
    assert page.evaluate(CONTRAST.replace("document.body", "document.querySelector('#settings')")) >= 7


def test_the_status_line_tells_the_model_and_the_load_and_when_the_server_is_gone(told, open_page):
    page = open_page(told)
    line = page.locator("#status-line")
    expect(line).to_contain_text("stub · 0 of 2,048 tokens · idle")
    page.evaluate("import('/web/statusline.js').then((line) => line.setUsed(2000))")
    expect(line.locator(".full")).to_contain_text("2,000 of 2,048 tokens")
    page.route("**/status", lambda route: route.abort())
    for _ in range(2):
        page.evaluate(POLL)
    expect(line).to_contain_text("cannot be reached")
    page.unroute("**/status")
    page.evaluate(POLL)
    expect(line).to_contain_text("idle")
    expect(page.locator("#welcome")).to_contain_text("Everything stays on this computer.")
    expect(page.locator("#offer")).to_be_hidden()


@pytest.mark.parametrize(("width", "scheme"), [(320, "dark"), (1200, "light")])
def test_the_status_page_shows_it_all_at_any_width(server, client, open_page, width, scheme):
    page = open_page(server, viewport={"width": width, "height": 700}, color_scheme=scheme)
    client.chat.completions.create(model="demo", messages=[{"role": "user", "content": "hello"}])
    with page.expect_popup() as opened:
        page.get_by_role("link", name="Status").click()
    page = opened.value
    expect(page.get_by_role("status")).to_have_text("All is well.")
    expect(page.get_by_role("img", name=re.compile("^. of 4 slots are busy"))).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("^At most .* in a minute"))).to_be_visible()
    assert page.locator("#chart rect").count() == MINUTES
    assert page.locator("#chart rect").last.bounding_box()["height"] > 0
    expect(page.get_by_role("row", name=re.compile("^demo loaded 2,048"))).to_be_visible()
    expect(page.get_by_role("region", name="Remembered").locator(".large")).to_have_text("no answers")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CONTRAST) >= 7


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Server, Hub]]:
    """A server as it is at first, with the demo alone, and a hub that has another model."""
    with Hub({NAME: File(DEMO.read_bytes())}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        (tmp_path / "models").mkdir()
        shutil.copy(DEMO, tmp_path / "models" / "older.gguf")
        server = Server("--models-dir", str(tmp_path / "models"))
        yield server, hub
        server.end(signal.SIGKILL)


def recommending(page: Page) -> None:
    facts = {"good_for": "tests", "tokens_per_s": 12.3, "recommended": True, "bytes": 6_000_000}
    tell_catalog(page, entry("suiting", fetch=REPO, **facts))


def test_the_demo_greets_and_its_offer_is_fetched_and_used_also_across_a_reload(fresh, open_page):
    server, hub = fresh
    hub.faults.append(fake.stall(300_000))
    page = open_page(server)
    recommending(page)
    page.reload()
    expect(page.get_by_role("heading", name="Hello! I am the demo model.")).to_be_visible()
    offer = page.get_by_role("group", name="A bigger model")
    for fact in ("suiting", "tests", "6.0 MB", "about 12 tokens/s"):
        expect(offer.get_by_text(fact, exact=False)).to_be_in_viewport(ratio=1)
    offer.get_by_role("button", name="Download").click()
    expect(offer.get_by_role("button", name="Cancel")).to_be_focused()
    expect(offer).to_contain_text(re.compile(r"\d+ kB of 6\.0 MB"))
    page.reload()
    expect(offer).to_contain_text(re.compile(r"\d+ kB of 6\.0 MB"))  # it went on without the page
    offer.get_by_role("button", name="Cancel").click()
    expect(offer.get_by_role("button", name="Download")).to_be_focused()
    assert page.evaluate("localStorage.getting ?? null") is None
    offer.get_by_role("button", name="Download").click()
    expect(page.locator("#model")).to_have_text(MODEL)
    expect(page.locator("#note")).to_have_text(f"{MODEL} answers from now on.")
    expect(offer).to_be_hidden()
    expect(page.get_by_label("Your message")).to_be_focused()
    expect(page.locator("#spoken")).to_have_text(f"{MODEL} is installed.")
    assert options(page)["model"] == MODEL
    page.reload()
    expect(page.locator("#status-line")).to_contain_text(MODEL)
    expect(page.get_by_role("heading", name="What would you like to know?")).to_be_visible()


def test_a_model_that_came_while_the_page_was_closed_is_used_but_not_where_it_is_slow_unless_told_so(fresh, open_page):
    server, _ = fresh
    page = open_page(server)
    tell_catalog(page, entry("older", installed=True, recommended=True))
    error = {"message": "It would be slow.", "type": "x", "param": "model", "code": "model_needs_force"}
    page.route("**/models/load", lambda route: route.fulfill(status=409, json={"error": error}))
    page.evaluate("localStorage.getting = 'old'")
    page.reload()
    dialog = page.get_by_role("dialog", name="Models")
    expect(dialog.get_by_role("group", name="It would be slow.")).to_be_visible()
    expect(page.locator("#model")).to_have_text("demo")
    expect(dialog.get_by_role("button", name="No")).to_be_focused()
    page.keyboard.press("Escape")
    offer = page.get_by_role("group", name="A bigger model")
    page.keyboard.press("Escape")
    expect(offer).to_be_visible()
    expect(offer.get_by_text("It would be slow.")).to_be_hidden()
    offer.get_by_role("button", name="Use").click()
    page.unroute("**/models/load")
    dialog.get_by_role("button", name="Load it all the same").click()
    expect(page.locator("#model")).to_have_text("older")
    expect(offer).to_be_hidden()
    expect(page.get_by_role("heading", name="What would you like to know?", include_hidden=True)).to_be_attached()
    assert page.evaluate("localStorage.getting ?? null") is None


def test_a_download_that_fails_says_why_where_it_was_begun(fresh, open_page):
    server, hub = fresh
    hub.files[NAME].record["sha256"] = "0" * 64
    page = open_page(server)
    recommending(page)
    page.reload()
    offer = page.get_by_role("group", name="A bigger model")
    offer.get_by_role("button", name="Download").click()
    expect(offer.get_by_role("alert")).not_to_be_empty()
    expect(offer.get_by_role("button", name="Download")).to_be_visible()
    expect(page.locator("#model")).to_have_text("demo")


def test_a_download_whose_connection_is_lost_is_joined_again_unless_it_was_cancelled(fresh, open_page):
    server, _ = fresh
    begun: list[Route] = []

    def download(route: Route) -> None:
        if route.request.method == "DELETE":
            return route.fulfill(json={})
        if route.request.method == "POST":
            begun.append(route)
            if len(begun) == 1:
                return None  # until it is lost, below
            if len(begun) == 2:
                progress = f'data: {{"model": "{REPO}", "state": "downloading", "bytes": 1, "total_bytes": 2}}'
                return route.fulfill(body=f"{progress}\n\n", content_type="text/event-stream")
            if len(begun) == 3:
                return route.abort()
        return route.continue_()

    page = open_page(server)
    recommending(page)
    page.route("**/models/download", download)
    page.reload()
    offer = page.get_by_role("group", name="A bigger model")
    offer.get_by_role("button", name="Download").click()
    with page.expect_response(lambda response: response.request.method == "DELETE"):
        offer.get_by_role("button", name="Cancel").click()
    begun[0].abort()
    expect(offer.get_by_role("button", name="Download")).to_be_focused()
    expect(offer.get_by_role("alert")).to_have_count(0)
    assert len(begun) == 1
    offer.get_by_role("button", name="Download").click()
    expect(page.locator("#model")).to_have_text(MODEL)
    expect(page.locator("#note")).to_have_text(f"{MODEL} answers from now on.")
    assert len(begun) == 4
