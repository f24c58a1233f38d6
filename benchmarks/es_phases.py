"""Where the CPU time of a generation goes: the row `phases` of benchmarks/es.py.

    noise        Perturbations.draw, for evaluation and for the sum
    evaluation   the chunks without their noise
    sum          the gradient from the noise and the utilities
    rest         ranks, SGD, keys

Beside it stands what the products of matrices would take by themselves, at the speed of a product of 512 x 512 matrices
in the same process, and how many pages were touched for the first time ("faults").
"""

from __future__ import annotations

import contextlib
import resource
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from unittest import mock

import torch
from es_cases import CASES, OURS, Case, ours
from torch.utils.flop_counter import FlopCounterMode

from funcopt.es.estimate import grad as estimate
from funcopt.es.evaluate.evaluator import Evaluator
from funcopt.es.noise.population import Perturbations

__all__ = ["phases"]


class Phases:
    """CPU seconds and page faults by phase; a phase inside another one is not part of it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.faults: dict[str, int] = defaultdict(int)
        self.open: list[str] = []
        self.last = self.now()

    @staticmethod
    def now() -> tuple[float, int]:
        return time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    def turn(self) -> None:
        """Books what passed since the last turn on the innermost open phase."""
        now = self.now()
        if self.open:
            self.seconds[self.open[-1]] += now[0] - self.last[0]
            self.faults[self.open[-1]] += now[1] - self.last[1]
        self.last = now

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self.turn()
        self.open.append(name)
        yield
        self.turn()
        self.open.pop()

    def watched(self, name: str, f: Callable) -> Callable:
        def run(*args, **kwargs):
            with self.phase(name):
                return f(*args, **kwargs)

        return run


def phases_of(case: Case, rounds: int, **options) -> dict[str, tuple[float, float]]:
    """Medians of a generation: phase -> CPU seconds, page faults."""
    run, book = ours(case, **options), Phases()
    found: dict[str, list[tuple[float, int]]] = defaultdict(list)
    with (
        mock.patch.object(Perturbations, "draw", book.watched("noise", Perturbations.draw)),
        mock.patch.object(Evaluator, "evaluate", book.watched("evaluation", Evaluator.evaluate)),
        mock.patch.object(estimate, "sum_up", book.watched("sum", estimate.sum_up)),
    ):
        for turn in range(-2, rounds):
            book.seconds.clear(), book.faults.clear()
            with book.phase("rest"):
                run()
            for name in ("noise", "evaluation", "sum", "rest"):
                if turn >= 0:
                    found[name].append((book.seconds[name], book.faults[name]))
    return {name: (statistics.median(s for s, _ in pairs), statistics.median(n for _, n in pairs)) for name, pairs in found.items()}


def products(case: Case) -> int:
    """Multiplications and additions of a population's products of matrices."""
    x, y = case.rows()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        case.objective(case.params(), x, y)
    return counter.get_total_flops() * case.popsize


def speed_of_products(size: int = 512, rounds: int = 20) -> float:
    """Operations a second in a product of square matrices."""
    x, y, out = torch.randn(size, size), torch.randn(size, size), torch.empty(size, size)
    times = []
    for _ in range(rounds):
        began = time.process_time()
        torch.mm(x, y, out=out)
        times.append(time.process_time() - began)
    return 2 * size**3 / statistics.median(times)


def phases(rounds: int) -> dict:
    speed, table = speed_of_products(), {}
    print(f"\nphases: CPU milliseconds of a generation, and page faults; a product of matrices makes {speed / 1e9:.0f} GF/s")
    for name, case in CASES.items():
        flops = products(case)
        print(f"  {name}: {flops / 1e9:.2f} GF in products, {flops / speed * 1e3:.1f} ms at that speed")
        for form in ("dense", "rank 1", "rank 1, bf16"):
            found = phases_of(case, rounds, **OURS[form])
            told = ", ".join(f"{phase} {seconds * 1e3:.1f} ({faults:.0f})" for phase, (seconds, faults) in found.items())
            print(f"    {form}: {told}; together {sum(s for s, _ in found.values()) * 1e3:.1f}", flush=True)
            table[f"{name} {form}"] = found
    return table
