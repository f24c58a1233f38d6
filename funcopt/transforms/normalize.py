"""normalize and normalize_by_update_norm: give the whole update a length that does not depend on the gradient's.

    normalize:                  u = g / ||g||
    normalize_by_update_norm:   u = scale_factor * g / (||g|| + eps)

||g|| is that of all leaves together. Reference: optax.contrib.normalize and
optax.normalize_by_update_norm (0.2.8); of a zero gradient optax's normalize makes NaN,
ours zero.
"""

import torch

from funcopt.core import EmptyState, GradientTransformation, Scalar, TensorTree, check, moments, tree

__all__ = ["normalize", "normalize_by_update_norm"]


def normalize() -> GradientTransformation:
    """Scales the updates, taken as one vector, to length 1; zero stays zero.

    Example:
        >>> tx = fo.normalize()
        >>> tx.update({"w": torch.tensor([3.0]), "b": torch.tensor([4.0])}, fo.EmptyState())[0]
        {'w': tensor([0.6000]), 'b': tensor([0.8000])}
    """

    def update(updates: TensorTree, state: EmptyState, params=None, **extra):
        squared = tree.squared_norm(updates)
        length = moments.safe_sqrt(squared)
        length = torch.where(squared == 0, 1, length)
        return tree.map(lambda g: (g / length).to(g.dtype), updates), state

    return GradientTransformation(lambda params: EmptyState(), update, name="normalize", leafwise=True, leaves="complex")


def normalize_by_update_norm(scale_factor: Scalar = 1.0, eps: Scalar = 1e-6) -> GradientTransformation:
    """Scales the updates, taken as one vector, to about the length `scale_factor`.

    Args:
        scale_factor: the length, > 0.
        eps: added to the norm, >= 0. Gradients far shorter than it stay short.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> tx = fo.normalize_by_update_norm(scale_factor=2.0, eps=0.0)
        >>> tx.update(torch.tensor([3.0, 4.0]), fo.EmptyState())[0]
        tensor([1.2000, 1.6000])
    """
    check.positive("normalize_by_update_norm", "scale_factor", scale_factor)
    check.nonnegative("normalize_by_update_norm", "eps", eps)

    def update(updates: TensorTree, state: EmptyState, params=None, **extra):
        divisor = (moments.safe_sqrt(tree.squared_norm(updates)) + eps) / scale_factor
        return tree.map(lambda g: (g / divisor).to(g.dtype), updates), state

    return GradientTransformation(lambda params: EmptyState(), update, name="normalize_by_update_norm", leafwise=True, leaves="complex")
