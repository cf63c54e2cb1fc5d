"""Answers of chats that go on without a reader, over an engine that says what a test wants, when it wants it."""

from __future__ import annotations

import json
import signal
import sqlite3
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from api import runs
from api.app import create_app
from api.pool import Model, Pool
from api.source import Source
from cache.store import Store
from engine.request import Failed, Progress, Request, Trouble
from engine.thinking import Thinking
from settings import Settings
from tests.conftest import PATIENCE_S, Server
from tests.stub import TellingEngine, stub
from tests.test_api import error_of
from web.chats import Chats
from web.database import ChatsError

ME = ""
ASKED: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}


class Talk:
    """A chat with one question in it, and a scripted engine: what is put on `say` is said; the answer ends with None."""

    def __init__(self, chats: Chats, source: Source | None = None, **settings: Any) -> None:
        self.chats = chats
        self.turn = threading.Semaphore(0)
        self.pieces: list[Any] = []
        self.engine = TellingEngine(self._script)
        pool = Pool(Model("fake", source or Source(self.engine)))  # type: ignore[arg-type]
        self.app = create_app(Settings(**settings), pool, kept=chats)
        self.runs = self.app.extensions["linnet.runs"]
        self.http: Any = self.app.test_client()
        self.chat = chats.create(ME)["id"]
        self.question = chats.say(ME, self.chat, None, "hi")["id"]

    def _script(self, _: Request) -> Iterator[Any]:
        while True:
            self.turn.acquire(timeout=PATIENCE_S)
            piece = self.pieces.pop(0) if self.pieces else None  # the test is over
            if piece is None:
                return
            yield piece

    def says(self, *pieces: Any) -> None:
        """The engine says this now; None: that was all."""
        for piece in pieces:
            self.pieces.append(piece)
            self.turn.release()

    def ask(self, **fields: Any) -> Any:
        body = {"parent": self.question, "request": ASKED} | fields
        return self.http.post(f"/api/chats/{self.chat}/answers", json=body)

    def follow(self, id: str, after: int = 0) -> Any:
        return self.http.get(f"/api/answers/{id}?after={after}", buffered=False)

    def heard(self, id: str, text: str) -> None:
        """Waits until the answer has come so far."""
        run = self.runs.get(ME, id)
        with run._news:
            assert run._news.wait_for(lambda: text in run._said.message()["content"], PATIENCE_S)

    def message(self, id: str) -> Any:
        return next(m for m in self.http.get(f"/api/chats/{self.chat}").json["messages"] if m["id"] == id)

    def kept(self, id: str) -> Any:
        """As the file has it, once the answer has ended."""
        self.runs.get(ME, id).thread.join(PATIENCE_S)
        return self.chats.message(ME, self.chat, id)

    def close(self) -> None:
        self.runs.close()
        self.turn.release(10)


@pytest.fixture
def talk(chats):
    with closing(Talk(chats)) as talk:
        yield talk


def events_of(text: bytes) -> list[bytes]:
    *events, end = text.split(b"\n\n")
    assert end == b""
    return [event for event in events if not event.startswith(b":")]


def test_an_answer_is_told_by_the_very_events_of_a_chat_completion_each_with_its_number(talk):
    id = talk.ask().json["id"]
    talk.says("Hel", "lo", None)
    *events, done = events_of(talk.follow(id).data)
    assert done == b"data: [DONE]"
    assert [event.split(b"\n")[0] for event in events] == [b"id: %d" % n for n in range(1, len(events) + 1)]
    told = [json.loads(event.split(b"data: ")[1]) for event in events]
    talk.says("Hel", "lo", None)
    body = ASKED | runs_options()
    other = events_of(talk.http.post("/v1/chat/completions", json=body).data)[:-1]
    for mine, theirs in zip(told, [json.loads(event[6:]) for event in other], strict=True):
        assert mine | {"id": 0, "created": 0} == theirs | {"id": 0, "created": 0}


def runs_options() -> dict[str, Any]:
    return {"stream": True, "stream_options": {"include_usage": True}, "return_progress": True}


