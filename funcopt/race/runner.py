"""Several optimizers, many seeds, one task: every optimizer trains all its seeds at once.

Seed s stands for the same initial parameters and the same order of data whatever the optimizer (`training.py`), so
results are compared in pairs. Losses and signals are stacked when an optimizer has finished.
"""

import inspect
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

import funcopt as fo
from funcopt.race.extras import need
from funcopt.race.progress import Progress
from funcopt.race.report import Race, Run
from funcopt.race.tasks import Task
from funcopt.race.training import Log, seed_keys, sizes, streams, train

__all__ = ["run"]


def run(
    task: Task,
    optimizers: Mapping[str, Callable],
    *,
    seeds: int | Sequence[int] = 5,
    steps: int | None = None,
    batch_size: int | None = None,
    baseline: str | None = None,
    labels: Mapping[str, Sequence[str]] | None = None,
    settings: Mapping[str, Any] | None = None,
    out: str | Path | None = "runs/race",
    resume: bool = False,
    progress: bool = True,
) -> Race:
    """Trains every optimizer from every seed, prints a table, writes all numbers and a picture.

    Args:
        task: what to train; `digits_mlp()`, `task_named("deep")`, or one of yours (`race.task`).
        optimizers: name -> a transformation, which all seeds share, or a factory
            that takes `seed=` (a key, int64 of shape (2,)) and gives one: then
            every seed has randomness of its own. A factory is called anew
            inside every step, so it should only build.
        seeds: how many (0, 1, ...) or which. At least one; at least two for
            spreads and intervals.
        steps: updates of each seed, >= 1; None: as many as the task says.
        batch_size: rows of "train" per update, from 1 to all of them. An epoch
            is as many whole batches as there are. None: as the task says.
        baseline: what the others are compared with; by default the first.
        labels: optimizer -> names of its pool's members, for the picture.
        settings: optimizer -> what it was made with, for the record.
        out: directory for `results.json`, written after every optimizer by replacing the file, so that
            it is whole at any time, and for `results.md`, `results.html` and `race.png`.
            `None`: nothing is written.
        resume: takes the optimizers that have finished in `results.json` of `out` as they are, and
            trains the others. The file must be of the same task, seeds, steps, batches and settings.
        progress: a bar per optimizer, or a line where there is no terminal, and the table at the end.

    Returns:
        All numbers, as a `Race`. A seed whose loss is not finite at some step, or
        ends ten times as high as it began, counts as diverged and leaves the means;
        the others go on.

    `update` is given `loss` (this step's), `epoch` (a number, from 0) and, from
    the second epoch on, `metric`: the accuracy on the training data after the
    epoch before.

    Raises:
        ValueError: `seeds`, `steps` or `batch_size` is out of range, `optimizers`
            is empty, `baseline` is not among them; there is nothing to resume, or of another race.
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
    steps, batch_size = sizes("race.run", task, steps, batch_size)
    if not optimizers:
        raise ValueError("race.run: optimizers must hold at least one, got none")
    baseline = next(iter(optimizers)) if baseline is None else baseline
    if baseline not in optimizers:
        raise ValueError(f"race.run: baseline must be one of {', '.join(optimizers)}, got {baseline!r}")
    makes = {name: _factory(name, optimizer) for name, optimizer in optimizers.items()}
    need("scipy.stats")
    if out is not None:
        need("matplotlib")

    keys = seed_keys(seeds, task)
    race = Race(
        task=task.name,
        seeds=seeds,
        steps=steps,
        batch_size=batch_size,
        baseline=baseline,
        labels=dict(labels or {}),
        settings=dict(settings or {}),
    )
    for name, make in makes.items():
        _rehearse(name, make, task, keys)
    done = _finished(race, out) if resume else {}
    started = time.perf_counter()
    try:
        for name, make in makes.items():
            if name in done:
                race.runs[name] = done[name]
                continue
            log = Log()
            shown = Progress(name, steps, progress)
            try:
                for standing in train(task, make, {"seed": streams(keys).seed}, keys, log, steps=steps, batch_size=batch_size):
                    shown.at(log.steps, standing)
            except BaseException:
                race.stopped_at = {"optimizer": name, "step": log.steps}
                raise
            finally:
                shown.close()
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
        race.pages(out)
    if progress:
        print(race.table())
    return race


def _finished(race: Race, out: str | Path | None) -> dict[str, Run]:
    """The optimizers that went all the way in the file of the same race."""
    path = None if out is None else Path(out) / "results.json"
    if path is None or not path.exists():
        raise ValueError(
            f"race.run: resume=True needs the results.json of the race in out, and there is none in {out}; leave it out for a new race"
        )
    held = json.loads(path.read_text(encoding="utf-8"))
    now = race.as_dict()
    for key in ("task", "seeds", "steps", "batch_size", "baseline"):
        if held[key] != now[key]:
            raise ValueError(
                f"race.run: the race in {path} has {key} {held[key]!r}, and this one {now[key]!r}; go on with the same, or take another out"
            )
    stopped = (held["stopped_at"] or {}).get("optimizer")
    same = [name for name in held["optimizers"] if name != stopped and held["settings"].get(name) == now["settings"].get(name)]
    return {name: Run.of(held["optimizers"][name]) for name in same}


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
    raise TypeError(
        f"race.run: {name!r} must be a transformation or a function that takes seed= and gives one, got {optimizer!r}. Try lambda seed: ..."
    )
