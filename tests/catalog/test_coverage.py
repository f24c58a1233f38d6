"""`python -m funcopt coverage optax`: every name is here, under its name or told under ours, and the page has a row for those."""

import re
from functools import reduce
from pathlib import Path

import pytest

import funcopt as fo
from funcopt.__main__ import main
from funcopt.catalog.coverage import looked_up, table
from funcopt.catalog.optax_names import MERGED, MUST, SHOULD

PAGE = (Path(__file__).parents[2] / "docs" / "from-optax.md").read_text(encoding="utf-8")


def test_no_name_is_missing():
    assert len(set(MUST)) == len(MUST) == 123 and len(set(SHOULD)) == len(SHOULD) == 153 and len(MERGED) == 3
    assert [row.name for row in table() if row.status == "missing"] == []


@pytest.mark.parametrize("row", [row for row in table() if row.status in ("renamed", "merged")], ids=lambda row: row.name)
def test_what_is_called_otherwise_is_told_is_there_and_has_its_row(row):
    last = row.name.rpartition(".")[2]
    with pytest.raises(AttributeError, match=re.escape(row.here)):
        getattr(fo, last)
    if row.here.startswith("fo."):
        reduce(getattr, re.match(r"[\w.]+", row.here.removeprefix("fo.")).group().split("."), fo)
    rows = [line for line in PAGE.splitlines() if line.startswith("|")]
    assert any(re.search(rf"\b{last}\b", line.split("|")[1]) for line in rows), f"docs/from-optax.md has no row for {last}"


def test_a_state_class_has_the_fields_of_optaxs_in_their_order():
    fields = {
        "ScaleByLBFGSState": "count params updates diff_params_memory diff_updates_memory weights_memory",
        "ScaleByZoomLinesearchState": "learning_rate value grad info",
        "ZoomLinesearchInfo": "num_linesearch_steps decrease_error curvature_error",
        "ScaleByBacktrackingLinesearchState": "learning_rate value grad info",
        "COCOBState": "init_particles cumulative_gradients scale subgradients reward",
        "GaLoreState": "count base_optimizer_state projector",
        "HutchinsonState": "key",
        "SAMState": "steps_since_sync opt_state adv_state cache",
        "SophiaState": "count mu nu hessian_fn_state",
    }
    for name, wanted in fields.items():
        assert getattr(fo, name)._fields[: len(wanted.split())] == tuple(wanted.split()), name


def test_a_name_that_is_nowhere_is_missing():
    assert looked_up("scale_by_nothing_at_all", "MUST").status == "missing"


def test_prints_every_name_and_the_sums(capsys):
    assert main(["coverage", "optax"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(MUST) + len(SHOULD) + len(MERGED) + 3
    assert lines[-3].startswith("MUST: 123 names: ") and "missing" not in "".join(lines[-3:])
    assert main(["coverage", "optax", "--only", "renamed"]) == 0
    assert "scale_by_learning_rate" in capsys.readouterr().out
