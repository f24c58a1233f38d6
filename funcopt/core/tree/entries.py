"""What all entries of a tree have in common, and trees made from the shapes of others."""

from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor

from funcopt.core import random
from funcopt.core.sharded import drawn, is_sharded, sum_of, totals
from funcopt.core.tree.mapping import map, map_plain
from funcopt.core.tree.reductions import tensors
from funcopt.core.tree.scalars import device
from funcopt.core.tree.structure import Tree, leaves, unflatten

__all__ = ["all_finite", "batch_shape", "clip", "random_like"]


def all_finite(tree: Tree) -> Tensor:
    """Whether no entry of any leaf is NaN or infinite; 0-dim bool, on the device of the tree.

    Args:
        tree: tree of tensors.

    Returns:
        0-dim bool; True of an empty tree.

    Example:
        >>> fo.tree.all_finite({"w": torch.ones(2), "b": torch.tensor([torch.inf])})
        tensor(False)
    """
    if any(is_sharded(x) for x in leaves(tree)):
        return reduce(torch.add, totals([sum_of(~x.isfinite()) for x in leaves(tree)])) == 0
    flags = [x.isfinite().all() for x in tensors(tree)]
    return reduce(torch.logical_and, flags) if flags else torch.ones((), dtype=torch.bool, device=device(tree))


def clip(tree: Tree, min_value: float | Tensor | None = None, max_value: float | Tensor | None = None) -> Tree:
    """Every entry bounded below by `min_value` and above by `max_value` (None: not); NaN stays NaN.

    Args:
        tree: tree of tensors.
        min_value: lower bound, a number or a 0-dim tensor; None: none.
        max_value: upper bound, likewise.

    Returns:
        A tree like `tree`.

    Example:
        >>> fo.tree.clip({"w": torch.tensor([-2.0, 0.5])}, -1.0, 1.0)
        {'w': tensor([-1.0000,  0.5000])}
    """

    def bounded(x: Tensor) -> Tensor:
        if min_value is not None:
            x = torch.maximum(x, min_value.to(x.dtype)) if isinstance(min_value, Tensor) else x.clamp(min=min_value)
        if max_value is not None:
            x = torch.minimum(x, max_value.to(x.dtype)) if isinstance(max_value, Tensor) else x.clamp(max=max_value)
        return x

    return map(bounded, tree)


def batch_shape(tree: Tree, shape: Sequence[int] = ()) -> Tree:
    """Every leaf repeated along leading axes of these sizes.

    Args:
        tree: tree of tensors.
        shape: sizes of the new axes; () for none.

    Returns:
        A new tree; its leaves share no memory with those of `tree`.

    Example:
        >>> fo.tree.batch_shape(torch.tensor([1.0, 2.0]), (2,))
        tensor([[1., 2.],
                [1., 2.]])
    """
    return map_plain(lambda x: x.expand((*shape, *x.shape)).clone(), tree)


def random_like(key: Tensor, tree: Tree, sampler: Callable[..., Tensor] = random.normal, dtype: torch.dtype | None = None) -> Tree:
    """Random entries in the shapes, devices and (unless given) dtypes of a tree; leaf i has the stream `fold_in(key, i)`.

    Args:
        key: of `fo.random.key`.
        tree: tree of tensors.
        sampler: `(key, shape, dtype=, device=) -> tensor`, such as `fo.random.uniform`.
        dtype: of all entries; None: that of each leaf.

    Returns:
        A tree of the same structure and shapes.

    Example:
        >>> fo.tree.random_like(fo.random.key(0), {"w": torch.zeros(2)})["w"].shape
        torch.Size([2])
    """

    def entries(i: int, x: Tensor) -> Tensor:
        own, kind = random.fold_in(key, i), {"dtype": dtype or x.dtype, "device": x.device}
        if is_sharded(x):
            return drawn(lambda start, count: sampler(own, (count,), start=start, **kind), x)
        return sampler(own, x.shape, **kind)

    return unflatten(tree, [entries(i, x) for i, x in enumerate(leaves(tree))])
