"""What an editor and a type checker know of `fo.torch_optim`, printed: its classes are made from factories while it is imported.

    python scripts/stubs.py           compares; fails where the file is not what the code says
    python scripts/stubs.py --write   writes funcopt/torch_optim/__init__.pyi

Everything is read off the classes themselves: bases, docstrings, and the signatures of their constructors.
"""

import ast
import contextlib
import inspect
import re
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

sys.path.insert(0, str(Path(__file__).parents[1]))

import funcopt as fo
from funcopt.controllers.rate.rate_free import check_direction
from funcopt.core.protocol import Schedule
from funcopt.torch_optim.classes import ready_made
from funcopt.torch_optim.classes.make import FromFactory
from funcopt.torch_optim.groups import Params

ROOT = Path(__file__).resolve().parents[1]
SHOWN = ROOT / "funcopt" / "torch_optim" / "__init__.py"
STUB = SHOWN.with_suffix(".pyi")
HEAD = '''"""What `fo.torch_optim` shows, as `python scripts/stubs.py --write` prints it: its classes are made from factories."""
'''
SECTIONS = ("Args", "Signals", "Raises", "Cannot")  # of a docstring; the others speak of the factory, or show
NAMED = {"Params": Params, "Schedule": Schedule}  # types by name, and where the name stands
HOMES = {"Params": "funcopt.torch_optim.groups", "Schedule": "funcopt.core.protocol"}


class Printer:
    """Prints annotations, and remembers what has to be imported for them."""

    def __init__(self) -> None:
        self.imports: dict[str, set[str]] = {}

    def named(self, module: str, name: str) -> str:
        self.imports.setdefault(module, set()).add(name)
        return name

    def typed(self, annotation: Any) -> str:
        for name, known in NAMED.items():
            if annotation == known:
                return self.named(HOMES[name], name)
        origin, parts = get_origin(annotation), get_args(annotation)
        if annotation in (Any, inspect.Parameter.empty):
            return self.named("typing", "Any")
        if annotation in (None, type(None)):
            return "None"
        if origin is Literal:
            return f"{self.named('typing', 'Literal')}[{', '.join(map(quoted, parts))}]"
        if origin in (Union, types.UnionType):
            return " | ".join(self.union(parts))
        if origin is Callable:
            takes = "..." if parts[0] is ... else f"[{', '.join(map(self.typed, parts[0]))}]"
            return f"{self.named('collections.abc', 'Callable')}[{takes}, {self.typed(parts[1])}]"
        if origin is not None:
            inside = ", ".join("..." if part is ... else self.typed(part) for part in parts)
            return f"{self.typed(origin)}[{inside}]"
        if annotation is Callable:
            return f"{self.named('collections.abc', 'Callable')}[..., {self.typed(Any)}]"
        if not inspect.isclass(annotation):
            raise TypeError(f"an annotation must be a type, got {annotation!r}")
        return annotation.__name__ if annotation.__module__ == "builtins" else self.named(annotation.__module__, annotation.__name__)

    def union(self, parts: tuple[Any, ...]) -> list[str]:
        """The parts of a union, those with a common name under it; None last."""
        told, rest = [], list(parts)
        for name, known in NAMED.items():
            inside = get_args(known) if get_origin(known) in (Union, types.UnionType) else (known,)
            if all(part in rest for part in inside):
                told.append(self.named(HOMES[name], name))
                rest = [part for part in rest if part not in inside]
        plain = [self.typed(part) for part in rest if part is not type(None)]
        return [*plain, *told, *(["None"] if type(None) in rest else [])]

    def constructor(self, kind: type) -> Iterator[str]:
        yield "    def __init__("
        star = False
        for parameter in inspect.signature(kind.__init__).parameters.values():
            if parameter.kind is parameter.KEYWORD_ONLY and not star:
                star = True
                yield "        *,"
            yield f"        {self.parameter(parameter, kind)},"
        yield "    ) -> None: ..."

    def parameter(self, parameter: inspect.Parameter, kind: type) -> str:
        if parameter.name == "self":
            return "self"
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        said = self.inner(kind) if parameter.name == "inner" else self.typed(parameter.annotation)
        default = "" if parameter.default is parameter.empty else f" = {shown(parameter.default)}"
        return f"{stars}{parameter.name}: {said}{default}"

    def inner(self, kind: type) -> str:
        return "InnerWithRate" if kind is fo.torch_optim.rate_free else "Inner"


