"""Donation: the results of a pure function written into the buffers it was given.

`write_back` stands at the end of the function, inside the graph, and there becomes one
pass in place; `write_late` comes after the graph, for what the compiler gets wrong. What
they write goes through `write`, and so does every other step that is taken in place.

The traps behind this, all silent (torch 2.13, CPU); tests/execute/test_donation.py has each:

- A result that is an old leaf in another place, a view of one or a copy of one is read
  after that leaf was overwritten: a compiler takes copies out. It does not take out
  `maximum(x, x)`, which is a copy of any x, NaN and the sign of zero included; execute/engines/passes/read_before_write.py
  puts one where a copy was taken out.
- A compiled `x.copy_(y)` into a 0-dim float64 tensor is dropped by the second trace that execute/engines/one_trace.py spares.
- A compiled `_foreach_copy_` writes one-element tensors before loops that still work
  their scalars out from the old ones: a schedule then reads the next count.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import tree
from funcopt.core.versions import compiling, foreach_add_, foreach_copy_

__all__ = ["Late", "origins", "write", "write_back", "write_late", "write_leaves"]

PLAIN = {Tensor, torch.nn.Parameter}  # what torch works on many at once; others (a DTensor) have a `copy_` of their own


class Late(NamedTuple):
    """What `write_back` left over."""

    positions: tuple[int, ...] = ()  # among the leaves of `old`
    targets: tuple[Tensor, ...] = ()  # these leaves; a graph hands its arguments on without a look at them
    results: tuple[Tensor, ...] = ()  # their new values, which share no memory with `old`


def write(targets: Sequence[Tensor], values: Sequence[Tensor], *, add: bool = False, in_graph: bool | None = None) -> None:
    """Copies values into tensors, or adds them to plain ones of their dtype: where every step of this library is written.

    All in one call, but in a graph (None: asks whether this is one), of which a copy of many tensors is made too early, and into tensors
    of other classes.
    """
    if add:
        foreach_add_(list(targets), list(values))
    elif (compiling() if in_graph is None else in_graph) or not PLAIN.issuperset(map(type, targets)):
        for target, value in zip(targets, values, strict=True):
            target.copy_(value)
    elif targets:
        foreach_copy_(list(targets), list(values))


def origins(old: Any, new: Any) -> list[int | None]:
    """For each leaf of `new` the position in `old` of the leaf that it is, None for what was worked out.

    Under `vmap`, where leaves are tensors of this step alone. (Outside they are those of the caller, to whose
    identity a compiled step would be bound: it would be compiled anew for every population that comes out of an exchange.)
    """
    places = {id(leaf): position for position, leaf in enumerate(tree.leaves(old))}
    return [places.get(id(leaf)) for leaf in tree.leaves(new)]


def write_back(old: Any, new: Any, came_from: Sequence[int | None] | None = None, *, where: str = "make_step") -> Late:
    """Copies the leaves of `new` into their partners in `old`, all but those that `write_late` must copy after the graph.

    Args:
        old: a tree of tensors.
        new: a tree of as many.
        came_from: the `origins` of the results; None: by identity.
        where: who speaks in errors.

    Returns:
        The leaves that were not written (0-dim ones, in a graph), their positions and their results.

    Raises:
        ValueError: `new` has another number of leaves.
    """
    return write_leaves(tree.leaves(old), tree.leaves(new), came_from, where=where)


def write_leaves(targets: list[Tensor], results: list[Tensor], came_from: Sequence[int | None] | None = None, *, where: str) -> Late:
    """`write_back` of leaves."""
    if len(targets) != len(results):
        raise ValueError(f"{where}: donate=True needs a state of constant structure, got {len(results)} leaves in place of {len(targets)}")
    # Leaves that are handed on as they are stay: the members of a pool that do not move.
    if came_from is None:
        moving = [position for position, (target, result) in enumerate(zip(targets, results, strict=True)) if result is not target]
    else:
        moving = [position for position, source in enumerate(came_from) if source != position]
    # All results first, then all copies. (The compiler takes out the clones that are not needed.)
    if not compiling():
        # The memory in which each lies; the tensor itself, where that is not one piece.
        both = (*targets, *results)
        memories = [x.untyped_storage().data_ptr() if type(x) is Tensor and x.numel() else id(x) for x in both]
        taken, own = set(memories[: len(targets)]), memories[len(targets) :]
        fresh = [results[position].clone() if own[position] in taken else results[position] for position in moving]
        write([targets[position] for position in moving], fresh, in_graph=False)
        return Late()
    fresh = [results[position].clone() for position in moving]
    late: list[tuple[int, Tensor, Tensor]] = []
    now: list[tuple[Tensor, Tensor]] = []
    for position, result in zip(moving, fresh, strict=True):
        if targets[position].dim() == 0:
            late.append((position, targets[position], _copied(result)))
        else:
            now.append((targets[position], result))
    write([target for target, _ in now], [result for _, result in now], in_graph=True)
    return Late(*zip(*late, strict=True)) if late else Late()


def _copied(x: Tensor) -> Tensor:
    """A copy that the compiler leaves where it stands."""
    if x.is_complex():
        parts = torch.view_as_real(x.resolve_conj())
        return torch.view_as_complex(torch.maximum(parts, parts))
    return torch.maximum(x, x)


def write_late(late: Late) -> None:
    """Copies what `write_back` left over, eagerly."""
    write(late.targets, late.results)
