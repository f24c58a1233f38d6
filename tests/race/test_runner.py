"""The race: lanes are single runs, seeds are paired, divergence and Ctrl-C are survived, files are whole."""

import json
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.func import grad_and_value

import funcopt as fo
from funcopt import race
from funcopt.race.training import seed_keys, streams

STEPS, SEEDS, BATCH = 7, (4, 9), 400  # three batches make an epoch of 1257: the last epoch is cut short


@pytest.fixture(scope="module")
def task():
    return race.digits_mlp(hidden=8)


def quietly(task, optimizers, **settings):
    return race.run(task, optimizers, **{"seeds": SEEDS, "steps": STEPS, "batch_size": BATCH, "out": None, "progress": False} | settings)


class DicedState(NamedTuple):
    key: Tensor
    dice: Tensor

    def signals(self):
        return {"dice": self.dice}


def diced(seed):
    """A stand-in controller: stretches each step by a random number of its own, and says it."""

    def init(params):
        return DicedState(key=seed, dice=torch.zeros(()))

    def update(updates, state, params=None, **extra):
        dice = fo.random.uniform(state.key, (1,))[0]
        return fo.tree.map(lambda u: (0.5 + dice) * u, updates), DicedState(key=fo.random.fold_in(state.key, 0), dice=dice)

    return fo.chain(fo.GradientTransformation(init, update, name="diced"), fo.sgd(0.1))


