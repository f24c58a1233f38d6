"""Loops by hand with torch's tools around the step: scaler, clipping, accumulation, averages, hooks in backward, torch.compile; Opacus."""

import copy

import pytest
import torch
from torch import nn

import funcopt as fo
from tests.helpers import needs_compiler, needs_scaler
from tests.torch_optim.runs import assert_close, assert_equal, batch, copies, gradients, model

PAIRS = {
    "adamw": (lambda p: fo.torch_optim.adamw(p, lr=0.02), lambda p: torch.optim.AdamW(p, lr=0.02)),
    "sgd": (lambda p: fo.torch_optim.sgd(p, lr=0.1, momentum=0.9), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)),
}
ARMS = {"lr_candidates": (0.5, 1.0, 2.0), "noise_candidates": (0.0, 0.01), "episode_length": 2, "seed": 3}
pairs = pytest.mark.parametrize("make", PAIRS.values(), ids=PAIRS)


# --- torch.amp ------------------------------------------------------------------------------------------------------------------


def amp_loop(make, tell=False, steps=7, blow_at=3):
    """Half precision, scaled, clipped after unscaling, with gradients that are infinite once."""
    net = model(torch.float32)
    opt = make(net.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
    history = []
    for step in range(steps):
        opt.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = (net(batch(step, torch.float32)) - 0.3).square().mean()
        scaler.scale(loss * (float("inf") if step == blow_at else 1.0)).backward()
        scaler.unscale_(opt)
        nn.utils.clip_grad_norm_(net.parameters(), 0.05)
        before = copy.deepcopy((opt.state_dict(), copies(net)))
        scaler.step(opt, loss=loss) if tell else scaler.step(opt)
        if step == blow_at:
            assert str(before) == str((opt.state_dict(), copies(net)))
        scaler.update()
        history.append(scaler.get_scale())
    return copies(net), history, opt


@needs_scaler
@pairs
def test_the_scaler_with_an_infinite_gradient_as_with_torch(make):
    (ours, scales, _), (theirs, expected, _) = amp_loop(make[0]), amp_loop(make[1])
    assert_close(ours, theirs, rtol=1e-6, atol=3e-7)
    assert scales == expected and min(scales[1:]) < max(scales)


@needs_scaler
def test_the_scaler_hands_on_the_loss_of_the_steps_that_happen():
    _, _, opt = amp_loop(lambda p: fo.torch_optim.aees(p, lr=0.02, **ARMS), tell=True)
    assert int(fo.find(opt.functional(), "UcbEpisodesState").step) == 6


# --- accumulation, averages, hooks ----------------------------------------------------------------------------------------------


@pairs
def test_accumulated_gradients_and_a_clip(make):
    results = []
    for one in make:
        net = model()
        opt = one(net.parameters())
        for step in range(9):
            ((net(batch(step)) - 0.3).square().mean() / 3).backward()
            if step % 3 == 2:
                nn.utils.clip_grad_norm_(net.parameters(), 0.05)
                opt.step()
                opt.zero_grad()
        results.append(copies(net))
    assert_close(*results)


@pairs
def test_averaged_models(make):
    results = []
    for one in make:
        net = model()
        opt = one(net.parameters())
        average = torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
        scheduler = torch.optim.swa_utils.SWALR(opt, swa_lr=0.05, anneal_epochs=3)
        for step in range(6):
            gradients(net, step)
            opt.step()
            average.update_parameters(net)
            scheduler.step()
        results.append([*copies(net), *copies(average.module)])
    assert_close(*results)


@pairs
def test_an_optimizer_for_each_parameter_in_backward(make):
    """Gradients are used and freed as they come."""
    results = []
    for one in make:
        net = model()
        optimizers = {p: one([p]) for p in net.parameters()}

        def hook(p, optimizers=optimizers):
            optimizers[p].step()
            optimizers[p].zero_grad()

        for p in net.parameters():
            p.register_post_accumulate_grad_hook(hook)
        for step in range(5):
            (net(batch(step)) - 0.3).square().mean().backward()
            assert all(p.grad is None for p in net.parameters())
        results.append(copies(net))
    assert_close(*results)


def test_one_optimizer_for_all_and_one_for_each_are_the_same_in_backward():
    net, other = model(), model()
    for p in net.parameters():
        one = fo.torch_optim.adamw([p], lr=0.02)
        p.register_post_accumulate_grad_hook(lambda p, one=one: (one.step(), one.zero_grad())[0])
    opt = fo.torch_optim.adamw(other.parameters(), lr=0.02)
    for step in range(4):
        (net(batch(step)) - 0.3).square().mean().backward()
        opt.zero_grad()
        (other(batch(step)) - 0.3).square().mean().backward()
        opt.step()
    assert_equal(copies(net), copies(other))


# --- torch.compile ----------------------------------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize("kind", ["adamw", "pilot"])
def test_a_loop_that_is_compiled_with_its_step(kind):
    """Model, loss, gradient and step in one compiled function, with a scheduler outside; the compiler's front end alone."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    results, graphs = [], []
    for compiled in (True, False):
        net = model()
        opt = getattr(fo.torch_optim, kind)(net.parameters(), lr=torch.tensor(0.02, dtype=torch.float64))
        scheduler = torch.optim.lr_scheduler.ExponentialLR(opt, 0.9)

        def loop(x, net=net, opt=opt):
            opt.zero_grad(set_to_none=True)
            loss = (net(x) - 0.3).square().mean()
            loss.backward()
            opt.step()
            return loss.detach()

        run = torch.compile(loop, backend="aot_eager") if compiled else loop
        losses = []
        for step in range(8):
            losses.append(run(batch(step)))
            scheduler.step()
            if compiled:
                graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
        results.append([*copies(net), *losses])
    assert_close(*results, rtol=1e-9, atol=1e-12)
    assert graphs[3] == graphs[-1], f"compiled anew as steps pass: {graphs}"


@needs_compiler
def test_the_compiled_step_alone_is_two_graphs_at_most():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    nets = [model(), model()]
    opt = fo.torch_optim.adamw(nets[0].parameters(), lr=0.02)
    theirs = torch.optim.AdamW(nets[1].parameters(), lr=0.02)
    schedulers = [torch.optim.lr_scheduler.ExponentialLR(each, 0.9) for each in (opt, theirs)]
    step_of = [torch.compile(opt.step, backend="aot_eager"), theirs.step]
    for step in range(10):
        for net, take, scheduler in zip(nets, step_of, schedulers, strict=True):
            net.zero_grad(set_to_none=True)
            (net(batch(step)) - 0.3).square().mean().backward()
            take()
            scheduler.step()
    assert_close(copies(nets[0]), copies(nets[1]), rtol=1e-9, atol=1e-12)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 2


# --- Opacus ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
@pairs
def test_private_gradients(make):
    opacus = pytest.importorskip("opacus")
    results = []
    for one in make:
        net = model(torch.float32)
        rows = torch.utils.data.TensorDataset(batch(0, torch.float32).repeat(4, 1))
        private, opt, loader = opacus.PrivacyEngine().make_private(
            module=net,
            optimizer=one(net.parameters()),
            data_loader=torch.utils.data.DataLoader(rows, batch_size=5),
            noise_multiplier=0.5,
            max_grad_norm=0.1,
            noise_generator=torch.Generator().manual_seed(4),
            poisson_sampling=False,
        )
        for (x,) in loader:
            opt.zero_grad()
            (private(x) - 0.3).square().mean().backward()
            opt.step()
        results.append(copies(net))
    assert_close(*results, rtol=1e-6, atol=3e-7)
