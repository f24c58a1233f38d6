"""Low-rank perturbations: E = A B^T / sqrt(r), multiplied without being built, and summed by one matrix product.

    A ~ N(0, 1) [m, r],  B ~ N(0, 1) [n, r]                     for a leaf seen as a matrix [m, n]
    E = A B^T / sqrt(r)                                         mean 0, variance 1, excess kurtosis 6 / r
    x (W + s E)^T = x W^T + (s / sqrt(r)) (x B) A^T             and so on, see perturbed.py
    sum_j w_j E_j = [w_1 A_1 ... w_H A_H] [B_1 ... B_H]^T / sqrt(r)

Entries of E are uncorrelated but not independent. A member costs r (m + n) numbers
instead of m n, and its products r (m + n) multiplications a row beside those that
all members share.

A weight with two axes is the matrix itself, one with more (convolutions) is the matrix
[out, in * places]; with `batch_axes` the leading axes count matrices. Leaves with
fewer axes, and those with m n <= r (m + n), take normal noise.

Source: Sarkar et al., "Evolution Strategies at the Hyperscale" (EGGROLL), 2025. Their
JAX noiser returns -sqrt(P) sigma mean(u s E) where `es.grad` returns the descent
gradient 1 / (P sigma) sum(u s E): ours is theirs without the factor -sigma^2 sqrt(P).
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from funcopt.core import check, versions
from funcopt.es.noise.distributions import LAWS, Law, law_of
from funcopt.es.noise.lazy_weight import Entries, Factors, mark
from funcopt.es.noise.sources import EAGER, Source

__all__ = ["FactorNoise", "low_rank", "split"]

ELEMENTS = 1 << 22  # of the factors in a block
Auto = Literal["auto"]
ALIGNED = 16  # rows: 64 bytes of float32
TILE = 1 << 22  # elements of a matrix that are summed at once: smaller ones cost more than a product of the whole


class FactorNoise(NamedTuple):
    """The noise of some members for one leaf; 1 / sqrt(r) is in A."""

    A: Tensor  # [..., m, r]
    B: Tensor  # [..., n, r]


class View(NamedTuple):
    """A leaf seen as matrices [m, n], one for each index of the leading axes."""

    batch: tuple[int, ...]
    m: int
    n: int


@dataclass(frozen=True)
class LowRank(Law):
    """See `low_rank`."""

    rank: int
    batch_axes: int = 0
    lazy: bool | Auto = "auto"

    def view(self, leaf: Tensor) -> View | None:
        """How the leaf is a matrix; None: it is not, or has too few elements to gain."""
        batch, shape = tuple(leaf.shape[: self.batch_axes]), leaf.shape[self.batch_axes :]
        if len(shape) < 2:
            return None
        m, n = shape[0], math.prod(shape[1:])
        return View(batch, m, n) if m * n > self.rank * (m + n) else None

    def draw(self, key: Tensor, leaf: Tensor, pairs: range, source: Source = EAGER) -> Tensor | FactorNoise:
        view = self.view(leaf)
        if view is None:
            return LAWS["normal"].draw(key, leaf, pairs, source)
        ends = (*view.batch, view.m, self.rank), (*view.batch, view.n, self.rank)
        sizes = [math.prod(end) for end in ends]  # first A, then B, of one stream
        A, B = source.normal(key, sum(sizes), pairs, leaf.dtype, leaf.device).split(sizes, dim=1)
        return FactorNoise(A=A.reshape(len(pairs), *ends[0]) / math.sqrt(self.rank), B=B.reshape(len(pairs), *ends[1]))

    def dense(self, leaf: Tensor, noise: Any) -> Tensor:
        return Factors(noise.A, noise.B).whole(leaf.shape, leaf.dtype) if isinstance(noise, FactorNoise) else noise

    def perturb(self, leaf: Tensor, noise: Any, scale: Tensor) -> Tensor:
        if not isinstance(noise, FactorNoise) or self.lazy is False or scale.dim() > 0:
            return super().perturb(leaf, noise, scale)
        m, n = noise.A.shape[-2], noise.B.shape[-2]
        matrices = math.prod(leaf.shape[: self.batch_axes])
        # In eager mode a product costs r (m + n) element operations a row, and building W + s E costs r m n once.
        limit = math.inf if self.lazy is True else matrices * m * n / (m + n)
        return mark(leaf, scale, Factors(noise.A, noise.B, leaf.dim() == self.batch_axes + 2), limit)

    def combine(self, weights: Tensor, noise: Any, leaf: Tensor) -> Tensor:
        if not isinstance(noise, FactorNoise):
            return LAWS["normal"].combine(weights, noise, leaf)
        A, B = (stacked(factor.to(weights.dtype)) for factor in (noise.A, noise.B))
        weights, width = weights.repeat_interleave(self.rank), self.tile(leaf)
        if width is None:
            return ((A * weights) @ B.mT).reshape(leaf.shape)
        parts = A.split(width // B.shape[0])
        if versions.transforming() or versions.compiling():
            return torch.cat([(rows * weights) @ B.mT for rows in parts]).reshape(leaf.shape)
        whole = weights.new_empty(A.shape[0], B.shape[0])  # written in place: putting parts together costs as much as their products
        for rows, place in zip(parts, whole.split(width // B.shape[0]), strict=True):
            torch.mm(rows * weights, B.mT, out=place)
        return whole.reshape(leaf.shape)

    def tile(self, leaf: Tensor) -> int | None:
        view = self.view(leaf)
        if view is None or view.batch or view.m * view.n <= TILE:
            return None
        # whole rows; each tile begins where a product rounds as it does in a tensor of its own
        return max(1, TILE // view.n // ALIGNED) * ALIGNED * view.n

    def combine_tile(self, weights: Tensor, noise: Any, leaf: Tensor, start: int, stop: int) -> Tensor:
        n = noise.B.shape[-2]
        A, B = (stacked(factor.to(weights.dtype)) for factor in (noise.A[:, start // n : stop // n], noise.B))
        return ((A * weights.repeat_interleave(self.rank)) @ B.mT).reshape(-1)

    def block(self, leaf: Tensor) -> int:
        view = self.view(leaf)
        if view is None:
            return LAWS["normal"].block(leaf)
        return max(32, min(2048, ELEMENTS // self.numbers(leaf)))

    def numbers(self, leaf: Tensor) -> int:
        view = self.view(leaf)
        return leaf.numel() if view is None else math.prod(view.batch) * (view.m + view.n) * self.rank


def stacked(factor: Tensor) -> Tensor:
    """Factors [H, ..., m, r] of a block of members side by side: [..., m, H r]."""
    return factor.movedim(0, -2).flatten(-2)


@dataclass(frozen=True)
class Split(Law):
    """See `split`."""

    inner: Law
    lazy: bool | Auto = "auto"

    @property
    def joint(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.joint

    @property
    def separable(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.separable

    def draw(self, key: Tensor, leaf: Tensor, pairs: range, source: Source = EAGER) -> Any:
        return self.inner.draw(key, leaf, pairs, source)

    def draw_elements(self, key: Tensor, leaf: Tensor, pairs: range, source: Source, start: int, stop: int) -> Tensor:
        return self.inner.draw_elements(key, leaf, pairs, source, start, stop)  # pyright: ignore[reportAttributeAccessIssue]

    def dense(self, leaf: Tensor, noise: Any) -> Tensor:
        return self.inner.dense(leaf, noise)

    def perturb(self, leaf: Tensor, noise: Any, scale: Tensor) -> Tensor:
        if leaf.dim() < 2 or scale.dim() > 0:
            return self.inner.perturb(leaf, noise, scale)
        m, n = leaf.shape[0], leaf[0].numel()
        # Measured in eager mode: from here on the second product costs more than the copy that it saves.
        limit = math.inf if self.lazy is True else m * n / (3 * (m + n))
        return mark(leaf, scale, Entries(self.inner.dense(leaf, noise)), limit)

    def combine(self, weights: Tensor, noise: Any, leaf: Tensor) -> Tensor:
        return self.inner.combine(weights, noise, leaf)

    def tile(self, leaf: Tensor) -> int | None:
        return self.inner.tile(leaf)

    def combine_tile(self, weights: Tensor, noise: Any, leaf: Tensor, start: int, stop: int) -> Tensor:
        return self.inner.combine_tile(weights, noise, leaf, start, stop)

    def block(self, leaf: Tensor) -> int:
        return self.inner.block(leaf)

    def numbers(self, leaf: Tensor) -> int:
        return self.inner.numbers(leaf)


def low_rank(rank: int = 1, *, batch_axes: int = 0, lazy: bool | Auto = "auto") -> Law:
    """Perturbations of low rank (EGGROLL), for models whose perturbed copies cost too much.

    Args:
        rank: r >= 1. The gradient has rank up to P r / 2 all the same; 1 is as good an
            estimate as dense noise and the cheapest.
        batch_axes: leading axes of a leaf that count matrices, for experts kept as
            [experts, m, n]; 0: a leaf with more than two axes is a convolution
            [out, in, *places]. Give leaves their own law by a tree of laws.
        lazy: True: linear maps, matrix products, embeddings and convolutions (with
            groups=1) never build W + s E. False: it is built at once. "auto": not
            built in compiled code; in eager mode built where it is cheaper, for
            inputs of more than m n / (m + n) rows a member. Other functions of a weight
            (einsum, slices, arithmetic, attention), products under `torch.autocast` and
            whatever reads it below Python (an inner `torch.func.grad`, `torch.jit.script`)
            build it in any case. The results are the same.

    Returns:
        A law for `noise=`. `sigma` must be a number or one number for each leaf to
        stay lazy.

    Raises:
        ValueError: an argument out of range.

    Example:
        >>> law = fo.es.low_rank(2)
        >>> noise = law.draw(fo.random.key(0), torch.zeros(30, 20), range(4))
        >>> noise.A.shape, noise.B.shape
        (torch.Size([4, 30, 2]), torch.Size([4, 20, 2]))
        >>> law.combine(torch.ones(4), noise, torch.zeros(30, 20)).shape
        torch.Size([30, 20])
    """
    check.integer("es.low_rank", "rank", rank, 1)
    check.integer("es.low_rank", "batch_axes", batch_axes, 0)
    check.choice("es.low_rank", "lazy", lazy, (True, False, *get_args(Auto)))
    return LowRank(rank, batch_axes, lazy)


def split(noise: Any = "normal", *, lazy: Literal[True] | Auto = "auto") -> Law:
    """Dense perturbations whose products are taken apart: x (W + s E)^T = x W^T + s x E^T.

    No perturbed copy is written, the first product is one for all members, and E is
    read once for both members of a pair; but there are twice the multiplications.
    Faster where a member has few rows of input.

    Args:
        noise: a dense law, by name or itself.
        lazy: True: always taken apart. "auto": for inputs of at most m n / (3 (m + n)) rows a
            member, in compiled code for three times as many.

    Returns:
        A law for `noise=`.

    Raises:
        ValueError: `lazy` is neither True nor "auto"; `noise` is low-rank or taken apart already.

    Example:
        >>> grad = fo.es.grad(lambda w, x: (x @ w).square().sum(), popsize=8, sigma=0.1, noise=fo.es.split())
        >>> grads, info = grad(torch.ones(3, 2), torch.ones(1, 3), key=0)
        >>> grads.shape
        torch.Size([3, 2])
    """
    check.choice("es.split", "lazy", lazy, (True, *get_args(Auto)))
    inner = law_of(noise, "es.split")
    if isinstance(inner, (LowRank, Split)):
        raise ValueError(f"es.split: noise must be a dense law, which low-rank laws and es.split() itself are not, got {inner}")
    return Split(inner, lazy)
