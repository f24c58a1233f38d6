"""A population that is not there yet: a mean, a spread and a key, from which any member can be made.

    x_i = mean + spread z_i         spread a number, a number for each element, or a matrix [D, D]
    z_i = the stream of member i of the key; of mirrored populations z_{i + P/2} = -z_i

The search space is one vector of D elements: the leaves, in the order of the tree,
each row by row. So a tree and the vector of all its elements are searched alike.
"""

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from funcopt.core import check, tree, versions
from funcopt.core.autocast import in_full_precision
from funcopt.core.protocol import TensorTree
from funcopt.es.noise.sources import EAGER, Source

__all__ = ["Generation", "Population", "dimension", "ravel", "ravel_rows", "unravel", "unravel_rows", "work_dtype"]

BLOCK = 1 << 22  # elements of noise that are held at once


def dimension(params: TensorTree) -> int:
    """D, the number of elements of all leaves."""
    return sum(math.prod(leaf.shape) for leaf in tree.leaves(params))


def work_dtype(params: TensorTree) -> torch.dtype:
    """What the arithmetic on params is done in: float64 if a leaf has it, else float32."""
    return torch.float64 if any(leaf.dtype == torch.float64 for leaf in tree.leaves(params)) else torch.float32


def ravel(params: TensorTree, dtype: torch.dtype) -> Tensor:
    """All leaves as one vector [D]."""
    parts = [leaf.reshape(-1).to(dtype) for leaf in tree.leaves(params)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def unravel(vector: Tensor, like: TensorTree) -> TensorTree:
    """The tree of a vector [D], in the shapes and dtypes of `like`."""
    return tree.map(lambda row: row[0], unravel_rows(vector.unsqueeze(0), like))


def ravel_rows(stacked: TensorTree, dtype: torch.dtype) -> Tensor:
    """A tree of [n, ...] as a matrix [n, D]."""
    parts = [leaf.reshape(leaf.shape[0], -1).to(dtype) for leaf in tree.leaves(stacked)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def unravel_rows(rows: Tensor, like: TensorTree) -> TensorTree:
    """A matrix [n, D] as a tree with the leading axis n."""
    leaves = tree.leaves(like)
    parts = torch.split(rows, [math.prod(leaf.shape) for leaf in leaves], dim=1)
    return tree.unflatten(like, [part.reshape(-1, *leaf.shape).to(leaf.dtype) for part, leaf in zip(parts, leaves, strict=True)])


@in_full_precision
def spread_out(spread: Tensor, z: Tensor) -> Tensor:
    """spread z for each row of z [n, D]."""
    return z @ spread.mT if spread.dim() == 2 else z * spread


@dataclass(frozen=True, eq=False)
class Population:
    """The members of a generation, made when they are asked for. All methods are pure.

    `torch.func.vmap` maps over the members: `vmap(objective)(population)` is the fitness of each, as with `population.stacked()`.

    Example:
        >>> search = fo.es.snes(popsize=6)
        >>> population, state = search.ask(search.init({"w": torch.zeros(2)}, 0))
        >>> fitness = torch.func.vmap(lambda params: params["w"].square().sum())(population)
        >>> torch.equal(fitness, population.stacked()["w"].square().sum(1))
        True
    """

    mean: TensorTree  # like params
    spread: Tensor  # 0-dim, [D] or [D, D]; the noise is drawn in its dtype
    key: Tensor  # [2], of this generation
    numbers: Tensor  # [P], the numbers of the members
    signs: Tensor  # [1], or [2] where the second half mirrors the first

    @property
    def popsize(self) -> int:
        """Members in a generation."""
        return self.numbers.shape[0]

    @property
    def draws(self) -> int:
        """How many rows of noise are drawn: P, or P / 2 where the second half mirrors the first."""
        return self.popsize // self.signs.shape[0]

    @in_full_precision
    def noise(self, rows: range, source: Source | None = None) -> Tensor:
        """z [len(rows), D] of these draws."""
        source = EAGER if source is None else source  # as a default in the signature it would not trace
        return source.normal(self.key, dimension(self.mean), rows, self.spread.dtype, self.spread.device)

    @in_full_precision
    def members(self, z: Tensor) -> TensorTree:
        """The parameters mean + spread z, for rows of noise [n, D]: a tree with the leading axis n."""
        return unravel_rows(ravel(self.mean, z.dtype) + spread_out(self.spread, z), self.mean)

    def stacked(self) -> TensorTree:
        """All members: each leaf of params with a leading axis P."""
        return self._all(self.noise(range(self.draws)))

    def _all(self, z: Tensor) -> TensorTree:
        return self.members(z if self.signs.shape[0] == 1 else torch.cat([z, -z]))

    def chunks(self, size: int) -> Iterator[TensorTree]:
        """The members in order, `size` at a time (the last chunk may be shorter)."""
        check.integer("es.Population.chunks", "size", size, 1)
        for start in range(0, self.popsize, size):
            yield self.members(self.rows(range(start, min(start + size, self.popsize))))

    def rows(self, members: range) -> Tensor:
        """z [len(members), D] of these members, sign included."""
        cut, half = min(max(self.draws, members.start), members.stop), self.draws
        parts = [self.noise(range(members.start, min(cut, members.stop)))] if members.start < half else []
        if cut < members.stop:
            parts.append(-self.noise(range(cut - half, members.stop - half)))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def drawn(self, source: Source | None = None) -> "Generation":
        """The population with its noise [P or P / 2, D] at hand: what `evaluator` and `tell` take in its place, to draw nothing twice."""
        return Generation(self, self.noise(range(self.draws), source))

    def member(self, i: int) -> TensorTree:
        """The parameters of member i, without the others."""
        check.integer("es.Population.member", "i", i, 0)
        if i >= self.popsize:
            raise ValueError(f"es.Population.member: i must be < {self.popsize}, the popsize, got {i}")
        return tree.map(lambda leaf: leaf[0], self.members(self.rows(range(i, i + 1))))


class Generation:
    """The noise of a told population and its weighted sums; drawn again block by block, or given.

    Weights are [P], one for each member; of mirrored pairs only the first is drawn,
    and odd sums take the difference of the two weights, even ones the sum.
    """

    def __init__(self, population: Population, given: Tensor | None = None):
        self.population = population
        self.given = given  # z [draws, D]
        self.mirrored = population.signs.shape[0] == 2
        self.dim = dimension(population.mean)

    def noise(self, rows: range) -> Tensor:
        """z [len(rows), D] of these draws."""
        return self.population.noise(rows) if self.given is None else self.given[rows.start : rows.stop]

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """(number of the first row, z [n, D]); the cut depends on D alone."""
        draws = self.population.draws
        size = max(1, BLOCK // max(self.dim, 1))
        if self.given is None and size >= draws:
            self.given = self.population.noise(range(draws))
        if self.given is not None:
            yield 0, self.given
            return
        for start in range(0, draws, size):
            yield start, self.population.noise(range(start, min(start + size, draws)))

    def odd(self, weights: Tensor) -> Tensor:
        half = self.population.draws
        return weights[:half] - weights[half:] if self.mirrored else weights

    def even(self, weights: Tensor) -> Tensor:
        half = self.population.draws
        return weights[:half] + weights[half:] if self.mirrored else weights

    def first(self, weights: Tensor) -> Tensor:
        """sum_i w_i z_i, [D]."""
        w = self.odd(weights)
        return self.summed(lambda start, z: w[start : start + z.shape[0]].to(z.dtype) @ z)

    def second(self, weights: Tensor, center: Tensor | float = 0.0) -> Tensor:
        """sum_i w_i (z_i - center)^2, [D]."""
        if isinstance(center, Tensor) and self.mirrored:
            half = self.population.draws
            plus, minus = weights[:half], weights[half:]

            def both(start: int, z: Tensor) -> Tensor:
                rows = slice(start, start + z.shape[0])
                return plus[rows].to(z.dtype) @ (z - center).square() + minus[rows].to(z.dtype) @ (z + center).square()

            return self.summed(both)
        w = self.even(weights)
        return self.summed(lambda start, z: w[start : start + z.shape[0]].to(z.dtype) @ (z - center).square())

    def outer(self, weights: Tensor, factor: Tensor | None = None) -> Tensor:
        """sum_i w_i y_i y_i^T with y = factor z, [D, D]: one matrix product, never a tensor [P, D, D]."""
        w = self.even(weights)

        def product(start: int, z: Tensor) -> Tensor:
            y = z if factor is None else z @ factor.mT
            return y.mT @ (w[start : start + z.shape[0]].to(z.dtype).unsqueeze(1) * y)

        return self.summed(product)

    def squared_norms(self) -> Tensor:
        """|z_i|^2 of each member, [P]."""
        norms = torch.cat([z.square().sum(1) for _, z in self.blocks()])
        return torch.cat([norms, norms]) if self.mirrored else norms

    def row(self, index: Tensor) -> Tensor:
        """z [D] of the member with this number, a 0-dim tensor."""
        half = self.population.draws
        number = index % half

        def pick(start: int, z: Tensor) -> Tensor:
            local = number - start
            here = (local >= 0) & (local < z.shape[0])
            return torch.where(here, z.index_select(0, local.clamp(0, z.shape[0] - 1).reshape(1))[0], 0.0)

        row = self.summed(pick)
        return torch.where(index >= half, -row, row) if self.mirrored else row

    def summed(self, part: Callable[[int, Tensor], Tensor]) -> Tensor:
        return functools.reduce(torch.add, (part(start, z) for start, z in self.blocks()))

    def stacked(self) -> TensorTree:
        """All members of the population, made of the noise that is given, or drawn."""
        return self.population.stacked() if self.given is None else self.population._all(self.given)


# To whoever maps with torch, a population is its members.
for kind in (Population, Generation):
    versions.register_node(kind, lambda population: ([population.stacked()], None), lambda parts, _: next(iter(parts)))
