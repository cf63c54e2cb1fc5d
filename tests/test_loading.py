"""A model that is loaded, or loaded anew with another context: what those hear who wait for it, with real workers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine import memory, process
from engine.client import Engine
from engine.loading import Loading, NotLoadedError
from engine.memory import DoesNotFitError
from engine.request import Config, Finished, Reason, Word
from engine.room import Room
from engine.stream import State
from engine.supervisor import Supervisor
from tests.conftest import DEMO, PATIENCE_S, until
from tests.test_client import ENDLESS_CTX, has_begun, request, whole
from tests.test_room import SmallRoom, worker

BAD_CTX = 777  # with which no worker comes up
NO_ROOM_CTX = 999  # for which the memory is gone by then


class TrickyRoom(Room):
    """Lets a worker with one context die of it, and refuses another one. Before either is done, `taken` is called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, taken: Callable[[Supervisor], None] = lambda _: None) -> None:
        super().__init__()
        self._monkeypatch, self._taken = monkeypatch, taken

    def take(self, engine: Supervisor) -> Config | None:
        config = super().take(engine)
        self._taken(engine)
        if config and config.n_ctx == NO_ROOM_CTX:
            self.leave(engine)
            raise DoesNotFitError("The memory is gone.")
        bad = bool(config and config.n_ctx == BAD_CTX)
        self._monkeypatch.setattr(process, "WORKER", "tests.dying_worker" if bad else "engine.worker")
        return config


def context_of(engine: Engine) -> int:
    status = engine.status()
    assert status.ready
    return status.ready.n_ctx


def failure(loading: Loading) -> str:
    error = loading.exception(PATIENCE_S)
    assert isinstance(error, NotLoadedError)
    return str(error)


@pytest.fixture
def tricky(engines, monkeypatch) -> Callable[..., Engine]:
    """A loaded engine in a TrickyRoom."""

    def tricky(model: Path = DEMO, n_ctx: int | None = None) -> Engine:
        engine: Engine = engines(1, TrickyRoom(monkeypatch), model, n_ctx)[0]
        engine.load().result(PATIENCE_S)
        return engine

    return tricky


def test_another_context_comes_when_the_answers_have_ended_and_what_came_meanwhile_is_answered_with_it(
    tricky, endless_model
):
    engine = tricky(endless_model, ENDLESS_CTX)
    first = worker(engine)
    running = engine.submit(request("1", max_tokens=400))
    assert has_begun(running)
    loading = engine.load(n_ctx=256)
    late = engine.submit(request("2"))
    end = whole(running)[1]
    assert isinstance(end, Finished)
    assert (end.stop_reason, end.n_answer) == (Reason.MAX_TOKENS, 400)
    loading.result(PATIENCE_S)
    assert context_of(engine) == 256
    assert not first.is_running()
    end = whole(late)[1]
    assert isinstance(end, Finished)
    assert end.n_prompt + end.n_answer == 256


def test_who_asks_for_the_same_context_meanwhile_waits_for_it_too(tricky, endless_model):
    engine = tricky(endless_model, ENDLESS_CTX)
    running = engine.submit(request("1"))
    assert has_begun(running)
    loadings = [engine.load(n_ctx=n_ctx) for n_ctx in (256, 256, None)]
    assert not any(loading.done() for loading in loadings)
    running.close()
    for loading in loadings:
        loading.result(PATIENCE_S)
    assert context_of(engine) == 256


def test_of_two_contexts_the_later_one_counts_and_the_other_hears_so(tricky, endless_model):
    engine = tricky(endless_model, ENDLESS_CTX)
    running = engine.submit(request("1"))
    assert has_begun(running)
    earlier, later = engine.load(n_ctx=256), engine.load(n_ctx=BAD_CTX)
    assert failure(earlier) == f"Meanwhile a context of {BAD_CTX} was asked for."
    running.close()
    assert "SIGKILL" in failure(later)
    assert isinstance(whole(engine.submit(request("2", max_tokens=2)))[1], Finished)
    assert context_of(engine) == ENDLESS_CTX, "the one there was, not the one that nobody has had"


@pytest.mark.parametrize("n_ctx", [BAD_CTX, NO_ROOM_CTX])
def test_where_another_context_cannot_be_had_the_model_comes_back_as_it_was_with_all_that_waited(
    tricky, endless_model, n_ctx
):
    engine = tricky(endless_model, ENDLESS_CTX)
    running = engine.submit(request("1"))
    assert has_begun(running)
    resizing, late = engine.load(n_ctx=n_ctx), engine.submit(request("2", max_tokens=2))
    plain = engine.load()
    running.close()
    assert failure(resizing)
    plain.result(PATIENCE_S)
    assert isinstance(whole(late)[1], Finished)
    assert context_of(engine) == ENDLESS_CTX
    assert engine.status().state is State.READY
    assert engine.status().failure is None


@pytest.mark.parametrize("n_ctx", [BAD_CTX, NO_ROOM_CTX])
def test_a_model_whose_context_cannot_be_had_comes_back_by_itself(tricky, n_ctx):
    engine = tricky()
    context = context_of(engine)
    assert failure(engine.load(n_ctx=n_ctx))
    assert engine.wait(PATIENCE_S).state is State.READY
    assert context_of(engine) == context


@pytest.mark.parametrize("n_ctx", [BAD_CTX, NO_ROOM_CTX])
def test_it_comes_back_as_it_was_also_when_nobody_waits_for_it_any_more(tricky, n_ctx):
    engine = tricky()
    context = context_of(engine)
    engine.give_up(engine.load(n_ctx=n_ctx))
    assert engine.unloaded(PATIENCE_S)
    assert isinstance(whole(engine.submit(request("1", max_tokens=2)))[1], Finished)
    assert context_of(engine) == context


