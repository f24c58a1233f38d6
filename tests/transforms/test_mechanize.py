"""Mechanic: steps by hand, and what it must survive; optax's recordings replay in tests/parity."""

import pytest
import torch

import funcopt as fo


def test_two_steps_by_hand():
    # One beta, 0.9, no decay, sgd(1), params from 0 and gradients of -1. First: D = 0, h = 0, m = eps, s = s_init, step s_init.
    s_init, eps = 0.5, 1e-12
    tx = fo.mechanize(fo.sgd(1.0), weight_decay=0.0, eps=eps, s_init=s_init, num_betas=1)
    params = torch.zeros((), dtype=torch.float64)
    state = tx.init(params)
    g = torch.tensor(-1.0, dtype=torch.float64)
    updates, state = tx.update(g, state, params)
    torch.testing.assert_close(updates.item(), s_init)
    params = fo.apply_updates(params, updates)
    # Then D = (0 - 1/2) / (1/2) = -1, h = 1, clipped to m = eps: r = eps s, m = 1, v = 1, s = s_init + 0; x' = s (1 + 1).
    updates, state = tx.update(g, state, params)
    torch.testing.assert_close(fo.read_signals(state)["mechanic_scale"].item(), s_init, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(fo.apply_updates(params, updates).item(), 2 * s_init)
    # Third: D = -2, h = 2, clipped to m = 1: r = s_init, so that the scale grows: m = 2, v = 0.81 + 4.
    params = fo.apply_updates(params, updates)
    updates, state = tx.update(g, state, params)
    torch.testing.assert_close(fo.read_signals(state)["mechanic_scale"].item(), (s_init * 2 + s_init) / 4.81**0.5, rtol=1e-6, atol=0.0)


def test_begins_where_training_begins():
    tx = fo.mechanize(fo.sgd(1.0))
    state = tx.init(torch.zeros(2))
    loaded = torch.ones(2)
    _, state = tx.update(torch.ones(2), state, loaded)
    assert torch.equal(state.x0, loaded)


def test_words_and_hyperparameters_of_what_it_stretches_go_through():
    tx = fo.mechanize(fo.adam(0.5))
    assert {"lr", "mechanic_scale"} <= set(fo.read_signals(tx.init(torch.zeros(2))))


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match="mechanize: s_init must be > 0, got 0.0"):
        fo.mechanize(fo.sgd(1.0), s_init=0.0)
    with pytest.raises(ValueError, match="mechanize: num_betas must be"):
        fo.mechanize(fo.sgd(1.0), num_betas=0)
    with pytest.raises(ValueError, match="mechanize: needs the params"):
        tx = fo.mechanize(fo.sgd(1.0))
        tx.update(torch.zeros(2), tx.init(torch.zeros(2)))
