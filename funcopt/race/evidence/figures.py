"""The pictures of the evidence: the measure against the rate over five decades, and over the run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from funcopt import viz
from funcopt.race.evidence import verdicts
from funcopt.race.evidence.methods import BAR

__all__ = ["curves", "rates"]

SHOWN = ("adamw", "adamw, cosine", "rate_free", "schedule-free", "prodigy", "dog", "sentence+find")
Tasks = Mapping[str, Mapping[str, Any]]


def rates(tasks: Tasks, path: Path) -> Path:
    """For each task the test measure, step picked, against the constant rate of AdamW and against the start of `rate_free`."""

    def line(task: Mapping[str, Any], name: str) -> tuple[list[float], np.ndarray]:
        at = task["methods"][name]["rates"]
        return at, np.array([verdicts.values(task, name, "picked", rate=i) for i in range(len(at))]).T

    return _drawn(tasks, path, ("adamw", "rate_free"), line, "picked", "rate, or start", logarithmic=True)


def curves(tasks: Tasks, path: Path) -> Path:
    """For each task the test measure over the run: the two that are tuned, what finds its rate, and the sentence."""

    def line(task: Mapping[str, Any], name: str) -> tuple[list[float], np.ndarray]:
        result = task["methods"][name]
        return result["at"], np.array(result["curve"][result["picks"]["end"]], dtype=float)

    return _drawn(tasks, path, SHOWN, line, "end", "step", bands=False)


def _drawn(tasks: Tasks, path: Path, names: tuple[str, ...], line, ending: str, below: str, **settings) -> Path:
    shown = []
    for key, task in tasks.items():
        if all(name in task["methods"] for name in BAR):
            level = float(np.mean(verdicts.values(task, verdicts.bar(task, ending), ending)))
            lines = {name: line(task, name) for name in names if name in task["methods"]}
            shown.append(viz.Panel(f"{key}: {task['measure']}", lines, level, below))
    viz.panels(shown, path, **settings)
    return path
