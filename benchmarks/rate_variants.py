"""What each part of `rate_free` is worth: excess over tuned AdamW, with parts taken away or set otherwise.

    python benchmarks/rate_variants.py                          the parts of the search, on six tasks (half an hour)
    python benchmarks/rate_variants.py --of settings            decay, `b2`, `hurry` and others, on eight tasks (an hour and a half)
    python benchmarks/rate_variants.py deep-1 mnist1d           some tasks, as `funcopt.race.task_named` names them
    python benchmarks/rate_variants.py deep --short             one seed, few steps: whether it runs

The bar is the better of AdamW with a constant rate and AdamW with warm-up and a cosine to the horizon, each at the rate that
the evidence has picked (`docs/evidence/short`). Printed is the excess in per cent of every variant over it, on the validation data:
negative is ahead; at the step picked of 20 looks, and behind a stroke at the end of the run. Of tables, whose few rows for validation
say little of others, and less once a step is picked on them, the rows that are not for the test are dealt out anew ten times, and the
step is picked on one part and measured on another. The seeds are none of the evidence's and the data for the test are not
looked at, so that nothing here has seen what a race reports.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import clock
import torch
from torch import Tensor

import funcopt as fo
from funcopt import race
from funcopt.controllers.rate.rate_free import NADAMW
from funcopt.race import training
from funcopt.race.evidence import store
from funcopt.race.evidence.methods import BAR, METHODS
from funcopt.race.evidence.protocol import LOOKS, Plan, plans, prepared
from funcopt.race.tasks import task_named

SEEDS = (2000, 2001, 2002, 2003, 2004, 2005)
PICKED = Path(__file__).parents[1] / "docs" / "evidence" / "short"
DEALT = ("tabular", "diabetes")  # tables
FOLDS = 10


WHOLE = "whole decay"  # not by the `decay_share` that the search says
SAME_REACH = "average of t^8"  # not by the `average_share` that the search says
OTHERS = ("b2", "b2_sure", "clip")  # settings of `rate_free` beside those of the search


class Study(NamedTuple):
    """What is compared with what.

    tasks: unless some are named.
    lanes: starts and decays (None: that of the default), side by side.
    find: settings of the search, and of `OTHERS`, one after the other.
    """

    tasks: tuple[str, ...]
    lanes: tuple[tuple[float, float | None], ...]
    find: dict[str, dict[str, Any]]


STUDIES = {
    "search": Study(
        ("mnist1d", "deep", "deep-512", "mnist1d-2", "noisy-2", "deep-1"),
        tuple((start, None) for start in (1e-7, 1e-6, 1e-4, 1e-3)),
        {
            "as it is": {},
            "lag 1": {"lag": 1},
            "stretch 0": {"stretch": 0.0},
            "lag 1, stretch 0": {"lag": 1, "stretch": 0.0},
        },
    ),
    "settings": Study(
        ("tabular", "diabetes", "gru", "cnn", "characters", "deep-512", "deep-1", "mnist1d-2"),
        ((1e-6, 1e-4), (1e-6, 0.05), (1e-6, 0.1), (1e-6, 0.2), (1e-6, 0.3), (1e-4, 0.2)),
        {
            "as it is": {},
            WHOLE: {},
            "hurry 0": {"hurry": 0.0},
            "hurry 8": {"hurry": 8.0},
            "stretch 0.8": {"stretch": 0.8},
            "stretch 2": {"stretch": 2.0},
            "b2 0.995 for all": {"b2_sure": None},
            "b2 0.999": {"b2": 0.999, "b2_sure": 0.9},
            "b2 0.98": {"b2": 0.98, "b2_sure": 0.9},
            "b2_sure 0.95": {"b2_sure": 0.95},
            "b2_sure 0.8": {"b2_sure": 0.8},
            SAME_REACH: {},
            "keep 0.5": {"keep": 0.5},
            "clip inf": {"clip": math.inf},
        },
    ),
}


def with_whole_decay(lr: Any, weight_decay: Any) -> fo.GradientTransformation:
    """The default direction with a decay that hears nobody."""

    def update(updates, state, params=None, **extra):
        return fo.tree.map(lambda d, p: d + (weight_decay * p).to(d.dtype), updates, params), state

    decay = fo.GradientTransformation(lambda params: fo.EmptyState(), update, name="whole_decay", flattenable=True, turns=False)
    direction = fo.scale_by_sure_adam(b2=NADAMW.factory["b2"], b2_sure=NADAMW.factory["b2_sure"], nesterov=True)
    return fo.chain(direction, decay, fo.lr_scale(lr))


def made(variant: str, find: dict[str, Any], **lanes: Any) -> fo.GradientTransformation:
    """`rate_free` with these settings, or without a word that the search says."""
    others = {**{name: find[name] for name in OTHERS if name in find}, **lanes}
    if variant == WHOLE:
        return fo.rate_free(with_whole_decay, find=NADAMW.find, clip=NADAMW.clip, **others)
    if variant == SAME_REACH:
        return fo.average_params(fo.scoped("unheard", fo.rate_free(average=False, **others)))
    return fo.rate_free(find={name: value for name, value in find.items() if name not in OTHERS}, **others)


def dealt(name: str, plan: Plan) -> list[race.Task]:
    """The task, or several with other splits of what is not for the test."""
    if name not in DEALT:
        return [prepared(plan)]
    return [task_named(name, fold=fold)._replace(measure=plan.measure) for fold in range(FOLDS)]


def curves(task: race.Task, make: Callable, lanes: dict[str, list[float]], seeds: tuple[int, ...], steps: int) -> dict[str, Tensor]:
    """Split -> the measure at every look, [looks, lanes, seeds]; infinite where it is not finite."""
    count = len(next(iter(lanes.values())))
    settings = {name: torch.tensor(values, dtype=torch.float64).repeat_interleave(len(seeds)) for name, values in lanes.items()}
    keys, log = training.seed_keys(seeds, task).repeat(count, 1), training.Log()
    sized: dict[str, Any] = {"steps": steps, "batch_size": task.batch_size, "every": max(1, steps // LOOKS)}
    for _ in training.train(task, make, settings, keys, log, splits=("validation", "test"), words=False, **sized):
        pass

    def curve(split: str) -> Tensor:
        values = [1 - found[f"{split}_accuracy"] if task.measure == "error" else found[f"{split}_loss"] for _, found in log.points]
        return torch.stack(values).double().nan_to_num(math.inf).view(len(values), count, len(seeds))

    return {split: curve(split) for split in ("validation", "test")}


def endings(tasks: list[race.Task], make: Callable, lanes: dict[str, list[float]], seeds: tuple[int, ...], steps: int) -> Tensor:
    """Mean over splits and seeds of the measure at the step picked on the validation data and at the end: [2, lanes]."""
    found = []
    for task in tasks:
        split = curves(task, make, lanes, seeds, steps)
        shown = split["test" if len(tasks) > 1 else "validation"]  # "test" of another deal is not that of the race
        picked = shown.gather(0, split["validation"].argmin(0, keepdim=True))
        found.append(torch.stack([picked[0], shown[-1]]).mean(-1))
    return torch.stack(found).mean(0)


def bar(name: str, tasks: list[race.Task], seeds: tuple[int, ...], steps: int) -> Tensor:
    """Of the two AdamWs at their rates the better: [2], at the step picked and at the end."""
    (known,) = store.written(PICKED, [name]).values()
    found = []
    for method in BAR:
        result, make = known["methods"][method], METHODS[method].make(steps)
        rates = [result["rates"][result["picks"][ending]] for ending in ("picked", "end")]
        found.append(endings(tasks, lambda rate, make=make: make(rate, None), {"rate": rates}, seeds, steps).diagonal())
    return torch.stack(found).amin(0)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", metavar="task", help="of the evidence; the six of the study unless given")
    parser.add_argument("--of", choices=STUDIES, default="search", help="which study (default: %(default)s)")
    parser.add_argument("--only", nargs="+", metavar="variant", help="some of its settings of the search")
    parser.add_argument("--seeds", type=int, help=f"{len(SEEDS)}, or 1 in the short form")
    parser.add_argument("--steps", type=int, help="those of the evidence, or 20 in the short form")
    parser.add_argument("--short", action="store_true", help="whether it runs")
    parser.add_argument("--json", type=Path, help="a file for all numbers")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    study, known = STUDIES[options.of], plans("short")
    seeds, numbers = SEEDS[: options.seeds or (1 if options.short else len(SEEDS))], {}
    heads = [f"{start:g}{'' if decay is None else f', {decay:g}'}" for start, decay in study.lanes]
    print(f"{clock.heading()}; {len(seeds)} seeds; start{'' if study.lanes[0][1] is None else ', decay'}: {';  '.join(heads)}")
    starts, decays = [start for start, _ in study.lanes], [decay for _, decay in study.lanes if decay is not None]
    lanes = {"start": starts, **({"weight_decay": decays} if decays else {})}
    for name in options.tasks or study.tasks:
        tasks, steps = dealt(name, known[name]), options.steps or (20 if options.short else known[name].steps["short"])
        least = bar(name, tasks, seeds, steps)
        print(f"\n{name}: batch {tasks[0].batch_size}, {steps} steps, AdamW at its best {least[0]:.4f} / {least[1]:.4f}", flush=True)
        numbers[name] = {"bar": least.tolist(), "steps": steps}
        for variant in options.only or study.find:
            make = partial(made, variant, study.find[variant])
            excess = (100 * (endings(tasks, make, lanes, seeds, steps) / least[:, None] - 1)).tolist()
            cells = [f"{picked:+6.1f} / {end:+6.1f}" for picked, end in zip(*excess, strict=True)]
            print(f"  {variant:<18} {'   '.join(cells)}", flush=True)
            numbers[name][variant] = excess
    clock.save(options.json, seeds=list(seeds), lanes=study.lanes, tasks=numbers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
