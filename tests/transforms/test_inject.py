"""inject_hyperparams: what becomes a hyperparameter, what does not, and what the state is good for."""

from functools import partial

import pytest
import torch
from torch._dynamo.testing import CompileCounter

import funcopt as fo

PARAMS = {"w": torch.tensor([1.0, -2.0], dtype=torch.float64), "b": torch.tensor([0.5], dtype=torch.float64)}
GRADS = {"w": torch.tensor([0.3, -0.1], dtype=torch.float64), "b": torch.tensor([2.0], dtype=torch.float64)}


def run(tx, steps=3, params=PARAMS, state=None):
    state = tx.init(params) if state is None else state
    for _ in range(steps):
        updates, state = tx.update(GRADS, state, params)
        params = fo.apply_updates(params, updates)
    return params, state


def assert_same(left, right, **tolerance):
    for x, y in zip(fo.tree.leaves(left), fo.tree.leaves(right), strict=True):
        torch.testing.assert_close(x, y, **tolerance)


def test_with_constants_it_is_the_optimizer_itself():
    plain, _ = run(fo.adamw(0.1, weight_decay=0.01))
    injected, state = run(fo.inject_hyperparams(fo.adamw)(0.1, weight_decay=0.01))
    assert_same(injected, plain)
    assert sorted(state.hyperparams) == ["b1", "b2", "eps", "eps_root", "lr", "weight_decay"]
    assert all(value.dtype == torch.float64 and value.dim() == 0 for value in state.hyperparams.values())


def test_every_number_may_be_a_schedule():
    # b1 is 1/2 in the first step and 0 in the second: mu = g / 2, then g; corrected by 1 - b1^t both are g.
    tx = fo.inject_hyperparams(fo.adam)(lr=lambda count: 0.1 * (count + 1), b1=lambda count: torch.where(count < 1, 0.5, 0.0))
    _, state = run(tx, steps=2)
    assert_same(state.hyperparams["lr"], torch.tensor(0.2, dtype=torch.float64))
    assert_same(fo.find(state, "mu"), GRADS)
    assert state.count == 2 and state.hyperparams_states["b1"].count == 2


def test_a_mask_function_stays_a_mask():
    def only_w(params):
        return {"w": True, "b": False}

    plain, _ = run(fo.adamw(0.1, weight_decay=0.5, weight_decay_mask=only_w))
    injected, _ = run(fo.inject_hyperparams(fo.adamw)(0.1, weight_decay=0.5, weight_decay_mask=only_w))
    assert_same(injected, plain)


def test_what_is_off_unless_asked_for_stays_off():
    tx = fo.inject_hyperparams(fo.sgd)(0.1)
    state = tx.init(PARAMS)
    tx.update(GRADS, state)  # a decay of the tensor 0 would ask for the params
    assert sorted(state.hyperparams) == ["lr"]


def test_a_number_in_the_state_can_be_replaced():
    tx = fo.inject_hyperparams(fo.sgd)(0.1)
    _, state = run(tx, steps=1)
    state = state._replace(hyperparams=state.hyperparams | {"lr": torch.tensor(2.0, dtype=torch.float64)})
    updates, state = tx.update(GRADS, state, PARAMS)
    assert_same(updates, fo.tree.scale(-2.0, GRADS))
    assert fo.read_signals(state)["lr"] == 2.0


def test_a_bfloat16_model_keeps_b2():
    tx = fo.inject_hyperparams(fo.adam)(0.1)
    state = tx.init(fo.tree.cast(PARAMS, torch.bfloat16))
    assert state.hyperparams["b2"] == 0.999
    assert fo.inject_hyperparams(fo.adam, hyperparam_dtype=torch.float32)(0.1).init(PARAMS).hyperparams["b2"].dtype == torch.float32


def test_static_args_are_left_alone():
    _, state = run(fo.inject_hyperparams(fo.sgd, "momentum")(0.1, momentum=0.9))
    assert sorted(state.hyperparams) == ["lr"]


def test_factories_without_annotations_give_their_floats():
    def halved(lr, power, **rest):
        return fo.chain(fo.scale(0.5), fo.sgd(lr, **rest))

    _, state = run(fo.inject_hyperparams(halved)(0.1, 2, momentum=0.5))
    assert sorted(state.hyperparams) == ["lr", "momentum"]


def test_a_partial_is_a_factory():
    _, state = run(fo.inject_hyperparams(partial(fo.adamw, lr=0.1))(b1=0.5))
    assert state.hyperparams["lr"] == 0.1 and state.hyperparams["b1"] == 0.5


