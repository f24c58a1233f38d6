"""The evidence: seeds are kept apart and picks follow the rules, runs go on, verdicts follow from numbers, the page from the results."""

import json
import math
from pathlib import Path

import pytest

import funcopt as fo
from funcopt.__main__ import main
from funcopt.controllers.rate.rate_free import NADAMW
from funcopt.race.evidence import command, methods, page, protocol, running, store, verdicts
from funcopt.race.evidence.measure import measured
from funcopt.race.evidence.methods import BAR, METHODS, START, Entry

DOCS = Path(__file__).parents[2] / "docs"


def test_seeds_of_tuning_and_test_are_apart_and_ten_tasks_are_there():
    for form, tasks, seeds in (("short", 10, 5), ("long", 10, 10)):
        found = protocol.plans(form)
        assert len(found) >= tasks
        for plan in found.values():
            reported = protocol.seeds(plan, form)
            assert not set(reported) & set(protocol.TUNING_SEEDS)
            assert len(reported) >= (3 if plan.name == "characters_large" else seeds)
    batches = {protocol.prepared(plan).batch_size for plan in protocol.PLANS}
    assert {1, 2, 50, 512} <= batches
    large = [plan.steps["long"] for plan in protocol.plans("long").values() if plan.name == "characters_large"]
    assert large == [1000, 3000]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains(name):
    entry = methods.chosen("long", [name])[name]
    entry = entry._replace(rates=entry.rates[-2:], tuned=False)
    task = protocol.prepared(protocol.Plan("wine", {}))
    result = measured(name, task, entry, 3, (0, 1), False)
    assert [len(row) for row in result["test"]["end"]] == [2] * len(entry.rates)
    assert all(math.isfinite(x) for row in result["train"]["end"] for x in row)


def test_rates_and_steps_are_picked_on_validation_alone():
    task = protocol.prepared(protocol.Plan("wine", {}))
    entry = METHODS["adamw"]
    result = measured("adamw", task, entry, 40, (0, 1), False)
    tried = result["tuning"]["validation"]
    for ending in protocol.ENDINGS:
        means = [math.inf if None in row else sum(row) for row in tried[ending]]
        assert result["rates"][result["picks"][ending]] == protocol.TUNED[means.index(min(means))]
    again = measured("adamw", task, entry._replace(curve=False), 40, (0, 1), False)
    at = again["picks"]["end"]
    assert again["test"]["end"][at] == pytest.approx(result["test"]["end"][result["picks"]["end"]], rel=1e-3)
    # The picked step is a look; the end is the last one.
    assert result["at"][0] == 0 and result["at"][-1] == 40 and set(sum(result["step"], [])) <= set(result["at"])
    assert [row[-1] for row in result["curve"][at]] == pytest.approx(result["test"]["end"][at])


def test_a_lane_that_diverges_has_no_end_and_counts_against_its_method():
    task = protocol.prepared(protocol.Plan("wine", {}))
    exploding = fo.GradientTransformation(
        lambda params: fo.EmptyState(),
        lambda updates, state, params=None, **extra: (fo.tree.map(lambda u: 1e30 * u, updates), state),
        name="exploding",
    )
    result = measured("wild", task, Entry(lambda steps: lambda rate, seed: exploding), 5, (0, 1), False)
    assert result["test"]["end"] == [[None, None]] and None not in result["test"]["picked"][0]
    task = {"methods": {"wild": result, "adamw": made([1.0, 1.0]), "adamw, cosine": made([2.0, 2.0])}}
    assert verdicts.against(task, "wild", "end").mean == math.inf


def made(values, starts=None):
    """A result whose seeds come to `values`, or to `starts[i]` from start i."""
    rows = [values] if starts is None else starts
    default = 0 if starts is None else 1
    each = {"end": rows, "picked": rows}
    return {
        "rates": list(protocol.STARTS)[: len(rows)] if starts else [None],
        "picks": {"end": default, "picked": default},
        "tuning": None,
        "test": each,
        "train": each,
        "step": rows,
        "at": [0, 10, 20],
        "curve": [[[9.0, 2 * x, x] for x in row] for row in rows],
        "found": None,
        "seconds": 1.0,
    }


def tasks(ours, small=False, sentence=(0.9, 1.0)):
    """Ten tasks at whose bar stands 1, of the cosine; a constant rate comes to 1.1."""
    one = {
        "adamw": made([1.1, 1.1]),
        "adamw, cosine": made([0.9, 1.1]),
        "rate_free": made(None, [ours] * 6),
        "sentence+find": made(list(sentence)),
        **{name: made([1.2, 1.4]) for name in methods.RIVALS},
    }
    return {
        f"task {i}": {"methods": one, "small": small, "measure": "loss", "seeds": [0, 1], "tuning_seeds": [9], "versions": {}}
        for i in range(10)
    }


def test_verdicts_follow_from_the_numbers():
    cost = {
        "with": "torch",
        "rows": {"rate": {"ratios": [{"above": "a", "below": "b", "value": 1.2, "low": 1.1, "high": 1.3, "at_most": 1.1}]}},
    }
    ahead = {each.name: each.reached for each in verdicts.of(tasks([0.85, 1.05]), cost, 10)}
    assert ahead == {"E1, from its default start": True, "E1, from every start": True, "E2": True, "E3": True, "E4": False}
    behind = verdicts.of(tasks([0.94, 1.14]), None, 10)
    assert [each.reached for each in behind] == [False, False, True, True, None]
    assert "task 3 from 0.01 (+4.0 %)" in behind[1].told[0]
    assert verdicts.of(tasks([0.94, 1.14], small=True), None, 10)[1].reached  # 4 % is within 5 there
    worse = verdicts.of(tasks([0.85, 1.05], sentence=(1.2, 1.21)), None, 10)[3]
    assert worse.reached is False and "significantly worse on task 0 (+9.5 %)" in worse.told[0]
    assert [each.reached for each in verdicts.of({}, None, 10)] == [None] * 5
    assert [each.reached for each in verdicts.of(tasks([0.85, 1.05]), cost, 12)] == [None] * 4 + [False]


