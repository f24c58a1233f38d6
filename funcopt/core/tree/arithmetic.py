"""Arithmetic on trees of tensors, leaf by leaf."""

from functools import reduce
from typing import TypeVar

import torch
from torch import Tensor

from funcopt.core.tree.mapping import map, map_plain
from funcopt.core.tree.structure import Tree

__all__ = ["add", "add_scale", "conj", "div", "mul", "real", "scale", "sub", "where"]

T = TypeVar("T")


def add(left: T, right: Tree, *more: Tree) -> T:
    """The sum of two or more trees, leaf by leaf.

    Args:
        left: tree of tensors.
        right: tree like `left`.
        more: further ones.

    Returns:
        A tree like `left`.

    Raises:
        ValueError: the structures differ.

    Example:
        >>> fo.tree.add({"w": torch.tensor([1.0])}, {"w": torch.tensor([2.0])})
        {'w': tensor([3.])}
    """
    return map(lambda *xs: reduce(torch.add, xs), left, right, *more)


def sub(left: T, right: Tree) -> T:
    """`left - right`, leaf by leaf.

    Args:
        left: tree of tensors.
        right: tree like `left`.

    Returns:
        A tree like `left`.

    Raises:
        ValueError: the structures differ.

    Example:
        >>> fo.tree.sub(torch.tensor([3.0]), torch.tensor([1.0]))
        tensor([2.])
    """
    return map(torch.sub, left, right)


def mul(left: T, right: Tree) -> T:
    """`left * right`, leaf by leaf.

    Args:
        left: tree of tensors.
        right: tree like `left`.

    Returns:
        A tree like `left`.

    Raises:
        ValueError: the structures differ.

    Example:
        >>> fo.tree.mul(torch.tensor([3.0]), torch.tensor([4.0]))
        tensor([12.])
    """
    return map(torch.mul, left, right)


def div(left: T, right: Tree) -> T:
    """`left / right`, leaf by leaf.

    Args:
        left: tree of tensors.
        right: tree like `left`.

    Returns:
        A tree like `left`.

    Raises:
        ValueError: the structures differ.

    Example:
        >>> fo.tree.div(torch.tensor([1.0]), torch.tensor([4.0]))
        tensor([0.2500])
    """
    return map(torch.div, left, right)


def scale(factor: float | Tensor, tree: T) -> T:
    """`factor * tree`, leaf by leaf.

    Args:
        factor: a number or a 0-dim tensor.
        tree: tree of tensors.

    Returns:
        A tree like `tree`.

    Example:
        >>> fo.tree.scale(2.0, {"w": torch.tensor([3.0])})
        {'w': tensor([6.])}
    """
    return map(lambda x: factor * x, tree)


def add_scale(left: T, factor: float | Tensor, right: Tree) -> T:
    """`left + factor * right`, leaf by leaf.

    Args:
        left: tree of tensors.
        factor: a number or a 0-dim tensor.
        right: tree like `left`.

    Returns:
        A tree like `left`.

    Raises:
        ValueError: the structures differ.

    Example:
        >>> fo.tree.add_scale(torch.tensor([1.0]), 0.5, torch.tensor([4.0]))
        tensor([3.])
    """
    return map(lambda x, y: x + factor * y, left, right)


def where(condition: Tensor | bool | Tree, left: T, right: Tree) -> T:
    """`left` where a 0-dim condition (or a tree of conditions) holds, else `right`; what is not chosen may be anything, NaN included.

    Args:
        condition: a bool, a 0-dim tensor of one, or a tree of tensors of bools like `left`.
        left: tree of tensors.
        right: tree like `left`.

    Returns:
        A tree like `left`.

    Raises:
        ValueError: the structures differ.

    Example:
        >>> fo.tree.where(torch.tensor(False), torch.tensor([torch.nan]), torch.tensor([1.0]))
        tensor([1.])
    """
    if isinstance(condition, bool):
        return left if condition else right
    if isinstance(condition, Tensor):
        return map_plain(lambda x, y: torch.where(condition, x, y), left, right)
    return map_plain(torch.where, condition, left, right)


def conj(tree: T) -> T:
    """The complex conjugate of every leaf.

    Args:
        tree: tree of tensors.

    Returns:
        A tree like `tree`; real leaves are as they were.

    Example:
        >>> fo.tree.conj(torch.tensor([1.0 + 2.0j]))
        tensor([1.-2.j])
    """
    return map_plain(torch.conj, tree)


def real(tree: T) -> T:
    """The real part of every leaf.

    Args:
        tree: tree of tensors.

    Returns:
        A tree of the same structure; real leaves are as they were.

    Example:
        >>> fo.tree.real(torch.tensor([1.0 + 2.0j]))
        tensor([1.])
    """
    return map_plain(lambda x: x.real if x.is_complex() else x, tree)
