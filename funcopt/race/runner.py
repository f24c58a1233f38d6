"""Several optimizers, many seeds, one task: every optimizer trains all its seeds at once.

The seeds of an optimizer are the copies of a population (`fo.population`): parameters,
state, batches and the optimizer's own randomness have a leading axis of seeds. Seed s
stands for the same initial parameters and the same order of data whatever the
optimizer, so results are compared in pairs. Nothing is read from the device
within an epoch; losses and signals are stacked when an optimizer has finished.

    key(s) -> fold_in 0: initial parameters
           -> fold_in 1: order of the data, folded once more by epoch
           -> fold_in 2: `seed=` of the factory
"""

import inspect
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import vmap

import funcopt as fo
from funcopt.race.extras import need
from funcopt.race.report import Race, Run
from funcopt.race.tasks import Task

__all__ = ["Log", "Streams", "check_sizes", "run", "seed_keys", "streams", "train"]


class Streams(NamedTuple):
    """What the key of a seed is for, in the order in which it is folded; each int64 [lanes, 2]."""

    init: Tensor  # initial parameters
    order: Tensor  # of the data
    seed: Tensor  # the optimizer's own randomness


def run(
    task: Task,
    optimizers: Mapping[str, Callable],
    *,
    seeds: int | Sequence[int] = 5,
    steps: int = 600,
    batch_size: int = 64,
    baseline: str | None = None,
    labels: Mapping[str, Sequence[str]] | None = None,
    settings: Mapping[str, Any] | None = None,
    out: str | Path | None = "runs/race",
    progress: bool = True,
) -> Race:
    """Trains every optimizer from every seed, prints a table, writes all numbers and a picture.

    Args:
        task: what to train; `digits_mlp()`, `digits_cnn()` or a `Task` of yours.
        optimizers: name -> a transformation, which all seeds share, or a factory
            that takes `seed=` (a key, int64 of shape (2,)) and gives one: then
            every seed has randomness of its own. A factory is called anew
            inside every step, so it should only build.
        seeds: how many (0, 1, ...) or which. At least one; at least two for
            spreads and intervals.
        steps: updates of each seed, >= 1.
        batch_size: rows of "train" per update, from 1 to all of them. An epoch
            is as many whole batches as there are.
        baseline: what the others are compared with; by default the first.
        labels: optimizer -> names of its pool's members, for the picture.
        settings: optimizer -> what it was made with, for the record.
        out: directory for `results.json` and `race.png`. Written after every
            optimizer by replacing the file, so that it is whole at any time.
            `None`: nothing is written.
        progress: a bar per optimizer, and the table at the end.

    Returns:
        All numbers, as a `Race`. A seed whose loss is not finite at some step, or
        ends ten times as high as it began, counts as diverged and leaves the means;
        the others go on.

    `update` is given `loss` (this step's), `epoch` (a number, from 0) and, from
    the second epoch on, `metric`: the accuracy on the training data after the
    epoch before.

    Raises:
        ValueError: `seeds`, `steps` or `batch_size` is out of range, `optimizers`
            is empty, `baseline` is not among them.
        TypeError: an entry is neither a transformation nor takes `seed=` and gives one.
        ImportError: a package of the extra `race` is missing.
        KeyboardInterrupt: after saying where the race stands and writing what there is.

    Example:
        >>> race = fo.race.run(
        ...     fo.race.digits_mlp(hidden=8), {"adam": fo.adam(1e-2), "sgd": fo.sgd(0.1)}, seeds=2, steps=3, out=None, progress=False
        ... )
        >>> race.runs["adam"].train_loss.shape
        torch.Size([3, 2])
    """
    seeds = _seeds(seeds)
    check_sizes("race.run", task, steps, batch_size)
    if not optimizers:
        raise ValueError("race.run: optimizers must hold at least one, got none")
    baseline = next(iter(optimizers)) if baseline is None else baseline
    if baseline not in optimizers:
        raise ValueError(f"race.run: baseline must be one of {', '.join(optimizers)}, got {baseline!r}")
    makes = {name: _factory(name, optimizer) for name, optimizer in optimizers.items()}
    need("scipy.stats")
    bar = need("tqdm").tqdm if progress else None
    if out is not None:
        need("matplotlib")

    keys = seed_keys(seeds, task)
    race = Race(task=task.name, seeds=seeds, steps=steps, batch_size=batch_size, baseline=baseline, labels=dict(labels or {}), settings=dict(settings or {}))
    for name, make in makes.items():
        _rehearse(name, make, task, keys)
    started = time.perf_counter()
    try:
        for name, make in makes.items():
            log = Log()
            ticks = bar(total=steps, desc=f"{name:>12}", unit="step", mininterval=0.5) if bar else None
            try:
                for standing in train(task, make, {"seed": streams(keys).seed}, keys, log, steps=steps, batch_size=batch_size):
                    if ticks is not None:
                        ticks.update(log.steps - ticks.n)
                        ticks.set_postfix_str(standing)
            except BaseException:
                race.stopped_at = {"optimizer": name, "step": log.steps}
                raise
            finally:
                if ticks is not None:
                    ticks.close()
                if log.steps:
                    race.runs[name] = log.as_run()
                race.seconds = time.perf_counter() - started
                if out is not None:
                    race.write(out)
    except KeyboardInterrupt:
        print(race.where_it_stopped(out), flush=True)
        raise
    race.complete = True
    if out is not None:
        race.write(out)
        race.picture(out)
    if progress:
        print(race.table())
    return race


