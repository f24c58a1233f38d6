"""What a generation costs on R ranks: evaluations, noise, and bytes through the network; the tables of docs/es-distributed.md.

    python benchmarks/es_cost_model.py
    python benchmarks/es_cost_model.py --params 1e9 --popsize 65536 --evaluation 0.5 --bandwidth 25e9

Bytes are exact: tests count them. Seconds are a model, with the figures of `Machine`: what ranks exchange goes round a ring, n bytes
in all in (R - 1) (latency + n / (R bandwidth)); ranks compute alike and wait for nobody else.
"""

import argparse
import json
import math
from pathlib import Path
from typing import NamedTuple

TILE = 8192  # elements of the gradient that one rank sums at a time
RANKS = (1, 10, 100, 1000, 10_000)


class Work(NamedTuple):
    """One generation."""

    name: str
    params: int  # D, float32, in one leaf
    popsize: int  # P, even
    evaluation: float  # seconds of one member on one rank
    chunk_size: int = 2  # members evaluated at once
    objectives: int = 1  # K


class Machine(NamedTuple):
    normal: float = 2.5e-9  # seconds of a normal number (compiled tiles, one core)
    bandwidth: float = 10e9 / 8  # bytes a second of a rank: 10 Gbit/s Ethernet
    latency: float = 20e-6  # seconds of one hop


class Cost(NamedTuple):
    """Of one rank that is as busy as any, for one generation."""

    evaluation: float  # seconds
    noise: float
    network: float
    fitness_bytes: int  # through its connection, in and out alike
    gradient_bytes: int

    @property
    def seconds(self) -> float:
        return self.evaluation + self.noise + self.network


MACHINE = Machine()


def busiest(total: int, size: int, ranks: int) -> int:
    """What the first rank gets of `total`, cut into parts of `size` (the last may be shorter) that are dealt in turn."""
    parts = math.ceil(total / size)
    rounds, beyond = divmod(parts - 1, ranks)
    return (rounds + 1) * size if beyond else total - (parts - 1 - rounds) * size


def cost(work: Work, ranks: int, machine: Machine = MACHINE, replicated: bool = False) -> Cost:
    """The cost of a generation with pairs on `ranks` ranks."""
    pairs = work.popsize // 2
    longest = busiest(pairs, max(1, work.chunk_size // 2), ranks)  # pairs, to whose number the other ranks fill up
    # Of each rank: 4 numbers that tell whether params and key agree, a dtype, and for each pair 2 K of fitness and one that says
    # whether it raised.
    fitness = ranks * 8 * (5 + longest * (2 * work.objectives + 1))
    alone = replicated or ranks == 1
    share = work.params if alone else busiest(work.params, TILE, ranks)  # elements that it sums
    # few tiles: one sum of D numbers round the ring, twice, instead of all parts at one length
    added = not alone and ranks * share > 2 * work.params
    gradient = 0 if alone else 8 * work.params if added else 4 * ranks * share
    drawn = longest * work.params + pairs * share  # once to evaluate, once to sum
    rounds = 1 + (0 if alone else 1 + added)
    network = 0.0 if ranks == 1 else (ranks - 1) * (rounds * machine.latency + (fitness + gradient) / ranks / machine.bandwidth)
    return Cost(2 * longest * work.evaluation, drawn * machine.normal, network, fitness, gradient)


WORKS = (
    Work("a policy in a simulator", params=20_000, popsize=20_000, evaluation=1.0),
    Work("a vision model, 1000 images a member", params=1_000_000, popsize=20_000, evaluation=0.2),
    Work("a language model, one prompt a member", params=1_000_000_000, popsize=20_000, evaluation=10.0),
)


def readable(n: float, unit: str) -> str:
    """Three digits and a prefix: 1.5 MB, 20 ms."""
    prefixes = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, "")) if unit == "B" else ((1.0, ""), (1e-3, "m"), (1e-6, "u"))
    scale, prefix = next(((scale, prefix) for scale, prefix in prefixes if n >= scale), (1.0, ""))
    return f"{n / scale:.0f} {prefix}{unit}" if n >= 100 * scale else f"{n / scale:.3g} {prefix}{unit}"


def table(work: Work, machine: Machine) -> list[str]:
    """Lines of Markdown."""
    title = f"{work.name}: D = {work.params:,}, P = {work.popsize:,}, {work.evaluation:g} s a member"
    lines = [
        f"**{title}**",
        "",
        "| ranks | evaluations a rank | their time | noise | fitness | gradient | network | speedup | replicated |",
        "|" + "---:|" * 9,
    ]
    first = cost(work, 1, machine).seconds
    for ranks in RANKS:
        c, other = cost(work, ranks, machine), cost(work, ranks, machine, replicated=True)
        members = round(c.evaluation / work.evaluation)
        cells = [
            f"{ranks:,}",
            f"{members:,}",
            readable(c.evaluation, "s"),
            readable(c.noise, "s"),
            readable(c.fitness_bytes, "B"),
            readable(c.gradient_bytes, "B"),
        ]
        cells += [readable(c.network, "s"), f"{first / c.seconds:,.0f}", f"{first / other.seconds:,.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--params", type=float, help="of a workload of your own")
    parser.add_argument("--popsize", type=int, default=20_000)
    parser.add_argument("--evaluation", type=float, default=1.0, help="seconds a member")
    parser.add_argument("--chunk-size", type=int, default=2)
    for name, value in Machine()._asdict().items():
        parser.add_argument(f"--{name}", type=float, default=value)
    parser.add_argument("--short", action="store_true", help="the same: it is short")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    options = parser.parse_args(arguments)
    machine = Machine(options.normal, options.bandwidth, options.latency)
    works = WORKS
    if options.params:
        works = (Work("yours", int(options.params), options.popsize, options.evaluation, options.chunk_size),)
    print(f"{machine.normal * 1e9:g} ns a normal number, {machine.bandwidth * 8e-9:g} Gbit/s, {machine.latency * 1e6:g} us a hop\n")
    for work in works:
        print("\n".join([*table(work, machine), ""]))
    if options.json:
        rows = [{"work": work._asdict(), "ranks": ranks, **cost(work, ranks, machine)._asdict()} for work in works for ranks in RANKS]
        options.json.write_text(json.dumps({"machine": machine._asdict(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
