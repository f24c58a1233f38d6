"""RAdam against torch.optim, by hand on both sides of its threshold, and its errors."""

import inspect

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_close, run, run_torch


@pytest.mark.parametrize("b1, b2, eps", [(0.9, 0.999, 1e-8), (0.5, 0.8, 1e-2)])
def test_follows_torch(b1, b2, eps):
    ours = run(fo.radam(0.02, b1, b2, eps, correct_eps=True), steps=60)
    assert_trees_close(ours, run_torch(torch.optim.RAdam, lr=0.02, betas=(b1, b2), eps=eps, steps=60))


@pytest.mark.skipif("decoupled_weight_decay" not in inspect.signature(torch.optim.RAdam).parameters, reason="this torch has no such option")
def test_decoupled_decay_follows_torch():
    ours = run(fo.radam(0.02, correct_eps=True, weight_decay=0.1), steps=60)
    assert_trees_close(ours, run_torch(torch.optim.RAdam, lr=0.02, weight_decay=0.1, decoupled_weight_decay=True, steps=60))


def test_by_hand_on_both_sides_of_the_threshold():
    # b2 = 0.9: r_inf = 19, r_t = 1, 1.95, 2.87, 3.78, 4.67, 5.54 for t = 1, ..., 6.
    b2, t = 0.9, 6
    radam = fo.scale_by_radam(b1=0.0, b2=b2, eps=0.0)
    state = radam.init(torch.zeros((), dtype=torch.float64))
    for _ in range(5):
        direction, state = radam.update(torch.tensor(3.0, dtype=torch.float64), state)
        assert direction.item() == 3.0
    direction, state = radam.update(torch.tensor(3.0, dtype=torch.float64), state)
    r = 19 - 2 * t * b2**t / (1 - b2**t)
    torch.testing.assert_close(direction.item(), ((r - 4) * (r - 2) * 19 / ((19 - 4) * (19 - 2) * r)) ** 0.5)


def test_nothing_moves_before_the_threshold_if_asked():
    radam = fo.scale_by_radam(degenerated_to_sgd=False)
    state = radam.init(torch.zeros(2))
    for step in range(7):
        direction, state = radam.update(torch.ones(2), state)
        assert direction.any() == (step >= 5)


def test_becomes_adam_in_the_end():
    radam, adam = fo.scale_by_radam(b2=0.9), fo.scale_by_adam(b2=0.9)
    gradient = torch.tensor([1.0, -3.0], dtype=torch.float64)
    state, other = radam.init(gradient), adam.init(gradient)
    for step in range(300):
        direction, state = radam.update(gradient + step % 3, state)
        expected, other = adam.update(gradient + step % 3, other)
    torch.testing.assert_close(direction, expected)


@pytest.mark.parametrize("b2", [0.0, 0.5, 0.6])
def test_a_memory_too_short_for_the_threshold_leaves_the_mean(b2):
    radam = fo.scale_by_radam(b1=0.0, b2=b2)
    scale = torch.tensor(2.0, dtype=torch.float64)
    slope = torch.func.grad(lambda scale: radam.update(scale.expand(1), radam.init(scale.expand(1)))[0].sum())(scale)
    assert slope.item() == 1.0


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"scale_by_radam: threshold must be in \[4, inf\), got 3.0"):
        fo.radam(0.1, threshold=3.0)
