"""Roots, norms and counters that stay finite, in value and in slope, where the plain ones do not: `fo.numerics`.

Reference: optax (0.2.8).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from funcopt.core import check, dtypes, tree
from funcopt.core.math import entrywise, lengths
from funcopt.core.protocol import Scalar, TensorTree
from funcopt.core.versions import differentiating

__all__ = ["divide", "power_iteration", "safe_increment", "safe_norm", "safe_root_mean_squares", "wide_norm", "wide_safe_norm"]


def safe_norm(x: Tensor, min_norm: float | Tensor = 0.0, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> Tensor:
    """The l2 norm of `x`, or `min_norm` where it does not exceed that; there its slope is 0 (at 0 too, where the plain norm has none).

    Args:
        x: real or complex.
        min_norm: the floor, >= 0.
        dim: axes to reduce; None: all.
        keepdim: keep them with length 1.

    Returns:
        A real tensor, 0-dim unless `dim` is given.

    Raises:
        TypeError: `keepdim` is neither True nor False.
        ValueError: `x` has no such axis, or `dim` names one twice.

    Example:
        >>> x = torch.zeros(2, requires_grad=True)
        >>> torch.autograd.grad(fo.numerics.safe_norm(x), x)
        (tensor([0., 0.]),)
    """
    return _norm("numerics.safe_norm", x, min_norm, dim, keepdim).to(dtypes.real(x.dtype))


def wide_safe_norm(x: Tensor, min_norm: float | Tensor = 0.0, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> Tensor:
    """`safe_norm` in the dtype of numbers that steer, which holds it whatever the dtype of the entries holds.

    Args:
        x: real or complex.
        min_norm: the floor, >= 0.
        dim: axes to reduce; None: all.
        keepdim: keep them with length 1.

    Returns:
        A real tensor, 0-dim unless `dim` is given, float64 where the device has it.

    Raises:
        TypeError: `keepdim` is neither True nor False.
        ValueError: `x` has no such axis, or `dim` names one twice.

    Example:
        >>> fo.numerics.wide_safe_norm(torch.full((2, 4), 3e38), dim=1)
        tensor([6.0000e+38, 6.0000e+38], dtype=torch.float64)
    """
    return _norm("numerics.wide_safe_norm", x, min_norm, dim, keepdim)


def _norm(where: str, x: Tensor, min_norm: float | Tensor, dim: int | tuple[int, ...] | None, keepdim: bool) -> Tensor:
    check.flag(where, "keepdim", keepdim)
    axes = (dim,) if isinstance(dim, int) else dim or ()
    if any(not -x.dim() <= axis < x.dim() for axis in axes) or len({axis % x.dim() for axis in axes}) < len(axes):
        raise ValueError(f"{where}: dim must be axes of a tensor of shape {tuple(x.shape)}, each once, got {dim}")
    return _floored(lengths.length(x, dim, keepdim), min_norm)


def safe_root_mean_squares(x: Tensor, min_rms: float | Tensor = 0.0) -> Tensor:
    """The root of the mean square of all entries, or `min_rms` where it is not above that; there its slope is 0. Of no entries, `min_rms`.

    Args:
        x: real or complex.
        min_rms: the floor, >= 0.

    Returns:
        A 0-dim real tensor.

    Example:
        >>> fo.numerics.safe_root_mean_squares(torch.tensor([3.0, 4.0]))
        tensor(3.5355)
    """
    return _floored(lengths.length(x) / max(1, x.numel()) ** 0.5, min_rms).to(dtypes.real(x.dtype))


def _floored(value: Tensor, floor: float | Tensor) -> Tensor:
    low = floor.to(value) if isinstance(floor, Tensor) else torch.full((), floor, dtype=value.dtype, device=value.device)
    return torch.where(value <= low, low, value)  # NaN is not below


def wide_norm(values: TensorTree) -> Tensor:
    """The l2 norm of all leaves as one vector, 0-dim in the dtype of numbers that steer, which holds it whatever that of the entries holds.

    Args:
        values: tree of tensors.

    Returns:
        A 0-dim tensor, float64 where the device has it.

    Example:
        >>> fo.numerics.wide_norm(torch.full((4,), 3e38))
        tensor(6.0000e+38, dtype=torch.float64)
    """
    return tree.norm(values, dtype=tree.scalar_dtype(tree.device(values)))


def divide(updates: TensorTree, length: Tensor, size: Scalar = 1.0) -> TensorTree:
    """`updates / length * size`, also where the dtype of the updates does not hold `length / size`.

    Args:
        updates: tree of tensors.
        length: 0-dim, > 0, such as `wide_norm(updates)`.
        size: what takes its place.

    Returns:
        A tree like `updates`.

    Example:
        >>> x = torch.full((4,), 3e38)
        >>> fo.numerics.divide(x, fo.numerics.wide_norm(x), 2.0)
        tensor([1., 1., 1., 1.])
    """
    smaller = lengths.shrinking(length)
    down, by = entrywise.once(updates, smaller, length * smaller / size)

    def divided(g: Tensor) -> Tensor:
        x = g * down
        return (x / by if differentiating(x) or by.requires_grad or x.dim() == 0 else x.div_(by)).to(g.dtype)

    return tree.map(divided, updates)


def safe_increment(count: Tensor) -> Tensor:
    """`count + 1`, held at the largest number of its dtype.

    Args:
        count: tensor of an integer or floating dtype.

    Returns:
        A tensor like `count`.

    Example:
        >>> fo.numerics.safe_increment(torch.tensor(127, dtype=torch.int8))
        tensor(127, dtype=torch.int8)
    """
    limits = torch.finfo(count.dtype) if count.is_floating_point() else torch.iinfo(count.dtype)
    return torch.where(count < limits.max, count + 1, count)


def power_iteration(
    matrix: Tensor | Callable[[Tensor], Tensor], v0: Tensor | None = None, num_iters: int = 100, error_tolerance: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """The eigenvalue of largest magnitude of a symmetric matrix, and its eigenvector.

    Args:
        matrix: [n, n], or a function from a vector [n] to its product.
        v0: [n], where to start; needed with a function. None: a fixed vector of no
            particular direction.
        num_iters: at most; all of them are computed (nothing is read on the host), and
            those after the tolerance is reached change nothing.
        error_tolerance: on `|A v - s v| / |s|`.

    Returns:
        The eigenvalue, 0-dim, and the eigenvector of length 1, [n].

    Raises:
        ValueError: `num_iters` is below 1, `error_tolerance` negative, `v0` missing with a function, or a shape is another.

    Example:
        >>> value, vector = fo.numerics.power_iteration(torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
        >>> value
        tensor(2.)
    """
    check.integer("power_iteration", "num_iters", num_iters, 1)
    check.nonnegative("power_iteration", "error_tolerance", error_tolerance)
    if isinstance(matrix, Tensor):
        if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.is_floating_point():
            got = f"{str(matrix.dtype).removeprefix('torch.')} of shape {tuple(matrix.shape)}"
            raise ValueError(f"power_iteration: matrix must be square and of floating dtype, got {got}")
        multiply = matrix.mv
        start = torch.cos(torch.arange(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)) if v0 is None else v0
    elif v0 is None:
        raise ValueError("power_iteration: needs v0 where the matrix is a function")
    else:
        multiply, start = matrix, v0
    if start.dim() != 1 or (isinstance(matrix, Tensor) and len(start) != len(matrix)):
        size = f"[{len(matrix)}]" if isinstance(matrix, Tensor) else "[n]"
        raise ValueError(f"power_iteration: v0 must be a vector {size}, got shape {tuple(start.shape)}")
    v, value = start, torch.zeros((), dtype=start.dtype, device=start.device)
    running = torch.ones((), dtype=torch.bool, device=start.device)
    for _ in range(num_iters):
        unit = v / lengths.length(v).to(v.dtype)
        product = multiply(unit)
        s = torch.dot(unit, product)
        relative = lengths.length(product - s * unit) / s.abs()
        v, value = torch.where(running, product, v), torch.where(running, s, value)
        running = running & (relative > error_tolerance)
    return value, v / lengths.length(v).to(v.dtype)
