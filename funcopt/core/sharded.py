"""Tensors of which every rank holds a part (`DTensor`): numbers about the whole of them, and random entries for the part.

A reduction over such a tensor is partial on every rank until the ranks have talked; `float`
of it is the part's. So whatever is summed over leaves is summed on each rank first, and then
once over the ranks for all leaves that are split alike: an ordinary 0-dim tensor, the same
everywhere. Elementwise mathematics needs nothing of this. Needs torch 2.5 (`fully_shard` 2.6).
"""

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

__all__ = ["drawn", "extreme", "is_sharded", "laid_out", "replicated", "sum_of", "totals", "whole", "zeros"]


def is_sharded(x: Any) -> bool:
    """Whether it is a `DTensor`, which a mesh of ranks holds together."""
    return hasattr(x, "full_tensor")


def whole(x: Any) -> Tensor:
    """All of it, as an ordinary tensor, on every rank."""
    return x.full_tensor() if is_sharded(x) else x


def sum_of(x: Any) -> Tensor:
    """The sum of all entries, 0-dim; of a sharded tensor still in parts, for `totals`."""
    return _in_parts(x.to_local().sum(), x) if is_sharded(x) else x.sum()


def totals(parts: Sequence[Any]) -> list[Tensor]:
    """0-dim terms of a sum as ordinary tensors; those in parts are added up first: the ranks talk once for each way of splitting."""
    if not any(is_sharded(part) for part in parts):
        return list(parts)
    alike: dict[tuple[Any, Any], list[Any]] = {}
    for part in parts:
        if is_sharded(part):
            alike.setdefault((part.device_mesh, part.placements), []).append(part)
    split = [whole(_in_parts(reduce(torch.add, [part.to_local() for part in group]), group[0])) for group in alike.values()]
    return [part for part in parts if not is_sharded(part)] + split


def extreme(f: Callable[[Tensor], Tensor], x: Any, larger: Callable[[Tensor, Tensor], Tensor], nothing: float) -> Tensor:
    """The largest entry (or another extreme, `f`, of which `larger` gives that of two numbers), an ordinary 0-dim tensor.

    A part may be empty, and then counts as `nothing`. The ranks' numbers are gathered, since a maximum taken on the way may lose a NaN.
    """
    if not is_sharded(x):
        return f(x)
    from torch.distributed.tensor import DTensor, Replicate, Shard

    x = x.redistribute(placements=[Replicate() if p.is_partial() else p for p in x.placements])
    local = x.to_local()
    value = f(local).to(torch.float64) if local.numel() else local.new_full((), nothing, dtype=torch.float64)
    placements = [p if p.is_replicate() else Shard(0) for p in x.placements]
    values = DTensor.from_local(value.reshape(1), x.device_mesh, placements, run_check=False).full_tensor()
    return reduce(larger, values.unbind()).to(x.dtype)


def zeros(shape: Sequence[int], like: Any) -> Tensor:
    """Zeros of another shape beside a tensor; beside a sharded one every rank holds all of them."""
    local = torch.zeros(shape, dtype=like.dtype, device=like.device)
    if not is_sharded(like):
        return local
    from torch.distributed.tensor import DTensor, Replicate

    return DTensor.from_local(local, like.device_mesh, [Replicate()] * like.device_mesh.ndim, run_check=False)


def laid_out(x: Any, like: Any) -> Tensor:
    """Split as another tensor is (a plain one: not at all), so that what a state keeps stays where it is."""
    if not is_sharded(x):
        return x
    return x.redistribute(placements=like.placements) if is_sharded(like) else x.full_tensor()


def replicated(x: Any) -> Tensor:
    """All of it on every rank, and still one with its kin: for products of matrices, which would send parts to and fro."""
    if not is_sharded(x):
        return x
    from torch.distributed.tensor import Replicate

    return x.redistribute(placements=[Replicate()] * x.device_mesh.ndim)


def drawn(draw: Callable[[int, int], Tensor], like: Any) -> Tensor:
    """Random entries for a tensor, by their number in the whole of it: each rank draws its part; together they are what one process draws.

    Args:
        draw: `(start, count)` to entries `start` to `start + count - 1` of a stream.
        like: gives the shape, and the way in which it is split.
    """
    if not is_sharded(like):
        return draw(0, like.numel()).reshape(like.shape)
    from torch.distributed.tensor import DTensor, Replicate

    placements = [Replicate() if p.is_partial() else p for p in like.placements]
    shape, offset = _part(like.shape, like.device_mesh, placements)
    if math.prod(shape) == 0:
        local = draw(0, 0).reshape(shape)
    elif not shape:
        local = draw(0, 1).reshape(shape)
    else:
        row = math.prod(like.shape[1:])
        rows = draw(offset[0] * row, shape[0] * row).reshape(shape[0], *like.shape[1:])
        local = rows[(slice(None), *(slice(o, o + n) for o, n in zip(offset[1:], shape[1:], strict=True)))].contiguous()
    return DTensor.from_local(local, like.device_mesh, placements, run_check=False, shape=like.shape, stride=like.stride())


def _part(shape: torch.Size, mesh: Any, placements: list[Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shape of this rank's part, and where in the whole it begins."""
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    return compute_local_shape_and_global_offset(shape, mesh, placements)


def _in_parts(value: Tensor, like: Any) -> Tensor:
    """A 0-dim sum over the part of each rank as a `DTensor` that stands for the sum over the whole."""
    from torch.distributed.tensor import DTensor, Partial

    placements = [p if p.is_replicate() or p.is_partial() else Partial() for p in like.placements]
    return DTensor.from_local(value, like.device_mesh, placements, run_check=False)
