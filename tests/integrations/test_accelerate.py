"""Accelerate: prepared by it, our optimizers do what torch's do, through accumulation, clipping, mixed precision and saved states."""

import pytest
import torch
from torch import nn

import funcopt as fo
from tests.torch_optim.runs import assert_close, assert_equal, copies

accelerate = pytest.importorskip("accelerate")
from accelerate import Accelerator  # noqa: E402
from accelerate.state import AcceleratorState, GradientState  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
ARMS = {"lr_candidates": (0.5, 1.0, 2.0), "noise_candidates": (0.0, 0.01), "episode_length": 2, "seed": 3}


@pytest.fixture(autouse=True)
def anew():
    """Accelerate keeps its settings for the whole process."""
    yield
    AcceleratorState._reset_state(True)
    GradientState._reset_state()


def rows(batches=8):
    x = torch.randn(batches * 4, 3, generator=torch.Generator().manual_seed(5))
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, x.cumsum(1)[:, :2]), batch_size=4)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))


def prepared(make, schedule=None, **settings):
    AcceleratorState._reset_state(True)
    GradientState._reset_state()
    accelerator = Accelerator(cpu=True, **settings)
    net = network()
    opt = make(net.parameters())
    scheduler = schedule(opt) if schedule else torch.optim.lr_scheduler.LambdaLR(opt, lambda step: 1.0)
    return accelerator, *accelerator.prepare(net, opt, rows(), scheduler)


def train(accelerator, net, opt, loader, scheduler, clip=None, tell=False):
    for x, y in loader:
        with accelerator.accumulate(net):
            loss = nn.functional.mse_loss(net(x), y)
            accelerator.backward(loss)
            if clip is not None and accelerator.sync_gradients:
                accelerator.clip_grad_norm_(net.parameters(), clip)
            if tell:
                opt.optimizer.observe(loss=loss)
            opt.step()
            scheduler.step()
            opt.zero_grad()
    return copies(net)


def one_cycle(opt):
    return torch.optim.lr_scheduler.OneCycleLR(opt, 0.05, total_steps=8)


WAYS = {
    "plain": {},
    "bf16": {"mixed_precision": "bf16"},
    "accumulated": {"gradient_accumulation_steps": 2},
    "accumulated over a rest": {"gradient_accumulation_steps": 3, "clip": 0.1},
    "clipped": {"clip": 0.1},
    "scheduled": {"schedule": one_cycle},
}


@pytest.mark.parametrize("name", ["adamw", "sgd", "rmsprop"])
@pytest.mark.parametrize("way", WAYS)
def test_trains_as_with_torch(way, name):
    settings = dict(WAYS[way])
    clip = settings.pop("clip", None)
    theirs = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD, "rmsprop": torch.optim.RMSprop}[name]
    given = {"lr": 0.02, "momentum": 0.9} if name == "sgd" else {"lr": 0.02}
    first, second = (
        train(*prepared(lambda p, kind=kind: kind(p, **given), **settings), clip=clip) for kind in (getattr(fo.torch_optim, name), theirs)
    )
    assert_close(first, second, rtol=2e-6, atol=3e-7)


@pytest.mark.parametrize("name", ["adamw", "aees", "pilot"])
def test_a_saved_state_goes_on_bit_for_bit(name, tmp_path):
    kinds = {
        "adamw": lambda p: fo.torch_optim.adamw(p, lr=0.02),
        "pilot": lambda p: fo.torch_optim.pilot(p, lr=0.02),
        "aees": lambda p: fo.torch_optim.aees(p, lr=0.02, **ARMS),
    }

    def decay(opt):
        return torch.optim.lr_scheduler.ExponentialLR(opt, 0.9)

    parts = prepared(kinds[name], decay)
    train(*parts, tell=name == "aees")
    parts[0].save_state(tmp_path / "half", safe_serialization=False)
    whole = train(*parts, tell=name == "aees")
    parts = prepared(kinds[name], decay)
    parts[0].load_state(tmp_path / "half")
    assert parts[2].param_groups[0]["lr"] == pytest.approx(0.02 * 0.9**8)
    assert_equal(train(*parts, tell=name == "aees"), whole)


def test_preparing_makes_no_state_and_counts_nothing():
    _, net, opt, _, _ = prepared(lambda p: fo.torch_optim.aees(p, lr=0.02, **ARMS))
    assert opt.state_dict()["state"] == {}
    assert opt.optimizer.signals() == {}
    assert isinstance(opt.optimizer, fo.torch_optim.Optimizer)


@pytest.mark.parametrize("accumulated", [1, 2])
def test_what_is_observed_on_the_optimizer_inside_reaches_the_controller(accumulated):
    accelerator, net, opt, loader, scheduler = prepared(
        lambda p: fo.torch_optim.aees(p, lr=0.02, **ARMS), gradient_accumulation_steps=accumulated
    )
    found = train(accelerator, net, opt, loader, scheduler, tell=True)

    plain = network()
    alone = fo.torch_optim.aees(plain.parameters(), lr=0.02, **ARMS)
    for index, (x, y) in enumerate(rows(), 1):
        loss = nn.functional.mse_loss(plain(x), y)
        (loss / accumulated).backward()
        if index % accumulated == 0:
            alone.step(loss=loss)
            alone.zero_grad()
    assert_close(found, copies(plain), rtol=2e-6, atol=3e-7)
    assert opt.optimizer.signals()["lr"] == alone.signals()["lr"]


def test_evaluation_weights_through_the_wrapper():
    _, net, opt, loader, scheduler = prepared(lambda p: fo.torch_optim.schedule_free_sgd(p, lr=0.1))
    opt.train()
    for x, y in loader:
        nn.functional.mse_loss(net(x), y).backward()
        opt.step()
        opt.zero_grad()
    trained = copies(net)
    opt.eval()
    assert not all(torch.equal(x, y) for x, y in zip(trained, copies(net), strict=True))
    opt.train()
    assert_equal(trained, copies(net))


@pytest.mark.parametrize("name", ["adamw", "aees"])
def test_it_sees_the_steps_that_a_scaler_skips(name):
    """Accelerate puts a function of its own in the place of `step` to see whether the scaler calls it."""
    from accelerate.optimizer import AcceleratedOptimizer

    Accelerator(cpu=True)
    net = network()
    opt = fo.torch_optim.adamw(net.parameters(), lr=0.02) if name == "adamw" else fo.torch_optim.aees(net.parameters(), lr=0.02, **ARMS)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    around, skipped = AcceleratedOptimizer(opt, scaler=scaler), []
    for step, (x, y) in enumerate(rows()):
        loss = nn.functional.mse_loss(net(x), y)
        scaler.scale(loss * (float("inf") if step == 3 else 1.0)).backward()
        opt.observe(loss=loss)
        before = copies(net)
        around.step()
        skipped.append(around.step_was_skipped)
        assert skipped[-1] == all(torch.equal(p, q) for p, q in zip(before, copies(net), strict=True))
        around.zero_grad()
    assert skipped == [step == 3 for step in range(8)]
