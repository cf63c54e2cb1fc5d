"""engine.text: what may be shown, and when. The slow plain way (cut the whole text once) judges the fast one."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from engine.text import Text

letters = st.text(alphabet="abé🐦", max_size=30)
stops = st.lists(st.text(alphabet="abé🐦", min_size=1, max_size=4), max_size=4)


def run(pieces: list[bytes], stop: list[str]) -> tuple[list[str], bool]:
    text = Text(stop)
    shown = []
    for piece in pieces:
        shown.append(text.push(piece))
        if text.stopped:
            break
    return [*shown, text.finish()], text.stopped


def split(raw: bytes, cuts: list[int]) -> list[bytes]:
    bounds = sorted({0, len(raw), *(cut % (len(raw) + 1) for cut in cuts)})
    return [raw[a:b] for a, b in itertools.pairwise(bounds)]


@given(letters, stops, st.lists(st.integers(0, 200)))
def test_the_shown_text_is_the_text_up_to_the_first_stop_string_however_it_is_split_into_tokens(text, stop, cuts):
    shown, stopped = run(split(text.encode(), cuts), stop)
    expected = text
    # A stop string is noticed as soon as it is complete: the one that ends first counts.
    ends = [(text.find(s) + len(s), text.find(s)) for s in stop if s in text]
    if ends:
        first_end = min(ends)[0]
        piece_end = next(
            n for n in _ends(split(text.encode(), cuts)) if len(text.encode()[:n].decode(errors="ignore")) >= first_end
        )
        seen = text.encode()[:piece_end].decode(errors="ignore")
        expected = text[: min(at for at in map(seen.find, stop) if at >= 0)]
    assert "".join(shown) == expected
    assert stopped == bool(ends)


def _ends(pieces: list[bytes]) -> list[int]:
    total, ends = 0, []
    for piece in pieces:
        total += len(piece)
        ends.append(total)
    return ends


@given(letters, st.lists(st.integers(0, 200)))
def test_no_piece_of_shown_text_ever_holds_half_a_character(text, cuts):
    shown, _ = run(split(text.encode(), cuts), [])
    assert "\ufffd" not in "".join(shown)


@given(letters, stops, st.lists(st.integers(0, 200)))
def test_no_shown_text_is_ever_taken_back(text, stop, cuts):
    pieces = split(text.encode(), cuts)
    whole = "".join(run(pieces, stop)[0])
    growing = Text(stop)
    sofar = ""
    for piece in pieces:
        sofar += growing.push(piece)
        assert whole.startswith(sofar)
        if growing.stopped:
            break


def test_the_beginning_of_a_stop_string_is_held_back_until_it_cannot_be_one():
    text = Text(["STOP"])
    assert text.push(b"go ST") == "go "
    assert text.push(b"O") == ""
    assert text.push(b"NE") == "STONE"


def test_a_held_beginning_of_a_stop_string_is_shown_at_the_end():
    text = Text(["STOP"])
    text.push(b"ST")
    assert text.finish() == "ST"


def test_bytes_that_are_no_utf8_become_a_replacement_character_and_nothing_breaks():
    text = Text([])
    assert text.push(b"a\xffb") == "a\ufffdb"


def test_half_a_character_at_the_very_end_is_dropped():
    text = Text([])
    assert text.push("🐦".encode()[:3]) + text.finish() == ""