def test_the_bar_is_the_better_of_two_and_the_target_is_where_it_ends():
    task = tasks([0.85, 1.05])["task 0"]
    assert verdicts.bar(task, "end") == BAR[1]
    assert verdicts.target(task, "rate_free") == (20, 1) or verdicts.target(task, "rate_free") == (math.inf, 1)
    assert verdicts.target(task, "prodigy") == (math.inf, 0)


@pytest.fixture
def tiny(monkeypatch):
    plan = protocol.Plan("wine", {"short": 6, "long": 6})
    for part in (protocol, running, page, command):
        monkeypatch.setattr(part, "plans", lambda form: {"wine": plan})


LINE = ["race", "evidence", "--jobs", "1", "--methods", "adamw", "adamw, cosine", "rate_free", "prodigy"]


def test_the_command_prints_the_verdicts_and_goes_on_where_it_stopped(tiny, tmp_path, capsys, monkeypatch):
    calls = []

    def interrupted(name, *arguments):
        calls.append(name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return measured(name, *arguments)

    monkeypatch.setattr(running, "measured", interrupted)
    assert main([*LINE, "--out", str(tmp_path)]) == 130
    assert "the same command goes on" in capsys.readouterr().out
    assert main([*LINE, "--out", str(tmp_path)]) == 0
    told = capsys.readouterr()
    assert calls == [f"wine: {name}" for name in ("adamw", "adamw, cosine", "rate_free", "rate_free", "prodigy")]
    assert (
        "E1, from its default start: " in told.out and "E2: not all of it was run" in told.out and "E4: not all of it was run" in told.out
    )
    assert "wine: rate_free: 6 of 6 steps in" in told.err
    held = json.loads((tmp_path / "short" / "wine.json").read_text())
    assert list(held["methods"]) == ["adamw", "adamw, cosine", "rate_free", "prodigy"] and held["seeds"] == [0, 1, 2, 3, 4]


def test_a_file_of_another_plan_begins_anew(tmp_path):
    plan = protocol.Plan("wine", {"short": 6})
    content = store.held(tmp_path, "wine", plan, "short")
    store.keep(tmp_path, {**content, "methods": {"adamw": {}}})
    assert store.held(tmp_path, "wine", plan, "short")["methods"] == {"adamw": {}}
    assert store.held(tmp_path, "wine", plan._replace(steps={"short": 7}), "short")["methods"] == {}


@pytest.mark.parametrize(
    "line, message",
    [
        (["--tasks", "iris"], "evidence: no task 'iris' in the short form; there are noisy, noisy-2"),
        (["--methods", "adma"], "evidence: no method 'adma'; there are adamw, adamw, cosine"),
        (["--jobs", "0"], "evidence: jobs must be >= 1, got 0"),
    ],
)
def test_says_what_is_wrong(line, message, tmp_path, capsys):
    assert main(["race", "evidence", "--jobs", "1", "--out", str(tmp_path), *line]) == 2
    assert message in capsys.readouterr().err


def test_a_page_needs_results(tmp_path):
    with pytest.raises(ValueError, match="evidence: needs results in"):
        page.write(tmp_path)


def test_the_default_start_and_decay_are_those_of_rate_free():
    assert START in METHODS["rate_free"].rates
    assert methods.OURS_DECAYS == f"adamw, cosine, decay {NADAMW.factory['weight_decay']:g}"


def test_the_page_is_what_the_results_say():
    short, long, cost = page.read(DOCS / "evidence")
    assert short, "no results"
    assert page.text(short, long, cost) == (DOCS / "evidence.md").read_text(encoding="utf-8"), "python -m funcopt race evidence --page"
    assert all((DOCS / "evidence" / name).stat().st_size > 5_000 for name in ("rates.svg", "curves.svg"))


def test_what_is_committed_is_whole():
    short, long, _ = page.read(DOCS / "evidence")
    assert list(short) == list(long) == list(protocol.plans("short"))
    core = {*BAR, *methods.RIVALS, "rate_free", "sentence+find"}
    for form, tasks, wanted in (("short", short, set(methods.chosen("short"))), ("long", long, core)):
        for key, task in tasks.items():
            assert set(task["methods"]) >= wanted, f"{form}, {key} lacks {wanted - set(task['methods'])}"
            assert set(task["methods"]) <= set(METHODS), f"{form}, {key} holds what is no method any more"
            assert store.held(DOCS / "evidence" / form, key, protocol.plans(form)[key], form) == task, "results of another plan"


def test_the_seeds_of_the_long_form_are_none_of_the_others():
    long = set(protocol.TEST_SEEDS["long"])
    assert not long & {*protocol.TEST_SEEDS["short"], *protocol.TUNING_SEEDS} and len(long) == 10


def test_what_there_is_of_the_long_form_stands_beside_the_short_one():
    short, long, _ = page.read(DOCS / "evidence")
    alone, both = page.text(short, {}, None), page.text(short, long, None)
    assert "## Longer" in both and "## Longer" not in alone
    assert "Tasks that were not run: characters_large, 1000 steps" in " ".join(both.split())
    assert page.text({}, long, None).startswith(alone[: alone.index("on 12 tasks")])
