"""The tasks: real data, a real split, functions that vmap, the recipe of MNIST-1D to the last bit, tasks of one's own."""

import hashlib

import pytest
import torch
from torch import nn
from torch.func import vmap

import funcopt as fo
from funcopt import race


@pytest.mark.parametrize("make", [race.digits_mlp, race.digits_cnn])
def test_init_loss_and_evaluate_run_per_lane(make):
    task = make()
    keys = torch.stack([fo.random.key(seed) for seed in (3, 4)])
    stacked = vmap(task.init)(keys)
    rows = torch.arange(16)
    batch = tuple(column[rows] for column in task.data["train"])
    losses = vmap(task.loss, in_dims=(0, None))(stacked, batch)
    loss, accuracy = vmap(lambda params: task.evaluate(params, "test"))(stacked)
    for lane, key in enumerate(keys):
        alone = task.init(key)
        for name, leaf in alone.items():
            torch.testing.assert_close(stacked[name][lane], leaf)
        torch.testing.assert_close(losses[lane], task.loss(alone, batch))
        torch.testing.assert_close(torch.stack([loss[lane], accuracy[lane]]), torch.stack(task.evaluate(alone, "test")))
    # Nothing is learned yet: the loss is near ln 10 and the accuracy near chance.
    assert 1.8 < losses.min() and losses.max() < 5.0
    assert accuracy.max() < 0.4


def test_the_split_is_fixed_whole_and_standardised():
    task, again = race.digits_mlp(), race.digits_cnn()
    (inputs, labels), (test_inputs, test_labels) = task.data["train"], task.data["test"]
    assert (len(labels), len(test_labels)) == (1257, 540)
    assert torch.equal(inputs, again.data["train"][0]) and torch.equal(test_labels, again.data["test"][1])
    assert abs(inputs.mean()) < 1e-5 and abs(inputs.std() - 1) < 1e-3
    together = {tuple(row.tolist()) for row in inputs} & {tuple(row.tolist()) for row in test_inputs}
    assert not together, "a digit is on both sides"
    # Stratified: every class has its share on both sides.
    assert (torch.bincount(labels) - 1257 / 10).abs().max() < 5
    assert (torch.bincount(test_labels) - 540 / 10).abs().max() < 4


def test_validation_never_sees_the_test_digits():
    task, tuning = race.digits_mlp(), race.digits_mlp(validation=True)
    assert {split: len(labels) for split, (_, labels) in tuning.data.items()} == {"train": 879, "validation": 378, "test": 540}

    def digits(*sides):  # the order of pixels by size survives another standardisation
        return {tuple(row.argsort(stable=True).tolist()) for side in sides for row in side[0]}

    seen = digits(tuning.data["train"], tuning.data["validation"])
    assert seen == digits(task.data["train"])
    assert not seen & digits(task.data["test"]) and digits(tuning.data["test"]) == digits(task.data["test"])


def test_folds_of_a_table_are_other_deals_of_what_is_not_for_the_test():
    def rows(task, *splits):
        scaled = torch.cat([task.data[split][0] for split in splits])
        return {tuple(row) for row in ((scaled - scaled.mean(0)) / scaled.std(0)).mul(100).round().int().tolist()}

    whole, *folds = [fo.race.task_named("wine", fold=fold) for fold in (None, 0, 1)]
    for fold in folds:
        sizes = [len(fold.data[split][0]) for split in ("train", "validation", "test")]
        assert sum(sizes) == sum(len(whole.data[split][0]) for split in ("train", "validation"))
        assert rows(fold, "train", "validation", "test") == rows(whole, "train", "validation")
    assert not torch.equal(folds[0].data["test"][1], folds[1].data["test"][1])
    with pytest.raises(ValueError, match="table_mlp: fold must be >= 0, or None for the split of the race, got -1"):
        fo.race.task_named("wine", fold=-1)


def test_layers_of_one_shape_start_differently():
    params = race.digits_mlp(hidden=64).init(fo.random.key(0))
    assert not torch.equal(params["hidden1.weight"][:32], params["hidden2.weight"])


SMALL = {"characters_large": {"blocks": 2, "width": 16, "context": 12}}