def test_a_lane_is_a_run_of_its_own(task):
    run = quietly(task, {"diced": lambda seed: diced(seed)}).runs["diced"]
    inputs, labels = task.data["train"]
    for lane, key in enumerate(seed_keys(SEEDS, task)):
        own = [stream[0] for stream in streams(key[None])]
        params, tx = task.init(own[0]), diced(own[2])
        state = tx.init(params)
        for step in range(STEPS):
            rows = fo.population.permutations(own[1][None], 1257, step // 3)[0][BATCH * (step % 3) : BATCH * (step % 3 + 1)]
            grads, loss = grad_and_value(task.loss)(params, (inputs[rows], labels[rows]))
            updates, state = tx.update(grads, state, params)
            params = fo.apply_updates(params, updates)
            torch.testing.assert_close(run.train_loss[step, lane], loss, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(run.signals["dice"][step, lane], fo.read_signals(state)["dice"])
        loss, accuracy = task.evaluate(params, "test")
        torch.testing.assert_close(run.evaluations["test_loss"][-1, lane], loss, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(run.evaluations["test_accuracy"][-1, lane], accuracy, rtol=0, atol=0.01)


def test_seeds_differ_and_are_the_same_for_every_optimizer(task):
    found = quietly(task, {"slow": fo.sgd(0.0), "adam": fo.adam(1e-2), "diced": lambda seed: diced(seed)})
    first = [run.train_loss[0] for run in found.runs.values()]
    assert first[0][0] != first[0][1]
    assert torch.equal(first[0], first[1]) and torch.equal(first[0], first[2])
    dice = found.runs["diced"].signals["dice"]
    assert (dice[:, 0] != dice[:, 1]).all()
    # With a rate of zero the parameters stay, so later losses show the order of the data: other batches at every step.
    slow = found.runs["slow"].train_loss
    assert len(set(slow[:, 0].tolist())) == STEPS


def test_every_epoch_goes_once_through_all_rows(task):
    order = fo.population.permutations(streams(seed_keys(SEEDS, task)).order, 1257, 0)
    again = fo.population.permutations(streams(seed_keys(SEEDS, task)).order, 1257, 1)
    assert torch.equal(order.sort().values, torch.arange(1257).expand(2, -1))
    assert not torch.equal(order[0], order[1]) and not torch.equal(order[0], again[0])


def test_a_diverged_seed_is_reported_and_leaves_the_others_alone(task):
    def first_lane_explodes(seed):
        wild = seed[0] == streams(seed_keys(SEEDS, task)).seed[0, 0]

        def update(updates, state, params=None, **extra):
            return fo.tree.map(lambda u: torch.where(wild, torch.nan, -0.1 * u), updates), state

        return fo.GradientTransformation(lambda params: fo.EmptyState(), update, name="explodes")

    found = quietly(task, {"calm": fo.sgd(0.1), "wild": first_lane_explodes})
    calm, wild = found.runs["calm"], found.runs["wild"]
    assert wild.diverged.tolist() == [True, False]
    torch.testing.assert_close(wild.train_loss[:, 1], calm.train_loss[:, 1])
    row = found.rows()[1]
    assert row["diverged"] == 1 and row["test_loss"]["n"] == 1 and row["against_baseline"]["test_loss"]["n"] == 1
    assert "1 of 2" in found.table()


def bad(factor):
    return fo.GradientTransformation(
        lambda params: fo.EmptyState(),
        lambda updates, state, params=None, **extra: (fo.tree.map(lambda u: factor * u, updates), state),
        name="bad",
    )


def test_an_optimizer_without_a_living_seed_stops_early(task, tmp_path):
    found = quietly(task, {"calm": fo.sgd(0.1), "wild": bad(torch.nan), "after": fo.sgd(0.1)}, out=tmp_path)
    wild = found.runs["wild"]
    assert wild.diverged.all() and wild.steps < STEPS
    assert found.runs["after"].steps == STEPS
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["optimizers"]["wild"]["train_loss"][0][-1] is None
    assert written["table"][1]["test_loss"]["mean"] is None


def test_a_finite_loss_of_astronomic_size_has_diverged(task):
    # Steps of 1e20 kill the hidden units; what is left has a huge and finite loss.
    run = quietly(task, {"calm": fo.sgd(0.1), "wild": bad(-1e20)}).runs["wild"]
    assert run.diverged.all()


def test_update_is_told_loss_epoch_and_metric(task):
    heard = []

    def update(updates, state, params=None, *, loss, epoch, metric=None, **extra):
        heard.append((epoch, metric is not None))
        return fo.tree.map(lambda u: -loss * u, updates), state

    quietly(task, {"told": fo.GradientTransformation(lambda params: fo.EmptyState(), update, name="told")})
    assert heard == [(0, False)] * 3 + [(1, True)] * 3 + [(2, True)]


def test_results_hold_every_number(task, tmp_path):
    settings = {"labels": {"diced": ["one", "two"]}, "settings": {"sgd": {"rate": 0.1}}}
    found = quietly(task, {"sgd": fo.sgd(0.1), "diced": lambda seed: diced(seed)}, out=tmp_path, **settings)
    assert {path.name for path in tmp_path.iterdir()} == {"results.json", "results.md", "results.html", "race.png"}
    written = json.loads((tmp_path / "results.json").read_text(), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert written["status"] == "complete" and written["seeds"] == list(SEEDS) and written["baseline"] == "sgd"
    assert written["settings"] == {"sgd": {"rate": 0.1}} and "torch" in written["versions"]
    sgd = written["optimizers"]["sgd"]
    assert torch.tensor(sgd["train_loss"]).shape == (2, STEPS)
    torch.testing.assert_close(torch.tensor(sgd["train_loss"]).T, found.runs["sgd"].train_loss, rtol=1e-5, atol=1e-7)
    assert sgd["evaluations"]["step"] == [0, 3, 6, 7] and torch.tensor(sgd["evaluations"]["test_accuracy"]).shape == (2, 4)
    assert sgd["signals"]["lr"] == [[0.1] * STEPS] * 2 and set(written["optimizers"]["diced"]["signals"]) == {"dice", "lr"}
    mean = torch.tensor(sgd["evaluations"]["test_loss"])[:, -1].mean().item()
    assert written["table"][0]["test_loss"]["mean"] == pytest.approx(mean, rel=1e-5)


def test_ctrl_c_says_where_and_keeps_what_there_is(task, tmp_path, capsys):
    calls = []

    def update(updates, state, params=None, **extra):
        calls.append(None)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return fo.tree.map(torch.neg, updates), state

    slow = fo.GradientTransformation(lambda params: fo.EmptyState(), update, name="slow")
    with pytest.raises(KeyboardInterrupt):
        quietly(task, {"first": fo.sgd(0.1), "slow": slow, "never": fo.sgd(0.1)}, out=tmp_path)
    assert f"race: interrupted in slow at step 4 of {STEPS}; finished: first. What there is: " in capsys.readouterr().out
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["status"] == "interrupted" and written["stopped_at"] == {"optimizer": "slow", "step": 4}
    assert list(written["optimizers"]) == ["first", "slow"]
    assert [row["steps"] for row in written["table"]] == [STEPS, 4]


def test_an_interrupted_race_goes_on_where_it_stopped(task, tmp_path):
    calls = []

    def update(updates, state, params=None, **extra):
        calls.append(None)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return fo.tree.map(lambda u: -0.1 * u, updates), state

    optimizers = {"diced": lambda seed: diced(seed), "slow": fo.GradientTransformation(lambda params: fo.EmptyState(), update, name="slow")}
    with pytest.raises(KeyboardInterrupt):
        quietly(task, optimizers, out=tmp_path)
    first = json.loads((tmp_path / "results.json").read_text())
    again = quietly(task, optimizers, out=tmp_path, resume=True)
    assert len(calls) == 5 + STEPS  # the one that was cut off begins anew, the other is not trained again
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["status"] == "complete" and written["optimizers"]["diced"] == first["optimizers"]["diced"]
    torch.testing.assert_close(again.runs["slow"].train_loss, quietly(task, {"sgd": fo.sgd(0.1)}).runs["sgd"].train_loss)


def test_what_is_resumed_is_the_same_race(task, tmp_path):
    with pytest.raises(ValueError, match="race.run: resume=True needs the results.json of the race in out, and there is none in"):
        quietly(task, {"sgd": fo.sgd(0.1)}, out=tmp_path, resume=True)
    quietly(task, {"sgd": fo.sgd(0.1)}, out=tmp_path)
    with pytest.raises(ValueError, match=r"has seeds \[4, 9\], and this one \[4, 10\]; go on with the same"):
        quietly(task, {"sgd": fo.sgd(0.1)}, out=tmp_path, resume=True, seeds=(4, 10))


def test_what_averages_is_looked_at_where_its_average_is(task):
    tx = fo.average_params(fo.sgd(0.5), power=0.0)
    run = quietly(task, {"sgd": fo.sgd(0.5), "averaged": tx})
    plain, averaged = run.runs["sgd"], run.runs["averaged"]
    assert torch.equal(plain.train_loss, averaged.train_loss)
    assert not torch.equal(plain.final("test_loss"), averaged.final("test_loss"))


def test_a_chain_that_cannot_work_is_refused_before_anything_is_trained(task, tmp_path):
    twice = fo.chain(fo.adam(1e-3), fo.lr_scale(0.1))
    with pytest.raises(ValueError, match="'lr'"):
        quietly(task, {"fine": fo.sgd(0.1), "twice": twice}, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_file_is_whole_after_every_optimizer(task, tmp_path):
    seen = []

    def spy(seed):
        path = tmp_path / "results.json"
        seen.append(json.loads(path.read_text()) if path.exists() else None)
        return fo.sgd(0.1)

    quietly(task, {"first": fo.sgd(0.1), "spy": spy}, out=tmp_path)
    assert seen[0] is None  # the rehearsal, before anything is trained or written
    assert all(content["status"] == "running" and list(content["optimizers"]) == ["first"] for content in seen[1:])


def test_the_table_compares_with_the_baseline_asked_for(task):
    found = quietly(task, {"a": fo.sgd(0.1), "b": fo.sgd(0.2)}, baseline="b")
    rows = found.rows()
    assert "against_baseline" in rows[0] and "against_baseline" not in rows[1]
    expected = (found.runs["a"].final("test_loss") - found.runs["b"].final("test_loss")).mean().item()
    assert rows[0]["against_baseline"]["test_loss"]["mean"] == pytest.approx(expected)
    assert "against b, paired by seed" in found.table()


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"seeds": 0}, ValueError, "race.run: seeds must be >= 1, got 0"),
        ({"seeds": ()}, ValueError, "race.run: seeds must hold at least one, got none"),
        ({"seeds": (1, 1)}, ValueError, r"race.run: seeds must differ, got \(1, 1\)"),
        ({"steps": 0}, ValueError, "race.run: steps must be >= 1, got 0"),
        ({"batch_size": 1258}, ValueError, r"race.run: batch_size must be in \[1, 1257\], the rows of digits mlp, got 1258"),
        ({"optimizers": {}}, ValueError, "race.run: optimizers must hold at least one, got none"),
        ({"baseline": "adamw"}, ValueError, "race.run: baseline must be one of sgd, got 'adamw'"),
        ({"optimizers": {"sgd": 0.1}}, TypeError, "race.run: 'sgd' must be a transformation or a function that takes seed="),
        ({"optimizers": {"sgd": fo.sgd(0.1), "late": lambda seed: 1}}, TypeError, "race.run: 'late' must give a transformation, got 1"),
        (
            {"optimizers": {"sgd": fo.sgd(0.1), "late": fo.sgd(None), "later": fo.lr_scale}},
            TypeError,
            "race.run: 'later' must be a transformation or",
        ),
        ({"optimizers": {"sgd": lambda: None}}, TypeError, "race.run: 'sgd' must be a transformation or a function that takes seed="),
    ],
)
def test_says_what_is_wrong(task, change, error, message):
    arguments = {"optimizers": {"sgd": fo.sgd(0.1)}} | change
    with pytest.raises(error, match=message):
        quietly(task, arguments.pop("optimizers"), **arguments)
