"""What an optimizer can be asked for and told between steps: words, rates, the state as a tree, evaluation weights."""

from typing import Any

import torch
from torch import Tensor

from funcopt.core import find_all, tree
from funcopt.torch_optim.storage import TRAINED
from funcopt.torch_optim.units import Unit
from funcopt.transforms.schedule_free import schedule_free_eval_params

__all__ = ["control", "effective_lrs", "functional", "set_functional", "signals", "train"]


def units_of(opt: Any) -> list[Unit]:
    """The units of an optimizer; before its first step those of all parameters that will be trained."""
    engine = opt._engine
    groups, state = opt.param_groups, opt.state
    if not engine.current(groups, state):
        with torch.no_grad():
            engine.build(groups, state, set())
    if not engine.units:
        with torch.no_grad():
            engine.build(groups, state, {id(p) for group in groups for p in group["params"] if p.requires_grad})
    return engine.units


def signals(opt: Any) -> dict[str, Tensor]:
    words: dict[str, Tensor] = {}
    for unit in opt._engine.units:
        number = unit.groups[0]
        prefix = f"group{number}/" if number else ""
        for word, value in unit.signals().items():
            words.setdefault(prefix + word, value)
    return words


def effective_lrs(opt: Any) -> list[float]:
    found = []
    for number, group in enumerate(opt.param_groups):
        unit = next((unit for unit in opt._engine.units if number in unit.groups), None)
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
    for unit in units_of(opt):
        whole = unit.leafwise()
        changed = _controlled(unit.tx, whole, hook, arguments, named)
        if changed is None:
            raise ValueError(f"{type(opt).__name__}.control: no link of {unit.tx.name} has a function {hook!r}")
        with torch.no_grad():
            unit.take(changed)


def _controlled(tx: Any, state: Any, hook: str, arguments: tuple, named: dict) -> Any:
    """The state with the part changed whose link has the hook; None if no link has."""
    if callable(getattr(tx, hook, None)) and hook not in ("init", "update", "plan", "count", "index"):
        return getattr(tx, hook)(state, *arguments, **named)
    if not tx.links:
        return None
    parts = list(state.values()) if isinstance(state, dict) else list(state)
    for index, (link, part) in enumerate(zip(tx.links, parts, strict=True)):
        changed = _controlled(link, part, hook, arguments, named)
        if changed is not None:
            parts[index] = changed
            return dict(zip(state, parts, strict=True)) if isinstance(state, dict) else tuple(parts)
    return None


def train(opt: Any, mode: bool) -> None:
    engine = opt._engine
    if mode != engine.evaluating:
        return
    averaged = [unit for unit in engine.units if find_all(unit.leafwise(), "ScheduleFreeState")]
    if not averaged:
        return
    engine.evaluating = not mode
    with torch.no_grad():
        for unit in averaged:
            if mode:
                for param in unit.params:
                    param.copy_(opt.state[param].pop(TRAINED))
                continue
            params = dict(zip(unit.keys, unit.wide(unit.views()), strict=True))
            smooth = schedule_free_eval_params(unit.leafwise(), params)
            for key, param, view in zip(unit.keys, unit.params, unit.views(), strict=True):
                opt.state[param][TRAINED] = param.detach().clone()
                view.copy_(smooth[key])
