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

import torch
from torch import Tensor

from funcopt.core import EmptyState, GradientTransformation, Scalar, TensorTree, check, numerics, tree

__all__ = ["adaptive_grad_clip"]

SHORTEST = 1e-6  # of a gradient that is divided by


def adaptive_grad_clip(
    clipping: Scalar, eps: Scalar = 1e-3, axis: int | tuple[int, ...] | Callable[[Tensor], int | tuple[int, ...]] | None = None
) -> GradientTransformation:
    """Shortens the gradient of a unit to a share of the unit's length.

    Args:
        clipping: the share, > 0; 0.01 to 0.1 in the source.
        eps: a unit counts as at least this long, > 0, so that zeros can grow.
        axis: over which axes a unit extends: an int, a tuple, or a function from a leaf to
            one of these; None: all but the first, and all of a vector.

    Raises:
        ValueError: `clipping` or `eps` is not positive; at `update`, no params are given.

    Example:
        >>> tx = fo.adaptive_grad_clip(0.5)
        >>> params = torch.tensor([[3.0, 4.0], [6.0, 8.0]])
        >>> tx.update(torch.tensor([[0.0, 10.0], [0.0, 4.0]]), tx.init(params), params)[0]
        tensor([[0.0000, 2.5000],
                [0.0000, 4.0000]])
    """
    check.positive("adaptive_grad_clip", "clipping", clipping)
    check.positive("adaptive_grad_clip", "eps", eps)

    def axes(leaf: Tensor) -> tuple[int, ...]:
        if axis is None:
            return tuple(range(leaf.ndim)) if sum(size != 1 for size in leaf.shape) <= 1 else tuple(range(1, leaf.ndim))
        chosen = axis(leaf) if callable(axis) else axis
        return (chosen,) if isinstance(chosen, int) else tuple(chosen)

    def clipped(g: Tensor, p: Tensor) -> Tensor:
        over = axes(p)
        lengths = [numerics.safe_norm(x, dim=over, keepdim=True) if over or not x.ndim else x.abs() for x in (p, g)]
        limit = clipping * (torch.maximum(lengths[0], eps.to(g.dtype)) if isinstance(eps, Tensor) else lengths[0].clamp(min=eps))
        return torch.where(lengths[1] < limit, g, g * (limit / lengths[1].clamp(min=SHORTEST)).to(g.dtype)).to(g.dtype)

    def update(updates: TensorTree, state: EmptyState, params=None, **extra):
        check.params("adaptive_grad_clip", params)
        return tree.map(clipped, updates, params), state

    return GradientTransformation(lambda params: EmptyState(), update, name="adaptive_grad_clip", leaves="complex", apart=True)
