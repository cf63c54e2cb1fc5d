"""GET /status and GET /metrics: true for people, for programs and for Prometheus."""

from __future__ import annotations

import json
import logging
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from api.app import create_app
from api.pool import Model, Pool, Shelf
from api.source import Source
from engine.beat import Beat
from engine.request import Accepted, Delta, Failed, Finished, Trouble
from engine.stream import State, Status
from engine.tally import MINUTES, Histogram, Rate, Tally
from settings import Settings
from tests.conftest import Server
from tests.test_api import BODY, CHAT, ScriptedEngine, client_of

STORY = "Tell me a story about a fox."
PAGE = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}  # as browsers ask for one
END = Finished("a", "stop", "end_of_turn", 30, 10, 3, 0.3, 0.5, 1.5)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that keeps its answers."""
    with Server("--cache-dir", str(tmp_path_factory.mktemp("cache")), keep=True) as server:
        yield server


def get(client: openai.OpenAI, path: str, **headers: str) -> Any:
    return client._client.get(f"{client.base_url}".removesuffix("/v1/") + path, headers=headers)


def numbers(text: str) -> dict[str, float]:
    """Every sample by its name with its labels."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    found = {"".join([s.name, *(f" {k}={v}" for k, v in sorted(s.labels.items()))]): s.value for s in samples}
    assert len(found) == len(samples), "a sample stands there twice"
    return found


def metrics(client: openai.OpenAI) -> dict[str, float]:
    response = get(client, "/metrics")
    assert response.headers["Content-Type"].startswith("text/plain; version=")
    return numbers(response.text)


def test_what_was_computed_is_counted_and_what_was_known_is_not(kept):
    with kept.client() as client:
        before = metrics(client)
        asked: Any = [[{"role": "user", "content": text}] for text in (STORY, STORY, "What is 12 + 30?")]
        asked.append([*asked[0], {"role": "assistant", "content": "A fox ran."}, {"role": "user", "content": "Go on."}])
        usages = [client.chat.completions.create(model="demo", messages=messages).usage for messages in asked]
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="none", messages=asked[0])
        client._client.post("/tokenize", json={"content": STORY})
        after, status = metrics(client), get(client, "/status").json()
    made = [usage for i, usage in enumerate(usages) if i != 1]  # the second one was remembered
    n_prompt = sum(usage.prompt_tokens for usage in made)
    n_known = sum(usage.prompt_tokens_details.cached_tokens for usage in made)
    n_answer = sum(usage.completion_tokens for usage in made)
    assert n_known > 0
    grown = {name: value - before.get(name, 0.0) for name, value in after.items()}
    expected = {
        "llamacpp:prompt_tokens_total": n_prompt - n_known,
        "llamacpp:prompt_tokens_cached_total": n_known,
        "llamacpp:tokens_predicted_total": n_answer,
        "linnet_answers_total": 3,
        "linnet_queue_seconds_count": 3,
        "linnet_time_to_first_token_seconds_bucket le=+Inf": 3,
        "linnet_answer_cache_requests_total how=hit": 1,
        "linnet_answer_cache_requests_total how=miss": 3,
        "linnet_http_requests_total method=POST route=/v1/chat/completions status=200": 4,
        "linnet_http_requests_total method=POST route=/v1/chat/completions status=404": 1,
        "linnet_http_requests_total method=GET route=/metrics status=200": 1,
    }
    assert {name: grown[name] for name in expected} == expected
    n_guessed, n_right = (grown[f"llamacpp:spec_decode_num_{w}_tokens_total"] for w in ("draft", "accepted"))
    assert 0 <= n_right <= n_guessed
    assert n_answer - n_right <= grown["llamacpp:n_decode_total"] <= n_answer + n_prompt
    assert after["llamacpp:n_busy_slots_per_decode"] == pytest.approx(1.0)
    assert after["llamacpp:n_tokens_max"] == max(usage.total_tokens for usage in made)
    for name in ("prompt_seconds_total", "tokens_predicted_seconds_total", "predicted_tokens_seconds"):
        assert after[f"llamacpp:{name}"] > 0
    assert after["llamacpp:requests_processing"] == after["llamacpp:requests_deferred"] == 0
    assert min(after[f"linnet_memory_bytes process={name}"] for name in ("front", "worker")) > 10**7
    assert (status["cache"]["hits"], status["cache"]["hit_rate"]) == (1, 0.25)
    assert status["prefix"] == {
        "known_tokens": n_known,
        "read_tokens": n_prompt - n_known,
        "known_rate": round(n_known / n_prompt, 4),
    }
    assert sum(status["tokens_per_s"]["minutes"]) * 60 == pytest.approx(n_answer, abs=1)


