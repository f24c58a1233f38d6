"""Where the results lie: a folder with one file for each task, which holds a method as soon as it has finished.

An interrupted run goes on with what is missing. A file of another plan, other seeds or another form begins anew.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from funcopt.race.evidence.protocol import TUNING_SEEDS, Plan, seeds
from funcopt.race.report import versions, write_json

__all__ = ["COST", "held", "keep", "read", "written"]

COST = "cost.json"  # of benchmarks/controllers.py rate --json


def path(folder: Path, key: str) -> Path:
    return folder / f"{key.replace(', ', '-').replace(' ', '-')}.json"


def _setup(key: str, plan: Plan, form: str) -> dict[str, Any]:
    return {
        "key": key,
        "task": plan.name,
        "form": form,
        "steps": plan.steps[form],
        "measure": plan.measure,
        "small": plan.small,
        "seeds": list(seeds(plan, form)),
        "tuning_seeds": list(TUNING_SEEDS),
    }


def held(folder: Path, key: str, plan: Plan, form: str) -> dict[str, Any]:
    """The file of a task, with the methods that are there already; a new one where there is none of this plan."""
    setup = _setup(key, plan, form)
    file = path(folder, key)
    if file.exists():
        found = json.loads(file.read_text(encoding="utf-8"))
        if all(found.get(word) == value for word, value in setup.items()):
            return found
    return {**setup, "versions": versions(), "methods": {}}


def keep(folder: Path, content: Mapping[str, Any]) -> None:
    """Replaces the file as a whole."""
    write_json(path(folder, content["key"]), content)


def written(folder: Path, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What there is of these, in their order."""
    return {key: json.loads(path(folder, key).read_text(encoding="utf-8")) for key in keys if path(folder, key).exists()}


def read(file: Path) -> dict[str, Any] | None:
    """A file of JSON; None where there is none."""
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
