"""engine.scheduler: who gets how many tokens next. No model, no clock."""

import weakref

from hypothesis import given
from hypothesis import strategies as st

from engine.costs import Costs
from engine.scheduler import CALM, LOOK, SLICE_MAX, Scheduler, Sequence, Slice

LINEAR = Costs({1: 0.020, 2: 0.030, 128: 1.290})  # 10 ms and 10 ms for each token
FOURS = Costs({1: 0.020, 2: 0.036, 3: 0.050, 4: 0.060, 5: 0.110, 8: 0.130, 16: 0.170, 128: 1.0})


def sequence(name: str, n_prompt: int, background: bool = False) -> Sequence:
    return Sequence(name, list(range(n_prompt)), background=background)


def read(scheduler: Scheduler[Sequence]) -> list[Slice[Sequence]]:
    """Runs a step as the worker does: reads, and appends a token where one is sampled."""
    scheduler.admit()
    batch = scheduler.next(scheduler.answering())
    for s in batch:
        s.sequence.n_read = s.stop
        if s.complete:
            s.sequence.tokens.append(0)
    return batch


def step(scheduler: Scheduler[Sequence]) -> dict[str, tuple[int, int]]:
    return {s.sequence.id: (s.start, s.stop) for s in read(scheduler)}


def scheduler_of(*sequences: Sequence, n_slots: int = 8, costs: Costs = LINEAR, **options: float) -> Scheduler[Sequence]:
    scheduler: Scheduler[Sequence] = Scheduler(n_slots, costs, **options)
    for s in sequences:
        scheduler.add(s)
    return scheduler


def test_a_prompt_alone_is_read_in_slices_of_about_a_second():
    assert step(scheduler_of(sequence("a", 500))) == {"a": (0, 96)}  # 100 tokens would take longer


def test_the_last_few_tokens_of_a_prompt_go_along():
    assert step(scheduler_of(sequence("a", 120))) == {"a": (0, 120)}
    assert step(scheduler_of(sequence("a", 121))) == {"a": (0, 96)}


def test_a_long_slice_beside_an_answer_comes_only_after_so_many_tokens_at_its_usual_pace():
    scheduler = scheduler_of(sequence("answer", 3), costs=FOURS)
    step(scheduler)
    scheduler.add(sequence("long", 500))
    assert step(scheduler) == {"answer": (3, 4), "long": (0, 47)}  # 48 tokens: 407 ms; 24 tokens of the answer take 480
    for i in range(CALM):
        assert step(scheduler) == {"answer": (4 + i, 5 + i)}
    assert step(scheduler)["long"] == (47, 94)


def test_what_is_soon_read_is_read_in_small_slices_without_waiting_for_a_long_one():
    scheduler = scheduler_of(sequence("answer", 3), costs=Costs({1: 0.020, 4: 0.050, 16: 0.170, 128: 1.0}))
    step(scheduler)
    scheduler.add(sequence("long", 60))
    assert step(scheduler)["long"] == (0, 47)
    assert step(scheduler) == {"answer": (4, 5), "long": (47, 50)}  # 4 tokens: 50 ms = 2.5 x 20 ms
    assert step(scheduler) == {"answer": (5, 6), "long": (50, 53)}


def test_where_small_slices_are_cheap_every_step_has_one():
    cheap = Costs({1: 0.020, 4: 0.021, 16: 0.024, 32: 0.034, 128: 0.160})
    scheduler = scheduler_of(sequence("answer", 3), costs=cheap)
    step(scheduler)
    scheduler.add(sequence("long", 5000))
    step(scheduler)
    read = scheduler.running[1].n_read
    for i in range(1, 4):
        assert step(scheduler)["long"][1] == read + 31 * i  # 32 tokens: 34 ms; 48 would take more than 50


def test_the_longest_step_beside_an_answer_can_be_set():
    scheduler = scheduler_of(sequence("answer", 3), slice_s=0.2)
    step(scheduler)
    scheduler.add(sequence("long", 500))
    assert step(scheduler) == {"answer": (3, 4), "long": (0, 15)}  # 16 tokens: 170 ms; 20 would take 210


def test_a_prompt_beside_an_answer_gets_on_where_every_step_is_slow_or_the_pause_is_set_short():
    slow = Costs({1: 0.16, 4: 0.44, 8: 0.94, 16: 1.36, 128: 7.0})
    for options in ({"costs": slow}, {"costs": FOURS, "slice_s": 0.1}):
        answer, prompt = sequence("answer", 3), sequence("long", 500)
        scheduler = scheduler_of(answer, **options)
        step(scheduler)
        scheduler.add(prompt)
        for _ in range(100):
            step(scheduler)
        assert prompt.n_read >= 25  # of 500


def test_more_prompts_than_tokens_of_a_slice_all_get_on():
    prompts = [sequence(name, 50 + i) for i, name in enumerate("abcdef")]
    scheduler = scheduler_of(sequence("answer", 3), costs=FOURS, slice_s=0.05)
    step(scheduler)
    for prompt in prompts:
        scheduler.add(prompt)
    step(scheduler)
    assert all(prompt.n_read for prompt in prompts)


def test_beside_a_long_slice_it_is_every_answers_turn():
    scheduler = scheduler_of(*(sequence(name, 1) for name in "abcdef"), costs=FOURS)
    step(scheduler)
    scheduler.add(sequence("long", 500))
    assert set(step(scheduler)) == {*"abcdef", "long"}


