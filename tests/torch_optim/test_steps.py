"""What a step is told, by closures, trainers and scalers; what it can be asked (C19, A1, A4, A6)."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import funcopt as fo
from tests.helpers import needs_scaler
from tests.torch_optim.runs import assert_close, assert_equal, copies, gradients, model, train


def aees(net, **options):
    return fo.torch_optim.aees(net.parameters(), lr=0.01, lr_candidates=(0.5, 1.0, 2.0), episode_length=2, seed=0, **options)


def test_a_closure_is_called_once_and_its_value_is_the_loss():
    net, other, calls = model(), model(), []
    opt, plain = aees(net), aees(other)

    def closure():
        calls.append(torch.is_grad_enabled())
        return gradients(net, len(calls) - 1)

    values = [opt.step(closure) for _ in range(4)]
    assert calls == [True] * 4
    assert all(isinstance(value, torch.Tensor) for value in values)
    assert_equal(copies(net), train(other, plain, 4, loss=lambda loss: loss))


def test_what_is_observed_is_used_by_the_next_step_alone():
    net, other = model(), model()
    opt, plain = aees(net), aees(other)
    for step in range(4):
        loss = gradients(net, step)
        opt.observe(loss=torch.tensor(99.0))
        opt.observe(loss=loss)  # a second call overwrites
        opt.step()
    assert_equal(copies(net), train(other, plain, 4, loss=lambda loss: loss))
    with pytest.raises(ValueError, match=r"ucb_episodes: needs the loss of this step; call step\(loss=loss\), or observe\(loss=loss\)"):
        opt.step()


@pytest.mark.parametrize("order", ["zero, observe, backward", "observe, zero, backward"])
def test_a_loss_survives_zero_grad_where_it_belongs_to_gradients_to_come(order):
    net = model()
    opt = aees(net)
    for step in range(3):
        if order.startswith("zero"):
            opt.zero_grad()
        loss = (net(torch.ones(2, 3, dtype=torch.float64)) - step).square().sum()
        opt.observe(loss=loss)
        if order.startswith("observe"):
            opt.zero_grad()
        loss.backward()
        opt.step()


def test_a_skipped_step_drops_its_loss_and_keeps_a_metric():
    net = model()
    opt = aees(net)
    opt.observe(loss=gradients(net, 0), metric=0.5)
    opt.zero_grad()  # and no step
    assert dict(opt._engine.pending) == {"metric": 0.5}


def test_a_loss_observed_after_a_skipped_step_belongs_to_the_gradients_to_come():
    net = model()
    opt = aees(net)
    opt.observe(loss=torch.tensor(1.0))
    gradients(net, 0)  # and no step
    opt.observe(loss=torch.tensor(2.0))
    opt.observe(loss=torch.tensor(3.0))
    opt.zero_grad()
    assert dict(opt._engine.pending) == {"loss": 3.0}
    gradients(net, 1)
    opt.step()


def test_a_controller_can_hold_still_where_a_loss_is_missing():
    net = model()
    opt = aees(net, on_missing="hold")
    train(net, opt, 5)
    assert all(torch.isfinite(p).all() for p in net.parameters())
    roulette = fo.torch_optim.optiroulette(model().parameters(), {"sgd": {"lr": 0.1}}, on_missing="hold")
    net = model()
    roulette.param_groups[0]["params"] = list(net.parameters())
    train(net, roulette, 2)


def test_epochs_reach_a_roulette():
    net = model()
    opt = fo.torch_optim.optiroulette(net.parameters(), {"sgd": {"lr": 0.1}, "adam": {"lr": 0.01}}, seed=3)
    picks = []
    for epoch in range(8):
        train(net, opt, 1, epoch, epoch=epoch)
        opt.observe(metric=0.1 * epoch)
        picks.append(int(opt.signals()["pick"]))
    assert set(picks) == {0, 1}


def test_signals_and_rates_can_be_read():
    net = model()
    opt = aees(net)
    assert opt.signals() == {}
    assert opt.effective_lrs() == [0.01]
    train(net, opt, 3, loss=lambda loss: loss)
    assert {"lr", "lr_multiplier", "episode_reward", "noise_std"} == set(opt.signals())
    assert opt.effective_lrs() == [float(opt.signals()["lr"])] != [0.01]


def test_without_gradients_nothing_changes():
    net = model()
    opt = aees(net)
    opt.step()
    assert opt.state_dict()["state"] == {}
    train(net, opt, 1, loss=lambda loss: loss)
    state = str(opt.state_dict())
    opt.zero_grad()
    opt.step()
    assert state == str(opt.state_dict())


@needs_scaler
def test_a_scaler_skips_and_unscales_as_with_torch():
    runs = []
    for make in (fo.torch_optim.adamw, torch.optim.AdamW):
        net = model(torch.float32)
        opt = make(net.parameters(), lr=0.01)
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        for step in range(6):
            opt.zero_grad()
            loss = net(torch.randn(4, 3, generator=torch.Generator().manual_seed(step))).square().sum()
            scaler.scale(loss).backward()
            if step == 3:
                net[0].weight.grad[0, 0] = float("inf")
            before = str(opt.state_dict())
            scaler.unscale_(opt)
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            scaler.step(opt)
            scaler.update()
            assert (str(opt.state_dict()) == before) == (step == 3)
        runs.append(copies(net))
    assert_close(*runs, rtol=0, atol=2e-7)


@needs_scaler
def test_a_scaler_hands_on_the_loss():
    net = model(torch.float32)
    opt = aees(net)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for _ in range(3):
        opt.zero_grad()
        loss = net(torch.ones(4, 3)).square().sum()
        scaler.scale(loss).backward()
        scaler.step(opt, loss=loss)
        scaler.update()
    assert int(fo.find(opt.functional(), "step")) == 3


def test_evaluation_weights_are_swapped_in_and_out():
    net = model()
    opt = fo.torch_optim.schedule_free_sgd(net.parameters(), lr=0.1)
    train(net, opt, 5)
    trained = copies(net)
    opt.eval()
    smooth = copies(net)
    assert not any(torch.equal(x, y) for x, y in zip(trained, smooth, strict=True))
    opt.eval()
    assert_equal(smooth, copies(net))
    with pytest.raises(ValueError, match=r"call train\(\) before step"):
        train(net, opt, 1)
    opt.train()
    assert_equal(trained, copies(net))
    opt.eval()
    saved = copy.deepcopy((net.state_dict(), opt.state_dict()))
    other = model(seed=1)
    again = fo.torch_optim.schedule_free_sgd(other.parameters(), lr=0.1)
    other.load_state_dict(saved[0])
    again.load_state_dict(saved[1])
    again.eval()
    assert_equal(smooth, copies(other))
    again.train()
    assert_equal(trained, copies(other))
    plain = fo.torch_optim.adamw(model().parameters())
    plain.eval()
    plain.train()


@pytest.mark.parametrize(
    "wrong, error, message",
    [
        (lambda p: fo.torch_optim.Optimizer(p, fo.adamw(0.1), lr=0.1), ValueError, "lr must not be given, since chain has its own rate"),
        (lambda p: fo.torch_optim.Optimizer(p, fo.adamw(None)), ValueError, "needs lr, since no link of the transformation says 'base_lr'"),
        (
            lambda p: fo.torch_optim.Optimizer([{"params": p, "lr": 0.2}], fo.adamw(0.1)),
            ValueError,
            "a group must not have an lr of its own",
        ),
        (lambda p: fo.torch_optim.Optimizer(p, 3), TypeError, "transformation"),
        (lambda p: fo.torch_optim.adamw(p, lr=-1.0), ValueError, "Invalid learning rate: -1.0"),
        (lambda p: fo.torch_optim.adamw(p, foreach=True), ValueError, "foreach must be False or None"),
        (lambda p: fo.torch_optim.adamw(p, differentiable=True), ValueError, "the functional loop"),
        (lambda p: fo.torch_optim.adamw(p, moment=3), TypeError, "adamw: takes no 'moment'; it takes lr, betas"),
        (lambda p: fo.torch_optim.aees(p, inner=torch.optim.AdamW), TypeError, "from_torch"),
        (lambda p: fo.torch_optim.aees(torch.optim.AdamW(p)), TypeError, "from_torch"),
        (lambda p: fo.torch_optim.aees(p, lr_scheduler=object()), TypeError, "takes no lr_scheduler"),
        (lambda p: fo.torch_optim.Optimizer(p, fo.lamb(0.1), flat=True).step(), ValueError, None),
    ],
)
def test_says_what_is_wrong(wrong, error, message):
    if message is None:
        net = model()
        opt = fo.torch_optim.Optimizer(net.parameters(), fo.lamb(0.1), flat=True)
        with pytest.raises(error, match="flat=True needs a transformation that is flattenable"):
            train(net, opt, 1)
        return
    with pytest.raises(error, match=message):
        wrong([nn.Parameter(torch.ones(2))])


class NoHostRead(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert "_local_scalar_dense" not in str(func), "a number was read on the host"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["adamw", "pilot", "sgd"])
@pytest.mark.parametrize("tensor", [False, True], ids=["number", "tensor"])
def test_a_step_reads_no_number_on_the_host(kind, tensor, monkeypatch):
    # A rate that lies on the CPU is read, to be checked, and one that lies on a device, for which it stands here, is not.
    monkeypatch.setattr("funcopt.torch_optim.groups.as_number", lambda value: value)
    net = model()
    opt = getattr(fo.torch_optim, kind)(net.parameters(), lr=torch.tensor(0.01) if tensor else 0.01)
    train(net, opt, 1)
    gradients(net, 1)
    with NoHostRead():
        opt.step()


def test_a_billion_parameters_without_memory():
    big = nn.Parameter(torch.empty(1000, 1_000_000, device="meta"))
    opt = fo.torch_optim.adamw([big], lr=0.01)
    big.grad = torch.empty_like(big)
    opt.step()
    assert opt.state[big]["direction/mu"].shape == big.shape


IMPORTS = """
import sys, torch
before = set(sys.modules)
import funcopt as fo
fo.torch_optim.adamw
strangers = {"matplotlib", "sklearn", "tqdm", "pytorch_optimizer", "lightning"}
print(*sorted({name.split(".")[0] for name in set(sys.modules) - before} & strangers))
"""


def test_using_it_imports_no_stranger():
    answer = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == ""
