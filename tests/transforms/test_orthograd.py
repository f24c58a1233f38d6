"""orthograd: orthogonal to the weights, as long as the gradient, and no leaf stands still for want of a direction."""

import pytest
import torch

import funcopt as fo
from tests.helpers import gradients_at, small_params


@pytest.mark.parametrize("scale", [1e-150, 1.0, 1e150])
def test_is_orthogonal_to_the_weights_and_as_long_as_the_gradient(scale):
    params = small_params()
    g = gradients_at(1, params, scale)
    u, _ = fo.orthograd().update(g, fo.EmptyState(), params)
    for h, g_, w in zip(fo.tree.leaves(u), fo.tree.leaves(g), fo.tree.leaves(params), strict=True):
        if w.numel() == 1:
            assert torch.equal(h, g_)
            continue
        torch.testing.assert_close((h / scale).norm(), (g_ / scale).norm())
        torch.testing.assert_close(((h / scale) * w).sum(), torch.zeros((), dtype=w.dtype), rtol=0, atol=1e-12)
        x = g_ / scale
        torch.testing.assert_close(
            h / scale, (x - (w * x).sum() / w.square().sum() * w) * (x.norm() / (x - (w * x).sum() / w.square().sum() * w).norm())
        )


def test_a_gradient_along_its_leaf_is_none_and_a_leaf_of_zeros_has_no_direction():
    w = torch.tensor([1.0, -2.0, 0.3])
    assert not fo.orthograd().update(-3 * w, fo.EmptyState(), w)[0].any()
    torch.testing.assert_close(fo.orthograd().update(w, fo.EmptyState(), torch.zeros(3))[0], w)


def test_what_is_left_of_a_bfloat16_gradient_is_no_sum_of_roundings():
    w, g = torch.tensor([1.0, 2.0]).bfloat16(), torch.tensor([1.0, 2.25]).bfloat16()
    u, exact = (fo.orthograd().update(x, fo.EmptyState(), y)[0].double() for x, y in ((g, w), (g.double(), w.double())))
    torch.testing.assert_close(u, exact, rtol=2**-8, atol=0)


def test_needs_params():
    with pytest.raises(ValueError, match="orthograd: needs the params"):
        fo.orthograd().update(torch.ones(2), fo.EmptyState())
