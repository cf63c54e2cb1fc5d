"""engine.room: engines that share the memory, with real workers."""

from __future__ import annotations

import threading

import psutil
import pytest

from engine import memory
from engine.client import Engine
from engine.memory import DoesNotFitError
from engine.request import Failed, Finished, Trouble
from engine.room import Room
from engine.stream import State
from engine.supervisor import Supervisor
from tests.conftest import DEMO, PATIENCE_S, until
from tests.test_client import ENDLESS_CTX, has_begun, next_event, request, whole


class SmallRoom(Room):
    """Has room for so many models of the same size."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self._n = n

    def _free(self, inside: dict[Supervisor, memory.Need | None]) -> int:
        return 0 if len(inside) >= self._n else 2**60


def worker(engine: Engine) -> psutil.Process:
    pid = engine.status().worker_pid
    assert pid
    return psutil.Process(pid)


def test_models_are_loaded_beside_each_other_while_there_is_room(engines):
    one, two = engines(2, Room())
    assert one.status().state is State.IDLE
    assert all(isinstance(whole(engine.submit(request("1", max_tokens=2)))[1], Finished) for engine in (one, two))
    assert worker(one).is_running()
    assert worker(two).is_running()


def test_where_there_is_none_the_one_used_least_recently_goes_and_its_memory_comes_back(engines):
    one, two, three = engines(3, SmallRoom(2))
    for engine in (one, two, one):
        whole(engine.submit(request("1", max_tokens=2)))
    stays, goes = worker(one), worker(two)
    whole(three.submit(request("1", max_tokens=2)))
    assert two.status().state is State.IDLE
    assert not goes.is_running()
    assert stays.is_running()
    whole(two.submit(request("2", max_tokens=2)))
    assert not stays.is_running()


def test_a_model_finishes_what_it_has_before_it_goes_and_those_who_come_then_wait_for_their_turn(engines, endless_model):
    one, two = engines(2, SmallRoom(1), endless_model, ENDLESS_CTX)
    running = one.submit(request("1"))
    assert has_begun(running)
    first = worker(one)
    other = two.submit(request("1", max_tokens=2))
    until(lambda: one.status().leaving)
    late = one.submit(request("2", max_tokens=2))
    assert first.is_running()
    running.close()
    assert isinstance(whole(other)[1], Finished)
    assert not first.is_running()
    assert isinstance(whole(late)[1], Finished), "it took its turn again"
    assert two.status().state is State.IDLE


def test_a_crash_does_not_cost_a_model_its_place(engines):
    one, two = engines(2, SmallRoom(1))
    whole(one.submit(request("1", max_tokens=2)))
    worker(one).kill()
    until(lambda: one.status().n_restarts)
    assert one.wait(PATIENCE_S).state is State.READY
    assert isinstance(whole(two.submit(request("1", max_tokens=2)))[1], Finished)


def test_a_model_that_fits_nowhere_is_refused_unless_it_is_forced(engines, monkeypatch):
    (engine,) = engines(1, Room())
    monkeypatch.setattr(memory, "available", lambda: 10**6)
    refused = next_event(engine.submit(request("1")))
    assert isinstance(refused, Failed)
    assert refused.trouble is Trouble.NO_MODEL
    assert "does not fit" in refused.message
    assert engine.status().state is State.IDLE, "the next request tries again"
    with pytest.raises(DoesNotFitError):
        memory.check(engine.config)
    engine.load(force=True)
    assert engine.wait(PATIENCE_S).state is State.READY


def test_a_model_that_cannot_be_loaded_is_tried_once_for_each_state_of_its_file(engines, tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(DEMO.read_bytes()[:-1000])
    broken, good = engines(1, room := SmallRoom(1), path) + engines(1, room)
    for _ in range(3):
        assert isinstance(next_event(broken.submit(request("1"))), Failed)
    assert broken.status().state is State.FAILED
    assert isinstance(whole(good.submit(request("1", max_tokens=2)))[1], Finished)
    path.write_bytes(DEMO.read_bytes())
    assert isinstance(whole(broken.submit(request("2", max_tokens=2)))[1], Finished)


def test_engines_that_wait_for_each_other_can_be_closed(engines, endless_model):
    one, two = engines(2, SmallRoom(1), endless_model, ENDLESS_CTX)
    assert has_begun(one.submit(request("1")))
    two.submit(request("1"))
    until(lambda: one.status().leaving)
    closing = [threading.Thread(target=engine.close) for engine in (two, one)]
    for thread in closing:
        thread.start()
    for thread in closing:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def test_a_worker_that_dies_while_it_is_to_leave_has_left(engines, endless_model):
    one, two = engines(2, SmallRoom(1), endless_model, ENDLESS_CTX)
    running = one.submit(request("1"))
    assert has_begun(running)
    other = two.submit(request("1", max_tokens=2))
    until(lambda: one.status().leaving)
    worker(one).kill()
    assert isinstance(whole(running)[1], Failed)
    assert isinstance(whole(other)[1], Finished)
    assert isinstance(whole(one.submit(request("2", max_tokens=2)))[1], Finished)


def test_a_model_that_nobody_waits_for_any_more_moves_nobody(engines, endless_model):
    one, two, three = engines(3, SmallRoom(1), endless_model, ENDLESS_CTX)
    running = one.submit(request("1"))
    assert has_begun(running)
    two.submit(request("1")).close()
    until(lambda: two.status().state is State.IDLE)
    assert three.status().state is State.IDLE
    running.close()
    waiting = three.submit(request("1", max_tokens=2))
    assert isinstance(whole(waiting)[1], Finished)


def test_one_that_becomes_idle_goes_instead_of_one_that_answers_long(engines, endless_model):
    one, two, three = engines(3, SmallRoom(2), endless_model, ENDLESS_CTX)
    long, short = one.submit(request("1")), two.submit(request("1"))
    assert has_begun(long)
    assert has_begun(short)
    other = three.submit(request("1", max_tokens=2))
    until(lambda: one.status().leaving or two.status().leaving)
    (long if two.status().leaving else short).close()  # the one that was not told to leave
    assert isinstance(whole(other)[1], Finished)


def test_an_engine_that_is_closed_while_it_waits_for_room_leaves_nothing_behind(engines, endless_model):
    room = SmallRoom(1)
    one, two = engines(2, room, endless_model, ENDLESS_CTX)
    assert has_begun(one.submit(request("1")))
    two.submit(request("1"))
    until(lambda: one.status().leaving)
    two.close()
    assert list(room._inside) == [one]


def test_a_model_that_does_not_fit_moves_nobody(engines, monkeypatch):
    one, two = engines(2, Room())
    whole(one.submit(request("1", max_tokens=2)))
    monkeypatch.setattr(memory, "available", lambda: 10**6)
    monkeypatch.setattr(memory, "own", lambda _: 0)
    refused = next_event(two.submit(request("1")))
    assert isinstance(refused, Failed)
    assert one.status().state is State.READY


def test_a_fault_of_ours_while_a_model_is_loaded_is_told(engines, monkeypatch):
    (engine,) = engines(1, Room())
    monkeypatch.setattr(memory, "need", lambda _: 1 / 0)
    refused = next_event(engine.submit(request("1")))
    assert isinstance(refused, Failed)
    assert "ZeroDivisionError" in refused.message
    monkeypatch.undo()
    assert isinstance(whole(engine.submit(request("2", max_tokens=2)))[1], Finished)


def test_one_that_was_told_to_leave_stays_when_its_room_is_not_needed_any_more(engines, endless_model):
    one, two = engines(2, SmallRoom(1), endless_model, ENDLESS_CTX)
    running = one.submit(request("1"))
    assert has_begun(running)
    other = two.submit(request("1"))
    until(lambda: one.status().leaving)
    held = one.submit(request("2", max_tokens=2))
    other.close()
    assert isinstance(whole(held)[1], Finished), "beside the running one, by the same worker"
    assert one.status().busy
    assert two.status().state is State.IDLE


def test_draining_does_not_wait_for_those_that_no_worker_has(engines, endless_model):
    one, two = engines(2, SmallRoom(1), endless_model, ENDLESS_CTX)
    running = one.submit(request("1"))
    assert has_begun(running)
    waiting = two.submit(request("1"))
    assert two.drain(PATIENCE_S)
    end = next_event(waiting)
    assert isinstance(end, Failed)
    assert end.trouble is Trouble.STOPPING


def test_a_model_that_only_waits_for_room_is_unloaded_at_once(engines, endless_model):
    one, two = engines(2, SmallRoom(1), endless_model, ENDLESS_CTX)
    assert has_begun(one.submit(request("1")))
    two.load()
    until(lambda: one.status().leaving)
    two.unload()
    assert two.unloaded(PATIENCE_S)
    assert two.status().state is State.IDLE


def test_who_gives_up_waiting_for_a_model_moves_nobody_either(engines, endless_model):
    one, two = engines(2, SmallRoom(1), endless_model, ENDLESS_CTX)
    assert has_begun(one.submit(request("1")))
    for unload in (False, True):
        loading = two.load()
        until(lambda: one.status().leaving)
        if unload:
            two.unload()
        else:
            two.give_up(loading)
        until(lambda: not one.status().leaving)
        assert two.status().state is State.IDLE
        assert not two.wanted
