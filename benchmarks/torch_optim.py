"""What a step of `fo.torch_optim.adamw` costs beside `torch.optim.AdamW`.

    python benchmarks/torch_optim.py                every row
    python benchmarks/torch_optim.py tiny many      some
    python benchmarks/torch_optim.py --short        fewer rounds
    python benchmarks/torch_optim.py --json FILE    and the figures

Contestants take turns, several copies of each (benchmarks/clock.py). "left in place" steps on the parameters as they lie;
"owned" (`flat=True`) moves them into one vector that the optimizer owns.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import clock
import torch

import funcopt as fo

Shapes = list[tuple[int, ...]]


class Row(NamedTuple):
    title: str
    shapes: Shapes
    steps: int  # in one measured turn
    ratios: tuple[tuple[str, str, float | None], ...]  # ours, theirs, at most


OURS = {
    "compiled": {"compile": True, "flat": False},
    "compiled, owned": {"compile": True, "flat": True},
    "compiled, auto": {"compile": True},
    "eager": {},
}
THEIRS = {"fused": {"fused": True}, "foreach": {"foreach": True}}
ROWS = {
    "tiny": Row(
        "4 tensors, 5 k",
        [(64, 64), (64,), (10, 64), (10,)],
        100,
        (("compiled", "fused", 1.3), ("compiled, owned", "fused", 1.3), ("eager", "foreach", 2.0)),
    ),
    "many": Row(
        "1000 tensors of 1 k",
        [(1000,)] * 1000,
        1,
        (("compiled, owned", "fused", 0.5), ("compiled, auto", "fused", None), ("eager", "foreach", 2.0)),
    ),
    "mid": Row(
        "62 tensors, 12 M",
        60 * [(512, 384)] + [(384, 512), (512,)],
        1,
        (("compiled", "fused", 1.0), ("compiled, auto", "fused", 1.0), ("compiled, owned", "fused", None), ("eager", "foreach", 2.0)),
    ),
}


def stepping(make: Callable[..., torch.optim.Optimizer], shapes: Shapes, steps: int, settings: dict) -> Callable[[], Callable[[], object]]:
    def made() -> Callable[[], object]:
        generator = torch.Generator().manual_seed(0)
        params = [torch.nn.Parameter(0.1 * torch.randn(shape, generator=generator)) for shape in shapes]
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer = make(params, lr=1e-3, **settings)

        def run() -> None:
            for _ in range(steps):
                optimizer.step()

        return run

    return made


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="row", help=f"of {', '.join(ROWS)}; all unless given")
    parser.add_argument("--short", action="store_true", help="few rounds, two copies")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--copies", type=int)
    parser.add_argument("--json", type=Path, help="a file for all numbers")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.rows if name not in ROWS]:
        parser.error(f"rows must be out of {', '.join(ROWS)}, got {', '.join(unknown)}")
    rounds, copies = options.rounds or (7 if options.short else 25), options.copies or (2 if options.short else 3)
    print(clock.heading())
    numbers = {}
    for name in options.rows or ROWS:
        row = ROWS[name]
        ours = {label: stepping(fo.torch_optim.adamw, row.shapes, row.steps, OURS[label]) for label, _, _ in row.ratios}
        theirs = {
            label: stepping(torch.optim.AdamW, row.shapes, row.steps, THEIRS[label])
            for label in dict.fromkeys(peer for _, peer, _ in row.ratios)
        }
        times = clock.race({**ours, **theirs}, rounds, copies, warm=4)
        print(f"\n{name}: adamw, {row.title}")
        for label in times.seconds:
            print(f"  {label:<20} {times.median(label) / row.steps * 1e3:10.3f} ms a step")
        lines = []
        for above, below, at_most in row.ratios:
            value, low, high = times.ratio(above, below)
            held = "" if at_most is None else f"   at most {at_most}{'' if value <= at_most else '   ABOVE'}"
            print(f"  {above} / {below}: {value:.2f} ({low:.2f} to {high:.2f}){held}", flush=True)
            lines.append({"above": above, "below": below, "at_most": at_most, "value": value, "low": low, "high": high})
        numbers[name] = {
            "title": row.title,
            "medians": {label: times.median(label) / row.steps for label in times.seconds},
            "ratios": lines,
        }
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"with": clock.heading(), "rows": numbers}, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
