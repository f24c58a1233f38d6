"""Means, signs, norms, centres, trust ratios, NaN and sign guards: a law or a hand-worked step for each."""

import pytest
import torch
from hypothesis import given, settings, strategies as st

import funcopt as fo
from tests.helpers import assert_trees_close, gradients_at, small_params

NAN = float("nan")


def apply(tx, updates, params=None):
    return tx.update(updates, tx.init(updates), params)[0]


@settings(deadline=None, max_examples=20)
@given(decay=st.floats(0.0, 0.999), value=st.floats(-100, 100))
def test_the_mean_of_a_constant_is_the_constant_from_the_first_step(decay, value):
    mean, g = fo.ema(decay), torch.tensor([value], dtype=torch.float64)
    state = mean.init(g)
    for _ in range(3):
        result, state = mean.update(g, state)
        torch.testing.assert_close(result, g, rtol=1e-9, atol=1e-12)


def test_the_biased_mean_by_hand():
    mean = fo.ema(0.5, debias=False)
    g = torch.tensor([4.0])
    first, state = mean.update(g, mean.init(g))
    second, _ = mean.update(g, state)
    assert (first, second) == (2.0, 3.0)


def test_a_narrow_mean_is_kept_narrow_and_given_wide():
    mean = fo.ema(0.9, accumulator_dtype=torch.bfloat16)
    g = torch.tensor([1.0])
    result, state = mean.update(g, mean.init(g))
    assert result.dtype == torch.float32 and state.ema.dtype == torch.bfloat16


def test_a_sign_does_not_hide_nan():
    assert torch.equal(apply(fo.sign(), torch.tensor([-2.0, 0.0, 5.0])), torch.tensor([-1.0, 0.0, 1.0]))
    assert apply(fo.sign(), torch.tensor([NAN])).isnan()


@pytest.mark.parametrize("make", [fo.normalize, fo.normalize_by_update_norm, fo.sign])
@settings(deadline=None, max_examples=20)
@given(scale=st.floats(0.1, 1e3))
def test_what_is_normalized_does_not_depend_on_the_scale(make, scale):
    updates = gradients_at(0, small_params())
    assert_trees_close(apply(make(), fo.tree.scale(scale, updates)), apply(make(), updates), rtol=1e-4)


def test_normalized_length_and_zero():
    updates = gradients_at(0, small_params())
    torch.testing.assert_close(fo.tree.norm(apply(fo.normalize(), updates)), torch.tensor(1.0, dtype=torch.float64))
    torch.testing.assert_close(fo.tree.norm(apply(fo.normalize_by_update_norm(3.0, 0.0), updates)), torch.tensor(3.0, dtype=torch.float64))
    assert fo.tree.norm(apply(fo.normalize(), torch.zeros(2))) == 0
    assert torch.func.grad(lambda x: apply(fo.normalize(), x).sum())(torch.zeros(2)).isfinite().all()


def test_what_reaches_one_output_sums_to_zero():
    updates = apply(fo.centralize(), gradients_at(0, small_params()))
    for leaf in fo.tree.leaves(updates):
        if leaf.ndim > 1:
            torch.testing.assert_close(leaf.flatten(1).sum(1), torch.zeros(leaf.shape[0], dtype=torch.float64), rtol=0, atol=1e-12)
    assert_trees_close(apply(fo.centralize(), updates), updates)


@settings(deadline=None, max_examples=20)
@given(scale=st.floats(1e-3, 1e3), size=st.floats(1e-3, 1e3))
def test_a_trusted_step_has_the_length_of_the_leaf(scale, size):
    params, updates = fo.tree.scale(size, small_params()), gradients_at(0, small_params(), scale)
    steps = apply(fo.scale_by_trust_ratio(trust_coefficient=0.5), updates, params)
    for step, p in zip(fo.tree.leaves(steps), fo.tree.leaves(params), strict=True):
        torch.testing.assert_close(step.norm(), 0.5 * p.norm())