def test_a_reader_who_comes_back_gets_the_same_bytes_from_where_it_was(talk):
    id = talk.ask().json["id"]
    talk.says("one ", "two ", "three", None)
    whole = talk.follow(id).data
    events = events_of(whole)
    for n in range(len(events)):
        assert events_of(talk.follow(id, n).data) == events[n:]
    assert talk.follow(id, 10**6).data == b"data: [DONE]\n\n"


def test_a_message_that_runs_says_which_events_are_in_it_already(talk):
    answer = talk.ask().json
    assert (answer["state"], answer["role"], answer["parent"]) == ("running", "assistant", talk.question)
    talk.says("Hel", "lo")
    talk.heard(answer["id"], "Hello")
    message = talk.message(answer["id"])
    assert (message["content"], message["state"]) == ("Hello", "running")
    assert talk.http.get("/api/chats").json["chats"][0]["running"]
    talk.says(" there", None)
    rest = events_of(talk.follow(answer["id"], message["events"]).data)[:-1]
    deltas = [json.loads(event.split(b"data: ")[1])["choices"] for event in rest]
    assert "".join(choice[0]["delta"].get("content", "") for choice in deltas if choice) == " there"


def test_a_reader_is_told_why_there_is_no_news_though_that_is_no_event(talk):
    id = talk.ask().json["id"]
    run = talk.runs.get(ME, id)
    run._add(b": the model is being loaded\n\n")
    with talk.follow(id, after=1) as response:
        assert next(response.iter_encoded()) == b": the model is being loaded\n\n"
        talk.says(None)
        assert [event[:5] for event in events_of(b"".join(response.iter_encoded()))] == [b"id: 2", b"id: 3", b"data:"]


def test_an_answer_is_kept_whole_with_its_facts_though_nobody_reads_it(talk):
    id = talk.ask().json["id"]
    talk.says("Hel", Progress("", 0, 2, 1, 0.1), "lo", None)
    message = talk.kept(id)
    assert (message["content"], message["state"]) == ("Hello", "done")
    facts = message["facts"]
    assert (facts["cache"], facts["model"], facts["stop_reason"]) == ("bypass", "fake", "end_of_turn")
    assert facts["usage"]["completion_tokens"] == 2
    assert facts["timings"]["predicted_n"] == 2
    assert facts["first_s"] >= 0
    assert "error" not in facts
    assert "events" not in talk.message(id)
    assert talk.chats.read(ME, talk.chat)["leaf"] == id
    assert not talk.chats.find(ME)[0]["running"]


def test_thoughts_are_kept_apart_with_the_time_they_took(chats):
    with closing(Talk(chats)) as talk:
        talk.engine.thinking = Thinking.OPEN
        id = talk.ask().json["id"]
        talk.says("Hmm.", "</think>", "\n\nYes.", None)
        message = talk.kept(id)
    assert (message["reasoning"].strip(), message["content"].strip()) == ("Hmm.", "Yes.")
    assert message["facts"]["thought_s"] >= 0


def test_a_growing_answer_is_kept_every_now_and_then(talk, monkeypatch):
    monkeypatch.setattr(runs, "KEEP_S", 0.0)
    id = talk.ask().json["id"]
    talk.says("half")
    talk.heard(id, "half")
    talk.says(" and")
    talk.heard(id, "and")  # what came before it is kept by now
    assert talk.chats.message(ME, talk.chat, id)["content"].startswith("half")
    assert talk.chats.message(ME, talk.chat, id)["state"] == "running"
    talk.says(None)


def test_stopping_an_answer_stops_the_engine_and_keeps_what_was_said(talk):
    id = talk.ask().json["id"]
    talk.says("half")
    talk.heard(id, "half")
    message = talk.http.delete(f"/api/answers/{id}").json
    assert (message["content"], message["state"]) == ("half", "stopped")
    assert talk.kept(id)["state"] == "stopped"
    assert events_of(talk.follow(id).data)[-1] == b"data: [DONE]"
    talk.says("more")
    assert_closed(talk.engine)
    assert talk.http.delete(f"/api/answers/{id}").json == message  # once more is no error


