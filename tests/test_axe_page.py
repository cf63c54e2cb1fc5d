"""The main states of the page have no fault that axe-core knows: names, roles, contrast. In a real Chromium."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from engine.request import Request
from tests.browser import answers, ask, browser, open_page  # noqa: F401  # fixtures among them
from tests.conftest import ROOT
from tests.stub import StubServer, stub

pytestmark = pytest.mark.browser
AXE = ROOT / "build/node/node_modules/axe-core/axe.min.js"  # scripts/setup.py --dev puts it there
ANSWER = """# A title

Text with `code`, a [link](https://example.com) and $e^{i\\pi}$:

```python
def double(n: int) -> int:
    return 2 * n  # a comment
```

| Name | Value |
|------|------:|
| a    |     1 |

> A quotation.

- [x] done
- open
"""
RUN = """async ([tags, behind]) => {
  const { violations } = await axe.run(document, { runOnly: tags, resultTypes: ["violations"] });
  return violations.filter(({ id }) => !behind.includes(id)).flatMap(({ id, nodes }) =>
    nodes.map(({ html, any }) => `${id}: ${html.slice(0, 160)} ${any[0]?.message ?? ""}`));
}"""
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
BEHIND = ("landmark-one-main", "page-has-heading-one")  # inert while the chats lie over it
SCHEMES = ["light", "dark"]


def script(request: Request) -> list[str]:
    return ["It is asked for all of it.", "</think>\n\n", ANSWER]


@pytest.fixture(scope="module")
def said(tmp_path_factory) -> Iterator[StubServer]:
    """A server that keeps chats."""
    with stub(script, chats=tmp_path_factory.mktemp("kept") / "chats.db", thinking="open") as server:
        yield server


@pytest.fixture(scope="module")
def axe() -> str:
    """Its script. Where it was not installed the tests are skipped; on CI that is a failure."""
    if not AXE.exists():
        assert not os.environ.get("CI"), "no axe-core: the page was not checked"
        pytest.skip("axe-core is not installed")
    return AXE.read_text()


def check(page: Page, axe: str, state: str, behind: tuple[str, ...] = ()) -> None:
    """Everything that is to be seen now, at rest; but not the rules about what is `behind` it."""
    page.evaluate("Promise.all(document.getAnimations().map((a) => a.effect.getTiming().iterations === 1 && a.finished))")
    if not page.evaluate("'axe' in window"):
        page.evaluate(axe)
    assert page.evaluate(RUN, [TAGS, behind]) == [], state


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_chat_page_has_no_fault_that_axe_knows(said, axe, open_page, scheme):
    page = open_page(said, color_scheme=scheme, reduced_motion="reduce")
    expect(page.locator("#status-facts")).to_contain_text("stub")
    check(page, axe, "empty")
    ask(page, "All of it, please.")
    expect(answers(page).get_by_role("button", name="Delete answer")).to_be_attached()
    expect(answers(page).locator("table")).to_be_visible()
    answers(page).locator("summary").click()
    expect(answers(page).locator(".thought")).to_contain_text("asked")
    expect(page.locator("#chat-list li")).not_to_have_count(0)
    answers(page).locator(".actions button").first.focus()
    check(page, axe, "chat")
    for name, opens in {"Settings": "Settings", "stub": "Models", "Keys": "Keys"}.items():
        page.get_by_role("button", name=name, exact=True).first.click()
        dialog = page.get_by_role("dialog", name=opens)
        expect(dialog).to_be_visible()
        if opens == "Models":
            expect(dialog.get_by_role("listitem")).not_to_have_count(0)
        check(page, axe, opens)
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
    page.set_viewport_size({"width": 320, "height": 640})
    check(page, axe, "narrow")
    page.get_by_role("button", name="Chats", exact=True).click()
    expect(page.locator("#chat-list")).to_be_visible()
    check(page, axe, "drawer", BEHIND)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_status_page_has_no_fault_that_axe_knows(said, axe, open_page, scheme):
    page = open_page(said, color_scheme=scheme)
    page.goto(f"{said.url}/status")
    expect(page.locator("#rows tr")).not_to_have_count(0)
    check(page, axe, "status")
