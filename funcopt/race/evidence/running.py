"""Runs what is missing of the evidence, one task after the other or several at a time, each in a process of its own."""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import torch

from funcopt.race.evidence import store
from funcopt.race.evidence.measure import measured
from funcopt.race.evidence.methods import chosen
from funcopt.race.evidence.protocol import Plan, plans, prepared, seeds

__all__ = ["run"]


def run(folder: Path, form: str, keys: Sequence[str], methods: list[str] | None, *, jobs: int, again: bool, progress: bool) -> None:
    """Every method on every task of `keys` that `folder` does not hold yet; all of them with `again`."""
    known = plans(form)
    arguments = [(folder, form, key, known[key], methods, again, progress) for key in keys]
    if jobs == 1:
        for each in arguments:
            _one(*each)
        return
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        for done in as_completed([pool.submit(_one, *each) for each in arguments]):
            done.result()


def _one(folder: Path, form: str, key: str, plan: Plan, methods: list[str] | None, again: bool, progress: bool) -> None:
    torch.set_num_threads(1)  # small products only wait for a second thread
    content = store.held(folder, key, plan, form)
    missing = {name: entry for name, entry in chosen(form, methods).items() if again or name not in content["methods"]}
    if not missing:
        return
    task = prepared(plan)
    for name, entry in missing.items():
        content["methods"][name] = measured(f"{key}: {name}", task, entry, plan.steps[form], seeds(plan, form), progress)
        store.keep(folder, content)
