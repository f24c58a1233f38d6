"""`python -m funcopt list` and `describe`: every name is there, and what they say of it is what the contract holds it to."""

import inspect
import os

import pytest

import funcopt as fo
from funcopt.__main__ import main
from funcopt.catalog.listing import COLUMNS, properties, table
from funcopt.catalog.reading import entries, instance, lookup, public_names, sections
from tests.zoo import ROWS


def test_every_public_function_and_class_is_listed():
    listed = {public.name for public in public_names()}
    shown = {
        name
        for name, value in vars(fo).items()
        if callable(value) and getattr(value, "__module__", "").startswith("funcopt.") and name[0] != "_"
    }
    assert not shown - listed, f"not listed: {sorted(shown - listed)}"
    assert {f"schedules.{name}" for name in fo.schedules.__all__} <= listed


def test_what_is_listed_is_what_the_contract_tests():
    for name in sorted({row.name for row in ROWS}):
        listed_as_tested(name, [row for row in ROWS if row.name == name])


def listed_as_tested(name, rows):
    vmaps, traces, flat = properties(lookup(name))
    for what, said in (("vmap", vmaps), ("compile", traces)):
        unable = all(what in row.cannot for row in rows)
        assert unable == (said == "no"), (
            f"{name}: the zoo says {what} {'cannot' if unable else 'can'} be done; its docstring needs a section Cannot: that agrees"
        )
    if flat == "yes" and name not in ("chain", "named_chain", "scoped"):
        assert any(row.make().flattenable for row in rows), f"{name}: its example is flattenable and no row of the zoo is"


def test_settings_are_found_where_they_are_told(capsys):
    assert main(["describe", "adamw"]) == 0
    text = capsys.readouterr().out
    for piece in (
        "funcopt/optimizers/adamw.py:",
        "weight_decay * p_{t-1}",
        "share of the past in the mean of its square, in [0, 1).",
        "says: lr",
        "0.999",
    ):
        assert piece in text
    assert main(["describe", "fo.agreement_policy"]) == 0
    text = capsys.readouterr().out
    assert "momentum_trust" in text and "lr_multiplier" in text


def test_everything_can_be_described(capsys):
    for public in public_names():
        if inspect.getmodule(public.value) is not None and public.name not in ("Schedule", "TensorTree"):
            assert main(["describe", public.name]) == 0, public.name
            assert public.name in capsys.readouterr().out, public.name


def test_a_list_of_one_family_fits_the_line(capsys):
    assert main(["list", "transforms", "--width", "100"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == list(COLUMNS) and all(len(line) <= 100 for line in lines)
    assert all(row[1] == "transforms" for row in table("transforms")[1:])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["describe", "adamv"], "there is no public name 'adamv'; did you mean adam"),
        (["list", "optimisers"], "family must be one of core, execute, transforms"),
    ],
)
def test_says_what_is_wrong(arguments, message, capsys):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_sections_and_entries_of_a_docstring():
    def example():
        """One line.

        Args:
            a, b: first
                and second.
            c: third.

        Cannot:
            vmap: because.
        """

    assert sections(example)[""] == "One line."
    assert entries(sections(example)["Args"]) == {"a": "first and second.", "b": "first and second.", "c": "third."}
    assert entries(sections(example)["Cannot"]) == {"vmap": "because."}


def test_an_instance_knows_its_words():
    made = instance(lookup("reduce_on_plateau"))
    assert made.says == ("plateau_scale",) and made.transformation.flattenable


def test_who_reads_the_first_lines_alone_ends_it_quietly(monkeypatch):
    """`python -m funcopt list | head`"""
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr("sys.stdout", os.fdopen(writer, "w"))
    assert main(["list", "rules"]) == 0
