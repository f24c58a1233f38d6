"""What a step of `fo.torch_optim.adamw` costs beside `torch.optim.AdamW`, as it is and compiled, and beside HeavyBall's.

    python benchmarks/torch_optim.py                every row
    python benchmarks/torch_optim.py tiny many      some
    python benchmarks/torch_optim.py classes        other classes of torch.optim, their `step` compiled as it stands
    python benchmarks/torch_optim.py --short        fewer rounds, without what compiles for minutes
    python benchmarks/torch_optim.py --json FILE    and the figures

Contestants take turns, several copies of each (benchmarks/clock.py). "compiled" steps on the parameters as they lie, "owned"
(`flat=True`) moves them into one vector that the optimizer owns. "torch.compile" is `torch.compile(opt.step)` of torch's
class. HeavyBall compiles its formulas by itself; "whole" is its `compile_step=True`, "ecc" keeps the moments in bfloat16 with
a correction of 8 bits, which is other arithmetic in 3 of 4 bytes. It frees gradients after a step unless told otherwise, as
it is here. A peer that pip cannot fetch, that does not run here, or whose first steps take more than --patience seconds of CPU
time (they are tried in a process of their own first), has a line that says so.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import clock
import torch

import funcopt as fo

sys.path.append(str(Path(__file__).resolve().parents[1]))
from scripts import references

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
PEERS = ("torch.compile", "HeavyBall", "HeavyBall, whole", "HeavyBall, ecc")
BESIDE = tuple(("compiled, auto", peer, 1.0) for peer in PEERS)
CLASSES = {  # of torch.optim, and what makes the same method of ours
    "SGD": ("sgd", {"momentum": 0.9}),
    "Adam": ("adam", {}),
    "RMSprop": ("rmsprop", {}),
    "NAdam": ("nadam", {}),
    "RAdam": ("radam", {}),
    "Adamax": ("adamax", {}),
    "Adagrad": ("adagrad", {}),
    "Adadelta": ("adadelta", {}),
}
ROWS = {
    "tiny": Row(
        "4 tensors, 5 k",
        [(64, 64), (64,), (10, 64), (10,)],
        100,
        (("compiled", "fused", 1.3), ("compiled, owned", "fused", 1.3), ("eager", "foreach", 2.0), *BESIDE),
    ),
    "many": Row(
        "1000 tensors of 1 k",
        [(1000,)] * 1000,
        1,
        (("compiled, owned", "fused", 0.5), ("compiled, auto", "fused", None), ("eager", "foreach", 2.0), *BESIDE),
    ),
    "mid": Row(
        "62 tensors, 12 M",
        60 * [(512, 384)] + [(384, 512), (512,)],
        1,
        (
            ("compiled", "fused", 1.0),
            ("compiled, auto", "fused", 1.0),
            ("compiled, owned", "fused", None),
            ("eager", "foreach", 2.0),
            *BESIDE,
        ),
    ),
}


def given(shapes: Shapes) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    params = [torch.nn.Parameter(0.1 * torch.randn(shape, generator=generator)) for shape in shapes]
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator)
    return params


def stepping(make: Callable[[list[torch.nn.Parameter]], Callable[[], object]], row: Row) -> Callable[[], Callable[[], object]]:
    """`make` gives what steps on the parameters."""

    def made() -> Callable[[], object]:
        step = make(given(row.shapes))

        def run() -> None:
            for _ in range(row.steps):
                step()

        return run

    return made


def heavyball(params: list[torch.nn.Parameter], **settings) -> Callable[[], object]:
    import heavyball as package

    optimizer = package.AdamW(params, lr=1e-3, betas=(0.9, 0.999), weight_decay=0.01, **settings)
    optimizer.consume_grad = False
    return optimizer.step


def maker(name: str) -> Callable[[list[torch.nn.Parameter]], Callable[[], object]]:
    """What makes a step of adamw."""
    if name in OURS:
        return lambda params: fo.torch_optim.adamw(params, lr=1e-3, **OURS[name]).step
    if name in THEIRS:
        return lambda params: torch.optim.AdamW(params, lr=1e-3, **THEIRS[name]).step
    if name == "torch.compile":
        return lambda params: torch.compile(torch.optim.AdamW(params, lr=1e-3).step)
    settings = {"HeavyBall": {}, "HeavyBall, whole": {"compile_step": True}, "HeavyBall, ecc": {"ecc": "bf16+8"}}[name]
    return lambda params: heavyball(params, **settings)


def tried(row: str, name: str, patience: float) -> str:
    """Why a peer is left out: its first steps, in a process of their own, do not go through in time; "" where they do."""
    if name.startswith("HeavyBall") and not references.available("heavyball"):
        return f"not compared: no {references.PACKAGES['heavyball']}"
    with tempfile.TemporaryFile("w+") as said:
        child = subprocess.Popen([sys.executable, __file__, "--try", row, name], stdout=subprocess.DEVNULL, stderr=said)
        while child.poll() is None:
            if seconds_of(child.pid) > patience:
                child.kill()
                child.wait()
                return f"did not finish its first steps within {patience:.0f} s of CPU time"
            time.sleep(0.2)
        said.seek(0)
        lines = said.read().strip().splitlines() or [""]
    return "" if child.returncode == 0 else f"does not run here: {lines[-1][:120]}"


def seconds_of(pid: int) -> float:
    """CPU seconds of a process and of the compilers that it has called; on systems that do not tell, 0."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return 0.0


