"""Clips by entry, leaf, unit and whole: what they bound, and what they leave alone."""

import pytest
import torch
from hypothesis import given, settings, strategies as st

import funcopt as fo
from tests.helpers import assert_trees_close, assert_trees_equal, gradients_at, small_params

CLIPS = {
    "clip": lambda bound: fo.clip(bound),
    "clip_by_block_rms": lambda bound: fo.clip_by_block_rms(bound),
    "clip_by_global_norm": lambda bound: fo.clip_by_global_norm(bound),
}


def apply(tx, updates, params=None):
    return tx.update(updates, tx.init(updates), params)[0]


@pytest.mark.parametrize("name", CLIPS)
@settings(deadline=None, max_examples=20)
@given(bound=st.floats(0.01, 100.0), scale=st.floats(1e-3, 1e3))
def test_clipping_twice_is_clipping_once(name, bound, scale):
    updates = gradients_at(1, small_params(), scale)
    once = apply(CLIPS[name](bound), updates)
    assert_trees_close(apply(CLIPS[name](bound), once), once, rtol=1e-9)


@pytest.mark.parametrize("name", CLIPS)
def test_what_is_short_enough_is_left_alone(name):
    updates = gradients_at(1, small_params())
    assert_trees_equal(apply(CLIPS[name](1e6), updates), updates)


def test_a_block_is_scaled_to_the_threshold():
    updates = {"w": torch.tensor([3.0, 5.0], dtype=torch.float64), "b": torch.tensor([1e-3], dtype=torch.float64)}
    clipped = apply(fo.clip_by_block_rms(1.0), updates)
    torch.testing.assert_close(clipped["w"].square().mean(), torch.tensor(1.0, dtype=torch.float64))
    assert_trees_equal(clipped["b"], updates["b"])


def test_units_are_the_rows_of_a_linear():
    weight = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    gradient = torch.tensor([[6.0, 8.0], [0.3, 0.4]])
    clipped = apply(fo.adaptive_grad_clip(0.5, eps=0.1), gradient, weight)
    torch.testing.assert_close(clipped, torch.tensor([[1.5, 2.0], [0.03, 0.04]]))  # limits 2.5 and 0.05


def test_axes_may_be_said():
    weight, gradient = torch.ones(2, 3), torch.full((2, 3), 10.0)
    for axis, length in ((0, 2**0.5), ((0, 1), 6**0.5), (lambda leaf: 0, 2**0.5)):
        clipped = apply(fo.adaptive_grad_clip(0.1, axis=axis), gradient, weight)
        lengths = clipped.norm(dim=axis(weight) if callable(axis) else axis)
        torch.testing.assert_close(lengths, torch.full_like(lengths, 0.1 * length))


def test_bounds_may_be_tensors_that_want_a_derivative():
    updates = torch.tensor([3.0, 4.0])
    for make in (*CLIPS.values(), lambda bound: fo.adaptive_grad_clip(bound)):
        slope = torch.func.grad(lambda bound, make=make: apply(make(bound), updates, torch.ones(2)).sum())(torch.tensor(0.5))
        assert slope > 0


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: fo.clip_by_block_rms(0.0), "clip_by_block_rms: threshold must be > 0, got 0.0"),
        (lambda: fo.adaptive_grad_clip(-1.0), "adaptive_grad_clip: clipping must be > 0, got -1.0"),
        (lambda: fo.adaptive_grad_clip(0.1, eps=0.0), "adaptive_grad_clip: eps must be > 0, got 0.0"),
        (lambda: apply(fo.adaptive_grad_clip(0.1), torch.ones(1)), "adaptive_grad_clip: needs the params"),
    ],
)
def test_says_what_is_wrong(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", [*CLIPS, "adaptive_grad_clip"])
def test_an_infinite_bound_bounds_nothing(name):
    updates = gradients_at(1, small_params(), 1e3)
    unbound = getattr(fo, name)(float("inf"))
    assert_trees_equal(apply(unbound, updates, small_params()), updates)
    with pytest.raises(ValueError, match="must be > 0, got nan"):
        getattr(fo, name)(float("nan"))
