"""The structure of trees, and what is done leaf by leaf without a look at dtypes.

A tree is whatever optree flattens: dict, list, tuple, NamedTuple, and dataclasses
that the user registered with optree. `None` inside a tree is structure, not a leaf.
Keys of a dict are visited in sorted order.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import optree

from funcopt.core.tree.traced import gathered, put_back
from funcopt.core.versions import compiling

__all__ = ["flatten", "leaves", "prune", "structure", "subtrees", "unflatten"]

Tree = Any


def leaves(tree: Tree) -> list[Any]:
    """The leaves of a tree, in its order: that of sequences, and of the sorted keys of dicts.

    Args:
        tree: any tree.

    Returns:
        A list of leaves.

    Example:
        >>> fo.tree.leaves({"w": torch.tensor(1.5), "b": [torch.tensor(2.5)]})
        [tensor(2.5000), tensor(1.5000)]
    """
    return gathered(tree) if compiling() else optree.tree_leaves(tree)


def flatten(tree: Tree) -> tuple[list[Any], Any]:
    """The leaves and the structure of a tree, in one go; `structure.unflatten(leaves)` is the way back (not while compiling).

    Args:
        tree: any tree.

    Returns:
        The list of leaves, and the structure.

    Example:
        >>> leaves, structure = fo.tree.flatten({"w": torch.tensor(1.0), "b": torch.tensor(2.0)})
        >>> structure.unflatten([2 * x for x in leaves])
        {'w': tensor(2.), 'b': tensor(4.)}
    """
    return optree.tree_flatten(tree)


def structure(tree: Tree) -> Any:
    """What is left of a tree without its leaves; compares with `==`.

    Args:
        tree: any tree.

    Returns:
        An object of the tree library.

    Example:
        >>> fo.tree.structure({"w": 1}) == fo.tree.structure({"w": torch.zeros(2)})
        True
    """
    return optree.tree_structure(tree)


def unflatten(like: Tree, leaves: list[Any]) -> Tree:
    """A tree with the structure of `like` and these leaves.

    Args:
        like: a tree that has the structure.
        leaves: as many as `like` has, in its order.

    Returns:
        A tree of these leaves.

    Raises:
        ValueError: `leaves` is no list, or of another length.

    Example:
        >>> fo.tree.unflatten({"w": 0, "b": 0}, [torch.tensor(1.5), torch.tensor(2.5)])
        {'w': tensor(2.5000), 'b': tensor(1.5000)}
    """
    if compiling():
        return put_back(like, leaves)
    whole = optree.tree_flatten(like)[1]
    try:
        return whole.unflatten(leaves)
    except (TypeError, ValueError):
        got = f"{len(leaves)}" if isinstance(leaves, (list, tuple)) else type(leaves).__name__
        raise ValueError(f"tree.unflatten: leaves must be a list of as many as `like` has, {whole.num_leaves}, got {got}") from None


def subtrees(tree: Tree, like: Tree) -> list[Any]:
    """What stands in a tree in place of each leaf of `like`.

    Args:
        tree: any tree.
        like: a tree that ends where the subtrees begin.

    Returns:
        A list, in the order of the leaves of `like`.

    Raises:
        ValueError: the tree has not the structure of `like` above these leaves.

    Example:
        >>> fo.tree.subtrees({"a": [1, 2], "b": 3}, {"a": 0, "b": 0})
        [[1, 2], 3]
    """
    try:
        return structure(like).flatten_up_to(tree)
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"tree.subtrees: the tree must have the structure of `like` above its leaves: {reason}") from None


def prune(tree: Tree, kept: list[bool], stand_in: Any) -> Tree:
    """The tree with `stand_in`, which has no leaves, for what is not kept; a subtree of which nothing is kept becomes one as a whole.

    (Also because containers that hold nothing but constants do not trace.)

    Args:
        tree: any tree.
        kept: for each leaf, in order, whether it stays.
        stand_in: a node without leaves, such as `fo.MaskedNode()`.

    Returns:
        A tree with fewer leaves.

    Raises:
        ValueError: `kept` has not one bool for each leaf.

    Example:
        >>> fo.tree.prune((torch.tensor(2.0), torch.tensor(1.0)), [True, False], fo.MaskedNode())
        (tensor(2.), MaskedNode())
    """
    if compiling():
        return _pruned(tree, iter(kept), stand_in)
    shown, spec = optree.tree_flatten(tree)
    if len(kept) != len(shown):
        raise ValueError(f"tree.prune: kept must have a bool for each of {len(shown)} leaves, got {len(kept)}")
    return _outline(spec, tuple(kept), stand_in).unflatten([x for x, keep in zip(shown, kept, strict=True) if keep])


@lru_cache(maxsize=1024)
def _outline(structure: Any, kept: tuple[bool, ...], stand_in: Any) -> Any:
    return optree.tree_structure(_pruned(structure.unflatten([0] * structure.num_leaves), iter(kept), stand_in))


def _pruned(node: Tree, kept: Iterator[bool], stand_in: Any) -> Tree:
    if optree.tree_is_leaf(node):
        return node if next(kept) else stand_in
    children, metadata, _, unflatten = optree.tree_flatten_one_level(node)
    parts = [_pruned(child, kept, stand_in) for child in children]
    if parts and all(part is stand_in or not leaves(part) for part in parts):  # hidden before counts as hidden
        return stand_in
    return unflatten(metadata, parts)
