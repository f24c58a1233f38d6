"""torch's own recipe, a compiled function around `opt.step()`: what is written into the groups is read, and there is no storm of graphs."""

import pytest
import torch
from torch._dynamo.utils import counters
from torch.optim import lr_scheduler as schedulers

import funcopt as fo
from tests.torch_optim.runs import assert_close, copies, gradients, model

CHANGES = {
    "sgd": (torch.optim.SGD, {"momentum": lambda t: 0.9 - 0.05 * t, "weight_decay": lambda t: 0.1 + 0.05 * t}),
    "adam": (torch.optim.Adam, {"betas": lambda t: (0.9 - 0.05 * t, 0.99 - 0.01 * t), "weight_decay": lambda t: 0.1 + 0.05 * t}),
    "adamw": (
        torch.optim.AdamW,
        {"betas": lambda t: (0.9 - 0.05 * t, 0.99), "eps": lambda t: 10.0 ** (t - 8), "weight_decay": lambda t: 0.1 + 0.05 * t},
    ),
    "nadam": (
        torch.optim.NAdam,
        {"betas": lambda t: (0.9 - 0.05 * t, 0.99), "momentum_decay": lambda t: 4e-3 * (1 + t), "eps": lambda t: 10.0 ** (t - 8)},
    ),
    "radam": (torch.optim.RAdam, {"betas": lambda t: (0.9 - 0.05 * t, 0.99), "eps": lambda t: 10.0 ** (t - 8)}),
    "adamax": (torch.optim.Adamax, {"betas": lambda t: (0.9 - 0.05 * t, 0.99), "eps": lambda t: 10.0 ** (t - 8)}),
    "adagrad": (torch.optim.Adagrad, {"lr_decay": lambda t: 0.1 + 0.1 * t, "eps": lambda t: 10.0 ** (t - 10)}),
    "adadelta": (torch.optim.Adadelta, {"rho": lambda t: 0.9 - 0.05 * t, "eps": lambda t: 10.0 ** (t - 6)}),
    "rmsprop": (
        torch.optim.RMSprop,
        {"alpha": lambda t: 0.99 - 0.1 * t, "momentum": lambda t: 0.9 - 0.05 * t, "eps": lambda t: 10.0 ** (t - 8)},
    ),
    "rprop": (torch.optim.Rprop, {"etas": lambda t: (0.5 - 0.05 * t, 1.2 + 0.1 * t), "step_sizes": lambda t: (1e-6, 0.05 / (1 + t))}),
}
COARSE = {"nadam": 2e-5}  # torch keeps the product of momenta in float32


def beside(kind, step_of, after=lambda opt, step: None, steps=8, flat=False, **given):
    """Ours, compiled, and torch's, each after one step; what differs, and how many graphs there were."""
    torch._dynamo.reset()
    theirs = CHANGES[kind][0]
    nets = [model(), model()]
    opts = [
        getattr(fo.torch_optim, kind)(nets[0].parameters(), lr=0.01, flat=flat, **given),
        theirs(nets[1].parameters(), lr=0.01, **given),
    ]
    for net, opt in zip(nets, opts, strict=True):
        gradients(net, 0)
        opt.step()
    told = [after(opt, None) for opt in opts]
    compiled, before = step_of(opts[0]), counters["stats"]["unique_graphs"]
    for step in range(1, steps):
        for net, opt, do, told_here in zip(nets, opts, (compiled, opts[1].step), told, strict=True):
            after(told_here or opt, step)
            gradients(net, step)
            do()
    assert_close(copies(nets[0]), copies(nets[1]), rtol=COARSE.get(kind, 1e-9), atol=COARSE.get(kind, 1e-12))
    return counters["stats"]["unique_graphs"] - before


def stepping(opt):
    @torch.compile(backend="eager")
    def fn():
        opt.step()

    return fn


def written(kind):
    def change(opt, step):
        if step is not None:
            opt.param_groups[0].update({name: value(step) for name, value in CHANGES[kind][1].items()})
            opt.param_groups[0]["lr"] = 0.01 / (1 + step)

    return change


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=() if kind == "adamw" else pytest.mark.long) for kind in CHANGES])
def test_what_is_written_into_a_group_is_read_in_a_compiled_step_of_somebody_else(kind):
    given = {"momentum": 0.9} if kind in ("sgd", "rmsprop") else {}
    given |= {"weight_decay": 0.1} if kind in ("sgd", "adam") else {}
    given |= {"lr_decay": 0.1} if kind == "adagrad" else {}
    assert beside(kind, stepping, written(kind), **given) in (1, 2, 3)


@pytest.mark.long
@pytest.mark.parametrize(
    "schedule", [lambda o: schedulers.OneCycleLR(o, 0.02, total_steps=10), lambda o: schedulers.CyclicLR(o, 0.001, 0.02, 3)]
)
def test_schedulers_that_move_betas_are_heard_in_a_compiled_step_of_somebody_else(schedule):
    def scheduled(opt, step):
        if step is None:
            return schedule(opt)
        return opt.step()

    assert beside("adamw", stepping, scheduled) in (1, 2, 3)


def test_a_value_that_cannot_be_is_refused_in_a_compiled_step_of_somebody_else():
    for name, value, words in (
        ("lr", float("nan"), "Invalid learning rate: nan"),
        ("betas", (2.0, 0.9), "Invalid beta parameter at index 0: 2.0"),
    ):
        torch._dynamo.reset()
        net = model()
        opt = fo.torch_optim.adamw(net.parameters(), lr=0.01)
        gradients(net, 0)
        opt.step()
        compiled = stepping(opt)
        compiled()
        before = copies(net)
        opt.param_groups[0][name] = value
        with pytest.raises(ValueError, match=words):
            compiled()
        assert all(torch.equal(x, y) for x, y in zip(before, copies(net), strict=True))


@pytest.mark.long
def test_a_number_that_becomes_zero_is_read_in_a_compiled_step_of_somebody_else():
    def change(opt, step):
        if step is not None:
            opt.param_groups[0].update(weight_decay=0.1 if step < 3 else 0.0, betas=(0.9 if step < 4 else 0.0, 0.99))

    beside("adamw", stepping, change, steps=6)
