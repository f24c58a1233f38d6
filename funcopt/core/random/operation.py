"""The words of a few counters as one operation of a graph, `funcopt::philox`.

Written out they are 160 operations on numbers for every draw, and a graph takes as long to compile as it has operations.
This one stands for them until the compiler writes its loops, where `execute/engines/philox.py` writes the formula of `philox.py` out.
"""

from collections.abc import Callable

import torch
from torch import Tensor, library

from funcopt.core import versions

__all__ = ["defined", "lowered", "serves", "words"]

lowered = False  # whether the compiler has been told the formula: else it would call Python at every step

SCHEMA = "philox(Tensor key, Tensor by, int m) -> (Tensor, Tensor, Tensor, Tensor)"
FEW = 32  # counters: of many each is worked out once and not for each of its words
Four = tuple[Tensor, Tensor, Tensor, Tensor]


def serves(key: Tensor, by: Tensor | int, m: int) -> bool:
    """Whether the words of these counters are one operation here: a few, in a graph of ours, with nobody who maps over it."""
    if not (lowered and m <= FEW and versions.compiling()) or versions.transforming() or torch.compiler.is_exporting():
        return False  # what is exported may be run where there is no funcopt
    return by.dim() == 0 and by.device == key.device and by.dtype == torch.int64 if isinstance(by, Tensor) else by < 2**63


def words(key: Tensor, by: Tensor | int, m: int) -> Four:
    """The four words, each [m], of the `m` counters that begin `by` further on in the stream of a key; where it `serves`."""
    by = by if isinstance(by, Tensor) else torch.full((), by, dtype=torch.int64, device=key.device)
    return torch.ops.funcopt.philox(key, by, m)


def defined(written_out: Callable[[Tensor, Tensor, int], Four]) -> "library.Library | None":
    """Makes the operation, which outside of the compiler is `written_out`; None on a torch on which nothing of ours is compiled."""
    if versions.TORCH < (2, 10):
        return None
    ours = library.Library("funcopt", "FRAGMENT")
    ours.define(SCHEMA)
    ours.impl("philox", written_out, "CompositeExplicitAutograd")
    library.register_fake("funcopt::philox", _shapes, lib=ours)
    return ours


def _shapes(key: Tensor, by: Tensor, m: int) -> Four:
    w0, w1, w2, w3 = (key.new_empty(m) for _ in range(4))
    return w0, w1, w2, w3
