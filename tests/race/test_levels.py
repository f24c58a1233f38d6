"""Levels of difficulty: the problems are what they say, ours and torch's run them alike, and the page shows its numbers."""

import inspect
import json
import math
from pathlib import Path

import pytest
import torch

import funcopt as fo
from funcopt.__main__ import main
from funcopt.race.levels import KINDS, LEVELS
from funcopt.race.levels.methods import FIRST, LEFT_OUT, METHODS, Method
from funcopt.race.levels.page import as_json, beside, cell, page, total
from funcopt.race.levels.solve import Outcome, best, solve

DOCS = Path(__file__).parents[2] / "docs"
NUMBERS = DOCS / "levels.json"

# Where each is solved: kind -> params at difficulty d.
SOLUTIONS = {
    "quadratic": lambda d: torch.zeros(4, 4),
    "batch": lambda d: torch.zeros(4, 4),
    "saddle": lambda d: -torch.ones(4, 4),
    "plateau": lambda d: torch.zeros(4, 4),
    "vanishing": lambda d: torch.ones(4, 16),
    "exploding": lambda d: torch.ones(4, 16),
    "kink": lambda d: torch.zeros(4, 4),
    "rosenbrock": lambda d: torch.ones(4, 2),
    "beale": lambda d: torch.tensor([3.0, 0.5]).expand(4, 2),
}


def parts(name, level=0):
    """Params at the start of a kind, a draw of its noise, and the difficulty of a level."""
    kind, d = KINDS[name], torch.tensor(float(KINDS[name].levels[level]))
    generator = torch.Generator().manual_seed(level)
    return kind.init(torch.randn(kind.start, generator=generator), d), torch.randn(kind.noise, generator=generator), d


@pytest.mark.parametrize("name", KINDS)
def test_every_level_begins_unsolved_with_matrices_alone(name):
    kind = KINDS[name]
    assert len(kind.levels) == len(LEVELS) == 4 and kind.name == name
    for level in range(4):
        params, z, d = parts(name, level)
        assert all(leaf.dim() == 2 and leaf.dtype == torch.float32 for leaf in params.values())
        assert float(kind.value(params, d)) > 2 * kind.target
        assert kind.objective(params, z, d).shape == () == kind.value(params, d).shape


@pytest.mark.parametrize("name", SOLUTIONS)
@pytest.mark.parametrize("level", range(4))
def test_the_minimum_is_zero_and_where_it_should_be(name, level):
    kind, d = KINDS[name], torch.tensor(float(KINDS[name].levels[level]))
    at = {"x": SOLUTIONS[name](d).clone()}
    assert abs(float(kind.value(at, d))) < 1e-6
    if name != "kink":  # which has a corner there
        assert float(torch.func.grad(kind.value)(at, d)["x"].abs().max()) < 1e-6
    beside = {"x": at["x"] + 0.01 * torch.randn(at["x"].shape, generator=torch.Generator().manual_seed(0))}
    assert float(kind.value(beside, d)) > 0


@pytest.mark.parametrize("name", [name for name in KINDS if name != "xor"])
def test_the_objective_is_the_value_in_the_mean_of_opposite_draws(name):
    params, z, d = parts(name, 1)
    kind = KINDS[name]
    mean = (kind.objective(params, z, d) + kind.objective(params, -z, d)) / 2
    torch.testing.assert_close(mean, kind.value(params, d), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["plateau", "rosenbrock"])
def test_the_rate_that_finds_itself_solves_a_trivial_level_without_noise(name):
    assert solve(KINDS[name], METHODS["rate_free"], seeds=2, levels=1)[0].seeds == 2


def test_every_direction_of_the_quadratic_begins_with_the_same_share():
    quadratic = KINDS["quadratic"]
    for condition in quadratic.levels:
        params = quadratic.init(torch.ones(16), torch.tensor(float(condition)))
        torch.testing.assert_close(quadratic.value(params, torch.tensor(float(condition))), torch.tensor(8.0), rtol=1e-4, atol=0.0)


