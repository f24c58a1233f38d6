"""Matrices in few dimensions: the longer side stays, the shorter one is seen from `rank` directions.

    tall (rows >= columns):   G = g P,     back: G P^T          P: [columns, rank]
    wide:                     G = P^T g,   back: P G            P: [rows, rank]

The directions are the leading singular vectors of a gradient (Zhao et al. 2024, GaLore), or drawn at random (Zhu et al. 2024, APOLLO).
Nobody differentiates through them: they are numbers of the step in which they were found.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from funcopt.core import TensorTree, random, sharded, tree
from funcopt.core.dtypes import at_least_float32
from funcopt.core.math.lengths import length

FLOOR = 1e-8  # of a norm that is divided by
GROWTH = 1.01  # by how much a norm may grow from one step to the next


def is_tall(shape: torch.Size | tuple[int, ...]) -> bool:
    return shape[0] >= shape[1]


def cut(shape: torch.Size | tuple[int, ...], rank: int | None) -> tuple[int, int] | None:
    """The shape of the directions of a leaf, (shorter side, rank); None where it is no matrix, or has no more dimensions than `rank`."""
    if rank is None or len(shape) != 2 or 0 in shape or min(shape) <= rank:
        return None
    return min(shape), rank


def begun(params: TensorTree, rank: int | None) -> dict[str, TensorTree]:
    """The fields of a first state: means of what is seen, directions, and the norm of the last S; zeros, which the first step fills."""

    def few(p: Tensor, P: Tensor) -> Tensor:
        return seen(torch.zeros_like(sharded.replicated(p)), P) if cut(p.shape, rank) else torch.zeros_like(p)

    P = tree.map_plain(lambda p: sharded.zeros(cut(p.shape, rank) or [1], p), params)
    means = tree.map_plain(few, params, P)
    return {
        "mu": tree.zeros_like(means),
        "nu": tree.zeros_like(means),
        "P": P,
        "size": tree.map_plain(lambda p: tree.scalar(0.0, p), params),
    }


def in_two(f: Callable[..., tuple[Tensor, Tensor]], updates: TensorTree, *trees: TensorTree) -> tuple[TensorTree, TensorTree]:
    """`f` leaf by leaf, which gives a direction and the norm of S: a tree of directions in the dtypes of `updates`, and a tree of norms."""
    found = [f(*leaves) for leaves in zip(*map(tree.leaves, trees), strict=True)]
    directions = [u.to(g.dtype) for (u, _), g in zip(found, tree.leaves(updates), strict=True)]
    return tree.unflatten(updates, directions), tree.unflatten(updates, [size for _, size in found])


def seen(g: Tensor, P: Tensor) -> Tensor:
    """A matrix from few directions."""
    P = P.to(g.dtype)
    return g @ P if is_tall(g.shape) else P.mT @ g


def back(G: Tensor, P: Tensor, tall: bool) -> Tensor:
    """The other way."""
    P = P.to(G.dtype)
    return G @ P.mT if tall else P @ G


def leading(g: Tensor, rank: int, kept: Tensor) -> Tensor:
    """The leading singular vectors of the shorter side; what was kept where an entry of the gradient is not finite."""
    wide = at_least_float32(g.detach())
    fine = wide.isfinite().all()
    left, _, right = torch.linalg.svd(torch.where(fine, wide, 0), full_matrices=False)
    found = right[:rank].mT if is_tall(g.shape) else left[:, :rank]
    return torch.where(fine, found.to(kept.dtype), kept).clone(memory_format=torch.contiguous_format)


def drawn(key: Tensor, like: Tensor) -> Tensor:
    """Normal directions, in place of others, whose squares add up to about one."""
    normal = sharded.drawn(lambda start, count: random.normal(key, count, like.dtype, like.device, start=start), like)
    return normal / like.shape[1] ** 0.5


def lengths_along(x: Tensor, tall: bool) -> Tensor:
    """The length of each row of a tall matrix, of each column of a wide one, with an axis of length 1 in place of the other."""
    return length(x, 1 if tall else 0, keepdim=True).to(x.dtype)


def limited(size: Tensor, last: Tensor, first: Tensor) -> Tensor:
    """By what to divide so that a norm grows by at most 1 % from the last step; 1 in the first."""
    ratio = torch.where(first, 1.0, size / (last + FLOOR))
    return torch.where(ratio > GROWTH, ratio / GROWTH, 1.0)
