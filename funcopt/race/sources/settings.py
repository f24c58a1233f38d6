"""What the sources state of their runs, as far as they do; what they leave open is said beside it."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch.optim import lr_scheduler

import funcopt as fo

__all__ = ["OPTIMIZERS", "SETTINGS", "Setting"]


class Setting(NamedTuple):
    """One run of a source.

    pilot: (rate, gamma, lr_phi, degree) of its cell; rates of others are theirs.
    augment: crop after padding by 4, and flip.
    clip: norm of the gradient, or None.
    validation: share of the training images that is held out.
    """

    data: str
    network: str
    epochs: int
    batch_size: int
    optimizers: tuple[str, ...]
    warm_up: int = 0  # epochs, linear
    cosine: bool = True
    augment: bool = True
    clip: float | None = None
    validation: float = 0.1
    pilot: tuple[float, float, float, int] = (1e-3, 0.95, 0.01, 2)
    unstated: str = ""


PILOTS = ("pilot", "adamw", "rate_free")
NOT_SAID = "rates, decay, augmentation, the split, which epoch counts"

SETTINGS: dict[str, Setting] = {
    "pilot-fashion-cnn": Setting(
        "fashion", "cnn", 30, 128, PILOTS, pilot=(1e-3, 0.95, 0.01, 2), unstated=f"the layers of the CNN, {NOT_SAID}"
    ),
    "pilot-cifar10-cnn": Setting(
        "cifar10", "cnn", 30, 128, PILOTS, pilot=(1e-3, 0.882, 0.00312, 1), unstated=f"the layers of the CNN, {NOT_SAID}"
    ),
    "pilot-fashion-resnet18": Setting(
        "fashion", "resnet18", 30, 128, PILOTS, warm_up=3, pilot=(1e-3, 0.957, 0.00273, 3), unstated=NOT_SAID
    ),
    "pilot-cifar10-resnet18": Setting("cifar10", "resnet18", 30, 128, PILOTS, warm_up=3, pilot=(1e-3, 0.95, 0.005, 2), unstated=NOT_SAID),
    "optiroulette-cifar100": Setting(
        "cifar100",
        "resnet34",
        50,
        128,
        ("optiroulette", "adamw", "sgd, then lion", "rate_free"),
        cosine=False,
        clip=2.0,
        unstated="AdamW's settings",
    ),
    "optiroulette-svhn": Setting(
        "svhn",
        "resnet34",
        50,
        128,
        ("optiroulette", "adamw", "sgd, then lion", "rate_free"),
        cosine=False,
        clip=2.0,
        unstated="network, epochs, AdamW's settings",
    ),
    "pulseopt-cifar100": Setting(
        "cifar100", "resnet18", 10, 128, ("aees", "adamw", "rate_free"), unstated="everything but network, data and epochs"
    ),
}

Params = Iterable[torch.nn.Parameter]


def _pilot(params: Params, setting: Setting, seed: int, steps: int) -> torch.optim.Optimizer:
    lr, gamma, lr_phi, degree = setting.pilot
    return fo.torch_optim.pilot(params, lr=lr, weight_decay=1e-4, gamma=gamma, lr_phi=lr_phi, degree=degree)


def _then_lion(params: Params, setting: Setting, seed: int, steps: int) -> torch.optim.Optimizer:
    """What the largest jump of the source's own run was made of: sgd at 0.1 for a third of it, lion from there on."""
    pool = {"sgd": fo.Member(fo.trace(0.9), lr=0.1), "lion": fo.Member(fo.scale_by_lion(), lr=1e-4)}
    wheel = fo.roulette(pool, active=["lion"], warmup=fo.fixed_warmup(max(1, setting.epochs // 3), "sgd"), seed=seed)
    return fo.torch_optim.Optimizer(params, fo.chain(wheel, fo.lr_scale()))


# name -> (params, setting, seed, steps of the run) -> optimizer
OPTIMIZERS: dict[str, Callable[[Params, Setting, int, int], torch.optim.Optimizer]] = {
    "adamw": lambda params, setting, seed, steps: fo.torch_optim.adamw(params, lr=1e-3, weight_decay=0.01),
    "rate_free": lambda params, setting, seed, steps: fo.torch_optim.rate_free(params),
    "pilot": _pilot,
    "optiroulette": lambda params, setting, seed, steps: fo.torch_optim.optiroulette(params, seed=seed),
    "sgd, then lion": _then_lion,
    "aees": lambda params, setting, seed, steps: fo.torch_optim.aees(
        params, lr=1e-3, inner="adamw", lr_candidates=[0.5, 1.0, 2.0], noise_candidates=[0.0, 0.005], episode_length=50, seed=seed
    ),
}
SCHEDULED = ("adamw", "pilot", "aees")  # what a source trains along a cosine; what finds its rate needs none


def schedule(name: str, setting: Setting, optimizer: torch.optim.Optimizer, steps: int) -> lr_scheduler.LRScheduler | None:
    """A warm-up of whole epochs, then a cosine over what is left; stepped once a batch."""
    if name not in SCHEDULED or not setting.cosine:
        return None
    first = steps * setting.warm_up // setting.epochs
    cosine = lr_scheduler.CosineAnnealingLR(optimizer, T_max=max(1, steps - first))
    if not first:
        return cosine
    rising = lr_scheduler.LinearLR(optimizer, 1 / first, total_iters=first)
    return lr_scheduler.SequentialLR(optimizer, [rising, cosine], [first])
