"""scale_by_param_block_norm and scale_by_param_block_rms: steps in units of the leaf they change.

    u = g * max(||p||, min_scale),    u = g * max(rms(p), min_scale)        for every leaf

Source: Shazeer and Stern, Adafactor, 2018. Reference: optax (0.2.8), same names.
"""

from collections.abc import Callable

from funcopt.core import EmptyState, GradientTransformation, Scalar, TensorTree, check, numerics, tree

__all__ = ["scale_by_param_block_norm", "scale_by_param_block_rms"]


def scale_by_param_block_norm(min_scale: Scalar = 1e-3) -> GradientTransformation:
    """Multiplies the update of every leaf by the norm of the leaf.

    Args:
        min_scale: the norm counts as at least this, >= 0, so that zeros can grow.

    Raises:
        ValueError: `min_scale` is negative; at `update`, no params are given.

    Example:
        >>> tx = fo.scale_by_param_block_norm()
        >>> tx.update(torch.tensor([1.0, -1.0]), fo.EmptyState(), torch.tensor([3.0, 4.0]))[0]
        tensor([ 5., -5.])
    """
    return _scaled("scale_by_param_block_norm", numerics.safe_norm, min_scale)


def scale_by_param_block_rms(min_scale: Scalar = 1e-3) -> GradientTransformation:
    """Multiplies the update of every leaf by the root mean square of the leaf.

    Args:
        min_scale: the root mean square counts as at least this, >= 0.

    Raises:
        ValueError: `min_scale` is negative; at `update`, no params are given.

    Example:
        >>> tx = fo.scale_by_param_block_rms()
        >>> tx.update(torch.tensor([1.0, -1.0]), fo.EmptyState(), torch.tensor([1.0, 7.0]))[0]
        tensor([ 5., -5.])
    """
    return _scaled("scale_by_param_block_rms", numerics.safe_root_mean_squares, min_scale)


def _scaled(where: str, size: Callable, min_scale: Scalar) -> GradientTransformation:
    check.nonnegative(where, "min_scale", min_scale)

    def update(updates: TensorTree, state: EmptyState, params=None, **extra):
        check.params(where, params)
        return tree.map(lambda g, p: g * size(p, min_scale).to(g.real.dtype), updates, params), state

    return GradientTransformation(lambda params: EmptyState(), update, name=where, leaves="complex", apart=True)
