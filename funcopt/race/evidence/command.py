"""`python -m funcopt race evidence`: runs the protocol, prints E1 to E4, and makes the page of what has been run."""

import argparse
from pathlib import Path

from funcopt.race.evidence import page, store, verdicts
from funcopt.race.evidence.methods import METHODS
from funcopt.race.evidence.protocol import plans
from funcopt.race.evidence.running import run

__all__ = ["add_arguments", "main"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--long", action="store_true", help="ten seeds, full lengths, every method at every rate, the large transformer: a night"
    )
    parser.add_argument("--tasks", nargs="+", metavar="NAME", help=f"some of: {', '.join(plans('long'))}")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help=f"some of: {'; '.join(METHODS)}")
    parser.add_argument("--again", action="store_true", help="run also what is there already")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="tasks at a time, each on one thread (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/evidence"), metavar="DIR", help="where results are and go (default: %(default)s)"
    )
    parser.add_argument("--page", action="store_true", help="run nothing: make docs/evidence.md and its pictures of docs/evidence")
    parser.add_argument("--no-progress", action="store_true", help="no progress bars, and no line a method where there is no terminal")


def main(arguments: argparse.Namespace) -> int:
    if arguments.page:
        for file in page.write(Path("docs")):
            print(file)
        return 0
    form = "long" if arguments.long else "short"
    known = plans(form)
    for name in arguments.tasks or ():
        if name not in known:
            raise ValueError(f"evidence: no task {name!r} in the {form} form; there are {', '.join(known)}")
    if arguments.jobs < 1:
        raise ValueError(f"evidence: jobs must be >= 1, got {arguments.jobs}")
    folder = arguments.out / form
    keys = arguments.tasks or list(known)
    try:
        run(folder, form, keys, arguments.methods, jobs=arguments.jobs, again=arguments.again, progress=not arguments.no_progress)
    except KeyboardInterrupt:
        print(f"evidence: interrupted; what has finished is in {folder}, and the same command goes on")
        raise
    tasks = store.written(folder, list(known))
    print(page.summary(tasks, verdicts.of(tasks, store.read(arguments.out / store.COST), len(known))))
    print(f"\nall numbers: {folder}")
    return 0
