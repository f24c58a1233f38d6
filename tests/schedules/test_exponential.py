"""Exponential decay: values by hand, edges, errors."""

import pytest
import torch

import funcopt as fo


def test_halves_every_two_steps():
    schedule = fo.schedules.exponential_decay(8.0, transition_steps=2, decay_rate=0.5, transition_begin=1)
    torch.testing.assert_close(
        torch.stack([schedule(n) for n in (0, 1, 2, 3, 5)]), torch.tensor([8.0, 8.0, 8 / 2**0.5, 4.0, 2.0], dtype=torch.float64)
    )


def test_staircase_holds():
    schedule = fo.schedules.exponential_decay(8.0, 2, 0.5, staircase=True)
    assert [schedule(n).item() for n in range(5)] == [8.0, 8.0, 4.0, 4.0, 2.0]


def test_the_end_bounds_from_below_when_falling_and_from_above_when_growing():
    assert fo.schedules.exponential_decay(1.0, 1, 0.5, end_value=0.3)(10).item() == 0.3
    assert fo.schedules.exponential_decay(1.0, 1, 2.0, end_value=3.0)(10).item() == 3.0
    for rate in (0.5, 2.0):
        tensor = fo.schedules.exponential_decay(1.0, 1, torch.tensor(rate, dtype=torch.float64), end_value=1.5)(10)
        assert tensor == fo.schedules.exponential_decay(1.0, 1, rate, end_value=1.5)(10)


@pytest.mark.parametrize("arguments", [{"transition_steps": 0, "decay_rate": 0.5}, {"transition_steps": 2, "decay_rate": 0}])
def test_what_cannot_decay_stays_as_in_optax(arguments):
    assert fo.schedules.exponential_decay(0.25, **arguments)(7).item() == 0.25


def test_slope_in_the_rate_is_finite_far_before_the_beginning():
    # A joined schedule is evaluated at counts below zero too; 0.5^(-10^6) would be infinite.
    rate = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    joined = fo.schedules.join_schedules([fo.schedules.constant_schedule(1.0), fo.schedules.exponential_decay(1.0, 1, rate)], [10**6])
    joined(0).backward()
    assert rate.grad == 0.0


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"decay_rate": -0.5}, "exponential_decay: decay_rate must be >= 0, got -0.5"),
        ({"end_value": float("inf")}, "exponential_decay: end_value must be finite, got inf"),
    ],
)
def test_says_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        fo.schedules.exponential_decay(**({"init_value": 1.0, "transition_steps": 5, "decay_rate": 0.5} | arguments))
