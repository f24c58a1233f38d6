"""What a step is told besides gradients: the loss, a reward, a metric, the epoch.

Numbers that differ from rank to rank (whatever is not a whole number) are averaged over
the ranks before use, so that every controller decides alike on all of them.
"""

import re
from typing import Any

import torch
from torch import Tensor

from funcopt.core import tree

__all__ = ["averaged", "held", "numbers", "told_here"]

ONCE = ("loss",)  # of the step it was observed for, and of no later one


def numbers(given: dict[str, Any]) -> dict[str, Any]:
    """Without what is None, and outside of the graph of derivatives."""
    return {name: value.detach() if isinstance(value, Tensor) else value for name, value in given.items() if value is not None}


def averaged(given: dict[str, Any], group: Any, device: torch.device) -> dict[str, Any]:
    """The extras with the mean over the ranks of every real number; as they are where nobody else trains.

    Args:
        given: extras of this rank.
        group: a process group; None for the default one, False for no averaging.
        device: of the parameters, on which the ranks talk to each other.
    """
    if group is False or not given or not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return given
    names = sorted(name for name, value in given.items() if _differs(value))
    if not names:
        return given
    import torch.distributed as dist

    if dist.get_world_size(group) == 1:
        return given
    talk = device if dist.get_backend(group) == "nccl" else torch.device("cpu")
    dtype = tree.scalar_dtype(talk)
    mine = torch.stack([torch.as_tensor(given[name], dtype=dtype).to(talk).reshape(()) for name in names])
    dist.all_reduce(mine, group=group)
    mean = mine / dist.get_world_size(group)
    # The loss stays where it is worked with; metrics and rewards are numbers of the host.
    home = {name: given[name].device if isinstance(given[name], Tensor) else torch.device("cpu") for name in names}
    return {**given, **{name: value.to(home[name]) for name, value in zip(names, mean.unbind(), strict=True)}}


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
