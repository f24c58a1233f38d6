"""Many copies of one task, trained side by side: the loop under the race, the search for rates and the evidence.

Lanes are the copies of a population (`fo.population`): params, state, batches and whatever differs between them, a seed
or a rate, have a leading axis. What is looked at are the params to keep, `averaged_params(state, params)`. Nothing is read
from the device between two looks.

    key(s) -> fold_in 0: initial parameters
           -> fold_in 1: order of the data, folded once more by epoch
           -> fold_in 2: `seed=` of the factory
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import vmap

import funcopt as fo
from funcopt.race.report import Run
from funcopt.race.tasks import Task

__all__ = ["Log", "Streams", "seed_keys", "sizes", "streams", "train"]

LONGEST = 100  # steps from one look to the next, where an epoch is longer


class Streams(NamedTuple):
    """What the key of a seed is for, in the order in which it is folded; each int64 [lanes, 2]."""

    init: Tensor  # initial parameters
    order: Tensor  # of the data
    seed: Tensor  # the optimizer's own randomness


@dataclass
class Log:
    """What a training run has shown so far; readable at any moment, also after an interruption."""

    history: list[tuple[Tensor, dict[str, Tensor]]] = field(default_factory=list)  # per step: loss [lanes], word -> [lanes]
    points: list[tuple[int, dict[str, Tensor]]] = field(default_factory=list)  # steps done, measure -> [lanes]
    pace: list[float] = field(default_factory=list)  # between looks: seconds of processor time of a step of all lanes

    @property
    def steps(self) -> int:
        return len(self.history)

    def as_run(self) -> Run:
        loss, words = self.history[0]
        measures = self.points[0][1] if self.points else {}
        return Run(
            train_loss=torch.stack([loss for loss, _ in self.history]).cpu(),
            evaluated_at=[step for step, _ in self.points],
            evaluations={measure: torch.stack([values[measure] for _, values in self.points]).cpu() for measure in measures},
            signals={word: torch.stack([said[word] for _, said in self.history]).cpu() for word in words},
            # The first stretch warms up. Processor time, since on a busy machine the clock on the wall tells of the others.
            ms_per_step=1e3 * median(self.pace[1:] or self.pace or [float("nan")]) / len(loss),
        )


def train(
    task: Task,
    make: Callable,
    settings: Mapping[str, Tensor],
    keys: Tensor,
    log: Log,
    *,
    steps: int,
    batch_size: int,
    splits: Sequence[str] = ("train", "test"),
    every: int | None = None,
    words: bool = True,
) -> Iterator[str]:
    """Trains all lanes of one optimizer; fills `log`, and yields after every look to whoever shows progress.

    Args:
        make: called as `make(**settings_of_the_lane)` inside the vmapped step; gives the transformation.
        settings: what differs between lanes, each with a leading axis of lanes.
        keys: int64 [lanes, 2]; lanes with equal keys share parameters and order of data.
        log: where losses, signals and evaluations are put, step by step.
        splits: of the data, that are looked at.
        every: steps from one look to the next; None: an epoch, or `LONGEST` steps where that is more.
        words: whether what the optimizer says is kept, step by step.

    Yields:
        One line on how the lanes stand. Stops early when the loss of no lane is finite.
    """
    lane_keys = streams(keys)
    step = fo.population.make_step(task.loss, make, hyper=settings, in_dims=0)
    params, state = step.init(_initial(task, lane_keys.init))
    evaluate = {split: vmap(lambda params, split=split: task.evaluate(params, split)) for split in splits}
    rows = task.data["train"]
    batches = len(rows[0]) // batch_size
    between = min(batches, LONGEST) if every is None else every
    extra: dict[str, Any] = {}

    def look() -> dict[str, Tensor]:
        measured = {}
        with torch.no_grad():
            kept = vmap(fo.averaged_params)(state.inner, params)
            for split, measure in evaluate.items():
                found = measure(kept)
                measured[f"{split}_loss"], *accuracy = found if isinstance(found, tuple) else (found,)
                measured |= {f"{split}_accuracy": value for value in accuracy}
        log.points.append((log.steps, measured))
        return measured

    look()
    started, before = time.process_time(), 0
    for epoch in range(-(-steps // batches)):
        extra["epoch"] = epoch
        order = fo.population.permutations(lane_keys.order, len(rows[0]), epoch)
        for i in range(min(batches, steps - log.steps)):
            picked = order[:, i * batch_size : (i + 1) * batch_size]
            params, state, loss = step(params, state, tuple(column[picked] for column in rows), **extra)
            log.history.append((loss, fo.read_signals(state) if words else {}))
            over = i + 1 == batches
            due = (over or (i + 1) % between == 0) if every is None else log.steps % every == 0
            if not due and log.steps < steps:
                continue
            alive = bool(torch.isfinite(loss).any())
            log.pace.append((time.process_time() - started) / (log.steps - before))
            measured = look()
            if over and "train" in splits:
                extra["metric"] = measured.get("train_accuracy", -measured["train_loss"]).to(torch.float64)
            finite = torch.isfinite(measured[f"{splits[0]}_loss"])
            yield _standing(measured, splits[-1], finite)
            if not (alive and finite.any()):
                return
            started, before = time.process_time(), log.steps


def _standing(measured: dict[str, Tensor], split: str, finite: Tensor) -> str:
    word = "accuracy" if f"{split}_accuracy" in measured else "loss"
    return f"{split} {word} {measured[f'{split}_{word}'][finite].mean():.3f}" if finite.any() else "diverged"


def _initial(task: Task, keys: Tensor) -> Any:
    """The params of every lane; lanes with one key have the same, made once."""
    distinct, lanes = torch.unique(keys, dim=0, return_inverse=True)
    population = fo.population.stack([task.init(key) for key in distinct])
    return fo.tree.map(lambda x: x[lanes], population)


def seed_keys(seeds: Sequence[int], task: Task) -> Tensor:
    """One key per seed, int64 [seeds, 2], where the task's data are."""
    return torch.stack([fo.random.key(seed) for seed in seeds]).to(task.data["train"][0].device)


def streams(keys: Tensor) -> Streams:
    """Three independent keys per lane."""
    return Streams(*(vmap(lambda key, stream=stream: fo.random.fold_in(key, stream))(keys).contiguous() for stream in range(3)))


def sizes(where: str, task: Task, steps: int | None, batch_size: int | None) -> tuple[int, int]:
    """Steps and rows per step, the task's own where none are given; refuses a run of no steps, and batches larger than the data."""
    rows = len(task.data["train"][0])
    steps = task.steps if steps is None else steps
    batch_size = min(task.batch_size, rows) if batch_size is None else batch_size
    if steps < 1:
        raise ValueError(f"{where}: steps must be >= 1, got {steps}")
    if not 1 <= batch_size <= rows:
        raise ValueError(f"{where}: batch_size must be in [1, {rows}], the rows of {task.name}, got {batch_size}")
    return steps, batch_size
