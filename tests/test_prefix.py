"""engine.prefix and engine.states: what is remembered, in memory and on disk, and how it is lost."""

import json
import os
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.prefix import N_LEAST, N_MOST, Prefixes, n_common
from engine.states import Record, States

N_BYTES = 10  # of one token's state
MUCH = 10**9
SYSTEM = list(range(1000, 1100))
Tokens = list[int]


def none() -> States:
    return States(None, "", 0)


def on_disk(folder: Path, limit_bytes: int = MUCH, key: str = "model") -> States:
    return States(folder, key, limit_bytes)


def state_of(tokens: Tokens) -> bytes:
    """A state that can be told from that of any other tokens."""
    return b"".join(f"{token:<{N_BYTES}}".encode() for token in tokens)


def keep(prefixes: Prefixes, tokens: Tokens, private: bool = False) -> int:
    """Adds what is missing, as the worker does; how many tokens that were."""
    parts = []

    def state(start: int, stop: int) -> bytes:
        parts.append(stop - start)
        return state_of(tokens[start:stop])

    prefixes.add(tokens, state, private)
    return sum(parts)


def known(prefixes: Prefixes, tokens: Tokens) -> int:
    """How many tokens can be restored; checks that what comes back is theirs."""
    n, path = 0, prefixes.match(tokens)
    for i, piece in enumerate(path):
        state = prefixes.read(piece)
        if state is None:
            prefixes.forget(piece)
            path = path[:i]
            break
        assert bytes(state[: (piece.stop - n) * N_BYTES]) == state_of(tokens[n : piece.stop])
        n = piece.stop
    prefixes.use(path)
    return n


def talk(i: int, n: int = 50) -> Tokens:
    return [i * 10_000 + j for j in range(n)]


def test_a_prompt_that_begins_like_an_earlier_one_is_known_up_to_where_they_part():
    prefixes = Prefixes(MUCH, none())
    keep(prefixes, SYSTEM + talk(1))
    assert known(prefixes, SYSTEM + talk(1) + talk(2)) == 150
    assert known(prefixes, SYSTEM + talk(2)) == 100
    assert known(prefixes, talk(1)) == 0


def test_what_two_conversations_share_is_kept_once():
    prefixes = Prefixes(MUCH, none())
    assert keep(prefixes, SYSTEM + talk(1)) == 150
    assert keep(prefixes, SYSTEM + talk(2)) == 50
    assert keep(prefixes, SYSTEM + talk(2) + talk(3)) == 50
    assert known(prefixes, SYSTEM + talk(2) + talk(3) + talk(4)) == 200


def test_long_prompts_are_kept_in_pieces_so_that_a_few_tokens_cost_no_more_than_one_piece():
    prefixes = Prefixes(MUCH, none())
    assert keep(prefixes, talk(1, 1000)) == 1000
    assert [piece.stop for piece in prefixes.match(talk(1, 1000))] == [N_MOST, 2 * N_MOST, 3 * N_MOST, 1000]
    assert len(prefixes.match(talk(1, 20) + talk(2))) == 1
    assert known(prefixes, talk(1, 600) + talk(2)) == 600


def test_a_few_new_tokens_are_not_kept():
    prefixes = Prefixes(MUCH, none())
    keep(prefixes, talk(1))
    assert keep(prefixes, talk(1) + talk(2, N_LEAST - 1)) == 0
    assert keep(prefixes, talk(1) + talk(2, N_LEAST)) == N_LEAST


def test_the_least_recently_used_goes_first_and_what_is_shared_outlives_single_conversations():
    prefixes = Prefixes(300 * N_BYTES, none())
    for i in range(1, 6):
        keep(prefixes, SYSTEM + talk(i))
    assert known(prefixes, SYSTEM + talk(2)) == 100  # hangs on the first, which all others have used since
    assert all(known(prefixes, SYSTEM + talk(i)) == 150 for i in (1, 3, 4, 5))


def test_what_goes_from_memory_is_found_on_disk(tmp_path):
    prefixes = Prefixes(120 * N_BYTES, on_disk(tmp_path))
    for i in range(1, 6):
        keep(prefixes, talk(i))
    assert all(known(prefixes, talk(i)) == 50 for i in range(1, 6))


