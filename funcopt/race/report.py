"""What a race has found: all numbers, the table, the files.

`results.json` holds everything the table and the picture are made from. A number
that is not finite is written as null, since JSON has no other word for it.
"""

import json
import os
import platform
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from funcopt.race.statistics import paired, spread

__all__ = ["Race", "Run", "align", "plain", "versions", "write_json"]

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

    @property
    def steps(self) -> int:
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

    task: str
    seeds: tuple[int, ...]
    steps: int
    batch_size: int
    baseline: str
    labels: dict[str, Any] = field(default_factory=dict)  # optimizer -> names of its pool's members
    settings: dict[str, Any] = field(default_factory=dict)  # optimizer -> what it was made with, for the record
    runs: dict[str, Run] = field(default_factory=dict)
    stopped_at: dict[str, Any] | None = None  # optimizer and step, if interrupted
    complete: bool = False
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
        rows = self.rows()
        lines = [f"{self.task}: {self.steps} steps of {self.batch_size}, {len(self.seeds)} seeds; mean ± std over seeds"]
        cells = [["", "train loss", "test loss", "train accuracy %", "test accuracy %", "ms / step", "diverged"]]
        for row in rows:
            name = row["optimizer"] + (f" (to step {row['steps']})" if row["steps"] < self.steps else "")
            losses = [_mean_std(row[measure], "{:.4f}") for measure in MEASURES[:2]]
            accuracies = [_mean_std(row[measure], "{:.2f}", 100) for measure in MEASURES[2:]]
            cells.append([name, *losses, *accuracies, f"{row['ms_per_step']:.3f}", f"{row['diverged']} of {len(self.seeds)}"])
        lines += align(cells)
        against = [row for row in rows if "against_baseline" in row]
        if against:
            lines += ["", f"against {self.baseline}, paired by seed: mean difference [95 % interval], p of the paired t-test (not corrected)"]
            cells = [["", "test accuracy, points", "p", "test loss", "p"]]
            for row in against:
                accuracy, loss = (row["against_baseline"][measure] for measure in COMPARED)
                cells.append([row["optimizer"], *_difference(accuracy, "{:+.2f}", 100), *_difference(loss, "{:+.4f}")])
            lines += align(cells)
        lines += ["", "ms / step: processor time per step and seed, all seeds in one vmapped step."]
        if any(row["diverged"] for row in rows):
            lines += ["A seed has diverged when its loss is not finite or ten times the first; it leaves the means."]
        return "\n".join(lines)

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

    def picture(self, out: str | Path) -> Path:
        """Draws `race.png` into `out`."""
        path = Path(out) / "race.png"
        from funcopt import viz

        viz.race(self.as_dict(), path)
        return path

    def where_it_stopped(self, out: str | Path | None) -> str:
        """The sentence for whoever pressed Ctrl-C."""
        stopped = self.stopped_at or {"optimizer": "the set-up", "step": 0}
        done = [name for name in self.runs if name != stopped["optimizer"]]
        where = f"race: interrupted in {stopped['optimizer']} at step {stopped['step']} of {self.steps}; finished: {', '.join(done) or 'none'}."
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


def write_json(path: Path, content: dict[str, Any]) -> Path:
    """Writes next to `path`, then renames: also a process that is killed leaves the old file whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, allow_nan=False), encoding="utf-8")
    os.replace(part, path)
    return path


def _seed_first(values: Tensor) -> list[list[float | int]]:
    return values.T.tolist()


def plain(value: Any) -> Any:
    """Numbers JSON can hold: non-finite ones become None, the others are rounded to what was measured."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if abs(value) < float("inf") else None
    return value


def _mean_std(values: dict[str, float], form: str, factor: float = 1.0) -> str:
    if values["n"] == 0:
        return "-"
    mean = form.format(factor * values["mean"])
    return mean if values["n"] < 2 else f"{mean} ± {form.format(factor * values['std'])}"


def _difference(values: dict[str, float], form: str, factor: float = 1.0) -> tuple[str, str]:
    if values["n"] == 0:
        return "-", "-"
    mean = form.format(factor * values["mean"])
    if values["n"] < 2:
        return mean, "-"
    p = "< 0.001" if values["p"] < 0.001 else f"{values['p']:.3f}"
    return f"{mean} [{form.format(factor * values['low'])}, {form.format(factor * values['high'])}]", p


def align(cells: list[list[str]]) -> list[str]:
    """Rows of equal columns; names to the left, everything else to the right."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip() for row in cells]
