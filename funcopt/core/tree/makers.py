"""Trees in the shapes of others, and in other dtypes."""

from typing import TypeVar

import torch
from torch import Tensor

from funcopt.core import dtypes
from funcopt.core.dtypes import COMPLEX
from funcopt.core.tree.mapping import map_plain
from funcopt.core.tree.structure import Tree, leaves

__all__ = ["cast", "cast_like", "clone", "full_like", "ones_like", "width", "zeros_like"]

T = TypeVar("T")


def zeros_like(tree: T, dtype: torch.dtype | None = None) -> T:
    """Zeros in the shapes, devices and dtypes of a tree.

    Args:
        tree: tree of tensors.
        dtype: another one; a floating one gives complex leaves the complex one of its width.

    Returns:
        A tree of the same structure and shapes.

    Example:
        >>> [x.dtype for x in fo.tree.zeros_like([torch.ones(1), torch.ones(1, dtype=torch.complex64)], torch.float64)]
        [torch.float64, torch.complex128]
    """
    return map_plain(lambda x: torch.zeros_like(x, dtype=None if dtype is None else width(x, dtype), requires_grad=False), tree)


def ones_like(tree: T, dtype: torch.dtype | None = None) -> T:
    """Ones; else as `zeros_like`.

    Args:
        tree: tree of tensors.
        dtype: as of `zeros_like`; None: that of each leaf.

    Returns:
        A tree of the same structure and shapes.

    Example:
        >>> fo.tree.ones_like({"w": torch.zeros(2)})
        {'w': tensor([1., 1.])}
    """
    return full_like(tree, 1, dtype)


def full_like(tree: T, value: float, dtype: torch.dtype | None = None) -> T:
    """One number everywhere; else as `zeros_like`.

    Args:
        tree: tree of tensors.
        value: the number.
        dtype: as of `zeros_like`; None: that of each leaf.

    Returns:
        A tree of the same structure and shapes.

    Example:
        >>> fo.tree.full_like({"w": torch.zeros(2)}, 3.0)
        {'w': tensor([3., 3.])}
    """
    return map_plain(lambda x: torch.full_like(x, value, dtype=None if dtype is None else width(x, dtype), requires_grad=False), tree)


def clone(tree: T) -> T:
    """A copy that shares no memory with the original. What a state keeps of its arguments it clones.

    Args:
        tree: tree of tensors.

    Returns:
        A tree like `tree`.

    Example:
        >>> original = torch.zeros(1)
        >>> _ = fo.tree.clone(original).add_(1)
        >>> original
        tensor([0.])
    """
    return map_plain(torch.clone, tree)


def cast(tree: T, dtype: torch.dtype | None) -> T:
    """The floating leaves in another dtype, complex ones in the complex dtype of its width; None leaves the tree as it is.

    Args:
        tree: tree of tensors.
        dtype: a floating dtype, or None.

    Returns:
        A tree of the same structure.

    Example:
        >>> fo.tree.cast({"w": torch.ones(1), "count": torch.tensor(3)}, torch.float64)
        {'w': tensor([1.], dtype=torch.float64), 'count': tensor(3)}
    """
    if dtype is None:
        return tree
    return map_plain(lambda x: x.to(width(x, dtype)) if x.is_floating_point() or x.is_complex() else x, tree)


def width(x: Tensor, dtype: torch.dtype) -> torch.dtype:
    """A floating dtype, for a complex tensor the complex one whose parts have it: in a real one its imaginary part would be lost.

    Args:
        x: a tensor; only whether it is complex counts.
        dtype: the dtype that is wanted.

    Returns:
        A dtype.

    Raises:
        TypeError: there is none in which torch computes.

    Example:
        >>> fo.tree.width(torch.zeros(1, dtype=torch.complex64), torch.float64)
        torch.complex128
    """
    if not x.is_complex() or not dtype.is_floating_point:
        return dtype
    if dtype not in COMPLEX:
        parts = " or ".join(str(known) for known in COMPLEX)
        raise TypeError(
            f"tree.width: a complex leaf must be kept in parts of {parts}, got {dtype}; split_real_and_imaginary makes two leaves of it"
        )
    return COMPLEX[dtype]


def cast_like(tree: T, like: Tree) -> T:
    """Every leaf in the dtype of its partner in `like`.

    Args:
        tree: tree of tensors.
        like: tree of tensors of the same structure.

    Returns:
        A tree like `tree` in the dtypes of `like`; `tree` itself where they agree.

    Raises:
        ValueError: the structures differ.

    Example:
        >>> fo.tree.cast_like(torch.tensor([1.5]), torch.zeros(1, dtype=torch.float64))
        tensor([1.5000], dtype=torch.float64)
    """
    if [x.dtype for x in leaves(tree)] == [y.dtype for y in leaves(like)]:
        return tree
    return map_plain(lambda x, y: x.to(dtypes.kept_as("tree.cast_like", x, y.dtype)), tree, like)
