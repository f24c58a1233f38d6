"""Scion: every norm against its formula, steps that stay in the ball, and its words for what does not fit."""

import math

import pytest
import torch

import funcopt as fo
from tests.helpers import gradients_at, small_params


def first(norm, g, **settings):
    tx = fo.scale_by_scion(1.0, norm, ns_steps=settings.pop("ns_steps", 5), eps=0.0)
    return tx.update(g, tx.init(torch.zeros_like(g)))[0]


def test_every_norm_is_its_formula():
    g = gradients_at(1, torch.zeros(3, 4, dtype=torch.float64))
    torch.testing.assert_close(first("sign", g), g.sign() / 4)
    torch.testing.assert_close(first("col", g).square().mean(0), torch.ones(4, dtype=g.dtype))
    torch.testing.assert_close(first("row", g).norm(dim=1), torch.full((3,), 1 / math.sqrt(4), dtype=g.dtype))
    torch.testing.assert_close(first("bias", g[0]), g[0] / g[0].square().mean().sqrt())
    muon = fo.scale_by_muon(beta=0.0, eps=0.0, nesterov=False)
    torch.testing.assert_close(first("spectral", g), math.sqrt(3 / 4) * muon.update(g, muon.init(g))[0])
    kernel = gradients_at(1, torch.zeros(3, 2, 2, 2, dtype=torch.float64))
    o = muon.update(kernel.reshape(3, 8), muon.init(kernel.reshape(3, 8)))[0].reshape(kernel.shape)
    torch.testing.assert_close(first("auto", kernel), math.sqrt(3 / 2) / 4 * o)


def test_the_mean_is_that_of_the_paper():
    tx, p = fo.scale_by_scion(0.25, "bias", 3.0, eps=0.0), torch.zeros(4, dtype=torch.float64)
    state, d = tx.init(p), torch.zeros_like(p)
    for t in range(4):
        g = gradients_at(t, p)
        d = 0.75 * d + 0.25 * g
        u, state = tx.update(g, state)
        torch.testing.assert_close(u, 3 * d / d.square().mean().sqrt())


def test_constrained_params_stay_within_rho():
    tx, p = fo.scion(0.3, norms="sign", rho=2.0), torch.zeros(2, 4)
    state = tx.init(p)
    for _ in range(100):
        u, state = tx.update(torch.ones_like(p), state, p)
        p = fo.apply_updates(p, u)
    torch.testing.assert_close(p, torch.full_like(p, -2.0 / 4))


def test_each_leaf_may_have_a_norm_and_a_size_of_its_own():
    params = {"head": torch.zeros(2, 4), "w": torch.zeros(2, 4)}
    tx = fo.scale_by_scion(1.0, fo.by_path({"head": ("sign", 8.0), "*": "row"}), rho=2.0, eps=0.0)
    u, _ = tx.update(fo.tree.ones_like(params), tx.init(params))
    torch.testing.assert_close(u, {"head": torch.full((2, 4), 2.0), "w": torch.full((2, 4), 0.5)})


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match="scale_by_scion: norms must be one of 'auto', .*, got 'nuclear'"):
        fo.scion(0.1, norms="nuclear")
    with pytest.raises(
        ValueError, match="scale_by_scion: the norm 'sign' must be of a leaf with two axes or more, got 'b' of rank 1; 'bias' is for those"
    ):
        fo.scale_by_scion(norms="sign").init(small_params())
    with pytest.raises(ValueError, match=r"scale_by_scion: alpha must be > 0, got 0"):
        fo.scion(0.1, alpha=0.0)
