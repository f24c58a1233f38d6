"""The structure of trees: the one file, with traced.py, that knows which tree library does the work.

A tree is whatever optree flattens: dict, list, tuple, NamedTuple, and dataclasses
that the user registered with optree. `None` inside a tree is structure, not a leaf.
Keys of a dict are visited in sorted order. A path joins keys, indices and field
names with dots: "encoder.weight", "0.mu.w"; the path of a bare tensor is "".
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, reduce
from typing import Any, TypeVar, overload

import optree
import torch
from torch import Tensor

from funcopt.core.dtypes import steering
from funcopt.core.tree.traced import gathered, mapped, put_back
from funcopt.core.versions import compiling

__all__ = [
    "assert_alike",
    "broadcast_prefix",
    "columns",
    "device",
    "entries_at",
    "first_difference",
    "flatten",
    "leaves",
    "map",
    "map_plain",
    "map_until",
    "map_with_path",
    "paths",
    "paths_of",
    "prune",
    "scalar",
    "scalar_dtype",
    "structure",
    "substitute",
    "subtrees",
    "unflatten",
]

Tree = Any
T = TypeVar("T")


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


def _descend(prefix: Tree, accessor: Any) -> Any:
    """What a prefix says at the place of a leaf, or above it."""
    for entry in accessor:
        if not isinstance(prefix, (dict, list, tuple)):
            break
        prefix = entry(prefix)
    return prefix


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
            path = ".".join(_entry(entry) for entry in accessor)
            raise ValueError(f"{where}: {name} must have the structure of params or a prefix of it, but has nothing at '{path}'") from None
    return found


def unflatten(like: Tree, leaves: list[Any]) -> Tree:
    """A tree with the structure of `like` and these leaves.

    Args:
        like: a tree that has the structure.
        leaves: as many as `like` has, in its order.

    Returns:
        A tree of these leaves.

    Example:
        >>> fo.tree.unflatten({"w": 0, "b": 0}, [torch.tensor(1.5), torch.tensor(2.5)])
        {'w': tensor(2.5000), 'b': tensor(1.5000)}
    """
    return put_back(like, leaves) if compiling() else optree.tree_flatten(like)[1].unflatten(leaves)


def prune(tree: Tree, kept: list[bool], stand_in: Any) -> Tree:
    """The tree with `stand_in`, which has no leaves, for what is not kept; a subtree of which nothing is kept becomes one as a whole.

    (Also because containers that hold nothing but constants do not trace.)

    Args:
        tree: any tree.
        kept: for each leaf, in order, whether it stays.
        stand_in: a node without leaves, such as `fo.MaskedNode()`.

    Returns:
        A tree with fewer leaves.

    Example:
        >>> fo.tree.prune({"w": torch.tensor(1.0), "b": torch.tensor(2.0)}, [True, False], fo.MaskedNode())
        {'w': MaskedNode(), 'b': tensor(2.)}
    """
    if compiling():
        return _pruned(tree, iter(kept), stand_in)
    shown, spec = optree.tree_flatten(tree)
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
    return structure(like).flatten_up_to(tree)


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
    return mapped(f, tree, *rest) if compiling() else optree.tree_map(f, tree, *rest)


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


def _entry(entry: Any) -> str:
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

    Example:
        >>> fo.tree.paths_of(fo.tree.structure({"layer": {"w": torch.zeros(1)}}))
        ['layer.w']
    """
    return [".".join(_entry(entry) for entry in accessor) for accessor in structure.accessors()]


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
        >>> fo.tree.assert_alike("here", {"w": torch.zeros(2)}, {"w": torch.ones(2)})
    """
    ours, left_structure = optree.tree_flatten(left)
    theirs, right_structure = optree.tree_flatten(right)
    if left_structure == right_structure:
        for x, y in zip(ours, theirs, strict=True):
            if not isinstance(x, Tensor) or not isinstance(y, Tensor):
                name, odd, path = (names[1], y, right) if isinstance(x, Tensor) else (names[0], x, left)
                raise TypeError(f"{where}: {name} must be a tree of tensors, got {type(odd).__name__} at '{paths(path)[0]}'")
            if x.shape != y.shape or x.device != y.device:
                break
        else:
            return
    difference = first_difference(left, right, names)
    if difference is not None:
        raise ValueError(f"{where}: {names[0]} and {names[1]} must be alike, but {difference}")


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
    results = [f(*arguments) for arguments in zip(*found, strict=True)]
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
            difference = first_difference(tree, other) or str(error)
            raise ValueError(f"tree.map: the trees must have one structure, but {difference}") from None
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
        return value.to(scalar_dtype(value.device))
    where = like.device if isinstance(like, Tensor) else device(like)
    return torch.full((), value, dtype=scalar_dtype(where), device=where)