def test_a_new_start_finds_what_was_written(tmp_path):
    states = on_disk(tmp_path)
    prefixes = Prefixes(MUCH, states)
    keep(prefixes, SYSTEM + talk(1))
    keep(prefixes, SYSTEM + talk(2))
    prefixes.write()
    assert states.flush(10)
    again = Prefixes(MUCH, on_disk(tmp_path))
    assert known(again, SYSTEM + talk(1)) == known(again, SYSTEM + talk(2)) == 150
    assert keep(again, SYSTEM + talk(1) + talk(3)) == 50
    assert known(Prefixes(MUCH, on_disk(tmp_path, key="another model")), SYSTEM) == 0


def test_what_is_private_stays_in_memory_alone(tmp_path):
    states = on_disk(tmp_path)
    prefixes = Prefixes(60 * N_BYTES, states)
    keep(prefixes, talk(1), private=True)
    prefixes.write()
    assert known(prefixes, talk(1)) == 50
    keep(prefixes, talk(2))  # takes its room
    prefixes.write()
    assert states.flush(10)
    assert known(prefixes, talk(1)) == 0
    assert known(Prefixes(MUCH, on_disk(tmp_path)), talk(2)) == 50
    assert len(list(tmp_path.rglob("*.kv"))) == 1


def test_what_others_have_read_as_well_is_private_no_more(tmp_path):
    states = on_disk(tmp_path)
    prefixes = Prefixes(MUCH, states)
    keep(prefixes, SYSTEM, private=True)
    keep(prefixes, SYSTEM + talk(1), private=True)
    keep(prefixes, SYSTEM + talk(2))
    keep(prefixes, SYSTEM + talk(1)[:20] + talk(3))
    prefixes.write()
    assert states.flush(10)
    again = Prefixes(MUCH, on_disk(tmp_path))
    assert known(again, SYSTEM + talk(2)) == 150
    assert known(again, SYSTEM + talk(1)[:20] + talk(3)) == 170
    assert known(again, SYSTEM + talk(1)) == 120  # so far others have read it, too


@pytest.mark.parametrize("more", [[], talk(5)], ids=["one turn", "more turns"])
def test_a_private_chat_that_came_first_keeps_no_public_one_off_the_disk(tmp_path, more):
    states = on_disk(tmp_path)
    prefixes = Prefixes(MUCH, states)
    keep(prefixes, SYSTEM + talk(1), private=True)
    keep(prefixes, SYSTEM + talk(2), private=True)
    for tokens in (SYSTEM + talk(2) + more, SYSTEM + talk(3)):
        keep(prefixes, tokens)
    prefixes.write()
    assert states.flush(10)
    keep(prefixes, SYSTEM + talk(1), private=True)
    assert known(prefixes, SYSTEM + talk(1)) == 150
    again = Prefixes(MUCH, on_disk(tmp_path))
    assert known(again, SYSTEM + talk(2) + more) == 150 + len(more)
    assert known(again, SYSTEM + talk(3)) == 150
    assert known(again, SYSTEM + talk(1)) == 100


def test_the_disk_keeps_to_its_limit_counting_other_models_files_too(tmp_path):
    def total() -> int:
        return sum(path.stat().st_size for path in tmp_path.rglob("*.kv"))

    for key in ("one", "two"):
        states = on_disk(tmp_path, 20_000, key)
        prefixes = Prefixes(MUCH, states)
        for i in range(40):
            keep(prefixes, talk(i, 100))
            prefixes.write()
        assert states.flush(10)
        assert total() < 40_000  # the limit counts states; each file has a header and tokens, too
    states = on_disk(tmp_path, 10_000, "three")
    Prefixes(MUCH, states)
    assert states.flush(10)
    assert total() <= 10_000


def test_a_private_chat_is_not_forgotten_for_a_public_one_of_a_few_tokens():
    prefixes = Prefixes(MUCH, none())
    keep(prefixes, SYSTEM, private=True)
    keep(prefixes, SYSTEM[: N_LEAST - 1])
    assert known(prefixes, SYSTEM) == 100


