"""Finding and replacing a part of a state by the class of the state or by the name of a field."""

from collections.abc import Callable
from typing import Any

__all__ = ["children", "find", "find_all", "replace"]


def children(state: Any) -> list[tuple[str, Any]]:
    """The parts of a state that stand directly in it, by their names; none of a leaf."""
    if hasattr(state, "_fields"):  # no generators here: the compiler of torch 2.15 loses its way in them
        return list(zip(state._fields, state, strict=True))
    if isinstance(state, dict):
        return [(str(key), value) for key, value in state.items()]
    if isinstance(state, (tuple, list)):
        return [(str(index), value) for index, value in enumerate(state)]
    return []


def _matches(name: str, value: Any, wanted: Any) -> bool:
    if isinstance(wanted, type):
        return isinstance(value, wanted)
    return name == wanted or type(value).__name__ == wanted


def find_all(state: Any, wanted: str | type) -> list[tuple[str, Any]]:
    """All parts of a state that have this class, class name or field name, as (path, part), outermost first.

    Args:
        state: the state of any transformation.
        wanted: a class, or the name of a class or field.

    Returns:
        Pairs of the path, with dots between its names and "" for the state itself, and the part; empty if there is none.

    Example:
        >>> tx = fo.chain(fo.trace(0.9), fo.sgd(0.1, momentum=0.5))
        >>> [path for path, part in fo.find_all(tx.init(torch.zeros(2)), "trace")]
        ['0.trace', '1.0.trace']
    """
    found: list[tuple[str, Any]] = []

    def walk(path: str, name: str, value: Any) -> None:
        if _matches(name, value, wanted):
            found.append((path, value))
        for child, part in children(value):
            walk(f"{path}.{child}" if path else child, child, part)

    walk("", "", state)
    return found


def _names(state: Any) -> str:
    """What could have been asked for: the classes and fields of a state."""
    found: dict[str, None] = {}

    def walk(part: Any) -> None:
        if hasattr(part, "_fields"):
            found.update(dict.fromkeys((type(part).__name__, *part._fields)))
        for child, inner in children(part):
            if isinstance(part, dict):
                found[child] = None
            walk(inner)

    walk(state)
    if not found:
        return f"it has no named parts; give the state of a transformation, not {type(state).__name__}"
    listed = list(found)
    return f"it has {', '.join(listed[:20])}{', ...' if len(listed) > 20 else ''}"


def find(state: Any, wanted: str | type) -> Any:
    """The one part of a state of this class, class name or field name.

    Args:
        state: the state of any transformation.
        wanted: a class, or the name of a class or field.

    Returns:
        That part: a state, a tensor or a tree of tensors.

    Raises:
        KeyError: there is none, or more than one; lists the candidates.

    Example:
        >>> tx = fo.adam(0.1)
        >>> fo.find(tx.init(torch.zeros(2)), "mu")
        tensor([0., 0.])
    """
    found = find_all(state, wanted)
    name = wanted.__name__ if isinstance(wanted, type) else wanted
    if not found:
        raise KeyError(f"find: no part of the state is called '{name}'; {_names(state)}")
    if len(found) > 1:
        raise KeyError(
            f"find: '{name}' must stand for one part of the state, got {len(found)}: "
            f"{', '.join(path or 'the state itself' for path, _ in found)}; use find_all"
        )
    return found[0][1]


def replace(state: Any, wanted: str | type, value: Any | Callable[[Any], Any]) -> Any:
    """The state with every part of this class, class name or field name replaced.

    Args:
        state: the state of any transformation; it is left as it is.
        wanted: a class, or the name of a class or field.
        value: the new part, or a function from the old part to the new.

    Returns:
        A new state of the same structure.

    Raises:
        KeyError: there is no such part.

    Example:
        >>> tx = fo.trace(0.9)
        >>> fo.replace(tx.init(torch.zeros(2)), "trace", torch.ones(2))
        TraceState(trace=tensor([1., 1.]))
    """
    if not find_all(state, wanted):
        raise KeyError(
            f"replace: no part of the state is called '{wanted.__name__ if isinstance(wanted, type) else wanted}'; {_names(state)}"
        )

    def walk(name: str, part: Any) -> Any:
        if _matches(name, part, wanted):
            return value(part) if callable(value) else value
        if hasattr(part, "_fields"):
            return type(part)(*(walk(child, inner) for child, inner in zip(part._fields, part, strict=True)))
        if isinstance(part, dict):
            return type(part)((key, walk(str(key), inner)) for key, inner in part.items())
        if isinstance(part, (tuple, list)):
            return type(part)(walk(str(index), inner) for index, inner in enumerate(part))
        return part

    return walk("", state)
