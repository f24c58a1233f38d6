"""keep_params_nonnegative: no step leads below zero.

    u = -p where p + u < 0, else u

Reference: optax.keep_params_nonnegative (0.2.8).
"""

from typing import Any

import torch

from funcopt.core import EmptyState, GradientTransformation, TensorTree, check, tree

__all__ = ["keep_params_nonnegative"]


def keep_params_nonnegative() -> GradientTransformation[EmptyState]:
    """Shortens steps that would make an entry of the params negative so that they end at zero. Put it last, after `lr_scale`.

    Returns:
        A transformation that keeps shapes and dtypes, and no state.

    After a NaN:
        That entry of this step is NaN, the next is clean.

    Raises:
        ValueError: at `update`, no params are given.

    Example:
        >>> tx = fo.keep_params_nonnegative()
        >>> tx.update(torch.tensor([-2.0, -0.5]), fo.EmptyState(), torch.tensor([1.0, 1.0]))[0]
        tensor([-1.0000, -0.5000])
    """

    def update(updates: TensorTree, state: EmptyState, params: TensorTree | None = None, **extra: Any):
        check.params("keep_params_nonnegative", params)
        return tree.map(lambda u, p: torch.where(p + u < 0, -p, u).to(u.dtype), updates, params), state

    return GradientTransformation(
        lambda params: EmptyState(), update, name="keep_params_nonnegative", flattenable=True, per_leaf=True, turns=False
    )
