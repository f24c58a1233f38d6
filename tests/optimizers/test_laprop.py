"""LaProp against its formula written out, and where Adam would blow up."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_close, gradients_at, small_params


def test_is_the_formula_of_the_paper():
    b1, b2, eps = 0.8, 0.95, 1e-3
    tx, params = fo.scale_by_laprop(b1, b2, eps), small_params()
    state = tx.init(params)
    m, n = fo.tree.zeros_like(params), fo.tree.zeros_like(params)
    for t in range(1, 6):
        g = gradients_at(t, params)
        n = fo.tree.map(lambda n, g: b2 * n + (1 - b2) * g * g, n, g)
        m = fo.tree.map(lambda m, n, g, t=t: b1 * m + (1 - b1) * g / ((n / (1 - b2**t)).sqrt() + eps), m, n, g)
        ours, state = tx.update(g, state)
        assert_trees_close(ours, fo.tree.map(lambda m, t=t: m / (1 - b1**t), m))


def test_a_spike_moves_no_more_than_one_step_however_large():
    # Each entry is at most 1 / sqrt(1 - b2) before it is averaged: b1 = 0.9 and b2 = 0, where Adam's m / sqrt(n) is without bound.
    tx, adam = fo.scale_by_laprop(0.9, 0.0), fo.scale_by_adam(0.9, 0.0)
    state, other = tx.init(torch.zeros(1)), adam.init(torch.zeros(1))
    for g in (1e6, 1.0, 1.0):
        u, state = tx.update(torch.tensor([g]), state)
        v, other = adam.update(torch.tensor([g]), other)
    assert u.abs() <= 1.0001 and v > 1e4


@pytest.mark.parametrize(
    "arguments, message", [({"b1": 1.0}, "b1 must be in"), ({"b2": -0.1}, "b2 must be in"), ({"eps": 0.0}, "eps must be > 0")]
)
def test_says_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=f"scale_by_laprop: {message}"):
        fo.scale_by_laprop(**arguments)
