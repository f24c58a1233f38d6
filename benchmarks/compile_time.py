"""How long a chain takes to compile: held flat against leaf by leaf.

    python benchmarks/compile_time.py                     300 leaves, all rows (half an hour)
    python benchmarks/compile_time.py muon --leaves 60    some
    python benchmarks/compile_time.py --json FILE         and the figures

CPU seconds of a first update, donated, from an empty cache, the C++ compiler's among them. There is no loss: it is compiled
beside the chain, whatever the form.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import clock
import torch

import funcopt as fo
from funcopt.execute.donation import write_back
from funcopt.execute.engines.dynamo import compiled
from funcopt.execute.layouts.adapt import laid_out, segmented

AT_MOST = 0.1  # for 300 leaves
SHORT = ("adamw", "partition")

ROWS: dict[str, Callable[[], fo.GradientTransformation]] = {
    "adamw": lambda: fo.chain(fo.clip_by_global_norm(1.0), fo.adamw(1e-3)),
    "masked": lambda: fo.adamw(1e-3, weight_decay_mask="*.weight"),
    "partition": lambda: fo.partition({"*.bias": fo.sgd(1e-2, momentum=0.9), "*": fo.adamw(1e-3)}, by="path"),
    "lamb": lambda: fo.lamb(1e-3),
    "muon": lambda: fo.muon(1e-3),
}


def layers(leaves: int) -> fo.TensorTree:
    """Three layers again and again, each a matrix and a vector."""
    generator = torch.Generator().manual_seed(0)
    widths = ((16, 16), (32, 16), (16, 32))

    def leaf(index: int) -> torch.Tensor:
        shape = widths[index // 2 % 3]
        return torch.randn(shape if index % 2 == 0 else shape[:1], generator=generator)

    return {f"layer{index // 2:03d}": {"weight": leaf(index), "bias": leaf(index + 1)} for index in range(0, leaves, 2)}


def seconds(tx: fo.GradientTransformation, params: fo.TensorTree, flat: bool) -> float:
    """Of the first update of a chain."""
    torch._dynamo.reset()
    if flat:
        layout = laid_out(tx, params)
        tx, params = segmented(tx, layout, params), layout.ravel(params)

    def step(params, state, gradients):
        updates, new = tx.update(gradients, state, params)
        return write_back((params, state), (fo.apply_updates(params, updates), new))

    graph, state, gradients = compiled(step, "a chain"), fo.tree.clone(tx.init(params)), fo.tree.ones_like(params)
    began = os.times()
    with tempfile.TemporaryDirectory() as folder, torch._inductor.utils.fresh_inductor_cache(dir=folder):
        graph(params, state, gradients)
    ended = os.times()
    return sum(ended[:4]) - sum(began[:4])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="row", help=f"of {', '.join(ROWS)}; all unless given")
    parser.add_argument("--leaves", type=int, help="300, or 12 in the short form")
    parser.add_argument("--short", action="store_true", help=f"few leaves, {' and '.join(SHORT)} alone")
    parser.add_argument("--json", type=Path, help="a file for all numbers")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.rows if name not in ROWS]:
        parser.error(f"rows must be out of {', '.join(ROWS)}, got {', '.join(unknown)}")
    leaves = options.leaves or (12 if options.short else 300)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    torch.set_num_threads(1)
    print(clock.heading())
    began, numbers = time.perf_counter(), {}
    seconds(ROWS["adamw"](), layers(4), flat=True)  # the compiler's own start
    print(f"\nCPU seconds to compile an update of {leaves} leaves, nothing cached")
    print(f"  {'':<10} {'flat':>7} {'leaf by leaf':>14} {'ratio':>8}")
    for name in options.rows or (SHORT if options.short else ROWS):
        flat, leafwise = (seconds(ROWS[name](), layers(leaves), flat=form) for form in (True, False))
        above = "   ABOVE" if leaves >= 300 and flat > AT_MOST * leafwise else ""
        print(f"  {name:<10} {flat:>7.1f} {leafwise:>14.1f} {flat / leafwise:>8.3f}{above}", flush=True)
        numbers[name] = {"leaves": leaves, "flat": flat, "leafwise": leafwise, "at_most": AT_MOST if leaves >= 300 else None}
    print(f"\n{time.perf_counter() - began:.0f} s")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"with": clock.heading(), "rows": numbers}, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
