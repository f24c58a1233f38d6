"""What the five sources say of themselves, each in a line, and what of it can be looked at here."""

from typing import NamedTuple

__all__ = ["CLAIMS", "Claim"]


class Claim(NamedTuple):
    source: str
    claim: str
    methods: tuple[str, ...]  # that are compared here with AdamW at its tuned constant rate
    own: str  # the command that runs its own setting


CLAIMS = (
    Claim(
        "PILOT (pilot-optimizer 0.1.0)",
        "a CNN on Fashion-MNIST 94.13 % where AdamW has 93.22 %, on CIFAR-10 81.94 % where Adam has 79.91 %; "
        "a lower validation loss, which its own "
        "table contradicts for ResNet-18",
        ("pilot+find", "pilot"),
        "python -m funcopt race sources pilot-fashion-cnn DATA",
    ),
    Claim(
        "OptiRoulette 0.1.0",
        "CIFAR-100 76.56 % where AdamW has 67.34 %, SVHN 97.56 % where it has 96.67 %; targets up to 5.3 times sooner",
        ("roulette+find", "roulette"),
        "python -m funcopt race sources optiroulette-cifar100 DATA",
    ),
    Claim(
        "PulseOpt / AEES 0.2.0",
        "a bandit over multiples of the rate, rewarded by the loss, helps any optimizer; no figures",
        ("aees+find", "aees"),
        "python -m funcopt race sources pulseopt-cifar100 DATA",
    ),
    Claim(
        "AdaptiveOptimizer",
        "hyperparameters that follow loss and reward need no schedule; no figures",
        ("adaptive+find", "adaptive"),
        "",
    ),
    Claim(
        "pytorch-optimize",
        "evolution strategies train without gradients, on several objectives; "
        "no figures (examples/es_digits_accuracy.py runs its kind of task)",
        (),
        "",
    ),
)