def test_a_model_that_was_not_loaded_is_not_loaded_for_a_context_that_cannot_be_had(engines, monkeypatch):
    (engine,) = engines(1, TrickyRoom(monkeypatch))
    assert "SIGKILL" in failure(engine.load(n_ctx=BAD_CTX))
    assert engine.status().state is State.IDLE
    assert engine.config.n_ctx is None
    assert isinstance(whole(engine.submit(request("1", max_tokens=2)))[1], Finished)


def test_a_model_that_could_not_be_loaded_is_not_tried_again_for_it(engines, monkeypatch):
    (engine,) = engines(1, TrickyRoom(monkeypatch), n_ctx=BAD_CTX)
    for n_ctx in (None, NO_ROOM_CTX):
        assert failure(engine.load(n_ctx=n_ctx))
        assert engine.status().state is State.FAILED
    assert engine.config.n_ctx == BAD_CTX
    engine.load(n_ctx=256).result(PATIENCE_S)


def test_a_model_that_was_unloaded_meanwhile_does_not_come_back(tricky, monkeypatch):
    may_fail = threading.Event()

    class Slow(process.Process):
        def words(self) -> Iterator[Word]:
            assert may_fail.wait(PATIENCE_S)
            yield from super().words()

    engine = tricky()
    first = worker(engine)
    monkeypatch.setattr("engine.supervisor.Process", Slow)
    loading = engine.load(n_ctx=BAD_CTX)
    until(lambda: engine.status().worker_pid not in (first.pid, None))
    engine.unload()
    assert failure(loading) == "The model was unloaded meanwhile."
    may_fail.set()
    assert engine.unloaded(PATIENCE_S)
    assert engine.wait(PATIENCE_S).state is State.IDLE
    assert engine.config.n_ctx is None


@pytest.mark.parametrize("n_ctx", [BAD_CTX, NO_ROOM_CTX])
def test_a_context_asked_for_while_another_one_fails_is_tried_all_the_same(engines, monkeypatch, n_ctx):
    loadings: list[Loading] = []

    def ask_once(engine: Supervisor) -> None:
        assert isinstance(engine, Engine)
        if not loadings:
            loadings.append(engine.load(n_ctx=256))

    (engine,) = engines(1, TrickyRoom(monkeypatch, ask_once), n_ctx=n_ctx)
    plain = engine.load()
    plain.result(PATIENCE_S)
    loadings[0].result(PATIENCE_S)
    assert context_of(engine) == 256


def test_a_model_that_was_forced_comes_back_by_force_and_no_other_stays_forced(engines, monkeypatch):
    (engine,) = engines(1, TrickyRoom(monkeypatch))
    with monkeypatch.context() as small:
        small.setattr(memory, "available", lambda: 10**6)
        engine.load(force=True).result(PATIENCE_S)
        assert failure(engine.load(n_ctx=512)).startswith("demo.gguf does not fit")
        engine.load().result(PATIENCE_S)
    engine.unload()
    assert engine.unloaded(PATIENCE_S)
    assert not engine.forced
    assert failure(engine.load(force=True, n_ctx=BAD_CTX))
    assert not engine.forced


class RoomBySize(Room):
    """Has room for one large model, and for small ones beside it."""

    def _free(self, inside: dict[Supervisor, memory.Need | None]) -> int:
        small = memory.need(replace(next(iter(inside)).config, n_ctx=512)) if inside else None
        return small.total_bytes if small else 2**60


def test_a_smaller_context_that_fits_beside_the_others_waits_for_nobody(engines, endless_model):
    one, two = engines(2, RoomBySize(), endless_model, ENDLESS_CTX)
    running = one.submit(request("1"))
    assert has_begun(running)
    one.load().result(PATIENCE_S)
    plain, late = two.load(), two.submit(request("1", max_tokens=2))
    until(lambda: one.status().leaving)
    two.load(n_ctx=256).result(PATIENCE_S)
    plain.result(PATIENCE_S)
    assert isinstance(whole(late)[1], Finished)
    assert (context_of(two), one.status().leaving) == (256, False)
    running.close()


def test_a_context_that_changes_while_a_model_waits_for_its_room_is_loaded_at_once(engines, endless_model):
    room = SmallRoom(1)
    one, two = engines(2, room, endless_model, ENDLESS_CTX)
    running = one.submit(request("1"))
    assert has_begun(running)
    plain, late = two.load(), two.submit(request("1", max_tokens=2))
    until(lambda: one.status().leaving)
    resizing = two.load(n_ctx=256)
    running.close()
    for loading in (plain, resizing):
        loading.result(PATIENCE_S)
    assert isinstance(whole(late)[1], Finished)
    assert (context_of(two), two.status().leaving) == (256, False)
    assert room._inside[two] == memory.need(two.config), "and the memory taken is that of what is loaded"


def test_who_gives_up_leaves_no_force_behind(engines, endless_model):
    one, two = engines(2, SmallRoom(1), endless_model, ENDLESS_CTX)
    assert has_begun(one.submit(request("1")))
    two.give_up(two.load(force=True))
    until(lambda: two.status().state is State.IDLE)
    assert not two.forced


def test_who_waits_for_a_model_hears_when_it_is_unloaded_or_the_server_ends(engines, endless_model):
    one, two = engines(2, SmallRoom(1), endless_model, ENDLESS_CTX)
    assert has_begun(one.submit(request("1")))
    loading = two.load()
    two.unload()
    assert failure(loading) == "The model was unloaded meanwhile."
    loading = two.load()
    two.close()
    assert failure(loading) == failure(two.load()) == "The server is shutting down."