def test_a_slow_machine_gets_shorter_slices():
    scheduler = scheduler_of(sequence("a", 500))
    LINEAR.slowness = 2.0
    assert step(scheduler) == {"a": (0, 48)}
    LINEAR.slowness = 1.0


def test_as_many_answers_share_a_step_as_is_fastest_for_all_and_they_take_turns():
    scheduler = scheduler_of(*(sequence(name, 1) for name in "abcdef"), costs=FOURS)
    step(scheduler)
    assert set(step(scheduler)) == set("abcd")
    assert set(step(scheduler)) == set("efab")
    assert set(step(scheduler)) == set("cdef")


def test_prompts_are_read_in_equal_parts_and_a_short_one_leaves_its_room_to_the_others():
    assert step(scheduler_of(sequence("a", 90), sequence("b", 90))) == {"a": (0, 48), "b": (0, 48)}
    scheduler = scheduler_of(sequence("long", 500), sequence("short", 20))
    assert step(scheduler) == {"long": (0, 76), "short": (0, 20)}


def test_a_follower_waits_for_its_leader_to_read():
    leader, follower = sequence("a", 500), sequence("b", 500)
    follower.leader, follower.n_awaited = leader, 90
    scheduler = scheduler_of(leader, follower)
    assert step(scheduler) == {"a": (0, 90)}  # 96 would fit: from here on there is something for both
    follower.leader, follower.n_read = None, 90
    assert set(step(scheduler)) == {"a", "b"}


def test_what_has_time_is_read_only_when_nothing_else_is_to_do():
    scheduler = scheduler_of(sequence("typed", 500, background=True))
    assert set(step(scheduler)) == {"typed"}
    scheduler.add(sequence("a", 10))
    assert set(step(scheduler)) == {"a"}
    assert set(step(scheduler)) == {"a"}


def test_what_has_time_is_in_the_way_when_somebody_waits_for_its_slot():
    typed = sequence("typed", 500, background=True)
    scheduler = scheduler_of(typed, n_slots=1)
    step(scheduler)
    assert scheduler.in_the_way() == []
    scheduler.add(sequence("a", 10))
    assert scheduler.in_the_way() == [typed]


def test_a_draft_is_counted_into_the_step():
    answer = sequence("answer", 3)
    scheduler = scheduler_of(answer, slice_s=0.13)
    step(scheduler)
    scheduler.add(sequence("long", 500))
    answer.draft = [1, 2, 3]
    assert step(scheduler)["long"] == (0, 8)  # 12 tokens in all, 4 of them the answer's


def test_slots_are_given_in_order_of_arrival_and_again_when_they_are_free():
    first, second, third = (sequence(name, 2) for name in "abc")
    scheduler = scheduler_of(first, second, third, n_slots=1)
    assert scheduler.admit() == [first]
    scheduler.remove(first)
    assert scheduler.admit() == [second]


def test_a_waiting_sequence_can_be_removed_and_leaves_no_trace():
    running, waiting = sequence("a", 2), sequence("b", 2)
    scheduler = scheduler_of(running, waiting, n_slots=1)
    scheduler.admit()
    scheduler.remove(waiting)
    scheduler.remove(running)
    assert not scheduler
    assert scheduler.admit() == []


def found(scheduler: Scheduler[Sequence], id: str) -> Sequence:
    sequence = scheduler.find(id)
    assert sequence
    return sequence


def test_whoever_has_gone_while_waiting_is_kept_by_nobody():
    scheduler = scheduler_of(*(sequence(str(i), 2) for i in range(3 * LOOK)), n_slots=1)
    scheduler.some_waiting()
    gone = weakref.ref(found(scheduler, "100"))
    scheduler.remove(found(scheduler, "100"))
    assert gone() is None


def test_a_newcomer_is_not_kept_waiting_for_those_who_have_gone():
    scheduler = scheduler_of(*(sequence(str(i), 2) for i in range(100 * LOOK)))
    scheduler.some_waiting()
    for i in range(100 * LOOK - 10):
        scheduler.remove(found(scheduler, str(i)))
    scheduler.add(sequence("newcomer", 2))
    seen = scheduler.some_waiting()
    assert [s.id for _, s in seen] == [s.id for s in scheduler.waiting]
    assert [n_before for n_before, _ in seen] == list(range(11))


@given(st.lists(st.integers(1, 400), min_size=1, max_size=12), st.integers(1, 5))
def test_every_prompt_is_read_whole_once_and_in_order_and_no_slot_is_shared(lengths, n_slots):
    sequences = [sequence(str(i), n) for i, n in enumerate(lengths)]
    scheduler = scheduler_of(*sequences, n_slots=n_slots, costs=FOURS)
    positions = {s.id: 0 for s in sequences}
    for _ in range(sum(lengths) + 4 * len(lengths)):
        batch = read(scheduler)
        if not batch:
            break
        assert len({s.slot for s in batch}) == len(batch) <= n_slots
        assert sum(s.stop - s.start for s in batch) <= SLICE_MAX + n_slots
        for part in batch:
            assert part.start == positions[part.sequence.id]
            positions[part.sequence.id] = part.stop
            if part.sequence.n_read > part.sequence.n_prompt + 2:
                scheduler.remove(part.sequence)
    assert not scheduler
    assert positions == {str(i): n + 3 for i, n in enumerate(lengths)}
