"""What is due in every k-th call: done in that call alone where Python may look at a counter, and chosen where it may not.

The counter stands in the state and runs 0, 1, ..., k - 1, 0, ...; it lies on the CPU and depends on no
value on the device, so that a look at it waits for nothing. A compiled step has one graph for either kind of call
(`plan`); under vmap both are worked out and one is taken.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from funcopt.core import random, tree
from funcopt.core.protocol import TensorTree

__all__ = ["Dispatch", "begun", "known", "looked", "renewed", "turned"]

Dispatch = Literal["auto", "select"]


def begun(params: TensorTree, dispatch: str) -> Tensor:
    """The counter before the first call; with "select" on the device of the params."""
    return torch.zeros((), dtype=torch.int64, device=tree.device(params) if dispatch == "select" else "cpu")


def looked(where: str, turn: Tensor, dispatch: str) -> int | None:
    """A counter as Python's number; None where it may not look."""
    if dispatch == "select" or turn.dim() or not random.readable(turn):
        return None
    return random.host_int(turn, where)


def known(where: str, turn: Tensor, at: int, dispatch: str) -> bool | None:
    """Whether the work is due in this call, at turn `at`; None where Python may not look.

    Example:
        >>> from funcopt.core.due import known
        >>> known("here", torch.tensor(0), at=0, dispatch="auto")
        True
    """
    number = looked(where, turn, dispatch)
    return None if number is None else number == at


def turned(turn: Tensor, every: int) -> Tensor:
    """The counter after a call."""
    return (turn + 1) % every


def renewed(here: bool | None, is_due: Tensor, fresh: Callable[[], TensorTree], kept: TensorTree) -> TensorTree:
    """What `fresh` gives in a call in which the work is due, else what is kept.

    Args:
        here: whether it is due, as Python knows it or planned it; None: it does not.
        is_due: the same as a tensor.
        fresh: called where it may be needed; a tree like `kept`.
        kept: of the calls before.

    Example:
        >>> from funcopt.core.due import renewed
        >>> renewed(None, torch.tensor(True), lambda: torch.ones(2), torch.zeros(2))
        tensor([1., 1.])
    """
    if here is False:
        return kept
    made = fresh()
    if here:
        return made
    return tree.map_plain(lambda new, old: torch.where(is_due.to(old.device), new, old).to(old.dtype), made, kept)
