"""normalize and normalize_by_update_norm: give the whole update a length that does not depend on the gradient's.

    normalize:                  u = g / ||g||
    normalize_by_update_norm:   u = scale_factor * g / (||g|| + eps)

||g|| is that of all leaves together. Reference: optax.contrib.normalize and
optax.normalize_by_update_norm (0.2.8); of a zero gradient optax's normalize makes NaN,
ours zero.
"""

from typing import Any

import torch

from funcopt.core import EmptyState, GradientTransformation, Scalar, TensorTree, check, numerics

__all__ = ["normalize", "normalize_by_update_norm"]


def normalize() -> GradientTransformation[EmptyState]:
    """Scales the updates, taken as one vector, to length 1; zero stays zero.

    Returns:
        A transformation to updates of length 1 that keeps the direction, and no state.

    After a NaN:
        This step is NaN, the next is clean.

    Example:
        >>> tx = fo.normalize()
        >>> tx.update({"w": torch.tensor([3.0]), "b": torch.tensor([4.0])}, fo.EmptyState())[0]
        {'w': tensor([0.6000]), 'b': tensor([0.8000])}
    """

    def update(updates: TensorTree, state: EmptyState, params: TensorTree | None = None, **extra: Any):
        length = numerics.wide_norm(updates)
        return numerics.divide(updates, torch.where(length == 0, 1, length)), state

    return GradientTransformation(lambda params: EmptyState(), update, name="normalize", flattenable=True, leaves="complex", turns=False)


def normalize_by_update_norm(scale_factor: Scalar = 1.0, eps: Scalar = 1e-6) -> GradientTransformation[EmptyState]:
    """Scales the updates, taken as one vector, to about the length `scale_factor`.

    Args:
        scale_factor: the length, > 0.
        eps: added to the norm, >= 0. Gradients far shorter than it stay short.

    Returns:
        A transformation that keeps the direction, and no state.

    After a NaN:
        This step is NaN, the next is clean.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> tx = fo.normalize_by_update_norm(scale_factor=2.0, eps=0.0)
        >>> tx.update(torch.tensor([3.0, 4.0]), fo.EmptyState())[0]
        tensor([1.2000, 1.6000])
    """
    check.positive("normalize_by_update_norm", "scale_factor", scale_factor)
    check.nonnegative("normalize_by_update_norm", "eps", eps)

    def update(updates: TensorTree, state: EmptyState, params: TensorTree | None = None, **extra: Any):
        length = numerics.wide_norm(updates) + eps
        return numerics.divide(updates, length, scale_factor), state

    return GradientTransformation(
        lambda params: EmptyState(), update, name="normalize_by_update_norm", flattenable=True, leaves="complex", turns=False
    )
