"""Whether ranks that should hold the same hold the same: 64 bits of every tensor are compared, and the first that differs is named."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from funcopt.core import tree
from funcopt.core.ranks import fingerprint, talking
from funcopt.distributed.exchange import alone, voice

__all__ = ["assert_in_sync", "assert_same"]


def assert_in_sync(x: Any, process_group: Any = None) -> None:
    """Compares a tree over the ranks, bit for bit; all must call it.

    Args:
        x: a tree of tensors: params, a state, keys. Of a sharded tensor (DTensor), of
            which every rank has a part of its own, nothing is compared.
        process_group: the ranks; None: all.

    Raises:
        ValueError: something differs; names the first path. All ranks raise.

    Example:
        >>> fo.distributed.assert_in_sync({"w": torch.ones(2)})  # nobody else here
    """
    named = [(f"'{path}'", leaf) for path, leaf in zip(tree.paths(x), tree.leaves(x), strict=True) if not hasattr(leaf, "full_tensor")]
    assert_same(named, process_group, "broadcast it from one rank, give all the same keys, and average what they are told")


def assert_same(named: Iterable[tuple[str, Tensor]], process_group: Any, remedy: str) -> None:
    """The same for tensors with names; `remedy` ends the message."""
    if alone(process_group):
        return
    import torch.distributed as dist

    named, talk = list(named), voice(process_group)
    count = torch.tensor([len(named), -len(named)], device=talk)
    with talking("assert_in_sync"):
        dist.all_reduce(count, op=dist.ReduceOp.MAX, group=process_group)
    if int(count[0]) != -int(count[1]):
        raise ValueError(f"assert_in_sync: ranks must keep the same tensors, got {-int(count[1])} on one and {int(count[0])} on another")
    if not named:
        return
    low = torch.stack([fingerprint(value).to(talk) for _, value in named])
    high = low.clone()
    with talking("assert_in_sync"):
        dist.all_reduce(low, op=dist.ReduceOp.MIN, group=process_group)
        dist.all_reduce(high, op=dist.ReduceOp.MAX, group=process_group)
    differing = (low != high).nonzero().flatten().tolist()
    if differing:
        name = named[differing[0]][0]
        raise ValueError(f"assert_in_sync: ranks differ at {name} (and at {len(differing) - 1} more of {len(named)}); {remedy}")