def assert_closed(engine: TellingEngine) -> None:
    """The engine notices at its next word that nobody waits for it."""
    deadline = time.monotonic() + PATIENCE_S
    while not engine.closed:
        assert time.monotonic() < deadline, "the engine goes on"
        time.sleep(0.01)


def test_deleting_a_chat_or_a_message_stops_what_runs_in_it(talk):
    for delete in (lambda id: talk.http.delete(f"/api/chats/{talk.chat}/messages/{id}"), lambda _: delete_chat(talk)):
        id = talk.ask().json["id"]
        assert delete(id).status_code == 200
        run = talk.runs.get(ME, id)
        run.thread.join(PATIENCE_S)
        assert run.kept
        assert run.message()["state"] == "stopped"


def delete_chat(talk: Talk) -> Any:
    return talk.http.delete(f"/api/chats/{talk.chat}")


def test_an_answer_that_fails_half_way_keeps_what_was_said_and_why(talk):
    id = talk.ask().json["id"]
    talk.says("half", Failed("", Trouble.ENGINE_DIED, "It crashed."))
    message = talk.kept(id)
    assert (message["content"], message["state"], message["facts"]["error"]["code"]) == ("half", "failed", "engine_crashed")
    *_, error, done = events_of(talk.follow(id).data)
    assert b"It crashed." in error
    assert done == b"data: [DONE]"


def test_an_answer_that_the_servers_end_cuts_is_stopped_and_not_failed(talk):
    id = talk.ask().json["id"]
    talk.says("half", Failed("", Trouble.STOPPING, "The server is shutting down."))
    assert talk.kept(id)["state"] == "stopped"


def test_the_end_of_the_server_keeps_what_was_said(chats):
    talk = Talk(chats)
    id = talk.ask().json["id"]
    talk.says("half")
    talk.heard(id, "half")
    talk.close()
    message = chats.message(ME, talk.chat, id)
    assert (message["content"], message["state"]) == ("half", "stopped")


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"request": {"messages": []}}, 400, "messages"),
        ({"request": ASKED | {"colour": "red"}}, 400, "colour"),
        ({"request": ASKED | {"stream": False}}, 400, "stream"),
        ({"request": ASKED | {"n": 2}}, 400, "n"),
        ({"request": ASKED | {"logprobs": True}}, 400, "logprobs"),
        ({"request": ASKED | {"model": "another"}}, 404, "model"),
        ({"parent": "msg_0"}, 404, None),
        ({"continues": "msg_0"}, 404, None),
    ],
)
def test_what_can_be_refused_at_once_is_and_nothing_is_kept_of_it(talk, fields, status, param):
    response = talk.ask(**fields)
    assert (response.status_code, error_of(response)["param"]) == (status, param)
    assert [message["id"] for message in talk.chats.read(ME, talk.chat)["messages"]] == [talk.question]
    assert talk.engine.requests == []


def test_what_the_engine_refuses_is_refused_and_nothing_is_kept_of_it(talk, monkeypatch):
    monkeypatch.setattr(talk.engine, "_tell", lambda work, _: work.put(Failed("", Trouble.CONTEXT_LENGTH, "Too long.")))
    response = talk.ask()
    assert (response.status_code, error_of(response)["code"]) == (400, "context_length_exceeded")
    assert len(talk.chats.read(ME, talk.chat)["messages"]) == 1


def test_a_chat_that_cannot_be_kept_is_not_answered(talk, monkeypatch):
    def refuse(*_: Any) -> None:
        raise ChatsError("The disk is full.")

    monkeypatch.setattr(talk.chats, "begin", refuse)
    response = talk.ask()
    assert (response.status_code, error_of(response)["code"]) == (503, "chats_unavailable")
    talk.says("more")
    assert_closed(talk.engine)


