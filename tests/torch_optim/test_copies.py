"""Copies, saves between a change of hyperparameters and the next step, and what `signals` says of sizes."""

import copy
import pickle

import pytest
import torch
from torch import nn

import funcopt as fo
from tests.torch_optim.runs import assert_equal, parameters, step, through_a_file

EVERYBODY = {0, 1, 2, 3}
SHAPES = (3, 2), (2, 2), (2,), (4,)


def groups(params):
    return [{"params": params[:1]}, {"params": params[1:]}]


def pool():
    """A function of a module, by which an optimizer can be pickled."""
    return fo.optiroulette(
        {"adam": fo.Member(fo.scale_by_adam(), lr=1e-2), "lion": fo.Member(fo.lion(1e-3))}, seed=3, switch="step", every=2
    )


def clipped():
    return fo.chain(fo.clip_by_global_norm(1.0), fo.adamw(0.1))


MAKERS = {
    "sgd": lambda p: fo.torch_optim.sgd(groups(p), lr=0.1),
    "adamw": lambda p: fo.torch_optim.adamw(groups(p), lr=0.1),
    "one vector": lambda p: fo.torch_optim.adamw(groups(p), lr=0.1, flat=True),
    "schedule-free": lambda p: fo.torch_optim.schedule_free_adamw(groups(p), lr=0.1),
    "clipped": lambda p: fo.torch_optim.Optimizer(groups(p), clipped),
    "roulette": lambda p: fo.torch_optim.Optimizer(groups(p), pool),
    "optiroulette": lambda p: fo.torch_optim.optiroulette(groups(p), {"sgd": {"lr": 0.5}, "adam": {"lr": 0.25}}, seed=0),
    "aees": lambda p: fo.torch_optim.aees(groups(p), lr=0.01, lr_candidates=(0.5, 2.0), episode_length=2, seed=0),
    "adaptive": lambda p: fo.torch_optim.adaptive(groups(p), lr=0.01, lr_rule="trend+variance", wd_rule="trend"),
}


def views(opt):
    """Everything an optimizer shows."""
    shown = {"signals": {word: float(value) for word, value in opt.signals().items()}, "rates": opt.effective_lrs()}
    shown |= {name: getattr(opt, name) for name in ("lr", "wd") if hasattr(opt, name)}
    if hasattr(opt, "get_logs"):
        shown["logs"] = str(opt.get_logs())
    evaluating = opt._engine.evaluating
    opt.eval()
    shown["evaluated"] = str([p for group in opt.param_groups for p in group["params"]])
    if not evaluating:
        opt.train()
    return shown | {"state": str(opt.state_dict()), "tree": str(opt.functional())}


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("live", [EVERYBODY, {2, 3}], ids=["all", "frozen first"])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_copy_shows_at_once_what_the_original_shows(maker, live, mode):
    for steps in (0, 3):
        params = parameters(*SHAPES)
        opt = MAKERS[maker](params)
        if maker == "optiroulette":
            opt.on_epoch_start(2)
        scheduler = torch.optim.lr_scheduler.StepLR(opt, 1, 0.5)
        for number in range(steps):
            step(params, opt, number, live)
            scheduler.step()
        if mode == "eval":
            opt.eval()
        for way in (copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))):
            others, again = way((params, opt))
            if steps:
                assert again.signals().keys() == opt.signals().keys() != set()
            assert steps == 0 or views(again) == views(opt)
            again.train()
            original_params, original = copy.deepcopy((params, opt))
            original.train()
            for number in (3, 4):
                step(others, again, number)
                step(original_params, original, number)
                assert_equal(others, original_params)
                assert views(again) == views(original)


CHANGES = [
    ("sgd", {}, {"momentum": 0.9}),
    ("sgd", {"momentum": 0.9}, {"momentum": 0.0}),
    ("sgd", {"momentum": 0.9}, {"dampening": 0.3}),
    ("adam", {}, {"amsgrad": True}),
    ("adam", {"amsgrad": True}, {"amsgrad": False}),
    ("adam", {"weight_decay": 0.1}, {"decoupled_weight_decay": True}),
    ("rmsprop", {}, {"centered": True, "momentum": 0.9}),
    ("adagrad", {}, {"lr_decay": 0.1}),
    ("pilot", {}, {"weight_decay": 0.1}),
    ("lamb", {}, {"weight_decay": 0.1}),
    ("novograd", {}, {"weight_decay": 0.1}),
]


