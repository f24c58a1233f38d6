"""Runs that change the optimizer half way, from torch's class to ours and back, against torch's class alone."""

import copy
import inspect

import pytest
import torch
from torch import nn

import funcopt as fo
from funcopt.core.versions import TORCH as TORCH_VERSION
from tests.torch_optim.runs import assert_close, through_a_file

RUNS = [
    ("SGD", {"momentum": 0.9}),
    ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("SGD", {"momentum": 0.9, "dampening": 0.3, "maximize": True}),
    ("SGD", {}),
    ("Adam", {}),
    ("Adam", {"weight_decay": 0.1, "amsgrad": True}),
    ("Adam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("AdamW", {"betas": (0.7, 0.9)}),
    ("AdamW", {"amsgrad": True, "maximize": True}),
    ("NAdam", {"weight_decay": 0.1}),
    ("NAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("RAdam", {"weight_decay": 0.1}),
    ("Adamax", {"weight_decay": 0.1}),
    ("Adagrad", {"lr_decay": 0.1, "initial_accumulator_value": 0.3}),
    ("Adagrad", {"weight_decay": 0.1}),
    ("Adadelta", {"weight_decay": 0.1}),
    ("RMSprop", {"momentum": 0.9}),
    ("RMSprop", {"centered": True, "weight_decay": 0.1}),
    ("Rprop", {}),
    ("Adafactor", {"weight_decay": 0.1}),
    ("Muon", {"momentum": 0.8}),
]
COARSE = {"NAdam": 1e-6, "Muon": 5e-2, "Adafactor": 1e-9}  # where torch's own arithmetic is
TORCH = [name for name in dict(RUNS) if hasattr(torch.optim, name)]


def parameters(name):
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 2), (2, 4), (4, 2)] if name == "Muon" else [(3, 2), (2,), (2, 3, 4), (), (3,)]
    params = [nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64)) for shape in shapes]
    if name not in ("Muon", "Adafactor", *(("NAdam", "RAdam") if TORCH_VERSION < (2, 4) else ())):  # which took complex numbers for real
        params.append(nn.Parameter(torch.randn(2, generator=generator, dtype=torch.complex128)))
    return params


def made(kind, params, settings):
    settings = {"lr": 0.02, **settings}
    return kind([{"params": params[:2]}, {"params": params[2:], "lr": settings["lr"] / 2}], **settings)


def step(params, opt, number):
    """The second parameter pauses, the last begins late."""
    for index, p in enumerate(params):
        wave = torch.cos(torch.arange(p.numel(), dtype=torch.float64) + 0.7 * number + index).reshape(p.shape).to(p.dtype)
        p.grad = None if (index == 1 and number in (1, 2)) or (index == len(params) - 1 and number < 2) else 0.3 * p.detach() + wave
    opt.step()


def changed(name, settings, first, second, at, steps=8):
    """Some steps with one class, and the others with another, which is given the state."""
    params = parameters(name)
    opt = made(first, params, settings)
    for number in range(steps):
        if number == at:
            saved = (
                opt.state_dict()
                if isinstance(opt, torch.optim.Optimizer) and not hasattr(opt, "to_torch_state_dict")
                else opt.to_torch_state_dict()
            )
            opt = made(
                second,
                params,
                settings if hasattr(second, "_kind") else {key: value for key, value in settings.items() if key == "nothing"},
            )
            opt.load_state_dict(through_a_file(saved))
        step(params, opt, number)
    return params


