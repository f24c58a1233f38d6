"""What the controllers cost, as ratios to what they stand on.

    python benchmarks/controllers.py                    every row
    python benchmarks/controllers.py pilot --json f     one row, all numbers into a file
    python benchmarks/controllers.py --rounds 45        steadier

Each row times a few contestants, several copies of each in turns (benchmarks/clock.py), and prints medians and the ratios it is
about beside what they are held to. A row is an entry of ROWS: add one.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import clock
import torch

import funcopt as fo
from funcopt.execute.engines import dynamo

# As in make_step.
OPTIONS = dynamo.OPTIONS


Contestants = dict[str, Callable[[], Callable[[], object]]]  # name -> a function that makes one copy of it


class Ratio(NamedTuple):
    above: str  # a contestant
    below: str  # one or the sum of several, joined by " + "
    at_most: float | None = None  # what the row is held to


class Row(NamedTuple):
    """What is measured.

    contestants: from the number of entries to what makes them.
    ratios: what is printed.
    entries: of the parameters, unless the command line says otherwise.
    copies: of every contestant, likewise; more where the ratio is near 1 and where memory lies makes more than that.
    """

    contestants: Callable[[int], Contestants]
    ratios: tuple[Ratio, ...]
    entries: int = 12_000_000
    copies: int = 3


# --- contestants ----------------------------------------------------------------------------------------------------------------


def gradient(entries: int) -> torch.Tensor:
    return torch.randn(entries, generator=torch.Generator().manual_seed(0))


def params_of(entries: int) -> torch.Tensor:
    return torch.randn(entries, generator=torch.Generator().manual_seed(1))


def compiled_update(tx: fo.GradientTransformation, entries: int) -> Callable[[], None]:
    """`update` and `apply_updates` alone, on one vector, compiled and written in place: an optimizer's step without a model."""
    g, params = gradient(entries), params_of(entries)
    state = tx.init(params)

    def step(g, params, state):
        updates, new_state = tx.update(g, state, params)
        old, new = fo.tree.leaves((params, state)), fo.tree.leaves((fo.apply_updates(params, updates), new_state))
        in_place = [(x, y) for x, y in zip(old, new, strict=True) if x.dim() and x is not y]
        torch._foreach_copy_([x for x, _ in in_place], [y for _, y in in_place])
        return [y for y in new if not y.dim()]

    graph = torch.compile(step, fullgraph=True, dynamic=False, options=OPTIONS)

    def run() -> None:
        nonlocal state
        scalars = iter(graph(g, params, state))
        state = fo.tree.unflatten(state, [x if x.dim() else next(scalars) for x in fo.tree.leaves(state)])

    return run


def compiled_step(tx: fo.GradientTransformation, entries: int, vectors: list[torch.Tensor] | None = None, **extra) -> Callable[[], None]:
    """`make_step` on a loss and a gradient given, compiled and donated; `vectors`: what it runs on, if anybody has been there."""
    g, loss = gradient(entries), torch.ones(())
    step = fo.make_step(clock.GivenGradient.apply, tx, compile=True, donate=True)
    held, state = step.init(params_of(entries))
    if vectors is not None:
        g, held, state = taken_over(vectors, (g, held, state), entries)

    def run() -> None:
        nonlocal held, state
        held, state, _ = step(held, state, g, loss, **extra)

    return run


def taken_over(vectors: list[torch.Tensor], values: tuple, entries: int) -> tuple:
    """`values` with its vectors in place of those it has; the first to come leaves its own."""
    leaves = fo.tree.leaves(values)
    if not vectors:
        vectors += [x for x in leaves if x.numel() == entries]
    lent = iter(vectors)
    return fo.tree.unflatten(values, [next(lent) if x.numel() == entries else x for x in leaves])


def in_one_place(links: dict[str, fo.GradientTransformation], entries: int) -> Contestants:
    """Compiled steps that take turns on the same vectors, copy by copy: where memory lies makes more than some of them differ by."""
    places: list[list[torch.Tensor]] = []

    def maker(tx: fo.GradientTransformation) -> Callable[[], Callable[[], None]]:
        copies = itertools.count()

        def make() -> Callable[[], None]:
            copy = next(copies)
            if copy == len(places):
                places.append([])
            return compiled_step(tx, entries, places[copy])

        return make

    return {name: maker(tx) for name, tx in links.items()}


def torch_step(cls: type[torch.optim.Optimizer], entries: int, **settings) -> Callable[[], object]:
    """A class of torch.optim on one parameter."""
    parameter = torch.nn.Parameter(params_of(entries))
    parameter.grad = gradient(entries)
    return cls([parameter], **settings).step


