"""Numbers that meet trees: on which device, in which dtype."""

import torch
from torch import Tensor

from funcopt.core.dtypes import steering
from funcopt.core.tree.structure import Tree, leaves

__all__ = ["device", "scalar", "scalar_dtype"]


def device(tree: Tree) -> torch.device:
    """The device of the first leaf; the CPU for an empty tree.

    Args:
        tree: any tree.

    Returns:
        A `torch.device`.

    Example:
        >>> fo.tree.device({"w": torch.zeros(2)})
        device(type='cpu')
    """
    for leaf in leaves(tree):
        if isinstance(leaf, Tensor):
            return leaf.device
    return torch.device("cpu")


def scalar_dtype(device: torch.device | str = "cpu") -> torch.dtype:
    """The dtype of numbers that steer: float64 where the device has it, else float32.

    Args:
        device: a device or its name.

    Returns:
        `torch.float64` or `torch.float32`.

    Example:
        >>> fo.tree.scalar_dtype("cpu")
        torch.float64
    """
    return steering(device if isinstance(device, torch.device) else torch.device(device))


def scalar(value: float | Tensor, like: Tree) -> Tensor:
    """A number as a 0-dim tensor on the device of `like`, in `scalar_dtype`; a tensor keeps its device and its derivative.

    Args:
        value: a number or a tensor.
        like: a tensor, or a tree, whose device counts.

    Returns:
        A tensor, 0-dim for a number.

    Example:
        >>> fo.tree.scalar(0.1, torch.zeros(2))
        tensor(0.1000, dtype=torch.float64)
    """
    if isinstance(value, Tensor):
        return value.to(steering(value.device))
    where = like.device if isinstance(like, Tensor) else device(like)
    return torch.full((), value, dtype=steering(where), device=where)