@pytest.mark.parametrize("name", race.TASKS)
def test_every_task_trains_copies_side_by_side_and_is_told_in_its_measure(name):
    task = race.task_named(name, validation=True, **SMALL.get(name, {}))
    assert list(task.data) == ["train", "validation", "test"]
    alone = [task.init(fo.random.key(seed)) for seed in (3, 4)]
    assert all(torch.equal(x, y) for x, y in zip(alone[0].values(), task.init(fo.random.key(3)).values(), strict=True))
    batch = tuple(column[: task.batch_size] for column in task.data["train"])
    stacked = fo.population.stack(alone)
    losses = vmap(task.loss, in_dims=(0, None))(stacked, batch)
    for split in task.data:
        found = vmap(lambda params, split=split: task.evaluate(params, split))(stacked)
        values = torch.stack(found if isinstance(found, tuple) else (found,))
        assert values.isfinite().all() and len(values) == 2 or task.measure == "loss"
    for lane, params in enumerate(alone):
        torch.testing.assert_close(losses[lane], task.loss(params, batch))
    grads = torch.func.grad(task.loss)(alone[0], batch)
    assert all(g.isfinite().all() and g.abs().sum() > 0 for path, g in grads.items() if path not in ("embedding.weight",))


def test_a_fifth_of_the_labels_is_wrong_and_none_that_is_looked_at():
    clean, noisy = race.task_named("mlp", validation=True), race.task_named("noisy")
    wrong = clean.data["train"][1] != noisy.data["train"][1]
    assert wrong.sum() == round(0.2 * 879)
    assert all(torch.equal(clean.data[split][1], noisy.data[split][1]) for split in ("validation", "test"))
    assert (torch.bincount(noisy.data["train"][1][wrong], minlength=10) > 5).all()


def test_mnist1d_is_the_package_s():
    # Of mnist1d 0.0.2.post1: make_dataset()["x"], ["y"], with which the rows agree in every bit.
    from funcopt.race.tasks.mnist1d import rows

    x, y = rows()
    assert x[0, :4].tolist() == pytest.approx([-0.33200567, -0.47191037, -0.77869708, -1.00974083], abs=1e-8)
    assert hashlib.sha256(y.astype("int64").tobytes()).hexdigest()[:12] == "6feec4a01769"
    assert (len(x), y[:10].tolist()) == (5000, [2, 6, 4, 5, 6, 6, 6, 0, 3, 1])


def test_the_characters_are_those_of_the_library_and_follow_one_another():
    from funcopt.race.tasks.characters import ALPHABET

    task = race.task_named("characters")
    before, after = task.data["train"]
    assert torch.equal(before[:, 1:], after[:, :-1])
    text = "".join(ALPHABET[i] for i in before[:3000].flatten())
    assert "class ArgumentParser" in text and len(set(text)) > 80
    windows = [{tuple(row.tolist()) for row in task.data[split][0]} for split in ("validation", "test")]
    assert not windows[0] & windows[1]
    params = task.init(fo.random.key(0))
    assert sum(value.numel() for value in params.values()) == 19_680
    # It is causal: what it answers to eight characters does not depend on those that follow.
    labels = after[:4].clone()
    labels[:, 8:] = -100  # not looked at
    torch.testing.assert_close(task.loss(params, (before[:4], labels)), task.loss(params, (before[:4, :8], after[:4, :8])))


def test_the_large_transformer_has_as_many_params_as_it_says():
    assert sum(value.numel() for value in race.task_named("characters_large").init(fo.random.key(0)).values()) == 826_112


def test_a_name_may_end_in_a_batch():
    assert race.task_named("deep-512").batch_size == 512 and race.task_named("cnn-8").name == "digits cnn, batch 8"
    found = race.run(race.task_named("deep-512"), {"adamw": fo.adamw(1e-3)}, seeds=1, steps=2, out=None, progress=False)
    assert found.batch_size == 512 and "test_accuracy" not in found.runs["adamw"].evaluations and " - " in found.table()


X = torch.linspace(-1, 1, 48)[:, None]


