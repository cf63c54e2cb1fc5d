"""api.source and api.record: one computation for all who ask the same, and the same answer for all of them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from api.app import create_app
from api.body import HARMLESS
from api.pool import Model, Pool
from api.record import Record
from api.source import Scope, Source
from cache.store import TIME, NotClearedError, Store
from engine.request import Accepted, Delta, Failed, Finished, Request, Trouble
from engine.stream import NOTHING, Begun, Sink, State, Stream, Work
from settings import Settings
from tests.conftest import until
from tests.test_api import BODY, CHAT, GIVEN, ScriptedEngine, error_of, events_of

WORDS = ["Hel", "lo ", "🐦", " and", " on"]
OTHERS: dict[str, list[Any]] = {  # values that can change an answer, each but the first unlike the default
    "messages": [[{"role": "user", "content": text}] for text in ("hi", "ho", "hi ")]
    + [[{"role": "system", "content": "hi"}], BODY["messages"] * 2, [{"role": "user", "content": "hi", "name": "x"}]],
    "temperature": [0.0, 0.7, 0.8],
    "top_p": [1.0, 0.5],
    "top_k": [40, 20],
    "min_p": [0.0, 0.1],
    "presence_penalty": [0.0, 1.0],
    "frequency_penalty": [0.0, 1.0],
    "repeat_penalty": [1.0, 1.1],
    "seed": [1, 2],
    "stop": [[], ["a"], ["b"], ["a", "b"]],
    "early_stop": [False, True],
    "loop_stop": [True, False],
}
INDIFFERENT: dict[str, list[Any]] = {  # cannot change what is said, only how it is delivered or how much of it
    "stream": [None, True, False],
    "model": [None, "default", "fake"],
    "max_tokens": [None, 5],
    "max_completion_tokens": [None, 5],
}
GREEDY_INDIFFERENT = {"top_p", "top_k", "min_p", "seed"}


class Talker(ScriptedEngine):
    """Says one word for each turn it is given, token by token, and goes on where an answer begun before ended."""

    def __init__(self) -> None:
        super().__init__()
        self.work: list[Work] = []
        self.by_hand = False

    def submit(self, request: Request, begun: Begun = NOTHING, listener: Sink | None = None) -> Stream:
        work = Work(request, self.cancel, begun, listener)
        self.requests.append(work.request)
        self.work.append(work)
        stream = Stream(work)
        if not self.by_hand:
            self.say(work)
        return stream

    @staticmethod
    def say(work: Work) -> None:
        request = work.request
        work.put(Accepted(request.id, 7))
        n = len(WORDS) if request.max_tokens is None else min(request.max_tokens, len(WORDS))
        for i in range(len(request.done), n):
            work.put(Delta(request.id, WORDS[i], [i]))
        cut = n < len(WORDS) or request.max_tokens == n
        reason = ("length", "max_tokens") if cut else ("stop", "end_of_turn")
        work.put(Finished(request.id, *reason, 7, 2, n, 0.5, 1.0, 2.0))


@pytest.fixture
def engine() -> Talker:
    return Talker()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "answers", 2**20, 0)
    yield store
    store.close()


@pytest.fixture
def http(engine: Talker, store: Store) -> FlaskClient:
    return client_of(engine, store)


def client_of(engine: ScriptedEngine, store: Store, source: dict[str, Any] | None = None, **settings: Any) -> FlaskClient:
    everything = Source(engine, store, **(source or {}))  # type: ignore[arg-type]
    return create_app(Settings(**settings), Pool(Model("fake", everything))).test_client()


def ask(http: FlaskClient, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    return http.post(CHAT, json=BODY | fields, headers=headers)


def how(response: Any) -> str:
    return str(response.headers["X-Linnet-Cache"])


def text(response: Any) -> str:
    if response.mimetype == "application/json":
        return str(response.json["choices"][0]["message"]["content"])
    return "".join(
        e["choices"][0]["delta"].get("content") or "" for e in events_of(response) if e != "[DONE]" and e["choices"]
    )


def bare(data: bytes) -> Any:
    """Everything but what may differ between a miss and its hit."""
    found = []
    for line in data.decode().replace("data: ", "").split("\n\n"):
        if line.startswith("{"):
            event = json.loads(line)
            assert event.pop("id")
            assert event.pop("created")
            if usage := event.get("usage"):
                assert usage.pop("prompt_tokens_details")
            if timings := event.get("timings"):
                assert [
                    timings.pop(name)
                    for name in ("cache_n", "prompt_n", "prompt_ms", "prompt_per_token_ms", "prompt_per_second")
                ]
            line = json.dumps(event)
        found.append(line)
    return found


@pytest.mark.parametrize(
    "fields", [{}, {"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}], ids=str
)
def test_a_hit_equals_the_miss_and_says_that_nothing_was_read(http, engine, fields):
    miss, hit = ask(http, **fields), ask(http, **fields)
    assert (how(miss), how(hit)) == ("miss", "hit")
    assert bare(miss.data) == bare(hit.data)
    assert miss.data != hit.data, "it has an id of its own"
    assert len(engine.requests) == 1
    assert ("Age" in miss.headers, hit.headers["Age"]) == (False, "0")
    if not fields:
        assert hit.json["usage"]["prompt_tokens_details"]["cached_tokens"] == hit.json["usage"]["prompt_tokens"] == 7
        assert hit.json["system_fingerprint"] == miss.json["system_fingerprint"]


def test_streamed_and_whole_answers_are_the_same_entry(http, engine):
    assert text(ask(http)) == text(ask(http, stream=True)) == "".join(WORDS)
    assert len(engine.requests) == 1


@hypothesis.settings(max_examples=40)  # each makes a server of its own four times
@given(st.data())
def test_what_can_change_the_answer_changes_the_key_and_what_cannot_does_not(data):
    class Keeper(dict[str, bytes]):  # a store that only shows its keys
        get_from_memory = dict.get
        put = dict.__setitem__

        def count(self, **_):
            pass

    def key(fields: dict[str, Any]) -> str:
        store = Keeper()
        response = ask(client_of(Talker(), store, temperature=0.7), **{"seed": 1} | fields)  # type: ignore[arg-type]
        assert how(response) == "miss"
        (key,) = store
        return str(key)

    base = {name: data.draw(st.sampled_from(values)) for name, values in OTHERS.items() if data.draw(st.booleans())}
    name = data.draw(st.sampled_from(sorted(OTHERS)))
    one, other = data.draw(st.lists(st.sampled_from(OTHERS[name]), min_size=2, max_size=2, unique_by=repr))
    greedy = base.get("temperature") == 0.0
    same = greedy and name in GREEDY_INDIFFERENT
    assert (key(base | {name: one}) == key(base | {name: other})) is same
    name = data.draw(st.sampled_from(sorted({*INDIFFERENT, *HARMLESS})))
    values = INDIFFERENT.get(name) or [None, GIVEN.get(HARMLESS[name], {"a": "b"})]
    assert len({key(base | ({} if value is None else {name: value})) for value in values}) == 1


@pytest.mark.parametrize("scope", ["model", "engine", "n_ctx", "kv_type"])
def test_another_model_or_engine_is_another_answer(engine, store, scope):
    for value, wanted in (("a", "miss"), ("b", "miss"), ("a", "hit")):
        facts = Scope({scope: value})
        assert how(ask(client_of(engine, store, {"scope": lambda facts=facts: facts}))) == wanted


def test_where_the_template_asks_for_the_date_each_day_has_its_own_answer(engine, store, monkeypatch):
    class Clock(datetime):
        moment = datetime(2026, 1, 1, 8, 30)

        @classmethod
        def now(cls, tz=None):
            return cls.moment

    monkeypatch.setattr("api.source.datetime", Clock)
    http = client_of(engine, store, {"scope": lambda: Scope(clock=["%d %b %Y"])})
    assert [how(ask(http)), how(ask(http))] == ["miss", "hit"]
    Clock.moment = datetime(2026, 1, 1, 23, 59)
    assert how(ask(http)) == "hit"
    Clock.moment = datetime(2026, 1, 2, 0, 0)
    assert how(ask(http)) == "miss"


def test_an_answer_is_not_kept_when_the_model_or_the_day_changed_while_it_was_made(engine, store):
    scopes = [Scope({"model": "old"}), Scope({"model": "new"})]
    http = client_of(engine, store, {"scope": lambda: scopes.pop(0)})
    assert how(ask(http)) == "miss"
    assert not store._ram
    scopes = [Scope({"model": "old"}), Scope({"model": "old"})]
    assert how(ask(http)) == "miss"
    assert len(store._ram) == 1


def test_while_the_model_is_not_known_nothing_is_looked_up_or_kept(engine, store):
    http = client_of(engine, store, {"scope": lambda: None})
    assert [how(ask(http)), how(ask(http))] == ["bypass", "bypass"]


def test_only_what_can_be_repeated_is_kept(http, engine):
    assert [how(ask(http, temperature=0.9)) for _ in range(2)] == ["bypass", "bypass"]
    assert [how(ask(http, temperature=0.9, seed=5)) for _ in range(2)] == ["miss", "hit"]
    assert [how(ask(http, temperature=0.1)) for _ in range(2)] == ["miss", "hit"]
    assert len(engine.requests) == 4


@pytest.mark.parametrize("fields", [{}, {"stream": True}])
def test_failures_and_broken_off_answers_are_not_kept(engine, store, fields):
    http = client_of(engine, store)
    engine.by_hand = True
    for end in (Failed("", Trouble.CONTEXT_LENGTH, "Too long."), Failed("", Trouble.ENGINE_DIED, "It died.")):
        thread = threading.Thread(target=lambda: ask(http, **fields).data)
        thread.start()
        work = wait_for_work(engine)
        if end.trouble is Trouble.ENGINE_DIED:
            work.put(Accepted("", 7))
            work.put(Delta("", "Hel", [0]))
        work.put(end)
        thread.join()
    engine.by_hand = False
    assert how(ask(http)) == "miss"


def wait_for_work(engine: Talker) -> Work:
    until(lambda: engine.work)
    return engine.work.pop()


def test_requests_that_are_the_same_share_one_generation_and_each_gets_all_of_it(http, engine):
    engine.by_hand = True
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda i=i: answers.append(ask(http, stream=i % 2 == 0))) for i in range(16)]
    for thread in threads:
        thread.start()
    work = wait_for_work(engine)
    until(lambda: len(work._readers) >= 16)
    Talker.say(work)
    for thread in threads:
        thread.join()
    assert {text(answer) for answer in answers} == {"".join(WORDS)}
    assert sorted(map(how, answers)) == ["joined"] * 15 + ["miss"]
    assert len(engine.requests) == 1


def test_a_generation_goes_on_until_the_last_reader_leaves_and_is_begun_anew_after_that(engine, store):
    source = Source(engine, store)
    http = create_app(Settings(), Pool(Model("fake", source))).test_client()
    engine.by_hand = True
    readers = []
    for _ in range(2):
        thread = threading.Thread(
            target=lambda: readers.append(http.post(CHAT, json=BODY | {"stream": True}, buffered=False))
        )
        thread.start()
        if not readers:
            wait_for_work(engine).put(Accepted("", 7))
        thread.join()
    readers[0].close()
    assert engine.closed == 0
    readers[1].close()
    assert engine.closed == 1
    engine.by_hand = False
    assert (how(ask(http)), len(engine.requests)) == ("miss", 2)
    assert not source._running


def test_what_joining_saves_is_counted(http, engine, store):
    engine.by_hand = True
    threads = [threading.Thread(target=lambda: ask(http)) for _ in range(3)]
    for thread in threads:
        thread.start()
    work = wait_for_work(engine)
    until(lambda: work.n_readers >= 3)
    Talker.say(work)
    for thread in threads:
        thread.join()
    facts = store.facts()
    assert (facts["joined"], facts["saved_s"], facts["saved_tokens"]) == (2, 2 * 3.0, 2 * 12)


def test_a_cancelled_generation_leaves_the_one_that_follows_it_alone(engine, store):
    source = Source(engine, store)
    http = create_app(Settings(), Pool(Model("fake", source))).test_client()
    engine.by_hand = True
    works, readers = [], []
    for _ in range(2):
        thread = threading.Thread(
            target=lambda: readers.append(http.post(CHAT, json=BODY | {"stream": True}, buffered=False))
        )
        thread.start()
        works.append(wait_for_work(engine))
        works[-1].put(Accepted("", 7))
        thread.join()
        if len(works) == 1:
            readers[0].close()
    Talker.say(works[0])
    assert len(source._running) == 1
    Talker.say(works[1])
    assert not source._running


def test_an_answer_that_cannot_be_kept_is_given_all_the_same(http, engine, store, monkeypatch, caplog):
    monkeypatch.setattr(Store, "put", lambda *_: 1 / 0)
    assert text(ask(http)) == "".join(WORDS)
    assert "ZeroDivisionError" in caplog.text


def test_one_who_joins_late_gets_the_beginning_too(http, engine):
    engine.by_hand = True
    first: list[Any] = []
    thread = threading.Thread(target=lambda: first.append(ask(http)))
    thread.start()
    work = wait_for_work(engine)
    work.put(Accepted("", 7))
    work.put(Delta("", WORDS[0], [0]))
    late: list[Any] = []
    other = threading.Thread(target=lambda: late.append(ask(http)))
    other.start()
    until(lambda: len(work._readers) >= 2)
    for i, word in enumerate(WORDS[1:]):
        work.put(Delta("", word, [i + 1]))
    work.put(Finished("", "stop", "end_of_turn", 7, 2, 5, 0.0, 1.0, 2.0))
    thread.join()
    other.join()
    assert text(first[0]) == text(late[0]) == "".join(WORDS)


def test_a_longer_answer_goes_on_from_a_shorter_one_and_a_shorter_one_is_cut_from_it(http, engine):
    assert text(ask(http, max_tokens=2)) == "Hello "
    longer = ask(http, max_tokens=4, stream=True)
    assert (how(longer), text(longer)) == ("miss", "Hello 🐦 and")
    assert [request.done for request in engine.requests] == [[], [0, 1]]
    for n in (1, 2, 3, 4):
        shorter = ask(http, max_tokens=n)
        assert (how(shorter), text(shorter)) == ("hit", "".join(WORDS[:n]))
        assert (shorter.json["choices"][0]["finish_reason"], shorter.json["usage"]["completion_tokens"]) == ("length", n)
    whole = ask(http)
    assert (how(whole), text(whole), whole.json["choices"][0]["finish_reason"]) == ("miss", "".join(WORDS), "stop")
    assert engine.requests[-1].done == [0, 1, 2, 3]
    for n, reason in ((4, "length"), (5, "length"), (6, "stop"), (1000, "stop")):
        again = ask(http, max_tokens=n)
        assert (how(again), text(again)) == ("hit", "".join(WORDS[:n]))
        assert again.json["choices"][0]["finish_reason"] == reason
    assert len(engine.requests) == 3


def test_how_fast_an_answer_was_made_stays_true_when_it_was_made_in_two_parts(http):
    ask(http, max_tokens=2)
    for answer in (ask(http, max_tokens=4), ask(http, max_tokens=4)):
        assert answer.json["timings"]["predicted_n"] == 4
        assert answer.json["timings"]["predicted_ms"] == 4000, "each part took two seconds"


def test_a_shorter_answer_that_ends_later_does_not_replace_a_longer_one(http, engine):
    engine.by_hand = True
    threads, works = [], []
    for n in (2, 4):
        threads.append(threading.Thread(target=lambda n=n: ask(http, max_tokens=n)))
        threads[-1].start()
        works.append(wait_for_work(engine))
    for work in reversed(works):
        Talker.say(work)
    for thread in threads:
        thread.join()
    assert how(ask(http, max_tokens=4)) == "hit"


def test_diced_answers_are_cut_but_never_gone_on_from(http, engine):
    dice: dict[str, Any] = {"temperature": 1.0, "seed": 3}
    ask(http, max_tokens=2, **dice)
    assert how(ask(http, max_tokens=1, **dice)) == "hit"
    assert how(ask(http, max_tokens=4, **dice)) == "miss"
    assert [request.done for request in engine.requests] == [[], []]


def test_cache_control_is_obeyed(http, engine, store):
    assert ask(http, {"Cache-Control": "only-if-cached"}).status_code == 504
    assert error_of(ask(http, {"Cache-Control": "only-if-cached"}))["code"] == "not_cached"
    assert how(ask(http, {"Cache-Control": "no-store"})) == "bypass"
    assert how(ask(http, cache=False)) == "bypass"
    assert how(ask(http)) == "miss"
    assert how(ask(http, {"Cache-Control": "only-if-cached"})) == "hit"
    assert how(ask(http, {"Cache-Control": "no-cache"})) == "miss"
    assert how(ask(http, {"Cache-Control": "max-age=0"})) == "miss"
    assert how(ask(http, {"Cache-Control": "max-age=60"})) == "hit"
    assert how(ask(http, {"Cache-Control": "max-age=" + "9" * 400})) == "hit"
    assert how(ask(http, {"Cache-Control": "max-age=60, no-store"})) == "bypass"
    assert ask(http, {"Cache-Control": "no-store, only-if-cached"}).status_code == 504
    assert how(ask(http, cache=True)) == "hit"
    assert ask(http, cache="yes").status_code == 400


def older(store: Store, key: str, seconds: float) -> None:
    content = store._ram[key]
    (made,) = TIME.unpack_from(content)
    store._ram[key] = TIME.pack(made - seconds) + content[TIME.size :]


def test_an_answer_that_is_too_old_is_made_again(engine, store, monkeypatch):
    http, patient = client_of(engine, store, {"max_age_s": 100.0}), client_of(engine, store)
    ask(http)
    (key,) = store._ram
    older(store, key, 99)
    assert (how(ask(http)), ask(http).headers["Age"]) == ("hit", "99")
    assert how(ask(http, {"Cache-Control": "max-age=50"})) == "miss"
    older(store, key, 101)
    assert how(ask(patient)) == "hit"
    assert how(ask(http)) == "miss"


def test_each_api_key_has_its_own_answers_unless_they_are_shared(engine, store):
    one, other = ({"Authorization": f"Bearer {key}"} for key in ("one", "other"))
    http = client_of(engine, store, api_key="one,other")
    assert [how(ask(http, one)), how(ask(http, one)), how(ask(http, other))] == ["miss", "hit", "miss"]
    shared = client_of(engine, store, api_key="one,other", share_answers=True)
    assert [how(ask(shared, one)), how(ask(shared, other))] == ["miss", "hit"]
    assert ask(http, {"Authorization": "Bearer one,other"}).status_code == 401


def test_an_api_key_clears_its_own_answers_alone_unless_they_are_shared(engine, store):
    one, other = ({"Authorization": f"Bearer {key}"} for key in ("one", "other"))
    http = client_of(engine, store, api_key="one, other")
    ask(http, one)
    ask(http, other)
    assert http.delete("/cache", headers=one).json == {"removed": 1}
    assert [how(ask(http, one)), how(ask(http, other))] == ["miss", "hit"]
    shared = client_of(engine, store, api_key="one, other", share_answers=True)
    assert shared.delete("/cache", headers=one).json == {"removed": 2}


@pytest.mark.parametrize("state", [State.LOADING, State.RESTARTING, State.STALLED, State.FAILED])
def test_known_answers_are_given_while_the_engine_is_loading_or_down(engine, store, state):
    http = client_of(engine, store)
    before = ask(http).json
    down = ScriptedEngine(Failed("", Trouble.LOADING, "Loading."))
    down.state = state
    after = client_of(down, store)
    assert ask(after).json["choices"] == before["choices"]
    assert ask(after, messages=[{"role": "user", "content": "new"}]).status_code == 503


def test_the_cache_is_seen_and_cleared_over_http(http, engine):
    ask(http)
    ask(http)
    ask(http, temperature=1.0)
    facts = http.get("/cache").json
    assert facts | {"enabled": True, "entries": 1, "hits": 1, "misses": 1, "joined": 0, "evictions": 0} == facts
    assert facts["bytes"] > 0
    assert (facts["saved_s"], facts["saved_tokens"]) == (3.0, 12)
    assert http.delete("/cache").json == {"removed": 1}
    assert http.get("/cache").json["entries"] == 0
    assert how(ask(http)) == "miss"


def test_a_cache_that_cannot_be_cleared_is_not_said_to_be(http, monkeypatch):
    def fail(*_: object) -> int:
        raise NotClearedError("They are still there.")

    monkeypatch.setattr(Store, "clear", fail)
    answer = http.delete("/cache")
    assert (answer.status_code, error_of(answer)["message"]) == (503, "They are still there.")


def test_without_a_cache_everything_is_generated(engine):
    http = create_app(Settings(), Pool(Model("fake", Source(engine)))).test_client()
    assert [how(ask(http)), how(ask(http))] == ["bypass", "bypass"]
    assert http.get("/cache").json == {"enabled": False}
    assert http.delete("/cache").json == {"removed": 0}


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b'{"version":0}', b'{"version":1,"deltas":[[]],"end":{},"fingerprint":""}']
)
def test_a_record_of_another_version_is_no_record(data):
    assert Record.load(data) is None
