"""Adadelta against torch.optim, by hand, and its unit."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_close, run, run_torch


@pytest.mark.parametrize("rho, eps", [(0.9, 1e-6), (0.5, 1e-2)])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_follows_torch(rho, eps, weight_decay):
    ours = run(fo.adadelta(0.7, rho, eps, weight_decay), steps=100)
    assert_trees_close(ours, run_torch(torch.optim.Adadelta, lr=0.7, rho=rho, eps=eps, weight_decay=weight_decay, steps=100))


def test_second_step_by_hand():
    # rho = 1/2, eps = 1, gradients 2 then 2: e_g = 2, 3; u = 2 / sqrt(3); e_x = 2/3; u = sqrt(5/3) / 2 * 2.
    adadelta = fo.scale_by_adadelta(0.5, 1.0)
    state = adadelta.init(torch.zeros((), dtype=torch.float64))
    for _ in range(2):
        direction, state = adadelta.update(torch.tensor(2.0, dtype=torch.float64), state)
    torch.testing.assert_close(direction.item(), (5 / 3) ** 0.5)


def test_direction_does_not_depend_on_the_scale_of_the_gradient():
    adadelta = fo.scale_by_adadelta(eps=1e-12)
    gradient = torch.tensor([1.0, -2.0], dtype=torch.float64)
    state, other = adadelta.init(gradient), adadelta.init(gradient)
    for step in range(5):
        small, state = adadelta.update(gradient + step, state)
        large, other = adadelta.update(1000 * (gradient + step), other)
        torch.testing.assert_close(small, large)


def test_hears_a_rate_only_if_told_to():
    gradient = torch.ones(2)
    tx = fo.adadelta(None)
    with pytest.raises(ValueError, match="base_lr"):
        tx.update(gradient, tx.init(gradient), gradient)
    assert fo.adadelta().init(gradient)[-1].lr == 1


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match="scale_by_adadelta: eps must be > 0, got 0.0"):
        fo.adadelta(eps=0.0)
