"""What the pages of the documentation show is what comes out, and what they name is there."""

import doctest
import functools
import re
from pathlib import Path

import pytest

import funcopt as fo

DOCS = Path(__file__).parents[1] / "docs"
WRITTEN = [page for page in sorted(DOCS.rglob("*.md")) if page.relative_to(DOCS).parts[0] not in ("_build", "api")]  # the others are made
PAGES = [page for page in WRITTEN if ">>>" in page.read_text(encoding="utf-8")]
NOT_THERE = {"Adam", "multi_transform", "es.CMA_ES"}  # of which a page says that they are not


def named(page):
    return str(page.relative_to(DOCS))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_shows_what_comes_out(page):
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    failed, tried = doctest.testfile(str(page), module_relative=False, optionflags=flags)
    assert tried and not failed, f"{page.name}: {failed} of {tried} examples give something else (see above)"


def is_there(path: str) -> bool:
    try:
        functools.reduce(getattr, path.split("."), fo)
    except AttributeError:
        return path in NOT_THERE
    return True


@pytest.mark.parametrize("page", WRITTEN, ids=named)
def test_what_a_page_names_is_there(page):
    """`fo.NAME` in a sentence or a table, and the second column of a table of names."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    paths = {path.rstrip(".") for code in re.findall(r"`([^`\n]+)`", text) for path in re.findall(r"\bfo\.([A-Za-z_][\w.]*)", code)}
    missing = sorted(path for path in paths if path.rpartition(".")[2] != "NAME" and not is_there(path))
    assert not missing, f"{page.name} names what is not there: {', '.join(missing)}"


MADE = {"levels.md", "evidence.md"}  # by commands, of results


def test_lines_of_prose_fit_an_editor():
    long = []
    for page in [*(page for page in WRITTEN if page.name not in MADE), DOCS.parent / "README.md", DOCS.parent / "CONTRIBUTING.md"]:
        text = re.sub(r"^ *```.*?^ *```", lambda block: "\n" * block[0].count("\n"), page.read_text(encoding="utf-8"), flags=re.M | re.S)
        lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if not line.startswith(("|", "    "))]
        long += [f"{page.name}:{number}" for number, line in lines if len(line) > 140]
    assert not long


def test_links_between_pages_lead_somewhere():
    broken = []
    for page in WRITTEN:
        for target in re.findall(r"\]\(([^)#\s]+\.md)(?:#[\w-]+)?\)", page.read_text(encoding="utf-8")):
            path = (page.parent / target).resolve()
            if not target.startswith("http") and "api" not in path.relative_to(DOCS.parent).parts and not path.exists():
                broken.append(f"{named(page)}: {target}")
    assert not broken
