"""The clock of all benchmarks: contestants take turns in one process, on one thread, in CPU seconds.

    table = race({"ours": make_ours, "theirs": make_theirs}, rounds=25, copies=3)
    table.ratio("ours", "theirs")          Ratio(value=0.93, low=0.91, high=0.96)

Two copies of one and the same step differ by some percent, for where their memory lies. So each contestant is made several
times; a copy's time is the median of its rounds, a contestant's the median of its copies. The order turns from round to round.
"""

from __future__ import annotations

import gc
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch

__all__ = ["GivenGradient", "Ratio", "Times", "heading", "race", "save"]

Step = Callable[[], object]


class GivenGradient(torch.autograd.Function):
    """A loss and its gradient out of nowhere: a sum over params would be fused with some updates and not with others."""

    @staticmethod
    def forward(params, g, loss):
        return loss.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx, cotangent):
        return cotangent * ctx.saved_tensors[0], None, None


class Ratio(NamedTuple):
    value: float
    low: float  # of the copies, one by one
    high: float


class Times(NamedTuple):
    """CPU seconds of every step: name -> copy -> round."""

    seconds: dict[str, list[list[float]]]

    def copies(self, name: str) -> list[float]:
        """The median of each copy; a sum of contestants is written "a + b"."""
        names = [name] if name in self.seconds else name.split(" + ")
        return [sum(parts) for parts in zip(*([statistics.median(rounds) for rounds in self.seconds[part]] for part in names), strict=True)]

    def median(self, name: str) -> float:
        return statistics.median(self.copies(name))

    def ratio(self, above: str, below: str) -> Ratio:
        pairs = [a / b for a, b in zip(self.copies(above), self.copies(below), strict=True)]
        return Ratio(self.median(above) / self.median(below), min(pairs), max(pairs))


def heading() -> str:
    """What the figures below were measured with."""
    return f"torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}, one thread, CPU time"


def save(path: Path | None, **content: object) -> None:
    """Figures into a file, below what they were measured with; without a path, nothing."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"with": heading(), **content}, indent=1), encoding="utf-8")


def race(contestants: Mapping[str, Callable[[], Step]], rounds: int = 15, copies: int = 3, warm: int = 2) -> Times:
    """Times what each `make()` gives, turn by turn.

    Args:
        contestants: name -> a function that makes one copy: a step without arguments.
        rounds: measured steps of every copy.
        copies: of every contestant.
        warm: steps of every copy that go before, for compilers and caches.
    """
    torch.set_num_threads(1)
    steps: list[tuple[str, int, Step]] = []
    for copy in range(copies):
        for name, make in contestants.items():
            step = make()
            began = time.perf_counter()
            for _ in range(warm):
                step()
            if copy == 0:
                print(f"  {name}: {warm} steps after {time.perf_counter() - began:.1f} s", file=sys.stderr, flush=True)
            steps.append((name, copy, step))
    seconds: dict[str, list[list[float]]] = {name: [[] for _ in range(copies)] for name in contestants}
    gc.collect()
    gc.disable()
    try:
        for turn in range(rounds):
            first = turn * 5 % len(steps)
            for name, copy, step in steps[first:] + steps[:first]:
                began = time.process_time()
                step()
                seconds[name][copy].append(time.process_time() - began)
    finally:
        gc.enable()
    return Times(seconds)
