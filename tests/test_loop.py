"""engine.loop: reuse, guesses, early ends and clocks with the demo model in the test's own process, step by step.

The judge of each fast way is the slow plain one: a fresh engine that knows nothing and guesses nothing.
"""

import gc
import queue
from collections.abc import Callable, Iterator

import psutil
import pytest

from api.record import Record
from bench import shapes, steps
from engine import loop
from engine.costs import Costs
from engine.native.model import Model
from engine.request import (
    Accepted,
    Cancel,
    Command,
    Config,
    Delta,
    End,
    Finished,
    Limits,
    Request,
    Sampling,
    Trouble,
)
from engine.states import States
from tests.conftest import DEMO, PATIENCE_S
from tests.rig import CHEAP, N_SLOTS, Rig, ask, load, rigs

STORY = "Tell me a story about a fox."
POEM = "Write a poem about rain."
QUESTIONS = ["What is the capital of France?", "Tell me a story about a wolf.", "What is 12 + 30?", "hello"]


class LateInbox:
    """An inbox whose commands come one after another, each only when it is waited for."""

    def __init__(self, *commands: Command) -> None:
        self._commands = list(commands)

    def empty(self) -> bool:
        return True

    def get(self, timeout: float | None = None) -> Command:
        if self._commands:
            return self._commands.pop(0)
        assert timeout, "the loop waits for ever"
        raise queue.Empty


@pytest.fixture(scope="module")
def model() -> Model:
    return load(DEMO)


@pytest.fixture
def rig(model: Model) -> Iterator[Callable[..., Rig]]:
    with rigs(model) as rig:
        yield rig


def plain(rig: Callable[..., Rig], *turns: str, **fields) -> str:
    """The answer of an engine that knows nothing before."""
    fresh = rig(ram_bytes=0)
    fresh.run(ask("x", *turns, **fields))
    return fresh.text("x")


def test_the_second_turn_of_a_chat_reads_only_what_is_new(rig):
    r = rig()
    r.run(ask("1", STORY))
    story = r.text("1")
    r.n_read = 0
    r.run(ask("2", STORY, story, "What is 12 + 30?"))
    end = r.end("2")
    assert end.n_cached >= r.end("1").n_prompt + r.end("1").n_answer - 1
    assert r.n_read == end.n_prompt - end.n_cached + end.n_answer
    assert r.text("2") == plain(rig, STORY, story, "What is 12 + 30?")


def test_the_same_question_again_reads_one_token(rig):
    r = rig()
    r.run(ask("1", STORY), ask("2", STORY))
    r.run(ask("3", STORY))
    assert r.end("3").n_cached == r.end("3").n_prompt - 1
    assert r.text("1") == r.text("2") == r.text("3") == plain(rig, STORY)


def test_a_beginning_common_to_all_is_read_once_while_all_run(rig):
    system = "You are a helpful bird. " * 20
    messages = [[{"role": "system", "content": system}, {"role": "user", "content": q}] for q in QUESTIONS]
    r = rig()
    r.put(*(Request(str(i), m) for i, m in enumerate(messages)))
    r.run()
    ends = [r.end(str(i)) for i in range(len(QUESTIONS))]
    shared = min(end.n_prompt for end in ends) - 30
    assert ends[0].n_cached == 0
    assert all(end.n_cached > shared for end in ends[1:])
    for i, m in enumerate(messages):
        fresh = rig(ram_bytes=0)
        fresh.run(Request("x", m))
        # Only the beginning: a batch of another shape rounds otherwise, and where two words are as good the story turns.
        assert r.text(str(i))[:100] == fresh.text("x")[:100]


def test_those_who_come_together_are_read_together_also_after_one_that_is_refused(rig, monkeypatch):
    monkeypatch.setattr(loop, "TAKE_S", PATIENCE_S)  # rendering three prompts takes long on a busy machine
    r = rig()
    long = "word " * 700
    r.loop._inbox = LateInbox(ask("refused", "word " * 2000), *(ask(str(i), f"{i} {long}") for i in range(3)))
    r.loop.take()
    assert r.failure("refused").trouble is Trouble.CONTEXT_LENGTH
    assert [answer.id for answer in r.loop.answers] == ["0", "1", "2"]
    r.step()
    assert all(answer.n_read for answer in r.loop.answers)


