"""Every scheduler of torch on our optimizers, beside torch's (C3, C4, C14)."""

import warnings

import pytest
import torch
from torch.optim import lr_scheduler as schedulers

import funcopt as fo
from funcopt.core.versions import TORCH
from tests.torch_optim.runs import assert_close, copies, gradients, model

SCHEDULES = {
    "LambdaLR": lambda o: schedulers.LambdaLR(o, lambda t: 0.9**t),
    "MultiplicativeLR": lambda o: schedulers.MultiplicativeLR(o, lambda t: 0.9),
    "StepLR": lambda o: schedulers.StepLR(o, 3, 0.5),
    "MultiStepLR": lambda o: schedulers.MultiStepLR(o, [2, 5], 0.5),
    "ConstantLR": lambda o: schedulers.ConstantLR(o, 0.5, 3),
    "LinearLR": lambda o: schedulers.LinearLR(o, 0.25, 1.0, 4),
    "ExponentialLR": lambda o: schedulers.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: schedulers.PolynomialLR(o, 6, 2.0),
    "CosineAnnealingLR": lambda o: schedulers.CosineAnnealingLR(o, 6),
    "CosineAnnealingWarmRestarts": lambda o: schedulers.CosineAnnealingWarmRestarts(o, 3),
    "SequentialLR": lambda o: schedulers.SequentialLR(o, [schedulers.ConstantLR(o, 0.1, 3), schedulers.ExponentialLR(o, 0.9)], [3]),
    "ChainedScheduler": lambda o: schedulers.ChainedScheduler([schedulers.ConstantLR(o, 0.1, 3), schedulers.ExponentialLR(o, 0.9)]),
    "ReduceLROnPlateau": lambda o: schedulers.ReduceLROnPlateau(o, patience=1, factor=0.5),
    "CyclicLR": lambda o: schedulers.CyclicLR(o, 0.001, 0.02, 3, cycle_momentum=True),
    "CyclicLR-rate": lambda o: schedulers.CyclicLR(o, 0.001, 0.02, 3, cycle_momentum=False),
    "OneCycleLR": lambda o: schedulers.OneCycleLR(o, 0.02, total_steps=10),
    "OneCycleLR-rate": lambda o: schedulers.OneCycleLR(o, 0.02, total_steps=10, cycle_momentum=False),
    "SWALR": lambda o: torch.optim.swa_utils.SWALR(o, 0.001, anneal_epochs=4),
}
METHODS = {
    "adamw": (torch.optim.AdamW, {}),
    "sgd": (torch.optim.SGD, {"momentum": 0.8}),
}


def run(opt, net, schedule):
    scheduler = SCHEDULES[schedule](opt)
    for step in range(8):
        loss = gradients(net, step)
        opt.step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scheduler.step(loss.item()) if schedule == "ReduceLROnPlateau" else scheduler.step()
    return copies(net)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("tensor", [False, True], ids=["number", "tensor"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_steps_are_those_of_torch_under_every_scheduler(schedule, tensor, method):
    theirs, settings = METHODS[method]
    if (schedule, method) == ("CyclicLR", "adamw") and TORCH < (2, 2):
        pytest.skip("this CyclicLR wants a momentum")
    runs = []
    for kind in (getattr(fo.torch_optim, method), theirs):
        net = model()
        lr = torch.tensor(0.01, dtype=torch.float64) if tensor else 0.01
        runs.append(run(kind(net.parameters(), lr=lr, **settings), net, schedule))
    assert_close(*runs)


def test_a_rate_that_is_a_tensor_stays_the_same_tensor():
    net, lr = model(), torch.tensor(0.01)
    opt = fo.torch_optim.adamw(net.parameters(), lr=lr)
    gradients(net, 0)
    opt.step()
    assert opt.param_groups[0]["lr"] is lr


def test_a_transformation_with_its_own_rate_is_scheduled_relative_to_one():
    net, other = model(), model()
    opt = fo.torch_optim.Optimizer(net.parameters(), fo.sgd(0.1))
    scheduler = schedulers.StepLR(opt, 2, 0.5)
    plain = torch.optim.SGD(other.parameters(), lr=0.1)
    beside = schedulers.StepLR(plain, 2, 0.5)
    for step in range(5):
        for n, o, s in ((net, opt, scheduler), (other, plain, beside)):
            gradients(n, step)
            o.step()
            s.step()
    assert_close(copies(net), copies(other))
    assert opt.effective_lrs() == [0.1 * 0.25]


def test_hyperparameters_are_read_at_every_step():
    net, other = model(), model()
    opt, theirs = fo.torch_optim.adamw(net.parameters(), lr=0.01), torch.optim.AdamW(other.parameters(), lr=0.01)
    for step in range(6):
        for n, o in ((net, opt), (other, theirs)):
            o.param_groups[0]["betas"] = (0.9 - 0.05 * step, 0.999)
            o.param_groups[0]["weight_decay"] = 0.0 if step in (2, 3) else 0.1 * step
            gradients(n, step)
            o.step()
    assert_close(copies(net), copies(other))


def test_a_momentum_that_comes_later_starts_from_the_gradient():
    net, other = model(), model()
    opt, theirs = fo.torch_optim.sgd(net.parameters(), lr=0.01), torch.optim.SGD(other.parameters(), lr=0.01)
    for step in range(6):
        for n, o in ((net, opt), (other, theirs)):
            o.param_groups[0]["momentum"] = 0.0 if step < 2 else 0.9
            gradients(n, step)
            o.step()
    assert_close(copies(net), copies(other))


def test_warm_up_from_a_rate_of_zero_moves_the_moments():
    net, other = model(), model()
    pairs = ((net, fo.torch_optim.adamw(net.parameters(), lr=0.0)), (other, torch.optim.AdamW(other.parameters(), lr=0.0)))
    for step in range(6):
        for n, o in pairs:
            o.param_groups[0]["lr"] = 0.01 * step / 5
            gradients(n, step)
            o.step()
    assert_close(copies(net), copies(other))
    mine, theirs = pairs[0][1].state, pairs[1][1].state
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine[p]["direction/mu"], theirs[q]["exp_avg"], rtol=1e-12, atol=0)


def test_groups_have_rates_of_their_own_also_for_a_method_that_sees_the_whole_tree():
    nets = [model() for _ in range(2)]
    clip = fo.chain(fo.clip_by_global_norm(0.5), fo.sgd(None))
    opt = fo.torch_optim.Optimizer([{"params": nets[0][0].parameters(), "lr": 0.0}, {"params": nets[0][2].parameters()}], clip, lr=0.2)
    theirs = torch.optim.SGD([{"params": nets[1][0].parameters(), "lr": 0.0}, {"params": nets[1][2].parameters()}], lr=0.2)
    for step in range(4):
        gradients(nets[0], step)
        opt.step()
        gradients(nets[1], step)
        norm = torch.sqrt(sum(p.grad.square().sum() for p in nets[1].parameters()))
        for p in nets[1].parameters():
            p.grad.mul_(torch.clamp(0.5 / norm, max=1.0))
        theirs.step()
    assert_close(copies(nets[0]), copies(nets[1]))
    assert opt.effective_lrs() == [0.0, 0.2]
