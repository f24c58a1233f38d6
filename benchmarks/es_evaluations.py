"""How many evaluations a search takes until a member is below 1e-9: the sphere, and the ellipsoid whose axes differ by a factor of 1000.

    python benchmarks/es_evaluations.py                 beside pycma, and EvoX's CMA-ES and SNES
    python benchmarks/es_evaluations.py --seeds 5       steadier
    python benchmarks/es_evaluations.py --dims 20       one size

All begin at ones with sigma 0.5 and the population of their default, 4 + floor(3 ln D). A number is the median over seeds; "-" did
not arrive within the limit of evaluations. `xnes, published` has one rate for size and shape. EvoX's searches have a
population of the same size, and otherwise their own defaults; they work in float32. A peer that pip cannot fetch has a line
that says so.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import warnings
from pathlib import Path

import torch

import funcopt as fo

sys.path.append(str(Path(__file__).resolve().parents[1]))
from scripts import references

TARGET = 1e-9
LIMIT = 100_000


def functions(dim: int) -> dict:
    return {"sphere": torch.ones(dim, dtype=torch.float64), "ellipsoid": torch.logspace(0, 6, dim, dtype=torch.float64)}


def published_rate(dim: int) -> float:
    return (9 + 3 * math.log(dim)) / (5 * dim**1.5)


def searches(dim: int) -> dict:
    found = {
        "sep_cma_es": fo.es.sep_cma_es(sigma=0.5),
        "sep_cma_es, neither active nor accelerated": fo.es.sep_cma_es(sigma=0.5, active=False, accelerate=False),
        "sep_cma_es, accelerated": fo.es.sep_cma_es(sigma=0.5, active=False),
        "sep_cma_es, variant pycma, active": fo.es.sep_cma_es(sigma=0.5, variant="pycma", active=True),
        "snes": fo.es.snes(sigma=0.5),
    }
    if dim <= 20:
        found["cma_es"] = fo.es.cma_es(sigma=0.5)
        found["xnes"] = fo.es.xnes(sigma=0.5)
        found["xnes, published"] = fo.es.xnes(sigma=0.5, factor_lr=published_rate(dim))
        found["xnes, scale_lr of snes"] = fo.es.xnes(sigma=0.5, scale_lr=(3 + math.log(dim)) / (5 * math.sqrt(dim)))
    return found


def ours(search, weights: torch.Tensor, seed: int) -> int | None:
    state, used = search.init(torch.ones(len(weights), dtype=torch.float64), seed), 0
    while used < LIMIT:
        population, state = search.ask(state)
        fitness = (weights * population.stacked().square()).sum(1)
        used += len(fitness)
        if fitness.min() < TARGET:
            return used
        state = search.tell(state, fitness)
    return None


def pycma(weights: torch.Tensor, seed: int, diagonal: bool) -> int | None:
    import cma

    settings = {"seed": seed + 1, "verbose": -9, "ftarget": TARGET, "maxfevals": LIMIT, "CMA_diagonal": diagonal, "tolflatfitness": 1e9}
    found = cma.CMAEvolutionStrategy(len(weights) * [1.0], 0.5, settings)
    found.optimize(lambda x: float((weights * torch.as_tensor(x).square()).sum()))
    return found.result.evaluations if found.result.fbest < TARGET else None


def evox(weights: torch.Tensor, seed: int, name: str) -> int | None:
    """One of EvoX's searches, on the function as it comes to them."""
    from evox import algorithms
    from evox.core import Problem
    from evox.workflows import StdWorkflow

    dim, used, best = len(weights), 0, math.inf
    popsize = 4 + math.floor(3 * math.log(dim))

    class Asked(Problem):
        def evaluate(self, pop: torch.Tensor) -> torch.Tensor:
            nonlocal used, best
            fitness = (weights.to(pop.dtype) * pop.square()).sum(1)
            used, best = used + len(pop), min(best, float(fitness.min()))
            return fitness

    torch.manual_seed(seed)
    center = torch.ones(dim)
    search = algorithms.CMAES(center, 0.5) if name == "CMAES" else algorithms.SNES(popsize, center, sigma=0.5)
    workflow = StdWorkflow(search, Asked())
    while used < LIMIT:
        try:
            workflow.step()
        except RuntimeError:  # a covariance that has no eigenvalues any more
            return None
        if best < TARGET:
            return used
    return None


def median(counts: list[int | None]) -> str:
    return "-" if any(count is None for count in counts) else f"{int(statistics.median(counts)):,}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dims", type=int, nargs="+", default=[20, 60])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    here = {package: references.available(package) for package in ("cma", "evox")}
    for package in (package for package, found in here.items() if not found):
        print(f"not compared: no {references.PACKAGES[package]}")
    for dim in options.dims:
        print(f"{dim} dimensions" + f"{'sphere':>40}{'ellipsoid':>12}", flush=True)
        rows = {name: lambda w, seed, search=search: ours(search, w, seed) for name, search in searches(dim).items()}
        if here["evox"]:
            rows |= {f"EvoX {name}": lambda w, seed, n=name: evox(w, seed, n) for name in ("CMAES", "SNES")}
        if here["cma"]:
            rows |= {f"pycma{word}": lambda w, seed, d=d: pycma(w, seed, d) for word, d in ((", diagonal", True), ("", False))}
        for name, count in rows.items():
            figures = [median([count(weights, seed) for seed in range(options.seeds)]) for weights in functions(dim).values()]
            print(f"  {name:<44}{figures[0]:>6}{figures[1]:>12}", flush=True)


if __name__ == "__main__":
    main()
