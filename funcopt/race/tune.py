"""Choosing learning rates: for every method the same rates, seeds and steps, on data that the race does not test on.

The candidates are one logarithmic grid for all methods, so that nobody's range was
guessed better than another's. The rate scales a whole method; in a pool, every
member's. All candidates of a method train from all tuning seeds at once, as
lanes of one vmapped step. The test digits are put away: what decides is the accuracy on
30 % of the training digits that are held out of the training (`validation=True` of the
tasks). The best mean wins; among equals the lower mean loss.
"""

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
        What `tune.json` holds: the set-up, and per method the rate that won and the
        mean held-out accuracy and loss of every rate (None where no seed finished).
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
        accuracy, loss = (run.final(measure).reshape(len(rates), len(seeds)).mean(1) for measure in ("test_accuracy", "test_loss"))
        # A rate counts only if all its seeds finished: nan means that one did not, and sorts last.
        order = sorted(range(len(rates)), key=lambda i: (-accuracy[i].nan_to_num(-1.0).item(), loss[i].nan_to_num(torch.inf).item()))
        best = order[0]
        found["methods"][name] = {
            "rate": rates[best],
            "at_the_edge": best in (0, len(rates) - 1),
            "accuracy": accuracy.tolist(),
            "loss": loss.tolist(),
        }
        if out is not None:
            write_json(Path(out) / "tune.json", plain(found))
    return plain(found)


def table(found: Mapping[str, Any]) -> str:
    """Held-out accuracy in percent, one row per method, one column per rate; the winner has a star."""
    cells = [["", *(f"{rate:g}" for rate in found["rates"]), "best rate"]]
    for name, method in found["methods"].items():
        best = found["rates"].index(method["rate"])
        numbers = ["-" if value is None else f"{100 * value:.2f}{'*' if i == best else ' '}" for i, value in enumerate(method["accuracy"])]
        cells.append([name, *numbers, f"{method['rate']:g}" + (" (edge of the grid)" if method["at_the_edge"] else "")])
    head = f"{found['task']}: mean held-out accuracy % after {found['steps']} steps over seeds {found['seeds'][0]} to {found['seeds'][-1]}"
    return "\n".join([head, *align(cells)])