def test_an_ended_answer_is_kept_as_soon_as_the_disk_lets_it(talk, monkeypatch):
    monkeypatch.setattr(runs, "KEEP_S", 0.01)
    tried = threading.Event()
    keep = talk.chats.keep

    def refuse(_: Any) -> bool:
        tried.set()
        raise ChatsError("The disk is full.")

    monkeypatch.setattr(talk.chats, "keep", refuse)
    id = talk.ask().json["id"]
    talk.says("all of it", None)
    assert tried.wait(PATIENCE_S)
    assert events_of(talk.follow(id).data)[-1] == b"data: [DONE]"
    assert (talk.message(id)["content"], talk.message(id)["state"]) == ("all of it", "done")
    assert error_of(talk.ask(continues=id))["code"] == "answer_running"
    monkeypatch.setattr(talk.chats, "keep", keep)
    assert talk.kept(id)["state"] == "done"


def test_a_continued_answer_grows_where_it_was(talk):
    id = talk.ask().json["id"]
    talk.says("The answer", None)
    talk.kept(id)
    assert error_of(talk.ask(continues=talk.question))["param"] == "continues"
    again = talk.ask(continues=id).json
    assert (again["id"], again["content"], again["state"]) == (id, "The answer", "running")
    assert error_of(talk.ask(continues=id))["code"] == "answer_running"
    talk.says(" is 42.", None)
    events_of(talk.follow(id).data)
    message = talk.kept(id)
    assert (message["content"], message["state"]) == ("The answer is 42.", "done")
    assert len(talk.chats.read(ME, talk.chat)["messages"]) == 2


def test_answers_come_from_memory_unless_they_are_wanted_afresh(chats, tmp_path):
    engine = TellingEngine(lambda _: ["Hello"])
    answers = Store(tmp_path / "answers", 2**20, 2**20)
    with closing(answers), closing(Talk(chats, Source(engine, answers))) as talk:  # type: ignore[arg-type]
        how = []
        for fields in ({}, {}, {"afresh": True}):
            id = talk.ask(**fields).json["id"]
            message = talk.kept(id)
            how.append(message["facts"]["cache"])
            assert (message["content"], message["state"]) == ("Hello", "done")
            assert events_of(talk.follow(id).data)[-1] == b"data: [DONE]"
    assert how == ["miss", "hit", "miss"]
    assert len(engine.requests) == 2


def test_another_server_that_starts_on_the_same_file_does_not_end_an_answer(talk, tmp_path):
    id = talk.ask().json["id"]
    talk.says("half")
    with closing(Chats(tmp_path / "chats.db")):
        talk.says(" and half", None)
        message = talk.kept(id)
    assert (message["content"], message["state"]) == ("half and half", "done")


def test_an_answer_that_ended_long_ago_is_only_in_its_chat(talk, monkeypatch):
    id = talk.ask().json["id"]
    talk.says("x", None)
    talk.kept(id)
    monkeypatch.setattr(runs, "STAYS_S", -1.0)
    for method in ("GET", "DELETE"):
        response = talk.http.open(f"/api/answers/{id}", method=method)
        assert (response.status_code, error_of(response)["code"]) == (404, "answer_not_running")
    assert talk.message(id)["content"] == "x"


@pytest.mark.parametrize("after", ["-1", "x", "", "1.5", "99999999999"])
def test_a_number_that_is_none_is_refused(talk, after):
    id = talk.ask().json["id"]
    assert error_of(talk.http.get(f"/api/answers/{id}?after={after}"))["param"] == "after"
    talk.says(None)


def test_nobody_reads_or_stops_an_answer_of_another_key(chats):
    with closing(Talk(chats, api_key="mine,theirs")) as talk:
        mine, theirs = ({"Authorization": f"Bearer {key}"} for key in ("mine", "theirs"))
        chat = talk.http.post("/api/chats", json={}, headers=mine).json["id"]
        say = {"parent": None, "content": "hi"}
        question = talk.http.post(f"/api/chats/{chat}/messages", json=say, headers=mine).json["id"]
        body = {"parent": question, "request": ASKED}
        id = talk.http.post(f"/api/chats/{chat}/answers", json=body, headers=mine).json["id"]
        for method in ("GET", "DELETE"):
            assert talk.http.open(f"/api/answers/{id}", method=method, headers=theirs).status_code == 404
        talk.says("x", None)
        assert talk.http.get(f"/api/answers/{id}", headers=mine).data.endswith(b"data: [DONE]\n\n")


