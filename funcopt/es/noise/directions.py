"""Directions E of a weight W + s E: what a product with each takes, and how E itself is built.

    linear, low rank E = A B^T    x E^T = (x B) A^T,    E[idx] = A[idx] B^T,    conv(x, E) = A conv(x, B as r filters)

Source: Sarkar et al., "Evolution Strategies at the Hyperscale", 2025, for the products
of low rank.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from funcopt.core.autocast import in_full_precision

__all__ = ["Drawn", "Entries", "Factors"]


class Entries(NamedTuple):
    """A direction E as it is."""

    E: Tensor  # like the weight
    when_compiled = 3.0  # times as many rows are taken apart; measured

    @property
    def matrix(self) -> bool:
        return True

    def times(self, x: Tensor, s: Tensor) -> Tensor:
        """s x E."""
        return _scaled(s, x @ self.E)

    def after(self, x: Tensor, s: Tensor) -> Tensor:
        """s E x."""
        return _scaled(s, self.E @ x)

    def rows(self, idx: Tensor, s: Tensor) -> Tensor:
        return _scaled(s, F.embedding(idx, self.E))

    def filtered(self, convolve: Callable[[Tensor], Tensor], spatial: tuple[int, ...], s: Tensor) -> Tensor:
        return _scaled(s, convolve(self.E))

    def whole(self, shape: torch.Size, dtype: torch.dtype | None = None) -> Tensor:
        return self.E

    @property
    def mT(self) -> "Entries":
        return Entries(self.E.mT)

    def to(self, dtype: torch.dtype) -> "Entries":
        return Entries(self.E.to(dtype))


class Factors(NamedTuple):
    """A direction E = A B^T of a weight that is a matrix, or is seen as one."""

    A: Tensor  # [..., m, r]
    B: Tensor  # [..., n, r]
    matrix: bool = True  # False: the weight has more axes than the matrix, those past the first are taken together
    when_compiled = math.inf

    def times(self, x: Tensor, s: Tensor) -> Tensor:
        """s x E."""
        return _product(_scaled(s, x @ self.A), self.B.mT)

    def after(self, x: Tensor, s: Tensor) -> Tensor:
        """s E x."""
        return _product(self.A, _scaled(s, self.B.mT @ x))

    def rows(self, idx: Tensor, s: Tensor) -> Tensor:
        return _product(_scaled(s, F.embedding(idx, self.A)), self.B.mT)

    def filtered(self, convolve: Callable[[Tensor], Tensor], spatial: tuple[int, ...], s: Tensor) -> Tensor:
        """s conv(x, E), where `convolve` takes filters [r, in, *spatial]."""
        rank = self.B.shape[-1]
        y = convolve(self.B.mT.reshape(rank, -1, *spatial))  # [batch, r, *places]
        axes = len(spatial)
        flat = y.flatten(-axes)
        return _product(self.A, _scaled(s, flat)).reshape(*y.shape[: -axes - 1], self.A.shape[0], *y.shape[-axes:])

    @in_full_precision
    def whole(self, shape: torch.Size, dtype: torch.dtype | None = None) -> Tensor:
        """E, worked out in the wider of `dtype` and that of the factors."""
        dtype = self.A.dtype if dtype is None else torch.promote_types(dtype, self.A.dtype)
        return (self.A.to(dtype) @ self.B.to(dtype).mT).reshape(shape)

    @property
    def mT(self) -> "Factors":
        return Factors(self.B, self.A, self.matrix)

    def to(self, dtype: torch.dtype) -> "Factors":
        return Factors(self.A.to(dtype), self.B.to(dtype), self.matrix)


class Drawn(NamedTuple):
    """A direction that is drawn whenever it is needed, and kept by nobody."""

    draw: Callable[[], Tensor]
    matrix: bool = False
    when_compiled = 1.0

    def whole(self, shape: torch.Size, dtype: torch.dtype | None = None) -> Tensor:
        return self.draw().reshape(shape)

    @property
    def mT(self) -> "Drawn":
        return Drawn(lambda: self.draw().mT)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """left @ right; of one column and one row elementwise, which is faster and fuses with what follows."""
    return left * right if right.shape[-2] == 1 and left.dim() > 1 else left @ right


def _scaled(s: Tensor, x: Tensor) -> Tensor:
    """s x in the dtype of x; s itself is not rounded to half precision, which would change the scale of all members alike."""
    if x.dtype in (torch.bfloat16, torch.float16):
        return (s.float() * x.float()).to(x.dtype)
    return s.to(x.dtype) * x
