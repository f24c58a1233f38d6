"""average_params and keep_best: weights by hand, against torch.optim.swa_utils, and where the averages are found."""

from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings, strategies as st

import funcopt as fo

F64 = torch.float64


def averages(tx, path):
    """The average after each of these places, to which the optimizer is led step by step."""
    params = torch.zeros(1, dtype=F64)
    state, found = tx.init(params), []
    for place in path:
        updates, state = tx.update(params - place, state, params)
        params = fo.apply_updates(params, updates)
        found.append(float(fo.averaged_params(state, params)))
    return found


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=12), st.sampled_from([0.0, 1.0, 8.0]))
@settings(max_examples=40, deadline=None)
def test_a_polynomial_average_weighs_step_t_by_a_rising_factorial(path, power):
    """(power + 1) / (t + power) at each step is a weight of Gamma(t + power) / Gamma(t), which is t^power for large t."""
    weights = torch.tensor(
        [
            torch.lgamma(torch.tensor(t + power, dtype=F64)) - torch.lgamma(torch.tensor(float(t), dtype=F64))
            for t in range(1, len(path) + 1)
        ]
    ).exp()
    expected = float((weights * torch.tensor(path, dtype=F64)).sum() / weights.sum())
    assert averages(fo.average_params(fo.sgd(1.0), power=power), path)[-1] == pytest.approx(expected, rel=1e-9, abs=1e-9)


class Says(NamedTuple):
    average_share: torch.Tensor

    def signals(self):
        return {"average_share": self.average_share}


def reaching(share):
    """Descends, and says by which share of the usual an average reaches back."""
    said = Says(torch.tensor(share, dtype=F64))
    return fo.chain(
        fo.GradientTransformation(lambda params: said, lambda updates, state, params=None, **extra: (updates, said)), fo.sgd(1.0)
    )


@pytest.mark.parametrize("share", [1.0, 0.5, 0.25])
def test_what_is_wrapped_may_say_by_which_share_the_average_reaches_back(share):
    path = [1.0, -2.0, 0.5, 4.0, 3.0]
    shorter = averages(fo.average_params(reaching(share), power=2.0), path)
    assert shorter == pytest.approx(averages(fo.average_params(fo.sgd(1.0), power=3.0 / share - 1), path))
    ema = [averages(fo.average_params(tx, "ema", decay=0.9), path) for tx in (reaching(share), fo.sgd(1.0))]
    assert ema[0] == ema[1]


def test_an_equal_and_an_exponential_average_are_those_of_torch():
    path = [1.0, -2.0, 0.5, 4.0]
    model = torch.nn.Linear(1, 1, bias=False, dtype=F64)
    equal = torch.optim.swa_utils.AveragedModel(model)
    ours = averages(fo.average_params(fo.sgd(1.0), power=0.0), path)
    for place, expected in zip(path, ours, strict=True):
        model.weight.data.fill_(place)
        equal.update_parameters(model)
        assert equal.module.weight.item() == pytest.approx(expected)
    # Without the bias of its start: the weights 0.1 * 0.9^k sum to 1 - 0.9^t.
    means = averages(fo.average_params(fo.sgd(1.0), "ema", decay=0.9), path)
    raw = 0.0
    for t, (place, mean) in enumerate(zip(path, means, strict=True), 1):
        raw = 0.9 * raw + 0.1 * place
        assert mean == pytest.approx(raw / (1 - 0.9**t))


def test_half_precision_is_averaged_in_float32():
    tx = fo.average_params(fo.sgd(1.0), power=0.0)
    params = torch.ones(1, dtype=torch.bfloat16)
    state = tx.init(params)
    for _ in range(2):  # to 1 + 2^-7 and 1 + 2^-6, with 1 the neighbours in bfloat16; between them it has nothing
        updates, state = tx.update(torch.full((1,), -(2.0**-7), dtype=torch.bfloat16), state, params)
        params = fo.apply_updates(params, updates)
    assert state.average == 1 + 1.5 * 2.0**-7 and state.average.dtype == torch.float32
    assert fo.averaged_params(state, params).dtype == torch.bfloat16


def test_whoever_averages_is_found_and_else_the_params_are_given_back():
    params = {"w": torch.ones(2)}
    inner = fo.chain(fo.clip(1.0), fo.average_params(fo.sgd(0.1)))
    tx = fo.apply_if_finite(inner, 2)
    updates, state = tx.update(params, tx.init(params), params)
    moved = fo.apply_updates(params, updates)
    assert torch.equal(fo.averaged_params(state, moved)["w"], moved["w"])  # the average of one step
    free = fo.schedule_free_sgd(0.1)
    _, state = free.update(params, free.init(params), params)
    assert torch.equal(fo.averaged_params(state, params)["w"], fo.schedule_free_eval_params(state, params)["w"])
    assert fo.averaged_params(fo.sgd(0.1).init(params), params) is params
    outer = fo.average_params(fo.schedule_free_sgd(0.1))
    assert fo.averaged_params(outer.init(params), params)["w"].sum() == 2  # the outer one counts
    nested = {"inner": outer.init(params), "beside": outer.init(params)}
    with pytest.raises(KeyError, match="averaged_params: the state must hold one for each leaf, got inner, beside; wrap the whole in one"):
        fo.averaged_params(nested, params)


def trained(tx: fo.GradientTransformation, params: fo.TensorTree, **told) -> tuple[fo.TensorTree, object]:
    state = tx.init(params)
    for step in range(4):
        gradients = fo.tree.map(lambda p, step=step: p * (1 + step), params)
        updates, state = tx.update(gradients, state, params, **told)
        params = fo.apply_updates(params, updates)
    return params, state