def bare_pass(entries: int) -> Callable[[], object]:
    """4 logarithms and 4 exponentials per entry, compiled: what PILOT cannot do without."""
    vectors = [torch.rand(entries, generator=torch.Generator().manual_seed(seed)) + 0.5 for seed in range(4)]
    out = torch.empty(entries)
    graph = torch.compile(
        lambda out, vectors: out.copy_(sum((0.5 * x.log()).exp() for x in vectors)), fullgraph=True, dynamic=False, options=OPTIONS
    )
    return lambda: graph(out, vectors)


def pilot(entries: int) -> Contestants:
    return {
        "pilot": lambda: compiled_update(fo.pilot(1e-3), entries),
        "4 logs + 4 exps": lambda: bare_pass(entries),
        "adamw": lambda: compiled_update(fo.adamw(1e-3), entries),
        "torch Adam foreach": lambda: torch_step(torch.optim.Adam, entries, foreach=True),
        "torch Adam fused": lambda: torch_step(torch.optim.Adam, entries, fused=True),
    }


def aees(entries: int) -> Contestants:
    settings = {"lr_candidates": (0.5, 1.0, 2.0), "episode_length": 50, "seed": 0}
    links = {
        "aees(adamw)": fo.aees(fo.adamw(1e-3), **settings),
        "aees(adamw), one graph": fo.aees(fo.adamw(1e-3), **settings, dispatch="select"),
        "adamw": fo.adamw(1e-3),
    }
    return in_one_place(links, entries)


def hundred(make: Callable[[], Callable[[], object]]) -> Callable[[], Callable[[], object]]:
    """A hundred steps for one: the clock is no finer than a microsecond."""

    def made() -> Callable[[], object]:
        step = make()

        def run() -> None:
            for _ in range(100):
                step()

        return run

    return made


def aees_overhead(entries: int) -> Contestants:
    """What a step of aees costs beyond its entries, which at 10 M is less than two copies of one step differ by."""
    return {f"100 x {name}": hundred(make) for name, make in aees(entries).items()}


def adaptive(entries: int) -> Contestants:
    steered = fo.adaptive(fo.adamw, lr=fo.rules.trend(1e-3), weight_decay=1e-4)
    return in_one_place({"adaptive(adamw)": steered, "adamw": fo.adamw(1e-3)}, entries)


def rate(entries: int) -> Contestants:
    """While searching: what holds costs the same, since it goes on looking whether the search has to open again."""
    links = {
        "rate_free(adamw)": fo.rate_free(fo.adamw),
        "find_rate, adamw": fo.chain(fo.find_rate(), fo.adamw(1e-6)),
        "adamw": fo.adamw(1e-3),
    }
    steps: Contestants = {name: lambda tx=tx: compiled_step(tx, entries) for name, tx in links.items()}
    return {**steps, "three sums": lambda: three_sums(entries)}


