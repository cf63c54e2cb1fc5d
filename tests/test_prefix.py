"""engine.prefix and engine.states: what is remembered, in memory and on disk, and how it is lost."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.prefix import N_LEAST, N_MOST, Prefixes, n_common
from engine.states import States

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