PARTS = {"x": torch.tensor([1.0, -2.0]), "deep": {"y": torch.tensor([[3.0]]), "z": torch.tensor([4.0])}}
AVERAGES = {"average": lambda: fo.average_params(fo.sgd(0.1)), "free": lambda: fo.schedule_free_sgd(0.1)}


@pytest.mark.parametrize("second", [*AVERAGES, "none"])
@pytest.mark.parametrize("first", AVERAGES)
def test_the_groups_of_a_partition_have_each_their_own_average(first, second):
    make = {**AVERAGES, "none": lambda: fo.sgd(0.1)}
    labels = {"x": "a", "deep": {"y": "b", "z": "a"}}
    params, state = trained(fo.partition({"a": make[first](), "b": make[second]()}, labels), PARTS)
    found = fo.averaged_params(state, params)
    for label, kind, part in (("a", first, lambda p: [p["x"], p["deep"]["z"]]), ("b", second, lambda p: [p["deep"]["y"]])):
        alone, own = trained(make[kind](), part(PARTS))
        for got, want in zip(part(found), fo.averaged_params(own, alone), strict=True):
            assert torch.equal(got, want), (label, kind)
    assert torch.equal(torch.func.vmap(fo.averaged_params)(*stacked(state, params))["x"][1], found["x"])


def stacked(*values):
    return [fo.tree.map_plain(lambda x: torch.stack([x, x]), value) for value in values]


def test_what_is_masked_out_of_an_average_is_what_it_is():
    params, state = trained(fo.masked(fo.average_params(fo.sgd(0.1)), {"x": False, "deep": True}), PARTS)
    found = fo.averaged_params(state, params)
    assert found["x"] is params["x"] and not torch.equal(found["deep"]["y"], params["deep"]["y"])
    best, state = trained(fo.masked(fo.keep_best(fo.sgd(0.1)), {"x": False, "deep": True}), PARTS, validation_loss=1.0)
    assert torch.equal(fo.best_params(state, best)["deep"]["z"], PARTS["deep"]["z"])
    assert torch.equal(fo.best_params(state, best)["x"], best["x"])


@pytest.mark.parametrize(
    "other, message",
    [
        ({"x": torch.ones(2)}, "they are PyTreeSpec"),
        ({"x": torch.ones(3), "deep": PARTS["deep"]}, r"a leaf of shape \(2,\) they have of shape \(3,\)"),
        ({"x": {"w": torch.ones(2)}, "deep": PARTS["deep"]}, r"a leaf of shape \(2,\) they have a dict"),
    ],
)
@pytest.mark.parametrize("read", [fo.averaged_params, fo.best_params])
def test_other_params_than_those_of_the_state_are_refused(read, other, message):
    state = fo.average_params(fo.sgd(0.1)).init(PARTS)
    with pytest.raises(ValueError, match="averaged_params: params must be those for which the state was made, but .*" + message):
        read(state, other)


def test_the_best_is_that_of_the_average_and_nan_is_no_best():
    tx = fo.keep_best(fo.average_params(fo.sgd(1.0), power=0.0))
    params = torch.tensor([4.0], dtype=F64)
    state, seen = tx.init(params), []
    for validation in (3.0, None, 2.0, float("nan"), 2.5):
        seen.append(fo.averaged_params(state, params).clone())
        told = {} if validation is None else {"validation_loss": validation}
        updates, state = tx.update(torch.tensor([1.0], dtype=F64), state, params, **told)
        params = fo.apply_updates(params, updates)
    assert torch.equal(fo.best_params(state, params), seen[2])
    words = fo.read_signals(state)
    assert words["best_loss"] == 2.0 and words["best_step"] == 2


def test_without_a_best_the_params_of_now_are_given():
    params = {"w": torch.ones(2)}
    tx = fo.keep_best(fo.sgd(0.1))
    updates, state = tx.update(params, tx.init(params), params)
    moved = fo.apply_updates(params, updates)
    assert torch.equal(fo.best_params(state, moved)["w"], moved["w"])
    assert torch.equal(fo.best_params(fo.sgd(0.1).init(params), moved)["w"], moved["w"])


def test_the_best_of_narrow_params_is_as_narrow():
    tx, params = fo.keep_best(fo.sgd(0.1)), {"w": torch.ones(2, dtype=torch.float16)}
    _, state = tx.update(params, tx.init(params), params, validation_loss=1.0)
    assert fo.best_params(state, params)["w"].dtype == torch.float16
    assert fo.best_params(tx.init(params), params)["w"].dtype == torch.float16


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: fo.average_params(fo.sgd), TypeError, "average_params: tx must be a GradientTransformation"),
        (
            lambda: fo.average_params(fo.sgd(0.1), "equal"),
            ValueError,
            "average_params: weighting must be one of 'polynomial', 'ema', got 'equal'",
        ),
        (lambda: fo.average_params(fo.sgd(0.1), power=-1.0), ValueError, "average_params: power must be >= 0"),
        (lambda: fo.average_params(fo.sgd(0.1), "ema", decay=1.0), ValueError, r"average_params: decay must be in \[0, 1\)"),
        (lambda: fo.keep_best(fo.sgd), TypeError, "keep_best: tx must be a GradientTransformation"),
    ],
)
def test_says_what_is_wrong(call, error, message):
    with pytest.raises(error, match=message):
        call()