def test_running_and_waiting_answers_are_told_and_a_restart_resets_no_counter(endless_model):
    options = ("--slots", "1", "--ctx", "4000", "--keep-loops", "--no-draft", "--chats", "none")
    with Server(*options, model=endless_model) as server, server.client() as client:
        ask: Any = {"model": "endless", "messages": [{"role": "user", "content": "go on"}], "stream": True}
        with client.chat.completions.create(**ask) as first:
            for chunk in first:
                if chunk.choices and chunk.choices[0].delta.content:
                    break
            with client.chat.completions.create(**ask):
                status, before = get(client, "/status").json(), metrics(client)
                server.worker.send_signal(signal.SIGKILL)
                server.wait_for("runs again")
        after = metrics(client)
    assert status["slots"] == {"n": 1, "busy": 1}
    assert status["queue"]["waiting"] == 1
    assert status["tokens_per_s"]["now"] > 0
    assert status["cache"] is None
    assert (before["llamacpp:requests_processing"], before["llamacpp:requests_deferred"]) == (1, 1)
    assert before["linnet_engine_restarts_total model=endless"] == 0
    assert after["linnet_engine_restarts_total model=endless"] == 1
    totals = [name for name in before if "_total" in name]
    assert [name for name in totals if after[name] < before[name]] == []
    assert after["llamacpp:tokens_predicted_total"] >= 1, "the tokens of an answer that was given up count too"


@pytest.mark.parametrize(
    ("accept", "mimetype"),
    [(None, "application/json"), ("*/*", "application/json"), (PAGE["Accept"], "text/html"), ("text/html", "text/html")],
)
def test_status_is_a_page_for_browsers_and_json_for_programs(accept, mimetype):
    http = client_of(ScriptedEngine())
    with http.get("/status", headers={"Accept": accept} if accept else {}) as response:
        assert (response.status_code, response.mimetype) == (200, mimetype)
        assert "Accept" in response.vary


def test_a_browser_without_the_key_gets_the_page_which_says_nothing_and_no_numbers():
    http = client_of(ScriptedEngine(), api_key="secret")
    with http.get("/status", headers=PAGE) as response:
        assert (response.status_code, response.mimetype) == (200, "text/html")
        assert b"fake" not in response.data
    for accept in (None, "*/*", "application/json", "text/html,application/json"):
        response = http.get("/status", headers={"Accept": accept} if accept else {})
        assert (response.status_code, response.mimetype) == (401, "application/json")
    for path in ("/metrics", "/cache", "/v1/models", "/api/chats"):
        assert http.get(path, headers=PAGE).status_code == 401


class Busy(ScriptedEngine):
    """Has so many requests."""

    n_requests = 0

    def start(self, load: bool = True) -> None:
        pass

    def status(self) -> Status:
        return replace(super().status(), n_requests=self.n_requests)


class Two(Shelf):
    """One more model."""

    def __init__(self, engine: ScriptedEngine) -> None:
        self._engine = engine

    def installed(self) -> dict[str, Path]:
        return {"other": Path("other.gguf")}

    def open(self, path: Path) -> Source:
        return Source(self._engine)  # type: ignore[arg-type]


def test_no_more_slots_are_busy_than_there_are_however_many_models_are_loaded():
    engines = Busy(), Busy()
    pool = Pool(Model("fake", Source(engines[0])), Two(engines[1]))  # type: ignore[arg-type]
    http = create_app(Settings(slots=4, max_queue=5), pool).test_client()

    def told(n: int, n_other: int) -> tuple[dict[str, int], dict[str, int]]:
        engines[0].n_requests, engines[1].n_requests = n, n_other
        status = http.get("/status").get_json()
        return status["slots"], status["queue"]

    assert told(3, 0) == ({"n": 4, "busy": 3}, {"waiting": 0, "limit": 5})
    pool.get("other")
    assert told(4, 6) == ({"n": 8, "busy": 8}, {"waiting": 2, "limit": 10})
    engines[1].state = State.IDLE
    assert told(4, 0)[0] == {"n": 4, "busy": 4}
    engines[0].state = State.IDLE
    assert told(0, 0)[0] == {"n": 4, "busy": 0}


