"""Every public name says what it takes, what comes back, what it refuses, and shows it; held against its signature."""

import ast
import functools
import inspect
import re
from pathlib import Path

import pytest

import funcopt as fo
from funcopt.catalog.reading import Public, entries, file_of, public_names, sections

NAMES = public_names()
FUNCTIONS = [public for public in NAMES if inspect.isfunction(public.value)]
# Their arguments are those of a function and of torch's class, which have them; what is added to both stands in `Optimizer`.
SHIMS = [public for public in NAMES if inspect.isclass(public.value) and issubclass(public.value, fo.torch_optim.Optimizer)]
CLASSES = [public for public in NAMES if inspect.isclass(public.value) and public not in SHIMS]
SAID_ONCE = {"signals", "init", "update", "forward"}  # methods of which the class, or the protocol, says all


@functools.cache
def defined(file: str) -> dict[str, ast.AST]:
    """The functions and classes of a file by name."""
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    return {node.name: node for node in reversed(list(ast.walk(tree))) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}


def definition(public: Public) -> ast.AST | None:
    """Where a public name is defined; of several of one name the outermost."""
    value = inspect.unwrap(public.value)
    return defined(inspect.getsourcefile(value) or "").get(value.__name__)


def can_refuse(public: Public) -> bool:
    """Whether it raises or checks something itself, or makes a transformation of what it is given."""
    node = definition(public)
    assert node is not None, f"{public.name}: not found in its file"
    if public.makes_transformations and inspect.signature(public.value).parameters:
        return True
    checks = (
        n.func.value.id
        for n in ast.walk(node)
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute) and isinstance(n.func.value, ast.Name)
    )
    return "check" in checks or any(isinstance(n, ast.Raise) and n.exc is not None for n in ast.walk(node))


def lacks(public: Public) -> list[str]:
    """What a function's docstring does not say, or says of an argument that is none."""
    told = sections(public.value)
    takes, said = list(inspect.signature(public.value).parameters), entries(told.get("Args", ""))
    wrong = [f"nothing of {name}" for name in takes if not said.get(name)]
    wrong += [f"{name}, which is no argument" for name in said if name not in takes]
    wanted = {
        "Example": True,
        "Raises": can_refuse(public),
        "Returns": public.value.__annotations__.get("return", ...) not in (None, "None"),
    }
    return wrong + [f"no {title}" for title, needed in wanted.items() if needed and not told.get(title)]


def fields(public: Public) -> list[str]:
    """Fields of a tuple or dataclass that neither their line nor the docstring explains."""
    value = public.value
    names = getattr(value, "_fields", None) or tuple(getattr(value, "__dataclass_fields__", ()))
    node = definition(public)
    if node is None:  # a function made it
        return []
    lines = Path(inspect.getsourcefile(value) or "").read_text(encoding="utf-8").splitlines()
    said = {line.target.id: lines[line.lineno - 1 : line.end_lineno] for line in node.body if isinstance(line, ast.AnnAssign)}
    text = inspect.getdoc(value) or ""
    own = {name for match in re.finditer(r"^ *(\w+(?:, \w+)*): ", text, re.M) for name in match[1].split(", ")}
    return [name for name in names if name in said and name not in own and not any(re.search(r"\s#\s*\S", line) for line in said[name])]


@pytest.mark.parametrize("family", sorted({public.family for public in FUNCTIONS}))
def test_a_function_says_what_it_takes_and_gives_and_refuses_and_shows_it(family):
    wrong = {public.name: found for public in FUNCTIONS if public.family == family and (found := lacks(public))}
    told = "\n".join(f"  fo.{name} ({':'.join(map(str, file_of(fo_value(name))))}): {'; '.join(found)}" for name, found in wrong.items())
    assert not wrong, f"docstrings to complete (CONTRIBUTING.md, Write):\n{told}"


def fo_value(name: str):
    return functools.reduce(getattr, name.split("."), fo)


def test_a_field_of_a_public_class_has_its_line():
    wrong = {public.name: found for public in CLASSES if (found := fields(public))}
    assert not wrong, f"fields without a comment on their line, or a word in the docstring: {wrong}"


def test_a_method_of_a_public_class_has_a_docstring():
    silent = [
        f"{public.name}.{name}"
        for public in CLASSES
        for name, member in vars(public.value).items()
        if not name.startswith("_") and name not in SAID_ONCE
        if (inspect.isfunction(member) or isinstance(member, (property, classmethod, staticmethod)))
        and not inspect.getdoc(getattr(public.value, name))
    ]
    assert not silent, f"methods without a docstring: {', '.join(silent)}"


def test_what_the_shim_adds_to_every_class_stands_in_its_own_docstring():
    takes = [name for name in inspect.signature(fo.torch_optim.Optimizer).parameters if name != "self"]
    said = entries(sections(fo.torch_optim.Optimizer)["Args"])
    assert not [name for name in takes if not said.get(name)]


@pytest.mark.parametrize("public", SHIMS, ids=lambda public: public.name)
def test_a_class_of_torch_shows_an_example_and_names_what_it_runs(public):
    text = inspect.getdoc(public.value) or ""
    assert ">>>" in text and "`" in text, f"{public.name} must show an example and name the function it runs"
