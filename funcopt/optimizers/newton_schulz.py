"""Newton-Schulz: the orthogonal factor of a matrix by matrix products alone.

    X <- a X + (b A + c A^2) X,   A = X X^T,   k times

drives all singular values of X towards 1 (loosely so: with the usual coefficients into about [0.7, 1.2]).
What must hold before: no singular value above 1. Four ways to see to that:

    frobenius   X <- X / (||X||_F + eps)
    spectral    X <- X / (||X||_2 + eps)
    aol         in the first iteration, with s = rsqrt(max(row sums of |A|, eps)):   X <- diag(s) X,   A <- diag(s) A diag(s)
    schatten    in the first iteration, with s = rsqrt(max(||A||_F, 1e-8)):          X <- s X,         A <- s^2 A

Source: Jordan et al. 2024 (Muon); Ahn et al. 2025 (Dion), whose coefficients change from step to step;
Boissin et al. 2025 (almost orthogonal layers). Reference: optax.contrib (0.2.8).
"""

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from funcopt.core import moments
from funcopt.core.dtypes import at_least_float32
from funcopt.core.math.lengths import length, shrinking

Preconditioning = Literal["frobenius", "spectral", "aol", "schatten"]
PRECONDITIONINGS = get_args(Preconditioning)
Coefficients = Literal["standard", "dion"]
COEFFICIENTS: dict[Coefficients, tuple[Any, ...]] = {
    "standard": (3.4445, -4.775, 2.0315),
    "dion": (
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    ),
}
SCHATTEN_FLOOR = 1e-8
LARGE, LARGE_HALF = 2.0**20, 8.0  # entries whose squares are no trouble


def orthogonalized(x: Tensor, coefficients: list[tuple[Any, ...]], eps: float | Tensor, preconditioning: Preconditioning) -> Tensor:
    """The nearly orthogonal matrix with the singular vectors of `x`.

    Args:
        x: a matrix, or several along leading axes; floating point.
        coefficients: a, b and c for each iteration; numbers or 0-dim tensors.
        eps: keeps the first division finite.
        preconditioning: one of `PRECONDITIONINGS`.

    Returns:
        A tensor in the shape and dtype of `x`; zero where it is zero.
    """
    if x.numel() == 0:
        return x
    turned = x.shape[-2] > x.shape[-1]  # the smaller Gram matrix
    if turned:
        x = x.mT
    if preconditioning == "frobenius":
        wide = at_least_float32(x)
        size = length(x, (-2, -1), keepdim=True) + eps
        down = shrinking(size)
        x = (wide * down.to(wide.dtype) / (down * size).to(wide.dtype)).to(x.dtype)
    else:  # entries of their Gram matrix, and its largest singular value, must not overflow, and beside huge ones eps is nothing
        x = x / (x.detach().abs().amax((-2, -1), keepdim=True) / (LARGE_HALF if x.dtype == torch.float16 else LARGE)).clamp(min=1)
    if preconditioning == "spectral":  # singular values exist in float32 and float64 only
        x = x / (torch.linalg.matrix_norm(at_least_float32(x), 2, keepdim=True).to(x.dtype) + eps)
    for index, (a, b, c) in enumerate(coefficients):
        gram = x @ x.mT
        if index == 0 and preconditioning == "aol":
            s = gram.abs().sum(-1, keepdim=True).clamp(min=eps).rsqrt()
            x, gram = s * x, s * gram * s.mT
        elif index == 0 and preconditioning == "schatten":
            s = moments.safe_sqrt(gram.square().sum((-2, -1), keepdim=True)).clamp(min=SCHATTEN_FLOOR).rsqrt()
            x, gram = s * x, s.square() * gram
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.mT if turned else x
