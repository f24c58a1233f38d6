"""Branches and places among small tensors, written once for steps that may look and for those that may not.

`when` is a Python branch where its condition can be read without waiting for a device, and computes both sides and
chooses where it cannot: under vmap, in a graph, with dispatch="select".
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from funcopt.core import random, tree
from funcopt.core.sent import sent


def choose(condition: Tensor, new: Any, old: Any) -> Any:
    """`new` where a 0-dim condition holds, else `old`; leaves that are the same tensor are left alone."""
    if isinstance(new, Tensor):
        return old if new is old else torch.where(sent(condition, new.device), new, old)
    if hasattr(new, "_fields"):
        return type(new)(*[choose(condition, x, y) for x, y in zip(new, old, strict=True)])
    if isinstance(new, dict):
        return {name: choose(condition, new[name], old[name]) for name in old}
    if type(new) in (tuple, list):
        return type(new)([choose(condition, x, y) for x, y in zip(new, old, strict=True)])
    pairs = zip(tree.leaves(new), tree.leaves(old), strict=True)
    return tree.unflatten(old, [choose(condition, x, y) for x, y in pairs])


def when(settings: Any, condition: Tensor | bool, f: Callable[[Any], Any], state: Any) -> Any:
    """`f(state)` if a 0-dim condition holds, else `state`, whose structure `f` keeps."""
    if isinstance(condition, bool):
        return f(state) if condition else state
    if not settings.select and random.readable(condition):
        return f(state) if random.host_int(condition) else state
    return choose(condition, f(state), state)


def places(like: Tensor) -> Tensor:
    return torch.arange(like.shape[0], device=like.device)


def at(vector: Tensor, i: Tensor) -> Tensor:
    """Entry `i` of a vector; 0 (False) if there is none."""
    chosen = places(vector) == i
    if vector.dtype == torch.bool:
        return (vector & chosen).any()
    return torch.where(chosen, vector, torch.zeros_like(vector)).sum()


def entry(table: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Entry (i, j) of a table; 0 (False) if there is none."""
    chosen = (places(table) == i).unsqueeze(1) & (torch.arange(table.shape[1], device=table.device) == j)
    return (table & chosen).any() if table.dtype == torch.bool else torch.where(chosen, table, torch.zeros_like(table)).sum()


def put(vector: Tensor, i: Tensor, value: Tensor | float) -> Tensor:
    """The vector with another entry `i`; unchanged if there is none."""
    value = value.to(vector.dtype) if isinstance(value, Tensor) else torch.full((), value, dtype=vector.dtype, device=vector.device)
    return torch.where(places(vector) == i, value, vector)
