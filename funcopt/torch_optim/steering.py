"""What an optimizer can be asked for and told between steps: words, rates, the state as a tree, evaluation weights."""

from typing import Any

import torch
from torch import Tensor

from funcopt.core import tree
from funcopt.core.control import control as of_state
from funcopt.torch_optim.groups import scaled
from funcopt.torch_optim.storage import ENTRY, TRAINED
from funcopt.torch_optim.units import Unit
from funcopt.transforms.average_params import averaged_params, averages

__all__ = ["control", "effective_lrs", "functional", "set_functional", "signals", "train"]


def units_of(opt: Any) -> list[Unit]:
    """The units of an optimizer; before its first step those of all parameters that will be trained."""
    units = standing_units(opt)
    if not units:
        with torch.no_grad():
            opt._engine.build(
                opt.param_groups, opt.state, {id(p) for group in opt.param_groups for p in group["params"] if p.requires_grad}
            )
    return opt._engine.units


def standing_units(opt: Any) -> list[Unit]:
    """The units of the parameters that have a state; a copy makes them of what it has stored. Before the first step there are none."""
    engine = opt._engine
    if any(ENTRY in group for group in opt.param_groups) and not engine.current(opt.param_groups, opt.state):
        with torch.no_grad():
            engine.build(opt.param_groups, opt.state, set())
    return engine.units


def signals(opt: Any) -> dict[str, Tensor]:
    """The words of the units. A size is that of the step: times what the group adds to it."""
    words: dict[str, Tensor] = {}
    for unit in standing_units(opt):
        prefix = f"group{unit.number}/" if unit.number else ""
        said = unit.signals()
        for word, value in said.items():
            words.setdefault(prefix + word, scaled(value, unit.factors[0]) if is_size(word) else value)
        if unit.groups != [unit.number]:
            for number, factor in zip(unit.groups, unit.factors, strict=True):
                words |= {f"group{number}/{word}": scaled(value, factor) for word, value in said.items() if number and is_size(word)}
    return words


def is_size(word: str) -> bool:
    return word.rpartition("/")[2] == "lr"


def effective_lrs(opt: Any) -> list[float]:
    found, standing = [], standing_units(opt)
    for number, group in enumerate(opt.param_groups):
        unit = next((unit for unit in standing if number in unit.groups), None)
        said = None if unit is None else unit.signals().get("lr")
        if unit is None or said is None:
            found.append(float(group["lr"]))
        else:
            found.append(float(said) * float(unit.factors[unit.groups.index(number)]))
    return found


def functional(opt: Any) -> Any:
    trees = [tree.map_plain(lambda leaf: leaf.clone(), unit.leafwise()) for unit in units_of(opt)]
    return trees[0] if len(trees) == 1 else tuple(trees)


def set_functional(opt: Any, state: Any) -> None:
    units = units_of(opt)
    parts = [state] if len(units) == 1 else list(state)
    if len(parts) != len(units):
        raise ValueError(f"{type(opt).__name__}.set_functional: the state must have {len(units)} trees, got {len(parts)}")
    for unit, part in zip(units, parts, strict=True):
        difference = tree.first_difference(part, unit.leafwise(), ("it", "ours"))
        if difference is not None:
            raise ValueError(f"{type(opt).__name__}.set_functional: the state must be like that of functional(), but {difference}")
    with torch.no_grad():
        for unit, part in zip(units, parts, strict=True):
            unit.take(part)


def control(opt: Any, hook: str, *arguments: Any, **named: Any) -> None:
    changed = [(unit, of_state(unit.tx, unit.leafwise(), hook, *arguments, **named)) for unit in units_of(opt)]
    with torch.no_grad():
        for unit, state in changed:
            unit.take(state)


def train(opt: Any, mode: bool) -> None:
    engine = opt._engine
    if mode != engine.evaluating:
        return
    averaged = [unit for unit in standing_units(opt) if averages(unit.leafwise())]
    if not averaged:
        return
    with torch.no_grad():
        if mode:
            for unit in averaged:
                for param in unit.params:
                    param.copy_(opt.state[param].pop(TRAINED))
        else:
            told = [averaged_params(unit.leafwise(), dict(zip(unit.keys, unit.wide(unit.views()), strict=True))) for unit in averaged]
            for unit, smooth in zip(averaged, told, strict=True):
                for key, param, view in zip(unit.keys, unit.params, unit.views(), strict=True):
                    opt.state[param][TRAINED] = param.detach().clone()
                    view.copy_(smooth[key])
    engine.evaluating = not mode
