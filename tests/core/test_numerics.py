"""Norms with a slope at zero, counters that stop, and the largest eigenvalue."""

import pytest
import torch
from hypothesis import given, settings, strategies as st

import funcopt as fo
from funcopt.core.math.numerics import power_iteration, safe_increment, safe_norm, safe_root_mean_squares


@settings(deadline=None, max_examples=30)
@given(entries=st.lists(st.floats(-10, 10), min_size=1, max_size=5), floor=st.floats(0, 5))
def test_a_safe_norm_is_the_norm_or_its_floor(entries, floor):
    x = torch.tensor(entries, dtype=torch.float64)
    torch.testing.assert_close(safe_norm(x, floor), x.norm().clamp(min=floor), rtol=1e-9, atol=1e-150)
    assert torch.func.grad(lambda x: safe_norm(x, floor))(x).isfinite().all()


def test_nan_is_not_hidden_by_the_floor():
    assert safe_norm(torch.tensor([torch.nan]), 1.0).isnan() and safe_root_mean_squares(torch.tensor([torch.nan]), 1.0).isnan()


def test_of_nothing_it_is_the_floor():
    assert safe_root_mean_squares(torch.zeros(0), 0.25) == 0.25


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.int64, torch.float16])
def test_counters_stop_at_their_largest(dtype):
    largest = torch.finfo(dtype).max if dtype.is_floating_point else torch.iinfo(dtype).max
    assert safe_increment(torch.tensor(largest, dtype=dtype)) == largest
    assert safe_increment(torch.tensor(3, dtype=dtype)) == 4


def test_the_largest_eigenvalue():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    matrix = matrix @ matrix.T
    value, vector = power_iteration(matrix, num_iters=500, error_tolerance=1e-12)
    torch.testing.assert_close(value, torch.linalg.eigvalsh(matrix)[-1])
    torch.testing.assert_close(matrix @ vector, value * vector, rtol=1e-6, atol=1e-6)
    as_function, _ = power_iteration(lambda v: matrix @ v, v0=torch.ones(6, dtype=torch.float64), num_iters=500, error_tolerance=1e-12)
    torch.testing.assert_close(as_function, value)
    with pytest.raises(ValueError, match="power_iteration: needs v0"):
        power_iteration(lambda v: v)


def test_an_eigenvalue_below_zero_is_found_to_the_same_tolerance():
    value, vector = power_iteration(torch.diag(torch.tensor([-5.0, 1.0, 2.0, 0.5])))
    torch.testing.assert_close(value, torch.tensor(-5.0))
    torch.testing.assert_close(vector.abs(), torch.tensor([1.0, 0.0, 0.0, 0.0]), rtol=0, atol=1e-5)


def test_all_entries_finite():
    assert fo.tree.all_finite({}) and fo.tree.all_finite({"w": torch.ones(2)})
    assert not fo.tree.all_finite({"w": torch.ones(2), "b": torch.tensor([torch.inf])})
