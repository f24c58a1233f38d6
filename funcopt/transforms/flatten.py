"""flatten: all leaves as one vector, and back.

    u = unravel(inner(ravel(g)))

What has a meaning per leaf (a trust ratio, a block RMS) then has it for the whole model.
Reference: optax.flatten (0.2.8). (For speed alone there is `make_step(flat=...)`, which
changes no result.)
"""

from typing import Any

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, TensorTree, sharded, tree
from funcopt.core.wrap import WHOLE, wrapped

__all__ = ["flatten"]


def _ravel(values: TensorTree) -> Tensor:
    leaves = tree.leaves(values)
    if any(sharded.is_sharded(x) for x in leaves):
        raise ValueError(
            "flatten: must have leaves that are not sharded, since parts of them do not join to one vector; leave flatten out, or use DDP"
        )
    if any(x.device != leaves[0].device for x in leaves):
        paths, first = tree.paths(values), leaves[0].device
        where = next(f"'{path}', {x.device}" for path, x in zip(paths, leaves, strict=True) if x.device != first)
        raise ValueError(
            f"flatten: all leaves must be on one device, got {first} and, at {where}; use partition, with one flatten for each"
        )
    if not leaves:
        return torch.zeros(0)
    dtype = tree.dtype(values, "promote")
    return torch.cat([x.reshape(-1).to(dtype) for x in leaves])


def _unravel(vector: Tensor, like: TensorTree) -> TensorTree:
    leaves = tree.leaves(like)
    parts = torch.split(vector, [x.numel() for x in leaves]) if leaves else ()
    return tree.unflatten(like, [_cast(part, x).reshape(x.shape) for part, x in zip(parts, leaves, strict=True)])


def _cast(part: Tensor, like: Tensor) -> Tensor:
    return part.real.to(like.dtype) if part.is_complex() and not like.is_complex() else part.to(like.dtype)


def flatten(inner: GradientTransformation) -> GradientTransformation:
    """Runs `inner` on one vector made of all leaves, in the order of the tree.

    Args:
        inner: any transformation; it sees a single tensor, in the widest of the dtypes.

    Returns:
        A transformation whose state is that of `inner`, with vectors in place of trees.

    After a NaN:
        What it is given decides; docs/when-numbers-go-bad.md has each.

    Raises:
        ValueError: the leaves are on several devices, or sharded.

    Example:
        >>> tx = fo.flatten(fo.clip_by_block_rms(1.0))
        >>> updates = {"w": torch.tensor([0.0, 0.0, 0.0]), "b": torch.tensor([4.0])}
        >>> tx.update(updates, tx.init(updates))[0]["b"]
        tensor([2.])
    """

    def init(params: TensorTree):
        return inner.init(_ravel(params))

    def update(updates: TensorTree, state: Any, params: TensorTree | None = None, *, signals: Any = None, **extra: Any):
        vector, state = inner.update(_ravel(updates), state, None if params is None else _ravel(params), signals=signals, **extra)
        return _unravel(vector, updates), state

    return wrapped(init, update, inner, WHOLE, name=f"flatten {inner.name}", leaves="complex", alike=True, per_leaf=False)
