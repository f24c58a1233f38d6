"""What each search holds, takes and needs: bytes of state, the time of a generation beside openai_es, evaluations to come down.

    python benchmarks/searches.py                    every search of fo.es; prints the table
    python benchmarks/searches.py --json f           and writes it: docs/searches.json, of which the pages of the reference are made
    python benchmarks/searches.py snes cma_es        those alone; a file that is there keeps its other rows

All have their defaults, but sigma 0.5. Bytes are those of the state over the parameters, float32, of 100. A generation is `ask` and
`tell` of 64 members of 100 parameters, eager, in turns with openai_es in one process (benchmarks/clock.py). Evaluations: the median of
three seeds until the center is at a thousandth of the value of the start, on the sphere and on the ellipsoid whose axes differ by a factor
of 1000, from ones in 20 dimensions; "-" did not get there within 20,000. More of the kind: benchmarks/es_evaluations.py.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import io
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import clock
import torch
from torch import Tensor

import funcopt as fo

LIMIT = 20_000
REACHED = 1e-3  # of the value of the start
SEEDS = 3
MEMBERS, PARAMETERS, DIMENSIONS = 64, 100, 20
OBJECTIVES = {
    "sphere": torch.ones(DIMENSIONS, dtype=torch.float64),
    "ellipsoid": torch.logspace(0, 6, DIMENSIONS, dtype=torch.float64),
}

__all__ = ["bytes_held", "searches"]


def searches() -> dict[str, Callable[..., Any]]:
    """Every function of fo.es that makes a search, by name."""
    found = {name: getattr(fo.es, name) for name in dir(fo.es)}
    made = {name: f for name, f in found.items() if inspect.isfunction(f) and "Search[" in str(inspect.signature(f).return_annotation)}
    return {name: (lambda f=f, **settings: f(fo.es.cma_es, **settings)) if name == "restarts" else f for name, f in made.items()}


def bytes_held(make: Callable[..., Any]) -> float:
    """Bytes of the state for each parameter."""
    state = make(sigma=0.5).init(torch.ones(PARAMETERS), 0)
    return sum(x.numel() * x.element_size() for x in fo.tree.leaves(state)) / PARAMETERS


def generations(make: Callable[..., Any]) -> Callable[[], None]:
    """A generation without arguments, which goes on from where it was."""
    search = make(popsize=MEMBERS, sigma=0.5)
    held = {"state": search.init(torch.ones(PARAMETERS), 0)}

    def generation() -> None:
        population, state = search.ask(held["state"])
        held["state"] = search.tell(state, population.stacked().square().sum(1))

    return generation


def beside_openai_es(make: Callable[..., Any]) -> clock.Ratio:
    contestants = {"openai_es": lambda: generations(fo.es.openai_es), "row": lambda: generations(make)}
    with contextlib.redirect_stderr(io.StringIO()):  # what takes long to begin is not asked here
        return clock.race(contestants, rounds=40, copies=3, warm=3).ratio("row", "openai_es")


def evaluations(make: Callable[..., Any], weights: Tensor, seed: int) -> int | None:
    """How many until the center is there; None where it does not get there."""
    search, start = make(sigma=0.5), torch.ones(len(weights), dtype=torch.float64)
    state, used = search.init(start, seed), 0
    while used < LIMIT:
        population, state = search.ask(state)
        fitness = (weights * population.stacked().square()).sum(1)
        state, used = search.tell(state, fitness), used + len(fitness)
        if (weights * search.center(state).square()).sum() < REACHED * weights.sum():
            return used
    return None


def median(make: Callable[..., Any], weights: Tensor) -> int | None:
    counts = [evaluations(make, weights, seed) for seed in range(SEEDS)]
    return None if None in counts else int(statistics.median(count for count in counts if count is not None))


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    arguments.add_argument("names", nargs="*", help="searches; none: all")
    arguments.add_argument("--json", type=Path)
    chosen = arguments.parse_args()
    known = searches()
    if unknown := set(chosen.names) - set(known):
        arguments.error(f"names must be out of {', '.join(known)}, got {', '.join(sorted(unknown))}")
    found = json.loads(chosen.json.read_text(encoding="utf-8"))["rows"] if chosen.names and chosen.json and chosen.json.exists() else {}
    print(f"{clock.heading()}\n{'':12} bytes a parameter   a generation beside openai_es   evaluations: sphere, ellipsoid")
    for name in chosen.names or known:
        make = known[name]
        held, time = bytes_held(make), beside_openai_es(make)
        needed = {objective: median(make, weights) for objective, weights in OBJECTIVES.items()}
        found[name] = {"bytes": round(held, 1), "time": round(time.value, 2), **needed}
        told = ", ".join("-" if count is None else f"{count:,}" for count in needed.values())
        print(f"{name:12} {held:17.1f} {time.value:10.2f} ({time.low:.2f} to {time.high:.2f}) {told:>30}", flush=True)
    if chosen.json:
        lines = ",\n".join(f'    "{name}": {json.dumps(row)}' for name, row in sorted(found.items()))
        chosen.json.write_text(f'{{\n  "with": "{clock.heading()}",\n  "rows": {{\n{lines}\n  }}\n}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