@dataclass
class Log:
    """What a training run has shown so far; readable at any moment, also after an interruption."""

    history: list[tuple[Tensor, dict[str, Tensor]]] = field(default_factory=list)  # per step: loss [lanes], word -> [lanes]
    points: list[tuple[int, dict[str, Tensor]]] = field(default_factory=list)  # steps done, measure -> [lanes]
    pace: list[float] = field(default_factory=list)  # per epoch: seconds of processor time of a step of all lanes

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
            # The first epoch warms up. Processor time, since on a busy machine the clock on the wall tells of the others.
            ms_per_step=1e3 * median(self.pace[1:] or self.pace or [float("nan")]) / len(loss),
        )


def train(task: Task, make: Callable, settings: Mapping[str, Tensor], keys: Tensor, log: Log, *, steps: int, batch_size: int) -> Iterator[str]:
    """Trains all lanes of one optimizer; fills `log`, and yields after every epoch to whoever shows progress.

    Args:
        make: called as `make(**settings_of_the_lane)` inside the vmapped step; gives the transformation.
        settings: what differs between lanes, each with a leading axis of lanes.
        keys: int64 [lanes, 2]; lanes with equal keys share parameters and order of data.
        log: where losses, signals and evaluations are put, step by step.

    Yields:
        One line on how the lanes stand. Stops early when the loss of no lane is finite.
    """
    lane_keys = streams(keys)
    step = fo.population.make_step(task.loss, make, hyper=settings, in_dims=0)
    params, state = step.init(task.init, lane_keys.init)
    evaluate = {split: vmap(lambda params, split=split: task.evaluate(params, split)) for split in ("train", "test")}
    rows = task.data["train"]
    batches = len(rows[0]) // batch_size
    extra: dict[str, Any] = {}

    def look() -> dict[str, Tensor]:
        measured = {}
        with torch.no_grad():
            for split, measure in evaluate.items():
                measured[f"{split}_loss"], measured[f"{split}_accuracy"] = measure(params)
        log.points.append((log.steps, measured))
        return measured

    look()
    for epoch in range(-(-steps // batches)):
        extra["epoch"] = epoch
        order = fo.population.permutations(lane_keys.order, len(rows[0]), epoch)
        started, before = time.process_time(), log.steps
        for i in range(min(batches, steps - log.steps)):
            picked = order[:, i * batch_size : (i + 1) * batch_size]
            params, state, loss = step(params, state, tuple(column[picked] for column in rows), **extra)
            log.history.append((loss, fo.read_signals(state)))
        alive = bool(torch.isfinite(loss).any())
        log.pace.append((time.process_time() - started) / (log.steps - before))
        measured = look()
        extra["metric"] = measured["train_accuracy"].to(torch.float64)
        finite = torch.isfinite(measured["train_loss"])
        yield f"test accuracy {measured['test_accuracy'][finite].mean():.3f}" if finite.any() else "diverged"
        if not (alive and finite.any()):
            return


def seed_keys(seeds: Sequence[int], task: Task) -> Tensor:
    """One key per seed, int64 [seeds, 2], where the task's data are."""
    return torch.stack([fo.random.key(seed) for seed in seeds]).to(task.data["train"][0].device)


def streams(keys: Tensor) -> Streams:
    """Three independent keys per lane."""
    return Streams(*(vmap(lambda key, stream=stream: fo.random.fold_in(key, stream))(keys).contiguous() for stream in range(3)))


def _seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    if isinstance(seeds, int):
        if seeds < 1:
            raise ValueError(f"race.run: seeds must be >= 1, got {seeds}")
        return tuple(range(seeds))
    seeds = tuple(seeds)
    if not seeds:
        raise ValueError("race.run: seeds must hold at least one, got none")
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"race.run: seeds must differ, got {seeds}")
    return seeds


def check_sizes(where: str, task: Task, steps: int, batch_size: int) -> None:
    """Refuses a training run of no steps, and batches larger than the data."""
    rows = len(task.data["train"][0])
    if steps < 1:
        raise ValueError(f"{where}: steps must be >= 1, got {steps}")
    if not 1 <= batch_size <= rows:
        raise ValueError(f"{where}: batch_size must be in [1, {rows}], the rows of {task.name}, got {batch_size}")


def _rehearse(name: str, make: Callable, task: Task, keys: Tensor) -> None:
    """Makes the transformation and its state once, so that a mistake shows before the first optimizer has trained."""
    own = streams(keys[:1])
    tx = make(seed=own.seed[0])
    if not isinstance(tx, fo.GradientTransformation):
        raise TypeError(f"race.run: {name!r} must give a transformation, got {tx!r}")
    tx.init(task.init(own.init[0]))


def _factory(name: str, optimizer: Callable) -> Callable:
    """The entry as a function of a lane's seed."""
    if isinstance(optimizer, fo.GradientTransformation):
        return lambda seed: optimizer
    if callable(optimizer):
        parameters = inspect.signature(optimizer).parameters.values()
        if any(p.name == "seed" or p.kind is p.VAR_KEYWORD for p in parameters):
            return lambda seed: optimizer(seed=seed)
    raise TypeError(f"race.run: {name!r} must be a transformation or a function that takes seed= and gives one, got {optimizer!r}. Try lambda seed: ...")