def quoted(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def shown(default: Any) -> str:
    """A default as it is written; `...` for what is no plain value."""
    if isinstance(default, tuple):
        inside = [shown(part) for part in default]
        return "..." if "..." in inside else f"({', '.join(inside)}{',' if len(inside) == 1 else ''})"
    return quoted(default) if default is None or isinstance(default, (bool, int, float, str)) else "..."


def docstring(kind: type) -> str:
    """What it is, and its sections for whoever calls it; of a class that was made, those of its factory."""
    made, _, factory = (kind.__doc__ or "").partition("\n\n")
    text = factory if made.startswith("`torch.optim.Optimizer` of") else f"{made}\n\n{inspect.cleandoc(factory)}"
    blocks = re.split(r"\n\n(?=\S)", inspect.cleandoc(text))
    blocks.append("Numbers live in the groups; the options are those of `Optimizer`.")
    kept = [block for block in blocks if not (match := re.match(r"(\w[\w ]*):\n", block)) or match[1] in SECTIONS]
    lines = "\n\n".join(kept).replace("\\", "\\\\").splitlines()
    return "\n".join([f'    """{lines[0]}', *(f"    {line}".rstrip() for line in lines[1:]), '    """'])


def inner_names() -> list[str]:
    """What the controllers may be put around."""
    made = [name for name, value in vars(ready_made).items() if inspect.isclass(value) and issubclass(value, FromFactory)]
    return sorted({*made, "pilot"} - {"FromFactory"})


def takes_a_rate(name: str) -> bool:
    """Whether `rate_free` may be put around it."""
    kind = getattr(fo.torch_optim, name)
    with contextlib.suppress(ValueError):
        check_direction("rate_free", kind.build(**kind._defaults()))
        return True
    return False


def alias(name: str, values: list[str]) -> str:
    return "\n".join([f"{name} = Literal[", *(f'    "{value}",' for value in values), "]"])


def imported() -> dict[str, list[str]]:
    """Module -> names, that `__init__.py` imports to show them."""
    found = [node for node in ast.parse(SHOWN.read_text(encoding="utf-8")).body if isinstance(node, ast.ImportFrom)]
    return {node.module or "": [alias.name for alias in node.names if alias.asname == alias.name] for node in found}


def made_here() -> dict[str, type[FromFactory]]:
    """The classes whose constructors say more at run time than their source does."""
    names = [name for names in imported().values() for name in names]
    shims = {name: getattr(fo.torch_optim, name) for name in names}
    return {name: kind for name, kind in shims.items() if inspect.isclass(kind) and issubclass(kind, FromFactory)}


def text() -> str:
    """The whole file."""
    printer, classes = Printer(), []
    printer.named("typing", "Literal")
    for name, kind in sorted(made_here().items()):
        written = bool(kind.handed_on)  # a class statement
        base = f"_{name}" if written else printer.named(FromFactory.__module__, "FromFactory")
        if written:
            printer.named(kind.__module__, f"{name} as _{name}")
        classes.append("\n".join([f"class {name}({base}):", docstring(kind), "", *printer.constructor(kind)]))
    for module, names in imported().items():
        for name in names:
            if name not in made_here():
                printer.named(module, f"{name} as {name}")
    aliases = [alias("Inner", inner_names()), alias("InnerWithRate", list(filter(takes_a_rate, inner_names())))]
    return "\n".join([HEAD, import_lines(printer.imports), "", "\n".join(aliases), "", "\n\n".join(classes), ""])


def import_lines(imports: dict[str, set[str]]) -> str:
    """In the order of isort."""
    groups: list[list[str]] = [[], [], []]
    for module in sorted(imports):
        top = module.partition(".")[0]
        names = sorted(imports[module], key=lambda name: (not name[0].isupper(), name))
        line = f"from {module} import {', '.join(names)}"
        if len(line) > 140:
            line = "\n".join([f"from {module} import (", *(f"    {name}," for name in names), ")"])
        groups[0 if top in sys.stdlib_module_names else 2 if top == "funcopt" else 1].append(line)
    return "\n\n".join("\n".join(group) for group in groups if group)


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--write"]):
        raise SystemExit(__doc__)
    if arguments:
        STUB.write_text(text(), encoding="utf-8")
    elif not STUB.exists() or STUB.read_text(encoding="utf-8") != text():
        print(f"{STUB.relative_to(ROOT)} is not what the code says; write it with: python scripts/stubs.py --write")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
