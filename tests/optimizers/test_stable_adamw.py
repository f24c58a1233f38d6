"""StableAdamW against its formula written out, and AdamW where no gradient outgrows what is known of it."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_close, gradients_at, small_params


def test_is_the_formula_of_the_paper():
    b1, b2, eps, decay = 0.8, 0.95, 1e-8, 0.1
    tx, params = fo.scale_by_stable_adam(b1, b2, eps, decay), small_params()
    state = tx.init(params)
    m, v = fo.tree.zeros_like(params), fo.tree.zeros_like(params)
    clipped = 0
    for t in range(1, 7):
        g = gradients_at(t, params, 3.0**t)
        m = fo.tree.map(lambda m, g: b1 * m + (1 - b1) * g, m, g)
        v = fo.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, v, g)
        rms = fo.tree.map(lambda g, v, t=t: (g.square() / (v / (1 - b2**t)).clamp(min=eps**2)).mean().sqrt(), g, v)
        expected = fo.tree.map(
            lambda m, v, p, r, t=t: (m / (1 - b1**t) / ((v / (1 - b2**t)).sqrt() + eps) + decay * p) / r.clamp(min=1), m, v, params, rms
        )
        ours, state = tx.update(g, state, params)
        assert_trees_close(ours, expected)
        clipped += sum(r > 1 for r in fo.tree.leaves(rms))
    assert clipped > 10


def test_is_adamw_where_gradients_stay_what_they_were():
    stable, adamw, params = fo.stable_adamw(0.1, 0.9, 0.99, weight_decay=0.1), fo.adamw(0.1, 0.9, 0.99, weight_decay=0.1), small_params()
    a, b = stable.init(params), adamw.init(params)
    for t in range(4):
        g = gradients_at(0, params, 0.9**t)  # falling: never larger than its RMS
        ours, a = stable.update(g, a, params)
        theirs, b = adamw.update(g, b, params)
        assert_trees_close(ours, theirs)


@pytest.mark.parametrize("arguments, message", [({"b1": 1.0}, "b1 must be in"), ({"eps": 0.0}, "eps must be > 0")])
def test_says_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=f"scale_by_stable_adam: {message}"):
        fo.scale_by_stable_adam(**arguments)


def test_a_leaf_of_zero_gradients_stays():
    tx = fo.scale_by_stable_adam()
    assert not tx.update(torch.zeros(3), tx.init(torch.zeros(3)), torch.zeros(3))[0].any()