def kept(folder: Path, *prompts: Tokens) -> None:
    """Each of them on disk, in this order of use."""
    states = on_disk(folder)
    prefixes = Prefixes(MUCH, states)
    for tokens in prompts:
        keep(prefixes, tokens)
    prefixes.write()
    assert states.flush(10)


def test_after_a_restart_the_least_recently_used_goes_first_as_before(tmp_path):
    kept(tmp_path, SYSTEM, SYSTEM + talk(1), talk(2), talk(3))
    states = on_disk(tmp_path, 200 * N_BYTES)
    prefixes = Prefixes(MUCH, states)
    assert known(prefixes, SYSTEM + talk(1)) == 100, "a parent went before its child"
    assert known(prefixes, talk(2)) == known(prefixes, talk(3)) == 50


def test_of_files_of_the_same_age_as_many_go_as_are_too_many_and_children_before_their_parents(tmp_path):
    kept(tmp_path, SYSTEM, SYSTEM + talk(1), SYSTEM + talk(1) + talk(2), SYSTEM + talk(3))
    for path in tmp_path.rglob("*.kv"):
        os.utime(path, (10**9, 10**9))
    states = on_disk(tmp_path, 100 * N_BYTES)
    prefixes = Prefixes(MUCH, states)
    assert not states.full()
    assert known(prefixes, SYSTEM + talk(1)) == 100


def test_what_is_on_disk_is_read_one_after_the_other(tmp_path, monkeypatch):
    kept(tmp_path, *(talk(i) for i in range(5)))
    n_alive = []

    class Watched(Record):
        def __init__(self, *values):
            super().__init__(*values)
            n_alive.append(1)

        def __del__(self):
            n_alive.pop()

    monkeypatch.setattr("engine.states.Record", Watched)
    for _ in on_disk(tmp_path).records():
        assert len(n_alive) <= 2


def test_a_header_of_the_wrong_kinds_is_removed(tmp_path):
    kept(tmp_path, talk(1), talk(2))
    path, other = sorted(tmp_path.rglob("*.kv"))
    for field in ({"start": None}, {"parent": ["x"]}):
        header, rest = other.read_bytes().split(b"\n", 1)
        path.write_bytes(json.dumps(json.loads(header) | field).encode() + b"\n" + rest)
        prefixes = Prefixes(MUCH, on_disk(tmp_path))
        assert sorted(known(prefixes, talk(i)) for i in (1, 2)) == [0, 50]
        assert not path.exists()


def test_what_hangs_on_thousands_of_others_is_forgotten_with_them():
    prefixes = Prefixes(MUCH, none())
    tokens = list(range(1200 * N_MOST))
    prefixes.add(tokens, lambda start, stop: b"x")
    prefixes.forget(prefixes.match(tokens)[0])
    assert prefixes.match(tokens) == []
    assert not prefixes._held


@pytest.mark.parametrize("act", ["keep", "match", "use", "forget", "write"])
def test_a_tree_that_fails_begins_anew(act, tmp_path, caplog):
    states = on_disk(tmp_path)
    prefixes = Prefixes(100 * N_BYTES, states)
    keep(prefixes, talk(1))
    path = prefixes.match(talk(1))
    prefixes._tree.execute("DROP TABLE node")  # as good as a temporary file on a full disk
    acts: dict[str, Callable[[], object]] = {
        "use": lambda: prefixes.use(path),
        "forget": lambda: prefixes.forget(path[0]),
        "write": prefixes.write,
        "keep": lambda: keep(prefixes, talk(2)),
        "match": lambda: prefixes.match(talk(1)),
    }
    acts[act]()
    assert len(caplog.records) == 1
    assert known(prefixes, talk(1)) == 0
    for i in range(4):
        keep(prefixes, talk(i))
    assert [known(prefixes, talk(i)) for i in range(4)] == [50] * 4, "it has not become what it was"
    assert len(caplog.records) == 1


