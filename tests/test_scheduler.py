"""engine.scheduler: who gets how many tokens next. No model, no clock."""

from hypothesis import given
from hypothesis import strategies as st

from engine.scheduler import SLICE_ALONE, SLICE_BESIDE, Scheduler, Sequence


def sequence(name: str, n_prompt: int) -> Sequence:
    return Sequence(name, list(range(n_prompt)))


def step(scheduler: Scheduler[Sequence]) -> dict[str, tuple[int, int]]:
    """Runs a step as the worker does: reads, and appends a token where one is sampled."""
    scheduler.admit()
    batch = scheduler.next()
    for s in batch:
        s.sequence.n_read = s.stop
        if s.complete:
            s.sequence.tokens.append(0)
    return {s.sequence.id: (s.start, s.stop) for s in batch}


def test_a_prompt_alone_is_read_in_long_slices():
    scheduler: Scheduler[Sequence] = Scheduler(2)
    scheduler.add(sequence("a", SLICE_ALONE + 10))
    assert step(scheduler) == {"a": (0, SLICE_ALONE)}
    assert step(scheduler) == {"a": (SLICE_ALONE, SLICE_ALONE + 10)}


def test_running_answers_come_first_and_the_prompt_beside_them_gets_a_short_slice():
    scheduler: Scheduler[Sequence] = Scheduler(2)
    scheduler.add(sequence("answer", 3))
    step(scheduler)
    scheduler.add(sequence("long", 500))
    assert step(scheduler) == {"answer": (3, 4), "long": (0, SLICE_BESIDE)}
    assert step(scheduler) == {"answer": (4, 5), "long": (SLICE_BESIDE, 2 * SLICE_BESIDE)}


def test_short_prompts_share_a_slice():
    scheduler: Scheduler[Sequence] = Scheduler(4)
    for name in "abc":
        scheduler.add(sequence(name, 50))
    assert step(scheduler) == {"a": (0, 50), "b": (0, 50), "c": (0, SLICE_ALONE - 100)}


def test_slots_are_given_in_order_of_arrival_and_again_when_they_are_free():
    scheduler: Scheduler[Sequence] = Scheduler(1)
    first, second, third = (sequence(name, 2) for name in "abc")
    for s in (first, second, third):
        scheduler.add(s)
    assert scheduler.admit() == [first]
    scheduler.remove(first)
    assert scheduler.admit() == [second]


def test_a_waiting_sequence_can_be_removed_and_leaves_no_trace():
    scheduler: Scheduler[Sequence] = Scheduler(1)
    running, waiting = sequence("a", 2), sequence("b", 2)
    scheduler.add(running)
    scheduler.add(waiting)
    scheduler.admit()
    scheduler.remove(waiting)
    scheduler.remove(running)
    assert not scheduler
    assert scheduler.admit() == []


@given(st.lists(st.integers(1, 400), min_size=1, max_size=12), st.integers(1, 5))
def test_every_prompt_is_read_whole_once_and_in_order_and_no_slot_is_shared(lengths, n_slots):
    scheduler: Scheduler[Sequence] = Scheduler(n_slots)
    sequences = [sequence(str(i), n) for i, n in enumerate(lengths)]
    for s in sequences:
        scheduler.add(s)
    read = {s.id: 0 for s in sequences}
    for _ in range(sum(lengths) + len(lengths)):
        scheduler.admit()
        batch = scheduler.next()
        if not batch:
            break
        assert len({s.slot for s in batch}) == len(batch) <= n_slots
        assert sum(s.stop - s.start for s in batch) <= max(SLICE_ALONE, n_slots + SLICE_BESIDE)
        for part in batch:
            assert part.start == read[part.sequence.id]
            read[part.sequence.id] = part.sequence.n_read = part.stop
            if part.complete:
                scheduler.remove(part.sequence)
    assert read == {str(i): n for i, n in enumerate(lengths)}
    assert not scheduler
