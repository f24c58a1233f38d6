"""Polynomial and linear schedules: values by hand, edges, errors."""

import pytest
import torch

import funcopt as fo


def test_values_by_hand():
    # Begins at 2, takes 4 steps: a quarter of the way is gone at 3, so 3/4 is left.
    schedule = fo.schedules.polynomial_schedule(2.0, 1.0, power=3, transition_steps=4, transition_begin=2)
    assert schedule(3).item() == 1 + 0.75**3


def test_linear_is_power_one():
    line = fo.schedules.linear_schedule(0.3, 0.7, 9, 2)
    power = fo.schedules.polynomial_schedule(0.3, 0.7, 1.0, 9, 2)
    for count in range(13):
        torch.testing.assert_close(line(count), power(count), rtol=1e-15, atol=0.0)


@pytest.mark.parametrize("steps", [0, -3])
def test_no_way_to_go_stays_at_the_first_value_as_in_optax(steps):
    assert fo.schedules.linear_schedule(0.25, 1.0, steps)(100).item() == 0.25


def test_a_length_may_be_a_tensor():
    ours = torch.func.vmap(lambda steps: fo.schedules.linear_schedule(1.0, 0.0, steps)(torch.tensor(2)))(torch.tensor([4, 8]))
    assert ours.tolist() == [0.5, 0.75]


def test_slope_in_the_power_is_finite_at_the_end():
    power = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    fo.schedules.polynomial_schedule(1.0, 0.0, power, 4)(10).backward()
    assert power.grad.isfinite()


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"power": 0}, ValueError, "polynomial_schedule: power must be > 0, got 0"),
        ({"init_value": float("nan")}, ValueError, "polynomial_schedule: init_value must be finite, got nan"),
        ({"end_value": "low"}, TypeError, "polynomial_schedule: end_value must be a number or a 0-dim tensor, got 'low'"),
        ({"init_value": torch.zeros(2)}, ValueError, r"polynomial_schedule: init_value must be .*, got a tensor of shape \(2,\)"),
    ],
)
def test_says_what_is_wrong(arguments, error, message):
    with pytest.raises(error, match=message):
        fo.schedules.polynomial_schedule(**({"init_value": 1.0, "end_value": 0.0, "power": 1, "transition_steps": 5} | arguments))