def three_sums(entries: int) -> Callable[[], object]:
    """One pass over three vectors, compiled: <g, p - b>, |p - b|^2 and |g|^2, which the search cannot size a step without."""
    vectors = [torch.randn(entries, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]

    def sums(g: torch.Tensor, p: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, ...]:
        u = p - b
        return (g * u).sum(), u.double().square().sum(), g.double().square().sum()

    graph = torch.compile(sums, fullgraph=True, dynamic=False, options=OPTIONS)
    return lambda: graph(*vectors)


def roulette(entries: int) -> Contestants:
    """Seven members of one cost, so that it does not matter which is drawn; the draw itself is made once."""
    pool = {f"adam {b1}": fo.Member(fo.scale_by_adam(b1), lr=1e-3) for b1 in (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)}
    wheel = fo.roulette(pool, every=10**9, dispatch="branch", seed=0)
    return {
        "roulette of 7": lambda: compiled_step(fo.chain(wheel, fo.lr_scale()), entries),
        "its member": lambda: compiled_step(fo.chain(fo.scale_by_adam(), fo.lr_scale(1e-3)), entries),
    }


def sentence() -> fo.GradientTransformation:
    pool = {
        "adam": fo.Member(fo.scale_by_adam(), lr=1e-3),
        "momentum": fo.Member(fo.trace(0.9), lr=3e-4),
        "lion": fo.Member(fo.scale_by_lion(), lr=1e-4),
    }
    return fo.chain(fo.agreement_policy(), fo.roulette(pool, every=10**9, seed=0), fo.ucb_episodes(seed=0), fo.lr_scale())


def whole_sentence(entries: int) -> Contestants:
    return {
        "sentence": lambda: compiled_step(sentence(), entries),
        "agreement_policy": lambda: compiled_step(fo.chain(fo.agreement_policy(), fo.lr_scale(1e-3)), entries),
        "adam": lambda: compiled_step(fo.chain(fo.scale_by_adam(), fo.lr_scale(1e-3)), entries),
    }


def eager_update(tx: fo.GradientTransformation, entries: int) -> Callable[[], None]:
    """`update` and `apply_updates` on 4 leaves, a hundred times, as they stand."""
    params = {f"leaf {index}": part for index, part in enumerate(params_of(entries).chunk(4))}
    g = {f"leaf {index}": part for index, part in enumerate(gradient(entries).chunk(4))}
    state, loss = tx.init(params), torch.tensor(1.0)

    def run() -> None:
        nonlocal params, state
        for _ in range(100):
            updates, state = tx.update(g, state, params, loss=loss)
            params = fo.apply_updates(params, updates)

    return run


def eager_sentence(entries: int) -> Contestants:
    return {"100 x sentence": lambda: eager_update(sentence(), entries), "100 x adamw": lambda: eager_update(fo.adamw(1e-3), entries)}


ROWS: dict[str, Row] = {
    "pilot": Row(
        pilot,
        (
            Ratio("pilot", "4 logs + 4 exps", 1.5),
            Ratio("pilot", "torch Adam foreach"),
            Ratio("pilot", "torch Adam fused"),
            Ratio("pilot", "adamw"),
            Ratio("adamw", "torch Adam fused"),
        ),
    ),
    "aees": Row(aees, (Ratio("aees(adamw)", "adamw", 1.03), Ratio("aees(adamw), one graph", "adamw")), 10_000_000, copies=7),
    "aees_overhead": Row(aees_overhead, (Ratio("100 x aees(adamw)", "100 x adamw"),), 1000),
    "adaptive": Row(adaptive, (Ratio("adaptive(adamw)", "adamw", 1.05),), 10_000_000, copies=7),
    "rate": Row(
        rate,
        (Ratio("find_rate, adamw", "adamw", 1.10), Ratio("rate_free(adamw)", "adamw"), Ratio("find_rate, adamw", "adamw + three sums")),
    ),
    "roulette": Row(roulette, (Ratio("roulette of 7", "its member", 1.10),), 10_000_000),
    "sentence": Row(whole_sentence, (Ratio("sentence", "agreement_policy + adam", 1.2),), 10_000_000),
    "eager": Row(eager_sentence, (Ratio("100 x sentence", "100 x adamw", 6.0),), 20_000),
}


# --- the table ------------------------------------------------------------------------------------------------------------------


def report(name: str, row: Row, entries: int, times: clock.Times) -> dict:
    """Prints a row; returns its numbers."""
    medians = {contestant: times.median(contestant) for contestant in times.seconds}
    print(f"\n{name}: {entries:,} entries")
    for contestant, median in medians.items():
        per_entry = f"{median / entries * 1e9:8.2f} ns per entry" if entries >= 10**6 else ""
        print(f"  {contestant:<24} {median * 1e3:9.3f} ms {per_entry}".rstrip())
    ratios = []
    for ratio in row.ratios:
        value, low, high = times.ratio(ratio.above, ratio.below)
        held = "" if ratio.at_most is None else f"   at most {ratio.at_most}" + ("" if value <= ratio.at_most else "   ABOVE")
        print(f"  {ratio.above} / {ratio.below}: {value:.3f} ({low:.3f} to {high:.3f}){held}")
        ratios.append({**ratio._asdict(), "value": value, "low": low, "high": high})
    return {"entries": entries, "seconds": times.seconds, "medians": medians, "ratios": ratios}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="row", help=f"of {', '.join(ROWS)}; all unless given")
    parser.add_argument("--short", action="store_true", help="few rounds, two copies")
    parser.add_argument("--rounds", type=int, help="of every copy; 15, or 5 in the short form")
    parser.add_argument(
        "--copies", type=int, help="of every contestant, for where its memory lies makes some percent; 3 or 7, or 2 in the short form"
    )
    parser.add_argument("--entries", type=int, help="of the parameters, in place of what each row has")
    parser.add_argument("--json", type=Path, help="a file for all numbers")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.rows if name not in ROWS]
    if unknown:
        parser.error(f"rows must be out of {', '.join(ROWS)}, got {', '.join(unknown)}")
    rounds = options.rounds or (5 if options.short else 15)
    print(clock.heading())
    numbers = {}
    for name in options.rows or ROWS:
        row = ROWS[name]
        entries, copies = options.entries or row.entries, options.copies or (2 if options.short else row.copies)
        numbers[name] = report(name, row, entries, clock.race(row.contestants(entries), rounds, copies))
    clock.save(options.json, rows=numbers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
