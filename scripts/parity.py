"""Trains a small network on the handwritten digits beside the reference packages, from the same seed in float64, and fails where we differ.

    make parity                        all of them
    python scripts/parity.py pilot     one

Reference and ours see the same batches and each its own params. What is printed is the largest difference of any param
after 300 steps, and the largest
on the way. The packages are imported if they are there, else fetched (scripts/references.py).
"""

from __future__ import annotations

import argparse
import importlib
import math
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import funcopt as fo  # noqa: E402
from scripts import pool, recent  # noqa: E402
from scripts.references import PACKAGES, available  # noqa: E402
from tests.parity.draws import Mt19937  # noqa: E402

STEPS, BATCH, AT_MOST = 300, 64, 1e-8
NOTHING_COMPARED = 3  # the exit code where no package can be had

Params = dict[str, Tensor]
Batches = list[tuple[Tensor, Tensor]]


# --- the task -------------------------------------------------------------------------------------------------------------------


def batches(seed: int) -> Batches:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images, labels = torch.tensor(images / 16, dtype=torch.float64), torch.tensor(labels)
    generator = torch.Generator().manual_seed(seed)
    picks = [torch.randint(len(labels), (BATCH,), generator=generator) for _ in range(STEPS)]
    return [(images[pick], labels[pick]) for pick in picks]


def first_params(seed: int) -> Params:
    generator = torch.Generator().manual_seed(seed)

    def layer(fan_in: int, fan_out: int) -> Tensor:
        return torch.randn(fan_in, fan_out, generator=generator, dtype=torch.float64) / math.sqrt(fan_in)

    return {
        "b1": torch.zeros(32, dtype=torch.float64),
        "b2": torch.zeros(10, dtype=torch.float64),
        "w1": layer(64, 32),
        "w2": layer(32, 10),
    }


def loss_fn(params: Params, images: Tensor, labels: Tensor) -> Tensor:
    hidden = (images @ params["w1"] + params["b1"]).tanh()
    return torch.nn.functional.cross_entropy(hidden @ params["w2"] + params["b2"], labels)


gradients = torch.func.grad_and_value(loss_fn)  # one function for both sides: what differs is the optimizer


def ours(
    tx: fo.GradientTransformation, params: Params, data: Batches, begin: Callable[[Any], Any] = lambda state: state
) -> Iterator[Params]:
    """The params after every step of a transformation."""
    state = begin(tx.init(params))
    for images, labels in data:
        grads, loss = gradients(params, images, labels)
        updates, state = tx.update(grads, state, params, loss=loss)
        params = fo.apply_updates(params, updates)
        yield params


class Reference:
    """The other side: parameters with gradients, as a class of torch.optim wants them."""

    def __init__(self, params: Params):
        self.parameters = {name: torch.nn.Parameter(p.clone()) for name, p in params.items()}

    def groups(self) -> list[torch.nn.Parameter]:
        return list(self.parameters.values())

    def values(self) -> Params:
        return {name: p.detach().clone() for name, p in self.parameters.items()}

    def set_gradients(self, images: Tensor, labels: Tensor) -> float:
        grads, loss = gradients(self.values(), images, labels)
        for name, p in self.parameters.items():
            p.grad = grads[name]
        return float(loss)


# --- the pairs ------------------------------------------------------------------------------------------------------------------


def pilot_reference(params: Params, data: Batches, lr: Callable[[int], float], **settings) -> Iterator[Params]:
    side = Reference(params)
    optimizer = importlib.import_module("pilot").PILOT(side.groups(), lr=lr(0), **settings)
    for step, (images, labels) in enumerate(data):
        optimizer.param_groups[0]["lr"] = lr(step)
        side.set_gradients(images, labels)
        optimizer.step()
        yield side.values()


def pilot_default(params: Params, data: Batches) -> tuple[Iterator[Params], Iterator[Params]]:
    return pilot_reference(params, data, lambda step: 0.01), ours(fo.pilot(0.01), params, data)


def pilot_scheduled(params: Params, data: Batches) -> tuple[Iterator[Params], Iterator[Params]]:
    theirs = pilot_reference(params, data, lambda step: 0.02 / (1 + 0.02 * step), gamma=0.8, eta_phi=0.05, degree=3, weight_decay=0.1)
    return theirs, ours(fo.pilot(lambda count: 0.02 / (1 + 0.02 * count), gamma=0.8, lr_phi=0.05, degree=3, weight_decay=0.1), params, data)


ARMS = (0.5, 1.0, 2.0)


class FirstOfEquals:
    """Draws for `aees` that let the lowest of equal arms go first, and add no noise."""

    def init(self) -> Tensor:
        return torch.zeros(2, dtype=torch.int64)

    def priorities(self, key: Tensor, episode: Tensor, shape: tuple[int, int]) -> Tensor:
        return torch.arange(shape[1], 0, -1).expand(shape)

    def noise(self, key: Tensor, step: Tensor, updates: Any) -> Any:
        return fo.tree.zeros_like(updates)


