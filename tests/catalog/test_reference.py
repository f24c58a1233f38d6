"""The reference has every public name, once, under a page of its own, and of every transformation what is measured."""

import ast
import collections
import doctest
import importlib
import inspect
import re
import sys

import pytest

from funcopt.catalog.reading import public_names
from scripts import pages
from tests import zoo

sys.path.insert(0, str(pages.ROOT / "benchmarks"))
methods, searches = importlib.import_module("methods"), importlib.import_module("searches")

ALL = pages.pages()
METHODS = [public for public in public_names() if public.makes_transformations]


def test_every_public_name_stands_on_one_page():
    on = collections.Counter(public.name for page in ALL for public in page.names)
    assert set(on) == {public.name for public in public_names()} and set(on.values()) == {1}


def test_pages_have_names_of_their_own():
    slugs = [page.slug for page in ALL]
    assert len(set(slugs)) == len(slugs)


def test_the_first_page_names_all_but_states_and_links_to_all_pages():
    text = pages.index(ALL)
    named = [public.name for page in ALL for public in page.names if not public.name.endswith("State")]
    assert not [name for name in named if f"`{name} <" not in text]
    assert set(re.findall(r"^([\w-]+)$", text, re.M)) >= {page.slug for page in ALL}


def test_a_page_of_a_method_has_formulas_what_is_measured_and_the_code():
    (page,) = [page for page in ALL if page.slug == "optimizers-signum"]
    text = pages.render(page)
    assert r"\mathrm{ema}_{t} = \beta" in text and "../gallery/valley.png" in text
    rows = {
        "vmaps": "yes",
        "traces": "yes",
        "flat": "yes",
        "bytes of state a parameter": "4",
        "says": "`lr`",
        "after 1e30": "nothing; clean",
    }
    assert not [f"| {head} | {cell} |" for head, cell in rows.items() if f"| {head} | {cell} |" not in text]
    assert ".. autofunction:: funcopt.signum" in text and "funcopt.torch_optim.signum" in text


def test_what_begins_a_sentence_is_told_without_its_end():
    assert pages.first_sentence(pages.pages) == "All pages, by family and in the order of names."


def test_bad_numbers_are_told_of_every_row_of_their_page():
    told = pages.after_bad_numbers()
    assert told["adam"][0] == "the entry; the entry for ever" and len(told) > 100


def test_of_every_transformation_all_is_measured():
    no_gradients = {name for name, reason in zoo.EXEMPT.items() if "batch axis" in reason}  # the page of bad numbers has no rows of them
    lacking = []
    for public in METHODS:
        for head, cell in zip(pages.PROPERTIES, pages.properties_of(public), strict=True):
            if not cell and head != "says" and not (head.startswith("after") and public.name in no_gradients):
                lacking.append(f"{public.name}: {head}")
    assert not lacking


def test_memory_is_that_of_the_states_and_no_row_is_stale():
    rows, told = methods.measured_rows(), pages.costs()["rows"]
    assert set(told) == set(rows), "python benchmarks/methods.py NAMES --json docs/measured.json measures what is new"
    other = {
        name: (told[name]["bytes"], held)
        for name, row in rows.items()
        if (held := round(methods.bytes_held(row), 3)) != told[name]["bytes"]
    }
    assert not other and told["adamw"]["bytes"] == pytest.approx(8, abs=0.001) and told["sgd"]["bytes"] < 0.001


def test_every_search_has_a_row_and_its_memory_is_that_of_its_state():
    rows, told = searches.searches(), pages.searches()
    assert {f"es.{name}" for name in rows} == set(told), (
        "python benchmarks/searches.py NAMES --json docs/searches.json measures what is new"
    )
    assert {name: round(searches.bytes_held(make), 1) for name, make in rows.items()} == {n[3:]: row["bytes"] for n, row in told.items()}
    shown = [page for page in pages.pages() if "a generation beside openai_es" in pages.render(page)]
    assert len(shown) == len(rows)


def test_examples_are_folded_to_the_width_of_a_page_and_stay_what_they_are():
    long = []
    for public in public_names():
        example = (inspect.getdoc(public.value) or "").partition("Example:\n")[2]
        shown = "\n".join(line for told in example.split("\n") for line in pages.folded(told))
        before, after = (doctest.DocTestParser().get_examples(text) for text in (example, shown))
        assert [ast.dump(ast.parse(e.source)) for e in before] == [ast.dump(ast.parse(e.source)) for e in after], public.name
        long += [line for line in shown.split("\n") if len(line) > pages.WIDTH + 20 and line.lstrip().startswith(">>>")]
    assert len(long) < 4, long  # without a comma in brackets


@pytest.mark.parametrize(
    "line, lines",
    [
        (">>> f(1, 2)", [">>> f(1, 2)"]),
        (f"... {'x' * 90}", [f"... {'x' * 90}"]),
        (f">>> f({'a' * 40}, g({'b' * 20}, c), {'d' * 30})", [f">>> f({'a' * 40}, g({'b' * 20}, c),", f"...     {'d' * 30})"]),
        (f">>> {'a' * 50}  # {'b' * 40}", [f">>> # {'b' * 40}", f">>> {'a' * 50}"]),
        ("x" * 99, ["x" * 99]),
    ],
)
def test_a_long_line_is_broken_behind_the_outermost_comma(line, lines):
    assert pages.folded(line) == lines
