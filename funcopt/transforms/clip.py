"""clip, clip_by_block_rms and clip_by_global_norm: bound every entry, every leaf, or the length of the whole update.

    clip:                 u = min(max(g, -max_delta), max_delta)
    clip_by_block_rms:    u = g / max(1, rms(g) / threshold)               for every leaf
    clip_by_global_norm:  n = ||g||,   u = g if n < max_norm else g / n * max_norm

Source: Pascanu et al. 2013; by block: Shazeer and Stern, Adafactor, 2018. Reference: optax, same names (0.2.8).
torch.nn.utils.clip_grad_norm_ divides by n + 1e-6 and so differs in the seventh digit.
"""

from typing import Any

import torch
from torch import Tensor

from funcopt.core import EmptyState, GradientTransformation, Scalar, TensorTree, check, numerics, tree

__all__ = ["clip", "clip_by_block_rms", "clip_by_global_norm"]


def clip(max_delta: Scalar) -> GradientTransformation[EmptyState]:
    """Clamps every entry to [-max_delta, max_delta]; NaN stays NaN.

    Args:
        max_delta: bound of every entry, > 0, in the unit of what passes; inf bounds nothing.

    Returns:
        A transformation that keeps shapes and dtypes, and no state.

    After a NaN:
        That entry of this step is NaN, the next is clean.

    Raises:
        ValueError: `max_delta` is not positive.

    Example:
        >>> tx = fo.clip(1.0)
        >>> tx.update(torch.tensor([3.0, -0.5]), tx.init(torch.zeros(2)))[0]
        tensor([ 1.0000, -0.5000])
    """
    check.limit("clip", "max_delta", max_delta)

    def clipped(g: Tensor) -> Tensor:
        if isinstance(max_delta, Tensor):
            return torch.minimum(torch.maximum(g, -max_delta.to(g.dtype)), max_delta.to(g.dtype))
        return g.clamp(-max_delta, max_delta)

    def update(updates: TensorTree, state: EmptyState, params: TensorTree | None = None, **extra: Any):
        return tree.map(clipped, updates), state

    return GradientTransformation(lambda params: EmptyState(), update, name="clip", flattenable=True, per_leaf=True, turns=False)


def clip_by_block_rms(threshold: Scalar) -> GradientTransformation[EmptyState]:
    """Scales every leaf down to a root mean square of at most `threshold`.

    Args:
        threshold: bound of the root mean square of every leaf, > 0, in the unit of what passes; inf bounds nothing.

    Returns:
        A transformation that keeps shapes and dtypes, and no state.

    After a NaN:
        That entry of this step is NaN, the next is clean.

    Raises:
        ValueError: `threshold` is not positive.

    Example:
        >>> tx = fo.clip_by_block_rms(1.0)
        >>> tx.update({"w": torch.tensor([3.0, 3.0]), "b": torch.tensor([0.5])}, fo.EmptyState())[0]
        {'w': tensor([1., 1.]), 'b': tensor([0.5000])}
    """
    check.limit("clip_by_block_rms", "threshold", threshold)

    def shortened(g: torch.Tensor) -> torch.Tensor:
        rms = numerics.safe_root_mean_squares(g).to(tree.scalar_dtype(g.device))
        long = rms > threshold
        return numerics.divide(g, torch.where(long, rms, 1), torch.where(long, threshold, torch.ones_like(rms)))

    def update(updates: TensorTree, state: EmptyState, params: TensorTree | None = None, **extra: Any):
        return tree.map(shortened, updates), state

    return GradientTransformation(
        lambda params: EmptyState(), update, name="clip_by_block_rms", leaves="complex", per_leaf=True, turns=False
    )


def clip_by_global_norm(max_norm: Scalar) -> GradientTransformation[EmptyState]:
    """Shortens the updates, taken as one vector, to at most `max_norm`.

    Args:
        max_norm: bound of the Euclidean length of all leaves together, > 0; inf bounds nothing.

    Returns:
        A transform that keeps the direction. A NaN anywhere makes every entry NaN; an
        infinite entry gives zeros and NaN.

    After a NaN:
        This step is NaN, the next is clean.

    Raises:
        ValueError: `max_norm` is not positive.

    Example:
        >>> tx = fo.clip_by_global_norm(1.0)
        >>> tx.update({"w": torch.tensor([3.0]), "b": torch.tensor([4.0])}, tx.init({"w": torch.zeros(1), "b": torch.zeros(1)}))[0]
        {'w': tensor([0.6000]), 'b': tensor([0.8000])}
    """
    check.limit("clip_by_global_norm", "max_norm", max_norm)

    def update(updates: TensorTree, state: EmptyState, params: TensorTree | None = None, **extra: Any):
        n = numerics.wide_norm(updates)
        short = n < max_norm
        return numerics.divide(updates, torch.where(short, 1, n), torch.where(short, torch.ones_like(n), max_norm)), state

    return GradientTransformation(
        lambda params: EmptyState(), update, name="clip_by_global_norm", flattenable=True, leaves="complex", turns=False
    )
