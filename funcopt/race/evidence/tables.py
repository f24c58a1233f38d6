"""The tables of the evidence, as rows of cells."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from funcopt.race.evidence import verdicts
from funcopt.race.evidence.methods import BAR, METHODS, OURS_DECAYS, RIVALS
from funcopt.race.evidence.protocol import ENDINGS, TUNED
from funcopt.race.statistics import Paired

__all__ = ["CONTROLLERS", "FREE", "WORDS", "methods", "percent", "starts", "times", "training"]

WORDS = {"picked": "step picked on validation", "end": "end of the run"}
FREE = ("rate_free", "rate_free(adamw)", OURS_DECAYS, *RIVALS, "adamw, averaged", "schedule-free, tuned")
CONTROLLERS = tuple(name for name in METHODS if name.split("+")[0] in ("sentence", "pilot", "aees", "roulette", "adaptive"))

Tasks = Mapping[str, Mapping[str, Any]]


def starts(tasks: Tasks, ending: str) -> list[list[str]]:
    """One row a task: the bar, then the excess of `rate_free` from each start; of the default with its interval."""
    ready = {key: task for key, task in tasks.items() if "rate_free" in task["methods"] and all(name in task["methods"] for name in BAR)}
    if not ready:
        return [["task"]]
    first = next(iter(ready.values()))["methods"]["rate_free"]
    default = first["picks"]["end"]
    head = [f"{start:g}{' (default)' if i == default else ''}" for i, start in enumerate(first["rates"])]
    cells = [["task", "measure", "the bar", *head]]
    for key, task in ready.items():
        found = [verdicts.against(task, "rate_free", ending, rate=i) for i in range(len(first["rates"]))]
        cells.append(
            [
                key,
                task["measure"],
                _bar(task, ending),
                *(interval(each) if i == default else percent(each.mean) for i, each in enumerate(found)),
            ]
        )
    return cells


def methods(tasks: Tasks, names: Sequence[str], ending: str, baseline: str | None = None) -> list[list[str]]:
    """One row a task, one column a method: its excess with interval."""
    ready = {key: task for key, task in tasks.items() if all(name in task["methods"] for name in BAR)}
    names = [name for name in names if any(name in task["methods"] for task in ready.values())]
    cells = [[WORDS[ending], *names]]
    for key, task in ready.items():
        cells.append(
            [key, *(interval(verdicts.against(task, name, ending, baseline)) if name in task["methods"] else "" for name in names)]
        )
    return cells


def training(tasks: Tasks) -> list[list[str]]:
    """Mean loss of the batches before the step picked, and of the last ones, of the bar and of `rate_free`."""
    names = [*BAR, "rate_free"]
    cells = [["task", *(f"{name}: {ending}" for name in names for ending in ENDINGS)]]
    for key, task in tasks.items():
        ends = [(name, ending) for name in names for ending in ENDINGS]
        cells.append(
            [key, *(_mean(verdicts.values(task, name, ending, word="train")) if name in task["methods"] else "" for name, ending in ends)]
        )
    return cells


def times(tasks: Tasks) -> list[list[str]]:
    """Median steps to the target and how many seeds get there."""
    names = [name for name in (*BAR, *FREE, "sentence+find") if any(name in task["methods"] for task in tasks.values())]
    cells = [["task", *names]]
    for key, task in tasks.items():
        if all(name in task["methods"] for name in BAR):
            cells.append([key, *(_time(task, name) if name in task["methods"] else "" for name in names)])
    return cells


def percent(value: float) -> str:
    return "diverged" if math.isinf(value) else f"{value:+.1f}"


def interval(found: Paired) -> str:
    """Mean and interval, in per cent."""
    if math.isinf(found.mean) or math.isnan(found.low):
        return percent(found.mean)
    return f"{found.mean:+.1f} [{found.low:+.1f}, {found.high:+.1f}]"


def _bar(task: Mapping[str, Any], ending: str) -> str:
    name = verdicts.bar(task, ending)
    result = task["methods"][name]
    rate = result["rates"][result["picks"][ending]]
    edge = "*" if rate in (TUNED[0], TUNED[-1]) else ""
    return f"{_mean(verdicts.values(task, name, ending))} ({name.replace('adamw, ', '') if ', ' in name else 'constant'}, {rate:g}{edge})"


def _mean(values: Sequence[float]) -> str:
    mean = sum(values) / len(values)
    return "diverged" if math.isnan(mean) else f"{mean:.3g}"


def _time(task: Mapping[str, Any], name: str) -> str:
    steps, there = verdicts.target(task, name)
    return f"{'never' if math.isinf(steps) else f'{steps:g}'} ({there} of {len(task['seeds'])})"
