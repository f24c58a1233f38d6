"""Evolution strategies against EvoX, which is written in torch, and pycma: what a generation takes.

    python benchmarks/es_peers.py                   every row
    python benchmarks/es_peers.py small cma         some
    python benchmarks/es_peers.py --alone small     each contestant in a process of its own, whose heap no other has warmed
    python benchmarks/es_peers.py --short           few rounds, nothing of the peers compiled
    python benchmarks/es_peers.py --json peers.json all numbers into a file

Contestants take turns in one process, in CPU seconds on one thread (benchmarks/clock.py). Ours are eager and compiled, as
they come; so are EvoX's, whose own way is `torch.compile(workflow.step)`. A generation of a gradient: noise in pairs, fitness
of all members, gradient, Adam. What the peers leave out of it: OpenES weighs raw fitness where ours are ranks, its Adam has no
bias correction, noise comes from torch's global generator where ours is a function of a key, and nothing is told of the
population; its low-rank strategy draws each member by itself, without pairs. pycma evaluates member after member.
A peer that pip cannot fetch, or that does not run here, has a line that says so.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import clock
import torch
from es_cases import Case, classifier, flat, labelled, of_flat, perceptron

import funcopt as fo

sys.path.append(str(Path(__file__).resolve().parents[1]))
from scripts import references

SIGMA, LR = 0.05, 1e-2
Step = Callable[[], object]


class Ratio(NamedTuple):
    above: str
    below: str
    at_most: float | None = None


class Row(NamedTuple):
    title: str
    contestants: Callable[[], dict[str, Callable[[], Step]]]
    ratios: tuple[Ratio, ...]
    generations: int = 1  # in one measured turn


# --- gradients of an MLP --------------------------------------------------------------------------------------------------------


def mlp(widths: tuple[int, ...], popsize: int) -> Case:
    name = "-".join(map(str, widths))
    return Case(f"MLP {name}, 32 rows", perceptron(widths), classifier, labelled(32, widths[0], widths[-1]), popsize)


SMALL, MIDDLE, LARGE = mlp((20, 32, 4), 256), mlp((64, 128, 10), 256), mlp((256, 512, 10), 64)


def ours(case: Case, **options: Any) -> Step:
    grad_fn = fo.es.grad(case.objective, popsize=case.popsize, sigma=SIGMA, **options)
    tx, key, count = fo.adam(LR), fo.random.key(0), itertools.count()
    params, rows = case.params(), case.rows()
    state = tx.init(params)

    def run() -> None:
        nonlocal params, state
        grads, _ = grad_fn(params, *rows, key=fo.random.fold_in(key, next(count)))
        updates, state = tx.update(grads, state, params)
        params = fo.apply_updates(params, updates)

    return run


def evox(algorithm: Callable[[], Any], problem: Any, compiled: bool = False) -> Step:
    """A generation as EvoX's own workflow makes it; `problem` is one of its own, or a function of a population [P, D]."""
    from evox.core import Problem
    from evox.workflows import StdWorkflow

    class Asked(Problem):
        def evaluate(self, pop: torch.Tensor) -> torch.Tensor:
            return problem(pop)

    workflow = StdWorkflow(algorithm(), problem if isinstance(problem, Problem) else Asked())
    step = torch.compile(workflow.step) if compiled else workflow.step

    def run() -> None:
        with torch.no_grad():
            step()

    run()
    return run


def openes(case: Case, compiled: bool = False) -> Step:
    from evox.algorithms import OpenES

    return evox(lambda: OpenES(case.popsize, flat(case), LR, SIGMA, optimizer="adam"), torch.func.vmap(of_flat(case)), compiled)


def lora(case: Case) -> Step:
    from evox.algorithms.so.es_variants.virtual_lora_es import VirtualLoRAES  # 1.4 exports another class under this name
    from evox.problems.neuroevolution.virtual_lora_problem import VirtualLoRAProblem

    widths = [shape[1] for shape in case.shapes.values() if len(shape) == 2]
    widths.append(list(case.shapes.values())[-1][0])
    layers = [part for a, b in itertools.pairwise(widths) for part in (torch.nn.Linear(a, b), torch.nn.ReLU())][:-1]
    loader = itertools.repeat(case.rows())
    problem = VirtualLoRAProblem(torch.nn.Sequential(*layers), loader, torch.nn.CrossEntropyLoss(reduction="none"), 1)
    shapes = list(case.shapes.values())
    return evox(lambda: VirtualLoRAES(shapes, 1, case.popsize, flat(case), LR, SIGMA, optimizer="adam"), problem)


