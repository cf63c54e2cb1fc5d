"""engine.draft: guesses from what stood there before, only where they pay."""

from engine.costs import Costs
from engine.draft import N_GRAM, Lookup

CHEAP = Costs({1: 0.020, 4: 0.022, 8: 0.024, 16: 0.028, 32: 0.040})  # many cores: sixteen tokens cost little more than one
DEAR = Costs({1: 0.020, 4: 0.090, 8: 0.180, 16: 0.400, 32: 0.800})  # each token costs more than one alone
TEXT = list(range(100, 160))


def test_what_followed_the_same_tokens_before_is_guessed():
    assert Lookup([*TEXT, 1, 2, *TEXT[:10]]).guess(0, CHEAP, 15) == TEXT[10:25]


def test_a_short_match_is_no_reason_to_guess():
    assert Lookup([*TEXT, 1, 2, *TEXT[: N_GRAM - 1]]).guess(0, CHEAP, 15) == []


def test_tokens_that_never_stood_there_are_not_guessed_from():
    assert Lookup(TEXT).guess(0, CHEAP, 15) == []


def test_the_latest_occurrence_counts():
    assert Lookup([*TEXT[:10], 7, 8, *TEXT[:10], 9, 9, *TEXT[:10]]).guess(0, CHEAP, 2) == [9, 9]


def test_a_copy_is_followed_though_its_last_tokens_stand_in_a_later_place_too():
    tokens = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 5, 6, 7, 8, 9, 99, 0, 1, 2, 3, 4, 5]
    lookup = Lookup(tokens)
    assert lookup.guess(0, CHEAP, 3) == [6, 7, 8]
    tokens += [6, 7, 8, 9]
    assert lookup.guess(0, CHEAP, 1) == [10]  # not 99, which followed the last 5 tokens the last time


def test_tokens_added_later_are_found_too():
    tokens = [*TEXT, 1]
    lookup = Lookup(tokens)
    assert lookup.guess(0, CHEAP, 15) == []
    tokens += TEXT[:8]
    assert lookup.guess(0, CHEAP, 3) == TEXT[8:11]


def test_where_a_guess_costs_more_than_it_brings_there_is_none():
    assert Lookup([*TEXT, 1, *TEXT[:10]]).guess(0, DEAR, 15) == []


def test_wrong_guesses_end_the_guessing_and_right_ones_make_it_longer():
    steep = Costs({1: 0.020, 4: 0.050, 8: 0.086, 16: 0.144, 32: 0.300})  # pays only if nearly all is right
    lookup = Lookup([*TEXT, 1, *TEXT[:10]])
    first = len(lookup.guess(0, steep, 15))
    assert first > 0
    for _ in range(5):
        lookup.learn(first, first)
    assert len(lookup.guess(0, steep, 15)) >= first
    for _ in range(3):
        lookup.learn(0, first)
    assert lookup.guess(0, steep, 15) == []


def test_what_would_have_been_guessed_right_brings_the_guessing_back():
    tokens = [*TEXT, 1, *TEXT[:10]]
    lookup = Lookup(tokens)
    lookup.learn(0, 15)
    lookup.learn(0, 15)
    steep = Costs({1: 0.020, 4: 0.050, 8: 0.086, 16: 0.144, 32: 0.300})
    silent = 0
    while not lookup.guess(0, steep, 15):
        tokens.append(TEXT[10 + silent])
        silent += 1
    assert 1 <= silent < 30


def test_readers_beside_are_not_kept_waiting_for_a_long_guess():
    lookup = Lookup([*TEXT, 1, *TEXT[:10]])
    dear = Costs({1: 0.02, 2: 0.03, 5: 0.05, 9: 0.08, 17: 0.09, 32: 0.1})
    assert len(lookup.guess(0, dear, 15)) == 15
    assert len(lookup.guess(1, dear, 15)) == 3


def test_there_is_never_more_than_is_wanted():
    assert len(Lookup([*TEXT, 1, *TEXT[:10]]).guess(0, CHEAP, 5)) == 5
