"""Norms of what a square does not hold: right in value and slope, eagerly, under vmap, in graphs and over every link that uses one."""

import math

import pytest
import torch
from hypothesis import given, strategies as st

import funcopt as fo
from funcopt.core.math.lengths import length
from tests.helpers import assert_trees_close

RANGES = {torch.float32: (-40, 38), torch.float64: (-300, 307), torch.bfloat16: (-36, 37), torch.float16: (-3, 4)}


@given(st.sampled_from(list(RANGES)), st.floats(0, 1), st.lists(st.floats(-1, 1), min_size=1, max_size=5))
def test_the_norm_scales_with_its_vector(dtype, place, entries):
    low, high = RANGES[dtype]
    scale = 10.0 ** (low + place * (high - low))
    x = (scale * torch.tensor(entries, dtype=torch.float64)).to(dtype)
    exact = math.hypot(*x.double().tolist())
    for got in (
        fo.tree.norm({"a": x[:1], "b": x[1:]}),
        fo.tree.norm(x, dtype=torch.float64),
        length(x),
        length(x[None], dim=1)[0],
        fo.numerics.safe_norm(x),
    ):
        assert got.item() == pytest.approx(
            exact,
            rel=1e-2 if got.dtype.itemsize == 2 else 1e-5,
            abs=2 * torch.finfo(got.dtype).smallest_normal * torch.finfo(got.dtype).eps,
        )


@pytest.mark.parametrize(
    "dtype, scale",
    [(torch.float32, 1e20), (torch.float32, 1e-30), (torch.float64, 1e200), (torch.float64, 1e-200), (torch.complex64, 1e25)],
)
def test_norms_have_their_slopes_where_squares_overflow(dtype, scale):
    x = torch.tensor([3.0, 4.0]).to(dtype) * scale
    for norm in (fo.tree.norm, fo.numerics.safe_norm, lambda x: fo.numerics.safe_root_mean_squares(x) * math.sqrt(2)):
        torch.testing.assert_close(torch.func.grad(norm)(x), torch.tensor([0.6, 0.8]).to(dtype))
        torch.testing.assert_close(
            torch.func.vmap(norm)(torch.stack([x, 0 * x]))[0].to(torch.float64),
            torch.tensor(5 * scale, dtype=torch.float64),
            rtol=1e-6,
            atol=0,
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64])
def test_the_slope_of_a_norm_at_zero_is_zero(dtype):
    for norm in (fo.tree.norm, fo.numerics.safe_norm, fo.numerics.safe_root_mean_squares):
        assert torch.equal(torch.func.grad(norm)(torch.zeros(3, dtype=dtype)), torch.zeros(3, dtype=dtype))


def test_ordinary_norms_of_float64_are_what_they_were_to_the_last_bit():
    x = torch.randn(100, dtype=torch.float64)
    assert fo.tree.norm(x) == x.square().sum().sqrt()


def test_what_is_not_finite_stays_so():
    assert fo.tree.norm(torch.tensor([1.0, math.inf])) == math.inf and fo.tree.norm(torch.tensor([1.0, math.nan])).isnan()
    assert (
        fo.tree.norm(torch.tensor([math.inf], dtype=torch.float64)) == math.inf
        and fo.tree.norm([torch.tensor([math.nan], dtype=torch.float64)]).isnan()
    )
    assert fo.tree.norm([]) == 0 and fo.tree.norm(torch.zeros(0, 3, dtype=torch.float64)) == 0


def test_squares_are_float64_where_that_is_asked_for():
    x = torch.tensor([3e20, 4e20])
    assert fo.tree.squared_norm(x).isinf() and fo.tree.squared_norm(x, torch.float64).item() == pytest.approx(25e40)
    assert fo.tree.vdot(x, x, torch.float64).item() == pytest.approx(25e40)


