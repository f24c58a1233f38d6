"""The tasks: real data, a real split, functions that vmap."""

import pytest
import torch
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
    assert (len(tuning.data["train"][1]), len(tuning.data["test"][1])) == (879, 378)

    def digits(*sides):  # the order of pixels by size survives another standardisation
        return {tuple(row.argsort(stable=True).tolist()) for side in sides for row in side[0]}

    seen = digits(*tuning.data.values())
    assert seen <= digits(task.data["train"])
    assert not seen & digits(task.data["test"])


def test_layers_of_one_shape_start_differently():
    params = race.digits_mlp(hidden=64).init(fo.random.key(0))
    assert not torch.equal(params["hidden1.weight"][:32], params["hidden2.weight"])


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: race.digits_mlp(hidden=1), "digits_mlp: hidden must be >= 2, got 1"),
        (lambda: race.digits_cnn(channels=0), "digits_cnn: channels must be >= 1, got 0"),
        (lambda: race.task_named("iris"), "race: no task 'iris'; there are mlp, cnn"),
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
