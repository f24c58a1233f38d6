"""LAMB: how far each leaf moves, and where that comes from."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_close, gradients_at, small_params


def test_every_leaf_moves_by_its_length_times_the_rate():
    params = small_params()
    tx = fo.lamb(0.1, weight_decay=0.05)
    updates, _ = tx.update(gradients_at(0, params), tx.init(params), params)
    for update, p in zip(fo.tree.leaves(updates), fo.tree.leaves(params), strict=True):
        torch.testing.assert_close(update.norm(), 0.1 * p.norm())


def test_first_step_by_hand():
    # Adam's first direction is the sign; with decay 1/2: (1 + 3/2, -1 + 4/2) = (2.5, 1), scaled to length 5.
    params = torch.tensor([3.0, 4.0], dtype=torch.float64)
    tx = fo.lamb(0.1, eps=0.0, weight_decay=0.5)
    updates, _ = tx.update(torch.tensor([7.0, -0.2], dtype=torch.float64), tx.init(params), params)
    direction = torch.tensor([2.5, 1.0], dtype=torch.float64)
    torch.testing.assert_close(updates, -0.5 * direction / direction.norm())


def test_params_at_zero_take_adams_step():
    zeros = fo.tree.zeros_like(small_params())
    gradients = gradients_at(0, zeros)
    lamb, adam = fo.lamb(0.1), fo.adam(0.1, eps=1e-6)
    assert_trees_close(lamb.update(gradients, lamb.init(zeros), zeros)[0], adam.update(gradients, adam.init(zeros), zeros)[0])


def test_says_what_is_wrong():
    tx = fo.lamb(0.1)
    with pytest.raises(ValueError, match="scale_by_trust_ratio: needs the params"):
        tx.update(torch.ones(1), tx.init(torch.ones(1)))
    with pytest.raises(ValueError, match=r"b1 must be in \[0, 1\), got 1.0"):
        fo.lamb(0.1, b1=1.0)
