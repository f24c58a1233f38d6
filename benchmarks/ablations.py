"""What a step would cost without the things that make it cheap, one at a time.

    python benchmarks/ablations.py               every row
    python benchmarks/ablations.py guards        some
    python benchmarks/ablations.py --json FILE   and the figures

The step as it is and the step without one of them take turns (benchmarks/clock.py); each is compiled anew, with nothing cached.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import clock
import compile_time
import population
import step as steps
import torch

import funcopt as fo
from funcopt.core import moments
from funcopt.execute import policy, runner
from funcopt.execute.engines import dynamo
from funcopt.execute.engines.passes import narrow_matmul, once
from funcopt.execute.layouts.adapt import laid_out, segmented
from funcopt.optimizers import adam
from funcopt.torch_optim import units


class Without(NamedTuple):
    """A step, and what is taken from it: name -> targets of `mock.patch.object`."""

    title: str
    make: Callable[[], Callable[[], object]]
    taken: dict[str, list[tuple[Any, str, Any]]]
    calls: int  # in one turn


def asking_everything(entries: list) -> list[bool]:
    return [True] * len(entries)


def told_that_sizes_are_fixed(f: Callable, name: str, options: dict | None = None, dynamic: bool | None = False) -> Callable:
    return dynamo.compiled(f, name, options, dynamic=False)


def dividing(leaves, count, b1, b2, eps, eps_root=0.0, nesterov=False, *, correct_eps=False) -> Callable:
    """m^ / (sqrt(v^) + eps) as it is written: three divisions an entry."""
    c1, c2 = moments.bias_correction(count, b1, b2).unbind()
    return lambda g, mu, nu: (mu / c1) / (moments.safe_sqrt(nu / c2) + eps)


def leaf_by_leaf(tx: fo.GradientTransformation) -> Callable[[], None]:
    """A donated step that keeps the leaves of 12 M as they are."""

    def given(params, gradients, loss):
        return sum(clock.GivenGradient.apply(params[name], gradients[name], loss) for name in params)

    step = fo.make_step(given, tx, compile=True, donate=True, flat=False)
    held, state = step.init(steps.named(steps.values(steps.MID, 0)))
    g, loss = steps.named(steps.values(steps.MID, 1)), torch.ones(())
    return lambda: step(held, state, g, loss)


def shim() -> Callable[[], None]:
    """A step of a torch optimizer on parameters that lie where they lie."""
    params = [torch.nn.Parameter(x) for x in steps.values(steps.MID, 0)]
    for p, g in zip(params, steps.values(steps.MID, 1), strict=True):
        p.grad = g
    return fo.torch_optim.adamw(params, lr=1e-3, compile=True, flat=False).step


SMALL = 50 * [(32, 32), (32,)]


def small_leaves(flat: bool = True) -> Callable[[], None]:
    """An eager update of a hundred leaves of two shapes by a method that looks at each leaf."""
    tx, params, gradients = fo.lamb(1e-3), steps.named(steps.values(SMALL, 0)), steps.named(steps.values(SMALL, 1))
    if flat:
        layout = laid_out(tx, params)
        tx, params, gradients = segmented(tx, layout, params), layout.ravel(params), layout.ravel(gradients)
    state = tx.init(params)
    return lambda: tx.update(gradients, state, params)


def sentence(entries: int) -> Callable[[], object]:
    """A donated step of `compile_time.sentence` on one vector, whose gradient is given."""
    step = fo.make_step(clock.GivenGradient.apply, compile_time.sentence(), compile=True, donate=True)
    held, state = step.init(steps.vector(((entries,),), 0))
    g, loss = steps.vector(((entries,),), 1), torch.ones(())
    return lambda: step(held, state, g, loss)


PLANNED = ("a graph for each plan", 0)
ROWS = {
    "guards": Without(
        "a tiny compiled step",
        lambda: steps.compiled(steps.TINY, fo.adamw(1e-3)),
        {
            "every guard is asked": [(dynamo, "guards_worth_having", asking_everything)],
            "sizes are said to be fixed": [(runner, "compiled", told_that_sizes_are_fixed)],
        },
        100,
    ),
    "divisions": Without(
        "adamw, 12 M, one vector",
        lambda: steps.compiled(steps.MID, fo.adamw(1e-3)),
        {"three divisions an entry": [(adam, "corrected_ratio", dividing)]},
        1,
    ),
    "narrow": Without(
        "ten steps of 64 networks of width 8",
        lambda: population.one_step(8, 64),
        {
            "narrow products stay": [(narrow_matmul, "turn_narrow", lambda graph: 0)],
            "what products read is worked out again": [(once, "keep_factors", lambda graph: 0)],
        },
        1,
    ),
    "fusion": Without(
        "adamw, 12 M in 62 tensors, leaf by leaf",
        lambda: leaf_by_leaf(fo.adamw(1e-3)),
        {"sixteen leaves a loop": [(dynamo, "OPTIONS", {**dynamo.OPTIONS, "cpp.max_horizontal_fusion_size": 16})]},
        1,
    ),
    "spread": Without(
        "fo.torch_optim.adamw, compiled, 12 M in 62 tensors",
        shim,
        {"all leaves of the state at one line of a page": [(units, "spread", lambda leaf, place: leaf)]},
        1,
    ),
    "flat": Without(
        "sgd with momentum, 12 M, one vector",
        lambda: steps.compiled(steps.MID, fo.sgd(1e-3, momentum=0.9)),
        {"leaf by leaf": [(steps, "compiled", lambda shapes, tx: leaf_by_leaf(tx))]},
        1,
    ),
    **{
        f"plans_{entries}": Without(
            f"the sentence with three members, {entries:,} entries",
            functools.partial(sentence, entries),
            {other: [(policy, "CHOSEN_BYTES", bound)]},
            10,
        )
        for entries, other, bound in ((1_000, *PLANNED), (30_000, *PLANNED), (100_000, "one graph", 2**40))
    },
    **{
        row: Without(title, make, {"stacks of numbers stay": [(once, "take_apart", lambda graph: 0)]}, calls)
        for row, title, make, calls in (
            ("numbers", "a tiny compiled step", lambda: steps.compiled(steps.TINY, fo.adamw(1e-3)), 100),
            ("numbers_1000", "the sentence with three members, 1,000 entries", lambda: sentence(1_000), 10),
        )
    },
    "shapes": Without(
        "lamb, eager, 100 leaves of two shapes, held flat",
        lambda: small_leaves(),
        {"leaf by leaf": [(sys.modules[__name__], "small_leaves", functools.partial(small_leaves, flat=False))]},
        10,
    ),
}


@contextlib.contextmanager
def without(patches: list[tuple[Any, str, Any]]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for target, name, other in patches:
            stack.enter_context(mock.patch.object(target, name, other))
        stack.enter_context(torch.compiler.config.patch(force_disable_caches=True))  # which cannot tell a pass from what is patched in it
        yield


def made(row: Without, patches: list[tuple[Any, str, Any]]) -> Callable[[], Callable[[], object]]:
    def make() -> Callable[[], object]:
        with without(patches):
            run = row.make()
            run()

        def turn() -> None:
            for _ in range(row.calls):
                run()

        return turn

    return make


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="row", help=f"of {', '.join(ROWS)}; all unless given")
    parser.add_argument("--short", action="store_true", help="few rounds, two copies")
    parser.add_argument("--copies", type=int, default=2, help="of every step; 2")
    parser.add_argument("--json", type=Path, help="a file for all numbers")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.rows if name not in ROWS]:
        parser.error(f"rows must be out of {', '.join(ROWS)}, got {', '.join(unknown)}")
    print(clock.heading())
    numbers = {}
    for name in options.rows or ROWS:
        row = ROWS[name]
        contestants = {"as it is": made(row, []), **{label: made(row, patches) for label, patches in row.taken.items()}}
        times = clock.race(contestants, 7 if options.short else 25, options.copies)
        print(f"\n{name}: {row.title}")
        lines = {}
        for label in contestants:
            value, low, high = times.ratio(label, "as it is")
            print(f"  {label:<28} {1e3 * times.median(label):9.3f} ms   {value:.2f} ({low:.2f} to {high:.2f})", flush=True)
            lines[label] = {"seconds": times.median(label), "ratio": value, "low": low, "high": high}
        numbers[name] = {"title": row.title, "ratios": lines}
    clock.save(options.json, rows=numbers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
