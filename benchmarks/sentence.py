"""What each part of the sentence does, paired by seed on tasks of the race: whether it helps, and whether its choices do.

    python benchmarks/sentence.py                       every comparison on every task (an hour on one core)
    python benchmarks/sentence.py bandit policy         some: sentence, parts, link, policy, bandit, pool
    python benchmarks/sentence.py link --tasks deep     on some tasks
    python benchmarks/sentence.py --seeds 4 --json FILE

The error or loss on the test data at the end of the run and at the step picked on validation (in per cent of the reference,
negative: ahead), mean and 95 % interval over the seeds, none of which chose anything. "adamw" has, for each task, the constant
rate out of six half decades that is best on other seeds; whatever else needs a rate starts at 1e-6 and finds it, its params averaged.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch

import funcopt as fo
from funcopt.controllers.pulseopt.aees import PUBLISHED
from funcopt.race import statistics
from funcopt.race.free import FREE, START, SWITCHES, found, pool, sentence
from funcopt.race.tables import align
from funcopt.race.tasks import Task, task_named
from funcopt.race.training import Log, seed_keys, streams, train
from funcopt.race.tune import HALF_DECADES

TUNING = (1000, 1001, 1002, 1003)
FIRST = 1100  # of the seeds that are shown: neither those of a search nor those of the race
DECAY = 0.01
OTHERS = {"adam": (fo.scale_by_adam, 1.0), "momentum": (partial(fo.trace, 0.9), 0.3), "lion": (fo.scale_by_lion, 0.1)}  # of three sizes


def adamw(rate):
    return fo.adamw(rate, weight_decay=DECAY)


def free(name: str) -> Callable:
    return lambda rate, seed: FREE[name].make(None, seed)


def whole(**settings) -> Callable:
    return lambda rate, seed: sentence(None, seed, **settings)


def linked(*shape: fo.GradientTransformation) -> Callable:
    return lambda rate, seed: found(*shape, fo.roulette(pool(), seed=seed, **SWITCHES), fo.lr_scale())


def pilot(**settings) -> Callable:
    return lambda rate, seed: found(fo.pilot(START, weight_decay=DECAY, **settings))


def bandit(**settings) -> Callable:
    return lambda rate, seed: fo.chain(fo.ucb_episodes(seed=seed, **settings), adamw(rate))


def drawn(members: Mapping, **settings) -> Callable:
    return lambda rate, seed: found(fo.roulette(members, seed=seed, **settings), fo.lr_scale())


PLAIN = {"adamw": lambda rate, seed: adamw(rate)}
WIDE = {"lr_candidates": (0.5, 1.0, 2.0), "episode_length": 50, **PUBLISHED}

# name -> the reference, and the methods, (rate, seed) -> transformation
COMPARISONS: dict[str, tuple[str, dict[str, Callable]]] = {
    "sentence": (
        "adamw",
        PLAIN | {name: free(name) for name in ("rate_free", "pilot+find", "roulette+find", "aees+find", "sentence+find")},
    ),
    "parts": (
        "adamw",
        PLAIN
        | {
            "sentence+find": whole(),
            "arms 0.7, 1, 1.4": whole(arms=(0.7, 1.0, 1.4)),
            "three members": whole(members=pool),
            "no decay": whole(decay=0.0),
            "find_rate() as it is": whole(find={}),
            "all four": whole(arms=(0.7, 1.0, 1.4), members=pool, decay=0.0, find={}),
        },
    ),
    "link": (
        "no link",
        {
            "no link": linked(),
            "identity": linked(fo.agreement_policy()),
            "near": linked(fo.agreement_policy(bias=(-3.0, -3.0, -3.0))),
            "near, long steps": linked(fo.agreement_policy(bias=(-3.0, -3.0, -3.0), lr_phi=0.03)),
            "published": linked(fo.agreement_policy(start="published")),
        },
    ),
    "policy": (
        "frozen",
        {
            "frozen": pilot(lr_phi=0.0),
            "published": pilot(),
            "normalized 0.001": pilot(lr_phi=0.001, meta_step="normalized"),
            "normalized 0.01": pilot(meta_step="normalized"),
        },
    ),
    "bandit": (
        "random arms",
        PLAIN
        | {
            "random arms": bandit(control="random"),
            "bandit": bandit(),
            "random, published": bandit(control="random", **WIDE),
            "published": bandit(**WIDE),
        },
    ),
    "pool": (
        "one size",
        {
            "one size": drawn(pool(), **SWITCHES),
            "long turns": drawn(pool()),
            "find their own": drawn({name: fo.Member(member.transformation) for name, member in pool().items()}),
            "three sizes": drawn({name: fo.Member(make(), lr=ratio * START) for name, (make, ratio) in OTHERS.items()}),
        },
    ),
}


def ends(task: Task, make: Callable, rates: tuple[float, ...], seeds: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """At the end and at the step picked on validation, on both splits, each [rates, seeds]; infinite where it is not finite."""
    keys = seed_keys(seeds, task).repeat(len(rates), 1)
    settings = {"rate": torch.tensor(rates, dtype=torch.float64).repeat_interleave(len(seeds)), "seed": streams(keys).seed}
    log, splits = Log(), ("validation", "test")
    for _ in train(
        task, make, settings, keys, log, steps=task.steps, batch_size=task.batch_size, splits=splits, every=task.steps // 12, words=False
    ):
        pass
    curves = {}
    for split in splits:
        values = log.as_run().evaluations[f"{split}_{'accuracy' if task.measure == 'error' else 'loss'}"]
        curves[split] = (100 * (1 - values) if task.measure == "error" else values).nan_to_num(torch.inf)
    best = curves["validation"].argmin(0, keepdim=True)
    shown = {"end": curves["test"][-1], "picked": curves["test"].gather(0, best)[0], "validation": curves["validation"][-1]}
    return {name: value.reshape(len(rates), len(seeds)) for name, value in shown.items()}


def tuned(task: Task) -> float:
    held_out = ends(task, lambda rate, seed: adamw(rate), HALF_DECADES, TUNING)["validation"]
    return HALF_DECADES[int(held_out.mean(1).argmin())]


def compare(name: str, task: Task, rate: float, seeds: tuple[int, ...]) -> dict[str, dict[str, list[float]]]:
    """Method -> "end" and "picked" -> a number for each seed; prints the table."""
    reference, methods = COMPARISONS[name]
    shown = {method: ends(task, make, (rate,), seeds) for method, make in methods.items()}
    unit = "error %" if task.measure == "error" else "loss"
    rows = [[name, f"{unit} at the end", f"% to {reference}", "picked on validation", f"% to {reference}"]]
    for method, values in shown.items():
        cells = [method]
        for when in ("end", "picked"):
            ours, theirs = values[when][0], shown[reference][when][0]
            found, scale = statistics.paired(ours.numpy(), theirs.numpy()), 100 / float(theirs.mean())
            cells += [
                f"{float(ours.mean()):.4g}",
                "" if method == reference else f"{found.mean * scale:+.1f} [{found.low * scale:+.1f}, {found.high * scale:+.1f}]",
            ]
        rows.append(cells)
    print(
        f"\n{task.name}: {task.steps} steps of {task.batch_size}, {len(seeds)} seeds, adamw at {rate:g}", *align(rows), sep="\n", flush=True
    )
    return {method: {when: values[when][0].tolist() for when in ("end", "picked")} for method, values in shown.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparisons", nargs="*", choices=[[], *COMPARISONS], metavar="COMPARISON", help=", ".join(COMPARISONS))
    parser.add_argument("--tasks", nargs="+", default=["mnist1d", "deep", "noisy", "characters"])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    seeds, told = tuple(range(FIRST, FIRST + arguments.seeds)), {}
    for name in arguments.tasks:
        task = task_named(name)
        rate = tuned(task)
        told[name] = {comparison: compare(comparison, task, rate, seeds) for comparison in arguments.comparisons or COMPARISONS}
    if arguments.json:
        arguments.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
