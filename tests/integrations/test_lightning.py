"""Lightning and Fabric: trained by them, our optimizers do what torch's do, and controllers hear the loss."""

import csv
import logging
import warnings

import pytest
import torch
from torch import nn

import funcopt as fo
from funcopt.core.versions import TORCH
from tests.torch_optim.runs import assert_close, assert_equal, copies

L = pytest.importorskip("lightning")
from lightning.fabric import Fabric  # noqa: E402
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, StochasticWeightAveraging  # noqa: E402
from lightning.pytorch.loggers import CSVLogger  # noqa: E402
from lightning.pytorch.plugins import MixedPrecision  # noqa: E402

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("quiet")]

BATCHES, WIDTH = 6, 4
ARMS = {"lr_candidates": (0.5, 1.0, 2.0), "noise_candidates": (0.0, 0.01), "episode_length": 2, "seed": 3}


@pytest.fixture(scope="module")
def quiet():
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


def data():
    x = torch.randn(BATCHES * 5, WIDTH, generator=torch.Generator().manual_seed(7))
    rows = torch.utils.data.TensorDataset(x, x[:, :2].cumsum(1) + 0.3)
    return torch.utils.data.DataLoader(rows, batch_size=5)


class Module(L.LightningModule):
    """A small network; `make` makes its optimizer of the parameters."""

    def __init__(self, make, schedule=None, manual=False, tell=False):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(WIDTH, 5), nn.Tanh(), nn.Linear(5, 2))
        self.make, self.schedule, self.tell = make, schedule, tell
        self.automatic_optimization = not manual
        self.heard = []

    def configure_optimizers(self):
        opt = self.make(self.parameters())
        if self.schedule is None:
            return opt
        return {"optimizer": opt, "lr_scheduler": {"scheduler": self.schedule(opt), "interval": "step", "monitor": "loss", "strict": False}}

    def training_step(self, batch, index):
        x, y = batch
        loss = nn.functional.mse_loss(self.net(x.to(self.dtype)), y.to(self.dtype))
        self.heard.append(loss.item())
        self.log("loss", loss)
        if self.automatic_optimization:
            if self.tell:
                self.optimizers().observe(loss=loss)
            return loss
        opt = self.optimizers()
        opt.zero_grad()
        self.manual_backward(loss)
        if self.tell:
            opt.observe(loss=loss)
        opt.step()


def trainer(folder, **settings):
    settings = {"logger": False, "enable_checkpointing": False, "max_epochs": 2, **settings}
    return L.Trainer(accelerator="cpu", enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder, **settings)


def scaled(size):
    """Half precision with a scaler, on a CPU."""
    if TORCH < (2, 3):
        pytest.skip("the scaler works on CPUs from torch 2.3 on")
    return [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=size))]


def fitted(folder, make, module=None, ckpt_path=None, **settings):
    module = {} if module is None else module
    net = Module(make, **module)
    settings = {name: value() if callable(value) else value for name, value in settings.items()}
    trainer(folder, **settings).fit(net, data(), ckpt_path=ckpt_path)
    return net


def exponential(opt):
    return torch.optim.lr_scheduler.ExponentialLR(opt, 0.9)


def one_cycle(opt):
    return torch.optim.lr_scheduler.OneCycleLR(opt, 0.05, total_steps=2 * BATCHES)


def plateau(opt):
    return torch.optim.lr_scheduler.ReduceLROnPlateau(opt, factor=0.5, patience=0, threshold=0.5)


TOLERANCE = {"rtol": 2e-6, "atol": 2e-7}
FITS = {
    "automatic": {},
    "manual": {"module": {"manual": True}},
    "a scheduler": {"module": {"schedule": exponential}},
    "one cycle": {"module": {"schedule": one_cycle}},
    "a plateau": {"module": {"schedule": plateau}},
    "accumulated and clipped": {"accumulate_grad_batches": 2, "gradient_clip_val": 0.1},
    "clipped by value": {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"},
    "bf16-mixed": {"precision": "bf16-mixed"},
    "64-true": {"precision": "64-true"},
    "bf16-true": {"precision": "bf16-true"},
    "16-mixed with a scaler": {"plugins": lambda: scaled(256.0)},
    "averaged weights": {
        "callbacks": lambda: [StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=1, annealing_epochs=1)],
        "max_epochs": 3,
    },
}


@pytest.mark.parametrize("way", FITS)
def test_trains_as_with_torch(way, tmp_path):
    ours = fitted(tmp_path, lambda params: fo.torch_optim.adamw(params, lr=0.02), **FITS[way])
    theirs = fitted(tmp_path, lambda params: torch.optim.AdamW(params, lr=0.02), **FITS[way])
    tolerance = {"64-true": {"rtol": 1e-12, "atol": 1e-14}, "bf16-true": {"rtol": 2**-6, "atol": 2**-9}}.get(way, TOLERANCE)
    assert_close(copies(ours), copies(theirs), **tolerance)
    assert ours.heard == pytest.approx(theirs.heard, rel=1e-5 if way != "bf16-true" else 0.1)


