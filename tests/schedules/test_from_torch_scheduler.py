"""from_torch_scheduler: the rates of torch to the last bit, the scheduler left as it is, and its errors."""

import pytest
import torch
from torch.optim import lr_scheduler as of_torch

import funcopt as fo


def optimizer(lr=0.8, groups=1):
    return torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(2))], "lr": lr / (1 + k)} for k in range(groups)], momentum=0.9)


MAKERS = {
    "cosine": lambda opt: of_torch.CosineAnnealingLR(opt, T_max=12),
    "exponential": lambda opt: of_torch.ExponentialLR(opt, 0.9),
    "lambda": lambda opt: of_torch.LambdaLR(opt, lambda step: 1 / (1 + step)),
    "one cycle": lambda opt: of_torch.OneCycleLR(opt, max_lr=1.0, total_steps=15),
    "cyclic": lambda opt: of_torch.CyclicLR(opt, 0.1, 1.0, step_size_up=3),
    "chained": lambda opt: of_torch.ChainedScheduler([of_torch.LinearLR(opt, 0.1, total_iters=4), of_torch.ExponentialLR(opt, 0.9)]),
    "sequential": lambda opt: of_torch.SequentialLR(opt, [of_torch.ConstantLR(opt, 0.1, 3), of_torch.ExponentialLR(opt, 0.8)], [4]),
    "restarts": lambda opt: of_torch.CosineAnnealingWarmRestarts(opt, T_0=4),
}


def followed(scheduler, opt, steps):
    rates = [opt.param_groups[0]["lr"]]
    for _ in range(steps):
        opt.step()
        scheduler.step()
        rates.append(opt.param_groups[0]["lr"])
    return rates


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.filterwarnings("ignore:.*deprecated")
def test_it_has_the_rates_of_the_scheduler_and_leaves_it_where_it_stands(make):
    opt = optimizer()
    scheduler = make(opt)
    followed(scheduler, opt, 2)
    before = opt.param_groups[0]["lr"]
    schedule = fo.schedules.from_torch_scheduler(scheduler, 10)
    made_anew = fo.schedules.from_torch_scheduler(make, 12, lr=0.8)
    assert opt.param_groups[0]["lr"] == before
    expected = followed(scheduler, opt, 10)
    assert [schedule(count).item() for count in range(11)] == expected
    assert [made_anew(count).item() for count in range(2, 13)] == expected
    assert schedule(10**6).item() == expected[-1]


def test_of_several_groups_one_is_asked_for():
    opt = optimizer(groups=2)
    schedule = fo.schedules.from_torch_scheduler(of_torch.ExponentialLR(opt, 0.5), 3, group=1)
    assert [schedule(count).item() for count in range(3)] == [0.4, 0.2, 0.1]


def test_a_compiled_step_follows_it():
    schedule = fo.schedules.from_torch_scheduler(MAKERS["exponential"], 5, lr=1.0)
    tx = fo.sgd(schedule)
    traced = torch.compile(lambda g, s: tx.update(g, s), backend="eager", fullgraph=True)
    state, sizes = tx.init(torch.zeros(1)), []
    for _ in range(3):
        updates, state = traced(torch.ones(1), state)
        sizes.append(-updates.item())
    assert sizes == pytest.approx([1.0, 0.9, 0.81])


def plateau(opt):
    return of_torch.ReduceLROnPlateau(opt)


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda f: f(plateau(optimizer()), 5), TypeError, "ReduceLROnPlateau follows a metric, so that no count of steps tells its rates"),
        (lambda f: f(plateau, 5, lr=0.1), TypeError, "ReduceLROnPlateau follows a metric"),
        (lambda f: f(MAKERS["cosine"], 5), ValueError, "from_torch_scheduler: needs lr, the rate of the optimizer"),
        (lambda f: f(MAKERS["cosine"](optimizer()), 5, lr=0.1), ValueError, "lr must be left out for a scheduler"),
        (lambda f: f(MAKERS["cosine"](optimizer()), 5, group=1), ValueError, "group must be below 1, the number of groups, got 1"),
        (lambda f: f(of_torch.CosineAnnealingLR, 5, lr=0.1), TypeError, "scheduler must be a scheduler of torch or a function"),
        (lambda f: f(lambda opt: 0.1, 5, lr=0.1), TypeError, "the function must give a scheduler of torch, got 0.1"),
        (lambda f: f(MAKERS["cosine"], 0, lr=0.1), ValueError, "from_torch_scheduler: steps must be >= 1, got 0"),
    ],
)
def test_says_what_is_wrong(make, error, message):
    with pytest.raises(error, match=message):
        make(fo.schedules.from_torch_scheduler)
