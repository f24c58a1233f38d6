"""What each part of the search for a rate is worth: excess over tuned AdamW, with parts taken away.

    python benchmarks/rate_variants.py                          six tasks (half an hour)
    python benchmarks/rate_variants.py deep-1 mnist1d           some, as `funcopt.race.task_named` names them
    python benchmarks/rate_variants.py deep --short             one seed, few steps: whether it runs

The bar is the better of AdamW with a constant rate and AdamW with warm-up and a cosine to the horizon, each at the best
of six half decades, by the validation error (or loss) at the end. Printed is the excess in per cent of every variant over it, from every
starting rate: negative is ahead. Seeds are those of tuning, so that nothing here has seen the seeds of a race.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import clock
import torch
from torch import Tensor

import funcopt as fo
from funcopt.race import training
from funcopt.race.tune import HALF_DECADES, SEEDS

TASKS = ("mnist1d", "deep", "deep-512", "mnist1d-2", "noisy-2", "deep-1")
STARTS = (1e-7, 1e-6, 1e-4, 1e-3)
VARIANTS = {
    "as it is": {},
    "lag 1": {"lag": 1},
    "stretch 0": {"stretch": 0.0},
    "lag 1, stretch 0": {"lag": 1, "stretch": 0.0},
}


def errors(task: fo.race.Task, make: Callable, settings: dict[str, Tensor], seeds: tuple[int, ...], steps: int, batch_size: int) -> Tensor:
    """Mean over seeds of the validation error at the end, or of the loss where there is none, for each row of settings."""
    rows = len(next(iter(settings.values())))
    lanes = {name: values.repeat_interleave(len(seeds)) for name, values in settings.items()}
    keys, log = training.seed_keys(seeds, task).repeat(rows, 1), training.Log()
    for _ in training.train(
        task, make, lanes, keys, log, steps=steps, batch_size=batch_size, splits=("validation",), every=steps, words=False
    ):
        pass
    end = log.points[-1][1]
    found = 1 - end["validation_accuracy"] if "validation_accuracy" in end else end["validation_loss"]
    return found.view(rows, len(seeds)).nan_to_num(math.inf).mean(1)


def adamw(rate: Tensor, cosine: Tensor, steps: int) -> fo.GradientTransformation:
    """At `rate`, or warmed up over a twentieth of the run and along a cosine to 0."""
    shape = fo.schedules.warmup_cosine_decay_schedule(0.0, 1.0, max(1, steps // 20), steps)
    return fo.adamw(lambda count: rate * torch.where(cosine > 0, shape(count), 1.0))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", metavar="task", help=f"{', '.join(TASKS)} unless given")
    parser.add_argument("--seeds", type=int, help="4, or 1 in the short form")
    parser.add_argument("--steps", type=int, help="1000, 2000 at batches below 8, or 20 in the short form")
    parser.add_argument("--short", action="store_true", help="whether it runs")
    parser.add_argument("--json", type=Path, help="a file for all numbers")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    seeds, numbers = SEEDS[: options.seeds or (1 if options.short else 4)], {}
    print(f"{clock.heading()}; {len(seeds)} seeds; starts {', '.join(f'{start:g}' for start in STARTS)}")
    for name in options.tasks or TASKS:
        task = fo.race.task_named(name, validation=True)
        batch_size = task.batch_size
        steps = options.steps or (20 if options.short else 2000 if batch_size < 8 else 1000)
        grid = {"rate": torch.tensor(HALF_DECADES).repeat(2), "cosine": torch.tensor([0.0, 1.0]).repeat_interleave(len(HALF_DECADES))}
        bar = errors(task, lambda rate, cosine, steps=steps: adamw(rate, cosine, steps), grid, seeds, steps, batch_size).min()
        print(f"\n{name}: batch {batch_size}, {steps} steps, AdamW at its best {bar:.4f}", flush=True)
        numbers[name] = {"bar": float(bar), "steps": steps}
        for variant, find in VARIANTS.items():
            found = errors(
                task,
                lambda start, find=find: fo.rate_free(start=start, find=find),
                {"start": torch.tensor(STARTS)},
                seeds,
                steps,
                batch_size,
            )
            excess = (100 * (found / bar - 1)).tolist()
            print(f"  {variant:<18} {'  '.join(f'{value:+7.1f} %' for value in excess)}", flush=True)
            numbers[name][variant] = excess
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(
            json.dumps({"with": clock.heading(), "seeds": list(seeds), "starts": STARTS, "tasks": numbers}, indent=1), encoding="utf-8"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
