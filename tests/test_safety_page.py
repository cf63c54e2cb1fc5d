"""Whatever a model says: no script runs in its reader's browser, and nothing is sent anywhere. In a real Chromium."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import Dialog, expect

from engine.request import Event, Failed, Request, Trouble
from tests.browser import POLL, answers, ask, browser  # noqa: F401  # a fixture among them
from tests.conftest import PATIENCE_S, ROOT
from tests.stub import stub
from tests.test_api import ScriptedEngine, client_of
from web.markdown import render

pytestmark = pytest.mark.browser
CORPUS = (ROOT / "tests/corpus/xss.txt").read_text().split("\n%%\n")[1:]


class Canary(ThreadingHTTPServer):
    """Notes every request that reaches it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Noting)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.paths: list[str] = []
        self.called = threading.Event()


class Noting(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Canary)
        self.server.paths.append(self.path)
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<title>evil</title><body>")
        self.server.called.set()

    do_POST = do_HEAD = do_OPTIONS = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def canary() -> Iterator[Canary]:
    """No request may have reached it but the one that shows that it would have noted others."""
    canary = Canary()
    thread = threading.Thread(target=canary.serve_forever, daemon=True)
    thread.start()
    yield canary
    canary.shutdown()
    thread.join(PATIENCE_S)
    canary.server_close()


@pytest.fixture
def bare_page(browser):
    """A page without any policy, which would run and load whatever the sanitizer lets through."""
    context = browser.new_context()
    page = context.new_page()
    page.set_content("<title>bare</title><main></main>")
    yield page
    context.close()


# Everything in the page that a sanitized answer has no business to hold, as sentences.
SHOW = """async ([htmls, elements, attributes]) => {
  window.hits = 0;
  window.hit = () => { window.hits += 1; };
  const main = document.querySelector("main");
  const found = new Set();
  for (const html of htmls) {
    const part = document.createElement("div");
    main.append(part);
    part.innerHTML = html;
    for (const element of part.querySelectorAll("*")) {
      if (!elements.includes(element.localName)) found.add(`<${element.localName}> of ${html}`);
      for (const { name, value } of element.attributes) {
        if (!attributes.includes(name)) found.add(`${name}= of ${html}`);
        if (name === "href" && !["http:", "https:", "mailto:"].includes(new URL(value).protocol)) found.add(value);
      }
      if (element.localName === "a" && (element.target !== "_blank" || element.rel !== "noopener noreferrer nofollow"
          || element.title !== (element.getAttribute("href") ?? element.title))) found.add(element.outerHTML);
    }
    for (const tag of ["div", "template"]) {  // what is parsed again, or elsewhere, must not become anything else
      const again = document.createElement(tag);
      const same = document.createElement("div");
      again.innerHTML = part.innerHTML;
      same.append(...(again.content ?? again).childNodes);
      if (!same.isEqualNode(part)) found.add(`changes in a ${tag}: ${html}`);
    }
  }
  main.querySelectorAll("a").forEach((a) => a.dispatchEvent(new MouseEvent("mouseover", { bubbles: true })));
  await new Promise((done) => setTimeout(() => requestAnimationFrame(done)));
  return { found: [...found], hits: window.hits, title: document.title };
}"""
ELEMENTS = (
    "a blockquote br code div em h1 h2 h3 h4 h5 h6 hr li ol p pre s span strong table tbody td th thead tr ul "
    "math menclose mfrac mi mmultiscripts mn mo mover mpadded mphantom mprescripts mroot mrow mspace msqrt mstyle msub "
    "msubsup msup mtable mtd mtext mtr munder munderover"
).split()
ATTRIBUTES = (
    "class data-language href rel start target title "
    "accent accentunder columnalign columnlines columnspacing columnspan depth display displaystyle fence form height "
    "linethickness lspace mathvariant maxsize minsize movablelimits notation rowlines rowspacing rowspan rspace "
    "scriptlevel separator stretchy symmetric voffset width"
).split()


def noting(dialogs: list[str]) -> Callable[[Dialog], None]:
    """A dialog stops its page until it is answered."""

    def note(dialog: Dialog) -> None:
        dialogs.append(dialog.message)
        dialog.dismiss()

    return note


def call(page, canary: Canary) -> None:
    """A request that is no vector: after it, those of the vectors must have come, too."""
    page.evaluate("url => { new Image().src = url; }", f"{canary.url}/control")
    assert canary.called.wait(PATIENCE_S)


