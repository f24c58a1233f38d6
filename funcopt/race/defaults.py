"""The default race: seven methods, each with the learning rate it was tuned to.

A method is a function of a rate and a seed. The rate scales the whole method: in a
pool the members keep their ratios.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import funcopt as fo

__all__ = ["METHODS", "Method", "RATES", "factories"]

WEIGHT_DECAY = 0.01  # torch's default for AdamW, and PILOT's


class Method(NamedTuple):
    """One entry of the default race."""

    make: Callable[..., fo.GradientTransformation]  # (rate, seed) -> transformation
    members: tuple[str, ...] = ()  # of its pool, in the order of `pick`


def _adamw(rate, seed):
    return fo.adamw(rate, weight_decay=WEIGHT_DECAY)


def _sgd(rate, seed):
    return fo.sgd(rate, momentum=0.9)


def _pilot(rate, seed):
    return fo.pilot(rate, weight_decay=WEIGHT_DECAY)


# The members' rates relative to Adam's. On raw gradients momentum moves by the size of the gradient and Lion by one per
# entry, never less: they want some 30 times and a third of it.
POOL = {"adam": 1.0, "momentum": 30.0, "lion": 0.3}
# What arrives from agreement_policy is of order one per entry: momentum adds ten of them up, and Lion makes all of them one. Of
# (0.3, 0.3), (0.1, 0.3), (0.3, 0.1) and (0.1, 0.1) for the two this did best on the held-out digits of the perceptron.
SHAPED_POOL = {"adam": 1.0, "momentum": 0.1, "lion": 0.1}


def _members(ratios, rate):
    directions = {"adam": fo.scale_by_adam(), "momentum": fo.trace(0.9), "lion": fo.scale_by_lion()}
    return {name: fo.Member(directions[name], lr=ratio * rate) for name, ratio in ratios.items()}


def _roulette(rate, seed):
    return fo.chain(fo.roulette(_members(POOL, rate), seed=seed), fo.lr_scale())


def _aees(rate, seed):
    return fo.aees(fo.adamw(rate, weight_decay=WEIGHT_DECAY), lr_candidates=(0.5, 1.0, 2.0), episode_length=50, seed=seed)


def _adaptive(rate, seed):
    return fo.adaptive(partial(fo.adamw, weight_decay=WEIGHT_DECAY), lr=fo.rules.trend(rate) * fo.rules.variance())


def _sentence(rate, seed):
    """As published in each of its parts, whose rates these are; `FREE` has the sentence of today."""
    draw, arms = (fo.random.fold_in(seed, stream) for stream in range(2))
    shape = fo.agreement_policy(start="published")
    bandit = fo.ucb_episodes((0.5, 1.0, 2.0), episode_length=50, reward="log", exploration=1.0, seed=arms)
    return fo.chain(shape, fo.roulette(_members(SHAPED_POOL, rate), seed=draw), bandit, fo.lr_scale())


METHODS: dict[str, Method] = {
    "adamw": Method(_adamw),
    "sgd": Method(_sgd),
    "pilot": Method(_pilot),
    "roulette": Method(_roulette, tuple(POOL)),
    "aees": Method(_aees),
    "adaptive": Method(_adaptive),
    "sentence": Method(_sentence, tuple(SHAPED_POOL)),
}

# The winners of `python -m funcopt race --tune --task mlp` and `--task cnn`: 13 rates, 5 seeds (1000 to 1004) and 600 steps for each
# method, judged on held-out training digits (tune.py). docs/race.md has the tables.
RATES: dict[str, dict[str, float]] = {
    "mlp": {"adamw": 0.0022, "sgd": 0.1, "pilot": 0.0022, "roulette": 0.00046, "aees": 0.0022, "adaptive": 0.0022, "sentence": 0.0022},
    "cnn": {"adamw": 0.0046, "sgd": 0.01, "pilot": 0.0046, "roulette": 0.001, "aees": 0.0046, "adaptive": 0.0046, "sentence": 0.0046},
}


def factories(task: str, only: list[str] | None = None) -> dict[str, Callable]:
    """The methods of the default race as `race.run` takes them, at their tuned rates.

    Args:
        task: "mlp" or "cnn"; its rates are taken.
        only: some of `METHODS`; `None`: all.

    Raises:
        ValueError: a name is unknown; the message lists those there are.
    """
    if task not in RATES:
        raise ValueError(f"race: no tuned rates for task {task!r}; there are some for {', '.join(RATES)}")
    for name in only or ():
        if name not in METHODS:
            raise ValueError(f"race: no optimizer {name!r}; there are {', '.join(METHODS)}")
    return {name: partial(METHODS[name].make, RATES[task][name]) for name in METHODS if not only or name in only}
