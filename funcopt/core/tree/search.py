"""Looking into the states of transformations, and replacing what stands there, with optax's names: `get`, `get_all_with_path`, `set`.

A key is the name of a field, of a key of a dict, or of the class of a NamedTuple. A path is a tuple of entries, of which
those of a NamedTuple tell its class too. `fo.find`, `find_all` and `replace` do the same with paths that are strings,
and `find` raises where there is nothing.

Reference: optax.tree (0.2.8).
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from funcopt.core.tree.structure import Tree

__all__ = ["DictKey", "NamedTupleKey", "SequenceKey", "get", "get_all_with_path", "set"]


class NamedTupleKey(NamedTuple):
    """An entry of a path: a field, and the class that has it."""

    tuple_name: str  # of the class
    name: str  # of the field

    def __str__(self) -> str:
        return f"{self.tuple_name}.{self.name}"


class DictKey(NamedTuple):
    """An entry of a path: a key of a dict."""

    key: Any  # as it stands in the dict

    def __str__(self) -> str:
        return f"[{self.key!r}]"


class SequenceKey(NamedTuple):
    """An entry of a path: a place in a tuple or a list."""

    idx: int  # from 0

    def __str__(self) -> str:
        return f"[{self.idx}]"


Entry = NamedTupleKey | DictKey | SequenceKey
Path = tuple[Entry, ...]
Filtering = Callable[[Path, Any], bool]


def _entries(node: Tree) -> Iterator[tuple[Entry, Any]]:
    """What stands directly in a node."""
    if hasattr(node, "_fields"):
        yield from ((NamedTupleKey(type(node).__name__, name), part) for name, part in zip(node._fields, node, strict=True))
    elif isinstance(node, dict):
        yield from ((DictKey(key), part) for key, part in node.items())
    elif isinstance(node, (tuple, list)):
        yield from ((SequenceKey(index), part) for index, part in enumerate(node))


def _named(entry: Entry | None, node: Tree) -> tuple[Any, ...]:
    """The keys by which a node is found."""
    by_place = () if entry is None or isinstance(entry, SequenceKey) else (entry.name if isinstance(entry, NamedTupleKey) else entry.key,)
    return (*by_place, type(node).__name__) if hasattr(node, "_fields") else by_place


def get_all_with_path(tree: Tree, key: Any, filtering: Filtering | None = None) -> list[tuple[Path, Any]]:
    """All parts of a state that a key names, as (path, part).

    Args:
        tree: the state of any transformation.
        key: the name of a field, a key of a dict, or the name of the class of a NamedTuple.
        filtering: `(path, part) -> bool`, which of them are meant.

    Returns:
        A list of pairs, those further out first; empty where there is none.

    Example:
        >>> state = fo.chain(fo.trace(0.9), fo.adam(0.1)).init(torch.zeros(1))
        >>> [("".join(map(str, path)), part) for path, part in fo.tree.get_all_with_path(state, "trace")]
        [('[0]TraceState.trace', tensor([0.]))]
    """
    found: list[tuple[Path, Any]] = []

    def walk(path: Path, node: Tree) -> None:
        if key in _named(path[-1] if path else None, node) and (filtering is None or filtering(path, node)):
            found.append((path, node))
        for entry, part in _entries(node):
            walk((*path, entry), part)

    walk((), tree)
    return found


def get(tree: Tree, key: Any, default: Any = None, filtering: Filtering | None = None) -> Any:
    """The one part of a state that a key names.

    Args:
        tree, key, filtering: as in `get_all_with_path`.
        default: what there is instead where nothing is found.

    Returns:
        The part, or `default`.

    Raises:
        KeyError: more than one is found; tells their paths.

    Example:
        >>> state = fo.adam(0.1).init(torch.zeros(2))
        >>> fo.tree.get(state, "mu"), fo.tree.get(state, "trace", "none")
        (tensor([0., 0.]), 'none')
    """
    found = get_all_with_path(tree, key, filtering)
    if len(found) > 1:
        paths = ", ".join("".join(map(str, path)) or "the state itself" for path, _ in found)
        raise KeyError(f"tree.get: {key!r} must name one part of the state, got {len(found)}: {paths}; choose with filtering=")
    return found[0][1] if found else default


def set(tree: Tree, filtering: Filtering | None = None, /, **kwargs: Any) -> Tree:
    """The state with every part that a key names replaced.

    Args:
        tree: the state of any transformation.
        filtering: `(path, part) -> bool`, which of them are meant.
        kwargs: key=new part.

    Returns:
        A state of the same structure; the old one stays as it is.

    Raises:
        KeyError: a key names nothing.

    Example:
        >>> state = fo.trace(0.9).init(torch.zeros(2))
        >>> fo.tree.set(state, trace=torch.ones(2))
        TraceState(trace=tensor([1., 1.]))
    """
    for key in kwargs:
        if not get_all_with_path(tree, key, filtering):
            raise KeyError(f"tree.set: no part of the state is called {key!r}{' where filtering holds' if filtering else ''}")

    def walk(path: Path, node: Tree) -> Tree:
        for key in _named(path[-1] if path else None, node):
            if key in kwargs and (filtering is None or filtering(path, node)):
                return kwargs[key]
        parts = [walk((*path, entry), part) for entry, part in _entries(node)]
        if hasattr(node, "_fields"):
            return type(node)(*parts)
        if isinstance(node, dict):
            return type(node)(zip(node, parts, strict=True))
        return type(node)(parts) if isinstance(node, (tuple, list)) else node

    return walk((), tree)
