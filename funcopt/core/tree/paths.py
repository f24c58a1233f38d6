"""Where a leaf stands in its tree, and where two trees differ.

A path joins keys, indices and field names with dots: "encoder.weight", "0.mu.w"; the path of a bare tensor is "".
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from funcopt.core.tree.structure import Tree, flatten, leaves, structure, unflatten

__all__ = ["assert_alike", "first_difference", "map_with_path", "paths", "paths_of"]


def name_of(entry: Any) -> str:
    for attribute in ("field", "name"):  # NamedTuple and dataclass entries
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    return str(entry.entry)


def paths(tree: Tree) -> list[str]:
    """The path of every leaf, in the order of `leaves`.

    Args:
        tree: any tree.

    Returns:
        A list of strings, with dots between the names; "" for a tree that is one leaf.

    Example:
        >>> fo.tree.paths({"layer": [torch.zeros(1), torch.zeros(2)], "bias": torch.zeros(3)})
        ['bias', 'layer.0', 'layer.1']
    """
    return paths_of(structure(tree))


def paths_of(structure: Any) -> list[str]:
    """The paths of the leaves of every tree of this structure.

    Args:
        structure: what `structure` or `flatten` gave.

    Returns:
        A list of strings, as `paths` gives them.

    Raises:
        TypeError: it is no structure.

    Example:
        >>> fo.tree.paths_of(fo.tree.structure({"layer": {"w": torch.zeros(1)}}))
        ['layer.w']
    """
    accessors = getattr(structure, "accessors", None)
    if accessors is None:
        raise TypeError(f"tree.paths_of: must be given a structure, as tree.structure makes one, got {type(structure).__name__}")
    return [".".join(name_of(entry) for entry in accessor) for accessor in accessors()]


def map_with_path(f: Callable[[str, Any], Any], tree: Tree) -> Tree:
    """`f(path, leaf)` for every leaf.

    Args:
        f: takes the path, with dots between its names, and the leaf.
        tree: any tree.

    Returns:
        A tree of the results.

    Example:
        >>> fo.tree.map_with_path(lambda path, x: path, {"layer": {"w": torch.zeros(1)}})
        {'layer': {'w': 'layer.w'}}
    """
    return unflatten(tree, [f(path, leaf) for path, leaf in zip(paths(tree), leaves(tree), strict=True)])


def first_difference(left: Tree, right: Tree, names: tuple[str, str] = ("the first tree", "the second")) -> str | None:
    """A sentence on the first path at which two trees differ in structure, shape or device; None where they agree.

    Args:
        left: a tree.
        right: the tree it is compared with.
        names: what the sentence calls the two.

    Returns:
        A sentence, or None.

    Example:
        >>> fo.tree.first_difference({"w": torch.zeros(2)}, {"w": torch.zeros(3)})
        "at 'w' the first tree has shape (2,) and the second (3,)"
    """
    ours = dict(zip(paths(left), leaves(left), strict=True))
    theirs = dict(zip(paths(right), leaves(right), strict=True))
    for path in sorted(set(ours) | set(theirs)):
        where = f"'{path}'" if path else "the root"
        if path not in ours:
            return f"at {where} {names[1]} has a leaf and {names[0]} has none"
        if path not in theirs:
            return f"at {where} {names[0]} has a leaf and {names[1]} has none"
        x, y = ours[path], theirs[path]
        if not isinstance(x, Tensor) or not isinstance(y, Tensor):
            if type(x) is not type(y):
                return f"at {where} {names[0]} has a {type(x).__name__} and {names[1]} a {type(y).__name__}"
            continue
        if x.shape != y.shape:
            return f"at {where} {names[0]} has shape {tuple(x.shape)} and {names[1]} {tuple(y.shape)}"
        if x.device != y.device:
            return f"at {where} {names[0]} is on {x.device} and {names[1]} on {y.device}"
    if structure(left) != structure(right):
        return f"the containers differ: {names[0]} is {structure(left)}, {names[1]} {structure(right)}"
    return None


def assert_alike(where: str, left: Tree, right: Tree, names: tuple[str, str] = ("updates", "params")) -> None:
    """Raises a ValueError that names the first path at which two trees differ in structure, shape or device.

    Args:
        where: who asks, at the head of the error.
        left: a tree.
        right: the tree it is compared with.
        names: what the error calls the two.

    Raises:
        ValueError: they differ.
        TypeError: a leaf of either is no tensor.

    Example:
        >>> fo.tree.assert_alike("here", {"w": torch.zeros(2)}, {"w": torch.ones(3)})
        Traceback (most recent call last):
        ValueError: here: updates and params must be alike, but at 'w' updates has shape (2,) and params (3,)
    """
    ours, left_structure = flatten(left)
    theirs, right_structure = flatten(right)
    if left_structure == right_structure:
        for place, (x, y) in enumerate(zip(ours, theirs, strict=True)):
            if not isinstance(x, Tensor) or not isinstance(y, Tensor):
                name, odd, path = (names[1], y, right) if isinstance(x, Tensor) else (names[0], x, left)
                raise TypeError(f"{where}: {name} must be a tree of tensors, got {type(odd).__name__} at '{paths(path)[place]}'")
            if x.shape != y.shape or x.device != y.device:
                break
        else:
            return
    difference = first_difference(left, right, names)
    if difference is not None:
        raise ValueError(f"{where}: {names[0]} and {names[1]} must be alike, but {difference}")
