"""api.titles: a chat gets its title from the model, when that has nothing else to do."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from api.pool import Model, Pool
from api.source import Source
from api.titles import POLL_S, PROMPT, Titles, Wish, cleaned
from engine.request import Event, Failed, Trouble
from engine.stream import State, Status, Stream
from tests.conftest import PATIENCE_S
from tests.stub import TellingEngine
from web.chats import Chats

MESSAGES = [{"role": "user", "content": "What is a linnet?"}, {"role": "assistant", "content": "A bird."}]


class Engine(TellingEngine):
    """Says a title; `busy` counts requests of others."""

    def __init__(self, *pieces, busy=()):
        super().__init__(lambda request: iter(pieces))
        self.busy = list(busy)
        self.n_params = 10**9

    def status(self) -> Status:
        others = self.busy.pop(0) if self.busy else 0
        status = super().status()
        assert status.ready
        return replace(status, n_requests=others, ready=replace(status.ready, n_params=self.n_params))


class Kept(Chats):
    """Tells when a chat got its title."""

    def __init__(self, file):
        super().__init__(file)
        self.entitled = threading.Event()

    def entitle(self, owner, id, title):
        super().entitle(owner, id, title)
        self.entitled.set()


@pytest.fixture
def kept(tmp_path):
    kept = Kept(tmp_path / "chats.db")
    yield kept
    kept.close()


def titles(engine, kept) -> Titles:
    return Titles(Pool(Model("fake", Source(engine))), kept, quiet_s=0)


def test_the_model_is_asked_at_the_end_of_the_chat_it_has_just_read(kept):
    engine = Engine('"A small', ' bird"')
    made, chat = titles(engine, kept), kept.create("anna")
    made.wish(Wish("anna", chat["id"], "fake", MESSAGES))
    assert kept.entitled.wait(PATIENCE_S)
    made.close()
    (asked,) = engine.requests
    assert asked.messages == [*MESSAGES, {"role": "user", "content": PROMPT}]
    assert (asked.think, asked.sampling.temperature) == (0, 0)
    assert kept.find_one("anna", chat["id"])["title"] == "A small bird"


def test_who_asks_meanwhile_goes_first_and_the_title_is_tried_again(kept):
    engine = Engine("Birds", busy=[0, 0, 2])  # it is looked at first, when it is quiet, and while the title is made
    made, chat = titles(engine, kept), kept.create("")
    made.wish(Wish("", chat["id"], None, MESSAGES))
    assert kept.entitled.wait(PATIENCE_S)
    made.close()
    assert len(engine.requests) == 2
    assert kept.find_one("", chat["id"])["title"] == "Birds"


def test_while_a_title_is_made_others_are_looked_for_more_often_than_when_the_engine_should_be_quiet(kept, monkeypatch):
    waits: list[float | None] = []
    wait = Stream.next

    def next_event(stream: Stream, timeout_s: float | None = None) -> Event | None:
        waits.append(timeout_s)
        return wait(stream, timeout_s)

    monkeypatch.setattr(Stream, "next", next_event)
    made, chat = titles(Engine("Birds"), kept), kept.create("")
    made.wish(Wish("", chat["id"], None, MESSAGES))
    assert kept.entitled.wait(PATIENCE_S)
    made.close()
    assert waits
    assert all(seconds is not None and seconds <= POLL_S / 4 for seconds in waits)


@pytest.mark.parametrize("why", ["titled", "small", "unloaded", "gone", "refused", "unknown model"])
def test_without_need_or_hope_no_title_is_made_and_the_next_chat_gets_its_own(kept, monkeypatch, why):
    engine = Engine("Birds")
    made, chat, next_chat = titles(engine, kept), kept.create(""), kept.create("")
    said, script, model = "Birds", engine.script, "fake"
    if why == "titled":
        kept.change("", chat["id"], {"title": "Mine"})
    elif why == "gone":
        kept.remove("", chat["id"])
    elif why == "unknown model":
        model = "x"
    elif why == "small":
        engine.n_params = 10**7
    elif why == "unloaded":
        engine.state = State.IDLE
    else:
        engine.script = lambda request: iter([Failed("", Trouble.CONTEXT_LENGTH, "Too long.")])
    looked = threading.Event()
    ask = made._fulfil

    def fulfil(wish: Wish) -> None:
        try:
            ask(wish)
        finally:
            looked.set()

    monkeypatch.setattr(made, "_fulfil", fulfil)
    made.wish(Wish("", chat["id"], model, MESSAGES))
    assert looked.wait(PATIENCE_S)
    engine.n_params, engine.state, engine.script = 10**9, State.READY, script
    made.wish(Wish("", next_chat["id"], "fake", MESSAGES))
    assert kept.entitled.wait(PATIENCE_S)
    made.close()
    assert kept.find_one("", next_chat["id"])["title"] == said
    if why != "gone":
        assert kept.find_one("", chat["id"])["title"] == ("Mine" if why == "titled" else "")


@pytest.mark.parametrize(
    ("said", "title"),
    [
        ("A small bird", "A small bird"),
        ('  "Birds of Europe."\n\nIt is about', "Birds of Europe"),
        ("**Title: Birds**", "Birds"),
        ("Title: Birds", "Birds"),
        ("# Birds", "Birds"),
        ("", ""),
        ("x", ""),
        ("The conversation is about birds, which are small and live in Europe and Asia.", ""),
    ],
)
def test_a_title_is_one_short_line_without_decoration(said, title):
    assert cleaned(said) == title