def test_a_leaf_at_zero_is_not_held_there():
    g = torch.tensor([3.0, 4.0])
    assert torch.equal(apply(fo.scale_by_trust_ratio(), g, torch.zeros(2)), g)
    assert torch.equal(apply(fo.scale_by_param_block_norm(0.5), g, torch.zeros(2)), 0.5 * g)
    assert torch.equal(apply(fo.scale_by_param_block_rms(0.5), g, torch.zeros(2)), 0.5 * g)


@pytest.mark.parametrize("make", [fo.scale_by_trust_ratio, fo.scale_by_param_block_norm, fo.scale_by_param_block_rms])
def test_slopes_at_zero_are_finite(make):
    slopes = torch.func.grad(lambda both: apply(make(), both[0], both[1]).sum())((torch.zeros(2), torch.zeros(2)))
    assert all(slope.isfinite().all() for slope in slopes)


def test_nan_becomes_zero_and_is_told():
    updates, state = fo.zero_nans().update({"w": torch.tensor([NAN, torch.inf]), "b": torch.ones(1)}, fo.ZeroNansState(found_nan=None))
    assert torch.equal(updates["w"], torch.tensor([0.0, torch.inf]))
    assert state.found_nan["w"] and not state.found_nan["b"]


@settings(deadline=None, max_examples=30)
@given(p=st.floats(0, 10), u=st.floats(-20, 20))
def test_params_stay_nonnegative(p, u):
    params = torch.tensor([p], dtype=torch.float64)
    after = params + apply(fo.keep_params_nonnegative(), torch.tensor([u], dtype=torch.float64), params)
    assert after == max(p + u, 0.0)


def test_conditions_hold_the_state_still():
    tx = fo.conditionally_transform(fo.trace(0.5), lambda step: step != 1)
    state, g, seen = tx.init(torch.zeros(1)), torch.ones(1), []
    for _ in range(3):
        updates, state = tx.update(g, state)
        seen.append(float(updates))
    assert seen == [1.0, 1.0, 1.5] and state.step == 3
    tx = fo.conditionally_mask(fo.trace(0.5), lambda step, *, loss, **extra: loss < 1, forward_extra_args=True)
    _, state = tx.update(g, tx.init(g), loss=torch.tensor(0.5))
    updates, state = tx.update(g, state, loss=torch.tensor(2.0))
    assert updates == 0 and state.inner_state.trace == 1


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: fo.ema(1.0), r"ema: decay must be in \[0, 1\), got 1.0"),
        (lambda: fo.normalize_by_update_norm(0.0), "normalize_by_update_norm: scale_factor must be > 0, got 0.0"),
        (lambda: fo.scale_by_trust_ratio(min_norm=-1.0), "scale_by_trust_ratio: min_norm must be >= 0, got -1.0"),
        (lambda: fo.scale_by_param_block_rms(-1.0), "scale_by_param_block_rms: min_scale must be >= 0, got -1.0"),
        (lambda: apply(fo.scale_by_trust_ratio(), torch.ones(1)), "scale_by_trust_ratio: needs the params"),
        (lambda: apply(fo.scale_by_param_block_norm(), torch.ones(1)), "scale_by_param_block_norm: needs the params"),
        (lambda: apply(fo.keep_params_nonnegative(), torch.ones(1)), "keep_params_nonnegative: needs the params"),
        (lambda: fo.conditionally_mask(fo.sgd(0.1), 3), "conditionally_mask: should_transform_fn must be a function"),
        (
            lambda: apply(fo.conditionally_mask(fo.sgd(0.1), lambda step: step), torch.ones(1)),
            "conditionally_mask: .* must return a 0-dim bool",
        ),
        (lambda: fo.stateless_with_tree_map(3), "stateless_with_tree_map: f must be a function"),
    ],
)
def test_says_what_is_wrong(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()
