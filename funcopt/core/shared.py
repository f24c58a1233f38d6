"""Leaves that share memory: tied through `.data`, overlapping slices of one vector.

torch.optim writes in place, one parameter after the other, and such leaves stay one. Here
an update is worked out from all leaves before any is written, and a tree holds values: what
is one number in two leaves would take one step of two, or two of one, or become two numbers.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from funcopt.core import tree
from funcopt.core.versions import compiling, transforming

__all__ = ["overlaps", "refuse_shared"]

REMEDY = "make them one parameter (decoder.weight = encoder.weight), or clone one of them if they are to be two"


def overlaps(tensors: Sequence[Tensor]) -> Iterator[tuple[int, int]]:
    """The pairs, by index, that have entries in one place of memory. Disjoint slices of one vector, and empty ones, are none.

    Example:
        >>> from funcopt.core.shared import overlaps
        >>> vector = torch.zeros(6)
        >>> list(overlaps([vector[:3], vector[3:], vector[::2], vector[1::2]]))
        [(0, 2), (0, 3), (1, 2), (1, 3)]
    """
    spans = sorted((str(x.device), x.data_ptr(), index) for index, x in enumerate(tensors) if _has_memory(x))
    open_: list[int] = []  # those that reach beyond the beginning of the last
    found = []
    for device, begin, index in spans:
        open_ = [other for other in open_ if str(tensors[other].device) == device and _end(tensors[other]) > begin]
        found += [(min(index, other), max(index, other)) for other in open_ if _meet(tensors[other], tensors[index])]
        open_.append(index)
    yield from sorted(found)


def refuse_shared(where: str, params: Any, *, trained: bool = False) -> None:
    """Raises a ValueError that names two leaves which share memory. One tensor that stands in two places is a value that they both have.

    Args:
        trained: two places of one `nn.Parameter` are refused, too.
    """
    leaves = tree.leaves(params)
    if len(leaves) < 2 or compiling() or transforming():
        return
    first: dict[int, int] = {}
    kept = [
        index
        for index, leaf in enumerate(leaves)
        if first.setdefault(id(leaf), index) == index or (trained and isinstance(leaf, torch.nn.Parameter))
    ]
    for one, other in overlaps([leaves[index] for index in kept]):
        a, b = (tree.paths(params)[kept[place]] for place in (one, other))
        raise ValueError(f"{where}: every leaf must have memory of its own, but '{a}' and '{b}' share some; {REMEDY}")


def _has_memory(x: Tensor) -> bool:
    return (
        type(x) in (Tensor, torch.nn.Parameter)
        and x.layout is torch.strided
        and x.device.type != "meta"
        and x.numel() > 0
        and x.data_ptr() != 0
    )


def _end(x: Tensor) -> int:
    return x.data_ptr() + (sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True)) + 1) * x.element_size()


def _meet(x: Tensor, y: Tensor) -> bool:
    """Whether two tensors whose spans overlap have an entry in one place."""
    if x.is_contiguous() and y.is_contiguous():
        return True
    unit = math.gcd(x.element_size(), y.element_size(), x.data_ptr() - y.data_ptr())
    return bool(torch.isin(_places(x, unit), _places(y, unit)).any())


def _places(x: Tensor, unit: int) -> Tensor:
    """The addresses of all entries, in units."""
    place = torch.tensor(x.data_ptr(), device="cpu")
    for size, stride in zip(x.shape, x.stride(), strict=True):
        place = place.unsqueeze(-1) + torch.arange(size, device="cpu") * (stride * x.element_size())
    return ((place.unsqueeze(-1) + torch.arange(0, x.element_size(), unit, device="cpu")) // unit).reshape(-1)
