"""Buckets: small leaves joined to vectors, for mathematics that does not care how its entries are cut into leaves.

Eagerly an operation on a small leaf costs its call and not its arithmetic, so that a link of
many operations takes small leaves together. Compiled there is nothing to gain, and trees stay
as they are.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from funcopt.core import tree
from funcopt.core.protocol import TensorTree
from funcopt.core.versions import compiling

MOST = 2**16  # entries of a bucket, so that several fit a cache; a larger leaf stays alone


def bucketed(values: TensorTree, *rest: TensorTree) -> tuple[TensorTree, ...]:
    """Trees of one structure as lists of vectors with the same entries at the same places; as they are where nothing is joined.

    Leaves are joined in their order, up to `MOST` entries. Not joined are those of trees
    with several dtypes or devices, and sharded ones.

    Raises:
        ValueError: the structures differ; names the first path.

    Example:
        >>> from funcopt.controllers.pilot.small_leaves import bucketed
        >>> bucketed({"b": torch.tensor([3.0]), "w": torch.tensor([[1.0, 2.0]])})
        ([tensor([3., 1., 2.])],)
    """
    found = _buckets(values, *rest)
    if found is None:
        return (values, *rest)
    buckets, columns, _ = found
    return tuple([_joined(column, buckets) for column in columns])


def map_entries(f: Callable[..., Tensor], values: TensorTree, *rest: TensorTree) -> TensorTree:
    """`tree.map` for an `f` that works entry by entry, small leaves together.

    Args:
        f: takes a tensor of each tree and gives one like the first, of which an entry
            depends on the entries at the same place alone.
        values, rest: trees of one structure.

    Raises:
        ValueError: the structures differ; names the first path.

    Example:
        >>> from funcopt.controllers.pilot.small_leaves import map_entries
        >>> map_entries(lambda x: 2 * x, {"b": torch.tensor([3.0]), "w": torch.tensor([[1.0, 2.0]])})["w"]
        tensor([[2., 4.]])
    """
    found = _buckets(values, *rest)
    if found is None:
        return tree.map(f, values, *rest)
    buckets, columns, structure = found
    parts: list[Tensor] = []
    for members, *arguments in zip(buckets, *[_joined(column, buckets) for column in columns], strict=True):
        parts += f(*arguments).split([columns[0][index].numel() for index in members])
    return structure.unflatten([part.view(x.shape) for part, x in zip(parts, columns[0], strict=True)])


def _buckets(*trees: TensorTree) -> tuple[list[list[int]], list[list[Tensor]], Any] | None:
    """Which leaves go together, the leaves of each tree, and their structure; None where each leaf would stay alone."""
    if compiling():
        return None
    columns, structure = tree.columns(*trees)
    if len(columns[0]) < 2 or not all(_uniform(column) for column in columns):
        return None
    buckets: list[list[int]] = []
    room = -1
    for index, x in enumerate(columns[0]):
        room -= x.numel()
        if room < 0:
            buckets.append([])
            room = MOST - x.numel()
        buckets[-1].append(index)
    return (buckets, columns, structure) if len(buckets) < len(columns[0]) else None


def _uniform(column: list[Tensor]) -> bool:
    """Whether all are plain tensors of one dtype on one device."""
    first = column[0]
    return all(type(x) is Tensor and x.dtype == first.dtype and x.device == first.device for x in column)


def _joined(column: list[Tensor], buckets: list[list[int]]) -> list[Tensor]:
    rows = [[column[index].reshape(-1) for index in members] for members in buckets]
    return [torch.cat(row) if len(row) > 1 else row[0] for row in rows]
