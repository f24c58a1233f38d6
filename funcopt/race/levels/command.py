"""`python -m funcopt race levels`: who solves which level."""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from funcopt.race.levels import KINDS, LEVELS
from funcopt.race.levels.methods import FIRST, METHODS, RATES
from funcopt.race.levels.page import as_json, cell, differences, page, total
from funcopt.race.levels.solve import LOOKS, STEPS, solve

__all__ = ["add_arguments", "main"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--long",
        action="store_true",
        help=f"all {len(LEVELS)} levels and all {len(METHODS)} optimizers (default: two levels, {len(FIRST)} optimizers)",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        help="some of the optimizers, by the names of the table; rows of other ones that are in DIR already, made alike, stay",
    )
    parser.add_argument("--kinds", nargs="+", metavar="KIND", help=f"some of: {', '.join(KINDS)}")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="starts and streams of noise of each (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("runs") / "levels", metavar="DIR", help="where levels.json and levels.md go (default: %(default)s)"
    )


def main(arguments: argparse.Namespace) -> int:
    methods = chosen("optimizer", arguments.only or (METHODS if arguments.long else FIRST), METHODS)
    kinds = chosen("kind", arguments.kinds or KINDS, KINDS)
    if arguments.seeds < 1:
        raise ValueError(f"race levels: --seeds must be at least 1, got {arguments.seeds}")
    levels = len(LEVELS) if arguments.long else 2
    torch.set_num_threads(1)  # nothing here is large enough for a second one
    setup: dict[str, Any] = {
        **{"torch": torch.__version__.partition("+")[0], "seeds": arguments.seeds, "steps": STEPS, "looks": LOOKS, "rates": list(RATES)},
        "kinds": {
            name: {"about": k.about, "number": k.number, "levels": list(k.levels[:levels]), "target": k.target} for name, k in kinds.items()
        },
    }
    found = setup | {"of_torch": {}, "results": earlier(arguments.out, setup) if arguments.only else {}}
    width = max(map(len, methods))
    print(" " * width, *(name.ljust(10) for name in kinds), "levels")
    started = time.perf_counter()
    for name, method in methods.items():
        found["results"][name] = {
            kind: [list(o) for o in solve(k, method, seeds=arguments.seeds, levels=levels)] for kind, k in kinds.items()
        }
        print(name.ljust(width), *(cell(found, name, kind).ljust(10) for kind in kinds), total(found, name), flush=True)
        write(found, arguments.out)
    print(f"\n{differences(found)}")
    print(f"\n{time.perf_counter() - started:.0f} s; all numbers: {arguments.out / 'levels.json'}, page: {arguments.out / 'levels.md'}")
    return 0


def earlier(folder: Path, setup: dict[str, Any]) -> dict[str, Any]:
    """The rows of a run of the same kinds, levels, seeds and torch in that folder, which are kept beside the new ones."""
    path = folder / "levels.json"
    held = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return held["results"] if {key: held.get(key) for key in setup} == setup else {}


def write(found: dict[str, Any], folder: Path) -> None:
    """Numbers and page, rows in the order of the table."""
    results = found["results"]
    found["results"] = {name: results[name] for name in METHODS if name in results}
    found["of_torch"] = {name: method.torch for name, method in METHODS.items() if name in results and method.torch in results}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "levels.json").write_text(as_json(found), encoding="utf-8")
    (folder / "levels.md").write_text(page(found), encoding="utf-8")


def chosen(what: str, names: Any, known: dict[str, Any]) -> dict[str, Any]:
    """These of them, in the order of the table."""
    for name in names:
        if name not in known:
            raise ValueError(f"race levels: no {what} {name!r}; there are {', '.join(known)}")
    return {name: value for name, value in known.items() if name in names}
