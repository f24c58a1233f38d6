"""scale_by_param_block_norm and scale_by_param_block_rms: steps in units of the leaf they change.

    u = g * max(||p||, min_scale),    u = g * max(rms(p), min_scale)        for every leaf

Source: Shazeer and Stern, Adafactor, 2018. Reference: optax (0.2.8), same names.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from funcopt.core import EmptyState, GradientTransformation, Scalar, TensorTree, check, numerics, tree
from funcopt.core.math.lengths import taken_apart

__all__ = ["scale_by_param_block_norm", "scale_by_param_block_rms"]


def scale_by_param_block_norm(min_scale: Scalar = 1e-3) -> GradientTransformation:
    """Multiplies the update of every leaf by the norm of the leaf.

    Args:
        min_scale: the norm counts as at least this, >= 0, so that zeros can grow.

    Returns:
        A transformation that keeps shapes and dtypes, and no state.

    After a NaN:
        That entry of this step is NaN, the next is clean.

    Raises:
        ValueError: `min_scale` is negative; at `update`, no params are given.

    Example:
        >>> tx = fo.scale_by_param_block_norm()
        >>> tx.update(torch.tensor([1.0, -1.0]), fo.EmptyState(), torch.tensor([3.0, 4.0]))[0]
        tensor([ 5., -5.])
    """
    return _scaled("scale_by_param_block_norm", numerics.wide_safe_norm, min_scale)


def scale_by_param_block_rms(min_scale: Scalar = 1e-3) -> GradientTransformation:
    """Multiplies the update of every leaf by the root mean square of the leaf.

    Args:
        min_scale: the root mean square counts as at least this, >= 0.

    Returns:
        A transformation that keeps shapes and dtypes, and no state.

    After a NaN:
        That entry of this step is NaN, the next is clean.

    Raises:
        ValueError: `min_scale` is negative; at `update`, no params are given.

    Example:
        >>> tx = fo.scale_by_param_block_rms()
        >>> tx.update(torch.tensor([1.0, -1.0]), fo.EmptyState(), torch.tensor([1.0, 7.0]))[0]
        tensor([ 5., -5.])
    """
    return _scaled("scale_by_param_block_rms", numerics.safe_root_mean_squares, min_scale)


def _scaled(where: str, size: Callable[..., Any], min_scale: Scalar) -> GradientTransformation[EmptyState]:
    check.nonnegative(where, "min_scale", min_scale)

    def scaled(g: Tensor, p: Tensor) -> Tensor:
        power, rest = taken_apart(size(p, min_scale))  # the dtype of g may not hold it
        return g * power.to(g.real.dtype) * rest.to(g.real.dtype)

    def update(updates: TensorTree, state: EmptyState, params: TensorTree | None = None, **extra: Any):
        check.params(where, params)
        return tree.map(scaled, updates, params), state

    return GradientTransformation(lambda params: EmptyState(), update, name=where, leaves="complex", per_leaf=True, turns=False)
