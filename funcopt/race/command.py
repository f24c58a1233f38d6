"""`python -m funcopt race`: the default race, and with `--tune` the search for its rates."""

import argparse
from pathlib import Path

import torch

from funcopt.race import defaults
from funcopt.race.runner import run
from funcopt.race.tasks import TASKS, task_named
from funcopt.race.tune import RATES, SEEDS, table, tune

__all__ = ["add_arguments", "main"]

INTERRUPTED = 130  # what a shell gives for Ctrl-C


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", default="mlp", metavar="NAME", help=f"what to train: {', '.join(TASKS)} (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="seeds of each optimizer, all trained at once (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=600, metavar="N", help="updates of each seed (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="rows per update (default: %(default)s)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"some of: {', '.join(defaults.METHODS)}; the first of them is the baseline")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where results go (default: runs/TASK, or runs/tune-TASK)")
    parser.add_argument("--no-progress", action="store_true", help="no progress bars")
    parser.add_argument(
        "--tune", action="store_true", help=f"instead of racing, try {len(RATES)} rates from {len(SEEDS)} seeds for each optimizer on held-out training data"
    )


def main(arguments: argparse.Namespace) -> int:
    names = defaults.chosen(arguments.only)
    torch.set_num_threads(1)  # networks this small only wait for a second thread; on a busy machine 30 times as long
    progress = not arguments.no_progress
    if arguments.tune:
        out = arguments.out or Path("runs") / f"tune-{arguments.task}"
        methods = {name: defaults.METHODS[name].make for name in names}
        task = task_named(arguments.task, validation=True)
        print(table(tune(task, methods, steps=arguments.steps, batch_size=arguments.batch_size, out=out, progress=progress)))
        print(f"\nall numbers: {out / 'tune.json'}")
        return 0
    out = arguments.out or Path("runs") / arguments.task
    try:
        race = run(
            task_named(arguments.task),
            defaults.factories(arguments.task, names),
            seeds=arguments.seeds,
            steps=arguments.steps,
            batch_size=arguments.batch_size,
            labels={name: defaults.METHODS[name].members for name in names if defaults.METHODS[name].members},
            settings={name: {"rate": defaults.RATES[arguments.task][name]} for name in names},
            out=out,
            progress=progress,
        )
    except KeyboardInterrupt:
        return INTERRUPTED
    if not progress:
        print(race.table())
    print(f"\n{race.seconds:.0f} s; all numbers: {out / 'results.json'}, picture: {out / 'race.png'}")
    return 0
