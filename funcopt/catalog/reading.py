"""Reading the public surface: names, files, docstrings, and one instance of each transformation.

Everything comes from the package itself. Source and recurrence are the head of the
file; settings the section Args of a docstring; whether something runs flat, and the
words it hears and says, are asked of the instance that its own example makes. What
neither vmaps nor traces says so in a section Cannot (`vmap: why`, `compile: why`);
the contract in tests/ holds every transformation to what is said or left unsaid there.
"""

import contextlib
import doctest
import importlib
import inspect
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, get_origin

import torch

import funcopt as fo

__all__ = ["Instance", "Public", "entries", "instance", "lookup", "public_names", "sections", "source"]

NAMESPACES = (
    "schedules",
    "rules",
    "es",
    "torch_optim",
    "tree",
    "random",
    "numerics",
    "projections",
    "moments",
    "microbatching",
    "checkpoint",
    "population",
    "distributed",
    "viz",
)
NAMESPACES += ("race",)
SECTION = re.compile(r"^(Args|Returns|Raises|Signals|Cannot|After a NaN|Example|Attributes):$", re.M)


class Public(NamedTuple):
    """A public name: what `fo.` is followed by, what it stands for, and its part of the package."""

    name: str
    value: Any
    family: str

    @property
    def makes_transformations(self) -> bool:
        returns = getattr(self.value, "__annotations__", {}).get("return")
        kind = (
            getattr(fo, returns.partition("[")[0], None)
            if isinstance(returns, str)
            else getattr(returns, "__bound__", None) or get_origin(returns) or returns
        )
        return inspect.isfunction(self.value) and inspect.isclass(kind) and issubclass(kind, fo.GradientTransformation)


def public_names() -> list[Public]:
    """All public names, by family, as `fo` shows them."""
    found = [public for name in dir(fo) if not name.startswith("_") and (public := _public(name, getattr(fo, name, None)))]
    for space in NAMESPACES:
        with contextlib.suppress(ImportError, AttributeError):
            module = getattr(fo, space, None) or importlib.import_module(f"funcopt.{space}")
            names = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
            found += [public for name in names if (public := _public(f"{space}.{name}", getattr(module, name, None), space))]
    order = ("core", "execute", "transforms", "optimizers", "controllers", *NAMESPACES)
    return sorted(found, key=lambda public: (order.index(public.family) if public.family in order else len(order), public.name.lower()))


def _public(name: str, value: Any, space: str | None = None) -> Public | None:
    home = getattr(value, "__module__", None) or ""
    if isinstance(value, ModuleType) or not callable(value) or not str(home).startswith("funcopt."):
        return None
    return Public(name, value, space or home.split(".")[1])


def lookup(name: str) -> Public:
    """The public name asked for, with or without `fo.`; an error that offers those that look alike."""
    import difflib

    name = name.removeprefix("fo.").removeprefix("funcopt.")
    known = {public.name: public for public in public_names()}
    if name in known:
        return known[name]
    inside = [full for full in known if full.rpartition(".")[2] == name]
    if len(inside) == 1:
        return known[inside[0]]
    alike = inside or difflib.get_close_matches(name, known, n=5)
    hint = f"did you mean {', '.join(alike)}?" if alike else "`python -m funcopt list` prints them"
    raise KeyError(f"describe: there is no public name {name!r}; {hint}")


# --- docstrings -----------------------------------------------------------------------------------------------------------------


def sections(value: Any) -> dict[str, str]:
    """The parts of a docstring: "" for what stands before the first section."""
    text = inspect.getdoc(value) or ""
    parts = SECTION.split(text)
    found = {"": parts[0].strip()}
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        found[title] = inspect.cleandoc("\n" + body)
    return found


def entries(section: str) -> dict[str, str]:
    """`name: text` by name; several names before one colon share its text."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines():
        match = re.match(r"([\w*]+(?:, [\w*]+)*): ?(.*)", line)
        if match:
            names = [name.lstrip("*") for name in match[1].split(", ")]
            found.update(dict.fromkeys(names, match[2]))
        elif line.strip():
            for name in names:
                found[name] = f"{found[name]} {line.strip()}"
    return found


def file_of(value: Any) -> tuple[str, int]:
    """The file of a name, from the root of the package, and its line."""
    value = inspect.unwrap(value)
    path = Path(inspect.getsourcefile(value) or "")
    root = Path(fo.__file__).parent.parent
    try:
        line = inspect.getsourcelines(value)[1]
    except OSError:  # a class that a function made: the line that names it
        named = re.compile(rf"^{value.__name__}\b")
        line = next((number for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1) if named.search(text)), 1)
    return (path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name), line


def source(value: Any) -> str:
    """The Source (else the Reference) that the head of the file names, on one line."""
    head = " ".join((inspect.getdoc(inspect.getmodule(value)) or "").split())
    for word in ("Source", "Reference"):
        match = re.search(rf"\b{word}s?: (.*?)(?= (?:Source|Reference)s?: |$)", head)
        if match:
            return match[1]
    return ""


# --- an instance ----------------------------------------------------------------------------------------------------------------


class Instance(NamedTuple):
    """What the example of a factory made, and the words its state says."""

    transformation: fo.GradientTransformation
    says: tuple[str, ...]


class _Recording:
    """`fo`, or a namespace of it, as an example sees it: what one of its functions returns is written down."""

    def __init__(self, name: str, home: Any = fo, made: list[Any] | None = None):
        self._name, self._home = name, home
        self._made: list[Any] = [] if made is None else made

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._home, name)
        if self._name.startswith(f"{name}."):
            return _Recording(self._name.removeprefix(f"{name}."), value, self._made)
        return self._recorded(value) if name == self._name else value

    def _recorded(self, function: Callable) -> Callable:
        def record(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            if isinstance(result, fo.GradientTransformation):
                self._made.append(result)
            return result

        return record


def instance(public: Public) -> Instance | None:
    """Runs the example in a factory's docstring and keeps the transformation it makes; None where it makes none."""
    seen = _Recording(public.name)
    namespace: dict[str, Any] = {"torch": torch, "fo": seen}
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception), torch.random.fork_rng(devices=[]):
        for statement in _statements(public.value):
            exec(statement, namespace)
    if not seen._made:
        return None
    tx = seen._made[0]
    return Instance(tx, tuple(dict.fromkeys(word for state in _states(tx, namespace) for word in fo.read_signals(state))))


def _statements(value: Any) -> Iterator[str]:
    for example in doctest.DocTestParser().get_examples(inspect.getdoc(value) or ""):
        yield example.source


def _states(tx: fo.GradientTransformation, namespace: dict[str, Any]) -> Iterator[Any]:
    """The state that the example made, else a first one."""
    for params in (namespace.get("params"), {"w": torch.zeros(2, 2), "b": torch.zeros(2)}):
        with contextlib.suppress(Exception):
            if params is not None:
                yield tx.init(params)
                return
    if "state" in namespace:
        yield namespace["state"]
