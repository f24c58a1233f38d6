"""AdamW against torch.optim, against Adam, and what its decay reaches."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_close, assert_trees_equal, run, run_torch, small_params


@pytest.mark.parametrize("weight_decay", [0.01, 0.5])
def test_follows_torch(weight_decay):
    ours = run(fo.adamw(0.02, weight_decay=weight_decay), steps=200)
    assert_trees_close(ours, run_torch(torch.optim.AdamW, lr=0.02, weight_decay=weight_decay, steps=200))


def test_without_decay_is_adam():
    assert_trees_equal(run(fo.adamw(0.02, weight_decay=0.0), steps=5), run(fo.adam(0.02), steps=5))


def test_the_mask_says_which_leaves_decay():
    params = small_params()
    zeros = fo.tree.zeros_like(params)
    tx = fo.adamw(0.1, weight_decay=0.5, weight_decay_mask=lambda params: fo.tree.map_plain(lambda p: p.dim() > 1, params))
    updates, _ = tx.update(zeros, tx.init(params), params)
    for update, p in zip(fo.tree.leaves(updates), fo.tree.leaves(params), strict=True):
        torch.testing.assert_close(update, -0.05 * p if p.dim() > 1 else torch.zeros_like(p))


def test_decay_follows_its_schedule():
    params = torch.tensor([2.0], dtype=torch.float64)
    tx = fo.adamw(0.1, weight_decay=lambda count: 1.0 / (count + 1))
    state = tx.init(params)
    for step in range(3):
        updates, state = tx.update(torch.zeros_like(params), state, params)
        torch.testing.assert_close(updates.item(), -0.2 / (step + 1))


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match="weight_decay must be >= 0, got -0.1"):
        fo.adamw(0.1, weight_decay=-0.1)
    tx = fo.adamw(0.1)
    with pytest.raises(ValueError, match="needs the params"):
        tx.update(torch.ones(1), tx.init(torch.ones(1)))