def test_a_short_question_is_not_kept_waiting_for_others(rig):
    r = rig()
    r.loop._inbox = LateInbox(ask("1", "hello"), ask("2", "hello"))
    r.loop.take()
    assert [answer.id for answer in r.loop.answers] == ["1"]


def test_the_front_is_woken_once_a_step_however_many_answers_go_on(rig):
    r = rig()
    r.put(*(ask(str(i), STORY) for i in range(N_SLOTS)))
    while not all(r.text(str(i)) for i in range(N_SLOTS)):
        r.step()
    n_sent, n_words = r.n_sent, len(r.words)
    r.step()
    assert (r.n_sent - n_sent, len(r.words) - n_words) == (1, N_SLOTS)


def test_those_who_follow_go_on_when_the_one_who_reads_for_them_is_cancelled(rig):
    long = "word " * 600
    r = rig()
    r.put(ask("1", long + "a"), ask("2", long + "b"))
    r.step()
    assert r.n_read > 0
    r.put(Cancel("1"))
    r.run()
    assert r.end("2").n_cached > 0
    assert r.text("2") == plain(rig, long + "b")


def test_what_was_read_before_a_cancel_is_not_read_again(rig):
    r = rig()
    r.put(ask("1", STORY))
    for _ in range(20):
        r.step()
    r.put(Cancel("1"), ask("2", STORY))
    r.run()
    assert r.end("2").n_cached == r.end("2").n_prompt - 1


def test_a_conversation_is_found_on_disk_after_a_restart(rig, tmp_path):
    states = States(tmp_path, "demo", 2**30)
    r = rig(states=states)
    r.run(ask("1", STORY))
    r.prefixes.write()
    states.flush(10)
    again = rig(states=States(tmp_path, "demo", 2**30))
    again.run(ask("2", STORY, r.text("1"), "hello"))
    assert again.end("2").n_cached >= r.end("1").n_prompt + r.end("1").n_answer - 1
    assert again.text("2") == plain(rig, STORY, r.text("1"), "hello")


def test_a_state_that_does_not_fit_this_model_is_a_miss(rig, tmp_path):
    states = States(tmp_path, "demo", 2**30)
    r = rig(states=states)
    r.run(ask("1", STORY))
    for number, (node, state) in r.prefixes._held.items():
        r.prefixes._held[number] = node, b"x" * len(state)
    r.run(ask("2", STORY))
    assert r.end("2").n_cached == 0
    assert r.text("2") == plain(rig, STORY)
    r.run(ask("3", STORY))
    assert r.end("3").n_cached == r.end("3").n_prompt - 1


@pytest.mark.parametrize("fields", [{}, {"stop": ["forest", "road"]}, {"max_tokens": 37}], ids=str)
def test_guessing_changes_the_steps_and_not_the_answer(rig, fields):
    quiet, guessing = rig(), rig(draft=True)
    story = plain(rig, STORY)
    turns = (STORY, story, "hello", "Hello!", STORY)  # the same again: much to copy
    for r in (quiet, guessing):
        r.run(ask("1", *turns, **fields))
    # Only the beginning, as above: where two words are as good, a batch of another shape may round to the other one.
    assert guessing.text("1")[:200] == quiet.text("1")[:200]
    assert guessing.tokens("1")[:40] == quiet.tokens("1")[:40]
    assert guessing.n_steps <= quiet.n_steps
    if not fields:
        assert guessing.n_steps < quiet.n_steps


def test_sampled_answers_with_a_seed_are_guessed_for_as_well_and_stay_what_they_are(rig):
    story = plain(rig, STORY)
    texts = []
    for draft in (False, True):
        r = rig(draft=draft)
        r.run(ask("1", STORY, story, "hello", "Hello!", STORY, sampling=Sampling(temperature=0.9, seed=5)))
        texts.append(r.text("1")[:200])  # see above: batches of another shape round otherwise
    assert texts[0] == texts[1]


