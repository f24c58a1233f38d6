"""What a unit knows beside its state, kept with it: for which hyperparameters it was made, and by what its last updates were multiplied.

    group["funcopt"]["made"]["0"]      of the cohort 0: {number of a group: {hyperparameter: value}}
    group["funcopt"]["factors"]["0"]   {number of a group: factor}

Hyperparameters may change before a save, and the state follows at the next step only. What is saved in
between goes on as the run itself would have; and a copy says at once what the original says.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from funcopt.torch_optim.cohorts import number_of
from funcopt.torch_optim.storage import ENTRY
from funcopt.torch_optim.units import Unit

__all__ = ["forget", "made_for", "recall", "write"]

MADE, FACTORS = "made", "factors"


def _key(label: str) -> str:
    return str(number_of(label))


def _kept(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return type(value)(map(_kept, value))
    return value.detach().clone() if isinstance(value, Tensor) else value


def write(units: Sequence[Unit], groups: Sequence[dict[str, Any]], names: Sequence[str]) -> None:
    """Notes what the units know, with the groups that keep their state."""
    living = [unit for unit in units if unit.number < len(groups) and groups[unit.number].get(ENTRY, {}).get("state") is unit.home]
    for number in {unit.number for unit in living}:
        groups[number][ENTRY] |= {MADE: {}, FACTORS: {}} if names else {FACTORS: {}}
    for unit in living:
        kept, key = groups[unit.number][ENTRY], _key(unit.label)
        if names:
            pairs = zip(unit.groups, unit.values, strict=True)
            kept[MADE][key] = {str(number): dict(zip(names, map(_kept, values), strict=True)) for number, values in pairs}
        kept[FACTORS][key] = {str(number): _kept(factor) for number, factor in zip(unit.groups, unit.factors, strict=True)}


def made_for(groups: Sequence[dict[str, Any]], home: int, label: str) -> list[dict[str, Any]]:
    """The groups with the hyperparameters for which a unit's state was made; as they are where nothing is noted."""
    noted: Mapping[str, dict] = groups[home][ENTRY].get(MADE, {}).get(_key(label), {})
    return [{**group, **noted.get(str(number), {})} for number, group in enumerate(groups)]


def forget(group: dict[str, Any]) -> None:
    """What begins anew is made for the hyperparameters of now."""
    for noted in (MADE, FACTORS):
        group[ENTRY].get(noted, {}).clear()


def recall(unit: Unit, groups: Sequence[dict[str, Any]]) -> None:
    """Gives a unit the factors of the last step."""
    noted = groups[unit.number][ENTRY].get(FACTORS, {}).get(_key(unit.label), {})
    unit.factors = [noted.get(str(number), 1.0) for number in unit.groups]