UNIT = torch.tensor([0.6, 0.8])
SCALE_FREE = {
    "clip_by_global_norm": (lambda: fo.clip_by_global_norm(1.0), UNIT),
    "clip_by_global_norm to little": (lambda: fo.clip_by_global_norm(1e-6), 1e-6 * UNIT),
    "clip_by_block_rms": (lambda: fo.clip_by_block_rms(1.0), 2**0.5 * UNIT),
    "normalize": (lambda: fo.normalize(), UNIT),
    "normalize_by_update_norm": (lambda: fo.normalize_by_update_norm(2.0), 2 * UNIT),
    "scale_by_trust_ratio": (lambda: fo.scale_by_trust_ratio(), 5 * UNIT),
    "adaptive_grad_clip": (lambda: fo.adaptive_grad_clip(0.1), 0.5 * UNIT),
    "scale_by_novograd": (lambda: fo.scale_by_novograd(), UNIT),
    "clipup": (lambda: fo.es.clipup(1.0), -UNIT),
    "dog": (lambda: fo.dog(init_step=("distance", 0.5)), -0.5 * UNIT),
    "scale_by_dowg": (lambda: fo.scale_by_dowg(0.25), 0.5 * UNIT),
    "scale_by_distance_over_gradients": (lambda: fo.scale_by_distance_over_gradients(0.5), 3 * UNIT),  # 0.5 (1 + |p|)
    "scale_by_trust_ratio beside eps": (lambda: fo.scale_by_trust_ratio(eps=1e-9), 5 * UNIT),
    "scale_by_trust_ratio above a least norm": (lambda: fo.scale_by_trust_ratio(1e-6), 5 * UNIT),
    "projection": (lambda: fo.stateless(lambda u, p: fo.projections.projection_l2_sphere(u)), UNIT),
}


@pytest.mark.parametrize("scale", [1e19, 1e20, 1e30, 5e37])
@pytest.mark.parametrize("name", SCALE_FREE)
def test_a_link_that_divides_by_a_norm_does_so_where_squares_overflow(name, scale):
    make, expected = SCALE_FREE[name]
    params, tx = torch.tensor([3.0, 4.0]), make()
    direction, _ = tx.update(scale * torch.tensor([3.0, 4.0]), tx.init(params), params)
    torch.testing.assert_close(direction, expected)
    lanes = scale * torch.tensor([[3.0, 4.0], [3.0, 4.0]])
    both = torch.func.vmap(lambda g: tx.update(g, tx.init(params), params)[0])(lanes)
    torch.testing.assert_close(both[0], expected)


@pytest.mark.parametrize("scale", [1e-40, 1e-30, 1e-25])
def test_a_gradient_whose_squares_vanish_is_normalized_too(scale):
    x, params = scale * torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.0])
    for tx, expected in ((fo.normalize(), UNIT), (fo.scale_by_trust_ratio(), 5 * UNIT), (fo.clip_by_global_norm(1e-35), 1e-35 * UNIT)):
        if scale > 1e-35 or "clip" not in tx.name:
            torch.testing.assert_close(tx.update(x, tx.init(params), params)[0], expected, rtol=1e-4, atol=0)


LONG, ONES = torch.full((4,), 3e38), torch.ones(4)  # |LONG| = 6e38, which is no float32
TOO_LONG = {
    "trust ratio": (fo.scale_by_trust_ratio, LONG, LONG, LONG),
    "trust ratio of a long leaf": (fo.scale_by_trust_ratio, 1e-3 * ONES, LONG, LONG),
    "trust ratio of a long gradient": (fo.scale_by_trust_ratio, LONG, ONES, ONES),
    "trust ratio of the longest and the shortest": (fo.scale_by_trust_ratio, 1e-42 * ONES, LONG, LONG),
    "clip": (lambda: fo.adaptive_grad_clip(0.1), LONG, LONG, 3e37 * ONES),
    "clip to a short leaf": (lambda: fo.adaptive_grad_clip(0.1), LONG, 1e-3 * ONES, 1e-4 * ONES),
    "clip rows": (lambda: fo.adaptive_grad_clip(0.1), LONG.reshape(1, 4).repeat(2, 1), torch.ones(2, 4), 0.1 * torch.ones(2, 4)),
    "norm of the leaf": (fo.scale_by_param_block_norm, 1e-3 * ONES, LONG, 6e35 * ONES),
    "largest distance": (lambda: fo.scale_by_distance_over_gradients(1e-3), ONES, LONG, 3e35 * ONES),  # 1e-3 |p| / |g|
}