def test_guesses_of_several_answers_share_a_step(rig):
    story = plain(rig, STORY)
    r = rig(draft=True)
    r.run(*(ask(str(i), STORY, story, "hello", "Hello!", STORY, max_tokens=30) for i in range(N_SLOTS)))
    assert {r.text(str(i)) for i in range(N_SLOTS)} == {plain(rig, STORY, story, "hello", "Hello!", STORY, max_tokens=30)}


@pytest.mark.parametrize("fields", [{}, {"stop": ["stone,\nbut there", "g by"]}, {"early_stop": True}], ids=str)
def test_a_kept_answer_cut_or_gone_on_from_is_what_the_engine_would_say(rig, fields):
    def record(r: Rig, id: str) -> Record:
        deltas = [word for word in r.words if isinstance(word, Delta) and word.id == id]
        record = Record.load(Record(deltas, r.end(id), "").dump())
        assert record
        return record

    def said(events) -> tuple[str, str, int]:
        end = events[-1]
        return "".join(e.text for e in events if isinstance(e, Delta)), end.stop_reason, end.n_answer

    r = rig()
    r.run(ask("whole", POEM, **fields))
    whole, n = record(r, "whole"), r.end("whole").n_answer
    for limit in {*range(1, 14), *range(n - 3, n + 2)}:  # a stop string that does not come, and a character of many tokens
        r.run(ask(str(limit), POEM, **fields, max_tokens=limit))
        wanted = r.text(str(limit)), r.end(str(limit)).stop_reason, r.end(str(limit)).n_answer
        assert said(whole.events(limit)) == wanted
        begun = record(r, str(limit)).beginning()
        tokens = [token for delta in begun for token in delta.tokens]
        if r.end(str(limit)).stop_reason == "max_tokens":
            r.run(ask(f"on {limit}", POEM, **fields, done=tokens))
            assert "".join(delta.text for delta in begun) + r.text(f"on {limit}") == r.text("whole")


def test_an_early_stop_ends_with_the_second_sentence(rig):
    r = rig()
    r.run(ask("1", STORY, early_stop=True), ask("2", STORY))
    assert (r.end("1").finish_reason, r.end("1").stop_reason) == ("stop", "sentences")
    assert r.end("2").stop_reason == "end_of_turn"
    assert r.text("2").startswith(r.text("1"))
    assert r.text("1").endswith((".", "!", "?", '"'))
    assert len(r.text("1")) < len(r.text("2")) / 2


def test_a_real_loop_is_ended_and_says_so_unless_it_is_wanted(rig, tmp_path):
    shapes.make(shapes.SHAPES["small"], tmp_path / "small.gguf")  # random weights: says one thing for ever
    model = load(tmp_path / "small.gguf")
    for loop_stop, reason in ((True, "loop"), (False, "max_tokens")):
        r = Rig(model, Config("", 1024, N_SLOTS, 1, draft=False))
        r.run(ask("1", "hi", loop_stop=loop_stop, max_tokens=500))
        assert (r.end("1").stop_reason, r.end("1").finish_reason) == (reason, "length")


def test_a_real_loop_of_the_demo_model_is_ended(rig):
    """It is driven into one by a bonus on what it said before."""
    r = rig()
    r.run(ask("1", "Say after me: bird bird bird bird bird bird bird bird", sampling=Sampling(repeat_penalty=0.2)))
    assert r.end("1").stop_reason == "loop"
    assert r.end("1").n_answer < 900


def test_every_story_the_model_knows_is_left_alone(rig):
    r = rig()
    animals = ["fox", "wolf", "bear", "hen", "king", "stone", "ship", "tree", "owl", "cat", "bell", "moon"]
    r.run(*(ask(animal, f"Tell me a story about a {animal}.") for animal in animals))
    assert {r.end(animal).stop_reason for animal in animals} == {"end_of_turn"}