def test_the_saddle_is_critical_and_flat_and_no_minimum():
    saddle = KINDS["saddle"]
    for order in saddle.levels:
        d = torch.tensor(float(order))
        at = {"x": torch.zeros(4, 4)}
        assert float(torch.func.grad(saddle.value)(at, d)["x"].abs().max()) == 0 and float(saddle.value(at, d)) == 16
        assert float(saddle.value({"x": torch.full((4, 4), -0.5)}, d)) < 16 < float(saddle.value({"x": torch.full((4, 4), 0.5)}, d))


def test_gradients_of_a_chain_by_hand():
    # (x^16 - 1)^2 at 1/2: 2 (P - 1) P / x = -2 * 2^-15 to four digits; at 3/2: P = 656.8
    gradients = [
        torch.func.grad(KINDS["vanishing"].value)({"x": torch.full((4, 16), x)}, torch.tensor(16.0))["x"][0, 0].item() for x in (0.5, 1.5)
    ]
    assert gradients == pytest.approx([-2 * 2**-15, 2 * (1.5**16 - 1) * 1.5**15], rel=1e-3)
    short = torch.func.grad(KINDS["vanishing"].value)({"x": torch.full((4, 16), 0.5)}, torch.tensor(2.0))["x"]
    assert float(short[:, 2:].abs().max()) == 0 and short[0, 0].item() == pytest.approx(2 * (0.25 - 1) * 0.5)


def test_parity_is_what_the_network_is_asked_for():
    # A network that answers with certainty what the running parity is has no loss; -1 stands for a one.
    x = torch.tensor([[-1.0, 1.0, -1.0, -1.0, 1.0, 1.0]])
    params, _, _ = parts("xor")
    from funcopt.race.levels import xor

    odd = (x < 0).cumsum(1) % 2
    assert odd.tolist() == [[1, 1, 0, 1, 1, 1]]
    silent = {name: torch.zeros_like(leaf) for name, leaf in params.items()}
    for d in (2.0, 6.0):
        assert float(xor.mean_loss(silent, x, torch.tensor(d))) == pytest.approx(math.log(2), rel=1e-6)
    assert len(xor.ALL) == 64 and len({tuple(row) for row in xor.ALL.tolist()}) == 64


def test_the_best_rate_is_that_of_most_seeds_then_the_soonest():
    never = math.inf
    table = torch.tensor([[20.0, never], [60.0, 40.0], [40.0, 60.0], [20.0, 100.0]])
    assert best(table, (0.1, 0.2, 0.3, 0.4)) == Outcome(2, 0.2, 60)
    assert best(torch.full((2, 2), never), (0.1, 0.2)) == Outcome(0, None, None)
    assert best(torch.tensor([[20.0, 40.0]]), (math.nan,)) == Outcome(2, None, 40)


@pytest.mark.parametrize("ours", ["sgd", "adamw", "rprop"])
def test_ours_and_torchs_solve_the_same_in_the_same_steps(ours):
    theirs = METHODS[METHODS[ours].torch]
    rates = (0.01, 0.1)
    for name in ("quadratic", "vanishing"):
        found = [solve(KINDS[name], method._replace(rates=rates), seeds=2, levels=2, steps=100) for method in (METHODS[ours], theirs)]
        assert found[0] == found[1] and found[0][0].seeds == 2


def test_a_lane_that_blows_up_leaves_the_others_alone():
    for method in (METHODS["sgd"], METHODS["torch.optim.SGD"]):
        alone, beside = (
            solve(KINDS["exploding"], method._replace(rates=rates), seeds=2, levels=1, steps=60) for rates in ((0.01,), (0.01, 1e3))
        )
        assert alone == beside and alone[0].seeds == 2


