"""What a step is told besides gradients: the loss, a reward, a metric, the epoch.

Numbers that differ from rank to rank (whatever is not a whole number) are averaged over
the ranks before use, so that every controller decides alike on all of them.
"""

import re
from typing import Any

import torch
from torch import Tensor

from funcopt.core import sharded

__all__ = ["averaged", "held", "numbers", "told_here"]

ONCE = ("loss",)  # of the step it was observed for, and of no later one


def numbers(given: dict[str, Any]) -> dict[str, Any]:
    """Without what is None, whole, and outside of the graph of derivatives."""
    return {name: sharded.whole(value.detach()) if isinstance(value, Tensor) else value for name, value in given.items() if value is not None}


def averaged(given: dict[str, Any], group: Any) -> dict[str, Any]:
    """The extras with the mean over the ranks of every real number; as they are where nobody else trains.

    Args:
        given: extras of this rank.
        group: a process group; None for the default one, False for no averaging.
    """
    if group is False or not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return given
    from funcopt.distributed.exchange import mean

    differing = {name: given[name] for name in sorted(given) if _differs(given[name])}
    return {**given, **mean(differing, group)}


def _differs(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1 and value.is_floating_point()
    return isinstance(value, float)


def told_here(error: ValueError) -> tuple[str | None, str]:
    """What a link misses, by the sentence with which it refuses, and that sentence for callers of an optimizer."""
    sentence = str(error)
    missed = re.search(r"call update\(\.\.\., (\w+)=", sentence)
    if missed is None:
        return None, sentence
    name = missed.group(1)
    call = f"call step({name}={name}), or observe({name}={name}) before a step that a trainer calls; on_missing='hold' goes on without"
    return name, re.sub(r"call update\(\.\.\., .*\)", call, sentence)


def held(name: str, last_epoch: int) -> Any:
    """What stands in for a missing number, so that a controller holds still: one that says nothing."""
    return last_epoch if name == "epoch" else float("nan")