def test_what_the_monitor_shows_is_what_a_class_of_torch_shows(tmp_path):
    shown = []
    for make in (fo.torch_optim.adamw, torch.optim.AdamW):
        monitor = LearningRateMonitor(logging_interval="step", log_momentum=True, log_weight_decay=True)
        logger = CSVLogger(tmp_path, name=make.__name__)
        fitted(
            tmp_path,
            lambda p, make=make: make(p, lr=0.02),
            {"schedule": exponential},
            callbacks=[monitor],
            logger=logger,
            log_every_n_steps=1,
        )
        with open(logger.experiment.metrics_file_path, newline="") as file:
            shown.append(
                [{key.replace(make.__name__, ""): value for key, value in row.items()} for row in csv.DictReader(file) if not row["loss"]]
            )
    assert [float(row["lr-"]) for row in shown[0]] == pytest.approx([float(row["lr-"]) for row in shown[1]])
    assert set(shown[0][0]) == set(shown[1][0]) >= {"lr-", "lr--momentum", "lr--weight_decay"}
    assert {(row["lr--momentum"], row["lr--weight_decay"]) for row in shown[0]} == {("0.9", "0.01")}


@pytest.mark.parametrize("manual", [False, True], ids=["automatic", "manual"])
@pytest.mark.parametrize("kind", ["adamw", "aees"])
def test_a_resumed_fit_continues_bit_for_bit(kind, manual, tmp_path):
    def make(params):
        return fo.torch_optim.adamw(params, lr=0.02) if kind == "adamw" else fo.torch_optim.aees(params, lr=0.02, **ARMS)

    module = {"manual": manual, "schedule": exponential, "tell": kind == "aees" and manual}
    whole = fitted(tmp_path, make, module, max_epochs=3)
    half = Module(make, **module)
    first = trainer(tmp_path, max_epochs=2)
    first.fit(half, data())
    first.save_checkpoint(tmp_path / "half.ckpt")
    file = torch.load(tmp_path / "half.ckpt", weights_only=True)
    assert set(file["optimizer_states"][0]) == {"state", "param_groups"}
    resumed = fitted(tmp_path, make, module, ckpt_path=tmp_path / "half.ckpt", max_epochs=3)
    assert_equal(copies(resumed), copies(whole))
    assert resumed.heard == whole.heard[2 * BATCHES :]


# --- controllers ----------------------------------------------------------------------------------------------------------------


def plain_loop(make, told=True, epochs=2):
    """The same run without Lightning."""
    net = Module(make)
    opt = make(net.parameters())
    for _ in range(epochs):
        for x, y in data():
            opt.zero_grad()
            loss = nn.functional.mse_loss(net.net(x), y)
            loss.backward()
            opt.step(loss=loss) if told else opt.step()
    return net, opt


def told(kind):
    if kind == "adaptive":
        return lambda params: fo.torch_optim.adaptive(params, lr=0.02, lr_rule="trend+variance", betas_rule=("relative", "variance"))
    return lambda params: fo.torch_optim.aees(params, lr=0.02, **ARMS)


@pytest.mark.parametrize("kind", ["aees", "adaptive"])
@pytest.mark.parametrize("way", ["the closure tells the loss", "observed in manual mode", "observed beside a scaler"])
def test_a_controller_hears_the_loss_of_its_step(way, kind, tmp_path):
    make = told(kind)
    module = {"manual": "manual" in way, "tell": "observed" in way}
    settings = {"plugins": lambda: scaled(2.0)}
    net = fitted(tmp_path, make, module, **(settings if "scaler" in way else {}))
    plain, opt = plain_loop(make)
    if "scaler" in way:  # its forward pass is in half precision
        assert_close(copies(net), copies(plain), rtol=0.05, atol=0.02)
        return
    assert_close(copies(net), copies(plain), **TOLERANCE)
    assert {name: value.item() for name, value in net.trainer.optimizers[0].signals().items()} == pytest.approx(
        {name: value.item() for name, value in opt.signals().items()}
    )


def test_a_loss_is_still_there_after_a_step_that_the_scaler_skipped(tmp_path):
    class Blowing(Module):
        def training_step(self, batch, index):
            loss = super().training_step(batch, index)
            return loss * float("inf") if index == 2 else loss

    net = Blowing(lambda params: fo.torch_optim.aees(params, lr=0.02, **ARMS), tell=True)
    trainer(tmp_path, plugins=scaled(4.0)).fit(net, data())
    controller = fo.find(net.trainer.optimizers[0].functional(), "UcbEpisodesState")
    assert int(controller.step) == 2 * BATCHES - 2
    assert all(torch.isfinite(p).all() for p in net.parameters())


