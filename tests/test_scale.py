"""Much work: a long queue, a large tree, and the simulation that measures them (bench.scale). Counted, not timed."""

import json
import random
import threading

import pytest

from bench import scale
from engine.costs import Costs
from engine.prefix import Prefixes
from engine.scheduler import Scheduler, Sequence
from engine.states import Record, States

N = 5000
COSTS = Costs({1: 0.02, 128: 0.03})


class Watched(Sequence):
    """Counts how often anybody looks at it."""

    n_looks = 0

    def __getattribute__(self, name):
        Watched.n_looks += 1
        return super().__getattribute__(name)


def queue(n_slots: int, n: int = N, kind: type[Sequence] = Sequence) -> tuple[Scheduler[Sequence], list[Sequence]]:
    scheduler: Scheduler[Sequence] = Scheduler(n_slots, COSTS)
    sequences = [kind(str(i), [1, 2, 3], background=i % 5 == 0) for i in range(n)]
    for sequence in sequences:
        scheduler.add(sequence)
    return scheduler, sequences


def test_a_long_queue_keeps_its_order_and_background_comes_last():
    scheduler, sequences = queue(7)
    came = []
    while scheduler:
        for sequence in scheduler.admit():
            came.append(sequence)
        for sequence in scheduler.running:
            scheduler.remove(sequence)
    assert came == sorted(sequences, key=lambda s: s.background)


def test_whoever_gives_up_in_the_middle_of_a_long_queue_is_gone_and_the_others_keep_their_places():
    scheduler, sequences = queue(1)
    scheduler.admit()
    gone = set(random.Random(7).sample(range(2, N), N // 2))
    for i in gone:
        found = scheduler.find(str(i))
        assert found is sequences[i]
        scheduler.remove(found)
        assert scheduler.find(str(i)) is None
    assert list(scheduler.waiting) == [s for i, s in enumerate(sequences) if i not in gone and s.slot is None]
    assert scheduler.find("1") is sequences[1] is scheduler.running[0]


def test_a_step_looks_at_nobody_who_waits():
    def looks(n_waiting: int) -> int:
        scheduler, _ = queue(8, 8 + n_waiting, Watched)
        for sequence in scheduler.admit():
            sequence.n_read = 3
        Watched.n_looks = 0
        scheduler.in_the_way()
        scheduler.admit()
        scheduler.next(scheduler.answering())
        return Watched.n_looks

    assert looks(1000) == looks(10)


def test_those_who_wait_are_looked_at_by_turns_each_with_how_many_stand_before_it():
    scheduler, sequences = queue(1, 150)
    (first,) = scheduler.admit()
    waiting = [s for s in sequences if s is not first]
    seen = [scheduler.some_waiting() for _ in range(3)]
    assert [len(some) for some in seen] == [64, 64, 21]
    assert [s for some in seen for _, s in some] == waiting
    scheduler.some_waiting()
    scheduler.remove(waiting[64])
    assert waiting[64] not in [s for _, s in scheduler.some_waiting()]
    scheduler.some_waiting()
    assert {s.id: n for n, s in scheduler.some_waiting()}[waiting[3].id] == 3


def test_no_look_up_goes_through_the_whole_tree(tmp_path):
    states = States(tmp_path, "model", 3000)
    prefixes = Prefixes(1000, states)
    statements: set[str] = set()
    prefixes._tree.set_trace_callback(statements.add)
    for i in range(50):
        prefixes.add([i] * 8 + [-1] * 8, lambda start, stop: bytes(10 * (stop - start)))
        prefixes.use(prefixes.match([i] * 8 + [i]))
    prefixes.write()
    prefixes.forget(prefixes.match([49] * 8)[0])
    prefixes._tree.set_trace_callback(None)
    kinds = {statement.split()[0] for statement in statements}
    assert {"SELECT", "UPDATE", "DELETE", "INSERT"} <= kinds
    for statement in statements:
        for *_, plan in prefixes._tree.execute(f"EXPLAIN QUERY PLAN {statement}"):
            assert plan.startswith("SEARCH"), f"{statement}: {plan}"


def test_a_disk_that_is_counted_as_it_fills_is_as_full_as_its_files(tmp_path):
    states = States(tmp_path, "model", 250)
    for i in range(5):
        states.write(Record(f"{i:032}", "", 0, [i], 100, 0), bytes(100))
        states.write(Record(f"{i:032}", "", 0, [i], 100, 0), bytes(100))
        assert states.full() == (i >= 2)
    for i in range(3):
        assert states.full()
        states.remove(f"{i:032}")
        states.remove(f"{i:032}")
    assert not states.full()
    assert states.flush(10)
    again = States(tmp_path, "model", 150)
    assert [record.id for record in again.records()] != []
    assert again.full()


def test_the_simulated_crowd_never_gets_smaller(monkeypatch):
    monkeypatch.setattr(scale, "N_QUEUED", 40)
    crowd = scale.Crowd(8, 40)
    for _ in range(600):
        crowd.step()
        assert len(list(crowd.scheduler)) == 48
    crowd.scheduler.admit()
    assert len(crowd.scheduler.running) == 8
    assert max(int(s.id) for s in crowd.scheduler) > 48, "nobody's answer ended"


@pytest.mark.parametrize("part", ["answers", "memory", "prefixes"])
def test_a_simulation_finds_what_it_has_put_there(part, monkeypatch):
    for name, n in {"N_ENTRIES": 100, "N_LOOKUPS": 40, "N_THREADS": 2, "N_FAMILIES": 2}.items():
        monkeypatch.setattr(scale, name, n)
    figures = scale.PARTS[part]()
    assert {"hit_ms", "miss_ms", "bytes_an_entry"} <= set(figures)


def test_memory_is_read_while_each_of_the_threads_that_looked_up_is_there(monkeypatch):
    for name, n in {"N_ENTRIES": 100, "N_LOOKUPS": 40, "N_THREADS": 8}.items():
        monkeypatch.setattr(scale, name, n)
    threads: list[threading.Thread] = []
    n_alive: list[int] = []
    real = scale.look_up

    def look_up(*args):
        threads.append(threading.current_thread())
        return real(*args)

    def memory_bytes() -> int:
        n_alive.append(sum(thread.is_alive() for thread in threads))
        return 0

    monkeypatch.setattr(scale, "look_up", look_up)
    monkeypatch.setattr(scale, "memory_bytes", memory_bytes)
    scale.answers()
    assert len(set(threads)) == n_alive[-1] == 8


def test_simulated_states_are_as_large_as_real_ones_and_no_two_are_of_the_same_age(monkeypatch):
    monkeypatch.setattr(scale, "N_FAMILIES", 2)
    records = list(scale.Files().records())
    used = {record.id: record.used for record in records}
    assert len(set(used.values())) == len(records)
    assert all(used[r.id] < used[r.parent] for r in records if r.parent), "a parent is older than its child"
    assert all(r.n_bytes == scale.STATE_BYTES * len(r.tokens) for r in records)


@pytest.mark.parametrize(("step_ms", "code", "said"), [(1.5, 0, "ok"), (2.5, 1, "exceeded: step_p99_ms 2.5 of 2")])
def test_a_bar_that_is_exceeded_is_said_and_is_an_exit_code(step_ms, code, said, monkeypatch, capsys):
    monkeypatch.setattr(scale, "measured", lambda name: {"step_p99_ms": step_ms, "longest_ms": 9.0})
    assert scale.main(["scheduler"]) == code
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].split(maxsplit=1) == ["scheduler", said]
    assert json.loads(lines[-1])["scheduler"]["step_p99_ms"] == step_ms
