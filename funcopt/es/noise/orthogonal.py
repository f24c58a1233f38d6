"""Orthogonal directions: fewer of them cover the space than of independent ones.

    [g_1 ... g_b] = Q R,  R with a positive diagonal    (g normal; b = min(block, D) pairs at a time)
    eps_j = |h_j| q_j                                   (h normal, independent of all g)

Every eps_j has the law of a normal vector; only together are they not independent.
The variance of the estimate is lower where the pairs are not few beside D: with H = D
pairs and a linear objective the estimate is nearly exact.

The pairs of a block are made orthogonal 16 at a time, in operations whose shape depends
on D alone: first against those before them, twice, then among themselves. So a pair
is the same however many are asked for, and pairs that nobody asks for are not made.

Source: Choromanski et al., "Structured Evolution with Compact Architectures for
Scalable Policy Optimization", ICML 2018 (orthogonal with Gaussian norms).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from funcopt.core import check, random
from funcopt.es.noise.distributions import Law
from funcopt.es.noise.sources import EAGER, Source

__all__ = ["orthogonal"]

STEP = 16  # pairs made orthogonal at once


@dataclass(frozen=True)
class Orthogonal(Law):
    """See `orthogonal`."""

    length: int  # pairs of a block, at most D
    joint = True

    def draw(self, key: Tensor, leaf: Tensor, pairs: range, source: Source = EAGER) -> Tensor:
        size = leaf.numel()
        dtype = torch.promote_types(leaf.dtype, torch.float32)
        length = min(self.length, size)
        parts, start = [], pairs.start
        while start < pairs.stop:
            first = start - start % length
            stop = min(pairs.stop, first + length)
            basis = self.basis(key, size, first, stop - first, length, source, dtype, leaf.device)
            parts.append(basis[start - first :])
            start = stop
        directions = torch.cat(parts) if parts else torch.empty(0, size, dtype=dtype, device=leaf.device)
        norms = source.normal(random.fold_in(key, 1), size, pairs, dtype, leaf.device).norm(dim=1, keepdim=True)
        return (directions * norms).to(leaf.dtype)

    def basis(
        self, key: Tensor, size: int, first: int, count: int, length: int, source: Source, dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        """The first `count` directions of the block of pairs that begins with pair `first`: rows of length one."""
        done: list[Tensor] = []
        for start in range(0, count, STEP):
            stop = min(start + STEP, length)
            rows = source.normal(key, size, range(first + start, first + stop), dtype, device)
            for _ in range(2):  # once leaves errors of the size of the rounding times the condition of the rows
                for before in done:
                    rows = rows - (rows @ before.mT) @ before
            q, r = torch.linalg.qr(rows.mT)
            done.append((q * torch.where(r.diagonal() < 0, -1.0, 1.0).to(dtype)).mT.contiguous())
        return torch.cat(done)[:count]


def orthogonal(block: int = 1024) -> Law:
    """Directions that are orthogonal within blocks of pairs, each as long as a normal vector would be.

    Args:
        block: pairs that are orthogonal to each other, >= 1; at most D of them are,
            D the number of elements of all leaves that name this law. A block is
            held in memory whole, block * D numbers.

    Returns:
        A law for `noise=`. The work is about 4 D b flops for the b-th pair of a block, and
        a call for some of a block's pairs makes those before them again: let a chunk
        hold a block, or keep the noise (`memory="store"`).

    Raises:
        ValueError: `block` is below 1.

    Example:
        >>> noise = fo.es.orthogonal().draw(fo.random.key(0), torch.zeros(50), range(3))
        >>> torch.allclose(noise @ noise.T, (noise @ noise.T).diagonal().diag(), atol=1e-4)
        True
    """
    check.integer("es.orthogonal", "block", block, 1)
    return Orthogonal(block)