@pytest.mark.parametrize("name, settings, change", CHANGES)
@pytest.mark.parametrize("way", ["saved after the change", "changed in the file", "deepcopy"])
@pytest.mark.parametrize("back", [False, True], ids=["for good", "and back"])
def test_hyperparameters_may_change_between_a_save_and_the_next_step(name, settings, change, way, back):
    def make(params):
        return getattr(fo.torch_optim, name)(groups(params), lr=0.1, **settings)

    params = parameters(*SHAPES)
    opt = make(params)
    for number in range(3):
        step(params, opt, number)
    before = {key: opt.param_groups[0][key] for key in change}
    saved = through_a_file(opt.state_dict())
    for group in opt.param_groups:
        group.update(change)
    if way == "deepcopy":
        others, again = copy.deepcopy((params, opt))
    else:
        if way == "saved after the change":
            saved = through_a_file(opt.state_dict())
        for group in saved["param_groups"]:
            group.update(change)
        others = [nn.Parameter(p.detach().clone()) for p in params]
        again = make(others)
        again.load_state_dict(saved)
    if back:
        for group in (*opt.param_groups, *again.param_groups):
            group.update(before)
    for number in range(3, 5):
        step(params, opt, number)
        step(others, again, number)
        assert_equal(params, others)


def rated_pool():
    return fo.optiroulette({"fast": fo.Member(fo.sign(), lr=0.5), "slow": fo.Member(fo.sign(), lr=0.25)}, seed=1, switch="step", every=1)


# Optimizers that move every entry by their rate, so that the rate can be read from the parameters.
SIGNS = {
    "rate of the groups": lambda p: fo.torch_optim.sign_sgd(groups(p), lr=0.1),
    "one tree": lambda p: fo.torch_optim.Optimizer(groups(p), fo.chain(fo.clip_by_global_norm(1e9), fo.sign(), fo.lr_scale()), lr=0.1),
    "one tree, own rate": lambda p: fo.torch_optim.Optimizer(groups(p), fo.chain(fo.clip_by_global_norm(1e9), fo.sign_sgd(0.1))),
    "own rate": lambda p: fo.torch_optim.Optimizer(groups(p), fo.sign_sgd(0.1)),
    "own schedule": lambda p: fo.torch_optim.Optimizer(groups(p), fo.sign_sgd(lambda count: 0.1 / (1 + count.double()))),
    "one vector": lambda p: fo.torch_optim.Optimizer(groups(p), fo.sign_sgd(0.1), flat=True),
    "roulette": lambda p: fo.torch_optim.Optimizer(groups(p), rated_pool),
    "bandit": lambda p: fo.torch_optim.aees(groups(p), lr=0.1, inner="sign_sgd", lr_candidates=(0.5, 2.0), episode_length=2, seed=0),
    "rules": lambda p: fo.torch_optim.adaptive(groups(p), lr=0.1, inner="sign_sgd", lr_rule="trend+variance"),
}


def said(opt, number):
    words = opt.signals()
    return float(words[f"group{number}/lr" if f"group{number}/lr" in words else "lr"])


@pytest.mark.parametrize("maker", SIGNS)
@pytest.mark.parametrize("live", [EVERYBODY, {2, 3}], ids=["all", "frozen first"])
def test_the_rate_that_is_said_is_the_size_of_the_step(maker, live):
    params = parameters(*SHAPES)
    opt = SIGNS[maker](params)
    opt.param_groups[1]["lr"] = opt.param_groups[1]["lr"] * 3
    scheduler = torch.optim.lr_scheduler.StepLR(opt, 2, 0.5)
    for number in range(5):
        before = [p.detach().clone() for p in params]
        step(params, opt, number, live)
        scheduler.step()
        sizes = [(x - y).abs().max().item() for x, y in zip(before, params, strict=True)]
        for group, moved in ((0, sizes[0]), (1, sizes[3])):
            if moved:
                assert said(opt, group) == pytest.approx(moved, rel=1e-9)
                assert opt.effective_lrs()[group] == pytest.approx(moved, rel=1e-9)


@pytest.mark.long
def test_the_rate_that_is_said_is_the_size_of_the_step_in_somebody_elses_compiled_step():
    torch._dynamo.reset()
    params = parameters(*SHAPES)[:1]
    opt = fo.torch_optim.Optimizer(params, fo.chain(fo.reduce_on_plateau(patience=1), fo.sign(), fo.lr_scale()), lr=0.1)
    step(params, opt, 0)
    stepped = torch.compile(opt.step, backend="aot_eager")
    for number in range(1, 3):
        opt.param_groups[0]["lr"] *= 0.5
        before = params[0].detach().clone()
        stepped(loss=torch.tensor(1.0 / (1 + number), dtype=torch.float64))
        moved = (before - params[0]).abs().max().item()
        assert moved == pytest.approx(0.1 * 0.5**number, rel=1e-9)
        assert said(opt, 0) == pytest.approx(moved, rel=1e-9)
