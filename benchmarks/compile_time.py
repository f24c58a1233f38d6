"""How long a step takes to compile: whole, beside its model alone; and a chain held flat against leaf by leaf.

    python benchmarks/compile_time.py                     a model's steps, and chains on 300 leaves (half an hour)
    python benchmarks/compile_time.py steps               the steps alone (five minutes)
    python benchmarks/compile_time.py muon --leaves 60    some chains
    python benchmarks/compile_time.py --json FILE         and the figures

CPU seconds from an empty cache, the C++ compiler's among them, each in a process of its own. Steps: a character transformer of two
blocks (29 leaves), donated: what the first 120 steps have compiled, how many graphs, and how many of them after step 2. Beside
them `torch.compile` of the model's own forward and backward pass. Chains: a first update, donated; there is no loss in it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import clock
import torch

import funcopt as fo
from funcopt.core.random import operation
from funcopt.execute.donation import write_back
from funcopt.execute.engines.dynamo import compiled
from funcopt.execute.layouts.adapt import laid_out, segmented
from funcopt.race.tasks.characters import character_transformer

AT_MOST = 0.1  # for 300 leaves
SHORT = ("adamw", "partition")
STEPS, AT_MOST_MODEL, AT_MOST_ADAMW = "steps", 1.15, 1.3  # adamw over the model alone, the sentence over adamw
TRAINED = 120  # steps

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


def sentence() -> fo.GradientTransformation:
    pool = {
        "adam": fo.Member(fo.scale_by_adam(), lr=1e-3),
        "momentum": fo.Member(fo.trace(0.9), lr=3e-4),
        "lion": fo.Member(fo.scale_by_lion(), lr=1e-4),
    }
    return fo.chain(fo.agreement_policy(), fo.roulette(pool, every=20, seed=0), fo.ucb_episodes(seed=0), fo.lr_scale())


def written_out() -> fo.GradientTransformation:
    """The sentence without the operation that stands for a draw in a graph."""
    operation.serves = lambda key, by, m: False
    return sentence()


WHOLE: dict[str, Callable[[], fo.GradientTransformation] | None] = {
    "model": None,
    "adamw": lambda: fo.adamw(1e-3),
    "sentence": sentence,
    "its draws written out": written_out,
}
OVER = {
    "model": (None, None),
    "adamw": ("model", AT_MOST_MODEL),
    "sentence": ("adamw", AT_MOST_ADAMW),
    "its draws written out": ("adamw", None),
}


def whole(name: str) -> tuple[float, int, int]:
    """CPU seconds of compiling a step, the graphs it has made, and how many of those after the second step; in a process of its own."""
    task = character_transformer(blocks=2)
    params, batches = task.init(fo.random.key(0)), [tuple(x[4 * i : 4 * i + 4] for x in task.data["train"]) for i in range(TRAINED)]
    torch.compile(lambda x: x + 1)(torch.ones(3))  # the compiler's own start
    spent, graphs = [0.0], []
    make = WHOLE[name]

    def timed(run: Callable[[], Any]) -> Any:
        began, before = os.times(), torch._dynamo.utils.counters["stats"]["unique_graphs"]
        result = run()
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"] - before)
        spent[0] += (sum(os.times()[:4]) - sum(began[:4])) if graphs[-1] else 0.0
        return result

    with tempfile.TemporaryDirectory() as folder, torch._inductor.utils.fresh_inductor_cache(dir=folder):
        if make is None:
            leaves, loss = fo.tree.map(lambda p: p.clone().requires_grad_(), params), torch.compile(task.loss)
            timed(lambda: loss(leaves, batches[0]).backward())
        else:
            step = fo.make_step(task.loss, make(), compile=True, donate=True)
            held, state = step.init(params)
            for batch in batches:
                held, state, _ = timed(lambda held=held, state=state, batch=batch: step(held, state, batch))
    return spent[0], sum(graphs), sum(graphs[2:])


def steps() -> dict[str, dict[str, Any]]:
    """The table of whole steps."""
    print("\nCPU seconds to compile a step of a character transformer of two blocks, 29 leaves, nothing cached")
    print(f"  {'':<22} {'seconds':>8} {'graphs':>7} {'after step 2':>13} {'ratio':>8}")
    rows: dict[str, dict[str, Any]] = {}
    for name in WHOLE:
        told = subprocess.run([sys.executable, __file__, "--whole", name], check=True, capture_output=True, text=True).stdout
        taken, graphs, late = json.loads(told.splitlines()[-1])
        over, at_most = OVER[name]
        ratio = None if over is None else taken / rows[over]["seconds"]
        above = "   ABOVE" if ratio is not None and at_most is not None and ratio > at_most else ""
        beside = "" if ratio is None else f"{ratio:>8.2f} of {over}{'' if at_most is None else f', at most {at_most}'}{above}"
        print(f"  {name:<22} {taken:>8.1f} {graphs:>7} {late:>13} {beside}", flush=True)
        rows[name] = {"seconds": taken, "graphs": graphs, "after step 2": late, "at_most": at_most}
    return rows


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="row", help=f"of {STEPS}, {', '.join(ROWS)}; all unless given")
    parser.add_argument("--leaves", type=int, help="300, or 12 in the short form")
    parser.add_argument("--short", action="store_true", help=f"few leaves, {' and '.join(SHORT)} alone")
    parser.add_argument("--json", type=Path, help="a file for all numbers")
    parser.add_argument("--whole", choices=WHOLE, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.whole:
        torch.set_num_threads(1)
        print(json.dumps(whole(options.whole)))
        return 0
    if unknown := [name for name in options.rows if name not in (STEPS, *ROWS)]:
        parser.error(f"rows must be out of {STEPS}, {', '.join(ROWS)}, got {', '.join(unknown)}")
    leaves = options.leaves or (12 if options.short else 300)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    torch.set_num_threads(1)
    print(clock.heading())
    began, numbers = time.perf_counter(), {}
    whole_steps = steps() if STEPS in options.rows or not (options.rows or options.short) else None
    chains = [name for name in options.rows if name != STEPS] or ([] if options.rows else list(SHORT if options.short else ROWS))
    if chains:
        numbers = of_chains(chains, leaves)
    print(f"\n{time.perf_counter() - began:.0f} s")
    clock.save(options.json, steps=whole_steps, rows=numbers)
    return 0


def of_chains(chains: list[str], leaves: int) -> dict[str, Any]:
    """The table of chains."""
    numbers: dict[str, Any] = {}
    seconds(ROWS["adamw"](), layers(4), flat=True)  # the compiler's own start
    print(f"\nCPU seconds to compile an update of {leaves} leaves, nothing cached")
    print(f"  {'':<10} {'flat':>7} {'leaf by leaf':>14} {'ratio':>8}")
    for name in chains:
        flat, leafwise = (seconds(ROWS[name](), layers(leaves), flat=form) for form in (True, False))
        above = "   ABOVE" if leaves >= 300 and flat > AT_MOST * leafwise else ""
        print(f"  {name:<10} {flat:>7.1f} {leafwise:>14.1f} {flat / leafwise:>8.3f}{above}", flush=True)
        numbers[name] = {"leaves": leaves, "flat": flat, "leafwise": leafwise, "at_most": AT_MOST if leaves >= 300 else None}
    return numbers


if __name__ == "__main__":
    sys.exit(main())