def test_the_average_is_looked_at_where_one_is_kept():
    kept = Method(lambda rate, seed: fo.average_params(fo.sgd(rate), "ema", decay=0.999), (0.3,))
    assert solve(KINDS["batch"], METHODS["sgd"]._replace(rates=(0.3,)), seeds=1, levels=1, steps=60)[0].seeds == 1
    assert solve(KINDS["batch"], kept, seeds=1, levels=1, steps=20)[0].seeds == 0  # the average is still near the start


def test_all_that_is_ready_made_takes_part_or_says_why_not():
    ready = {name for name, value in vars(fo.torch_optim).items() if inspect.isclass(value) and name[0].islower()}
    ready |= {"es.clipup", "es.only_selected", "roulette", "sentence", "dpsgd"}
    assert ready - set(METHODS) - set(LEFT_OUT) == set()
    theirs = {name for name, value in vars(torch.optim).items() if inspect.isclass(value) and issubclass(value, torch.optim.Optimizer)} - {
        "Optimizer"
    }
    assert theirs - {name.removeprefix("torch.optim.").partition(",")[0] for name in METHODS} - set(LEFT_OUT) == set()
    assert all(method.torch in METHODS for method in METHODS.values() if method.torch) and set(FIRST) <= set(METHODS)


def test_the_command_keeps_other_rows_made_alike(tmp_path, capsys):
    line = ["race", "levels", "--kinds", "batch", "--seeds", "1", "--out", str(tmp_path), "--only"]
    assert main([*line, "sgd"]) == 0 and main([*line, "torch.optim.SGD"]) == 0
    held = json.loads((tmp_path / "levels.json").read_text())
    assert list(held["results"]) == ["sgd", "torch.optim.SGD"] and held["of_torch"] == {"sgd": "torch.optim.SGD"}
    assert held["results"]["sgd"]["batch"][0][0] == 1
    out = capsys.readouterr().out
    assert "No class of torch.optim ran beside ours" in out and "does not: none." in out and str(tmp_path / "levels.md") in out
    assert (tmp_path / "levels.md").read_text() == page(held)
    assert main([*line[:-2], str(tmp_path), "--seeds", "2", "--only", "sgd"]) == 0  # made otherwise: the old rows are gone
    assert list(json.loads((tmp_path / "levels.json").read_text())["results"]) == ["sgd"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--only", "adamm"], r"race levels: no optimizer 'adamm'; there are rate_free, "),
        (["--kinds", "hill"], r"race levels: no kind 'hill'; there are quadratic, "),
        (["--seeds", "0"], r"race levels: --seeds must be at least 1, got 0"),
    ],
)
def test_says_what_is_wrong(arguments, message, capsys):
    assert main(["race", "levels", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_page_is_made_from_its_numbers():
    found = json.loads(NUMBERS.read_text(encoding="utf-8"))
    assert (DOCS / "levels.md").read_text(encoding="utf-8") == page(found), "python -m funcopt race levels --long --out docs writes both"
    assert NUMBERS.read_text(encoding="utf-8") == as_json(found)
    assert list(found["results"]) == list(METHODS)
    assert list(found["kinds"]) == list(KINDS)
    for name, kind in KINDS.items():
        assert found["kinds"][name] == {"about": kind.about, "number": kind.number, "levels": list(kind.levels), "target": kind.target}


def test_no_trivial_level_that_torch_solves_is_left_unsolved_by_the_method_of_the_same_name():
    found = json.loads(NUMBERS.read_text(encoding="utf-8"))
    assert [row for row in beside(found) if row[3] == "trivial" and row[4] < row[5]] == []


def test_cells_and_totals():
    found = {"seeds": 2, "kinds": {"batch": {}}, "results": {"a": {"batch": [[2, 0.1, 20], [1, 0.1, 40], [2, None, 60], [0, None, None]]}}}
    assert cell(found, "a", "batch") == "T·M·" and total(found, "a") == 2
