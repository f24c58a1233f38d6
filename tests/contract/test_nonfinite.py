"""One bad number: what the page and the docstrings say is what is measured, and what the page names keeps it out of every row."""

import inspect

import pytest
import torch

import funcopt as fo
from funcopt.catalog.reading import sections
from scripts import nonfinite
from scripts.nonfinite import BAD, BEFORE, BEGIN, END, KINDS, PAGE, gradients, measure, run
from tests.zoo import ROWS

EVERY_ROW = pytest.mark.parametrize("row", ROWS, ids=[row.id for row in ROWS])
NEVER_MOVE = {"set_to_zero"}


@pytest.fixture(scope="module")
def written():
    """The table of the page: kind -> cell, by the label of a row."""
    lines = [line.strip("| \n").split("|") for line in PAGE.read_text().split(BEGIN)[1].split(END)[0].strip().splitlines()]
    cells = [[cell.strip() for cell in line] for line in lines]
    return {label.strip("` "): dict(zip(KINDS, row, strict=False)) for row in cells[2:] for label in row[-1].split(",")}


def test_the_page_has_every_row(written):
    assert set(written) == {row.id for row in ROWS}


def test_docstrings_say_what_the_page_says(written):
    found = {label: {kind: nonfinite.read(cell) for kind, cell in cells.items()} for label, cells in written.items()}
    for name, line in nonfinite.sentences(found).items():
        assert nonfinite.said(name) == line, f"{name}: python scripts/nonfinite.py --write"


@EVERY_ROW
def test_one_nan_does_what_the_page_says(row, written):
    assert str(measure(row, "NaN")) == written[row.id]["NaN"], "python scripts/nonfinite.py --write"


@pytest.mark.long
@EVERY_ROW
def test_every_bad_number_does_what_the_page_says(row, written):
    for kind in KINDS:
        effect = measure(row, kind)
        assert ("" if effect is None else str(effect)) == written[row.id][kind], f"{kind}: python scripts/nonfinite.py --write"


@pytest.mark.parametrize("row", [row for row in ROWS if "loss" in row.extra(0)], ids=lambda row: row.id)
def test_one_nan_loss_is_forgotten(row):
    assert str(measure(row, "NaN loss")) == "nothing; clean"


def behind(link, tx):
    """The two as in a chain, without the questions of its `init` about words, which links alone cannot answer."""

    def update(updates, state, params=None, **extra):
        updates, before = link.update(updates, state[0], params)
        updates, after = tx.update(updates, state[1], params, **extra)
        return updates, (before, after)

    return fo.GradientTransformation(lambda params: (link.init(params), tx.init(params)), update, name="behind", leaves="any")


def bad_run(row, tx, value):
    return run(tx, row.extra, lambda step: gradients(step, value if step == BEFORE else None), BEFORE + 5)


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=row.id, marks=[pytest.mark.long] * (index % 4 > 0)) for index, row in enumerate(ROWS)]
)
def test_what_the_page_names_keeps_bad_numbers_out(row):
    guards = {
        "NaN": (lambda: fo.apply_if_finite(row.make(), 5), lambda: behind(fo.zero_nans(), row.make())),
        "infinity": (lambda: fo.apply_if_finite(row.make(), 5), lambda: behind(fo.clip(1.0), row.make())),
        "1e30": (lambda: behind(fo.clip(1.0), row.make()),),
    }
    for kind, makers in guards.items():
        for make in makers:
            history = bad_run(row, make(), BAD[kind])
            assert fo.tree.all_finite(history)
            later = fo.tree.map(lambda *steps: torch.stack(steps).abs().amax(0), *history[BEFORE + 1 :])
            assert row.name in NEVER_MOVE or bool(later["w"][0, 1] > 0)


def test_a_skipped_step_leaves_the_state_as_it_was():
    tx = fo.apply_if_finite(fo.adam(0.1), 5)
    params = nonfinite.params()
    _, before = tx.update(gradients(0, None), tx.init(params), params)
    updates, after = tx.update(gradients(1, torch.nan), before, params)
    assert not any(bool(x.any()) for x in fo.tree.leaves(updates))
    assert all(torch.equal(x, y) for x, y in zip(fo.tree.leaves(before.inner_state), fo.tree.leaves(after.inner_state), strict=True))


def test_the_measurement_sees_what_it_is_there_for():
    sticky = fo.GradientTransformation(lambda p: {"sum": fo.tree.zeros_like(p)}, remember, name="sticky")
    row = ROWS[0]._replace(make=lambda: sticky)
    assert str(measure(row, "NaN")) == "the entry; the entry for ever"
    assert str(measure(ROWS[0], "NaN")) == "the entry; clean"
    assert str(measure(ROWS[0]._replace(make=lambda: fo.scale_by_rss()), "1e30")) == "nothing; the entry at 0"


def remember(updates, state, params=None, **extra):
    total = fo.tree.add(state["sum"], updates)
    return total, {"sum": total}


def test_the_sections_stand_where_the_catalog_finds_them():
    assert "After a NaN:" in inspect.getdoc(fo.adam)
    assert "guard with `apply_if_finite`" in sections(fo.adam)["After a NaN"]
