"""Trees that end above the leaves of others: what is said of a whole subtree at once."""

from typing import Any

import optree

from funcopt.core.tree.mapping import map_plain
from funcopt.core.tree.paths import first_difference, name_of
from funcopt.core.tree.structure import Tree, leaves, structure
from funcopt.core.versions import compiling

__all__ = ["broadcast_prefix", "entries_at"]


def broadcast_prefix(prefix: Tree, tree: Tree, where: str = "tree.broadcast_prefix", name: str = "prefix") -> list[Any]:
    """One entry of `prefix` for every leaf of `tree`; a leaf of `prefix` stands for the whole subtree in its place.

    Args:
        prefix: a tree that ends at or above every leaf of `tree`.
        tree: any tree.
        where: who asks, at the head of the error.
        name: what the error calls `prefix`.

    Returns:
        A list of entries, one for each leaf of `tree` in its order.

    Raises:
        ValueError: `prefix` is not a prefix of `tree`; names the first path that differs.

    Example:
        >>> fo.tree.broadcast_prefix({"a": 1, "b": 2}, {"a": [torch.zeros(1), torch.zeros(1)], "b": torch.zeros(1)})
        [1, 1, 2]
    """
    if compiling():  # a tree of bools or strings is a constant there, and constants do not trace through optree
        return [_descend(prefix, accessor) for accessor in structure(tree).accessors()]
    entries, spec = optree.tree_flatten(prefix)
    try:
        subtrees = spec.flatten_up_to(tree)
    except ValueError as error:
        # Leaves compare as numbers: what counts is where they stand, not that one tree holds tensors and the other bools.
        difference = first_difference(map_plain(lambda _: 0, prefix), map_plain(lambda _: 0, tree), (name, "params"))
        raise ValueError(f"{where}: {name} must have the structure of params or a prefix of it, but {difference or error}") from None
    return [entry for entry, subtree in zip(entries, subtrees, strict=True) for _ in leaves(subtree)]


def entries_at(prefix: Tree, tree: Tree, where: str, name: str) -> list[Any]:
    """What `prefix` says at the place of every leaf of `tree`, or above it; None and what is no dict, list or tuple are entries.

    Unlike `broadcast_prefix` it asks for the leaves of `tree` alone: a tree of which parts are hidden may come with a prefix of the whole.

    Args:
        prefix: a tree, or a part of one, that has something at or above every leaf of `tree`.
        tree: any tree.
        where: who asks, at the head of the error.
        name: what the error calls `prefix`.

    Returns:
        A list of entries, one for each leaf of `tree` in its order.

    Raises:
        ValueError: `prefix` has nothing there; names the path.

    Example:
        >>> fo.tree.entries_at({"a": None, "b": 2, "c": 3}, {"a": torch.ones(1), "b": [torch.ones(1), torch.ones(1)]}, "here", "numbers")
        [None, 2, 2]
    """
    found: list[Any] = []
    for accessor in structure(tree).accessors():
        try:
            found.append(_descend(prefix, accessor))
        except (KeyError, IndexError, TypeError, AttributeError):
            path = ".".join(name_of(entry) for entry in accessor)
            raise ValueError(f"{where}: {name} must have the structure of params or a prefix of it, but has nothing at '{path}'") from None
    return found


def _descend(prefix: Tree, accessor: Any) -> Any:
    """What a prefix says at the place of a leaf, or above it."""
    for entry in accessor:
        if not isinstance(prefix, (dict, list, tuple)):
            break
        prefix = entry(prefix)
    return prefix
