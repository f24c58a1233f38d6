"""What a step costs, as ratios to torch.optim, optax and TorchOpt.

    python benchmarks/step.py                     every row
    python benchmarks/step.py tiny whole          some
    python benchmarks/step.py --short             every row but the largest, in few rounds
    python benchmarks/step.py --json step.json    all numbers into a file

Contestants take turns, several copies of each (benchmarks/clock.py). All take the same gradients, which are given, but for the
rows of whole steps. "compiled" is `make_step(compile=True, donate=True)` on the flat vector, "ahead" the same with
compile="ahead", "eager" is `tx.update` and `fo.apply_updates` as they stand.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import clock
import torch

import funcopt as fo

Shapes = list[tuple[int, ...]]
Contestants = dict[str, Callable[[], Callable[[], object]]]  # name -> a function that makes one copy of it


class Ratio(NamedTuple):
    above: str
    below: str
    at_most: float | None = None


class Row(NamedTuple):
    """What is measured: `contestants` makes them, `ratios` are printed; a long row is left out of the short form."""

    title: str
    contestants: Callable[[], Contestants]
    ratios: tuple[Ratio, ...]
    long: bool = False
    rounds: int = 25


# --- models, by the shapes of their params --------------------------------------------------------------------------------------


def gpt2_small() -> Shapes:
    width = 768
    layer = [(width,), (width,), (width, 3 * width), (3 * width,), (width, width), (width,)]
    layer += [(width,), (width,), (width, 4 * width), (4 * width,), (4 * width, width), (width,)]
    return [(50257, width), (1024, width), *(12 * layer), (width,), (width,)]


MID: Shapes = 60 * [(512, 384)] + [(384, 512), (512,)]  # 62 tensors, 12 M
MANY: Shapes = 1000 * [(1000,)]
TINY: Shapes = [(64, 64), (64,), (10, 64), (10,)]


def values(shapes: Shapes, seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [0.1 * torch.randn(shape, generator=generator) for shape in shapes]


def named(leaves: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{index:04}": leaf for index, leaf in enumerate(leaves)}


def vector(shapes: Shapes, seed: int) -> torch.Tensor:
    return torch.cat([leaf.reshape(-1) for leaf in values(shapes, seed)])


# --- ours -----------------------------------------------------------------------------------------------------------------------


def compiled(shapes: Shapes, tx: fo.GradientTransformation, engine: bool | str = True) -> Callable[[], None]:
    """A donated step on the vector that `make_step` holds between steps; it must do what `update` does."""
    step = fo.make_step(clock.GivenGradient.apply, tx, compile=engine, donate=True)
    held, state = step.init(vector(shapes, 0))
    g, loss = vector(shapes, 1), torch.ones(())
    updates, _ = tx.update(g, tx.init(held), held)
    expected = fo.apply_updates(held, updates)
    step(held, state, g, loss)
    torch.testing.assert_close(held, expected)

    def run() -> None:
        step(held, state, g, loss)

    return run


def eager(shapes: Shapes, tx: fo.GradientTransformation, flat: bool = False) -> Callable[[], None]:
    params, g = (vector(shapes, 0), vector(shapes, 1)) if flat else (named(values(shapes, 0)), named(values(shapes, 1)))
    state = tx.init(params)

    def run() -> None:
        nonlocal params, state
        updates, state = tx.update(g, state, params)
        params = fo.apply_updates(params, updates)

    return run


# --- peers ----------------------------------------------------------------------------------------------------------------------


def torch_step(shapes: Shapes, cls: type[torch.optim.Optimizer], clip: float | None = None, **settings) -> Callable[[], None]:
    parameters = [torch.nn.Parameter(x) for x in values(shapes, 0)]
    gradients = values(shapes, 1)
    for parameter, g in zip(parameters, gradients, strict=True):
        parameter.grad = g
    optimizer = cls(parameters, **settings)

    def run() -> None:
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()

    return run


def optax_step(shapes: Shapes) -> Callable[[], None]:
    import jax
    import optax

    tx = optax.adamw(1e-3)
    params = [jax.numpy.asarray(x.numpy()) for x in values(shapes, 0)]
    g = [jax.numpy.asarray(x.numpy()) for x in values(shapes, 1)]
    state = tx.init(params)

    def step(params, state, g):
        updates, state = tx.update(g, state, params)
        return optax.apply_updates(params, updates), state

    graph = jax.jit(step, donate_argnums=(0, 1))

    def run() -> None:
        nonlocal params, state
        params, state = graph(params, state, g)
        jax.block_until_ready(params)

    return run


def torchopt_step(shapes: Shapes, method: str, **settings) -> Callable[[], None]:
    import torchopt

    tx = getattr(torchopt, method)(**settings)
    params, g = named(values(shapes, 0)), named(values(shapes, 1))
    state = tx.init(params)

    def run() -> None:
        nonlocal params, state
        updates, state = tx.update(g, state, params=params)
        params = torchopt.apply_updates(params, updates)

    return run


def with_peers(contestants: Contestants, shapes: Shapes) -> Contestants:
    peers: Contestants = {"optax adamw, jit": lambda: optax_step(shapes), "TorchOpt adamw": lambda: torchopt_step(shapes, "adamw", lr=1e-3)}
    there = {"optax": "optax adamw, jit", "torchopt": "TorchOpt adamw"}
    return contestants | {name: peers[name] for package, name in there.items() if importlib.util.find_spec(package)}


# --- rows -----------------------------------------------------------------------------------------------------------------------


def fused(shapes: Shapes) -> Callable[[], Callable[[], object]]:
    return lambda: torch_step(shapes, torch.optim.AdamW, lr=1e-3, fused=True)


def foreach(shapes: Shapes) -> Callable[[], Callable[[], object]]:
    return lambda: torch_step(shapes, torch.optim.AdamW, lr=1e-3, foreach=True)


def mid() -> Contestants:
    ours = {
        "compiled": lambda: compiled(MID, fo.adamw(1e-3)),
        "ahead": lambda: compiled(MID, fo.adamw(1e-3), "ahead"),
        "eager": lambda: eager(MID, fo.adamw(1e-3)),
        "kernel per leaf": lambda: kernel_per_leaf(MID),
    }
    return with_peers({**ours, "AdamW fused": fused(MID), "AdamW foreach": foreach(MID)}, MID)


def large() -> Contestants:
    shapes = gpt2_small()
    return {"compiled": lambda: compiled(shapes, fo.adamw(1e-3)), "AdamW fused": fused(shapes)}


def many() -> Contestants:
    ours = {
        "compiled": lambda: compiled(MANY, fo.adamw(1e-3)),
        "ahead": lambda: compiled(MANY, fo.adamw(1e-3), "ahead"),
        "eager, held flat": lambda: eager(MANY, fo.adamw(1e-3), flat=True),
    }
    return with_peers({**ours, "AdamW fused": fused(MANY), "AdamW foreach": foreach(MANY)}, MANY)


def times(count: int, make: Callable[[], Callable[[], object]]) -> Callable[[], Callable[[], object]]:
    """Small steps, many at a time: the clock is no finer than a microsecond."""

    def made() -> Callable[[], object]:
        step = make()

        def run() -> None:
            for _ in range(count):
                step()

        return run

    return made


def tiny() -> Contestants:
    ours = {
        "compiled": lambda: compiled(TINY, fo.adamw(1e-3)),
        "ahead": lambda: compiled(TINY, fo.adamw(1e-3), "ahead"),
        "eager": lambda: eager(TINY, fo.adamw(1e-3)),
        "eager, held flat": lambda: eager(TINY, fo.adamw(1e-3), flat=True),
        "kernel per leaf": lambda: kernel_per_leaf(TINY),
    }
    return {
        name: times(100, make)
        for name, make in with_peers({**ours, "AdamW fused": fused(TINY), "AdamW foreach": foreach(TINY)}, TINY).items()
    }


def clipped() -> fo.GradientTransformation:
    return fo.chain(fo.clip_by_global_norm(1.0), fo.adamw(1e-3))


def clip_mid() -> Contestants:
    theirs = {"clip + AdamW fused": lambda: torch_step(MID, torch.optim.AdamW, clip=1.0, lr=1e-3, fused=True)}
    return {"compiled": lambda: compiled(MID, clipped()), **theirs}


def clip_tiny() -> Contestants:
    theirs = {"clip + AdamW fused": lambda: torch_step(TINY, torch.optim.AdamW, clip=1.0, lr=1e-3, fused=True)}
    ours = {"compiled": lambda: compiled(TINY, clipped()), "ahead": lambda: compiled(TINY, clipped(), "ahead")}
    return {name: times(100, make) for name, make in {**ours, **theirs}.items()}


def kernel_per_leaf(shapes: Shapes) -> Callable[[], None]:
    """A trial: adamw written out as one function of a leaf, compiled once for every length, called leaf by leaf; not how funcopt runs."""

    def adamw(g, mu, nu, p, c1, c2, lr):
        mu, nu = mu + 0.1 * (g - mu), nu + 0.001 * (g * g - nu)
        return mu, nu, p - lr * ((mu / c1) / ((nu / c2).sqrt() + 1e-8) + 1e-4 * p)

    graph = torch.compile(adamw, dynamic=True, fullgraph=True, options={"size_asserts": False})
    gradients, params = [x.reshape(-1) for x in values(shapes, 1)], [x.reshape(-1) for x in values(shapes, 0)]
    mu, nu = [torch.zeros_like(x) for x in params], [torch.zeros_like(x) for x in params]
    numbers = [torch.tensor(x, dtype=torch.float64) for x in (0.1, 0.001, 1e-3)]

    def run() -> None:
        for index, g in enumerate(gradients):
            mu[index], nu[index], params[index] = graph(g, mu[index], nu[index], params[index], *numbers)

    return run


def sgd(shapes: Shapes, count: int, momentum: float | None) -> Contestants:
    contestants: Contestants = {"compiled": lambda: compiled(shapes, fo.sgd(1e-3, momentum=momentum))}
    if importlib.util.find_spec("torchopt"):
        contestants["TorchOpt sgd"] = lambda: torchopt_step(shapes, "sgd", lr=1e-3, momentum=momentum or 0.0)
    if shapes is MID:
        contestants["one pass"] = lambda: one_pass(shapes, momentum is not None)
    return {name: times(count, make) for name, make in contestants.items()}


def one_pass(shapes: Shapes, remembers: bool) -> Callable[[], object]:
    """What the memory alone costs: what a step reads is read once, what it writes is written once, by the shortest kernels there are."""
    p, g, m = vector(shapes, 0), vector(shapes, 1), vector(shapes, 2)

    def run() -> None:
        if remembers:
            m.copy_(g)  # reads and writes as much as the momentum does
        p.add_(g)

    return run


def whole(widths: tuple[int, ...], rows: int, engines: dict[str, bool | str]) -> Contestants:
    """Forward, backward and AdamW of an MLP on one batch."""
    generator = torch.Generator().manual_seed(2)
    x, y = torch.randn(rows, widths[0], generator=generator), torch.randint(widths[-1], (rows,), generator=generator)

    def module() -> torch.nn.Module:
        layers = [part for a, b in zip(widths, widths[1:], strict=False) for part in (torch.nn.Linear(a, b), torch.nn.ReLU())]
        return torch.nn.Sequential(*layers[:-1])

    def theirs() -> Callable[[], object]:
        model = module()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

        def run() -> None:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()

        return run

    def ours(engine: bool | str) -> Callable[[], object]:
        model = module()

        def loss_fn(params, x, y):
            return torch.nn.functional.cross_entropy(torch.func.functional_call(model, params, (x,)), y)

        step = fo.make_step(loss_fn, fo.adamw(1e-3), compile=engine, donate=True)
        params, state = step.init(dict(model.named_parameters()))
        return lambda: step(params, state, x, y)

    made: Contestants = {name: lambda engine=engine: ours(engine) for name, engine in engines.items()}
    return {name: times(20, make) for name, make in {**made, "module + AdamW fused": theirs}.items()}


TRIAL = Ratio("kernel per leaf", "AdamW foreach")
AHEAD = Ratio("ahead", "AdamW fused")
ADAMW_MID = (
    Ratio("compiled", "AdamW fused", 1.0),
    AHEAD,
    Ratio("eager", "AdamW foreach", 2.0),
    TRIAL,
    Ratio("compiled", "optax adamw, jit", 0.65),
)
ADAMW_MANY = (
    Ratio("compiled", "AdamW fused", 0.15),
    AHEAD,
    Ratio("eager, held flat", "AdamW foreach", 0.5),
    Ratio("compiled", "optax adamw, jit", 0.15),
)
EAGER_TINY = (Ratio("eager", "AdamW foreach", 1.6), Ratio("eager, held flat", "AdamW foreach"), TRIAL)
ADAMW_TINY = (Ratio("compiled", "AdamW fused", 0.8), Ratio("ahead", "AdamW fused", 0.4), *EAGER_TINY)
CLIP = "clip + AdamW fused"
ROWS: dict[str, Row] = {
    "mid": Row("adamw, 12 M in 62 tensors", mid, (*ADAMW_MID, Ratio("compiled", "TorchOpt adamw", 0.2))),
    "large": Row("adamw, 124 M (the shapes of GPT-2 small)", large, (Ratio("compiled", "AdamW fused", 1.0),), long=True, rounds=9),
    "many": Row("adamw, 1000 tensors of 1 k", many, (*ADAMW_MANY, Ratio("compiled", "TorchOpt adamw", 0.2))),
    "tiny": Row(
        "adamw, 5 k in 4 tensors, 100 steps",
        tiny,
        (*ADAMW_TINY, Ratio("compiled", "optax adamw, jit", 0.6), Ratio("compiled", "TorchOpt adamw", 0.2)),
    ),
    "clip": Row("global-norm clipping and adamw, 12 M", clip_mid, (Ratio("compiled", CLIP, 0.85),)),
    "clip_tiny": Row("global-norm clipping and adamw, tiny, 100 steps", clip_tiny, (Ratio("compiled", CLIP, 0.45), Ratio("ahead", CLIP))),
    "sgd": Row("sgd, 12 M", lambda: sgd(MID, 1, None), (Ratio("compiled", "TorchOpt sgd", 0.2), Ratio("compiled", "one pass"))),
    "sgd_momentum": Row(
        "sgd with momentum, 12 M", lambda: sgd(MID, 1, 0.9), (Ratio("compiled", "TorchOpt sgd", 0.2), Ratio("compiled", "one pass"))
    ),
    "sgd_many": Row("sgd with momentum, 1000 tensors of 1 k", lambda: sgd(MANY, 1, 0.9), (Ratio("compiled", "TorchOpt sgd", 0.2),)),
    "whole_tiny": Row(
        "whole step of an MLP 64-64-10, 32 rows, 20 steps",
        lambda: whole((64, 64, 10), 32, {"compiled": True, "ahead": "ahead"}),
        (Ratio("compiled", "module + AdamW fused", 0.55), Ratio("ahead", "module + AdamW fused", 0.2)),
    ),
    "whole_mid": Row(
        "whole step of an MLP 784-512-512-10, 128 rows, 20 steps",
        lambda: whole((784, 512, 512, 10), 128, {"compiled": True}),
        (Ratio("compiled", "module + AdamW fused", 1.0),),
        rounds=9,
    ),
}


def report(row: Row, name: str, rounds: int, copies: int) -> dict:
    contestants = row.contestants()
    ratios = [ratio for ratio in row.ratios if {ratio.above, ratio.below} <= set(contestants)]
    race = clock.race(contestants, rounds, copies)
    print(f"\n{name}: {row.title}")
    for contestant in contestants:
        print(f"  {contestant:<24} {race.median(contestant) * 1e3:10.3f} ms")
    lines = []
    for ratio in ratios:
        value, low, high = race.ratio(ratio.above, ratio.below)
        held = "" if ratio.at_most is None else f"   at most {ratio.at_most}{'' if value <= ratio.at_most else '   ABOVE'}"
        print(f"  {ratio.above} / {ratio.below}: {value:.3f} ({low:.3f} to {high:.3f}){held}", flush=True)
        lines.append({**ratio._asdict(), "value": value, "low": low, "high": high})
    for ratio in row.ratios:
        if ratio not in ratios:
            print(f"  not compared: no {ratio.below}")
    return {"title": row.title, "medians": {c: race.median(c) for c in contestants}, "ratios": lines}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="row", help=f"of {', '.join(ROWS)}; all unless given")
    parser.add_argument("--short", action="store_true", help="few rounds, two copies, no long rows")
    parser.add_argument("--rounds", type=int, help="of every copy, in place of what each row has")
    parser.add_argument("--copies", type=int, help="of every contestant; 3, or 2 in the short form")
    parser.add_argument("--json", type=Path, help="a file for all numbers")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.rows if name not in ROWS]:
        parser.error(f"rows must be out of {', '.join(ROWS)}, got {', '.join(unknown)}")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    print(clock.heading())
    began, numbers = time.perf_counter(), {}
    for name in options.rows or [name for name in ROWS if not (options.short and ROWS[name].long)]:
        rounds = options.rounds or (7 if options.short else ROWS[name].rounds)
        numbers[name] = report(ROWS[name], name, rounds, options.copies or (2 if options.short else 3))
    print(f"\n{time.perf_counter() - began:.0f} s")
    clock.save(options.json, rows=numbers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
