"""Fitness shaping and the constants of recombination against the recorded ones.

Where a record minimises (evosax), its utilities are those of the negated fitness, negated. Where a record makes NaN the
best (pytorch-optimize, OpenAI), ours makes it the worst, and both numbers are shown.
"""

import json

import pytest
import torch

import funcopt as fo
from funcopt.es.shaping.recombination import recombination
from tests.parity.encoding import only_keys
from tests.parity.golden import golden_dir

RECORD = json.loads((golden_dir("es") / "shaping.json").read_text(encoding="utf-8"))
BY_CASE = pytest.mark.parametrize("case", RECORD["cases"], ids=lambda case: case["name"])
CONSTANTS = {"mu_eff": "mu_eff", "c_std": "c_sigma", "d_std": "d_sigma", "c_c": "c_c", "c_1": "c_1", "c_mu": "c_mu", "chi_n": "chi"}
EVOTORCH = {
    "centered": ("centered_rank", {}),
    "linear": ("linear_rank", {}),
    "nes": ("nes", {}),
    "normalized": ("zscore", {"ddof": 1}),
    "raw": ("none", {}),
}


def numbers(values):
    return torch.tensor([float(value) for value in values], dtype=torch.float64)


def close(ours, recorded, tolerance=1e-6):
    torch.testing.assert_close(ours, numbers(recorded), rtol=tolerance, atol=tolerance)


def test_knows_everything_that_was_recorded():
    only_keys("shaping.json", RECORD, {"doc", "cases", "recombination_weights"})
    for case in RECORD["cases"]:
        only_keys(
            case["name"], case, {"name", "fitness", "pytorch_optimize_rank", "openai_centered_rank_matrix", "evotorch", "evosax_minimise"}
        )
        only_keys(case["name"], case.get("evotorch", {}), set(EVOTORCH))
        only_keys(case["name"], case["evosax_minimise"], {"centered_rank", "nes_weights", "nes_utilities", "standardize", "normalize"})
    for record in RECORD["recombination_weights"]:
        only_keys("recombination_weights", record, {"popsize", "dim", "evosax_cma", "evosax_sep_cma"})


@BY_CASE
@pytest.mark.parametrize("record, tie", [("pytorch_optimize_rank", "last"), ("openai_centered_rank_matrix", "ordinal")])
def test_ranks_of_pytorch_optimize_and_openai(case, record, tie):
    fitness, shape = numbers(case["fitness"]), fo.es.shaping("centered_rank", tie=tie)
    missing = fitness.isnan()
    close(shape(torch.where(missing, torch.inf, fitness)), case[record])
    if missing.any():
        assert (numbers(case[record])[missing] == 0.5).all() and (shape(fitness)[missing] == -0.5).all()


@BY_CASE
def test_evotorch(case):
    fitness = numbers(case["fitness"])
    for name, record in case.get("evotorch", {}).items():
        how, options = EVOTORCH[name]
        only_keys(name, record, {"max", "min"})
        # The ranks of what is minimised are those of what is maximised, from the other side.
        close(fo.es.shaping(how, tie="ordinal", **options)(fitness), record["max"])
        close(fo.es.shaping(how, tie="ordinal", **options)(-fitness), record["min"])


@BY_CASE
def test_evosax(case):
    fitness, record = numbers(case["fitness"]), case["evosax_minimise"]
    close(-fo.es.shaping("centered_rank")(-fitness), record["centered_rank"])
    places = torch.arange(len(fitness), dtype=torch.float64)
    close(fo.es.shaping("nes")(-places), record["nes_weights"])
    if record["nes_utilities"] is not None:
        close(fo.es.shaping("nes")(-fitness), record["nes_utilities"])
    finite = fitness.isfinite()  # evosax leaves NaN out of the statistics, ours counts it as the worst value
    for name, how, options in (("standardize", "zscore", {"eps_in_sqrt": True}), ("normalize", "minmax", {})):
        if name in record:
            close(-fo.es.shaping(how, **options)(-fitness[finite]), numbers(record[name])[finite].tolist())
            assert (-fo.es.shaping(how, **options)(-fitness)).isfinite().all()


@pytest.mark.parametrize("record", RECORD["recombination_weights"], ids=lambda record: f"{record['popsize']}-{record['dim']}")
@pytest.mark.parametrize("name, active", [("evosax_cma", True), ("evosax_sep_cma", False)])
def test_recombination(record, name, active):
    ours, theirs = recombination(record["popsize"], record["dim"], active=active), record[name]
    only_keys(name, theirs, {"weights", "c_mean", *CONSTANTS})
    assert theirs["c_mean"] == 1.0
    close(torch.tensor(ours.weights, dtype=torch.float64), theirs["weights"])
    for key, field in CONSTANTS.items():
        assert getattr(ours, field) == pytest.approx(theirs[key], rel=1e-6)
    places = -torch.arange(record["popsize"], dtype=torch.float64)
    close(fo.es.shaping("cma", **({"dim": record["dim"]} if active else {}))(places), theirs["weights"])
