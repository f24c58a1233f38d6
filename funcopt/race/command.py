"""`python -m funcopt race TASK`: several optimizers side by side; with `--tune` the search for their rates."""

import argparse
from functools import partial
from pathlib import Path

import torch

from funcopt.race import defaults, free
from funcopt.race.runner import run
from funcopt.race.tasks import TASKS, task_named
from funcopt.race.tune import HALF_DECADES, RATES, SEEDS, table, tune

__all__ = ["add_arguments", "main"]

FEW = SEEDS[:2]  # that choose among half decades, where a task's rates are not known


def add_arguments(parser: argparse.ArgumentParser) -> None:
    known = f"{', '.join(TASKS)}; noisy-2 is noisy in batches of 2"
    parser.add_argument("what", nargs="?", metavar="TASK", help=f"what to train: {known} (default: mlp)")
    parser.add_argument("--task", metavar="TASK", help="the same")
    parser.add_argument(
        "--seeds", type=int, default=5, metavar="N", help="seeds of each optimizer, all trained at once (default: %(default)s)"
    )
    parser.add_argument("--steps", type=int, metavar="N", help="updates of each seed (default: the task's own)")
    parser.add_argument("--batch-size", type=int, metavar="N", help="rows per update (default: the task's own)")
    methods = ", ".join(defaults.METHODS | free.FREE)
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"some of: {methods}; the first of this list among them is the baseline")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where results go (default: runs/TASK, or runs/tune-TASK)")
    parser.add_argument("--resume", action="store_true", help="go on with the race in DIR: what has finished there is not trained again")
    parser.add_argument("--no-progress", action="store_true", help="no progress bars, and no line an optimizer where there is no terminal")
    parser.add_argument(
        "--tune",
        action="store_true",
        help=f"instead of racing, try {len(RATES)} rates from {len(SEEDS)} seeds for each optimizer on held-out data",
    )


def main(arguments: argparse.Namespace) -> int:
    if arguments.what and arguments.task and arguments.what != arguments.task:
        raise ValueError(f"race: one task at a time, got {arguments.what!r} and --task {arguments.task!r}")
    name = arguments.what or arguments.task or "mlp"
    methods = free.chosen(name, arguments.only)
    torch.set_num_threads(1)  # networks this small only wait for a second thread; on a busy machine 30 times as long
    return _tune(name, methods, arguments) if arguments.tune else _race(name, methods, arguments)


def _tune(name: str, methods: dict[str, defaults.Method], arguments: argparse.Namespace) -> int:
    out = arguments.out or Path("runs") / f"tune-{name}"
    makes = {method: entry.make for method, entry in methods.items() if method not in free.FREE}
    settings = {
        "steps": arguments.steps,
        "batch_size": arguments.batch_size,
        "resume": arguments.resume,
        "progress": not arguments.no_progress,
    }
    print(table(tune(task_named(name, validation=True), makes, out=out, **settings)))
    print(f"\nall numbers: {out / 'tune.json'}")
    return 0


def _race(name: str, methods: dict[str, defaults.Method], arguments: argparse.Namespace) -> int:
    out = arguments.out or Path("runs") / name
    settings = {
        "steps": arguments.steps,
        "batch_size": arguments.batch_size,
        "resume": arguments.resume,
        "progress": not arguments.no_progress,
    }
    rates = dict(defaults.RATES.get(name, {}))
    missing = free.untuned(name, methods)
    if missing:
        makes = {method: methods[method].make for method in missing}
        found = tune(task_named(name, validation=True), makes, rates=HALF_DECADES, seeds=FEW, out=out, **settings)
        rates |= {method: found["methods"][method]["rate"] for method in missing}
        print("rates, found on held-out data: " + ", ".join(f"{method} {rates[method]:g}" for method in missing))
    race = run(
        task_named(name),
        {method: partial(entry.make, rates.get(method)) for method, entry in methods.items()},
        seeds=arguments.seeds,
        labels={method: entry.members for method, entry in methods.items() if entry.members},
        settings={method: {"rate": rates.get(method)} for method in methods},
        out=out,
        **settings,
    )
    if arguments.no_progress:
        print(race.table())
    print(
        f"\n{race.seconds:.0f} s; all numbers: {out / 'results.json'}, pages: {out / 'results.html'}, {out / 'results.md'}, picture: "
        f"{out / 'race.png'}"
    )
    return 0