def test_the_factory_draws_its_seed_once():
    def noisy(lr, seed=None):
        key = fo.random.as_key(seed, "noisy")

        def update(updates, state, params=None, **extra):
            return fo.tree.map(lambda g: lr * (g + fo.random.normal(key, g.shape, g.dtype)), updates), state

        return fo.GradientTransformation(lambda params: fo.EmptyState(), update, name="noisy")

    tx = fo.inject_hyperparams(noisy)(0.1)
    generator = torch.get_rng_state()
    state = tx.init(PARAMS)
    first, second = (tx.update(GRADS, state, PARAMS)[0] for _ in range(2))
    assert_same(first, second, rtol=0.0, atol=0.0)
    assert torch.equal(torch.get_rng_state(), generator)
    assert not torch.equal(fo.inject_hyperparams(noisy)(0.1).update(GRADS, state, PARAMS)[0]["w"], first["w"])


def test_the_derivative_by_a_hyperparameter_passes():
    lr = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    params, _ = run(fo.inject_hyperparams(fo.sgd)(lr), steps=2)
    (slope,) = torch.autograd.grad(params["b"].sum(), lr)
    torch.testing.assert_close(slope, torch.tensor(-4.0, dtype=torch.float64))


def test_lanes_have_rates_of_their_own():
    def one(lr):
        return run(fo.inject_hyperparams(fo.adamw)(lr))[0]

    rates = torch.tensor([0.1, 0.01], dtype=torch.float64)
    lanes = torch.func.vmap(one)(rates)
    for lane, lr in enumerate(rates):
        assert_same(fo.tree.map(lambda x, lane=lane: x[lane], lanes), one(lr), rtol=1e-12, atol=0.0)


def test_traces_in_one_graph_and_once():
    tx = fo.inject_hyperparams(fo.adamw)(lambda count: 0.1 / (count + 1.0), b1=lambda count: 0.9 - 0.01 * count)
    frames = CompileCounter()
    step = torch.compile(tx.update, backend=frames, fullgraph=True)
    state, eager = tx.init(PARAMS), tx.init(PARAMS)
    for _ in range(20):
        updates, state = step(GRADS, state, PARAMS)
        expected, eager = tx.update(GRADS, eager, PARAMS)
        assert_same(updates, expected)
    assert frames.frame_count == 1


@pytest.mark.parametrize(
    "make, error, message",
    [
        (
            lambda: fo.inject_hyperparams(fo.adamw(0.1)),
            TypeError,
            "inject_hyperparams: factory must be the function that makes a transformation, not what it returns",
        ),
        (
            lambda: fo.inject_hyperparams(fo.sgd, ["decay"]),
            ValueError,
            "static_args must name parameters of the factory, got decay; it takes lr, momentum",
        ),
        (
            lambda: fo.inject_hyperparams(lambda lr: fo.sgd(lr))(lambda count: 0.1),
            TypeError,
            "cannot tell whether lr is a schedule or a function",
        ),
        (lambda: fo.inject_hyperparams(fo.sgd)(0.1, nesterov=lambda count: True), TypeError, "cannot tell whether nesterov is a schedule"),
        (lambda: fo.inject_hyperparams(fo.adam)(0.1, b2=1.0), ValueError, r"scale_by_adam: b2 must be in \[0, 1\), got 1.0"),
        (lambda: fo.inject_hyperparams(lambda lr: lr)(0.1), TypeError, "the factory must return a GradientTransformation, got 0.1"),
    ],
)
def test_says_what_is_wrong(make, error, message):
    with pytest.raises(error, match=message):
        make()


class Falling:
    """A schedule that halves its value whenever the loss it is told has risen."""

    def init(self):
        return {"value": torch.tensor(1.0), "last": torch.tensor(torch.inf)}

    def update(self, state, *, loss, **extra):
        return {"value": torch.where(loss > state["last"], state["value"] / 2, state["value"]), "last": torch.as_tensor(loss)}

    def __call__(self, state, **extra):
        return state["value"]


def test_a_schedule_with_a_memory_keeps_it_in_the_state_and_is_told_what_the_step_is_told():
    assert isinstance(Falling(), fo.StatefulSchedule) and not isinstance(lambda count: count, fo.StatefulSchedule)
    tx = fo.inject_hyperparams(fo.sgd)(lr=Falling())
    params, rates = torch.zeros(1), []
    state = tx.init(params)
    for loss in (3.0, 2.0, 5.0, 4.0):
        updates, state = tx.update(torch.ones(1), state, params, loss=torch.tensor(loss))
        rates.append(-updates.item())
    assert rates == [1.0, 1.0, 1.0, 0.5] and state.hyperparams_states["lr"]["value"] == 0.5


def test_a_schedule_of_the_count_is_one_with_a_memory():
    wrapped, plain = (fo.inject_hyperparams(fo.sgd)(lr=schedule) for schedule in (fo.WrappedSchedule(fall), fall))
    for tx in (wrapped, plain):
        state = tx.init(torch.zeros(1))
        for _ in range(2):
            _, state = tx.update(torch.ones(1), state)
        assert state.hyperparams["lr"] == 0.5 and state.hyperparams_states["lr"].count == 2


def fall(count):
    return 1 / (count + 1.0)
