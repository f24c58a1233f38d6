"""MADGRAD by hand, where its rate and its decay enter, and that it says its rate."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_close, gradients_at, small_params


def test_two_steps_by_hand():
    # lr 1, momentum 1/2, eps 0 nearly; gradient 8 from 0: k = 1, G = 64, s = 8, z = -2, p = -1.
    # Then 1: k = sqrt(2), G = 64 + sqrt(2), s = 8 + sqrt(2), z = -s / cbrt(G), p = z / 2 - 1/2.
    tx = fo.madgrad(1.0, momentum=0.5, eps=1e-15)
    params = torch.zeros((), dtype=torch.float64)
    state = tx.init(params)
    for gradient in (8.0, 1.0):
        updates, state = tx.update(torch.tensor(gradient, dtype=torch.float64), state, params)
        params = params + updates
    z = -(8 + 2**0.5) / (64 + 2**0.5) ** (1 / 3)
    torch.testing.assert_close(params.item(), z / 2 - 0.5)


def test_returns_to_the_start_where_gradients_cancel():
    tx = fo.madgrad(lambda count: 0.1 / (count.double() + 1).sqrt(), momentum=0.0, eps=1e-15)  # the same weight for every step
    params = torch.ones(3, dtype=torch.float64)
    state = tx.init(params)
    for sign in (1.0, -1.0):
        updates, state = tx.update(sign * torch.arange(1.0, 4.0, dtype=torch.float64), state, params)
        params = params + updates
    torch.testing.assert_close(params, torch.ones(3, dtype=torch.float64))


def test_decay_is_coupled():
    params = small_params()
    gradients = gradients_at(0, params)
    decayed, plain = fo.madgrad(0.1, weight_decay=0.3), fo.madgrad(0.1)
    expected, _ = plain.update(fo.tree.add_scale(gradients, 0.3, params), plain.init(params), params)
    assert_trees_close(decayed.update(gradients, decayed.init(params), params)[0], expected)


def test_entries_that_never_had_a_gradient_stay_and_have_a_finite_slope():
    params = torch.ones(2, dtype=torch.float64)
    tx = fo.madgrad(0.1)

    def moved(scale):
        return tx.update(torch.stack([scale, 0 * scale]), tx.init(params), params)[0]

    scale = torch.tensor(2.0, dtype=torch.float64)
    assert moved(scale)[1] == 0
    assert torch.isfinite(torch.func.grad(lambda scale: moved(scale).sum())(scale))


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"scale_by_madgrad: momentum must be in \[0, 1\), got 1.0"):
        fo.madgrad(0.1, momentum=1.0)
    tx = fo.madgrad(0.1)
    with pytest.raises(ValueError, match="scale_by_madgrad: needs the params"):
        tx.update(torch.ones(1), tx.init(torch.ones(1)))
    with pytest.raises(ValueError, match="'lr' is said twice"):
        fo.chain(tx, fo.lr_scale(0.1)).init(torch.ones(1))
