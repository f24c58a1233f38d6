"""Laws of perturbations: how the noise of a member is drawn, put on a leaf and summed into a gradient.

    eps has mean zero, is symmetric, and every element has variance one, so that one scale fits all laws

A law is configuration only. It has four methods, the interface for laws elsewhere:

    draw(key, leaf, pairs, source)  noise of the members (of the pairs) `pairs`, a range: a tensor, or a
                                    NamedTuple of tensors, with leading axis len(pairs). `key` is folded with
                                    the number of the leaf already; `leaf` gives shape, dtype and device
                                    (its values must not matter); `source` (tiles.Source) makes the numbers:
                                    source.normal(key, n, pairs, dtype, device) -> [len(pairs), n].
                                    Depends on (key, j, element), never on how the pairs are cut into chunks.
    perturb(leaf, noise, scale)     ONE member, inside vmap: leaf + scale * eps, or a mark (perturbed.py)
                                    that puts off the sum. scale: 0-dim or of the shape of the leaf, sign included.
    combine(weights, noise, leaf)   sum_j weights[j] eps_j in the shape of the leaf and the dtype of `weights`
                                    (at least float32), for one block of pairs.
    dense(leaf, noise)              eps of ONE member as a tensor of the shape of the leaf.

and these attributes:

    joint       True: all leaves that name this very law are one vector to `draw` (a 1-d stand-in of all their
                elements), and `perturb` and `combine` get the pieces: for laws with a meaning over the whole.
    separable   True: `draw_elements(key, leaf, pairs, source, start, stop)` gives a range of the flat elements
                alone, [len(pairs), stop - start]: gradients are then made tile by tile, by one rank or many.
    lazy        True: `perturb` is given the leaf in the dtype of evaluation, and its result is not cast.
    block(leaf) the number of pairs that are summed at once; it and the order of the blocks fix every rounding.
    numbers(leaf) how many numbers one pair's noise takes, for the memory budget.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from funcopt.core import check, random
from funcopt.es.noise.sources import EAGER, Source

__all__ = ["LAWS", "Custom", "Dense", "Independent", "Law", "law_of", "sparse", "sphere"]

Independent = Literal["normal", "rademacher", "binomial32"]  # what independent elements are drawn from
COLUMNS = 8192  # elements of a leaf that are summed at once
ELEMENTS = 32 * COLUMNS  # of a block: 32 pairs of a large leaf, more of a small one
DEPTH = 2048  # pairs of a block at most


class Law:
    """The interface; see the head of the file."""

    joint = False
    separable = False
    lazy = False

    def draw(self, key: Tensor, leaf: Tensor, pairs: range, source: Source = EAGER) -> Any:
        """The noise of the members (of the pairs) `pairs`; see the head of the file."""
        raise TypeError(f"es: {type(self).__name__} does not say how to draw")

    def draw_all(self, keys: Sequence[Tensor], leaves: Sequence[Tensor], pairs: range, source: Source = EAGER) -> list[Any]:
        """`draw` for several leaves, each with its key."""
        return [self.draw(key, leaf, pairs, source) for key, leaf in zip(keys, leaves, strict=True)]

    def draw_elements(self, key: Tensor, leaf: Tensor, pairs: range, source: Source, start: int, stop: int) -> Tensor:
        """The noise of the elements from `start` to `stop` alone, for laws that are separable."""
        raise TypeError(f"es: {type(self).__name__} has no noise of some elements alone")

    def dense(self, leaf: Tensor, noise: Any) -> Tensor:
        """eps of one member, of the shape of the leaf."""
        return noise

    def perturb(self, leaf: Tensor, noise: Any, scale: Tensor, out: Tensor | None = None) -> Tensor:
        """leaf + scale * eps for one member, in the dtype of the leaf; into `out` for all that it has room for, broadcast."""
        noise = self.dense(leaf, noise)
        dtype = torch.promote_types(leaf.dtype, noise.dtype)
        if out is not None:
            return torch.mul(scale.to(dtype), noise.to(dtype), out=out).add_(leaf)
        return (leaf.to(dtype) + scale.to(dtype) * noise.to(dtype)).to(leaf.dtype)

    def combine(self, weights: Tensor, noise: Any, leaf: Tensor) -> Tensor:
        """sum_j weights[j] eps_j, in the dtype of `weights`; columns of a fixed width, so that storing and redrawing round alike."""
        flat = noise.reshape(noise.shape[0], -1)
        columns = [weighted_sum(weights, flat[:, s : s + COLUMNS]) for s in range(0, flat.shape[1], COLUMNS)]
        return torch.cat(columns).reshape(noise.shape[1:]) if columns else flat.new_zeros(noise.shape[1:], dtype=weights.dtype)

    def tile(self, leaf: Tensor) -> int | None:
        """Elements of a leaf that one rank sums alone; None: all of them. The last tile may be shorter."""
        return COLUMNS if self.separable else None

    def combine_tile(self, weights: Tensor, noise: Any, leaf: Tensor, start: int, stop: int) -> Tensor:
        """Elements `start` to `stop` of `combine`, to the bit; flat."""
        return self.combine(weights, noise, leaf).reshape(-1)[start:stop]

    def block(self, leaf: Tensor) -> int:
        """How many pairs are summed at once: a number of the leaf alone."""
        return min(DEPTH, ELEMENTS // min(COLUMNS, 1 << max(0, leaf.numel() - 1).bit_length()))

    def numbers(self, leaf: Tensor) -> int:
        """How many numbers the noise of one pair takes."""
        return leaf.numel()


def weighted_sum(weights: Tensor, rows: Tensor) -> Tensor:
    """sum_j weights[j] rows[j] in the dtype of the weights; elementwise products, then one reduction of fixed shape."""
    return (weights.unsqueeze(-1) * rows.to(weights.dtype)).sum(0)


@dataclass(frozen=True)
class Dense(Law):
    """Independent elements of one of the source's kinds: "normal", "rademacher" or "binomial32".

    Example:
        >>> noise = fo.es.law_of("rademacher").draw(fo.random.key(0), torch.zeros(3), range(2))
        >>> noise.shape, noise.abs()[0]
        (torch.Size([2, 3]), tensor([1., 1., 1.]))
    """

    kind: Independent = "normal"
    separable = True

    def draw(self, key: Tensor, leaf: Tensor, pairs: range, source: Source = EAGER) -> Tensor:
        return getattr(source, self.kind)(key, leaf.numel(), pairs, leaf.dtype, leaf.device).reshape(len(pairs), *leaf.shape)

    def draw_all(self, keys: Sequence[Tensor], leaves: Sequence[Tensor], pairs: range, source: Source = EAGER) -> list[Tensor]:
        if self.kind != "normal" or len({(leaf.dtype, leaf.device) for leaf in leaves}) > 1:
            return super().draw_all(keys, leaves, pairs, source)
        noise = source.normals(keys, [leaf.numel() for leaf in leaves], pairs, leaves[0].dtype, leaves[0].device)
        return [eps.reshape(len(pairs), *leaf.shape) for eps, leaf in zip(noise, leaves, strict=True)]

    def draw_elements(self, key: Tensor, leaf: Tensor, pairs: range, source: Source, start: int, stop: int) -> Tensor:
        return getattr(source, self.kind)(key, stop - start, pairs, leaf.dtype, leaf.device, start)


@dataclass(frozen=True)
class Sphere(Law):
    """Normal noise over all leaves of this law, scaled to the norm sqrt(D)."""

    joint = True

    def draw(self, key: Tensor, leaf: Tensor, pairs: range, source: Source = EAGER) -> Tensor:
        noise = source.normal(key, leaf.numel(), pairs, leaf.dtype, leaf.device)
        return noise * (math.sqrt(leaf.numel()) / torch.linalg.vector_norm(noise, dim=1, keepdim=True))


@dataclass(frozen=True)
class Sparse(Law):
    """Normal noise on k random coordinates of all D of this law, times sqrt(D / k); zero elsewhere."""

    k: int
    joint = True

    def draw(self, key: Tensor, leaf: Tensor, pairs: range, source: Source = EAGER) -> Tensor:
        size = leaf.numel()
        if self.k > size:
            raise ValueError(f"es.sparse: k must be at most the {size} elements that are perturbed, got {self.k}")
        words = source.words(random.fold_in(key, 1), size, pairs, leaf.device)
        chosen = torch.topk(words, self.k, dim=1).indices
        values = source.normal(key, self.k, pairs, leaf.dtype, leaf.device) * math.sqrt(size / self.k)
        return torch.zeros(len(pairs), size, dtype=leaf.dtype, device=leaf.device).scatter(1, chosen, values)


@dataclass(frozen=True)
class Custom(Law):
    """Noise from a function `(key, leaf, pairs) -> [len(pairs), *leaf.shape]`: recorded noise, or a law of one's own."""

    function: Callable[[Tensor, Tensor, range], Tensor]

    def draw(self, key: Tensor, leaf: Tensor, pairs: range, source: Source = EAGER) -> Tensor:
        noise = self.function(key, leaf, pairs)
        if not isinstance(noise, Tensor) or noise.shape != (len(pairs), *leaf.shape):
            got = tuple(noise.shape) if isinstance(noise, Tensor) else type(noise).__name__
            raise ValueError(f"es: noise must return a tensor of shape {(len(pairs), *leaf.shape)}, one row for each of {pairs}, got {got}")
        return noise.to(leaf.device)


