"""Donation of a population: new params and states of all copies written into the buffers of the old ones.

Unlike a single run's, the leaves of a population all have an axis. What is left of the
traps of donation (core/step.py) is the result that is an old leaf in another place, as
where a state moves a value on: compiled, it would be overwritten before it is read.
Which results are old leaves is seen inside `vmap`, where they are tensors of this step
alone. (Outside they are those of the caller, to whose identity a compiled step would be
bound: it would be compiled anew for every population that comes out of an exchange.)
"""

from typing import Any

import torch
from torch import Tensor

from funcopt.core import tree

__all__ = ["origins", "write_back", "write_late"]

Late = tuple[tuple[int, ...], list[Tensor]]


def origins(old: Any, new: Any) -> list[int | None]:
    """For each leaf of `new` the position in `old` of the leaf that it is, None for what was worked out."""
    places = {id(leaf): position for position, leaf in enumerate(tree.leaves(old))}
    return [places.get(id(leaf)) for leaf in tree.leaves(new)]


def write_back(old: Any, new: Any, came_from: list[int | None]) -> Late:
    """Copies the leaves of `new` into their partners in `old`; returns the positions of those that must wait, with their values."""
    targets, results = tree.leaves(old), tree.leaves(new)
    if len(targets) != len(results):
        raise ValueError(f"population.make_step: donate=True needs a state of constant structure, got {len(results)} leaves in place of {len(targets)}")
    moved = {position: source for position, source in enumerate(came_from) if source is not None and source != position}
    late = tuple(sorted({*moved, *moved.values()}))
    for position, (target, result) in enumerate(zip(targets, results, strict=True)):
        if position not in late and came_from[position] != position:
            target.copy_(result)
    return late, [results[position] for position in late]


def write_late(old: Any, late: Late) -> None:
    """Copies what `write_back` left over, after the graph."""
    positions, results = late
    if positions:
        targets = tree.leaves(old)
        torch._foreach_copy_([targets[position] for position in positions], [result.clone() for result in results])  # pyright: ignore[reportPrivateImportUsage]
