"""Piecewise and one-cycle schedules: values by hand, edges, errors."""

import pytest
import torch

import funcopt as fo


def test_a_scale_applies_from_its_boundary_on():
    schedule = fo.schedules.piecewise_constant_schedule(1.0, {5: 0.5, 2: 0.1})  # in any order
    torch.testing.assert_close(torch.stack([schedule(n) for n in (1, 2, 4, 5)]), torch.tensor([1.0, 0.1, 0.1, 0.05], dtype=torch.float64))


@pytest.mark.parametrize("nothing", [None, {}])
def test_without_boundaries_it_is_constant(nothing):
    assert fo.schedules.piecewise_constant_schedule(0.5, nothing)(9).item() == 0.5
    assert fo.schedules.piecewise_interpolate_schedule("linear", 0.5, nothing)(9).item() == 0.5


def test_a_corner_at_zero_is_jumped_to():
    schedule = fo.schedules.piecewise_interpolate_schedule("linear", 1.0, {0: 4.0, 4: 0.5})
    assert [schedule(n).item() for n in (0, 2, 4)] == [4.0, 3.0, 2.0]


def test_one_step_long_cycle():
    # int(0.3) = int(0.85) = 0: the later corner wins, as in optax's dict.
    schedule = fo.schedules.linear_onecycle_schedule(1, 1.0, div_factor=10.0, final_div_factor=10.0)
    torch.testing.assert_close(torch.stack([schedule(0), schedule(1)]), torch.tensor([0.01, 0.001], dtype=torch.float64))


@pytest.mark.parametrize(
    "make, error, message",
    [
        (
            lambda s: s.piecewise_constant_schedule(1.0, {3: -0.5}),
            ValueError,
            "piecewise_constant_schedule: the scale at 3 must be >= 0, got -0.5",
        ),
        (
            lambda s: s.piecewise_constant_schedule(1.0, {2.5: 0.5}),
            TypeError,
            "piecewise_constant_schedule: a boundary must be an int, got 2.5",
        ),
        (
            lambda s: s.piecewise_interpolate_schedule("cubic", 1.0),
            ValueError,
            "interpolate_type must be one of 'linear', 'cosine', got 'cubic'",
        ),
        (lambda s: s.linear_onecycle_schedule(0, 1.0), ValueError, "linear_onecycle_schedule: transition_steps must be >= 1, got 0"),
        (
            lambda s: s.linear_onecycle_schedule(9, 1.0, 0.5, 0.4),
            ValueError,
            r"linear_onecycle_schedule: pct_final must be in \[0.5, 1\], got 0.4",
        ),
        (
            lambda s: s.cosine_onecycle_schedule(9, 1.0, div_factor=0.0),
            ValueError,
            "cosine_onecycle_schedule: div_factor must be > 0, got 0.0",
        ),
    ],
)
def test_says_what_is_wrong(make, error, message):
    with pytest.raises(error, match=message):
        make(fo.schedules)
