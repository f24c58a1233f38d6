"""What a race has found: all numbers, the table, the files.

`results.json` holds everything the table and the picture are made from. A number
that is not finite is written as null, since JSON has no other word for it.
"""

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from funcopt.race import tables
from funcopt.race.statistics import paired, spread

__all__ = ["Race", "Run", "plain", "versions", "write", "write_json"]

SCHEMA = 1  # of results.json
MEASURES = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")
COMPARED = ("test_accuracy", "test_loss")  # against the baseline
BLOWN_UP = 10.0  # dead units can hold a network that has diverged at a loss of 1e29, which is finite
DIGITS = 7  # significant ones in results.json: what a float32 holds


@dataclass
class Run:
    """One optimizer over all seeds."""

    train_loss: Tensor  # [steps, seeds], of each step's batch, before the step
    evaluated_at: list[int]  # steps done at each evaluation; length points
    evaluations: dict[str, Tensor]  # measure -> [points, seeds]
    signals: dict[str, Tensor]  # word -> [steps, seeds]
    ms_per_step: float  # processor time of a step of all seeds, by seeds; evaluations left out

    @classmethod
    def of(cls, held: Mapping[str, Any]) -> "Run":
        """As `results.json` holds it; null is NaN."""

        def steps_first(rows: list) -> Tensor:
            return torch.tensor([[torch.nan if x is None else x for x in row] for row in rows]).T

        points = dict(held["evaluations"])
        return cls(
            train_loss=steps_first(held["train_loss"]),
            evaluated_at=points.pop("step"),
            evaluations={measure: steps_first(values) for measure, values in points.items()},
            signals={word: steps_first(values) for word, values in held["signals"].items()},
            ms_per_step=torch.nan if held["ms_per_step"] is None else held["ms_per_step"],
        )

    @property
    def steps(self) -> int:
        """Steps that were taken."""
        return len(self.train_loss)

    @property
    def diverged(self) -> Tensor:
        """Which seeds met a loss that is not finite, or ended with `BLOWN_UP` times the loss they began with; bool [seeds]."""
        finite = torch.isfinite(self.train_loss).all(0)
        for values in self.evaluations.values():
            finite = finite & torch.isfinite(values).all(0)
        if "train_loss" not in self.evaluations:
            return ~finite
        first, last = self.evaluations["train_loss"][0], self.evaluations["train_loss"][-1]
        return ~finite | (last > BLOWN_UP * first.abs())

    def final(self, measure: str) -> Tensor:
        """The last evaluation, float64 [seeds]; nan for diverged seeds, and for all if there was none."""
        nan = torch.full(self.train_loss.shape[1:], torch.nan, dtype=torch.float64)
        if measure not in self.evaluations:
            return nan
        return torch.where(self.diverged, nan, self.evaluations[measure][-1].to(torch.float64))


@dataclass
class Race:
    """All optimizers of a race; what `race.run` returns and `results.json` holds."""

    task: str  # its name
    seeds: tuple[int, ...]  # of the runs
    steps: int  # of each run
    batch_size: int  # rows of a step
    baseline: str  # the optimizer that the others are compared with
    labels: dict[str, Any] = field(default_factory=dict)  # optimizer -> names of its pool's members
    settings: dict[str, Any] = field(default_factory=dict)  # optimizer -> what it was made with, for the record
    runs: dict[str, Run] = field(default_factory=dict)  # optimizer -> its runs
    stopped_at: dict[str, Any] | None = None  # optimizer and step, if interrupted
    complete: bool = False  # whether all have ended
    seconds: float = 0.0  # wall time, evaluations and set-up included

    def rows(self) -> list[dict[str, Any]]:
        """The table as data: per optimizer mean, deviation and count of each measure, and the paired differences."""
        rows = []
        for name, run in self.runs.items():
            row: dict[str, Any] = {"optimizer": name, "steps": run.steps}
            row |= {measure: spread(run.final(measure))._asdict() for measure in MEASURES}
            row |= {"ms_per_step": run.ms_per_step, "diverged": int(run.diverged.sum())}
            if name != self.baseline and self.baseline in self.runs:
                base = self.runs[self.baseline]
                row["against_baseline"] = {measure: paired(run.final(measure), base.final(measure))._asdict() for measure in COMPARED}
            rows.append(row)
        return rows

    def table(self) -> str:
        """The table as text: results, then paired differences to the baseline."""
        return tables.text(tables.of(self))

    def as_dict(self) -> dict[str, Any]:
        """What `results.json` holds, as plain lists, numbers and strings."""
        runs = {}
        for name, run in self.runs.items():
            runs[name] = {
                "train_loss": _seed_first(run.train_loss),
                "evaluations": {"step": run.evaluated_at} | {measure: _seed_first(values) for measure, values in run.evaluations.items()},
                "signals": {word: _seed_first(values) for word, values in run.signals.items()},
                "ms_per_step": run.ms_per_step,
                "diverged": run.diverged.tolist(),
            }
        status = "complete" if self.complete else "interrupted" if self.stopped_at else "running"
        names = ("task", "seeds", "steps", "batch_size", "baseline", "labels", "settings", "seconds", "stopped_at")
        return plain(
            {"schema": SCHEMA, "status": status}
            | {name: getattr(self, name) for name in names}
            | {"versions": versions(), "table": self.rows(), "optimizers": runs}
        )

    def write(self, out: str | Path) -> Path:
        """Writes `results.json` into `out` by replacing the file: a reader never sees half of it."""
        return write_json(Path(out) / "results.json", self.as_dict())

    def pages(self, out: str | Path) -> None:
        """Draws `race.png` into `out`, and writes `results.md` and `results.html`, which has the picture in it."""
        from funcopt import viz

        out = Path(out)
        viz.race(self.as_dict(), out / "race.png")
        found = tables.of(self)
        write(out / "results.md", tables.markdown(found, "race.png"))
        write(out / "results.html", tables.html(found, out / "race.png"))

    def where_it_stopped(self, out: str | Path | None) -> str:
        """The sentence for whoever pressed Ctrl-C."""
        stopped = self.stopped_at or {"optimizer": "the set-up", "step": 0}
        done = [name for name in self.runs if name != stopped["optimizer"]]
        where = (
            f"race: interrupted in {stopped['optimizer']} at step {stopped['step']} of {self.steps}; finished: {', '.join(done) or 'none'}."
        )
        return where + (f" What there is: {Path(out) / 'results.json'}" if out is not None and self.runs else "")


def versions() -> dict[str, str]:
    """What the numbers were made with."""
    found = {"python": platform.python_version(), "torch": torch.__version__, "threads": str(torch.get_num_threads())}
    for package in ("funcopt", "scikit-learn", "scipy", "optree", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def write_json(path: Path, content: Mapping[str, Any]) -> Path:
    """A whole file at any time, of numbers that JSON has."""
    return write(path, json.dumps(content, allow_nan=False))


def write(path: Path, text: str) -> Path:
    """Writes next to `path`, then renames: also a process that is killed leaves the old file whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
    return path


def _seed_first(values: Tensor) -> list[list[float | int]]:
    return values.T.tolist()


def plain(value: Any, digits: int = DIGITS) -> Any:
    """Numbers JSON can hold: non-finite ones become None, the others are rounded to what was measured."""
    if isinstance(value, dict):
        return {key: plain(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, digits) for item in value]
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if abs(value) < float("inf") else None
    return value
