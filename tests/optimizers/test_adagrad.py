"""Adagrad against torch.optim, by hand, and its laws."""

import pytest
import torch
from hypothesis import given, strategies as st

import funcopt as fo
from tests.helpers import assert_trees_close, run, run_torch


@pytest.mark.parametrize("start, eps", [(0.0, 1e-10), (0.3, 1e-2)])
def test_follows_torch(start, eps):
    ours = run(fo.adagrad(0.1, start, eps, eps_in_sqrt=False), steps=60)
    assert_trees_close(ours, run_torch(torch.optim.Adagrad, lr=0.1, initial_accumulator_value=start, eps=eps, steps=60))


def test_the_decay_of_the_rate_is_a_schedule():
    ours = run(fo.adagrad(lambda count: 0.1 / (1 + 0.05 * count.double()), 0.0, 1e-10, eps_in_sqrt=False), steps=60)
    assert_trees_close(ours, run_torch(torch.optim.Adagrad, lr=0.1, lr_decay=0.05, steps=60))


def test_third_step_by_hand():
    # Squares 4 + 4 + 1 from nothing: 1 / 3.
    rss = fo.scale_by_rss(0.0, 0.0)
    state = rss.init(torch.zeros((), dtype=torch.float64))
    for gradient in (2.0, -2.0, 1.0):
        direction, state = rss.update(torch.tensor(gradient, dtype=torch.float64), state)
    torch.testing.assert_close(direction.item(), 1 / 3)


@given(scale=st.floats(1e-3, 1e3))
def test_direction_does_not_depend_on_the_scale_of_the_gradient(scale):
    gradient = torch.tensor([1.0, -2.0, 0.0], dtype=torch.float64)
    rss = fo.scale_by_rss(0.0, 0.0)
    torch.testing.assert_close(rss.update(scale * gradient, rss.init(gradient))[0], gradient.sign())


@pytest.mark.parametrize("eps_in_sqrt", [True, False])
def test_entries_that_never_had_a_gradient_stay_and_have_a_finite_slope(eps_in_sqrt):
    rss = fo.scale_by_rss(0.0, 0.0, eps_in_sqrt=eps_in_sqrt)

    def total(scale):
        gradient = torch.stack([scale, 0 * scale])
        return rss.update(gradient, rss.init(gradient))[0].sum()

    scale = torch.tensor(2.0, dtype=torch.float64)
    assert total(scale).item() == 1.0
    assert torch.isfinite(torch.func.grad(total)(scale))


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match="scale_by_rss: initial_accumulator_value must be >= 0, got -0.1"):
        fo.adagrad(0.1, -0.1)
