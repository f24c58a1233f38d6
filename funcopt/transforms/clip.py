"""clip, clip_by_block_rms and clip_by_global_norm: bound every entry, every leaf, or the length of the whole update.

    clip:                 u = min(max(g, -max_delta), max_delta)
    clip_by_block_rms:    u = g / max(1, rms(g) / threshold)               for every leaf
    clip_by_global_norm:  n = ||g||,   u = g if n < max_norm else (g / n) * max_norm

Source: Pascanu et al. 2013; by block: Shazeer and Stern, Adafactor, 2018. Reference: optax, same names (0.2.8).
torch.nn.utils.clip_grad_norm_ divides by n + 1e-6 and so differs in the seventh digit.
"""

import torch

from funcopt.core import EmptyState, GradientTransformation, Scalar, TensorTree, check, numerics, tree

__all__ = ["clip", "clip_by_block_rms", "clip_by_global_norm"]


def clip(max_delta: Scalar) -> GradientTransformation:
    """Clamps every entry to [-max_delta, max_delta]; NaN stays NaN.

    Args:
        max_delta: > 0.

    Example:
        >>> tx = fo.clip(1.0)
        >>> tx.update(torch.tensor([3.0, -0.5]), tx.init(torch.zeros(2)))[0]
        tensor([ 1.0000, -0.5000])
    """
    check.positive("clip", "max_delta", max_delta)

    def update(updates: TensorTree, state: EmptyState, params=None, **extra):
        if isinstance(max_delta, torch.Tensor):
            return tree.map(lambda g: torch.minimum(torch.maximum(g, -max_delta.to(g.dtype)), max_delta.to(g.dtype)), updates), state
        return tree.map(lambda g: g.clamp(-max_delta, max_delta), updates), state

    return GradientTransformation(lambda params: EmptyState(), update, name="clip", leafwise=True)


def clip_by_block_rms(threshold: Scalar) -> GradientTransformation:
    """Scales every leaf down to a root mean square of at most `threshold`.

    Args:
        threshold: > 0.

    Example:
        >>> tx = fo.clip_by_block_rms(1.0)
        >>> tx.update({"w": torch.tensor([3.0, 3.0]), "b": torch.tensor([0.5])}, fo.EmptyState())[0]
        {'w': tensor([1., 1.]), 'b': tensor([0.5000])}
    """
    check.positive("clip_by_block_rms", "threshold", threshold)

    def shortened(g: torch.Tensor) -> torch.Tensor:
        return (g / (numerics.safe_root_mean_squares(g) / threshold).clamp(min=1)).to(g.dtype)

    def update(updates: TensorTree, state: EmptyState, params=None, **extra):
        return tree.map(shortened, updates), state

    return GradientTransformation(lambda params: EmptyState(), update, name="clip_by_block_rms", leaves="complex", apart=True)


def clip_by_global_norm(max_norm: Scalar) -> GradientTransformation:
    """Shortens the updates, taken as one vector, to at most `max_norm`.

    Args:
        max_norm: > 0.

    Returns:
        A transform that keeps the direction. A NaN anywhere makes every entry NaN; an
        infinite entry gives zeros and NaN.

    Example:
        >>> tx = fo.clip_by_global_norm(1.0)
        >>> tx.update({"w": torch.tensor([3.0]), "b": torch.tensor([4.0])}, tx.init({"w": torch.zeros(1), "b": torch.zeros(1)}))[0]
        {'w': tensor([0.6000]), 'b': tensor([0.8000])}
    """
    check.positive("clip_by_global_norm", "max_norm", max_norm)

    def update(updates: TensorTree, state: EmptyState, params=None, **extra):
        n = tree.norm(updates)
        short = n < max_norm
        return tree.map(lambda g: torch.where(short, g, (g / n.to(g.real.dtype)) * max_norm).to(g.dtype), updates), state

    return GradientTransformation(lambda params: EmptyState(), update, name="clip_by_global_norm", leafwise=True, leaves="complex")
