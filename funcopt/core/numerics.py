"""Roots, norms and counters that stay finite, in value and in slope, where the plain ones do not: `fo.numerics`.

Reference: optax (0.2.8).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from funcopt.core import check

__all__ = ["power_iteration", "safe_increment", "safe_norm", "safe_root_mean_squares"]


def safe_norm(x: Tensor, min_norm: float | Tensor = 0.0, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> Tensor:
    """The l2 norm of `x`, or `min_norm` where it does not exceed that; there its slope is 0 (at 0 too, where the plain norm has none).

    Args:
        x: real or complex.
        min_norm: the floor, >= 0.
        dim: axes to reduce; None: all.
        keepdim: keep them with length 1.

    Example:
        >>> x = torch.zeros(2, requires_grad=True)
        >>> torch.autograd.grad(fo.numerics.safe_norm(x), x)
        (tensor([0., 0.]),)
    """
    return _floored_root(_squares(x).sum() if dim is None else _squares(x).sum(dim, keepdim=keepdim), min_norm)


def safe_root_mean_squares(x: Tensor, min_rms: float | Tensor = 0.0) -> Tensor:
    """The root of the mean square of all entries, or `min_rms` where it does not exceed that; there its slope is 0. Of no entries, `min_rms`.

    Example:
        >>> fo.numerics.safe_root_mean_squares(torch.tensor([3.0, 4.0]))
        tensor(3.5355)
    """
    if x.numel() == 0:
        return _floored_root(_squares(x).sum(), min_rms)
    return _floored_root(_squares(x).mean(), min_rms)


def _squares(x: Tensor) -> Tensor:
    return (x.abs() if x.is_complex() else x).square()


def _floored_root(square: Tensor, floor: float | Tensor) -> Tensor:
    low = floor.to(square) if isinstance(floor, Tensor) else torch.full((), floor, dtype=square.dtype, device=square.device)
    below = square <= low.square()
    return torch.where(below, low, torch.where(below, 1, square).sqrt())  # NaN is not below


def safe_increment(count: Tensor) -> Tensor:
    """`count + 1`, held at the largest number of its dtype.

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
        error_tolerance: on `|A v - s v| / s`.

    Returns:
        The eigenvalue, 0-dim, and the eigenvector of length 1, [n].

    Example:
        >>> value, vector = fo.numerics.power_iteration(torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
        >>> value
        tensor(2.)
    """
    check.integer("power_iteration", "num_iters", num_iters, 1)
    check.nonnegative("power_iteration", "error_tolerance", error_tolerance)
    if isinstance(matrix, Tensor):
        multiply = matrix.mv
        start = torch.cos(torch.arange(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)) if v0 is None else v0
    elif v0 is None:
        raise ValueError("power_iteration: needs v0 where the matrix is a function")
    else:
        multiply, start = matrix, v0
    v, value = start, torch.zeros((), dtype=start.dtype, device=start.device)
    running = torch.ones((), dtype=torch.bool, device=start.device)
    for _ in range(num_iters):
        unit = v / v.norm()
        product = multiply(unit)
        s = torch.dot(unit, product)
        relative = (product - s * unit).norm() / s
        v, value = torch.where(running, product, v), torch.where(running, s, value)
        running = running & (relative > error_tolerance)
    return value, v / v.norm()