def test_nothing_of_the_corpus_runs_or_loads_anything_even_in_a_page_without_a_policy(bare_page, canary):
    http = client_of(ScriptedEngine())
    dialogs: list[str] = []
    bare_page.on("dialog", noting(dialogs))
    htmls = []
    for vector in CORPUS:
        blocks = http.post("/api/markdown", json={"text": vector.replace("CANARY", canary.url)}).get_json()["blocks"]
        htmls.append("".join(block["html"] for block in blocks))
    told = bare_page.evaluate(SHOW, [htmls, ELEMENTS, ATTRIBUTES])
    assert told == {"found": [], "hits": 0, "title": "bare"}
    call(bare_page, canary)
    assert canary.paths == ["/control"]
    assert dialogs == []


def test_nothing_of_the_corpus_does_so_while_it_is_half_written(bare_page, canary):
    texts = {vector[:n] for vector in CORPUS for n in range(1, len(vector), 5)}
    htmls = sorted({block.html for text in texts for block in render(text.replace("CANARY", canary.url))})
    told = bare_page.evaluate(SHOW, [htmls, ELEMENTS, ATTRIBUTES])
    assert told == {"found": [], "hits": 0, "title": "bare"}
    call(bare_page, canary)
    assert canary.paths == ["/control"]


def test_the_corpus_would_run_and_load_much_if_it_were_not_sanitized(bare_page, canary):
    bare_page.on("dialog", noting([]))
    # What the page's own parser would make of the worst of them; those that leave the page or need a reader are not tried.
    worst = [
        v.replace("CANARY", canary.url) for v in CORPUS if v.startswith(("<img", "<svg", "<link", "<details", "<video"))
    ]
    told = bare_page.evaluate(SHOW, [worst, ELEMENTS, ATTRIBUTES])
    assert told["found"]
    assert told["hits"] > 0
    assert canary.called.wait(PATIENCE_S)


# Notes what must never happen, from before the first script of the page.
WATCH = """
window.hits = [];
window.hit = () => window.hits.push("a script of the corpus ran");
document.addEventListener("securitypolicyviolation", ({ violatedDirective: rule, blockedURI: what }) => {
  window.hits.push(`${rule}: ${what}`);
});
"""
# What could load or run something, of which there must be no more than before; and what is strange in rendered text.
INSPECT = """([elements, risky]) => {
  const all = [...document.querySelectorAll("*")];
  const names = all.flatMap((element) => [...element.attributes].map(({ name }) => name));
  const inText = [...document.querySelectorAll(".block *")].filter((element) => !element.closest(".code-head"));
  return {
    counts: risky.map((tag) => `${all.filter(({ localName }) => localName === tag).length} ${tag}`),
    handlers: names.filter((name) => /^on|^(srcdoc|ping|action|formaction|background)$/.test(name)),
    inText: inText.map(({ localName }) => localName).filter((tag) => !elements.includes(tag)),
    hits: window.hits,
  };
}"""
RISKY = (
    "applet audio base canvas embed form frame iframe image img input link map marquee meta object picture plaintext portal "
    "script source style template textarea track use video"
).split()
EVIL = """"><img src=x onerror=hit()><script>hit()</script>"""


@pytest.fixture
def watched(browser):
    """A page that notes what must not happen; opened elsewhere, it holds what it holds when nothing evil is said."""
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(PATIENCE_S * 1000)
    expect.set_options(timeout=PATIENCE_S * 1000)
    page.add_init_script(WATCH)
    page.faults = []
    page.on("dialog", noting(page.faults))
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    yield page
    context.close()


def test_the_page_shows_the_corpus_wherever_it_may_stand_and_nothing_runs_or_leaves(watched, canary, tmp_path):
    corpus = [vector.replace("CANARY", canary.url) for vector in CORPUS]
    said = "\n\n".join(corpus)

    def script(request: Request) -> Iterator[Event | str]:
        if request.messages[-1]["content"] == "fail":
            yield Failed("", Trouble.INTERNAL, EVIL)
            return
        for text in ("\n\n".join(corpus[:15]), "</think>", said):
            for at in range(0, len(text), 200):
                yield text[at : at + 200]

    requested = []
    watched.on("request", lambda request: requested.append(request.url))
    with stub(script, name=EVIL, chats=tmp_path / "chats.db", thinking="open") as server:
        chat = watched.request.post(f"{server.url}/api/chats", data={"title": EVIL, "system": EVIL}).json()
        question = {"parent": None, "content": said[:8000], "files": [{"name": EVIL, "text": said[:8000]}]}
        watched.request.post(f"{server.url}/api/chats/{chat['id']}/messages", data=question)
        watched.goto(server.url)
        expect(watched.locator("#model")).to_contain_text("onerror")
        before = watched.evaluate(INSPECT, [ELEMENTS, RISKY])
        for text, shown in ((said[:5000], "body"), ("fail", EVIL)):
            ask(watched, text)
            expect(answers(watched).last).to_contain_text(shown)
            expect(watched.get_by_role("button", name="Send")).to_be_visible()
        assert watched.evaluate(INSPECT, [ELEMENTS, RISKY]) == before
        watched.goto(f"{server.url}/#{chat['id']}")
        watched.reload()
        expect(watched.locator(".turn.user .text")).to_contain_text("onerror")
        assert watched.evaluate(INSPECT, [ELEMENTS, RISKY]) == before
        assert [url for url in requested if not url.startswith(server.url)] == []
    assert before["hits"] == before["handlers"] == watched.faults == canary.paths == []