@pytest.mark.parametrize("name, settings", RUNS, ids=str)
@pytest.mark.parametrize("way, at", [("to ours", 1), ("to ours", 5), ("to torch", 1), ("to torch", 5), ("to ours in one vector", 3)])
def test_a_run_that_changes_the_optimizer_goes_on_as_it_was(name, settings, way, at):
    if not hasattr(torch.optim, name):
        pytest.skip(f"this torch has no {name}")
    theirs, ours = getattr(torch.optim, name), getattr(fo.torch_optim, name.lower())
    if unknown := set(settings) - set(inspect.signature(theirs).parameters):
        pytest.skip(f"the {name} of this torch has no {', '.join(unknown)}")
    alone = changed(name, settings, theirs, theirs, at=None)
    if way == "to torch":
        params = changed(name, settings, ours, theirs, at)
    else:
        params = changed(name, settings, theirs, ours if way == "to ours" else flat(ours), at)
    tolerance = COARSE.get(name, 1e-11)
    assert_close(params, alone, rtol=tolerance, atol=tolerance)


def flat(kind):
    def make(groups, **settings):
        return kind(
            groups,
            flat="auto" if kind.__name__ in ("adafactor", "muon") or any(p.is_complex() for g in groups for p in g["params"]) else True,
            **settings,
        )

    make._kind = kind._kind
    return make


def trained(opt, params, steps=3):
    for number in range(steps):
        step(params, opt, number)
    return opt


ALIKE = [
    ("radam", "Adam"),
    ("adam", "RAdam"),
    ("radam", "Adamax"),
    ("adamax", "RAdam"),
    ("nadam", "AdamW"),
    ("adamw", "NAdam"),
    ("rmsprop", "Adadelta"),
]
ALIKE += [("sgd", "Muon"), ("muon", "SGD"), ("adagrad", "Rprop"), ("adafactor", "AdamW"), ("rprop", "SGD")]


@pytest.mark.parametrize("ours, theirs", [pair for pair in ALIKE if pair[1] in TORCH and pair[0] in {name.lower() for name in TORCH}])
def test_the_state_of_another_class_is_refused_and_nothing_changes(ours, theirs):
    params = parameters("Muon")
    settings = {"momentum": 0.9} if theirs == "SGD" else {}
    saved = trained(made(getattr(torch.optim, theirs), params, settings), params).state_dict()
    mine = parameters("Muon")
    opt = trained(made(getattr(fo.torch_optim, ours), mine, {}), mine)
    before = copy.deepcopy(opt.state_dict())
    with pytest.raises(ValueError, match=rf"{ours}.load_state_dict: .*torch.optim"):
        opt.load_state_dict(saved)
    assert str(opt.state_dict()) == str(before)
    step(mine, opt, 3)


def spoiled(change):
    params = parameters("Adam")
    saved = trained(made(torch.optim.AdamW, params, {"amsgrad": False}), params).state_dict()
    saved = copy.deepcopy(saved)
    change(saved)
    return saved


SPOILS = {
    "no exp_avg_sq": (lambda saved: saved["state"][0].pop("exp_avg_sq"), "but a parameter has no exp_avg_sq; it has step, exp_avg"),
    "no step": (lambda saved: saved["state"][0].pop("step"), "must have a step, a whole number from 0 on, got None"),
    "endless steps": (
        lambda saved: saved["state"][0].update(step=torch.tensor(float("inf"))),
        "must have a step, a whole number from 0 on, got tensor.inf",
    ),
    "whole numbers": (
        lambda saved: saved["state"][0].update(exp_avg=torch.ones(3, 2, dtype=torch.int64)),
        "exp_avg must be saved as float numbers, as its parameter is, got torch.int64",
    ),
    "complex numbers": (
        lambda saved: saved["state"][0].update(exp_avg=torch.ones(3, dtype=torch.complex128)),
        "exp_avg must be saved as float numbers, as its parameter is, got torch.complex128",
    ),
    "half a step": (lambda saved: saved["state"][0].update(step=torch.tensor(1.5)), "must have a step, a whole number"),
    "shape": (
        lambda saved: saved["state"][0].update(exp_avg=torch.zeros(2)),
        r"exp_avg must have the shape \(3, 2\) of its parameter, got \(2,\)",
    ),
    "amsgrad without its state": (lambda saved: saved["param_groups"][0].update(amsgrad=True), "has no max_exp_avg_sq"),
    "decay of Adam": (lambda saved: saved["param_groups"][0].update(decoupled_weight_decay=False), "load it into adam"),
}


