"""Which form a step takes where nobody says: held flat or leaf by leaf, compiled or not. Sizes are measured here and nowhere else.

many       16 leaves or more: what each costs by itself, in time or in compile time, outweighs the copies of a flat step
cached     at most 8 MB: above, an eager pass over vectors costs eleven times a fused one
segments   up to 64 kB a leaf on the average: on a CPU, what looks at larger ones is slower on what is cut out of a vector
chosen     params and state up to 1 MB: in one graph on a CPU, all that a chain may do costs less than a second graph for each step
           (`benchmarks/ablations.py plans_1000 plans_30000 plans_100000`)
gathered   up to 256 kB a leaf on the average: above, gathering gradients costs more than a loop of its own, which takes longer to compile
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from funcopt.core.door.callers import warn
from funcopt.core.versions import TORCH, compiler_missing

__all__ = ["Sizes", "against_segments", "chooses_in_graph", "compiles", "flat_or_not", "gathers", "sizes"]

MANY_LEAVES = 16
CACHED_BYTES = 8 * 2**20
SEGMENT_BYTES = 64 * 2**10
GATHERED_BYTES = 256 * 2**10
CHOSEN_BYTES = 2**20
MEGABYTE = 2**20


class Sizes(NamedTuple):
    """How many leaves there are, and which of the sizes they keep within."""

    leaves: int
    bytes: int
    many: bool
    cached: bool
    segments: bool
    gathered: bool


def sizes(leaves: Sequence[Tensor]) -> Sizes:
    """The sizes of leaves, measured."""
    count, total = len(leaves), sum(x.numel() * x.element_size() for x in leaves)
    return Sizes(count, total, count >= MANY_LEAVES, total <= CACHED_BYTES, total <= SEGMENT_BYTES * count, total <= GATHERED_BYTES * count)


def flat_or_not(held: Sizes, compile: bool) -> tuple[bool, str]:
    """Whether `make_step` holds params flat, and why."""
    if not held.many:
        return False, f"{held.leaves} leaves, fewer than {MANY_LEAVES}"
    if not compile and not held.cached:
        return False, f"eager, and {held.bytes / MEGABYTE:.0f} MB are more than a cache holds ({CACHED_BYTES // MEGABYTE} MB)"
    return True, f"{held.leaves} leaves, at least {MANY_LEAVES}"


def against_segments(held: Sizes, looking: Iterable[str], device: torch.device) -> str | None:
    """Why a chain with links that look at each leaf had better stay leaf by leaf; None where it need not."""
    names = ", ".join(dict.fromkeys(looking))
    if not names or device.type != "cpu" or held.cached or held.segments:
        return None
    return f"{names} would leave a cache that holds single leaves ({held.bytes / held.leaves / 2**10:.0f} kB on the average)"


def chooses_in_graph(held: Sizes, device: torch.device) -> bool:
    """Whether a chain that plans had better run without: all of it in one graph, of which each step takes a part.

    Args:
        held: of params and state.
        device: of the params.
    """
    return device.type == "cpu" and held.bytes <= CHOSEN_BYTES


def gathers(held: Sizes, compile: bool) -> bool:
    """Whether parameters that lie apart are gathered into a vector at each step, as the torch optimizers do."""
    if held.leaves < 2:
        return False
    return held.many and held.gathered if compile else held.cached


def compiles(where: str, device: torch.device, *, best_effort: bool = True, told: bool = False) -> bool:
    """Whether steps can be compiled here; if not, whoever called the library is warned once.

    Args:
        where: who speaks.
        device: of the parameters.
        best_effort: from torch 2.6 on; else from 2.10, the first whose compiler traces optree.
        told: it has been said already.
    """
    missing = None if best_effort or TORCH >= (2, 10) else f"torch {torch.__version__} is older than 2.10"
    missing = missing or compiler_missing(device)
    if missing and not told:
        warn(f"{where}: runs eagerly, since there is no compiler here ({missing})")
    return not missing