OURS = {"dense": {}, "dense, compiled": {"compile": True}}
LOW = {"rank 1": {"noise": fo.es.low_rank(1)}, "rank 1, compiled": {"noise": fo.es.low_rank(1), "compile": True}}
OPENES, OPENES_COMPILED, LORA = "EvoX OpenES", "EvoX OpenES, compiled", "EvoX VirtualLoRAES"


def dense(case: Case) -> Callable[[], dict[str, Callable[[], Step]]]:
    mine = {name: lambda options=options: ours(case, **options) for name, options in OURS.items()}
    return lambda: {**mine, OPENES: lambda: openes(case), OPENES_COMPILED: lambda: openes(case, compiled=True)}


def low_rank(case: Case) -> Callable[[], dict[str, Callable[[], Step]]]:
    mine = {name: lambda options=options: ours(case, **options) for name, options in LOW.items()}
    return lambda: {**mine, LORA: lambda: lora(case)}


# --- searches of an ellipsoid ---------------------------------------------------------------------------------------------------


def ellipsoid(dim: int) -> torch.Tensor:
    return torch.logspace(0, 6, dim)


def search(made: Any, dim: int, compiled: bool = False) -> Step:
    """Ask, evaluate, tell; the noise is held in between, as `es.run` does in small generations."""
    weights = ellipsoid(dim)

    def generation(state: Any) -> Any:
        population, state = made.ask(state)
        members = population.drawn()
        return made.tell(state, (weights * members.stacked().square()).sum(1), population=members)

    step = torch.compile(generation) if compiled else generation
    state = made.init(torch.ones(dim), fo.random.key(0))

    def run() -> None:
        nonlocal state
        state = step(state)

    return run


def fitness(dim: int) -> Callable[[torch.Tensor], torch.Tensor]:
    weights = ellipsoid(dim)
    return lambda population: (weights * population.square()).sum(1)


def snes(dim: int, popsize: int) -> Callable[[], dict[str, Callable[[], Step]]]:
    def theirs(compiled: bool) -> Step:
        from evox.algorithms import SNES

        return evox(lambda: SNES(popsize, torch.ones(dim), sigma=0.5), fitness(dim), compiled)

    return lambda: {
        "snes": lambda: search(fo.es.snes(popsize, sigma=0.5), dim),
        "snes, compiled": lambda: search(fo.es.snes(popsize, sigma=0.5), dim, compiled=True),
        "EvoX SNES": lambda: theirs(False),
        "EvoX SNES, compiled": lambda: theirs(True),
    }


def cma(dim: int) -> Callable[[], dict[str, Callable[[], Step]]]:
    def theirs(compiled: bool = False) -> Step:
        from evox.algorithms import CMAES

        return evox(lambda: CMAES(torch.ones(dim), 0.5), fitness(dim), compiled)

    def pycma() -> Step:
        import cma as package

        strategy = package.CMAEvolutionStrategy(dim * [1.0], 0.5, {"verbose": -9, "seed": 1})
        weights = ellipsoid(dim).numpy()

        def run() -> None:
            members = strategy.ask()
            strategy.tell(members, [float((weights * x * x).sum()) for x in members])

        return run

    return lambda: {"cma_es": lambda: search(fo.es.cma_es(sigma=0.5), dim), "EvoX CMAES": theirs, "pycma": pycma}


EVOX = (
    Ratio("dense", OPENES, 1.0),
    Ratio("dense, compiled", OPENES, 1 / 3),
    Ratio("dense, compiled", OPENES_COMPILED),
)
LOW_RANK = (Ratio("rank 1", LORA, 1.0), Ratio("rank 1, compiled", LORA, 1 / 3))
SNES = (Ratio("snes", "EvoX SNES"), Ratio("snes, compiled", "EvoX SNES"), Ratio("snes, compiled", "EvoX SNES, compiled"))
CMA = (Ratio("cma_es", "EvoX CMAES"), Ratio("cma_es", "pycma"))
ROWS: dict[str, Row] = {
    "small": Row("804 parameters, P 256", dense(SMALL), EVOX, 5),
    "middle": Row("9,610 parameters, P 256", dense(MIDDLE), EVOX),
    "large": Row("136,714 parameters, P 64", dense(LARGE), EVOX),
    "low_rank": Row("9,610 parameters, P 256, rank 1", low_rank(MIDDLE), LOW_RANK),
    "low_rank_large": Row("136,714 parameters, P 64, rank 1", low_rank(LARGE), LOW_RANK),
    "snes": Row("SNES, ellipsoid in 1000 dimensions, P 64", snes(1000, 64), SNES, 5),
    "cma": Row("CMA-ES, ellipsoid in 20 dimensions, P 12", cma(20), CMA, 20),
    "cma_large": Row("CMA-ES, ellipsoid in 200 dimensions, P 19", cma(200), CMA, 5),
}
OF = {"EvoX": "evox", "pycma": "cma"}  # the first word of a contestant -> its package


