"""scale_by_trust_ratio: a leaf's step in proportion to the leaf.

    r = trust_coefficient * max(||p||, min_norm) / (max(||g||, min_norm) + eps)       for every leaf
    u = r g,   r = 1 where either norm is 0

Source: You et al., LARS 2017 and LAMB 2019. Reference: optax.scale_by_trust_ratio (0.2.8).
"""

from typing import Any

import torch
from torch import Tensor

from funcopt.core import EmptyState, GradientTransformation, Scalar, TensorTree, check, numerics, tree
from funcopt.core.math import entrywise
from funcopt.core.math.lengths import shrinking, taken_apart

__all__ = ["scale_by_trust_ratio"]


def scale_by_trust_ratio(min_norm: Scalar = 0.0, trust_coefficient: Scalar = 1.0, eps: Scalar = 0.0) -> GradientTransformation[EmptyState]:
    """Gives the update of every leaf the length of the leaf.

    Args:
        min_norm: floor of both norms, >= 0.
        trust_coefficient: by what to multiply, > 0.
        eps: added to the norm of the update, >= 0.

    Returns:
        A transformation that keeps shapes and dtypes, and no state.

    After a NaN:
        Its leaf of this step is NaN, the next is clean.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Example:
        >>> tx = fo.scale_by_trust_ratio()
        >>> tx.update(torch.tensor([0.0, 2.0]), fo.EmptyState(), torch.tensor([3.0, 4.0]))[0]
        tensor([0., 5.])
    """
    check.nonnegative("scale_by_trust_ratio", "min_norm", min_norm)
    check.positive("scale_by_trust_ratio", "trust_coefficient", trust_coefficient)
    check.nonnegative("scale_by_trust_ratio", "eps", eps)

    def scaled(g: Tensor, p: Tensor) -> Tensor:
        length, target = numerics.wide_safe_norm(g, min_norm), numerics.wide_safe_norm(p, min_norm)
        zero = (length == 0) | (target == 0)
        length, (power, target) = torch.where(zero, 1, length + eps), taken_apart(torch.where(zero, 1, trust_coefficient * target))
        # Divided first: the ratio of the two may be infinite where both are numbers. Of either the dtype of g may hold none.
        down, by, rest = entrywise.once(g, power * shrinking(length), length * shrinking(length), target)
        return (g * down / by * rest).to(g.dtype)

    def update(updates: TensorTree, state: EmptyState, params: TensorTree | None = None, **extra: Any):
        check.params("scale_by_trust_ratio", params)
        return tree.map(scaled, updates, params), state

    return GradientTransformation(
        lambda params: EmptyState(), update, name="scale_by_trust_ratio", leaves="complex", per_leaf=True, turns=False
    )
