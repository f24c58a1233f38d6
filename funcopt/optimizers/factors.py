"""What methods with a matrix for each axis share: products along an axis and decompositions.

    gram     (G G^T)_ij = sum of G_i. G_j. over all other axes
    along    (A x)_..i.. = sum over j of A_ij x_..j..

A decomposition is worked out in every k-th step. Where Python may look at the count of steps (it then lives on the CPU),
and in compiled steps by their plan, the others do not pay for it; inside functorch transforms, and in a graph without a
plan, it is worked out in every step and the result is chosen.
"""

import math
from typing import Any

import torch
from torch import Tensor

from funcopt.core.dtypes import summing
from funcopt.core.math import entrywise
from funcopt.core.math.lengths import squarable
from funcopt.core.versions import compiling, differentiated

NEWTON_GROWTH, NEWTON_LAST = 2.25, 8  # by what a step enlarges eigenvalues that are small, and the steps that the rest takes


def wide(x: Tensor) -> Tensor:
    """In a dtype that has decompositions."""
    return x.to(summing(x.dtype))


def none(p: Tensor) -> Tensor:
    """What stands for the matrix of an axis that has none."""
    return torch.zeros(0, dtype=summing(p.dtype), device=p.device)


def gram(x: Tensor, axis: int) -> Tensor:
    """The products of the slices along an axis, [n, n]."""
    rows = x.movedim(axis, 0).reshape(x.shape[axis], -1)
    return rows @ rows.mT


def along(matrix: Tensor, x: Tensor, axis: int) -> Tensor:
    """A matrix applied to an axis."""
    if x.dim() > 1 and axis == x.dim() - 1:
        return x @ matrix.mT
    moved = x.movedim(axis, 0)
    return (matrix @ moved.reshape(moved.shape[0], -1)).reshape(moved.shape).movedim(0, axis)


def _finite(matrix: Tensor) -> Tensor:
    """What is not finite has no decomposition, and LAPACK raises; the NaN is kept where it came from."""
    return torch.where(matrix.isfinite().all(), matrix, torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device))


def eigenbasis(matrix: Tensor) -> Tensor:
    """The eigenvectors of a symmetric matrix as columns, the largest eigenvalue first."""
    return torch.linalg.eigh(_finite(matrix))[1].flip(-1).contiguous()  # LAPACK lays out columns, and a graph is made for one layout


def orthonormal(matrix: Tensor) -> Tensor:
    """The columns, made orthonormal one after the other."""
    return torch.linalg.qr(matrix)[0].contiguous()


def inverse_root(matrix: Tensor, order: int, eps: Any, ridge: float, newton: bool) -> Tensor:
    """`(matrix + eps + ridge trace)^(-1 / order)` of a positive semidefinite matrix; order a power of two.

    By its eigenvalues, or by the coupled iteration of Newton, in a number of steps that follows from `ridge`:

        M_0 = z A,   X_0 = z^(1/p) I,   z = (1 + p) / (2 |A|)
        T = ((p + 1) I - M) / p,   X <- X T,   M <- T^p M
    """
    trace = matrix.diagonal(dim1=-2, dim2=-1).sum(-1)
    floor = eps + ridge * trace
    if not newton:
        values, vectors = torch.linalg.eigh(_finite(matrix))
        powers = (values.clamp(min=0) + floor).to(values.dtype).pow(-1 / order)
        return (vectors * powers.unsqueeze(-2)) @ vectors.mT
    unit = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    a = (matrix + floor * unit).to(matrix.dtype)
    z = (1 + order) / (2 * a.diagonal(dim1=-2, dim2=-1).sum(-1))  # the trace is at least the largest eigenvalue
    m, x = z * a, z.pow(1 / order) * unit
    for _ in range(newton_steps(ridge)):
        t = ((order + 1) * unit - m) / order
        power = t
        for _ in range(order.bit_length() - 1):
            power = power @ power
        x, m = x @ t, power @ m
    return x


def newton_steps(ridge: float) -> int:
    """How many steps bring an eigenvalue of `ridge`, beside a trace of 1, to 1."""
    return math.ceil(math.log(1 / ridge, NEWTON_GROWTH)) + NEWTON_LAST


def bounded(g: Tensor, m: Tensor) -> Tensor:
    """A gradient in the dtype of the matrices beside the mean `m`, entries held where sums of their squares are numbers."""
    dtype = summing(m.dtype)
    return squarable(entrywise.at_least(g, m), dtype).to(dtype)


def undifferentiated(where: str, matrices: list[Tensor]) -> None:
    """Raises where a derivative would go through a decomposition, which has none where eigenvalues meet."""
    if not compiling() and any(differentiated(matrix) for matrix in matrices):
        raise ValueError(
            f"{where}: its decompositions cannot be differentiated through, and the derivative of a gradient reaches them; "
            "detach the gradients, or differentiate through adam in its place"
        )
