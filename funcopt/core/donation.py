"""Donation: the results of a pure function written into the buffers it was given.

`write_back` stands at the end of the function, inside the graph, and there becomes one
pass in place; `write_late` comes after the graph, for what the compiler gets wrong.

The traps behind this, all silent (torch 2.13, CPU):

- A result that is an old leaf in another place is overwritten before it is read, and a
  clone does not help: the compiler takes it out again.
- A compiled `x.copy_(y)` into a 0-dim float64 tensor is dropped.
- A compiled `_foreach_copy_` writes one-element tensors before loops that still work
  their scalars out from the old ones: a schedule then reads the next count.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import tree
from funcopt.core.versions import compiling

__all__ = ["Late", "write_back", "write_late"]


class Late(NamedTuple):
    """What `write_back` left over."""

    positions: tuple[int, ...]  # among the leaves of `old`
    results: list[Tensor]  # their new values
    moved: bool  # some of the results are old leaves themselves


def write_back(old: Any, new: Any) -> Late:
    """Copies the leaves of `new` into their partners in `old`, all but those that `write_late` must copy after the graph.

    Returns:
        The positions of the leaves that were not written (0-dim ones, and those from which
        or to which an old leaf moves), and their results.

    Raises:
        ValueError: `new` has another number of leaves.
    """
    targets, results = tree.leaves(old), tree.leaves(new)
    if len(targets) != len(results):
        raise ValueError(f"make_step: donate=True needs a state of constant structure, got {len(results)} leaves in place of {len(targets)}")
    places = _places(targets)
    stays: set[int] = set()  # leaves that are handed on as they are: the members of a pool that do not move
    late = {position for position, target in enumerate(targets) if target.dim() == 0}
    moved = False
    for position, result in enumerate(results):
        if result is targets[position]:
            stays.add(position)
            continue
        sources = places.get(_place(result), ())
        if sources:
            moved = True
            late |= {*sources, position}
    late -= stays
    for position, (target, result) in enumerate(zip(targets, results, strict=True)):
        if position not in late and position not in stays:
            target.copy_(result)
    positions = tuple(sorted(late))
    return Late(positions, [results[position] for position in positions], moved)


def _place(x: Tensor) -> int:
    """Which memory a tensor lies in; which tensor it is, while compiling and where memory is no single piece."""
    if compiling() or type(x) is not Tensor or x.numel() == 0:
        return id(x)
    return x.untyped_storage().data_ptr()


def _places(targets: list[Tensor]) -> dict[int, tuple[int, ...]]:
    places: dict[int, tuple[int, ...]] = {}
    for position, target in enumerate(targets):
        place = _place(target)
        places[place] = (*places.get(place, ()), position)
    return places


def write_late(old: Any, late: Late, leaves: list[Tensor] | None = None) -> None:
    """Copies what `write_back` left over, eagerly.

    Args:
        old, late: what `write_back` was given and what it returned.
        leaves: those of `old`, for whoever has them at hand.
    """
    positions, results, moved = late
    if not positions:
        return
    targets = tree.leaves(old) if leaves is None else leaves
    # Only results that are old leaves can be overwritten before they are read.
    torch._foreach_copy_([targets[position] for position in positions], [result.clone() for result in results] if moved else results)
