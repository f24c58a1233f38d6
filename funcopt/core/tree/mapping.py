"""Leaf by leaf in the dtypes of the leaves: `map`, the only way in which a link touches leaves."""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, TypeVar, overload

import optree
import torch
from torch import Tensor

from funcopt.core.tree.refusals import RAW, explained
from funcopt.core.tree.structure import Tree
from funcopt.core.tree.traced import mapped
from funcopt.core.versions import compiling

__all__ = ["columns", "map", "map_plain", "map_until", "substitute"]

T = TypeVar("T")


@overload
def map(f: Callable[[Tensor], Tensor], tree: T, /) -> T: ...
@overload
def map(f: Callable[[Tensor, Tensor], Tensor], tree: T, b: Tree, /) -> T: ...
@overload
def map(f: Callable[[Tensor, Tensor, Tensor], Tensor], tree: T, b: Tree, c: Tree, /) -> T: ...
@overload
def map(f: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor], tree: T, b: Tree, c: Tree, d: Tree, /) -> T: ...
@overload
def map(f: Callable[..., Tensor], tree: T, *rest: Tree) -> T: ...
def map(f: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    """`f` leaf by leaf; the only way in which a link touches leaves.

    A 0-dim floating or complex result in a dtype that none of its leaf arguments has is cast back
    to their promoted one: else a 0-dim float32 parameter times a float64 scalar of the
    state would become float64 (larger leaves keep their dtype by torch's own rules).

    Args:
        f: takes one leaf of each tree.
        tree, rest: trees of one structure.

    Returns:
        A tree like `tree`.

    Raises:
        ValueError: the structures differ; names the first path.

    Example:
        >>> fo.tree.map(lambda x, y: x + 2 * y, {"w": torch.ones(2)}, {"w": torch.tensor([1.0, 2.0])})
        {'w': tensor([3., 5.])}
    """

    if compiling():
        return mapped(lambda *arguments: _settled(f(*arguments), arguments), tree, *rest)
    found, spec = columns(tree, *rest)
    try:
        results = [f(*arguments) for arguments in zip(*found, strict=True)]
    except RAW as error:
        why = explained(error, tree, *rest)
        if why is error:
            raise
        raise why from error
    for index, result in enumerate(results):
        if not isinstance(result, Tensor) or result.dim() == 0:
            results[index] = _settled(result, [column[index] for column in found])
    return spec.unflatten(results)


def columns(tree: Tree, *rest: Tree) -> tuple[list[list[Any]], Any]:
    """The leaves of each of several trees of one structure, and that structure, as `flatten` gives it (not while compiling).

    Args:
        tree, rest: trees of one structure.

    Returns:
        A list of leaves for each tree, in one order, and the structure.

    Raises:
        ValueError: the structures differ; names the first path.

    Example:
        >>> fo.tree.columns({"b": 1, "a": 2}, {"a": 3, "b": 4})[0]
        [[2, 1], [3, 4]]
    """
    first, spec = optree.tree_flatten(tree)
    found = [first]
    for other in rest:
        try:
            found.append(spec.flatten_up_to(other))
        except ValueError as error:
            raise explained(error, tree, *rest) from None
    return found, spec


def _settled(result: Any, arguments: Sequence[Any]) -> Any:
    """A 0-dim floating result in a dtype of its leaves: its own if one of them has it, as a state may on purpose, else the promoted one."""
    if isinstance(result, Tensor) and result.dim() == 0 and (result.is_floating_point() or result.is_complex()):
        dtypes = {x.dtype for x in arguments if isinstance(x, Tensor)}
        if dtypes and result.dtype not in dtypes:
            dtype = reduce(torch.promote_types, dtypes)
            if dtype.is_complex and not result.is_complex():
                dtype = dtype.to_real()  # a magnitude stays real
            return result.to(dtype) if dtype.is_floating_point or (dtype.is_complex and result.is_complex()) else result
    return result


@overload
def map_plain(f: Callable[[Any], Any], tree: Tree, /) -> Tree: ...
@overload
def map_plain(f: Callable[[Any, Any], Any], tree: Tree, b: Tree, /) -> Tree: ...
@overload
def map_plain(f: Callable[[Any, Any, Any], Any], tree: Tree, b: Tree, c: Tree, /) -> Tree: ...
@overload
def map_plain(f: Callable[[Any, Any, Any, Any], Any], tree: Tree, b: Tree, c: Tree, d: Tree, /) -> Tree: ...
@overload
def map_plain(f: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree: ...
def map_plain(f: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    """`f` leaf by leaf, the results as they are: for what changes the dtype on purpose.

    Args:
        f: takes one leaf of each tree.
        tree: any tree.
        rest: trees of the same structure.

    Returns:
        A tree of the results.

    Raises:
        ValueError: the structures differ.

    Example:
        >>> fo.tree.map_plain(lambda x: x.shape[0], {"w": torch.zeros(2), "b": torch.zeros(3)})
        {'w': 2, 'b': 3}
    """
    if compiling():
        return mapped(f, tree, *rest)
    try:
        return optree.tree_map(f, tree, *rest)
    except RAW as error:
        why = explained(error, tree, *rest)
        if why is error:
            raise
        raise why from error


def map_until(kind: type | tuple[type, ...], f: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    """`f` on every leaf and on every node of class `kind`, which is not entered; no casting.

    Args:
        kind: a class or several.
        f: takes one leaf, or node of that class, of each tree.
        tree: any tree.
        rest: trees of the same structure down to there.

    Returns:
        A tree of the results.

    Raises:
        ValueError: the structures differ.

    Example:
        >>> fo.tree.map_until(fo.EmptyState, lambda x: type(x).__name__, [fo.EmptyState(), torch.zeros(1)])
        ['EmptyState', 'Tensor']
    """
    return optree.tree_map(f, tree, *rest, is_leaf=lambda node: isinstance(node, kind))


def substitute(numbers: Tree, values: dict[int, Any]) -> Tree:
    """A tree of ints with every number replaced by its value; traces, as structure captured in another form does not.

    Args:
        numbers: tree of ints.
        values: what stands for each of them.

    Returns:
        A tree of values.

    Example:
        >>> fo.tree.substitute({"w": 0, "b": 1}, {0: "first", 1: "second"})
        {'w': 'first', 'b': 'second'}
    """
    return map_plain(lambda number: values[number], numbers)
