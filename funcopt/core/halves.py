"""float16 is worked out in float32, and what is kept of it is kept in float32; what comes back is float16 again.

Its numbers end at 65504 and at 6e-8: an eps of 1e-8 is 0 there, the square of 300 is infinite, that of
1e-4 is zero. bfloat16 has the range of float32 and is left to each method.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from funcopt.core import tree

__all__ = ["holds_halves", "narrowed", "widened"]


def holds_halves(leaves: Iterable[Any]) -> bool:
    """Whether one of the leaves is float16."""
    return any([x.dtype is torch.float16 for x in leaves if isinstance(x, Tensor)])


def widened(values: Any) -> Any:
    """The float16 leaves as float32."""
    return tree.map_plain(lambda x: x.float() if isinstance(x, Tensor) and x.dtype == torch.float16 else x, values)


def narrowed(values: Any, like: Any) -> Any:
    """The float32 leaves as float16 where their partners in `like` are; as they are where the trees have not as many leaves (pairs)."""
    ours, theirs = tree.leaves(values), tree.leaves(like)
    if len(ours) != len(theirs):
        return values
    pairs = zip(ours, theirs, strict=True)
    return tree.unflatten(values, [x.half() if x.dtype == torch.float32 and y.dtype == torch.float16 else x for x, y in pairs])
