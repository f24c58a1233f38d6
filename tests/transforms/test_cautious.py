"""cautious: what disagrees is left out, against the formula written out, on either side of the sign."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_close, gradients_at, small_params


def test_is_the_formula_of_the_paper():
    tx, plain, params = fo.cautious(fo.scale_by_adam(0.5), xi=1.0), fo.scale_by_adam(0.5), small_params()
    state, inner = tx.init(params), plain.init(params)
    masked = 0
    for step in range(6):
        g = gradients_at(3 * step, params)
        u, inner = plain.update(g, inner)
        ours, state = tx.update(g, state)
        phi = fo.tree.map(lambda u, g: (u * g > 0).to(u.dtype), u, g)
        masked += sum((1 - x).sum() for x in fo.tree.leaves(phi))
        assert_trees_close(ours, fo.tree.map(lambda u, phi: u * phi * phi.numel() / (phi.sum() + 1), u, phi))
    assert masked > 10


def test_a_step_downhill_is_masked_where_it_follows_the_gradient():
    direction, whole, params = fo.cautious(fo.trace(0.9)), fo.cautious(fo.sgd(0.1, momentum=0.9)), small_params()
    a, b = direction.init(params), whole.init(params)
    for step in range(5):
        g = gradients_at(2 * step, params)
        ours, a = direction.update(g, a)
        down, b = whole.update(g, b)
        assert_trees_close(down, fo.tree.scale(-0.1, ours))


def test_products_too_small_to_be_numbers_count():
    tx = fo.cautious(fo.identity())
    tiny = torch.tensor([1e-30, -1e-30])
    torch.testing.assert_close(tx.update(tiny, tx.init(tiny))[0], tiny * 2 / 3)


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match="cautious: xi must be > 0, got 0"):
        fo.cautious(fo.sgd(0.1), xi=0.0)
    unknown = fo.GradientTransformation(
        lambda params: fo.EmptyState(), lambda updates, state, params=None, **extra: (updates, state), name="mine"
    )
    with pytest.raises(
        ValueError, match="cautious: inner must be known to point along the gradient or against it, got mine, which does not say"
    ):
        fo.cautious(unknown)
