"""NovoGrad by hand, where its decay enters, and what it takes the norm of."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_close, gradients_at, small_params


def test_second_step_by_hand():
    # b1 = b2 = 1/2; |g|^2 = 25, then 100: nu = 25, 62.5; mu = g / 5, then half of that + g / sqrt(62.5).
    novograd = fo.scale_by_novograd(0.5, 0.5, eps=0.0)
    gradient = torch.tensor([3.0, -4.0], dtype=torch.float64)
    first, state = novograd.update(gradient, novograd.init(gradient))
    second, state = novograd.update(2 * gradient, state)
    assert state.nu.item() == 62.5
    torch.testing.assert_close(first, gradient / 5)
    torch.testing.assert_close(second, gradient / 10 + 2 * gradient / 62.5**0.5)


def test_every_leaf_has_its_own_norm():
    params = small_params()
    novograd = fo.scale_by_novograd(eps=0.0)
    direction, _ = novograd.update(gradients_at(0, params), novograd.init(params))
    for leaf in fo.tree.leaves(direction):
        torch.testing.assert_close(leaf.norm().item(), 1.0)


def test_decay_is_part_of_the_momentum():
    params = small_params()
    tx = fo.novograd(0.1, b1=0.5, weight_decay=0.2)
    zeros = fo.tree.zeros_like(params)
    state = tx.init(params)
    for factor in (1.0, 1.5):
        updates, state = tx.update(zeros, state, params)
        assert_trees_close(updates, fo.tree.scale(-0.1 * 0.2 * factor, params))


def test_decay_takes_a_schedule_and_a_mask():
    params = {"w": torch.ones(2, 2), "b": torch.ones(2)}
    tx = fo.novograd(0.1, b1=0.0, weight_decay=lambda count: 0.5 * (count + 1), weight_decay_mask={"w": True, "b": False})
    state = tx.init(params)
    for step in (1, 2):
        updates, state = tx.update(fo.tree.zeros_like(params), state, params)
        torch.testing.assert_close(updates["w"], torch.full((2, 2), -0.05 * step))
        assert not updates["b"].any()


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"scale_by_novograd: b1 must be in \[0, 1\), got 1.0"):
        fo.novograd(0.1, b1=1.0)
    tx = fo.novograd(0.1, weight_decay=0.1)
    with pytest.raises(ValueError, match="needs the params"):
        tx.update(torch.ones(1), tx.init(torch.ones(1)))
