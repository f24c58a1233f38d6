"""Running means and what corrects them, at the first step and at the millionth."""

import math
from fractions import Fraction

import pytest
import torch

import funcopt as fo


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
