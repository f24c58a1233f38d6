"""Optimizers around optimizers: with ours inside they do what they do with torch's inside."""

import copy

import pytest
import torch

import funcopt as fo
from tests.torch_optim.runs import assert_close, assert_equal, batch, copies, gradients, model

po = pytest.importorskip("pytorch_optimizer")
schedulefree = pytest.importorskip("schedulefree")
pulseopt = pytest.importorskip("pulseopt")

pytestmark = pytest.mark.filterwarnings("ignore")
INNER = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD, "rmsprop": torch.optim.RMSprop}
SETTINGS = {"adamw": {"lr": 0.02, "weight_decay": 0.1}, "sgd": {"lr": 0.05, "momentum": 0.9}, "rmsprop": {"lr": 0.01}}
STEPS, CLOSE = 8, {"rtol": 1e-6, "atol": 3e-7}


def both(name):
    """A float32 model twice, and what makes our inner optimizer and torch's."""
    for kind in (getattr(fo.torch_optim, name), INNER[name]):
        yield model(torch.float32), kind, lambda params, kind=kind: kind(params, **SETTINGS[name])


def trained(net, opt, steps=STEPS, start=0):
    for step in range(start, start + steps):
        gradients(net, step)
        opt.step()
    return copies(net)


WRAPPERS = {
    "Lookahead": lambda inner: po.Lookahead(inner, k=3),
    "TRAC": lambda inner: po.TRAC(inner),
    "OrthoGrad": lambda inner: po.OrthoGrad(inner),
}


@pytest.mark.parametrize("name", INNER)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers_of_pytorch_optimizer(wrapper, name):
    ours, theirs = (trained(net, WRAPPERS[wrapper](make(net.parameters()))) for net, _, make in both(name))
    assert_close(ours, theirs, **CLOSE)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_wrappers_of_pytorch_optimizer_that_make_the_optimizer_themselves(name):
    results = []
    for net, kind, _ in both(name):
        results.append(trained(net, po.Lookahead(kind, params=net.parameters(), k=2, **SETTINGS[name])))
    assert_close(*results, **CLOSE)


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("name", INNER)
def test_sam_takes_our_class(name, adaptive):
    results = []
    for net, kind, _ in both(name):
        opt = po.SAM(net.parameters(), base_optimizer=kind, rho=0.1, adaptive=adaptive, **SETTINGS[name])
        for step in range(STEPS):
            gradients(net, step)
            opt.step(lambda net=net, step=step: gradients(net, step))
        results.append(copies(net))
    assert_close(*results, **CLOSE)


FREE = {
    "pytorch_optimizer": lambda inner: po.ScheduleFreeWrapper(inner, momentum=0.9),
    "schedulefree": lambda inner: schedulefree.ScheduleFreeWrapper(inner, momentum=0.9),
}


@pytest.mark.parametrize("package", FREE)
@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_schedule_free_wrappers(name, package):
    """schedulefree's has its average in the state of the optimizer inside, on which torch's AdamW fails: torch's is inside the other."""
    settings = {"lr": 0.02, "weight_decay": 0.0} if name == "adamw" else {"lr": 0.05}
    results = []
    for net, kind, _ in both(name):
        inner = kind(net.parameters(), **settings)
        opt = FREE[package if kind is not INNER[name] else "pytorch_optimizer"](inner)
        opt.train()
        trained(net, opt)
        during = copies(net)
        opt.eval()
        results.append([*during, *copies(net)])
        if kind is not INNER[name] and package == "schedulefree":
            assert all("z" in inner.state[p] for p in net.parameters())
    assert_close(*results, **CLOSE)


def test_a_state_under_foreign_keys_is_saved_and_resumed():
    def start():
        net = model(torch.float32)
        inner = fo.torch_optim.adamw(net.parameters(), lr=0.02)
        opt = schedulefree.ScheduleFreeWrapper(inner, momentum=0.9)
        opt.train()
        return net, opt

    net, opt = start()
    trained(net, opt, 3)
    saved, values = copy.deepcopy(opt.state_dict()), copies(net)
    whole = trained(net, opt, 3, start=3)
    other, again = start()
    again.load_state_dict(saved)
    with torch.no_grad():
        for p, value in zip(other.parameters(), values, strict=True):
            p.copy_(value)
    assert_equal(trained(other, again, 3, start=3), whole)


def test_ours_is_theirs_that_is_schedule_free():
    """The class that is schedule-free by itself, beside that of the authors."""
    results = []
    for kind in (fo.torch_optim.schedule_free_sgd, schedulefree.SGDScheduleFree):
        net = model()
        opt = kind(net.parameters(), lr=0.05)
        opt.train()
        trained(net, opt)
        opt.eval()
        results.append(copies(net))
    assert_close(*results, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", INNER)
def test_pulseopt_around_ours(name):
    """Its episodes write `lr` of the groups, and its noise the gradients."""
    results, logs = [], []
    for net, _, make in both(name):
        inner = make(net.parameters())
        scheduler = torch.optim.lr_scheduler.ExponentialLR(inner, 0.95)
        opt = pulseopt.AEES(
            inner, lr_candidates=[0.5, 1.0, 2.0], noise_candidates=[0.0, 0.01], episode_length=2, lr_scheduler=scheduler, seed=0
        )
        for step in range(10):
            opt.step_start(step)
            opt.step_end(gradients(net, step))
        opt.finalize()
        results.append(copies(net))
        logs.append(opt.get_logs()["selected_lr_values"])
    assert_close(*results, **CLOSE)
    assert logs[0] == logs[1]


@pytest.mark.parametrize("name", ["pilot", "lion", "lamb"])
def test_methods_that_torch_has_not_can_be_wrapped(name):
    net = model(torch.float32)
    opt = po.Lookahead(getattr(fo.torch_optim, name)(net.parameters(), lr=0.01), k=2)
    first = float((net(batch(0, torch.float32)) - 0.3).square().mean())
    trained(net, opt, 30)
    assert float((net(batch(0, torch.float32)) - 0.3).square().mean()) < first
