"""What is dear to work out and is worked out anew in the first and then in every k-th step.

A clock on the CPU tells Python when that is, so that other steps do nothing of it; inside functorch transforms and graphs without a plan
it is worked out in every step, and chosen. `plan` makes two graphs of a compiled step: one that renews, and one that does not.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from funcopt.core import TensorTree, random, tree


def new_clock() -> Tensor:
    """A count of steps for Python, before the first."""
    return torch.zeros((), dtype=torch.int64)


def due(clock: Tensor, every: int) -> Tensor:
    """Whether the step after `clock` steps renews."""
    return (clock == 0) | ((clock + 1) % every == 0)


def known(clock: Tensor, every: int) -> bool | None:
    """The same as Python's, where it may look."""
    if clock.dim() or not random.readable(clock):
        return None
    steps = random.host_int(clock)
    return steps == 0 or (steps + 1) % every == 0


def renewed(here: bool | None, clock: Tensor, every: int, fresh: Callable[[], TensorTree], kept: TensorTree) -> TensorTree:
    """What `fresh` gives in a step that renews, else what is kept.

    Args:
        here: what is `known`, or planned.
        clock: steps so far.
        every: how many steps something serves.
        fresh: called where it may be needed; a tree like `kept`.
    """
    if here is False:
        return kept
    made = fresh()
    if here:
        return made
    return tree.map_plain(lambda new, old: torch.where(due(clock, every).to(old.device), new, old).to(old.dtype), made, kept)


def planned(every: int, clock_of: Callable[[Any], Tensor] = lambda state: state.clock) -> Callable[..., bool | None]:
    """The `plan` of a link with such a clock."""
    return lambda state, **extra: known(clock_of(state), every)
