"""Paired statistics against arithmetic by hand, with scipy for the quantiles."""

import math

import pytest
from hypothesis import given, strategies as st
from scipy import stats

from funcopt.race.statistics import excess, paired, spread, steps_to

NAN = float("nan")


def test_interval_and_p_by_hand():
    # d = 1, 2, 3, 6: mean 3, squares of deviations 4 + 1 + 0 + 9, sd^2 = 14 / 3, standard error sqrt(14 / 12), t = 3 / that = 2.7775.
    result = paired([2.0, 4.0, 6.0, 10.0], [1.0, 2.0, 3.0, 4.0], confidence=0.9)
    error = math.sqrt(14 / 12)
    reach = stats.t.ppf(0.95, df=3) * error
    assert result.mean == 3.0 and result.n == 4
    assert result.low == pytest.approx(3 - reach) and result.high == pytest.approx(3 + reach)
    assert result.p == pytest.approx(2 * stats.t.sf(3 / error, df=3))


def test_spread_by_hand():
    # 2, 4, 9: mean 5, (9 + 1 + 16) / 2 = 13.
    assert spread([2.0, 4.0, 9.0]) == (5.0, math.sqrt(13), 3)


@given(
    st.lists(st.tuples(st.floats(-10, 10), st.floats(-10, 10)), min_size=3, max_size=8, unique_by=lambda pair: round(pair[0] - pair[1], 3))
)
def test_swapping_the_sides_mirrors_the_interval(pairs):
    a, b = zip(*pairs, strict=True)
    there, back = paired(a, b), paired(b, a)
    assert (back.mean, back.low, back.high) == pytest.approx((-there.mean, -there.high, -there.low))
    assert back.p == pytest.approx(there.p)


def test_a_pair_counts_only_if_both_finished():
    result = paired([1.0, NAN, 3.0, 4.0], [0.0, 0.0, 0.0, math.inf])
    assert result.n == 2 and result.mean == 2.0
    assert spread([1.0, NAN, math.inf]).n == 1


def test_too_few_pairs_have_no_interval():
    assert paired([NAN], [1.0]).n == 0
    one = paired([3.0], [1.0])
    assert one.mean == 2.0 and math.isnan(one.low) and math.isnan(one.p)
    assert math.isnan(spread([]).mean) and math.isnan(spread([1.0]).std)


def test_excess_by_hand():
    # Means 3 and 2: 50 % above. r = 1.5, e = (1 - 1.5, 3 - 3, 5 - 4.5) / 2 = -1/4, 0, 1/4, whose deviation is 1/4, over root 3.
    found = excess([1.0, 3.0, 5.0], [1.0, 2.0, 3.0])
    reach = 100 * stats.t.ppf(0.975, df=2) * 0.25 / math.sqrt(3)
    assert (found.mean, found.low, found.high, found.n) == (pytest.approx(50), pytest.approx(50 - reach), pytest.approx(50 + reach), 3)
    assert found.p == pytest.approx(2 * stats.t.sf(50 / (100 * 0.25 / math.sqrt(3)), df=2))


@given(st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=3, max_size=8), st.floats(0.1, 10))
def test_excess_does_not_depend_on_the_unit(pairs, unit):
    a, b = zip(*pairs, strict=True)
    one, other = excess(a, b), excess([unit * x for x in a], [unit * x for x in b])
    assert (one.mean, one.low, one.high) == (
        pytest.approx(other.mean, abs=1e-6),
        pytest.approx(other.low, abs=1e-6),
        pytest.approx(other.high, abs=1e-6),
    )


def test_a_seed_that_diverged_makes_the_excess_infinite():
    assert excess([1.0, NAN], [1.0, 1.0]).mean == math.inf
    with pytest.raises(ValueError, match="excess: baseline must be finite and positive in the mean"):
        excess([1.0, 1.0], [1.0, NAN])


def test_the_target_is_reached_where_the_curve_is_there_first():
    assert steps_to(1.0, [0, 5, 10], [3.0, 1.0, 2.0]) == 5
    assert math.isnan(steps_to(0.5, [0, 5, 10], [3.0, NAN, 2.0]))


def test_equal_differences_have_a_point_for_an_interval():
    assert paired([1.0, 2.0], [1.0, 2.0]) == (0.0, 0.0, 0.0, 1.0, 2)
    assert paired([2.0, 3.0], [1.0, 2.0]) == (1.0, 1.0, 1.0, 0.0, 2)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (([1.0], [1.0, 2.0]), "paired: needs one value per seed on both sides, got 1 and 2"),
        (([1.0], [1.0], 1.0), r"paired: confidence must be in \(0, 1\), got 1.0"),
    ],
)
def test_says_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        paired(*arguments[:2], **({"confidence": arguments[2]} if len(arguments) > 2 else {}))
