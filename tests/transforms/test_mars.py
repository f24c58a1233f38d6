"""mars against its formula, and a constant gradient, of which nothing is to be corrected."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_close, gradients_at, small_params


@pytest.mark.parametrize("max_norm", [1.0, 3.0, None])
def test_is_the_formula_of_the_paper(max_norm):
    tx, params = fo.mars(0.4, 0.8, max_norm), small_params()
    state, last = tx.init(params), fo.tree.zeros_like(params)
    for step in range(4):
        g = gradients_at(step, params)
        c = fo.tree.map(lambda g, last: g + 0.4 * 0.8 / (1 - 0.8) * (g - last), g, last)
        if max_norm is not None:
            c = fo.tree.map(lambda c: c / max(1.0, c.norm() / max_norm), c)
        ours, state = tx.update(g, state)
        assert_trees_close(ours, c)
        last = g


def test_a_gradient_that_does_not_change_passes():
    tx, g = fo.mars(max_norm=None), torch.tensor([3.0, -0.5])
    _, state = tx.update(g, tx.init(g))
    assert torch.equal(tx.update(g, state)[0], g)


@pytest.mark.parametrize(
    "arguments, message",
    [({"gamma": -1.0}, "gamma must be >= 0"), ({"beta1": 1.0}, "beta1 must be in"), ({"max_norm": 0.0}, "max_norm must be > 0")],
)
def test_says_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=f"mars: {message}"):
        fo.mars(**arguments)