def sphere() -> Law:
    """Perturbations on the sphere: Gaussian, then scaled to the norm sqrt(D), D the elements of all leaves that name this law.

    Returns:
        A law for `noise=`.

    Example:
        >>> noise = fo.es.sphere().draw(fo.random.key(0), torch.zeros(9), range(2))
        >>> noise.square().sum(1)
        tensor([9., 9.])
    """
    return Sphere()


def sparse(k: int) -> Law:
    """Perturbations of k random coordinates for each member (each pair), of all D that name this law.

    Args:
        k: how many, >= 1 and at most D. Their noise is normal with standard
            deviation sqrt(D / k), which makes the variance of every element one.

    Returns:
        A law for `noise=`.

    Raises:
        ValueError: `k` is below 1; in a call, above D.

    Example:
        >>> noise = fo.es.sparse(2).draw(fo.random.key(0), torch.zeros(9), range(3))
        >>> (noise != 0).sum(1)
        tensor([2, 2, 2])
    """
    check.integer("es.sparse", "k", k, 1)
    return Sparse(k)


LAWS: dict[str, Law] = {**{name: Dense(name) for name in get_args(Independent)}, "sphere": Sphere()}


def law_of(noise: Any, where: str = "es.grad") -> Law:
    """The law that an entry of `noise=` names: a string, a law or a function.

    Args:
        noise: "normal", "uniform" or another name, a law, or a function `(key, leaf, pairs) -> noise`.
        where: who asks, for the errors.

    Returns:
        The law.

    Raises:
        ValueError: the name is unknown.
        TypeError: it is none of the above.

    Example:
        >>> fo.es.law_of("normal")
        Dense(kind='normal')
    """
    if isinstance(noise, Law):
        return noise
    if isinstance(noise, str):
        if noise not in LAWS:
            made = "es.low_rank(r), es.orthogonal(), es.guided(...), es.sparse(k)"
            raise ValueError(
                f"{where}: noise must be one of {', '.join(map(repr, LAWS))}, a law such as {made}, or a function, got {noise!r}"
            )
        return LAWS[noise]
    if callable(noise):
        return Custom(noise)  # pyright: ignore[reportArgumentType]
    raise TypeError(f"{where}: noise must be a name, a law or a function (key, leaf, pairs) -> noise, got {noise!r}")
