"""The reference has every public name, once, under a page of its own."""

import collections
import re

from funcopt.catalog.reading import public_names
from scripts import pages

ALL = pages.pages()


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
    assert r"\mathrm{ema}_{t} = \beta" in text and "| `signum` | yes | yes | yes | 1 | `lr` | the entry; the entry for ever |" in text
    assert ".. autofunction:: funcopt.signum" in text and "funcopt.torch_optim.signum" in text


def test_what_begins_a_sentence_is_told_without_its_end():
    assert pages.first_sentence(pages.pages) == "All pages, by family and in the order of names."


def test_bad_numbers_are_told_of_every_row_of_their_page():
    told = pages.after_bad_numbers()
    assert told["adam"][0] == "the entry; the entry for ever" and len(told) > 100
