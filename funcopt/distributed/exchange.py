"""Trees that become the same on every rank: the mean over the ranks, or what one of them has.

Where nobody else runs (`torch.distributed` not initialised, or one rank), a tree comes
back as it is: the same script runs alone.
"""

import hashlib
import math
from typing import Any

import torch
from torch import Tensor

from funcopt.core import tree
from funcopt.core.ranks import talking

__all__ = ["alone", "broadcast", "mean", "voice"]

FIRST = 16  # numbers that are exchanged at once whatever their number: what a loop tells at a step, and the form of its tree in front
# forms that ranks of an accelerator have had in common, where a look at each answer would wait for the device
SEEN: set[tuple[Any, ...]] = set()


def mean(x: Any, process_group: Any = None) -> Any:
    """The mean over the ranks of every real number of a tree; all must call it.

    Controllers that are told the mean of the losses decide alike on every rank.

    Args:
        x: a tree of tensors and Python numbers. What is whole (an epoch, a count, a bool)
            stays as this rank has it.
        process_group: the ranks; None: all.

    Raises:
        ValueError: ranks hand in trees of another form (on an accelerator this is raised at
            the first call with a form, and is NaN later, for which nobody has to wait).
        RuntimeError: a rank died, hangs, or made another call.

    Returns:
        A tree like `x` whose real numbers are the same bits on all ranks. Python floats and
        tensors of one entry become 0-dim tensors of float64 where the device has it;
        larger tensors keep their dtype.

    Example:
        >>> fo.distributed.mean({"loss": torch.tensor(2.0), "epoch": 3})  # nobody else here
        {'loss': tensor(2.), 'epoch': 3}
    """
    if alone(process_group):
        return x
    import torch.distributed as dist

    leaves = tree.leaves(x)
    real = [n for n, leaf in enumerate(leaves) if isinstance(leaf, float) or (isinstance(leaf, Tensor) and leaf.is_floating_point())]
    where, ranks, talk = "distributed.mean", dist.get_world_size(process_group), voice(process_group)
    form = tuple(leaves[n].numel() if isinstance(leaves[n], Tensor) else 1 for n in real)
    mine = torch.tensor([_number(form)], dtype=tree.scalar_dtype(talk), device=talk)
    parts = [tree.scalar(leaves[n], mine).detach().to(talk, mine.dtype).reshape(-1) for n in real]
    mine = torch.cat([mine, *parts])
    first, rest = torch.nn.functional.pad(mine[:FIRST], (0, max(0, FIRST - len(mine)))), mine[FIRST:]
    with talking(where):
        dist.all_reduce(first, group=process_group)
    alike = first[0] == ranks * mine[0]
    if talk.type == "cpu" or form not in SEEN:
        if not alike:
            raise _unlike(where, form)
        SEEN.add(form)
    if not real:
        return x
    if len(rest):
        with talking(where):
            dist.all_reduce(rest, group=process_group)
    summed = torch.cat([first[1 : len(mine)], rest])
    means = torch.where(alike, summed / ranks, math.nan).split(list(form))
    for n, value in zip(real, means, strict=True):
        leaf = leaves[n]
        if not isinstance(leaf, Tensor):
            leaves[n] = value.reshape(()).to("cpu")
        elif leaf.numel() == 1:
            leaves[n] = value.reshape(()).to(leaf.device)
        else:
            leaves[n] = value.reshape(leaf.shape).to(leaf.device, leaf.dtype)
    return tree.unflatten(x, leaves)


def broadcast(x: Any, rank: int = 0, process_group: Any = None) -> Any:
    """The tree of one rank on all of them; all must call it.

    For what one rank alone has read (a checkpoint) or drawn (a key, initial params).

    Args:
        x: a tree of tensors, of the same structure, shapes and dtypes everywhere.
        rank: whose, as `process_group` counts.
        process_group: the ranks; None: all.

    Raises:
        ValueError: ranks hand in trees of another form.
        RuntimeError: a rank died, hangs, or made another call.

    Returns:
        A tree like `x`, on the devices of this rank's `x`.

    Example:
        >>> fo.distributed.broadcast({"key": fo.random.key(3)})  # nobody else here
        {'key': tensor([3, 0])}
    """
    if alone(process_group):
        return x
    import torch.distributed as dist

    leaves = tree.leaves(x)
    where, talk = "distributed.broadcast", voice(process_group)
    form = tuple((str(leaf.dtype), tuple(leaf.shape)) for leaf in leaves)
    both = torch.tensor([_number(form), -_number(form)], device=talk)
    with talking(where):
        dist.all_reduce(both, op=dist.ReduceOp.MAX, group=process_group)
    if int(both[0]) != -int(both[1]):
        raise _unlike(where, form)
    if not leaves:
        return x
    raw = [leaf.detach().to(talk).contiguous().reshape(-1).view(torch.uint8) for leaf in leaves]
    everything = torch.cat(raw)
    with talking(where):
        dist.broadcast(everything, rank if process_group is None else dist.get_global_rank(process_group, rank), group=process_group)
    parts = everything.split([len(part) for part in raw])
    given = [part.clone().view(leaf.dtype).reshape(leaf.shape).to(leaf.device) for part, leaf in zip(parts, leaves, strict=True)]
    return tree.unflatten(x, given)


def _number(form: tuple[Any, ...]) -> int:
    """A number for a form, of which float64 holds the sum over some thousand ranks."""
    return int.from_bytes(hashlib.blake2b(repr(form).encode(), digest_size=5).digest(), "little")


def _unlike(where: str, form: tuple[Any, ...]) -> ValueError:
    shown = ", ".join(map(str, form[:4])) + (", ..." if len(form) > 4 else "")
    return ValueError(f"{where}: all ranks must hand in trees of the same shapes and dtypes, got others elsewhere than here ({shown})")


def alone(process_group: Any) -> bool:
    """Whether there is nobody to talk to."""
    import torch.distributed as dist

    return not dist.is_available() or not dist.is_initialized() or dist.get_world_size(process_group) == 1


def voice(process_group: Any) -> torch.device:
    """The device on which these ranks can talk."""
    import torch.distributed as dist

    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend(process_group) == "nccl" else torch.device("cpu")
