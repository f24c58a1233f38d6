"""adaptive_grad_clip: no unit's gradient may be long beside the unit itself.

    limit = clipping * max(||p_i||, eps)
    u_i   = g_i if ||g_i|| < limit else g_i * limit / max(||g_i||, 1e-6)          for every unit i

A unit is what belongs to one output: a row of a Linear's weight, a filter of a
convolution. torch keeps outputs first, so norms are taken over all axes but 0; of a
vector or scalar, over the whole leaf. (optax's default axes are those of flax, which
keeps outputs last.)

Source: Brock et al., "High-Performance Large-Scale Image Recognition Without
Normalization", 2021. Reference: optax.adaptive_grad_clip (0.2.8).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from funcopt.core import EmptyState, GradientTransformation, Scalar, TensorTree, check, numerics, tree
from funcopt.core.math.lengths import shrinking

__all__ = ["adaptive_grad_clip", "unitwise_clip", "unitwise_norm"]

SHORTEST = 1e-6  # of a gradient that is divided by


def _axes(x: Tensor, axis: int | tuple[int, ...] | None) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(x.ndim)) if sum(size != 1 for size in x.shape) <= 1 else tuple(range(1, x.ndim))
    return (axis,) if isinstance(axis, int) else tuple(axis)


def unitwise_norm(x: Tensor, axis: int | tuple[int, ...] | None = None) -> Tensor:
    """The length of every unit of a leaf: of every row of a matrix, of every filter of a convolution, of a whole vector.

    Args:
        x: a leaf, of any rank.
        axis: the axes over which a unit extends; None: all but the first, and all of a vector.

    Returns:
        The lengths in a dtype that holds their squares, with axes of length 1 in place of those of a unit.

    Example:
        >>> fo.unitwise_norm(torch.tensor([[3.0, 4.0], [6.0, 8.0]]))
        tensor([[ 5.],
                [10.]], dtype=torch.float64)
    """
    over = _axes(x, axis)
    return numerics.wide_safe_norm(x, dim=over, keepdim=True) if over or not x.ndim else x.abs()


def unitwise_clip(g_norm: Tensor, max_norm: Tensor, grad: Tensor, div_eps: float = SHORTEST) -> Tensor:
    """A leaf whose units are at most so long.

    Args:
        g_norm: the length of every unit of `grad`, as `unitwise_norm` gives it.
        max_norm: what it may be, of the same shape.
        grad: the leaf.
        div_eps: the least length that is divided by, > 0.

    Returns:
        The leaf in its dtype; units shorter than `max_norm` as they are.

    Example:
        >>> g = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
        >>> fo.unitwise_clip(fo.unitwise_norm(g), torch.ones(2, 1), g)
        tensor([[0.6000, 0.8000],
                [0.3000, 0.4000]])
    """
    down = shrinking(g_norm)  # the share of a long gradient that stays may be too small for its dtype
    share = max_norm / (g_norm.clamp(min=div_eps) * down)
    return torch.where(g_norm < max_norm, grad, grad * down.to(grad.dtype) * share.to(grad.dtype)).to(grad.dtype)


def adaptive_grad_clip(
    clipping: Scalar, eps: Scalar = 1e-3, axis: int | tuple[int, ...] | Callable[[Tensor], int | tuple[int, ...]] | None = None
) -> GradientTransformation[EmptyState]:
    """Shortens the gradient of a unit to a share of the unit's length.

    Args:
        clipping: the share, > 0; 0.01 to 0.1 in the source; inf bounds nothing.
        eps: a unit counts as at least this long, > 0, so that zeros can grow.
        axis: over which axes a unit extends: an int, a tuple, or a function from a leaf to
            one of these; None: all but the first, and all of a vector.

    Returns:
        A transformation that keeps directions of units, shapes and dtypes, and no state.

    After a NaN:
        Its leaf of this step is NaN, the next is clean.

    Raises:
        ValueError: `clipping` or `eps` is not positive; at `update`, no params are given.

    Example:
        >>> tx = fo.adaptive_grad_clip(0.5)
        >>> params = torch.tensor([[3.0, 4.0], [6.0, 8.0]])
        >>> tx.update(torch.tensor([[0.0, 10.0], [0.0, 4.0]]), tx.init(params), params)[0]
        tensor([[0.0000, 2.5000],
                [0.0000, 4.0000]])
    """
    check.limit("adaptive_grad_clip", "clipping", clipping)
    check.positive("adaptive_grad_clip", "eps", eps)

    def clipped(g: Tensor, p: Tensor) -> Tensor:
        over = axis(p) if callable(axis) else axis
        size = unitwise_norm(p, over)
        least = torch.maximum(size, eps.to(size.dtype)) if isinstance(eps, Tensor) else size.clamp(min=eps)
        return unitwise_clip(unitwise_norm(g, _axes(p, over)), clipping * least, g)

    def update(updates: TensorTree, state: EmptyState, params: TensorTree | None = None, **extra: Any):
        check.params("adaptive_grad_clip", params)
        return tree.map(clipped, updates, params), state

    return GradientTransformation(
        lambda params: EmptyState(), update, name="adaptive_grad_clip", leaves="complex", per_leaf=True, turns=False
    )
