"""clip_by_mean_norm: a spike is cut to what was usual, units do not matter, and what cannot be counted is not."""

import math

import pytest
import torch
from hypothesis import given, strategies as st

import funcopt as fo

F64 = torch.float64


def lengths(tx, norms, dtype=F64):
    """Of the updates for gradients of these lengths, along (0.6, 0.8)."""
    params = {"a": torch.zeros(1, dtype=dtype), "b": torch.zeros(1, dtype=dtype)}
    state, found = tx.init(params), []
    for n in norms:
        u, state = tx.update({"a": torch.tensor([0.6 * n], dtype=dtype), "b": torch.tensor([0.8 * n], dtype=dtype)}, state)
        found.append(float(fo.tree.norm(u)))
    return found


@given(st.lists(st.floats(0.0, 1e3), min_size=1, max_size=20), st.floats(1.1, 5.0), st.floats(0.0, 0.99))
def test_it_is_the_recurrence(norms, ratio, decay):
    m, expected = 0.0, []
    for n in norms:
        bound = ratio * m if m > 0 and n > 0 else n
        expected.append(min(n, bound))
        if n > 0:
            m = decay * m + (1 - decay) * min(n, bound) if m > 0 else n
    assert lengths(fo.clip_by_mean_norm(ratio, decay), norms) == pytest.approx(expected, rel=1e-9, abs=1e-300)


@given(st.floats(-30, 30))
def test_units_do_not_matter(exponent):
    norms = [1.0, 0.5, 30.0, 0.0, 2.0, 7.0]
    scaled = lengths(fo.clip_by_mean_norm(), [10**exponent * n for n in norms])
    assert scaled == pytest.approx([10**exponent * n for n in lengths(fo.clip_by_mean_norm(), norms)], rel=1e-9)


def test_a_spike_is_cut_and_a_new_size_is_reached():
    assert lengths(fo.clip_by_mean_norm(), [1.0] * 20 + [1e6, 1.0])[-2:] == pytest.approx([3.0, 1.0])
    assert lengths(fo.clip_by_mean_norm(), [1.0] * 20 + [100.0] * 60)[-1] == 100.0
    assert lengths(fo.clip_by_mean_norm(math.inf), [1.0, 1e9]) == [1.0, pytest.approx(1e9)]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_passes_and_is_not_counted(bad):
    tx = fo.clip_by_mean_norm()
    state = tx.init(torch.zeros(2))
    for first in (True, False):  # before there is a mean, and after
        u, after = tx.update(torch.tensor([bad, 1.0]), state)
        assert torch.equal(u.isfinite(), torch.tensor([False, True]))
        assert torch.equal(after.mean, state.mean)
        if first:
            _, state = tx.update(torch.tensor([3.0, 4.0]), state)


def test_zeros_neither_begin_the_mean_nor_wear_it_down():
    assert lengths(fo.clip_by_mean_norm(), [0.0, 0.0, 5.0]) == [0.0, 0.0, pytest.approx(5.0)]
    assert lengths(fo.clip_by_mean_norm(), [1.0] + [0.0] * 500 + [1.5])[-1] == pytest.approx(1.5)


def test_short_numbers_are_measured_wide():
    assert lengths(fo.clip_by_mean_norm(), [1e-30, 1e30], torch.float32)[-1] == pytest.approx(3e-30, rel=1e-5)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"ratio": 1.0}, "clip_by_mean_norm: ratio must be > 1, got 1.0"),
        ({"ratio": -2.0}, "clip_by_mean_norm: ratio must be > 0, got -2.0"),
        ({"decay": 1.0}, r"clip_by_mean_norm: decay must be in \[0, 1\), got 1.0"),
    ],
)
def test_says_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        fo.clip_by_mean_norm(**arguments)