@pytest.mark.parametrize("name", TOO_LONG)
def test_a_leaf_may_be_longer_than_its_dtype_holds(name):
    make, g, p, expected = TOO_LONG[name]
    tx = make()
    torch.testing.assert_close(tx.update(g, tx.init(p), p)[0], expected, rtol=2e-6, atol=0)
    both = torch.func.vmap(lambda g, p: tx.update(g, tx.init(p), p)[0])(torch.stack([g, g]), torch.stack([p, p]))
    torch.testing.assert_close(both[1], expected, rtol=2e-6, atol=0)


def test_the_largest_of_float32_is_clipped_to_the_norm():
    x = torch.full((16,), torch.finfo(torch.float32).max)  # whose norm is no float32
    torch.testing.assert_close(fo.clip_by_global_norm(1.0).update(x, fo.EmptyState())[0], torch.full((16,), 0.25))


def test_examples_are_clipped_where_their_squares_overflow():
    total, clipped = fo.per_example_global_norm_clip(torch.tensor([[3e25, 4e25], [0.0, 0.5]]), 1.0)
    assert_trees_close(total, torch.tensor([0.6, 1.3]), rtol=1e-6)
    assert clipped == 1


@pytest.mark.parametrize("dtype, scales", [(torch.float32, (1e20, 1e30)), (torch.float64, (1e20, 1e154, 1e160, 1e300))])
def test_agreement_is_a_cosine_where_squares_overflow(dtype, scales):
    policy = fo.agreement_policy(lr=0.1, gamma=0.0)
    for scale in scales:
        _, state = policy.update(scale * torch.tensor([1.0, 1.0], dtype=dtype), policy.init(torch.zeros(2, dtype=dtype)))
        for following in (1.0, scale):
            _, after = policy.update(following * torch.tensor([1.0, 0.0], dtype=dtype), state)
            assert after.r.item() == pytest.approx(2**-0.5, rel=1e-6)


@pytest.mark.parametrize("preconditioning", ["frobenius", "spectral", "aol", "schatten"])
def test_muon_is_the_same_for_gradients_of_any_scale(preconditioning):
    x = torch.tensor([[1.0, 2.0, 0.5], [-1.0, 0.3, 2.0]])
    tx = fo.scale_by_muon(preconditioning=preconditioning)
    small, large = (tx.update(scale * x, tx.init(x))[0] for scale in (1e3, 1e25))
    torch.testing.assert_close(small, large, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("preconditioning", ["frobenius", "spectral", "aol", "schatten"])
def test_muon_takes_a_matrix_whose_norm_its_dtype_does_not_hold(preconditioning):
    """Of entries of 2e38 float32 holds no norm, and divided by infinity they are zero."""
    x = torch.tensor([[1.0, 0.9, 0.8, 1.0], [-1.0, 1.0, 1.0, -0.9], [1.0, 1.0, -1.0, 1.0], [0.5, 1.0, 1.0, 1.0]])
    tx = fo.scale_by_muon(preconditioning=preconditioning)
    small, large = (tx.update(scale * x, tx.init(x))[0] for scale in (1e3, 2e38))
    torch.testing.assert_close(small, large, rtol=1e-3, atol=1e-3)


def test_norms_of_several_dtypes_hold_complex_entries_whose_magnitude_theirs_does_not():
    z = torch.tensor([3e38 + 3e38j], dtype=torch.complex64)  # |z| = 4.2e38
    for other, exact in ((torch.zeros(1, dtype=torch.float64), 3e38 * math.sqrt(2)), (torch.tensor([1e200], dtype=torch.float64), 1e200)):
        assert fo.tree.norm([z, other]).item() == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype):
    x = torch.full((1000,), 257.0).to(dtype)
    exact = x.double().sum().item()
    assert fo.tree.sum({"a": x, "b": x}).item() == pytest.approx(2 * exact, rel=1e-6)
    assert fo.tree.norm(x, 1).item() == pytest.approx(exact, rel=1e-6)
