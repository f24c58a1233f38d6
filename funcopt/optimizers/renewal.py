"""What is due in the first and then in every k-th step: t = 1, k, 2 k, ... (`core/due.py` tells how; there the counter runs in rounds).

A clock on the CPU counts the steps, from `due.begun(params, "auto")` on.
"""

from collections.abc import Callable

from torch import Tensor

from funcopt.core import due


def now(clock: Tensor, every: int) -> Tensor:
    """Whether the step after `clock` steps renews."""
    return (clock == 0) | ((clock + 1) % every == 0)


def known(clock: Tensor, every: int) -> bool | None:
    """The same as Python's, where it may look."""
    steps = due.looked("a clock", clock, "auto")
    return None if steps is None else steps == 0 or (steps + 1) % every == 0


def planned(every: int) -> Callable[..., bool | None]:
    """The `plan` of a link with such a clock."""
    return lambda state, **extra: known(state.clock, every)


def kinds(every: int) -> Callable[[object], tuple[bool, ...]]:
    """Its `plans`."""
    return lambda state: (True, False)[: 1 + (every > 1)]
