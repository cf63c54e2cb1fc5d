"""engine.client: the engine with its real worker process, without HTTP."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from engine import process
from engine.client import Engine
from engine.request import Accepted, Config, Delta, Event, Failed, Finished, Limits, Request, Sampling, Trouble, stamp
from engine.stream import State, Stream
from tests.conftest import DEMO, PATIENCE_S, until
from tests.stuck_worker import STUCK_SEED

ENDLESS_CTX = 50_000  # tokens; minutes of talking
STALL_S = 3.0  # longer than any step of the small models here


@pytest.fixture
def start() -> Iterator[Callable[..., Engine]]:
    """Starts engines and ends them after the test."""
    engines = []

    def start(
        model: Path = DEMO,
        n_ctx: int | None = None,
        n_slots: int = 4,
        max_queue: int = 8,
        limits: Limits | None = None,
        **options,
    ) -> Engine:
        engine = Engine(Config(str(model), n_ctx, n_slots, 1, draft=False, limits=limits or Limits()), max_queue, **options)
        engines.append(engine)
        engine.start()
        engine.wait(PATIENCE_S)
        return engine

    yield start
    for engine in engines:
        engine.close()


def request(id: str, text: str = "hello", **fields) -> Request:
    return Request(id, [{"role": "user", "content": text}], **{"loop_stop": False} | fields)


def next_event(stream: Stream) -> Event:
    event = stream.next(PATIENCE_S)
    assert event, "nothing came"
    return event


def whole(stream: Stream) -> tuple[str, Event]:
    text = ""
    while not isinstance(event := next_event(stream), Finished | Failed):
        text += event.text if isinstance(event, Delta) else ""
    return text, event


def has_begun(stream: Stream) -> bool:
    return isinstance(next_event(stream), Accepted) and isinstance(next_event(stream), Delta)


def test_a_stream_is_accepted_then_deltas_then_finished(start):
    stream = start().submit(request("1", max_tokens=5))
    assert isinstance(next_event(stream), Accepted)
    text, end = whole(stream)
    assert text
    assert isinstance(end, Finished)
    assert end.n_answer <= 5
    assert stream.next(0.01) is None


def test_a_prompt_that_does_not_fit_is_refused_before_it_waits_for_a_slot(start, endless_model):
    engine = start(endless_model, n_ctx=ENDLESS_CTX, n_slots=1)
    running = engine.submit(request("1"))
    assert has_begun(running)
    refused = next_event(engine.submit(request("2", "a " * ENDLESS_CTX)))
    assert isinstance(refused, Failed)
    assert refused.trouble is Trouble.CONTEXT_LENGTH
    assert f"maximum context length is {ENDLESS_CTX} tokens" in refused.message


def test_an_answer_that_fills_the_context_ends_by_length(start, endless_model):
    text, end = whole(start(endless_model, n_ctx=128).submit(request("1")))
    assert isinstance(end, Finished)
    assert (end.finish_reason, end.n_prompt + end.n_answer) == ("length", 128)
    assert text


def test_more_than_may_wait_are_refused_at_once_and_the_others_are_not_harmed(start, endless_model):
    engine = start(endless_model, n_ctx=ENDLESS_CTX, n_slots=1, max_queue=1)
    running, waiting = engine.submit(request("1")), engine.submit(request("2", max_tokens=3))
    assert has_begun(running)
    refused = next_event(engine.submit(request("3")))
    assert isinstance(refused, Failed)
    assert refused.trouble is Trouble.QUEUE_FULL
    running.close()
    assert isinstance(whole(waiting)[1], Finished)


def test_those_who_join_an_answer_count_among_those_who_wait(start, endless_model):
    engine = start(endless_model, n_ctx=ENDLESS_CTX, n_slots=1, max_queue=2)
    first = engine.submit(request("1"))
    others = [engine.join(first) for _ in range(3)]
    assert all(has_begun(stream) for stream in (first, *others[:2]))
    refused = [others[2], engine.submit(request("2"))]
    for stream in refused:
        event = next_event(stream)
        assert isinstance(event, Failed)
        assert event.trouble is Trouble.QUEUE_FULL
    others[0].close()
    assert has_begun(engine.join(first))


def test_the_file_that_answers_come_from_is_known_while_it_is_the_one_at_its_path(start, endless_model, tmp_path):
    model = tmp_path / "model.gguf"
    shutil.copyfile(endless_model, model)
    engine = start(model, n_ctx=128)
    old = stamp(model)
    assert engine.model_file() == old
    shutil.copyfile(endless_model, tmp_path / "other")
    (tmp_path / "other").replace(model)
    assert engine.model_file() == "", "the old one is still loaded"
    os.kill(engine.status().worker_pid, signal.SIGKILL)
    until(lambda: engine.status().n_restarts)
    engine.wait(PATIENCE_S)
    assert engine.model_file() == stamp(model) != old
    model.unlink()
    assert engine.model_file() not in ("", old), "what is loaded is known all the same"


@pytest.mark.parametrize("phase", ["answering", "reading its prompt", "queued"])
def test_a_closed_stream_frees_its_place_at_once(start, endless_model, phase):
    engine = start(endless_model, n_ctx=ENDLESS_CTX, n_slots=1)
    long = engine.submit(request("1", "a " * (ENDLESS_CTX - 100 if phase == "reading its prompt" else 3)))
    assert isinstance(next_event(long), Accepted)
    if phase == "answering":
        assert isinstance(next_event(long), Delta)
    queued = engine.submit(request("2"))
    if phase == "queued":
        queued.close()
        last = engine.submit(request("3", max_tokens=3))
        long.close()
    else:
        long.close()
        queued.close()
        last = engine.submit(request("3", max_tokens=3))
    assert isinstance(whole(last)[1], Finished)
    assert engine.status().n_requests == 0


def test_a_crash_ends_the_running_requests_with_an_error_and_the_next_ones_are_answered(start, endless_model):
    engine = start(endless_model, n_ctx=ENDLESS_CTX)
    streams = [engine.submit(request(id)) for id in "ab"]
    assert all(map(has_begun, streams))
    os.kill(engine.status().worker_pid, signal.SIGSEGV)
    for stream in streams:
        _, end = whole(stream)
        assert isinstance(end, Failed)
        assert end.trouble is Trouble.ENGINE_DIED
    status = engine.wait(PATIENCE_S)
    assert (status.state, status.n_restarts) == (State.READY, 1)
    assert isinstance(whole(engine.submit(request("c", max_tokens=2)))[1], Finished)


def test_a_request_that_two_workers_died_of_is_refused(start, endless_model):
    engine = start(endless_model, n_ctx=ENDLESS_CTX, n_slots=1)
    running = engine.submit(request("1"))
    assert has_begun(running)
    waiting = engine.submit(request("2", "a " * (ENDLESS_CTX - 100)))
    assert isinstance(next_event(waiting), Accepted)
    for n_restarts in (1, 2):
        os.kill(engine.status().worker_pid, signal.SIGSEGV)
        while engine.status().n_restarts < n_restarts:
            engine.wait(0.01)
        engine.wait(PATIENCE_S)
    event = next_event(waiting)
    assert isinstance(event, Failed)
    assert event.trouble is Trouble.ENGINE_DIED


@pytest.fixture
def start_stuck(start, endless_model, monkeypatch, tmp_path) -> Callable[[], tuple[Engine, list[State], Path]]:
    """An engine whose workers get stuck when told so, the states it goes through, and the file that tells them."""

    def start_stuck() -> tuple[Engine, list[State], Path]:
        file = tmp_path / "stuck"
        monkeypatch.setattr(process, "WORKER", "tests.stuck_worker")
        monkeypatch.setenv("LINNET_TEST_STUCK", str(file))
        engine = start(endless_model, n_ctx=ENDLESS_CTX, limits=Limits(step_s=STALL_S))
        states: list[State] = []
        enter = engine._enter

        def note(state: State) -> None:
            states.append(state)
            enter(state)

        monkeypatch.setattr(engine, "_enter", note)
        return engine, states, file

    return start_stuck


def test_a_request_whose_step_does_not_come_back_is_told_so_and_the_others_go_on_where_they_were(start_stuck):
    engine, states, _ = start_stuck()
    other = engine.submit(request("other", max_tokens=700))
    assert has_begun(other)
    _, end = whole(engine.submit(request("stuck", sampling=Sampling(seed=STUCK_SEED))))
    assert isinstance(end, Failed)
    assert end.trouble is Trouble.STALLED
    assert f"within {STALL_S:g} s" in end.message
    text, end = whole(other)
    assert isinstance(end, Finished)
    assert (end.n_answer, end.stop_reason) == (700, "max_tokens")
    assert states == [State.STALLED, State.RESTARTING, State.READY]
    assert engine.status().n_restarts == 1
    alone, _ = whole(engine.submit(request("again", max_tokens=700)))
    assert text[:200] in alone[:400]  # all but what has_begun took
    assert len(alone) - len(text) < 200


def test_a_step_of_all_that_does_not_come_back_harms_nobody(start_stuck):
    engine, states, file = start_stuck()
    streams = [engine.submit(request(id, max_tokens=700)) for id in "ab"]
    assert all(map(has_begun, streams))
    file.touch()
    for stream in streams:
        _, end = whole(stream)
        assert isinstance(end, Finished)
        assert end.n_answer == 700
    assert states == [State.STALLED, State.RESTARTING, State.READY]


def test_an_idle_model_is_unloaded_and_the_next_request_loads_it_again(start):
    engine = start(keep_alive_s=0.2)
    pid = engine.status().worker_pid
    psutil.wait_procs([psutil.Process(pid)], timeout=PATIENCE_S)
    assert not psutil.pid_exists(pid)
    status = engine.status()
    assert status.state is State.IDLE
    assert status.serves
    assert isinstance(whole(engine.submit(request("1", max_tokens=2)))[1], Finished)


def test_a_model_that_cannot_be_loaded_is_reported_with_the_reason_and_requests_are_refused(start, tmp_path):
    path = tmp_path / "cut.gguf"
    path.write_bytes(DEMO.read_bytes()[:-1000])
    engine = start(path)
    status = engine.status()
    assert status.state is State.FAILED
    assert "not within the file bounds" in (status.failure or "")
    refused = next_event(engine.submit(request("1")))
    assert isinstance(refused, Failed)
    assert refused.trouble is Trouble.NO_MODEL


def test_closing_ends_the_worker_and_tells_those_who_wait(start, endless_model):
    engine = start(endless_model, n_ctx=ENDLESS_CTX)
    stream = engine.submit(request("1"))
    assert has_begun(stream)
    worker = psutil.Process(engine.status().worker_pid)
    assert not engine.drain(0.01)
    late = next_event(engine.submit(request("2")))
    engine.close()
    assert not worker.is_running()
    for event in (late, whole(stream)[1]):
        assert isinstance(event, Failed)
        assert event.trouble is Trouble.STOPPING