def test_what_is_asked_for_again_and_again_is_not_logged(caplog):
    http = client_of(ScriptedEngine())
    caplog.set_level(logging.INFO, "linnet")
    for path in ("/health", "/status", "/metrics", "/web/page.css"):
        http.get(path).close()
    http.post("/api/markdown", json={"text": "x"})
    assert caplog.messages == []
    for path in ("/", "/v1/models", "/web/", "/statuses"):
        http.get(path).close()
    assert caplog.messages == ["GET / 200", "GET /v1/models 200", "GET /web/ 404", "GET /statuses 404"]


def test_both_ask_for_the_key_and_the_version_of_the_chats_is_that_of_their_store():
    engine = ScriptedEngine()
    app = create_app(Settings(api_key="secret"), Pool(Model("fake", Source(engine))))  # type: ignore[arg-type]
    app.extensions["linnet.chats"] = SimpleNamespace(version=7)
    http, key = app.test_client(), {"Authorization": "Bearer secret"}
    assert [http.get(path).status_code for path in ("/status", "/metrics")] == [401, 401]
    assert [http.get(path, headers=key).status_code for path in ("/status", "/metrics")] == [200, 200]
    http.get("/nowhere/at/all")
    status = http.get("/status", headers=key).get_json()
    assert (status["chats"], status["model"], status["demo"], status["needs_key"]) == (7, "fake", False, True)
    told = numbers(http.get("/metrics", headers=key).text)
    assert told["linnet_http_requests_total method=GET route=/status status=401"] == 1
    assert told["linnet_http_requests_total method=GET route=none status=401"] == 1
    assert "linnet_answer_cache_entries" not in told


def test_the_tokens_of_an_answer_count_as_they_come_and_its_prompt_at_its_end(monkeypatch):
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr("engine.tally.time.monotonic", lambda: clock.now)
    all_of_it = Tally()
    for word in (Accepted("a", 30), Delta("a", "x", [1, 2]), Delta("a", ""), Delta("a", "y", [3])):
        all_of_it.hear(word)
    clock.now += 0.5
    told = all_of_it.told()
    assert (told.counts.n_answer, told.counts.n_prompt, told.tokens_per_s) == (3, 0, 3 / 3.5)
    all_of_it.hear(END)
    all_of_it.hear(Failed("b", Trouble.INTERNAL, "No."))
    all_of_it.hear(Finished("t", "length", "read", 500, 0, 0, 0.0, 0.0, 0.0))  # a text told in tokens
    all_of_it.hear(Finished("p", "length", "read", 100, 40, 0, 0.1, 0.2, 0.0))  # a prompt read ahead
    told = all_of_it.told()
    assert (told.counts.n_prompt, told.counts.n_known, told.counts.n_answers, told.counts.n_longest) == (80, 50, 1, 100)
    assert (told.prompt_tokens_per_s, told.answer_tokens_per_s) == (40.0, 2.0)
    assert (told.waits[1], told.firsts[1]) == (0.3, 0.8)


def test_a_rate_forgets_what_is_old(monkeypatch):
    clock = SimpleNamespace(now=5000.9)
    monkeypatch.setattr("engine.tally.time.monotonic", lambda: clock.now)
    rate = Rate()
    rate.add(60)
    assert rate.minutes() == [0.0] * (MINUTES - 1) + [1.0]
    clock.now += 4
    assert rate.now() == 0
    rate.add(30)
    clock.now += 60
    assert rate.minutes()[-2:] == [1.5, 0.0]
    clock.now += 60 * (MINUTES - 1) - 4
    assert rate.minutes()[0] == 0.5
    clock.now += 10**6
    assert rate.minutes() == [0.0] * MINUTES


def test_a_histogram_counts_a_number_in_each_bound_that_is_not_smaller():
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        histogram.add(value)
    assert histogram.buckets() == [("1.0", 2.0), ("2.0", 3.0), ("+Inf", 4.0)]
    assert histogram.sum == 12.0


def test_the_front_hears_of_each_step_once():
    front = Beat()
    worker = Beat(front.descriptor)
    with worker.step(3):
        pass
    worker.guessed(5, 2)
    assert front.news() == [1, 3, 1, 5, 2]
    with worker.step(1):
        assert front.inside()[0] > 0
    assert (front.news(), front.news()) == ([1, 1, 0, 0, 0], [0] * 5)
    worker._memory.close()
    front.close()


def test_answers_of_a_scripted_engine_are_not_counted_for_it():
    http = client_of(ScriptedEngine())
    assert http.post(CHAT, data=json.dumps(BODY), content_type="application/json").status_code == 200
    assert http.get("/status").get_json()["answers"] == 0, "what is counted are the words of workers"