def test_a_model_of_ones_own_in_five_lines():
    mine = race.task(
        lambda: nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)),
        nn.functional.mse_loss,
        train=(X, X.sin()),
        test=(X, X.sin()),
        batch_size=16,
    )
    starts = [mine.init(fo.random.key(seed)) for seed in (0, 0, 1)]
    assert torch.equal(starts[0]["0.weight"], starts[1]["0.weight"]) and not torch.equal(starts[0]["0.weight"], starts[2]["0.weight"])
    found = race.run(mine, {"adam": fo.adam(1e-2)}, seeds=2, steps=150, out=None, progress=False)
    assert found.runs["adam"].final("test_loss").max() < 0.02


def test_ones_own_classes_have_an_accuracy_and_a_module_is_where_all_seeds_start():
    labels = (X[:, 0] > 0).long()
    module = nn.Linear(1, 2)
    mine = race.task(module, train=(X, labels), validation=(X, labels), test=(X, labels))
    assert torch.equal(mine.init(fo.random.key(0))["weight"], module.weight) and torch.equal(
        mine.init(fo.random.key(1))["weight"], module.weight
    )
    loss, accuracy = mine.evaluate(mine.init(fo.random.key(0)), "validation")
    assert loss > 0 and 0 <= accuracy <= 1


def test_ones_own_function_of_params():
    mine = race.task(
        lambda p, x: x * p["w"],
        nn.functional.mse_loss,
        train=(X, 3 * X),
        test=(X, 3 * X),
        init=lambda key: {"w": fo.random.normal(key, (1,))},
    )
    found = race.run(mine, {"sgd": fo.sgd(0.5)}, seeds=2, steps=60, batch_size=48, out=None, progress=False)
    assert found.runs["sgd"].final("test_loss").max() < 1e-6


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"model": 3}, TypeError, "race.task: model must be a Module or a function, got 3"),
        (
            {"model": lambda x: 3},
            TypeError,
            "race.task: model must be a module, a function without arguments that makes one, or, with init=",
        ),
        ({"model": lambda: 3}, TypeError, "race.task: model must make a torch.nn.Module, got 3"),
        (
            {"model": nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))},
            ValueError,
            "race.task: model must neither draw nor keep statistics .* at '1'",
        ),
        ({"model": nn.Dropout(0.5)}, ValueError, "race.task: model must neither draw"),
        ({"train": X}, TypeError, r"race.task: train must be \(inputs, targets\)"),
        (
            {"test": (X, X[:3])},
            ValueError,
            "race.task: test must have as many targets as inputs, at least one, got 48 inputs and 3 targets",
        ),
        ({"loss": 1}, TypeError, "race.task: loss must be a function"),
        ({"init": lambda key: {}}, TypeError, "race.task: with init, model must be a function"),
    ],
)
def test_ones_own_task_says_what_is_wrong(change, error, message):
    arguments = {"model": nn.Linear(1, 1), "loss": nn.functional.mse_loss, "train": (X, X), "test": (X, X)} | change
    with pytest.raises(error, match=message):
        race.task(arguments.pop("model"), arguments.pop("loss"), **arguments)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: race.digits_mlp(hidden=1), "digits_mlp: hidden must be >= 2, got 1"),
        (lambda: race.digits_cnn(channels=0), "digits_cnn: channels must be >= 1, got 0"),
        (lambda: race.task_named("iris"), "race: no task 'iris'; there are mlp, cnn, gru, noisy, .*; noisy-2 is noisy in batches of 2"),
        (lambda: race.task_named("wine-87"), r"race: the batch of 'wine-87' must be in \[1, 86\], the rows of wine"),
        (lambda: race.task_named("noisy", wrong=1.5), r"noisy_digits: wrong must be in \[0, 1\], got 1.5"),
        (lambda: race.task_named("characters", width=30), "character_transformer: width must be a multiple of heads, 4, got 30"),
        (lambda: race.digits_mlp().evaluate({}, "exam"), "digits mlp: no split 'exam'; there are train, test"),
    ],
)
def test_says_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_missing_package_names_the_command_that_brings_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r'race: needs scikit-learn, which is not installed. pip install "funcopt\[race\]" brings it'):
        race.digits_mlp()