def classes(rounds: int, copies: int) -> dict:
    """Every class compiled by torch beside ours, 4 tensors."""
    row, numbers = ROWS["tiny"], {}
    print(f"\nclasses: {row.title}, torch.compile(opt.step) of torch.optim's classes")
    for name, (own, settings) in CLASSES.items():

        def mine(params, own=own, settings=settings):
            return getattr(fo.torch_optim, own)(params, lr=1e-3, compile=True, **settings).step

        def theirs(params, name=name, settings=settings):
            return torch.compile(getattr(torch.optim, name)(params, lr=1e-3, **settings).step)

        torch.compiler.reset()
        race = clock.race({"ours": stepping(mine, row), "torch.compile": stepping(theirs, row)}, rounds, copies, warm=4)
        mine_ms, theirs_ms = (race.median(side) / row.steps * 1e3 for side in ("ours", "torch.compile"))
        ratio = race.ratio("ours", "torch.compile")
        line = f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f}){'' if ratio.value <= 1 else '   ABOVE 1'}"
        print(f"  {name:<10} ours {mine_ms:8.4f} ms, torch.compile {theirs_ms:8.4f} ms a step: {line}", flush=True)
        numbers[name] = {"ours": mine_ms, "torch.compile": theirs_ms, "ratio": ratio._asdict()}
    return numbers


def main(arguments: list[str] | None = None) -> int:
    names = [*ROWS, "classes"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="row", help=f"of {', '.join(names)}; without any {', '.join(ROWS)}")
    parser.add_argument("--short", action="store_true", help="few rounds, two copies, nothing of the peers on 1000 tensors")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--copies", type=int)
    parser.add_argument("--patience", type=float, default=300.0, help="CPU seconds for the first steps of a peer; 300")
    parser.add_argument("--json", type=Path, help="a file for all numbers")
    parser.add_argument("--try", nargs=2, dest="first", metavar=("row", "peer"), help="the first steps of a peer alone")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.rows if name not in names]:
        parser.error(f"rows must be out of {', '.join(names)}, got {', '.join(unknown)}")
    warnings.filterwarnings("ignore")
    rounds, copies = options.rounds or (7 if options.short else 25), options.copies or (2 if options.short else 3)
    torch.set_num_threads(1)
    if options.first:
        row, name = options.first
        references.available("heavyball")
        step = maker(name)(given(ROWS[row].shapes))
        for _ in range(4):
            step()
        return 0
    print(clock.heading())
    numbers = {}
    for name in options.rows or ROWS:
        if name == "classes":
            numbers[name] = classes(rounds, copies)
            continue
        row = ROWS[name]
        print(f"\n{name}: adamw, {row.title}")
        labels = dict.fromkeys(label for ratio in row.ratios for label in ratio[:2])
        left_out = {}
        for label in PEERS:
            if label.startswith("HeavyBall") and "HeavyBall" in left_out:
                why = "left out as well"
            else:
                why = "not compared in the short form" if options.short and name == "many" else tried(name, label, options.patience)
            if why:
                left_out[label] = why
                print(f"  {label:<20} {why}", flush=True)
        times = clock.race({label: stepping(maker(label), row) for label in labels if label not in left_out}, rounds, copies, warm=4)
        for label in times.seconds:
            print(f"  {label:<20} {times.median(label) / row.steps * 1e3:10.3f} ms a step")
        lines = []
        for above, below, at_most in row.ratios:
            if below in left_out:
                continue
            value, low, high = times.ratio(above, below)
            held = "" if at_most is None else f"   at most {at_most}{'' if value <= at_most else '   ABOVE'}"
            print(f"  {above} / {below}: {value:.2f} ({low:.2f} to {high:.2f}){held}", flush=True)
            lines.append({"above": above, "below": below, "at_most": at_most, "value": value, "low": low, "high": high})
        numbers[name] = {
            "title": row.title,
            "medians": {label: times.median(label) / row.steps for label in times.seconds},
            "ratios": lines,
            "left out": left_out,
        }
    clock.save(options.json, rows=numbers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