def aees_reference(params: Params, data: Batches) -> Iterator[Params]:
    side = Reference(params)
    inner = torch.optim.AdamW(side.groups(), lr=3e-3, weight_decay=0.1)
    episodes = importlib.import_module("pulseopt").AEES(inner, lr_candidates=ARMS, episode_length=10, context_mode="trend", seed=0)
    for step, (images, labels) in enumerate(data):
        # Ties are broken at random there and by keys here: let both take the first.
        with mock.patch.object(random.Random, "choice", lambda self, options: options[0]):
            episodes.step_start(step)
        episodes.step_end(side.set_gradients(images, labels))  # takes the step, too
        yield side.values()


def aees(params: Params, data: Batches) -> tuple[Iterator[Params], Iterator[Params]]:
    tx = fo.aees(fo.adamw(3e-3, weight_decay=0.1), ARMS, episode_length=10, context="trend", draw=FirstOfEquals())
    return aees_reference(params, data), ours(tx, params, data)


def roulette_reference(params: Params, data: Batches) -> Iterator[Params]:
    side = Reference(params)
    pool = {
        "adam": torch.optim.Adam(side.groups(), lr=2e-3),
        "adamw": torch.optim.AdamW(side.groups(), lr=2e-3, weight_decay=0.05),
        "momentum": torch.optim.SGD(side.groups(), lr=0.02, momentum=0.9),
    }
    wheel = importlib.import_module("optiroulette").OptiRouletteOptimizer(
        pool, switch_granularity="batch", switch_every_steps=5, switch_probability=0.6, avoid_repeat=True, seed=3
    )
    wheel.on_epoch_start(0)
    for step, (images, labels) in enumerate(data):
        wheel.on_batch_start(step)
        side.set_gradients(images, labels)
        wheel.step()
        yield side.values()


def roulette(params: Params, data: Batches) -> tuple[Iterator[Params], Iterator[Params]]:
    pool = {
        "adam": fo.Member(fo.scale_by_adam(), lr=2e-3),
        "adamw": fo.Member(fo.chain(fo.scale_by_adam(), fo.add_decayed_weights(0.05)), lr=2e-3),
        "momentum": fo.Member(fo.trace(0.9), lr=0.02),
    }
    wheel = fo.roulette(pool, switch="step", every=5, probability=0.6, avoid_repeat=True, draw=Mt19937(3), parity=True, seed=0)
    tx = fo.chain(wheel, fo.lr_scale())
    return roulette_reference(params, data), ours(tx, params, data, lambda state: (wheel.start_epoch(state[0], 0), *state[1:]))


class Pair(NamedTuple):
    name: str
    module: str  # of the reference
    run: Callable[[Params, Batches], tuple[Iterator[Params], Iterator[Params]]]


PAIRS = (
    Pair("pilot", "pilot", pilot_default),
    Pair("pilot, degree 3, falling rate", "pilot", pilot_scheduled),
    Pair("aees around adamw", "pulseopt", aees),
    Pair("roulette of three", "optiroulette", roulette),
    *[Pair(*pair) for pair in recent.pairs(Reference, ours)],
    *[Pair(*pair) for pair in pool.pairs(Reference, ours)],
)


# --- running them ---------------------------------------------------------------------------------------------------------------


def difference(left: Params, right: Params) -> float:
    """The largest difference of any entry; not a number where one side is not."""
    return float(torch.stack([(left[name] - right[name]).abs().max() for name in left]).max())


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="*", help=f"beginnings of names out of: {'; '.join(pair.name for pair in PAIRS)}")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)  # PILOT's reference holds its policy in this
    chosen = [pair for pair in PAIRS if not options.pairs or any(pair.name.startswith(name) for name in options.pairs)]
    there = {module: available(module) for module in dict.fromkeys(pair.module for pair in chosen)}
    data, params = batches(options.seed), first_params(options.seed)
    before, failed, compared = float(loss_fn(params, *data[-1])), False, 0
    print(f"{STEPS} steps of {BATCH} digits, float64; largest difference of any param, to be at most {AT_MOST:g}")
    for pair in chosen:
        package = PACKAGES.get(pair.module, pair.module)
        if not there[pair.module]:
            print(f"  {pair.name:<32} not compared: no {package}")
            continue
        began, largest, last, mine = time.perf_counter(), 0.0, 0.0, params
        for theirs, mine in zip(*pair.run(params, data), strict=True):
            last = difference(theirs, mine)
            largest = last if math.isnan(last) or last > largest else largest
        compared += 1
        bad = not largest <= AT_MOST
        failed |= bad
        loss = float(loss_fn(mine, *data[-1]))
        print(
            f"  {pair.name:<32} {package:<28} at the end {last:.1e}, on the way {largest:.1e}{'   TOO LARGE' if bad else ''}"
            f"   (loss {before:.2f} to {loss:.3f}, {time.perf_counter() - began:.1f} s)",
            flush=True,
        )
    if not compared:
        print("parity: nothing was compared")
    return NOTHING_COMPARED if not compared else int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
