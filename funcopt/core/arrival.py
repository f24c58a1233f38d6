"""Where gradients meet params, and so the states that are made like them: no leaf goes on in a dtype narrower than its parameter's.

A float16 gradient of 1e-4 has a square of 1e-8, which float16 does not hold: a running mean of
float32 squares would stay zero, and the step be as long as eps makes it. Widened first it is right.
A wider gradient goes on as it is; what a state keeps of it is rounded to the state's dtype.
"""

from typing import Any

import torch
from torch import Tensor

from funcopt.core import tree
from funcopt.core.dtypes import FLOATS
from funcopt.core.versions import compiling

__all__ = ["arrived"]


def arrived(where: str, updates: Any, params: Any, alike: bool | None = False, flat: tuple[list[Any], Any] | None = None) -> Any:
    """The updates, each leaf in the wider of its dtype and its parameter's; as they are where the trees are not of one structure (pairs).

    Args:
        alike: the trees must have one structure and leaves of the same shapes and devices; not looked at while compiling.
        flat: the leaves and the structure of params, where somebody has them.

    Raises:
        ValueError: the trees are not alike; names the path.
        TypeError: a leaf is complex and its parameter is not, or the other way round; names the path.
    """
    if compiling():
        ours, theirs = tree.leaves(updates), tree.leaves(params)
    else:
        (ours, form), (theirs, other) = tree.flatten(updates), flat or tree.flatten(params)
        if alike and (form != other or any([x.shape != y.shape or x.device != y.device for x, y in zip(ours, theirs, strict=True)])):
            tree.assert_alike(where, updates, params)
    if len(ours) != len(theirs):
        return updates
    try:
        if [x.dtype for x in ours] == [y.dtype for y in theirs]:
            return updates
    except AttributeError:  # something else than tensors, of which others will speak
        return updates
    return tree.unflatten(updates, [_widened(where, updates, index, x, y) for index, (x, y) in enumerate(zip(ours, theirs, strict=True))])


def _widened(where: str, updates: Any, index: int, x: Tensor, y: Tensor) -> Tensor:
    if x.dtype == y.dtype or not (y.is_floating_point() or y.is_complex()):
        return x
    if x.is_complex() != y.is_complex():
        ours, theirs = ("complex", "real") if x.is_complex() else ("real", "complex")
        remedy = "take its real part" if x.is_complex() else f"say .to({y.dtype})"
        got, path = str(x.dtype).removeprefix("torch."), tree.paths(updates)[index]
        raise TypeError(
            f"{where}: the gradient of a {theirs} leaf must be {theirs}, got {got} at '{path}'; {remedy} if the {ours} one is meant"
        )
    return x.to(torch.promote_types(x.dtype, y.dtype) if x.is_complex() or x.dtype in FLOATS else y.dtype)
