"""The default race: all seven run, each at a rate that the search chose, and the sentence trains."""

from functools import partial

import pytest
import torch

import funcopt as fo
from funcopt import race
from funcopt.controllers.rate import rate_free
from funcopt.race import defaults, free, tune
from funcopt.race.free import FREE


@pytest.mark.parametrize("task", defaults.RATES)
def test_every_method_runs_and_says_its_words(task):
    optimizers = defaults.factories(task)
    assert list(optimizers) == ["adamw", "sgd", "pilot", "roulette", "aees", "adaptive", "sentence"]
    found = race.run(race.task_named(task), optimizers, seeds=2, steps=2, out=None, progress=False)
    says = {name: set(run.signals) for name, run in found.runs.items()}
    assert all("lr" in words for words in says.values())
    assert {"agreement", "pick", "lr_multiplier"} <= says["sentence"]
    assert not any(run.diverged.any() for run in found.runs.values())


@pytest.mark.parametrize("task", defaults.RATES)
def test_every_method_has_a_rate_from_the_grid(task):
    assert set(defaults.RATES[task]) == set(defaults.METHODS)
    assert set(defaults.RATES[task].values()) <= set(tune.RATES)
    assert min(tune.RATES) < min(defaults.RATES[task].values()) and max(defaults.RATES[task].values()) < max(tune.RATES)


@pytest.mark.parametrize("name", defaults.METHODS)
def test_the_rate_scales_the_whole_method(name):
    def first_step(rate):
        tx = defaults.METHODS[name].make(torch.tensor(rate, dtype=torch.float64), fo.random.key(3))
        params = {"w": torch.zeros(3, dtype=torch.float64)}
        gradient = {"w": torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)}
        return tx.update(gradient, tx.init(params), params, loss=torch.tensor(1.0))[0]["w"]

    torch.testing.assert_close(first_step(0.02), 2 * first_step(0.01))


def test_seeds_of_tuning_and_race_are_apart():
    assert not set(tune.SEEDS) & set(range(100))


def test_the_lowest_rate_that_is_no_worse_than_the_best_wins():
    one = [0.5, 0.7]  # a mean of 0.6 with a standard error of 0.1
    found = tune.lowest_of_the_best(torch.tensor([[0.4, 0.4], [0.51, 0.51], [0.55, 0.55], one, [1.0, torch.nan]]))
    assert found == (1, pytest.approx(0.1))
    assert tune.lowest_of_the_best(torch.tensor([[0.4], [0.6], [0.6]])) == (1, 0.0)
    assert tune.lowest_of_the_best(torch.full((2, 2), torch.nan)) == (0, 0.0)


def test_what_needs_no_rate_runs_on_any_task():
    found = race.run(
        race.task_named("wine"),
        {name: partial(entry.make, None) for name, entry in FREE.items()},
        seeds=2,
        steps=2,
        out=None,
        progress=False,
    )
    assert list(found.runs) == ["rate_free", "schedule_free", "prodigy", "dog", "pilot+find", "roulette+find", "aees+find", "sentence+find"]
    for name in ("rate_free", "pilot+find", "roulette+find", "aees+find", "sentence+find"):
        assert {"rate_multiplier", "held"} <= set(found.runs[name].signals)
    assert {"agreement", "pick", "lr_multiplier"} <= set(found.runs["sentence+find"].signals)


def test_tuning_needs_data_that_are_held_out():
    with pytest.raises(ValueError, match="race.tune: the task must have a split 'validation', got train, test"):
        tune.tune(race.digits_mlp(), {}, progress=False)


@pytest.mark.long
def test_the_sentence_searches_and_decays_as_what_needs_no_rate_does():
    own = rate_free.NADAMW
    assert (free.SEARCH, free.B2, free.DECAY) == (own.find, own.factory["b2"], own.factory["weight_decay"])


def test_the_sentence_trains():
    optimizers = defaults.factories("mlp", ["adamw", "sentence"])
    rows = {row["optimizer"]: row for row in race.run(race.digits_mlp(), optimizers, out=None, progress=False).rows()}
    assert rows["sentence"]["test_accuracy"]["mean"] > rows["adamw"]["test_accuracy"]["mean"] - 0.02
    assert rows["sentence"]["diverged"] == 0
