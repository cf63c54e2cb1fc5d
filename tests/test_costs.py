"""engine.costs: the measured price of a step, and what follows from it."""

import pytest

from engine.costs import SIZES, Costs

FOURS = Costs({1: 0.020, 2: 0.040, 3: 0.050, 4: 0.060, 5: 0.110, 6: 0.115, 8: 0.150, 16: 0.170, 128: 1.0})


def test_between_measured_sizes_and_beyond_them_it_is_a_straight_line_and_no_token_is_for_nothing():
    assert FOURS(12) == pytest.approx(0.160)
    assert FOURS(1) == 0.020
    assert FOURS(256) == pytest.approx(2.0)
    assert Costs({1: 0.02, 16: 0.1, 128: 1.0})(256) == pytest.approx(1.0 + 128 * 0.9 / 112)


def test_a_bigger_step_may_be_cheaper():
    assert Costs({1: 0.020, 12: 0.176, 16: 0.163})(16) == 0.163


def test_a_hiccup_while_it_was_measured_makes_no_larger_step_cheap():
    costs = Costs({1: 0.020, 16: 0.163, 64: 1.5, 128: 0.9})
    assert 0 < costs(64) <= costs(128) < costs(512)


def test_the_best_number_of_answers_in_a_step_gives_the_most_tokens():
    assert [FOURS.best(n) for n in (0, 1, 2, 4, 6, 8)] == [0, 1, 2, 4, 4, 4]
    assert FOURS.best(16) == 16


def test_nearly_as_good_counts_as_better_when_it_serves_more():
    assert Costs({1: 0.020, 2: 0.0405, 4: 0.0805}).best(4) == 4


def test_the_room_in_a_step_is_what_the_kernels_like_and_the_limit_allows():
    assert FOURS.room(1, 0.060, 100) == 3
    assert FOURS.room(1, 0.170, 100) == 15
    assert FOURS.room(1, 0.300, 100) == 31  # no 34, though they would fit
    assert FOURS.room(1, 1.000, 100) == 95
    assert FOURS.room(1, 0.050, 100) == 0
    assert FOURS.room(4, 0.060, 100) == 0


def test_the_least_price_is_that_of_the_best_measured_size():
    assert FOURS.least_price == pytest.approx(1.0 / 128)


def test_a_slower_machine_is_followed():
    costs = Costs({1: 0.02, 128: 1.0})
    for _ in range(200):
        costs.observe(1, 0.04)
    assert costs.slowness == pytest.approx(2.0, rel=0.01)


def test_what_is_measured_can_be_kept_and_read_again(tmp_path):
    path = tmp_path / "costs" / "x.json"
    costs = Costs.measure(lambda n: n / 100, 64)
    costs.save(path)
    again = Costs.read(path)
    assert again
    assert [again(n) for n in SIZES] == [costs(n) for n in SIZES]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"1": "x"}', '{"1": -1, "2": 3}', '{"2": 1, "4": 2}', "null"])
def test_a_table_that_makes_no_sense_is_measured_again(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    assert Costs.read(path) is None
    assert Costs.read(tmp_path / "none.json") is None