def test_a_missing_loss_says_what_to_call(tmp_path):
    with pytest.raises(ValueError, match=r"needs the loss of this step; call step\(loss=loss\), or observe\(loss=loss\)"):
        fitted(tmp_path, lambda params: fo.torch_optim.aees(params, lr=0.02, **ARMS), {"manual": True})


def test_pilot_needs_no_word(tmp_path):
    net = fitted(tmp_path, lambda params: fo.torch_optim.pilot(params, lr=0.02))
    plain, _ = plain_loop(lambda params: fo.torch_optim.pilot(params, lr=0.02), told=False)
    assert_close(copies(net), copies(plain), **TOLERANCE)


def test_the_command_line_makes_them_by_name(tmp_path):
    pytest.importorskip("jsonargparse")
    from lightning.pytorch.cli import LightningCLI

    class Fitted(Module):
        def __init__(self):
            super().__init__(None)

        def train_dataloader(self):
            return data()

    Fitted.configure_optimizers = L.LightningModule.configure_optimizers
    words = ["--optimizer=funcopt.torch_optim.pilot", "--optimizer.lr=0.02", "--optimizer.gamma=0.9", "--optimizer.betas=[0.8,0.99]"]
    schedule = ["--lr_scheduler=ExponentialLR", "--lr_scheduler.gamma=0.5"]
    quiet = [f"--trainer.{name}=false" for name in ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")]
    where = ["--trainer.max_epochs=1", "--trainer.accelerator=cpu", f"--trainer.default_root_dir={tmp_path}"]
    cli = LightningCLI(Fitted, args=["fit", *words, *schedule, *quiet, *where], save_config_callback=None)
    (opt,) = cli.trainer.optimizers
    assert type(opt) is fo.torch_optim.pilot
    group = opt.param_groups[0]
    assert (group["lr"], group["gamma"], group["betas"]) == (0.01, 0.9, (0.8, 0.99))
    assert opt.effective_lrs() == [pytest.approx(0.02)]


def test_a_roulette_hears_of_epochs_from_a_callback(tmp_path):
    picks = []

    class Epochs(Callback):
        def on_train_epoch_start(self, trainer, module):
            trainer.optimizers[0].on_epoch_start(trainer.current_epoch)

        def on_train_epoch_end(self, trainer, module):
            trainer.optimizers[0].on_epoch_end(val_acc=0.1 * trainer.current_epoch)
            picks.append(int(trainer.optimizers[0].signals()["pick"]))

    def make(params):
        return fo.torch_optim.optiroulette(params, {"sgd": {"lr": 0.1}, "adam": {"lr": 0.01}}, seed=3)

    fitted(tmp_path, make, callbacks=[Epochs()], max_epochs=6)
    opt, again = make(Module(None).parameters()), []
    params = opt.param_groups[0]["params"]
    for epoch in range(6):
        opt.on_epoch_start(epoch)
        sum(p.sum() for p in params).backward()
        opt.step()
        opt.on_epoch_end(val_acc=0.1 * epoch)
        again.append(int(opt.signals()["pick"]))
    assert picks == again and len(set(picks)) == 2


# --- Fabric ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "64-true"])
def test_fabric_trains_as_with_torch(precision, tmp_path):
    def train(make):
        fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
        net = Module(None).net
        net, opt = fabric.setup(net, make(net.parameters(), lr=0.02))
        loader = fabric.setup_dataloaders(data())
        for x, y in loader:
            opt.zero_grad()
            loss = nn.functional.mse_loss(net(x), y)
            fabric.backward(loss)
            fabric.clip_gradients(net, opt, max_norm=0.5)
            opt.step()
        return copies(net)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tolerance = {"rtol": 1e-12, "atol": 1e-14} if precision == "64-true" else TOLERANCE
        assert_close(train(fo.torch_optim.adamw), train(torch.optim.AdamW), **tolerance)


def test_fabric_saves_resumes_and_hands_on_what_is_observed(tmp_path):
    fabric = Fabric(accelerator="cpu", devices=1)

    def start():
        net = Module(None).net
        return fabric.setup(net, fo.torch_optim.aees(net.parameters(), lr=0.02, **ARMS))

    def train(net, opt, batches):
        for x, y in batches:
            opt.zero_grad()
            loss = nn.functional.mse_loss(net(x), y)
            fabric.backward(loss)
            opt.observe(loss=loss)
            opt.step()

    batches = list(data())
    net, opt = start()
    train(net, opt, batches[:3])
    fabric.save(tmp_path / "half.ckpt", {"net": net, "opt": opt})
    train(net, opt, batches[3:])
    other, again = start()
    fabric.load(tmp_path / "half.ckpt", {"net": other, "opt": again})
    train(other, again, batches[3:])
    assert_equal(copies(net), copies(other))
    plain, _ = plain_loop(lambda params: fo.torch_optim.aees(params, lr=0.02, **ARMS), epochs=1)
    assert_close(copies(net), copies(plain), **TOLERANCE)
