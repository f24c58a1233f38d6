"""What each method holds and takes: bytes of state for each parameter, and the time of a step beside AdamW's.

    python benchmarks/methods.py                    every row of tests/zoo.py; prints the table
    python benchmarks/methods.py --json f           and writes it: docs/measured.json, of which the pages of the reference are made
    python benchmarks/methods.py adam lion          those alone; a file that is there keeps its other rows

A row, with the settings that tests/zoo.py has, and AdamW take eager updates in turns in one process (benchmarks/clock.py), two copies of
each, on a matrix of 512 by 512, a vector of 512 and a number, in float32: one large leaf, so that the arithmetic counts and
not the calls. Compiled steps are another matter: benchmarks/step.py.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import clock
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import funcopt as fo
from tests.zoo import ROWS, Row

# What tests/zoo.py has no rows of (a search's optimizer, and what takes gradients with a batch axis, here of EXAMPLES), and what has
# blocks of two there, of which a large matrix has too many.
MORE = (
    Row("scale_by_shampoo", lambda: fo.scale_by_shampoo(every=2), label="in blocks of the default size"),
    Row("es.clipup", lambda: fo.es.clipup(0.1)),
    Row("dpsgd", lambda: fo.dpsgd(0.1, 1.0, 0.5, seed=0)),
    Row("differentially_private_aggregate", lambda: fo.differentially_private_aggregate(1.0, 0.5, key=0)),
)
EXAMPLES = {"dpsgd": 8, "differentially_private_aggregate": 8}

__all__ = ["bytes_held", "measured_rows", "params"]

SIDE = 512


def params() -> dict[str, torch.Tensor]:
    """What is trained: under the names that rows with groups know."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"b": (SIDE,), "s": (), "w": (SIDE, SIDE)}
    return {name: torch.randn(shape, generator=generator) / SIDE**0.5 for name, shape in shapes.items()}


def gradient(step: int, examples: int | None) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1 + step)
    batch = () if examples is None else (examples,)
    return {name: torch.randn((*batch, *p.shape), generator=generator) for name, p in params().items()}


def measured_rows() -> dict[str, Row]:
    """Of each public name the row that is called like it, else its first."""
    rows: dict[str, Row] = {}
    for row in (*MORE, *ROWS):
        if row.name not in rows or (row.id == row.name and rows[row.name] not in MORE):
            rows[row.name] = row
    return rows


def bytes_held(row: Row) -> float:
    """Bytes of the state for each parameter."""
    of = params()
    return sum(leaf.numel() * leaf.element_size() for leaf in fo.tree.leaves(row.make().init(of))) / fo.tree.size(of)


def stepping(tx: fo.GradientTransformation, extra: Callable[[int], dict], examples: int | None = None) -> Callable[[], None]:
    """A step without arguments, which goes on from where it was."""
    of, gradients = params(), [gradient(step, examples) for step in range(2)]
    held: dict[str, Any] = {"state": tx.init(of), "step": 0}

    def step() -> None:
        _, held["state"] = tx.update(gradients[held["step"] % 2], held["state"], of, **extra(held["step"]))
        held["step"] += 1

    return step


def beside_adamw(row: Row) -> clock.Ratio:
    """The time of an eager update over that of AdamW."""
    contestants = {
        "adamw": lambda: stepping(fo.adamw(1e-3), lambda step: {}),
        "row": lambda: stepping(row.make(), row.extra, EXAMPLES.get(row.name)),
    }
    with contextlib.redirect_stderr(io.StringIO()):  # what takes long to begin is not asked here
        return clock.race(contestants, rounds=15, copies=2, warm=3).ratio("row", "adamw")


def main() -> None:
    arguments = argparse.ArgumentParser(description="bytes of state for each parameter, and the time of a step beside AdamW's")
    arguments.add_argument("names", nargs="*", help="public names; none: all")
    arguments.add_argument("--short", action="store_true", help="only what README names")
    arguments.add_argument("--json", type=Path)
    chosen = arguments.parse_args()
    rows = measured_rows()
    names = chosen.names or (["sgd", "adam", "adamw", "lion", "rmsprop", "pilot", "muon"] if chosen.short else list(rows))
    found = json.loads(chosen.json.read_text(encoding="utf-8"))["rows"] if chosen.names and chosen.json and chosen.json.exists() else {}
    print(f"{clock.heading()}\n{'':32} bytes a parameter   time beside AdamW (two copies)")
    for name in names:
        held, time = bytes_held(rows[name]), beside_adamw(rows[name])
        found[name] = {"bytes": round(held, 3), "time": round(time.value, 2)}
        print(f"{name:32} {held:17.1f}   {time.value:.2f} ({time.low:.2f} to {time.high:.2f})", flush=True)
    if chosen.json:
        lines = ",\n".join(f'    "{name}": {json.dumps(row)}' for name, row in sorted(found.items()))
        chosen.json.write_text(f'{{\n  "with": "{clock.heading()}",\n  "rows": {{\n{lines}\n  }}\n}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