def test_readers_are_limited_and_each_that_leaves_makes_room(talk):
    id = talk.ask().json["id"]
    talk.says("x")
    readers = [talk.follow(id) for _ in range(runs.MOST_READERS)]
    response = talk.follow(id)
    assert (response.status_code, error_of(response)["code"]) == (429, "rate_limit_exceeded")
    readers.pop().close()
    with talk.follow(id) as response:
        assert response.status_code == 200
    for reader in readers:
        reader.close()
    talk.says(None)


def test_an_answer_takes_a_seat_until_it_ends(chats):
    with closing(Talk(chats, slots=1, max_queue=0)) as talk:
        first, second = talk.ask().json["id"], talk.ask().json["id"]
        response = talk.ask()
        assert (response.status_code, error_of(response)["code"]) == (429, "rate_limit_exceeded")
        talk.http.delete(f"/api/answers/{first}")
        assert talk.ask().status_code == 201
        assert talk.message(second)["state"] == "running"


def test_an_answer_that_nobody_reads_for_too_long_is_stopped(chats, monkeypatch):
    monkeypatch.setattr(runs, "FIRST_READER_S", 0.0)
    with closing(Talk(chats, unwatched=0.0)) as talk:
        id = talk.ask().json["id"]
        assert talk.kept(id)["state"] == "stopped"


def test_a_reader_whose_connection_breaks_is_noticed_and_the_answer_goes_on_or_not(tmp_path):
    go = threading.Event()

    def script(_: Request) -> Iterator[str]:
        yield "Hello"
        go.wait(PATIENCE_S)
        yield " there"

    with stub(script, chats=tmp_path / "chats.db") as server:
        id = asked_of(server.url)
        read_and_leave(server.url, id)
        go.set()
        with call(f"{server.url}/api/answers/{id}") as response:
            assert b" there" in response.read()
        assert server.engine.closed == 0
    with stub(endless, chats=tmp_path / "chats.db", unwatched=0.0) as server:
        id = asked_of(server.url)
        read_and_leave(server.url, id)
        assert_closed(server.engine)


def endless(_: Request) -> Iterator[str]:
    while True:
        time.sleep(0.01)
        yield "a"


def call(url: str, body: dict[str, Any] | None = None) -> Any:
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    return urllib.request.urlopen(request, timeout=PATIENCE_S)


def asked_of(url: str) -> str:
    """Asks something in a new chat; the name of the answer."""

    def post(path: str, body: dict[str, Any]) -> str:
        with call(f"{url}{path}", body) as response:
            return str(json.load(response)["id"])

    chat = post("/api/chats", {})
    question = post(f"/api/chats/{chat}/messages", {"content": "hi"})
    return post(f"/api/chats/{chat}/answers", {"parent": question, "request": ASKED})


def read_and_leave(url: str, id: str) -> None:
    with call(f"{url}/api/answers/{id}") as response:
        assert response.readline() == b"id: 1\n"


def test_a_server_that_is_killed_leaves_what_was_kept_and_the_next_calls_it_stopped(endless_model, tmp_path):
    file = tmp_path / "chats.db"
    with Server("--chats", str(file), "--keep-loops", "--ctx", "50000", model=endless_model) as server:
        id = asked_of(server.url)
        with closing(sqlite3.connect(file)) as db:
            while not db.execute("SELECT 1 FROM messages WHERE id = ? AND content <> ''", (id,)).fetchone():
                assert server.process.poll() is None
                time.sleep(0.05)
        server.end(signal.SIGKILL)
    with Server("--chats", str(file)) as server:
        with call(f"{server.url}/api/chats") as response:
            (chat,) = json.load(response)["chats"]
        assert not chat["running"]
        with call(f"{server.url}/api/chats/{chat['id']}") as response:
            message = json.load(response)["messages"][1]
        assert message["state"] == "stopped"
        assert message["content"]
