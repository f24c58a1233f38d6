"""ACProp, COCOB and Polyak's step: steps by hand, their laws and errors; optax's recordings replay in tests/parity."""

import pytest
import torch
from hypothesis import given, settings, strategies as st

import funcopt as fo


def number(x):
    return torch.tensor(x, dtype=torch.float64)


def test_acprop_divides_by_what_came_before():
    # b1 = b2 = 1/2: first 4, then nu = 4^2 / 2 = 8, corrected 16, so 3 / 4; mu = 2, nu = 8 / 2 + (3 - 2)^2 / 2 = 4.5, corrected 6.
    tx, params = fo.scale_by_acprop(0.5, 0.5, eps=0.0, eps_root=1e-30), number([0.0])
    state, seen = tx.init(params), []
    for g in (4.0, 3.0, 6.0):
        direction, state = tx.update(number([g]), state)
        seen.append(direction.item())
    torch.testing.assert_close(seen, [4.0, 0.75, 6 / 6**0.5])


@settings(max_examples=15, deadline=None)
@given(st.floats(1e-3, 1e3))
def test_a_gradient_does_not_shrink_its_own_step(size):
    tx, params = fo.scale_by_acprop(), number([0.0])
    _, state = tx.update(number([1.0]), tx.init(params))
    one, _ = tx.update(number([1.0]), state)
    scaled, _ = tx.update(number([size]), state)
    torch.testing.assert_close(scaled, size * one)


def test_cocob_by_hand():
    # alpha = 2, g = 4 at 1: L = G = 4, C = -4, R = 0: step -1 / 2. Then g = -2 at 1/2: L = 4, G = 6, C = -2,
    # R = 0 - (-2)(-1/2) < 0 -> 0: p' = 1 - 1/2 / max(1 + 3/2, 2) = 0.8.
    tx, params = fo.cocob(alpha=2.0), number([1.0])
    state = tx.init(params)
    updates, state = tx.update(number([4.0]), state, params)
    assert updates.item() == -0.5
    params = fo.apply_updates(params, updates)
    updates, state = tx.update(number([-2.0]), state, params)
    torch.testing.assert_close(params + updates, number([0.8]))


@settings(max_examples=15, deadline=None)
@given(st.floats(1e-3, 1e3))
def test_cocob_does_not_depend_on_the_scale_of_the_loss(scale):
    def trained(scale):
        tx, params = fo.cocob(eps=1e-30), number([1.0, -2.0])
        state = tx.init(params)
        for _ in range(10):
            updates, state = tx.update(scale * (params - number([0.5, 0.5])), state, params)
            params = fo.apply_updates(params, updates)
        return params

    torch.testing.assert_close(trained(scale), trained(1.0), rtol=1e-9, atol=1e-12)


def test_polyak_halves_the_way_on_a_parabola_whatever_its_width_and_says_its_step():
    for width in (0.1, 1.0, 50.0):
        tx, params = fo.polyak_sgd(max_lr=1e3), number([8.0])
        state = tx.init(params)
        for _ in range(3):
            updates, state = tx.update(2 * width * params, state, params, loss=width * params.square().sum())
            params = fo.apply_updates(params, updates)
        torch.testing.assert_close(params, number([1.0]))
        torch.testing.assert_close(fo.read_signals(state)["polyak_step"], number(1 / (4 * width)))


def test_a_rate_of_half_halves_polyaks_step_where_optax_doubles_it():
    params, told = number([2.0]), {"loss": number(4.0)}
    whole, half = (fo.polyak_sgd(lr, max_lr=1e3) for lr in (1.0, 0.5))
    assert whole.update(number([4.0]), whole.init(params), **told)[0].item() == -1.0
    assert half.update(number([4.0]), half.init(params), **told)[0].item() == -0.5
    theirs = fo.chain(fo.sgd(0.5), fo.scale_by_polyak(max_lr=1e3))
    assert theirs.update(number([4.0]), theirs.init(params), **told)[0].item() == -2.0


def test_below_the_bound_sps_climbs_and_sps_plus_stands():
    for variant, expected in (("sps", -1.0), ("sps+", 0.0)):
        tx = fo.scale_by_polyak(f_min=2.0, variant=variant)
        assert tx.update(number([1.0]), tx.init(number([0.0])), loss=1.0)[0].item() == expected


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match="scale_by_polyak: variant must be one of 'sps', 'sps\\+', got 'sgd'"):
        fo.polyak_sgd(variant="sgd")
    with pytest.raises(ValueError, match="scale_by_polyak: max_lr must be > 0, got 0"):
        fo.polyak_sgd(max_lr=0)
    tx = fo.polyak_sgd()
    with pytest.raises(ValueError, match="scale_by_polyak: needs the loss of this step"):
        tx.update(torch.ones(1), tx.init(torch.ones(1)))
    with pytest.raises(ValueError, match="scale_by_cocob: alpha must be > 0, got 0"):
        fo.cocob(alpha=0)
    with pytest.raises(ValueError, match=r"scale_by_acprop: b2 must be in \[0, 1\), got 1"):
        fo.acprop(0.1, b2=1)
