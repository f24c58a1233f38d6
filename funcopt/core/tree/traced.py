"""Trees in code that is being traced: what optree does, in few steps of Python for the containers that states are made of.

A tracer follows optree's own Python twin, which looks every node up in its registry, and that was half of what there
was to trace in an update. Dicts with strings for keys, lists, tuples, NamedTuples and None are walked here; all else, and
every tree that is not like its neighbour, is left to optree and its errors.
"""

from collections.abc import Callable
from typing import Any

import optree
from torch import Tensor

__all__ = ["gathered", "mapped", "put_back"]


def mapped(f: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """`optree.tree_map`: leaf by leaf, in the order of `gathered`."""
    if isinstance(tree, Tensor):
        return f(tree, *rest)
    kind = type(tree)
    known = kind is dict or kind is list or kind is tuple or _named(kind)
    for other in rest:
        if type(other) is not kind or (known and len(other) != len(tree)):
            return optree.tree_map(f, tree, *rest)
    if tree is None:
        return None
    if kind is dict:
        for key in tree:
            if type(key) is not str or any(key not in other for other in rest):
                return optree.tree_map(f, tree, *rest)
        results = dict(tree)  # in the order of the keys of `tree`, whatever the order of the calls
        for key in sorted(tree):
            results[key] = mapped(f, tree[key], *[other[key] for other in rest])
        return results
    if known:
        parts = [mapped(f, *parts) for parts in zip(tree, *rest, strict=True)]
        return parts if kind is list else tuple(parts) if kind is tuple else kind(*parts)
    return optree.tree_map(f, tree, *rest)


def gathered(tree: Any) -> list[Any]:
    """`optree.tree_leaves`."""
    found: list[Any] = []
    _gather(tree, found)
    return found


def _gather(tree: Any, found: list[Any]) -> None:
    if isinstance(tree, Tensor):
        found.append(tree)
        return
    if tree is None:
        return
    kind = type(tree)
    if kind is dict:
        for key in tree:
            if type(key) is not str:
                found.extend(optree.tree_leaves(tree))
                return
        for key in sorted(tree):
            _gather(tree[key], found)
    elif kind is list or kind is tuple or _named(kind):
        for part in tree:
            _gather(part, found)
    else:
        found.extend(optree.tree_leaves(tree))


def _named(kind: type[Any]) -> bool:
    return issubclass(kind, tuple) and hasattr(kind, "_fields")


def put_back(like: Any, leaves: list[Any]) -> Any:
    """A tree with the structure of `like` and these leaves."""
    left = list(reversed(leaves))
    tree = mapped(lambda _: left.pop(), like)
    if left:
        raise ValueError(f"tree.unflatten: there are {len(left)} leaves too many")
    return tree
