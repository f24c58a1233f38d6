"""Running means and what corrects them, at the first step and at the millionth."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, strategies as st

import funcopt as fo
from funcopt.core.math.entrywise import over_root
from funcopt.optimizers.adam import corrected, corrected_ratio


@pytest.mark.parametrize("decay", [0.9, 0.999, 0.9999999])
@pytest.mark.parametrize("count", [1, 2, 1000, 10**6])
def test_bias_correction_is_accurate(decay, count):
    exact = -math.expm1(count * math.log(decay)) if count > 2 else float(1 - Fraction(decay) ** count)
    got = fo.moments.bias_correction(torch.tensor(count), decay)
    assert got.dtype == torch.float64
    assert got[0].item() == pytest.approx(exact, rel=1e-9)


def test_a_decay_of_zero_needs_no_correction():
    assert fo.moments.bias_correction(torch.tensor(3), 0.0)[0] == 1


def test_bias_correction_takes_tensors_and_their_derivatives():
    slope = torch.func.grad(lambda decay: fo.moments.bias_correction(torch.tensor(3), decay)[0])(torch.tensor(0.5, dtype=torch.float64))
    assert slope.item() == pytest.approx(-3 * 0.5**2)


BELOW_ONE = st.floats(0, 0.9999)


@given(
    st.integers(1, 10**6),
    BELOW_ONE,
    BELOW_ONE,
    st.floats(1e-12, 1.0),
    st.sampled_from([0.0, 1e-12, 0.3]),
    st.booleans(),
    st.integers(0, 99),
)
def test_the_ratio_is_that_of_the_corrected_means(count, b1, b2, eps, eps_root, nesterov, seed):
    g, mu, nu = torch.randn(3, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    nu = nu.square() * torch.tensor([1.0, 1.0, 1e-20, 0.0, 1e20])
    c1, c2, c1_ahead = (float(fo.moments.bias_correction(torch.tensor(count + ahead), b)[0]) for b, ahead in ((b1, 0), (b2, 0), (b1, 1)))
    mean = b1 * mu / c1_ahead + (1 - b1) * g / c1 if nesterov else mu / c1
    expected = mean / ((nu / c2 + eps_root).sqrt() + eps)
    given = [x.clone() for x in (g, mu, nu)]
    ratio = corrected_ratio(g, torch.tensor(count), b1, b2, eps, eps_root, nesterov)
    torch.testing.assert_close(ratio(g, mu, nu), expected, rtol=1e-12, atol=0)
    assert all(torch.equal(x, y) for x, y in zip(given, (g, mu, nu), strict=True))
    traced = torch.func.vmap(ratio)(g, mu, nu)  # one entry at a time, in the form for whoever differentiates
    torch.testing.assert_close(traced, expected, rtol=1e-12, atol=0)
    mean, factor = corrected(torch.tensor(count), b1, b2, nesterov)
    torch.testing.assert_close(over_root(mean(g, mu), factor * nu, eps, eps_root), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("order", [1, 2])
def test_a_moment_leaves_what_it_is_given(order):
    g, m = torch.tensor([3.0, -2.0]), torch.tensor([1.0, 4.0])
    assert fo.moments.update_moment(g, m, 0.5, order).tolist() == ([2.0, 1.0] if order == 1 else [5.0, 4.0])
    assert g.tolist() == [3.0, -2.0] and m.tolist() == [1.0, 4.0]


def test_what_is_recorded_for_autograd_runs_through_the_moments():
    g = torch.tensor([3.0, -2.0], requires_grad=True)
    state = fo.scale_by_adam().init(g.detach())
    for _ in range(2):  # the second time the state itself has a history
        direction, state = fo.scale_by_adam(eps=1.0).update(g, state)
    direction.sum().backward()
    assert g.grad is not None and (g.grad > 0).all()


@pytest.mark.parametrize("name", ["b1", "b2", "eps", "eps_root"])
def test_autograd_knows_what_a_step_of_adam_does_with_its_numbers(name):
    numbers = {"b1": 0.9, "b2": 0.99, "eps": 0.1, "eps_root": 0.01}
    g = torch.tensor([3.0, -2.0], dtype=torch.float64)

    def moved(value):
        tx = fo.scale_by_adam(**{**numbers, name: value})
        direction, state = tx.update(g, tx.init(g))
        return tx.update(g.square(), state)[0].sum()

    assert torch.autograd.gradcheck(moved, torch.tensor(numbers[name], dtype=torch.float64, requires_grad=True))


def test_the_count_does_not_wrap():
    last = torch.tensor(torch.iinfo(torch.int64).max)
    assert fo.moments.increment(last) == last
    assert fo.moments.increment(torch.tensor(5)) == 6


def test_the_root_has_a_finite_slope_at_zero_and_keeps_its_values():
    x = torch.tensor([0.0, 4.0, -1.0, torch.nan])
    torch.testing.assert_close(fo.moments.safe_sqrt(x), x.sqrt(), equal_nan=True)
    slope = torch.func.grad(lambda x: fo.moments.safe_sqrt(x).sum())(x[:2])
    assert slope.tolist() == [0.0, 0.25]


def test_the_sign_of_nan_is_nan():
    assert fo.moments.sign(torch.tensor([torch.nan]))[0].isnan()
    assert fo.moments.sign(torch.tensor([-2.0, 0.0, 3.0])).tolist() == [-1.0, 0.0, 1.0]


def test_moments_keep_their_dtype():
    wide, narrow = torch.ones(2), torch.zeros(2, dtype=torch.bfloat16)
    assert fo.moments.update_moment(wide, narrow, 0.9).dtype == torch.bfloat16
    assert fo.moments.update_moment(narrow, wide, 0.9, order=2).dtype == torch.float32


def test_a_mean_of_another_order_is_not_taken_for_the_first():
    with pytest.raises(ValueError, match="update_moment: order must be 1 or 2, got 3; others are update_moment_per_elem_norm's"):
        fo.moments.update_moment(torch.ones(1), torch.ones(1), 0.9, order=3)
