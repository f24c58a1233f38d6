"""One method on one task: tuned where it has a rate, then trained from every test seed, with both endings."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.race.evidence.methods import START, Entry
from funcopt.race.evidence.protocol import ENDINGS, LOOKS, TUNED, TUNING_SEEDS
from funcopt.race.progress import Progress
from funcopt.race.report import plain
from funcopt.race.tasks import Task
from funcopt.race.training import Log, seed_keys, sizes, streams, train

__all__ = ["measured"]


class Lanes(NamedTuple):
    """What a run has come to; per ending [rates, seeds]."""

    validation: dict[str, Tensor]
    test: dict[str, Tensor]
    train: dict[str, Tensor]  # mean loss of the batches since the look before
    step: dict[str, Tensor]
    curve: Tensor  # test measure [points, rates, seeds]
    at: list[int]  # steps done at each point
    found: Tensor | None  # the rate at the end


def measured(name: str, task: Task, entry: Entry, steps: int, seeds: Sequence[int], progress: bool) -> dict[str, Any]:
    """All that is kept of a method on a task, as JSON has it.

    Returns:
        "rates" with test seeds; "picks", for each ending the index of the rate that counts; "tuning", the validation measure of every
        rate that was tried; per ending "test", "train" and "step" [rate][seed]; "curve" and the rate "found" [rate][seed].
    """
    started = time.process_time()
    make, rates = entry.make(steps), list(entry.rates)
    tuning = None
    best: dict[str, Any] = {ending: START if START in rates else rates[0] for ending in ENDINGS}
    if entry.tuned:
        tried = _train(f"{name}, rates", task, make, TUNED, TUNING_SEEDS, steps, progress).validation
        means = {ending: torch.nan_to_num(tried[ending].mean(1), nan=torch.inf) for ending in ENDINGS}
        best = {ending: TUNED[int(means[ending].argmin())] for ending in ENDINGS}
        tuning = {"rates": list(TUNED), "validation": {ending: tried[ending].tolist() for ending in ENDINGS}}
        if not entry.curve:
            rates = sorted(set(best.values()))
    lanes = _train(name, task, make, rates, seeds, steps, progress)
    result = {
        "rates": rates,
        "picks": {ending: rates.index(best[ending]) for ending in ENDINGS},
        "tuning": tuning,
        **{word: {ending: getattr(lanes, word)[ending].tolist() for ending in ENDINGS} for word in ("test", "train")},
        "step": lanes.step["picked"].tolist(),
        "at": lanes.at,
        "curve": lanes.curve.permute(1, 2, 0).tolist(),
        "found": None if lanes.found is None else lanes.found.tolist(),
        "seconds": time.process_time() - started,
    }
    return plain(result, digits=5)


def _train(name: str, task: Task, make: Any, rates: Sequence[float | None], seeds: Sequence[int], steps: int, progress: bool) -> Lanes:
    """All rates from all seeds, in one vmapped step."""
    keys = seed_keys(seeds, task).repeat(len(rates), 1)  # rate-major
    values = torch.tensor([rate or 0.0 for rate in rates], dtype=torch.float64, device=keys.device).repeat_interleave(len(seeds))
    _, batch_size = sizes("evidence", task, steps, None)
    every = max(1, steps // LOOKS)
    log, shown = Log(), Progress(name, steps, progress)
    settings = {"rate": values, "seed": streams(keys).seed}
    for standing in train(task, make, settings, keys, log, steps=steps, batch_size=batch_size, splits=("validation", "test"), every=every):
        shown.at(log.steps, standing)
    shown.close()
    shape = (len(rates), len(seeds))
    at = torch.tensor([step for step, _ in log.points])
    losses = torch.stack([loss for loss, _ in log.history]).double().cumsum(0)
    sums = torch.cat([torch.zeros_like(losses[:1]), losses])
    since = (sums[at[1:]] - sums[at[:-1]]) / (at[1:] - at[:-1])[:, None]
    trained = torch.cat([log.history[0][0][None], since])  # at the first look the first batch's
    validation, test = (_curve(log, split, task.measure) for split in ("validation", "test"))
    failed = ~trained.isfinite().all(0) | ~validation.isfinite().all(0) | (at[-1] < steps)
    picked = validation.nan_to_num(torch.inf, posinf=torch.inf).argmin(0)  # the first of equals
    points = {"end": torch.full_like(picked, len(at) - 1), "picked": picked}

    def ending(curve: Tensor) -> dict[str, Tensor]:
        ends = {word: curve.gather(0, point[None])[0] for word, point in points.items()}
        ends["end"] = torch.where(failed, torch.nan, ends["end"])
        return {word: value.reshape(shape) for word, value in ends.items()}

    said = log.history[-1][1].get("lr")
    found = None if said is None else said.double().reshape(shape)
    steps_at = ending(at.double()[:, None].expand_as(validation))
    return Lanes(ending(validation), ending(test), ending(trained), steps_at, test.reshape(-1, *shape), at.tolist(), found)


def _curve(log: Log, split: str, measure: str) -> Tensor:
    """[points, lanes] of one split."""
    if measure == "error":
        return torch.stack([1 - found[f"{split}_accuracy"] for _, found in log.points]).double()
    return torch.stack([found[f"{split}_loss"] for _, found in log.points]).double()