def usable(contestants: dict[str, Callable[[], Step]], missing: dict[str, str]) -> dict[str, Callable[[], Step]]:
    """Those whose packages are here and whose first generation goes through; of the others a line."""
    found = {}
    for name, make in contestants.items():
        package = OF.get(name.split()[0])
        if package is None:
            found[name] = make
        elif package not in missing:
            try:
                make()()
                found[name] = make
            except Exception as error:  # a peer that does not run here says why
                print(f"  {name}: does not run here: {type(error).__name__}: {str(error).splitlines()[0][:100] if str(error) else ''}")
    return found


def report(row: Row, name: str, rounds: int, copies: int, missing: dict[str, str], short: bool) -> dict:
    print(f"\n{name}: {row.title}")
    torch.compiler.reset()  # every workflow is a class of its own, of which the compiler takes eight
    made = {n: make for n, make in row.contestants().items() if not (short and n.startswith("EvoX") and n.endswith("compiled"))}
    contestants = usable(made, missing)

    def turns(make: Callable[[], Step]) -> Callable[[], Step]:
        def several() -> Step:
            step = make()

            def run() -> None:
                for _ in range(row.generations):
                    step()

            return run

        return several

    race = clock.race({n: turns(make) for n, make in contestants.items()}, rounds, copies)
    for contestant in contestants:
        print(f"  {contestant:<24} {race.median(contestant) / row.generations * 1e3:10.3f} ms")
    lines = []
    for ratio in row.ratios:
        if not {ratio.above, ratio.below} <= set(contestants):
            continue
        value, low, high = race.ratio(ratio.above, ratio.below)
        held = "" if ratio.at_most is None else f"   at most {ratio.at_most:.3g}{'' if value <= ratio.at_most else '   ABOVE'}"
        print(f"  {ratio.above} / {ratio.below}: {value:.3f} ({low:.3f} to {high:.3f}){held}", flush=True)
        lines.append({**ratio._asdict(), "value": value, "low": low, "high": high})
    return {"title": row.title, "medians": {c: race.median(c) / row.generations for c in contestants}, "ratios": lines}


def alone(name: str, generations: int = 40) -> dict:
    """The median generation of each contestant in a process of its own."""
    print(f"\n{name}: {ROWS[name].title}, each in a process of its own")
    found = {}
    for contestant in ROWS[name].contestants():
        line = [sys.executable, __file__, "--one", name, contestant, "--rounds", str(generations)]
        answer = subprocess.run(line, capture_output=True, text=True)
        if answer.returncode:
            print(f"  {contestant}: does not run here: {(answer.stderr.strip().splitlines() or [''])[-1][:100]}")
            continue
        found[contestant] = float(answer.stdout.split()[-1])
        print(f"  {contestant:<24} {found[contestant] * 1e3:10.3f} ms", flush=True)
    return found


def one(name: str, contestant: str, generations: int) -> float:
    if package := OF.get(contestant.split()[0]):
        references.available(package)
    step, seconds = ROWS[name].contestants()[contestant](), []
    for _ in range(generations + 5):
        began = time.process_time()
        step()
        seconds.append(time.process_time() - began)
    return statistics.median(seconds[5:])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="row", help=f"of {', '.join(ROWS)}; all unless given")
    parser.add_argument("--short", action="store_true", help="few rounds, two copies; peers are not compiled")
    parser.add_argument("--rounds", type=int, help="of every copy; 25, or 7 in the short form")
    parser.add_argument("--copies", type=int, help="of every contestant; 3, or 2 in the short form")
    parser.add_argument("--json", type=Path, help="a file for all numbers")
    parser.add_argument("--alone", action="store_true", help="each contestant in a process of its own")
    parser.add_argument("--one", nargs=2, metavar=("row", "contestant"), help="one of them in this process: its seconds a generation")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.rows if name not in ROWS]:
        parser.error(f"rows must be out of {', '.join(ROWS)}, got {', '.join(unknown)}")
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    if options.one:
        print(one(*options.one, options.rounds or 40))
        return 0
    print(clock.heading())
    missing = {package: references.PACKAGES[package] for package in OF.values() if not references.available(package)}
    for package in missing.values():
        print(f"not compared: no {package}")
    began, numbers = time.perf_counter(), {}
    for name in options.rows or ROWS:
        rounds, copies = options.rounds or (7 if options.short else 25), options.copies or (2 if options.short else 3)
        if options.alone:
            numbers[name] = alone(name, options.rounds or 40)
            continue
        numbers[name] = report(ROWS[name], name, rounds, copies, missing, options.short)
    print(f"\n{time.perf_counter() - began:.0f} s")
    clock.save(options.json, rows=numbers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
