"""Choosing learning rates: for every method the same rates, seeds and steps, on data that the race does not test on.

The candidates are one logarithmic grid for all methods, so that nobody's range was
guessed better than another's. The rate scales a whole method; in a pool, every
member's. All candidates of a method train from all tuning seeds at once, as
lanes of one vmapped step. The test is put away: what decides is the split "validation" of
the task, which is not trained on; the accuracy there, or the loss where the task is told
in losses. The lowest rate wins whose mean is within one standard error of the best (Breiman,
Friedman, Olshen and Stone, 1984): the best itself is one of several that a few seeds do not
tell apart, and often the last before training becomes unstable.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from funcopt.race.progress import Progress
from funcopt.race.report import plain, versions, write_json
from funcopt.race.tables import align
from funcopt.race.tasks import Task
from funcopt.race.training import Log, seed_keys, sizes, streams, train

__all__ = ["HALF_DECADES", "RATES", "SEEDS", "table", "tune"]

RATES = tuple(float(f"{10 ** (exponent / 3):.2g}") for exponent in range(-12, 1))  # 1e-4, 2.2e-4, 4.6e-4, ... 1
HALF_DECADES = (1e-4, 3.2e-4, 1e-3, 3.2e-3, 1e-2, 3.2e-2, 1e-1)
SEEDS = (1000, 1001, 1002, 1003, 1004)  # the race counts its seeds from 0


def tune(
    task: Task,
    methods: Mapping[str, Callable],
    *,
    rates: Sequence[float] = RATES,
    seeds: Sequence[int] = SEEDS,
    steps: int | None = None,
    batch_size: int | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Tries every rate from every seed for every method.

    Args:
        task: one with a split "validation": `digits_mlp(validation=True)`, `task_named("deep")`.
        methods: name -> `(rate, seed) -> transformation`; both are tensors.
        rates: the candidates, the same for all.
        seeds: other ones than those of the race.
        steps, batch_size: as in the race.
        out: directory for `tune.json`, written after every method. `None`: nowhere.
        resume: takes what `tune.json` of the same search holds already.
        progress: a bar per method, or a line where there is no terminal.

    Returns:
        What `tune.json` holds: the set-up, and per method the rate that won, the mean
        held-out accuracy and loss of every rate (None where a seed did not finish), and
        the standard error of the best.

    Raises:
        ValueError: the task has no split "validation"; `steps` or `batch_size` is out of range.
    """
    steps, batch_size = sizes("race.tune", task, steps, batch_size)
    if "validation" not in task.data:
        raise ValueError(
            f"race.tune: the task must have a split 'validation', got {', '.join(task.data)}; race.task(validation=...) gives it one"
        )
    lane_keys = seed_keys(seeds, task).repeat(len(rates), 1)  # rate-major: lane = rate * seeds + seed
    lane_rates = torch.tensor(rates, dtype=torch.float64, device=lane_keys.device).repeat_interleave(len(seeds))
    setup = {
        "task": task.name,
        "measure": task.measure,
        "rates": list(rates),
        "seeds": list(seeds),
        "steps": steps,
        "batch_size": batch_size,
    }
    found: dict[str, Any] = {**setup, "versions": versions(), "methods": {}}
    if resume and out is not None and (Path(out) / "tune.json").exists():
        held = json.loads((Path(out) / "tune.json").read_text(encoding="utf-8"))
        if all(held.get(key) == value for key, value in plain(setup).items()):
            found["methods"] = held["methods"]
    for name, make in methods.items():
        if name in found["methods"]:
            continue
        log = Log()
        shown = Progress(name, steps, progress)
        for standing in train(
            task,
            make,
            {"rate": lane_rates, "seed": streams(lane_keys).seed},
            lane_keys,
            log,
            steps=steps,
            batch_size=batch_size,
            splits=("train", "validation"),
            words=False,
        ):
            shown.at(log.steps, standing)
        shown.close()
        run = log.as_run()
        accuracies, losses = (run.final(measure).reshape(len(rates), len(seeds)) for measure in ("validation_accuracy", "validation_loss"))
        winner, error = lowest_of_the_best(accuracies if task.measure == "error" else -losses)
        found["methods"][name] = {
            "rate": rates[winner],
            "at_the_edge": winner in (0, len(rates) - 1),
            "accuracy": accuracies.mean(1).tolist(),
            "loss": losses.mean(1).tolist(),
            "error": error,
        }
        if out is not None:
            write_json(Path(out) / "tune.json", plain(found))
    return plain(found)


def lowest_of_the_best(scores: torch.Tensor) -> tuple[int, float]:
    """The first row of [rates, seeds] whose mean is within one standard error of the best mean, and that error.

    A rate counts only if all its seeds finished: a row with a NaN is none of the best.
    """
    means = scores.mean(1).nan_to_num(-math.inf)
    best = int(means.argmax())
    error = float(scores[best].std() / scores.shape[1] ** 0.5) if scores.shape[1] > 1 else 0.0
    error = 0.0 if math.isnan(error) else error
    return int((means >= means[best] - error).int().argmax()), error


def table(found: Mapping[str, Any]) -> str:
    """Held-out accuracy in percent, or loss, a row per method, a column per rate; the winner has a star, "error" is that of the best."""
    column, factor, form, word = ("accuracy", 100, "{:.2f}", "accuracy %") if found["measure"] == "error" else ("loss", 1, "{:.4f}", "loss")
    cells = [["", *(f"{rate:g}" for rate in found["rates"]), "error", "rate"]]
    for name, method in found["methods"].items():
        best = found["rates"].index(method["rate"])
        numbers = [
            "-" if value is None else f"{form.format(factor * value)}{'*' if i == best else ' '}" for i, value in enumerate(method[column])
        ]
        edge = " (edge of the grid)" if method["at_the_edge"] else ""
        cells.append([name, *numbers, form.format(factor * method["error"]), f"{method['rate']:g}{edge}"])
    head = f"{found['task']}: mean held-out {word} after {found['steps']} steps over seeds {found['seeds'][0]} to {found['seeds'][-1]}"
    return "\n".join([head, *align(cells)])