def test_an_answer_begun_by_another_worker_goes_on_where_it_was(rig):
    whole = rig()
    whole.run(ask("1", STORY))
    tokens, n = whole.tokens("1"), 25
    r = rig()
    r.run(ask("1", STORY, done=tokens[:n]))
    begun = "".join(word.text for word in whole.words if isinstance(word, Delta))[: -len(r.text("1"))]
    assert begun + r.text("1") == whole.text("1")
    assert r.tokens("1") == tokens[n:]
    assert r.end("1").n_answer == whole.end("1").n_answer
    assert r.end("1").n_prompt == whole.end("1").n_prompt


def test_a_prompt_read_ahead_is_known_when_its_request_comes(rig):
    r = rig()
    r.run(ask("typed", STORY, background=True))
    assert r.text("typed") == ""
    assert (r.end("typed").n_answer, r.end("typed").stop_reason) == (0, "read")
    r.n_read = 0
    r.put(ask("sent", STORY, max_tokens=1))
    r.step()
    assert r.n_read == 1
    assert r.text("sent") == plain(rig, STORY, max_tokens=1)


def test_reading_ahead_makes_way_for_a_request_and_what_it_has_read_is_kept(rig):
    long = "word " * 800
    r = rig()
    r.put(*(ask(f"typed {i}", f"{long}{i}", background=True) for i in range(N_SLOTS)))
    r.step()
    r.put(ask("real", "hello"))
    while not any(isinstance(word, Finished) and word.id == "real" for word in r.words):
        r.step()
    assert r.text("real") == plain(rig, "hello")
    ended = [word for word in r.words if isinstance(word, Finished) and word.id.startswith("typed")]
    assert [end.stop_reason for end in ended] == ["gave_way"]
    r.put(*(Cancel(f"typed {i}") for i in range(N_SLOTS)), ask("same", f"{long}0", max_tokens=1))
    r.run()
    assert r.end("same").n_cached > 100


def test_the_end_keeps_what_the_running_answers_have_read(rig, tmp_path):
    states = States(tmp_path, "demo", 2**30)
    r = rig(states=states)
    r.put(ask("1", STORY))
    for _ in range(20):
        r.step()
    r.inbox.put(End())
    r.loop.run()
    states.flush(10)
    again = rig(states=States(tmp_path, "demo", 2**30))
    again.run(ask("2", STORY))
    assert again.end("2").n_cached == again.end("2").n_prompt - 1


def test_an_answer_whose_end_alone_got_lost_is_ended(rig):
    whole = rig()
    whole.run(ask("1", STORY, max_tokens=30))
    r = rig()
    for command in (ask("1", STORY, max_tokens=30, done=whole.tokens("1")), End()):
        r.inbox.put(command)
    r.loop.run()
    assert (r.end("1").stop_reason, r.end("1").n_answer, r.text("1")) == ("max_tokens", 30, "")


def test_a_loop_outside_a_worker_leaves_nothing_open(model):
    gc.collect()  # what other tests have left open
    n_before = psutil.Process().num_fds()
    config = Config("", 1024, N_SLOTS, 1)
    with steps.loop_alone(model, config, Costs(CHEAP), queue.SimpleQueue(), lambda _: None) as loop:
        assert loop.answers == []
        assert psutil.Process().num_fds() > n_before
    assert psutil.Process().num_fds() == n_before


def test_each_wait_has_its_limit_and_its_own_error(rig):
    r = rig(limits=Limits(queue_s=0.0))
    r.run(*(ask(str(i), STORY) for i in range(N_SLOTS)), ask("late", STORY))
    # With no patience at all even those are refused for whom a slot is free.
    assert r.failure("late").trouble is Trouble.QUEUE_TIMEOUT
    r = rig(limits=Limits(prompt_s=0.0))
    r.run(ask("1", "word " * 600))
    assert r.failure("1").trouble is Trouble.PROMPT_TIMEOUT
    r = rig(limits=Limits(answer_s=0.0))
    r.run(ask("1", STORY))
    assert r.failure("1").trouble is Trouble.ANSWER_TIMEOUT
    assert any(isinstance(word, Accepted) for word in r.words)
