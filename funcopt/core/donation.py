"""Donation: the results of a pure function written into the buffers it was given.

`write_back` stands at the end of the function, inside the graph, and there becomes one
pass in place; `write_late` comes after the graph, for what the compiler gets wrong.

The traps behind this, all silent (torch 2.13, CPU); tests/core/test_donation.py has each:

- A result that is an old leaf in another place, a view of one or a copy of one is read
  after that leaf was overwritten: a compiler takes copies out. It does not take out
  `maximum(x, x)`, which is a copy of any x, NaN and the sign of zero included; core/readfirst.py
  puts one where a copy was taken out.
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

    positions: tuple[int, ...] = ()  # among the leaves of `old`
    targets: tuple[Tensor, ...] = ()  # these leaves; a graph hands its arguments on without a look at them
    results: tuple[Tensor, ...] = ()  # their new values, which share no memory with `old`


def write_back(old: Any, new: Any) -> Late:
    """Copies the leaves of `new` into their partners in `old`, all but those that `write_late` must copy after the graph.

    Returns:
        The leaves that were not written (0-dim ones, in a graph), their positions and their results.

    Raises:
        ValueError: `new` has another number of leaves.
    """
    targets, results = tree.leaves(old), tree.leaves(new)
    if len(targets) != len(results):
        raise ValueError(f"make_step: donate=True needs a state of constant structure, got {len(results)} leaves in place of {len(targets)}")
    # Leaves that are handed on as they are stay: the members of a pool that do not move.
    moving = [position for position, (target, result) in enumerate(zip(targets, results, strict=True)) if result is not target]
    in_graph = compiling()
    taken = set() if in_graph else {_memory(target) for target in targets}
    # All results first, then all copies. (The compiler takes out the clones that are not needed.)
    fresh = [results[position].clone() if in_graph or _memory(results[position]) in taken else results[position] for position in moving]
    late = []
    for position, result in zip(moving, fresh, strict=True):
        if in_graph and targets[position].dim() == 0:
            late.append((position, targets[position], _copied(result)))
        else:
            targets[position].copy_(result)
    return Late(*zip(*late, strict=True)) if late else Late()


def _copied(x: Tensor) -> Tensor:
    """A copy that the compiler leaves where it stands."""
    if x.is_complex():
        parts = torch.view_as_real(x.resolve_conj())
        return torch.view_as_complex(torch.maximum(parts, parts))
    return torch.maximum(x, x)


def _memory(x: Tensor) -> int:
    """The memory in which a tensor lies; the tensor itself, where that is not one piece."""
    return x.untyped_storage().data_ptr() if type(x) is Tensor and x.numel() else id(x)


def write_late(late: Late) -> None:
    """Copies what `write_back` left over, eagerly."""
    if late.targets:
        torch._foreach_copy_(late.targets, late.results)