@pytest.mark.parametrize("spoil", SPOILS)
def test_a_state_that_is_not_whole_is_refused(spoil):
    change, words = SPOILS[spoil]
    opt = made(fo.torch_optim.adamw, parameters("Adam"), {})
    with pytest.raises(ValueError, match=words):
        opt.load_state_dict(spoiled(change))
    assert opt.state_dict()["state"] == {}


def test_settings_that_belong_to_the_optimizer_must_be_the_same():
    params = parameters("Adagrad")
    saved = trained(made(torch.optim.Adagrad, params, {"initial_accumulator_value": 0.5}), params).state_dict()
    with pytest.raises(ValueError, match="initial_accumulator_value must be that of the optimizer, 0.0, but group 0 says 0.5"):
        made(fo.torch_optim.adagrad, parameters("Adagrad"), {}).load_state_dict(saved)


@pytest.mark.parametrize(
    "make",
    [lambda p: fo.torch_optim.Optimizer(p, fo.adamw(None), lr=0.1), lambda p: fo.torch_optim.lion(p), lambda p: fo.torch_optim.aees(p)],
)
def test_an_optimizer_that_torch_does_not_have_takes_and_gives_none(make):
    params = parameters("Muon")
    saved = trained(made(torch.optim.AdamW, params, {}), params).state_dict()
    saved["param_groups"] = [{**saved["param_groups"][0], "params": [0, 1, 2]}]
    opt = make(parameters("Muon"))
    with pytest.raises(ValueError, match="must be one that this optimizer has saved, got exp_avg, exp_avg_sq, step for each parameter"):
        opt.load_state_dict(saved)
    with pytest.raises(ValueError, match="there is no class of torch.optim with this formula"):
        opt.to_torch_state_dict()


def test_a_mask_has_no_place_in_torch():
    opt = fo.torch_optim.adamw(parameters("Muon"), weight_decay_mask=lambda tree: fo.tree.map_plain(lambda p: True, tree))
    with pytest.raises(ValueError, match="torch has no weight_decay_mask; give the parameters without decay a group of their own"):
        opt.to_torch_state_dict()


def test_what_is_given_out_is_a_copy_and_has_the_keys_of_torch():
    params = parameters("AdamW")
    opt = trained(made(fo.torch_optim.adamw, params, {}), params)
    theirs = made(torch.optim.AdamW, parameters("AdamW"), {})
    theirs_params = [p for group in theirs.param_groups for p in group["params"]]
    trained(theirs, theirs_params)
    given = opt.to_torch_state_dict()
    before = str(opt.state_dict())
    for own in given["state"].values():
        for value in own.values():
            value.zero_()
    assert str(opt.state_dict()) == before
    wanted = theirs.state_dict()
    assert {index: set(own) for index, own in given["state"].items()} == {index: set(own) for index, own in wanted["state"].items()}
    assert [set(group) for group in given["param_groups"]] == [set(group) for group in wanted["param_groups"]]


@pytest.mark.parametrize("kind, name", [("adamw", "exp_avg_sq"), ("rmsprop", "square_avg"), ("adagrad", "sum")])
def test_squares_that_are_negative_are_refused(kind, name):
    p = torch.nn.Parameter(torch.ones(2))
    theirs = {"adamw": torch.optim.AdamW, "rmsprop": torch.optim.RMSprop, "adagrad": torch.optim.Adagrad}[kind]([p], lr=0.1)
    p.grad = torch.ones(2)
    theirs.step()
    state = theirs.state_dict()
    state["state"][0][name] = -state["state"][0][name]
    ours = getattr(fo.torch_optim, kind)([torch.nn.Parameter(torch.ones(2))], lr=0.1)
    with pytest.raises(ValueError, match=f"{name} must be >= 0, as what is kept of squares is, got -"):
        ours.load_state_dict(state)
