"""api.pool: models that are loaded when a request names them, with real workers behind the real routes."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import server as front
from api.app import create_app
from api.models import MOST_AT_ONCE
from api.pool import Model, Pool
from engine import memory
from engine.memory import DoesNotFitError
from engine.request import Config
from engine.supervisor import Supervisor
from models import identity
from settings import Settings
from tests.conftest import DEMO, PATIENCE_S, until
from tests.test_api import BODY, CHAT, error_of


class Front:
    """A folder of models, the demo as the default, and a client."""

    def __init__(self, cache: Path, **settings: Any) -> None:
        self.settings = Settings(cache_dir=cache, threads=1, no_draft=True, **settings)
        self.folder = front.Folder(self.settings, DEMO)
        watched = identity.Watched(DEMO, cache)
        self.pool = Pool(Model("demo", self.folder.open(DEMO, watched)), self.folder)
        self.pool.default.engine.start()
        self.pool.default.engine.wait(PATIENCE_S)
        self.http = create_app(self.settings, self.pool).test_client()

    def ask(self, model: str | None = None, **fields: Any) -> Any:
        return self.http.post(CHAT, json=BODY | {"model": model, "max_tokens": 4} | fields)

    def states(self) -> dict[str, str]:
        data = json.loads(self.http.get("/v1/models").data)["data"]
        return {model["id"]: model["state"] for model in data}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """The folder of models: two copies of the demo, and the demo itself."""
    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("one", "two"):
        shutil.copyfile(DEMO, folder / f"{name}.gguf")
    return folder


@pytest.fixture
def linnet(models: Path, tmp_path: Path) -> Iterator[Front]:
    front = Front(tmp_path / "cache", models_dir=models)
    yield front
    front.pool.close()


def test_a_request_names_any_installed_model_and_it_is_loaded_for_it(linnet):
    assert linnet.states() == {"demo": "loaded", "one": "unloaded", "two": "unloaded"}
    assert linnet.ask("one").json["model"] == "one"
    assert linnet.ask().json["model"] == "demo"
    assert linnet.states() == {"demo": "loaded", "one": "loaded", "two": "unloaded"}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "a", "max_tokens": 2}),
        ("/v1/responses", {"input": "a", "max_output_tokens": 2}),
        ("/v1/embeddings", {"input": "a"}),
        ("/tokenize", {"content": "a"}),
        ("/detokenize", {"tokens": [5]}),
        ("/api/prefill", BODY),
    ],
)
def test_every_endpoint_takes_a_models_name(linnet, path, body):
    assert linnet.http.post(path, json=body | {"model": "one"}).status_code == 200
    assert linnet.states()["one"] == "loaded"
    refused = linnet.http.post(path, json=body | {"model": "three"})
    assert (refused.status_code, error_of(refused)["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    "name", ["three", "", "../one", "/dev/zero", "/proc/self/environ", "one.gguf", "<img src=x>", "$(id)"]
)
def test_a_name_that_is_not_installed_hears_what_is_and_nothing_of_files(linnet, name):
    for response in (
        linnet.ask(name),
        linnet.http.post("/models/load", json={"model": name or "x"}),
        linnet.http.post("/models/unload", json={"model": name or "x"}),
        linnet.http.get(f"/v1/models/{name or 'x'}"),
        linnet.http.delete(f"/models/{name or 'x'}"),
    ):
        assert response.status_code in (404, 308)  # 308: a path with two slashes
        if response.status_code == 404 and response.json:
            assert error_of(response)["message"].endswith("there are: demo, one, two.")


def test_an_unloaded_models_process_is_gone_and_its_memory_is_back(linnet):
    linnet.http.post("/models/load", json={"model": "one"})
    pid = linnet.pool.get("one").engine.status().worker_pid
    worker = psutil.Process(pid)
    held = worker.memory_info().rss
    assert held > 10**7
    response = linnet.http.post("/models/unload", json={"model": "one"})
    assert response.json["state"] == "unloaded"
    assert not worker.is_running()
    assert linnet.pool.get("one").engine.status().worker_pid is None
    assert linnet.ask("one").status_code == 200, "and it can be loaded again"


def context_of(linnet: Front, name: str) -> int:
    models = json.loads(linnet.http.get("/status").data)["models"]
    return int(next(model["context"] for model in models if model["name"] == name))


def test_a_model_is_loaded_anew_with_another_context(linnet):
    words = [{"role": "user", "content": "word " * 300}]
    assert linnet.http.post("/models/load", json={"model": "default", "ctx": 256}).json["state"] == "loaded"
    assert context_of(linnet, "demo") == 256
    (row,) = [row for row in json.loads(linnet.http.get("/models/catalog").data)["data"] if row["name"] == "demo"]
    need = memory.need(linnet.pool.default.engine.config)
    assert need
    assert (need.n_ctx, need.total_bytes) == (256, row["memory_bytes"])
    assert error_of(linnet.ask(messages=words))["code"] == "context_length_exceeded"
    pid = linnet.pool.default.engine.status().worker_pid
    assert linnet.http.post("/models/load", json={"model": "demo", "ctx": 256}).status_code == 200
    assert linnet.pool.default.engine.status().worker_pid == pid, "it has that context already"
    assert linnet.http.post("/models/load", json={"model": "demo", "ctx": 512}).json["state"] == "loaded"
    assert linnet.ask(messages=words).status_code == 200
    assert error_of(linnet.http.post("/models/load", json={"model": "demo", "ctx": 10}))["param"] == "ctx"


def test_a_context_that_cannot_be_had_leaves_the_one_there_was(linnet, monkeypatch):
    room = linnet.folder._room
    pid, context = linnet.pool.default.engine.status().worker_pid, context_of(linnet, "demo")
    wanted = {"model": "demo", "ctx": 2 * context}
    with monkeypatch.context() as small:
        small.setattr("engine.memory.available", lambda: 10**6)
        small.setattr("engine.memory.own", lambda _: 0)
        refused = error_of(linnet.http.post("/models/load", json=wanted))
        assert refused["code"] == "model_needs_force"
        assert f'{{"model": "demo", "force": true, "ctx": {2 * context}}}' in refused["message"]
        assert linnet.pool.default.engine.status().worker_pid == pid

    take = room.take

    def take_as_it_was(engine: Supervisor) -> Config | None:
        if engine.config.n_ctx:
            raise DoesNotFitError("Another program has just taken the memory.")
        config: Config | None = take(engine)
        return config

    monkeypatch.setattr(room, "take", take_as_it_was)
    refused = error_of(linnet.http.post("/models/load", json=wanted))
    assert (refused["code"], refused["message"]) == ("model_not_loaded", "Another program has just taken the memory.")
    assert linnet.ask().status_code == 200
    assert context_of(linnet, "demo") == context


def test_what_is_known_is_known_again_when_a_context_comes_back(linnet):
    made, context = linnet.ask(), context_of(linnet, "demo")
    assert linnet.ask().headers["X-Linnet-Cache"] == "hit"
    linnet.http.post("/models/load", json={"model": "demo", "ctx": 512})
    other = linnet.ask()
    assert other.headers["X-Linnet-Cache"] == "miss"
    assert other.json["system_fingerprint"] != made.json["system_fingerprint"]
    linnet.http.post("/models/load", json={"model": "demo", "ctx": context})
    assert linnet.ask().headers["X-Linnet-Cache"] == "hit"
    assert (
        linnet.ask(messages=[{"role": "user", "content": "x"}]).json["system_fingerprint"] == made.json["system_fingerprint"]
    )


def test_a_model_under_two_names_has_the_same_answers(linnet):
    made = linnet.ask()
    known = linnet.ask("one")
    while known.headers["X-Linnet-Cache"] == "bypass":  # its file is still being read
        threading.Event().wait(0.01)
        known = linnet.ask("one")
    assert known.headers["X-Linnet-Cache"] == "hit"
    assert known.json["choices"] == made.json["choices"]


def test_a_model_that_does_not_fit_needs_an_explicit_yes(linnet, monkeypatch):
    monkeypatch.setattr("engine.memory.available", lambda: 10**6)
    refused = linnet.ask("one")
    error = error_of(refused)
    assert (refused.status_code, error["code"], error["param"]) == (409, "model_needs_force", "model")
    assert "does not fit into memory" in error["message"]
    assert '"force": true' in error["message"]
    assert linnet.http.post("/models/load", json={"model": "one"}).status_code == 409
    assert linnet.http.post("/models/load", json={"model": "one", "force": True}).json["state"] == "loaded"
    assert linnet.ask("one").status_code == 200


def test_a_file_that_is_no_model_is_refused_before_anything_makes_room_for_it(linnet, models):
    (models / "page.gguf").write_bytes(b"<html>")
    (models / "cut.gguf").write_bytes(DEMO.read_bytes()[:-1000])
    for name in ("page", "cut"):
        refused = linnet.ask(name)
        assert (refused.status_code, error_of(refused)["code"]) == (422, "model_broken")
        assert str(models) not in error_of(refused)["message"]
    assert linnet.states()["demo"] == "loaded"


def test_a_model_that_ends_its_loader_is_reported_and_not_tried_for_ever(linnet, models, monkeypatch):
    monkeypatch.setattr("engine.process.WORKER", "tests.dying_worker")
    refused = linnet.ask("one")
    assert (refused.status_code, error_of(refused)["code"]) == (503, "model_not_loaded")
    assert linnet.states()["one"] == "failed"
    failed = linnet.http.post("/models/load", json={"model": "one"})
    assert failed.status_code == 503
    assert "SIGKILL" in error_of(failed)["message"]
    assert linnet.ask().status_code == 200, "the one before is as it was"
    monkeypatch.undo()


def test_a_deleted_model_is_gone_and_the_servers_own_stays(linnet, models):
    linnet.ask("one")
    assert linnet.http.delete("/models/one").json == {"id": "one", "object": "model", "deleted": True}
    assert not (models / "one.gguf").exists()
    assert linnet.states() == {"demo": "loaded", "two": "unloaded"}
    assert linnet.ask("one").status_code == 404
    assert error_of(linnet.http.delete("/models/demo"))["code"] == "model_in_use"
    assert error_of(linnet.http.delete("/models/one"))["code"] == "model_not_found"


def test_a_stream_tells_that_the_model_is_being_loaded(linnet, monkeypatch):
    may_load = threading.Event()
    take = linnet.folder._room.take

    def take_later(engine: Supervisor) -> Config | None:
        assert may_load.wait(PATIENCE_S)
        config: Config | None = take(engine)
        return config

    monkeypatch.setattr(linnet.folder._room, "take", take_later)
    monkeypatch.setattr("api.reply.PATIENCE_S", 0.0)
    monkeypatch.setattr("api.stream.SILENCE_S", 0.01)
    too_long = [{"role": "user", "content": "word " * 9000}]
    for fields in ({}, {"messages": too_long}):
        with linnet.http.post(CHAT, json=BODY | {"model": "one", "stream": True} | fields, buffered=False) as response:
            assert response.status_code == 200
            events = iter(response.response)
            assert next(events) == b": the model is being loaded\n\n"
            may_load.set()
            *_, end, done = [event for event in b"".join(events).decode().split("\n\n")[:-1] if event[0] != ":"]
        assert done == "data: [DONE]"
        if fields:
            assert json.loads(end[6:])["error"]["code"] == "context_length_exceeded"
        else:
            assert json.loads(end[6:])["choices"][0]["finish_reason"] == "stop"
        may_load.clear()
        linnet.pool.get("one").engine.unload()
        assert linnet.pool.get("one").engine.unloaded(PATIENCE_S)


def test_a_model_file_that_is_cut_while_it_is_loaded_costs_its_own_answers_and_no_others(linnet, models):
    assert linnet.ask("one").status_code == 200
    with (models / "one.gguf").open("r+b") as file:
        file.truncate(4096)
    first = linnet.ask("one", messages=[{"role": "user", "content": "another one"}])
    assert first.status_code in (200, 500, 503), "weights that llama.cpp has copied are still there"
    linnet.http.post("/models/unload", json={"model": "one"})
    refused = linnet.ask("one", messages=[{"role": "user", "content": "one more"}])
    assert (refused.status_code, error_of(refused)["code"]) == (422, "model_broken")
    assert linnet.ask().status_code == 200


def test_an_alias_hides_no_file_from_being_the_servers_own(models, tmp_path):
    settings = Settings(cache_dir=tmp_path / "cache", models_dir=models, alias="gpt", threads=1)
    path = models / "one.gguf"
    folder = front.Folder(settings, path)
    pool = Pool(Model("gpt", folder.open(path)), folder)
    pool.default.engine.start(load=False)
    http = create_app(settings, pool).test_client()
    try:
        assert [model["id"] for model in json.loads(http.get("/v1/models").data)["data"]] == ["gpt", "two", "demo"]
        answer = http.post(CHAT, json=BODY | {"model": "one", "max_tokens": 2})
        assert json.loads(answer.data)["model"] == "gpt"
        for name in ("gpt", "one", "default"):
            assert error_of(http.delete(f"/models/{name}"))["code"] == "model_in_use"
        assert path.exists()
    finally:
        pool.close()


def test_a_deleted_model_is_not_there_while_its_worker_ends(linnet, models, monkeypatch):
    linnet.ask("one")
    ending, may_end = threading.Event(), threading.Event()
    forget = linnet.pool._forget

    def forget_later(name: str) -> None:
        ending.set()
        assert may_end.wait(PATIENCE_S)
        forget(name)

    monkeypatch.setattr(linnet.pool, "_forget", forget_later)
    deleting = threading.Thread(target=linnet.http.delete, args=("/models/one",))
    deleting.start()
    assert ending.wait(PATIENCE_S)
    may_end.set()
    assert linnet.ask("one").status_code == 404
    deleting.join()
    assert linnet.ask("one").status_code == 404


def test_more_than_may_wait_in_all_models_together_hear_so(models, tmp_path):
    linnet = Front(tmp_path / "cache", models_dir=models, slots=1, max_queue=0)
    try:
        streams = [
            linnet.http.post(CHAT, json=BODY | {"model": name, "stream": True}, buffered=False) for name in ("one", "two")
        ]
        assert [stream.status_code for stream in streams] == [200, 200]
        refused = linnet.ask(messages=[{"role": "user", "content": "something else"}])
        assert (refused.status_code, error_of(refused)["code"]) == (429, "rate_limit_exceeded")
        for stream in streams:
            stream.close()
        assert linnet.ask().status_code == 200
    finally:
        linnet.pool.close()


def test_what_is_known_is_told_also_of_a_model_that_should_not_be_loaded(linnet, monkeypatch):
    made = linnet.ask()
    linnet.pool.default.engine.unload()
    assert linnet.pool.default.engine.unloaded(PATIENCE_S)
    monkeypatch.setattr("engine.memory.available", lambda: 10**6)
    known = linnet.ask()
    assert known.headers["X-Linnet-Cache"] == "hit"
    assert known.json["choices"] == made.json["choices"]
    assert error_of(linnet.ask(messages=[{"role": "user", "content": "anything else"}]))["code"] == "model_needs_force"


def test_the_catalog_says_what_is_here_what_fits_and_one_to_take(linnet):
    rows = {row["name"]: row for row in json.loads(linnet.http.get("/models/catalog").data)["data"]}
    assert {"tinyllama", "r1-qwen-1.5b", "one", "two", "demo"} <= set(rows)
    assert rows["one"]["installed"]
    assert rows["tinyllama"] | {"fetch": "tinyllama", "installed": False, "licence": "Apache-2.0"} == rows["tinyllama"]
    assert sum(row["recommended"] for row in rows.values()) <= 1
    assert all(row["verdict"] for row in rows.values())


def test_a_model_that_could_not_be_loaded_after_all_is_not_told_as_loaded(linnet, monkeypatch):
    def take(_: Supervisor) -> Config | None:
        raise DoesNotFitError("There was room, and then there was none.")

    monkeypatch.setattr(linnet.folder._room, "take", take)
    failed = linnet.http.post("/models/load", json={"model": "one"})
    assert (failed.status_code, error_of(failed)["code"]) == (503, "model_not_loaded")
    assert "then there was none" in error_of(failed)["message"]


def test_those_who_load_models_leave_threads_for_the_others(linnet, monkeypatch):
    may_load = threading.Event()
    take = linnet.folder._room.take
    monkeypatch.setattr(linnet.folder._room, "take", lambda engine: take(engine) if may_load.wait(PATIENCE_S) else None)
    statuses: list[int] = []

    def load() -> None:
        client = linnet.http.application.test_client()
        statuses.append(client.post("/models/load", json={"model": "one"}).status_code)

    loading = [threading.Thread(target=load) for _ in range(MOST_AT_ONCE + 2)]
    for thread in loading:
        thread.start()
    until(lambda: len(statuses) >= 2)
    assert statuses == [429, 429]
    may_load.set()
    for thread in loading:
        thread.join()
    assert sorted(statuses) == [200] * MOST_AT_ONCE + [429, 429]
