"""Choosing learning rates: for every method the same rates, seeds and steps, on data that the race does not test on.

The candidates are one logarithmic grid for all methods, so that nobody's range was
guessed better than another's. The rate scales a whole method; in a pool, every
member's. All candidates of a method train from all tuning seeds at once, as
lanes of one vmapped step. The test digits are put away: what decides is the accuracy on
30 % of the training digits that are held out of the training (`validation=True` of the
tasks). The lowest rate wins whose mean is within one standard error of the best (Breiman,
Friedman, Olshen and Stone, 1984): the best itself is one of several that a few seeds do not
tell apart, and often the last before training becomes unstable.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from funcopt.race.extras import need
from funcopt.race.report import align, plain, versions, write_json
from funcopt.race.runner import Log, check_sizes, seed_keys, streams, train
from funcopt.race.tasks import Task

__all__ = ["RATES", "SEEDS", "table", "tune"]

RATES = tuple(float(f"{10 ** (exponent / 3):.2g}") for exponent in range(-12, 1))  # 1e-4, 2.2e-4, 4.6e-4, ... 1
SEEDS = (1000, 1001, 1002, 1003, 1004)  # the race counts its seeds from 0


def tune(
    task: Task,
    methods: Mapping[str, Callable],
    *,
    rates: Sequence[float] = RATES,
    seeds: Sequence[int] = SEEDS,
    steps: int = 600,
    batch_size: int = 64,
    out: str | Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Tries every rate from every seed for every method.

    Args:
        task: one whose "test" is not that of the race: `digits_mlp(validation=True)`.
        methods: name -> `(rate, seed) -> transformation`; both are tensors.
        rates: the candidates, the same for all.
        seeds: other ones than those of the race.
        steps, batch_size: as in the race.
        out: directory for `tune.json`, written after every method. `None`: nowhere.
        progress: a bar per method.

    Returns:
        What `tune.json` holds: the set-up, and per method the rate that won, the mean
        held-out accuracy and loss of every rate (None where a seed did not finish), and
        the standard error of the best accuracy.
    """
    check_sizes("race.tune", task, steps, batch_size)
    bar = need("tqdm").tqdm if progress else None
    lane_keys = seed_keys(seeds, task).repeat(len(rates), 1)  # rate-major: lane = rate * seeds + seed
    lane_rates = torch.tensor(rates, dtype=torch.float64, device=lane_keys.device).repeat_interleave(len(seeds))
    setup = {"task": task.name, "rates": list(rates), "seeds": list(seeds), "steps": steps, "batch_size": batch_size}
    found: dict[str, Any] = {**setup, "versions": versions(), "methods": {}}
    for name, make in methods.items():
        log = Log()
        ticks = bar(total=steps, desc=f"{name:>12}", unit="step", mininterval=0.5) if bar else None
        for _ in train(task, make, {"rate": lane_rates, "seed": streams(lane_keys).seed}, lane_keys, log, steps=steps, batch_size=batch_size):
            if ticks is not None:
                ticks.update(log.steps - ticks.n)
        if ticks is not None:
            ticks.close()
        run = log.as_run()
        accuracies, losses = (run.final(measure).reshape(len(rates), len(seeds)) for measure in ("test_accuracy", "test_loss"))
        winner, error = lowest_of_the_best(accuracies)
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


def lowest_of_the_best(accuracies: torch.Tensor) -> tuple[int, float]:
    """The first row of [rates, seeds] whose mean is within one standard error of the best mean, and that error.

    A rate counts only if all its seeds finished: a row with a NaN is none of the best.
    """
    means = accuracies.mean(1).nan_to_num(-1.0)
    best = int(means.argmax())
    error = float(accuracies[best].std() / accuracies.shape[1] ** 0.5) if accuracies.shape[1] > 1 else 0.0
    error = 0.0 if math.isnan(error) else error
    return int((means >= means[best] - error).int().argmax()), error


def table(found: Mapping[str, Any]) -> str:
    """Held-out accuracy in percent, one row per method, one column per rate; the winner has a star, "error" is that of the best."""
    cells = [["", *(f"{rate:g}" for rate in found["rates"]), "error", "rate"]]
    for name, method in found["methods"].items():
        best = found["rates"].index(method["rate"])
        numbers = ["-" if value is None else f"{100 * value:.2f}{'*' if i == best else ' '}" for i, value in enumerate(method["accuracy"])]
        cells.append([name, *numbers, f"{100 * method['error']:.2f}", f"{method['rate']:g}" + (" (edge of the grid)" if method["at_the_edge"] else "")])
    head = f"{found['task']}: mean held-out accuracy % after {found['steps']} steps over seeds {found['seeds'][0]} to {found['seeds'][-1]}"
    return "\n".join([head, *align(cells)])
