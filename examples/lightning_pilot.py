"""PILOT in Lightning: handwritten digits, with and without it, and what it says while it trains.

    python examples/lightning_pilot.py
    python examples/lightning_pilot.py --epochs 10

Lightning needs no word about it: `configure_optimizers` returns an optimizer and a scheduler, as always. A callback prints what PILOT
says: how far successive gradients agree, and how far it therefore trusts the momentum, divides by the RMS and keeps but the sign.
Needs lightning and scikit-learn; no network.
"""

import argparse
import logging
import warnings

import lightning as L
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

import funcopt as fo


def digits(train):
    """Three of every four rows to train on, the fourth to test on."""
    data = load_digits()
    rows = (torch.arange(len(data.target)) % 4 > 0) == train
    images, labels = torch.tensor(data.data[rows] / 16, dtype=torch.float32), torch.tensor(data.target[rows])
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), batch_size=64, shuffle=train)


class Classifier(L.LightningModule):
    def __init__(self, make_optimizer, steps):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
        self.make_optimizer, self.steps = make_optimizer, steps

    def configure_optimizers(self):
        optimizer = self.make_optimizer(self.parameters())
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def training_step(self, batch, index):
        images, labels = batch
        loss = F.cross_entropy(self.net(images), labels)
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def test_step(self, batch, index):
        images, labels = batch
        self.log("accuracy", (self.net(images).argmax(-1) == labels).float().mean())


class Says(L.Callback):
    """Prints at the end of an epoch what the optimizer did in the last step and why."""

    WORDS = ("agreement", "momentum_trust", "variance_power", "sign_compression")

    def on_train_start(self, trainer, module):
        print(f"{'epoch':>5}{'loss':>9}{'effective lr':>15}" + "".join(f"{word.replace('_', ' '):>18}" for word in self.WORDS))

    def on_train_epoch_end(self, trainer, module):
        (optimizer,) = trainer.optimizers
        words = optimizer.signals()
        loss, (rate,) = float(trainer.callback_metrics["loss"]), optimizer.effective_lrs()
        print(f"{trainer.current_epoch + 1:>5}{loss:>9.4f}{rate:>15.2e}" + "".join(f"{float(words[word]):>18.4f}" for word in self.WORDS))


def accuracy(make_optimizer, epochs, callbacks=()):
    L.seed_everything(0, verbose=False)
    train = digits(True)
    module = Classifier(make_optimizer, epochs * len(train))
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(max_epochs=epochs, accelerator="cpu", callbacks=list(callbacks), **quiet)
    trainer.fit(module, train)
    return trainer.test(module, digits(False), verbose=False)[0]["accuracy"]


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--lr", type=float, default=3e-3)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)

    found = {
        "pilot": accuracy(lambda params: fo.torch_optim.pilot(params, lr=options.lr, lr_phi=0.05), options.epochs, [Says()]),
        "torch.optim.AdamW": accuracy(lambda params: torch.optim.AdamW(params, lr=options.lr), options.epochs),
    }
    for name, value in found.items():
        print(f"{name:>18}: {100 * value:.1f}% of the test digits")
    return found


if __name__ == "__main__":
    main()
