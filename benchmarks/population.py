"""A population in one step against a loop over its models.

    python benchmarks/population.py                        widths 8, 32 and 128, 64 models
    python benchmarks/population.py 8 --json f             one width, all numbers into a file
    python benchmarks/population.py --rounds 45            steadier

Each model is a perceptron 8 - width - width - 1 with ReLU, a squared error and AdamW, its own rate, weight decay and batch of 32. One
step of all models in one compiled, donated, vmapped graph is timed against a Python loop over as many modules, each with a fused
torch.optim.AdamW: forward, backward, step. Copies of both in turns (benchmarks/clock.py), ten steps a turn, as a training loop takes
them: the first after the other's turn finds the caches full of the other's numbers.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable
from pathlib import Path

import clock
import torch
import torch.nn.functional as F

import funcopt as fo

INPUTS, BATCH = 8, 32
A_TURN = 10  # steps
TARGETS = {8: 0.015, 32: 0.03, 128: 0.27}  # of the loop's time, for 64 models


def network(width: int) -> torch.nn.Sequential:
    sizes = (INPUTS, width, width, 1)
    layers = [
        torch.nn.Linear(sizes[0], sizes[1]),
        torch.nn.ReLU(),
        torch.nn.Linear(sizes[1], sizes[2]),
        torch.nn.ReLU(),
        torch.nn.Linear(sizes[2], sizes[3]),
    ]
    return torch.nn.Sequential(*layers)


def settings(models: int) -> dict[str, torch.Tensor]:
    return {"lr": torch.logspace(-4, -2, models, dtype=torch.float64), "weight_decay": torch.logspace(-4, -1, models, dtype=torch.float64)}


def data(models: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(models, BATCH, INPUTS, generator=generator), torch.randn(models, BATCH, 1, generator=generator)


def one_step(width: int, models: int) -> Callable[[], object]:
    skeleton = network(width)

    def loss_fn(params, x, y):
        return F.mse_loss(torch.func.functional_call(skeleton, params, (x,)), y)

    pop = fo.population.make_step(loss_fn, fo.adamw, hyper=settings(models), in_dims=0, compile=True, donate=True)
    params, state = pop.init(fo.population.stack([dict(network(width).named_parameters()) for _ in range(models)]))
    x, y = data(models)

    def run() -> None:
        nonlocal params, state
        for _ in range(A_TURN):
            params, state, _ = pop(params, state, x, y)

    return run


def loop(width: int, models: int) -> Callable[[], object]:
    modules = [network(width) for _ in range(models)]
    own = zip(*(value.tolist() for value in settings(models).values()), strict=True)
    optimizers = [
        torch.optim.AdamW(module.parameters(), lr, weight_decay=decay, fused=True) for module, (lr, decay) in zip(modules, own, strict=True)
    ]
    x, y = data(models)

    def run() -> None:
        for module, optimizer, inputs, targets in A_TURN * list(zip(modules, optimizers, x, y, strict=True)):
            optimizer.zero_grad()
            F.mse_loss(module(inputs), targets).backward()
            optimizer.step()

    return run


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "widths", nargs="*", type=int, metavar="width", default=[], help=f"of {', '.join(map(str, TARGETS))} or others; those unless given"
    )
    parser.add_argument("--short", action="store_true", help="few rounds, two copies")
    parser.add_argument("--models", type=int, default=64, help="in a population")
    parser.add_argument("--rounds", type=int, help="of every copy; 15, or 5 in the short form")
    parser.add_argument("--copies", type=int, help="of every contestant; 3, or 2 in the short form")
    parser.add_argument("--json", type=Path, help="a file for all numbers")
    options = parser.parse_args(arguments)
    rounds, copies = options.rounds or (5 if options.short else 15), options.copies or (2 if options.short else 3)
    print(f"{clock.heading()}; {options.models} perceptrons {INPUTS} - width - width - 1, batches of {BATCH}")
    print(f"{'width':>6} {'one step, ms':>13} {'loop, ms':>9}   ratio (of copies)            at most")
    numbers = {}
    for width in options.widths or TARGETS:
        contestants = {
            "one step": functools.partial(one_step, width, options.models),
            "loop": functools.partial(loop, width, options.models),
        }
        times = clock.race(contestants, rounds, copies)
        value, low, high = times.ratio("one step", "loop")
        held = TARGETS.get(width) if options.models == 64 else None
        verdict = "" if held is None else f"{held:<6}{'' if value <= held else ' ABOVE'}"
        milliseconds = [1e3 * times.median(name) / A_TURN for name in ("one step", "loop")]
        print(
            f"{width:>6} {milliseconds[0]:>13.3f} {milliseconds[1]:>9.2f}   {value:.4f} ({low:.4f} to {high:.4f})   {verdict}".rstrip(),
            flush=True,
        )
        numbers[width] = {"seconds": times.seconds, "ratio": value, "low": low, "high": high, "at_most": held}
    clock.save(options.json, models=options.models, widths=numbers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
