"""What every ready-made optimizer promises: one rate, heard or scheduled or said; numbers that may be tensors; decay with a mask."""

import inspect

import pytest
import torch

import funcopt as fo
from funcopt.core.protocol import Scalar, ScalarOrSchedule
from tests.helpers import assert_trees_close, gradients_at, small_params

# First arguments that make them deterministic.
SETTINGS = {"noisy_sgd": {"key": 0}, "gravity": {"key": 0}, "apollo": {"key": 0}}
# Not asked here, with the reason.
ELSEWHERE = {"dpsgd": "takes a batch of gradients", "lbfgs": "needs the loss as a function of the params"}
ELSEWHERE |= dict.fromkeys(("adahessian", "sophia"), "needs the diagonal of the Hessian")
OF_ONE_PIECE = {"dog", "dowg", "momo", "momo_adam"}  # one rate from all leaves, decay included
SIZED_WITHIN = {"rprop"}  # its rate is where its own step sizes start
FIRST_RATE = {"rprop": 1.0, "dadapt_adamw": 0.0}  # said before the first step by those that say another than they are given


def is_optimizer(name: str) -> bool:
    function = getattr(fo, name)
    return (
        inspect.isfunction(function)
        and function.__module__.startswith("funcopt.optimizers.")
        and "lr" in inspect.signature(function).parameters
    )


OPTIMIZERS = [name for name in dir(fo) if is_optimizer(name) and not name.startswith("scale_by") and name not in ELSEWHERE]
EVERY = pytest.mark.parametrize("name", OPTIMIZERS)


def make(name: str, lr=0.05, **settings):
    return getattr(fo, name)(lr, **SETTINGS.get(name, {}), **settings)


def steps(tx, count=3, **extra):
    params = small_params()
    state, history = tx.init(params), []
    for step in range(count):
        updates, state = tx.update(gradients_at(step, params), state, params, **{"loss": torch.tensor(1e3, dtype=torch.float64), **extra})
        params = fo.apply_updates(params, updates)
        history.append(updates)
    return history


def number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def annotated(name: str, *kinds) -> dict[str, float]:
    """The parameters that are numbers, with their defaults."""
    parameters = inspect.signature(getattr(fo, name)).parameters.values()
    return {
        p.name: p.default
        for p in parameters
        if p.annotation in kinds and isinstance(p.default, (int, float)) and not isinstance(p.default, bool)
    }


def test_they_are_all_here():
    assert len(OPTIMIZERS) >= 29


@EVERY
def test_says_its_rate_once(name):
    words = fo.read_signals(make(name).init(small_params()))
    assert words["lr"].item() == FIRST_RATE.get(name, 0.05)
    with pytest.raises(ValueError, match="'lr' is said twice"):
        fo.chain(make(name), fo.lr_scale(0.5)).init(small_params())


@EVERY
def test_hears_its_rate_and_what_multiplies_it(name):
    assert_trees_close(steps(make(name, None), signals={"base_lr": number(0.05)}), steps(make(name)))
    multiplied = steps(make(name, 0.05), count=1, signals={"lr_multiplier": number(2.0)})
    assert_trees_close(multiplied, steps(make(name, 0.1), count=1))


@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS) - SIZED_WITHIN))
def test_takes_a_schedule_for_its_rate(name):
    assert_trees_close(steps(make(name, lambda count: 0.05 + 0.0 * count.double())), steps(make(name)))


@EVERY
def test_every_number_may_be_a_tensor_with_a_finite_derivative(name):
    numbers = annotated(name, Scalar, Scalar | None, ScalarOrSchedule) | {"lr": 0.05}
    tensors = {key: number(value) for key, value in numbers.items()}
    fixed = SETTINGS.get(name, {})
    assert_trees_close(steps(getattr(fo, name)(**tensors, **fixed)), steps(getattr(fo, name)(**numbers, **fixed)), rtol=1e-7, atol=1e-10)

    def travelled(tensors):
        return sum(fo.tree.squared_norm(updates) for updates in steps(getattr(fo, name)(**tensors, **fixed)))

    slopes = torch.func.grad(travelled)(tensors)
    assert all(torch.isfinite(slope) for slope in slopes.values()), slopes


@EVERY
def test_a_sweep_is_a_vmap(name):
    params = small_params()
    gradients = gradients_at(0, params)

    def first(lr):
        tx = make(name, lr)
        return tx.update(gradients, tx.init(params), params, loss=torch.tensor(1e3, dtype=torch.float64))[0]

    rates = torch.tensor([0.01, 0.05], dtype=torch.float64)
    together = torch.func.vmap(first)(rates)
    for index, rate in enumerate(rates):
        assert_trees_close(fo.tree.map(lambda x, index=index: x[index], together), first(rate))


@EVERY
def test_decays_by_a_number_or_a_schedule_what_the_mask_says(name):
    parameters = inspect.signature(getattr(fo, name)).parameters
    assert parameters["weight_decay"].annotation == ScalarOrSchedule
    assert "weight_decay_mask" in parameters
    mask = fo.by_path("w")
    plain, decayed = steps(make(name, weight_decay=0.0), 1)[0], steps(make(name, weight_decay=0.5, weight_decay_mask=mask), 1)[0]
    assert not torch.allclose(plain["w"], decayed["w"])
    if name not in OF_ONE_PIECE:
        assert_trees_close({**plain, "w": 0}, {**decayed, "w": 0})
    assert_trees_close(steps(make(name, weight_decay=lambda count: 0.5, weight_decay_mask=mask), 1)[0], decayed)


@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS) - {"noisy_sgd"}))  # its noise for one vector is another
@pytest.mark.parametrize("mask", [fo.by_path("b"), lambda params: {name: name == "b" for name in params}], ids=["path", "function"])
def test_decays_the_same_leaves_where_all_are_held_flat(name, mask):
    generator = torch.Generator().manual_seed(0)
    params, slopes = ({name: torch.randn(3, 4, generator=generator) for name in "abc"} for _ in range(2))

    def stepped(flat):
        tx = make(name, weight_decay=0.5, weight_decay_mask=mask)
        step = fo.make_step(lambda p: 100 + sum((p[name] * slopes[name]).sum() for name in "abc"), tx, flat=flat)
        held, state = step.init(params)
        return step.params(step(held, state)[0])

    assert_trees_close(stepped(True), stepped(False), rtol=1e-4, atol=1e-6)


@EVERY
def test_its_numbers_can_live_in_the_state(name):
    injected = fo.inject_hyperparams(getattr(fo, name))(0.05, **SETTINGS.get(name, {}))
    assert_trees_close(steps(injected), steps(make(name)), rtol=1e-7, atol=1e-10)
    assert set(annotated(name, Scalar)) <= set(injected.init(small_params()).hyperparams)
