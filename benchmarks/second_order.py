"""What a step of SOAP, Shampoo, PSGD, Muon and of compressed states takes and holds, beside other packages on the same shapes.

    python benchmarks/second_order.py                  0.3 M entries in three matrices and two vectors, refreshed in every tenth step
    python benchmarks/second_order.py --short          20,000 entries
    python benchmarks/second_order.py soap muon        these families alone
    python benchmarks/second_order.py --compiled       with the compiler (many minutes)
    python benchmarks/second_order.py --json f         all numbers into a file

All take turns in one process on one thread with the same gradients. A turn is ten steps, so that each holds one refresh; its
time is CPU seconds over ten, a contestant's the median of its turns. "holds" is the state over the params; "peak" what a
step has alive at once beyond params, gradients and state, over the params too, counted by torch's profiler. Nothing is
compiled: HeavyBall and torchao, which compile by themselves, run their code as it stands. With --compiled they may, and ours
is compiled beside itself. A peer that pip cannot fetch, or that does not run here, has a line that says so.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from memory import peak  # noqa: E402

import funcopt as fo  # noqa: E402
from scripts.references import PACKAGES, available  # noqa: E402

EVERY, LR = 10, 1e-3
Make = Callable[[Any, list[torch.nn.Parameter]], torch.optim.Optimizer]


class Contestant(NamedTuple):
    family: str
    name: str
    module: str  # of whom
    make: Make
    compiled: bool = False


class Row(NamedTuple):
    """What was measured; times in seconds a step, bytes over those of the params. Without numbers: why."""

    contestant: Contestant
    turns: list[float]
    holds: float
    peak: float
    missing: str = ""


def shapes(short: bool) -> list[tuple[int, ...]]:
    side = 64 if short else 256
    return [(side, side), (2 * side, side), (side, 2 * side), (side,), (2 * side,)]


stance = "force_eager"


def ours(transformation: Callable[[], fo.GradientTransformation], compiled: bool = False) -> Make:
    return lambda package, params: fo.torch_optim.Optimizer(params, transformation(), lr=LR, compile=compiled)


def heavyball(name: str, **settings: Any) -> Make:
    def make(package: Any, params: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        if stance == "force_eager":
            package.utils.compile_mode = None
        return getattr(package, name)(params, lr=LR, weight_decay=0.0, **settings)

    return make


def by_rank(package: Any, params: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    groups = [{"params": [p for p in params if (p.dim() > 1) == matrix], "use_muon": matrix} for matrix in (True, False)]
    return package.Muon(groups, lr=LR)


TRANSFORMATIONS: dict[str, dict[str, Callable[[], fo.GradientTransformation]]] = {
    "soap": {"soap": lambda: fo.soap(None, every=EVERY)},
    "shampoo": {
        "shampoo": lambda: fo.shampoo(None, every=EVERY, start=1),
        "shampoo by Newton": lambda: fo.shampoo(None, every=EVERY, start=1, root="newton"),
    },
    "psgd": {"psgd": lambda: fo.psgd(None, every=EVERY)},
    "muon": {"muon": lambda: fo.muon(None), "normuon": lambda: fo.normuon(None), "adamuon": lambda: fo.adamuon(None)},
    "small states": {
        "adamw": lambda: fo.adamw(None),
        "compress_state(adamw, 'bf16')": lambda: fo.compress_state(fo.adamw(None), "bf16", key=0),
        "compress_state(adamw, 'bf16+8')": lambda: fo.compress_state(fo.adamw(None), "bf16+8"),
        "compress_state(adamw, 'int8')": lambda: fo.compress_state(fo.adamw(None), "int8"),
    },
}

SOAP = {"precondition_frequency": EVERY, "merge_dims": False, "use_precond_schedule": False}
PEERS = (
    Contestant("soap", "SOAP", "heavyball", heavyball("SOAP", **SOAP)),
    Contestant("soap", "SOAP(ecc='bf16+8')", "heavyball", heavyball("SOAP", **SOAP, ecc="bf16+8")),
    Contestant("soap", "SOAP", "pytorch_optimizer", lambda po, params: po.SOAP(params, lr=LR, precondition_frequency=EVERY)),
    Contestant(
        "shampoo", "Shampoo, by SVD", "pytorch_optimizer", lambda po, params: po.Shampoo(params, lr=LR, preconditioning_compute_steps=EVERY)
    ),
    Contestant(
        "shampoo",
        "ScalableShampoo, by Newton",
        "pytorch_optimizer",
        lambda po, params: po.ScalableShampoo(
            params, lr=LR, preconditioning_compute_steps=EVERY, start_preconditioning_step=1, block_size=1024
        ),
    ),
    Contestant("psgd", "PSGDKron", "heavyball", heavyball("PSGDKron", preconditioner_update_probability=1 / EVERY)),
    Contestant(
        "psgd", "Kron", "pytorch_optimizer", lambda po, params: po.Kron(params, lr=LR, pre_conditioner_update_probability=1 / EVERY)
    ),
    Contestant(
        "muon",
        "Muon, the matrices alone",
        "torch",
        lambda package, params: package.optim.Muon([p for p in params if p.dim() == 2], lr=LR),
    ),
    Contestant("muon", "Muon", "heavyball", heavyball("Muon")),
    Contestant("muon", "Muon(ecc='bf16+8')", "heavyball", heavyball("Muon", ecc="bf16+8")),
    Contestant("muon", "Muon", "pytorch_optimizer", by_rank),
    Contestant("small states", "AdamW(fused=True)", "torch", lambda package, params: package.optim.AdamW(params, lr=LR, fused=True)),
    Contestant(
        "small states", "AdamW8bit", "torchao", lambda package, params: importlib.import_module("torchao.optim").AdamW8bit(params, lr=LR)
    ),
    Contestant("small states", "AdamW", "heavyball", heavyball("AdamW")),
    Contestant("small states", "AdamW(ecc='bf16+8')", "heavyball", heavyball("AdamW", ecc="bf16+8")),
)


def contestants(families: Iterable[str], compiled: bool) -> list[Contestant]:
    found: list[Contestant] = []
    for family in families:
        for name, transformation in TRANSFORMATIONS[family].items():
            found.append(Contestant(family, name, "funcopt", ours(transformation)))
            if compiled:
                found.append(Contestant(family, f"{name}, compiled", "funcopt", ours(transformation, compiled=True), compiled=True))
        found += [peer for peer in PEERS if peer.family == family]
    return found


def bytes_of(value: Any) -> int:
    """Of the tensors in the state of an optimizer, those that are made of several tensors too."""
    if isinstance(value, Tensor):
        flatten: Any = getattr(value, "__tensor_flatten__", None)
        parts = [] if flatten is None else [getattr(value, name) for name in flatten()[0]]
        return sum(map(bytes_of, parts)) if parts else value.numel() * value.element_size()
    if isinstance(value, dict):
        return sum(map(bytes_of, value.values()))
    if isinstance(value, (list, tuple)):
        return sum(map(bytes_of, value))
    return sum(map(bytes_of, vars(value).values())) if type(value).__module__.startswith("pytorch_optimizer") else 0


class Side:
    """One contestant with params of its own and the gradients that all have."""

    def __init__(self, contestant: Contestant, sizes: list[tuple[int, ...]]):
        generator = torch.Generator().manual_seed(0)
        self.params = [torch.nn.Parameter(0.02 * torch.randn(shape, generator=generator)) for shape in sizes]
        self.optimizer = contestant.make(importlib.import_module(contestant.module), self.params)
        self.generator = torch.Generator().manual_seed(1)

    def step(self) -> float:
        """CPU seconds of a step; gradients are new tensors, since some write into them."""
        for p in self.params:
            p.grad = torch.randn(p.shape, generator=self.generator)
        began = time.process_time()
        self.optimizer.step()
        return time.process_time() - began

    def turn(self) -> float:
        return sum(self.step() for _ in range(EVERY)) / EVERY

    def holds(self) -> float:
        state = {key: value for key, value in self.optimizer.state_dict().items() if key != "param_groups"}
        return bytes_of(state) / sum(p.numel() * p.element_size() for p in self.params)

    def peak(self) -> float:
        """Of one step with a refresh at most; the gradients, which live on, are made before."""
        highest = 0
        for _ in range(EVERY):
            for p in self.params:
                p.grad = torch.randn(p.shape, generator=self.generator)
            highest = max(highest, peak(self.optimizer.step))
        return highest / sum(p.numel() * p.element_size() for p in self.params)


def measured(chosen: list[Contestant], sizes: list[tuple[int, ...]], rounds: int) -> list[Row]:
    sides: dict[int, Side] = {}
    missing: dict[int, str] = {}
    for index, contestant in enumerate(chosen):
        if contestant.module in PACKAGES and not available(contestant.module):
            missing[index] = f"not to be had: {PACKAGES[contestant.module]}"
            continue
        try:
            sides[index] = Side(contestant, sizes)
            sides[index].turn()  # what is made in the first steps
        except Exception as error:  # a peer that does not run here says why, in the table
            if contestant.module == "funcopt":
                raise
            sides.pop(index, None)
            missing[index] = f"does not run here: {type(error).__name__}: {str(error).splitlines()[0][:90] if str(error) else ''}"
    turns: dict[int, list[float]] = {index: [] for index in sides}
    for number in range(rounds):
        for index in sorted(sides, reverse=bool(number % 2)):
            turns[index].append(sides[index].turn())
    rows: list[Row] = []
    for index, contestant in enumerate(chosen):
        if index in missing:
            rows.append(Row(contestant, [], 0.0, 0.0, missing[index]))
        else:
            rows.append(Row(contestant, turns[index], sides[index].holds(), sides[index].peak()))
    return rows


def table(rows: list[Row]) -> Iterable[str]:
    yield f"{'':<33} {'of':<18} {'ms a step':>9}  {'lowest to highest':>18}  {'holds':>6}  {'peak':>5}"
    family = ""
    for row in rows:
        who = row.contestant
        if who.family != family:
            family = who.family
            yield family
        if row.missing:
            yield f"  {who.name:<31} {who.module:<18} {row.missing}"
            continue
        low, middle, high = (1e3 * f(row.turns) for f in (min, statistics.median, max))
        yield f"  {who.name:<31} {who.module:<18} {middle:>9.2f}  {f'{low:.2f} to {high:.2f}':>18}  {row.holds:>6.2f}  {row.peak:>5.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", help=f"beginnings of: {', '.join(TRANSFORMATIONS)}")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    global stance
    stance = "default" if options.compiled else "force_eager"
    torch.compiler.set_stance(stance)
    families = [family for family in TRANSFORMATIONS if not options.families or any(map(family.startswith, options.families))]
    if not families:
        parser.error(f"families must begin one of {', '.join(TRANSFORMATIONS)}, got {' '.join(options.families)}")
    sizes = shapes(options.short)
    rows = measured(contestants(families, options.compiled), sizes, 3 if options.short else options.rounds)
    entries, cut = sum(torch.Size(shape).numel() for shape in sizes) / 1e6, ", ".join("x".join(map(str, shape)) for shape in sizes)
    print(f"torch {torch.__version__}, one thread; {entries:.2f} M entries in {cut}; float32, a refresh in every {EVERY}th step;")
    print(", ".join(PACKAGES[name] for name in ("heavyball", "pytorch_optimizer", "torchao")))
    print(*table(rows), sep="\n")
    if options.json:
        found = [{**row._asdict(), "contestant": row.contestant[:3]} for row in rows]
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
