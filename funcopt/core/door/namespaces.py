"""Namespaces as users see them: before each function a front door, or, where it runs in every step, a sentence behind it."""

import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import is_dataclass
from types import ModuleType
from typing import Any

from funcopt.core.door.front import opened
from funcopt.core.door.kinds import returns_transformation
from funcopt.core.door.retold import retold
from funcopt.core.door.words import ask

__all__ = ["open_up", "told_outside"]

# What runs in every step, or inside another function's step, checks for itself.
IN_A_STEP = (
    *(f"funcopt.core.{name}" for name in ("apply", "signals", "states", "random", "math", "tree")),
    *(f"funcopt.transforms.{name}" for name in ("accumulate", "adaptive_clip")),
    "funcopt.es.rl.cells",
)


def open_up(namespace: str, prefix: str = "", classes: Sequence[str] = ()) -> Callable[[str], Any]:
    """Puts a front door before the public functions of a namespace, and before the constructors of these classes.

    What runs in every step has none: here it is retold.

    The namespace gets a `__getattr__`, which knows what others call that which it holds. A type checker does not see it,
    and so tells a name that is not there.

    Returns:
        That `__getattr__`.
    """
    shows = vars(sys.modules[namespace])
    for name, value in list(shows.items()):
        if name.startswith("_") or not inspect.isfunction(value) or value.__name__ != name or hasattr(value, "__front__"):
            continue
        home = value.__module__
        if not home.startswith("funcopt."):
            continue
        if home.startswith(IN_A_STEP) and not returns_transformation(value.__annotations__.get("return")):
            shows[name] = _told(value, prefix + name, namespace)
            continue
        there = getattr(sys.modules[home], name, value)  # which another namespace may have opened before
        entered = there if hasattr(there, "__front__") and inspect.unwrap(there) is value else opened(value, prefix + name)
        for place in {namespace, home, home.rpartition(".")[0] if home.startswith("funcopt.es.search.") else home}:
            setattr(sys.modules[place], name, entered)  # where pickles and readers of the source look for it
    for name in classes:
        made = shows[name]
        maker = "__new__" if "__new__" in vars(made) and "__init__" not in vars(made) else "__init__"  # an inherited one, too
        door = opened(getattr(made, maker), prefix + name, skip=1, settings=is_dataclass(made))
        setattr(made, maker, staticmethod(door) if maker == "__new__" else door)
    shows["__getattr__"] = ask(namespace)
    return shows["__getattr__"]


def _told(function: Callable[..., Any], where: str, home: str) -> Callable[..., Any]:
    """The function for outside, found in `home` under the last name of `where`."""
    told = (retold if function.__module__.startswith(IN_A_STEP) else opened)(function, where)
    told.__module__, told.__qualname__ = home, where.rpartition(".")[2]
    return told


def told_outside(module: ModuleType, name: str) -> ModuleType:
    """The namespace `fo.<name>`: what a module lists, each function retold. It can be imported, and its functions pickle by its name."""
    space = ModuleType(f"funcopt.{name}", module.__doc__)
    listed = getattr(module, "__all__", None) or [
        own for own, value in vars(module).items() if not (own.startswith("_") or inspect.ismodule(value))
    ]
    for own in listed:
        value = vars(module)[own]
        vars(space)[own] = _told(value, f"{name}.{own}", space.__name__) if inspect.isfunction(value) else value
    vars(space).update(__all__=list(listed), __file__=module.__file__, __getattr__=ask(space.__name__))
    sys.modules[space.__name__] = space
    return space