def test_a_tree_that_fails_at_the_start_begins_empty(tmp_path, caplog, monkeypatch):
    kept(tmp_path, talk(1))
    states = on_disk(tmp_path)
    (record,) = states.records()
    odd = replace(record, start=1, parent={})  # type: ignore[arg-type]
    monkeypatch.setattr(states, "records", lambda: iter([record, odd]))
    prefixes = Prefixes(MUCH, states)
    assert len(caplog.records) == 1
    assert known(prefixes, talk(1)) == 0
    assert keep(prefixes, talk(1)) == 50


def test_a_closed_tree_leaves_nothing_open(tmp_path):
    prefixes = Prefixes(MUCH, none())
    prefixes.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        prefixes._tree.execute("SELECT 1")


def damage_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def damage_flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-50] ^= 1
    path.write_bytes(data)


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def damage_version(path: Path) -> None:
    header, rest = path.read_bytes().split(b"\n", 1)
    path.write_bytes(json.dumps(json.loads(header) | {"version": 99}).encode() + b"\n" + rest)


def damage_gone(path: Path) -> None:
    path.unlink()


def damage_rename(path: Path) -> None:
    path.rename(path.with_name("0" * 32 + ".kv"))


@pytest.mark.parametrize("when", ["before the start", "while it runs"])
@pytest.mark.parametrize(
    "damage", [damage_cut, damage_flip, damage_empty, damage_version, damage_gone, damage_rename], ids=lambda f: f.__name__
)
def test_a_damaged_file_is_a_miss_and_so_is_all_that_hangs_on_it(tmp_path, damage, when):
    states = on_disk(tmp_path)
    prefixes = Prefixes(MUCH, states)
    for tokens in (SYSTEM, SYSTEM + talk(1), talk(2)):
        keep(prefixes, tokens)
    prefixes.write()
    states.flush(10)
    (path,) = (p for p in tmp_path.rglob("*.kv") if b'"start": 0' in p.read_bytes() and b"1001 " in p.read_bytes())
    if when == "while it runs":
        prefixes = Prefixes(MUCH, on_disk(tmp_path))
    damage(path)
    if when == "before the start":
        prefixes = Prefixes(MUCH, on_disk(tmp_path))
    assert known(prefixes, SYSTEM + talk(1)) == 0
    assert known(prefixes, talk(2)) == 50
    assert keep(prefixes, SYSTEM + talk(1)) == 150


def test_a_folder_that_cannot_be_made_means_nothing_on_disk_and_no_error(tmp_path):
    (tmp_path / "file").write_text("")
    prefixes = Prefixes(MUCH, on_disk(tmp_path / "file"))
    keep(prefixes, talk(1))
    prefixes.write()
    assert known(prefixes, talk(1)) == 50


def test_a_disk_that_fails_while_it_runs_is_a_miss(tmp_path):
    states = on_disk(tmp_path)
    prefixes = Prefixes(60 * N_BYTES, states)
    (tmp_path / "model").rmdir()
    for i in range(3):
        keep(prefixes, talk(i))
    states.flush(10)
    assert known(prefixes, talk(0)) == 0
    assert known(prefixes, talk(2)) == 50


tokens_lists = st.lists(st.integers(0, 2), min_size=1, max_size=60)


@given(tokens_lists, tokens_lists, st.integers(0, 5), st.integers(0, 5))
def test_the_common_part_is_what_a_plain_loop_finds(a, b, i, j):
    n = 0
    while i + n < len(a) and j + n < len(b) and a[i + n] == b[j + n]:
        n += 1
    assert n_common(a, b, i, j) == n


@given(st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(0, 1), max_size=4)), min_size=1, max_size=25))
def test_whatever_comes_the_known_prefix_is_the_longest_that_was_kept(steps):
    prefixes = Prefixes(MUCH, none())
    kept: list[Tokens] = []
    for head, tail in steps:
        tokens = [head] * N_LEAST + [t for bit in tail for t in [10 + bit] * N_LEAST]
        longest = max((n_common(tokens, k) for k in kept), default=0)
        assert known(prefixes, tokens) == longest
        keep(prefixes, tokens)
        kept.append(tokens)
