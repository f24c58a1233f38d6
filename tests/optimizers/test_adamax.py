"""Adamax against torch.optim, by hand, and its one law."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_close, run, run_torch


@pytest.mark.parametrize("b1, b2, eps", [(0.9, 0.999, 1e-8), (0.5, 0.8, 1e-2)])
def test_follows_torch(b1, b2, eps):
    ours = run(fo.adamax(0.02, b1, b2, eps), steps=60)
    assert_trees_close(ours, run_torch(torch.optim.Adamax, lr=0.02, betas=(b1, b2), eps=eps, steps=60))


def test_coupled_decay_stands_left_of_it():
    ours = run(fo.chain(fo.add_decayed_weights(0.1), fo.adamax(0.02)), steps=60)
    assert_trees_close(ours, run_torch(torch.optim.Adamax, lr=0.02, weight_decay=0.1, steps=60))


def test_third_step_by_hand():
    # b1 = 0, b2 = 1/2: the largest magnitude is 8, 4, then 3 > 2.
    adamax = fo.scale_by_adamax(0.0, 0.5, eps=1e-15)
    state = adamax.init(torch.zeros((), dtype=torch.float64))
    for gradient, expected in ((8.0, 1.0), (-1.0, -0.25), (3.0, 1.0)):
        direction, state = adamax.update(torch.tensor(gradient, dtype=torch.float64), state)
        torch.testing.assert_close(direction.item(), expected)


def test_no_entry_exceeds_one_without_momentum():
    adamax = fo.scale_by_adamax(b1=0.0)
    state = adamax.init(torch.zeros(50))
    for _ in range(5):
        direction, state = adamax.update(torch.randn(50), state)
        assert direction.abs().max() <= 1


def test_decay_is_decoupled():
    params = torch.tensor([2.0], dtype=torch.float64)
    tx = fo.adamaxw(0.1, weight_decay=0.5)
    updates, _ = tx.update(torch.zeros_like(params), tx.init(params), params)
    torch.testing.assert_close(updates.item(), -0.1)


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match="scale_by_adamax: eps must be > 0, got 0.0"):
        fo.adamax(0.1, eps=0.0)
