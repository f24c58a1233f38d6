"""grokfast: the mean begins with the first gradient; steady gradients are amplified, alternating ones hardly."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_close, gradients_at, small_params


def test_is_the_filter_of_the_paper():
    tx, params = fo.grokfast(0.9, 3.0), small_params()
    state, mu = tx.init(params), gradients_at(0, params)
    for step in range(5):
        g = gradients_at(step, params)
        if step:
            mu = fo.tree.map(lambda mu, g: 0.9 * mu + 0.1 * g, mu, g)
        ours, state = tx.update(g, state)
        assert_trees_close(ours, fo.tree.map(lambda g, mu: g + 3 * mu, g, mu))


def test_what_is_slow_grows_and_what_alternates_does_not():
    tx = fo.grokfast(0.99, 4.0)
    state = tx.init(torch.zeros(2))
    for step in range(1000):
        u, state = tx.update(torch.tensor([1.0, (-1.0) ** step]), state)
    torch.testing.assert_close(u.abs(), torch.tensor([5.0, 1.0]), rtol=0, atol=0.03)


@pytest.mark.parametrize("arguments, message", [({"alpha": 1.0}, "alpha must be in"), ({"lamb": -1.0}, "lamb must be >= 0")])
def test_says_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=f"grokfast: {message}"):
        fo.grokfast(**arguments)
