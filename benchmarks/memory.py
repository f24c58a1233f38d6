"""What a step holds beyond params, gradients and state, at its peak, as a share of the params.

    python benchmarks/memory.py                 12 M entries in 62 tensors
    python benchmarks/memory.py --short         2 M
    python benchmarks/memory.py --json f        all numbers into a file

Counted by torch's profiler: every allocation and release of CPU memory in the third step. What lives before the step
(params, state, batch) counts as nothing; what a step needs in any case, one gradient, is taken off.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

import funcopt as fo

os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # the profiler of torch 2.13 tells of every start and stop
AT_MOST = 0.05  # of the params, for the donated compiled step


def shapes(entries: int) -> list[tuple[int, ...]]:
    """31 matrices and as many biases."""
    side = int((entries / 31) ** 0.5)
    return [shape for _ in range(31) for shape in ((side, side), (side,))]


def peak(run: Callable[[], object]) -> int:
    """Bytes alive at once during `run`, beyond those alive before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    alive = highest = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            alive += event.nbytes()
            highest = max(highest, alive)
    return highest


def loss_fn(params: dict[str, torch.Tensor]) -> torch.Tensor:
    return sum((p * p).sum() for p in params.values())


def step_of(params: dict[str, torch.Tensor], **form) -> Callable[[], object]:
    step = fo.make_step(loss_fn, fo.adamw(1e-3), **form)
    held = list(step.init(params))

    def run() -> None:
        held[0], held[1], _ = step(*held)

    return run


def torch_step(params: dict[str, torch.Tensor], **settings) -> Callable[[], object]:
    trained = {name: torch.nn.Parameter(p.clone()) for name, p in params.items()}
    optimizer = torch.optim.AdamW(trained.values(), **settings)

    def run() -> None:
        optimizer.zero_grad()
        loss_fn(trained).backward()
        optimizer.step()

    return run


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--short", action="store_true")
    arguments.add_argument("--json", type=Path)
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    params = {f"p{index}": torch.randn(shape) for index, shape in enumerate(shapes(2_000_000 if chosen.short else 12_000_000))}
    size = sum(p.numel() * p.element_size() for p in params.values())
    forms = {
        "compiled, donated, flat": lambda: step_of(params, compile=True, donate=True, flat=True),
        "compiled, pure, flat": lambda: step_of(params, compile=True, flat=True),
        "eager, donated": lambda: step_of(params, donate=True, flat=False),
        "eager, pure": lambda: step_of(params, flat=False),
        "AdamW(fused=True)": lambda: torch_step(params, fused=True),
        "AdamW(foreach=True)": lambda: torch_step(params, foreach=True),
    }
    shares = {}
    print(f"{size / 2**20:.0f} MB of params; peak of a step beyond params, one gradient and state, in shares of the params")
    for name, make in forms.items():
        run = make()
        run(), run()
        shares[name] = max(0.0, peak(run) / size - 1)
        print(f"  {name:26}{shares[name]:8.3f}")
    reached = shares["compiled, donated, flat"] <= AT_MOST
    print(f"compiled and donated: at most {AT_MOST}, {'reached' if reached else 'not reached'}")
    if chosen.json:
        chosen.json.write_text(json.dumps({"bytes of params": size, "shares": shares}, indent=1))


if __name__ == "__main__":
    main()
