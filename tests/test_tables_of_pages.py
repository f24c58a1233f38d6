"""Calls in the tables of the pages against the code: what is written in our words is called with the arguments that it has."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import funcopt as fo

DOCS = Path(__file__).parents[1] / "docs"
OURS = {"here", "funcopt", "ours"}  # above a column whose code is in our words
CELLS = re.compile(r"(?<!\\)\|")
CODE = re.compile(r"`([^`]+)`")


def tables(text: str) -> Iterator[list[list[str]]]:
    """The tables of a page as rows of cells, the first of them the heads."""
    rows: list[list[str]] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in CELLS.split(line.strip().strip("|"))])
        elif rows:
            yield rows
            rows = []


def told(page: Path) -> Iterator[str]:
    """Every piece of code in a column of ours of a table of a page."""
    for heads, _, *rows in (rows for rows in tables(page.read_text()) if len(rows) > 2):
        ours = [place for place, head in enumerate(heads) if head.strip("*` ").lower() in OURS]
        for row in rows:
            for cell in (row[place] for place in ours if place < len(row)):
                yield from (code.strip() for code in CODE.findall(cell))


def resolved(name: str) -> object | None:
    """What a name stands for: dotted, or bare in the namespace that has it."""
    first, *rest = name.split(".")
    thing: object | None = {"fo": fo, "es": fo.es, "torch": torch}.get(first)
    if thing is None:
        thing = next((getattr(space, first) for space in (fo, fo.schedules, fo.es) if first in dir(space)), None)
    for part in rest:
        thing = getattr(thing, part, None)
    return thing


def calls(code: str) -> Iterator[tuple[str, ast.Call]]:
    """The calls in a piece of code that is an expression, by the names that are called."""
    try:
        whole = ast.parse(code, mode="eval")
    except SyntaxError:
        return
    for node in ast.walk(whole):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


PAGES = sorted(page for page in DOCS.rglob("*.md") if "_build" not in page.parts and "api" not in page.parts)


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(DOCS)) for page in PAGES])
def test_calls_in_tables_have_the_arguments_of_the_code(page):
    for code in told(page):
        for name, call in calls(code):
            function = resolved(name)
            assert function is not None or not name.startswith(("fo.", "es.")), f"`{code}`: there is no {name}"
            if not (inspect.isfunction(function) or inspect.isclass(function)):
                continue
            parameters = inspect.signature(function).parameters.values()
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                strangers = {keyword.arg for keyword in call.keywords} - {None} - {p.name for p in parameters}
                assert not strangers, f"`{code}`: {name} does not take {', '.join(sorted(strangers))}"
            if not any(p.kind is p.VAR_POSITIONAL for p in parameters):
                most = sum(p.kind is not p.KEYWORD_ONLY for p in parameters)
                given = [arg for arg in call.args if ast.unparse(arg) != "..."]
                assert len(given) <= most, f"`{code}`: {name} takes {most} arguments by their places, not {len(given)}"


def test_the_watch_sees_what_is_wrong(tmp_path):
    page = tmp_path / "page.md"
    head = "| there | here |\n|---|---|\n"
    for row, message in (
        ("| x | `es.no_such_search(popsize=3)` |", "there is no es.no_such_search"),
        ("| x | `adamw(lr, betas=(0.9, 0.99))` |", "adamw does not take betas"),
        ("| x | `chain(clip(1.0, 2.0), sgd(0.1))` |", "clip takes 1 arguments by their places, not 2"),
    ):
        page.write_text(head + row + "\n")
        with pytest.raises(AssertionError, match=re.escape(message)):
            test_calls_in_tables_have_the_arguments_of_the_code(page)
    page.write_text(head + "| `es.not_ours(1)` | `fo.chain(clip(1.0), sgd(0.1))`, `es.run(...)` |\n")
    test_calls_in_tables_have_the_arguments_of_the_code(page)