def test_an_answer_that_could_not_be_rendered_is_text_until_the_server_is_there_again(watched):
    watched.route("**/api/markdown", lambda route: route.abort())
    with stub(lambda _: ["**bold** <b>word</b>"]) as server:
        watched.goto(server.url)
        ask(watched, "hello")
        expect(answers(watched).locator(".facts")).to_contain_text("token")
        expect(answers(watched).locator(".text")).to_have_text("**bold** <b>word</b>")
        watched.unroute("**/api/markdown")
        watched.evaluate(POLL)
        expect(answers(watched).locator(".text strong")).to_have_text("bold")
        expect(answers(watched).locator(".text")).to_have_text("bold <b>word</b>")
    assert watched.faults == []


# What a page can try at a server that it may not use: all ways to send something, and all to read an answer.
ATTACK = """async (url) => {
  const chat = JSON.stringify({ messages: [{ role: "user", content: "stolen" }] });
  const post = (path, options) => fetch(url + path, { method: "POST", body: chat, ...options });
  const json = { headers: { "Content-Type": "application/json" } };
  const loads = (tag, attributes) => new Promise((done) => {
    const element = Object.assign(document.createElement(tag), attributes, { onload: () => done(), onerror: () => done() });
    document.body.append(element);
  });
  const sent = (fields) => new Promise((done) => {
    const frame = Object.assign(document.createElement("iframe"), { name: "target", onload: () => done() });
    const form = Object.assign(document.createElement("form"), { target: "target", ...fields });
    form.append(Object.assign(document.createElement("input"), { name: '{"messages": [], "a": "', value: '"}' }));
    document.body.append(frame, form);
    form.submit();
  });
  const tried = await Promise.allSettled([
    ...["/v1/chat/completions", "/chat/completions", "/api/chats", "/api/session"].flatMap((path) => [
      post(path, json), post(path, { mode: "no-cors" }), post(path, { ...json, credentials: "include" }),
    ]),
    fetch(url + "/v1/models/download", { method: "DELETE" }),
    ...["/", "/v1/models", "/api/chats", "/health", "/status"].map((path) => fetch(url + path).then((r) => r.text())),
    ...["/v1/models", "/web/linnet.svg"].map((path) => fetch(url + path, { mode: "no-cors" }).then((r) => r.text())),
  ]);
  navigator.sendBeacon(url + "/v1/chat/completions", chat);
  await loads("script", { src: `${url}/web/page.js` });
  await loads("img", { src: `${url}/web/linnet.svg` });
  await loads("link", { rel: "stylesheet", href: `${url}/web/page.css` });
  await loads("iframe", { src: url });
  await sent({ action: `${url}/v1/chat/completions`, method: "post", enctype: "text/plain" });
  return {
    read: tried.map(({ value }) => value).filter((value) => typeof value === "string" && value),
    image: document.querySelector("img").naturalWidth,
  };
}"""


@pytest.mark.parametrize("home", ["http://127.0.0.1:{port}/", "http://localhost:{port}/", "http://evil.localhost:{port}/"])
def test_a_page_of_another_site_can_neither_read_nor_start_anything(browser, canary, tmp_path, caplog, home):
    caplog.set_level(logging.INFO, "linnet")
    context = browser.new_context()
    page = context.new_page()
    with stub(lambda _: ["said"], chats=tmp_path / "chats.db") as server:
        page.goto(home.format(port=canary.server_port))
        told = page.evaluate(ATTACK, server.url)
        kept = context.request.get(f"{server.url}/api/chats").json()["chats"]
        context.close()
        assert server.engine.requests == kept == told["read"] == []
        assert told["image"] == 0
    lines = [record.getMessage() for record in caplog.records]
    statuses = {
        line: line.rpartition(" ")[2] for line in lines if line.startswith(("GET /", "POST /", "DELETE /", "OPTIONS /"))
    }
    assert statuses.pop("GET /api/chats 200")  # the test's own
    assert "POST /v1/chat/completions 403" in statuses
    assert set(statuses.values()) == {"403"}
