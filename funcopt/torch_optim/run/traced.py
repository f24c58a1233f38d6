"""The step inside somebody else's `torch.compile`: no containers made, no questions asked, results written at the end."""

from typing import Any

import torch
from torch import Tensor

from funcopt.core import tree
from funcopt.execute.donation import write
from funcopt.execute.layouts.layout import Flat
from funcopt.torch_optim.extras import unmet
from funcopt.torch_optim.groups import check_rate, same, scaled
from funcopt.torch_optim.hyperparameters import loosened, pattern, tightened
from funcopt.torch_optim.reading import check_direction
from funcopt.torch_optim.units import Unit
from funcopt.transforms.groups import beside

__all__ = ["ready", "step"]


def ready(opt: Any, given: dict[str, Any]) -> bool:
    """Whether all state is there to trace a step: after an eager one, with a gradient for every parameter and nothing to average."""
    engine = opt._engine
    if engine.ids is None or engine.evaluating or engine.pending or engine.standing:
        return False
    if engine.options.process_group is not False and any(value is not None for value in given.values()) and _others():
        return False
    for unit in engine.units:
        if not unit.plain or unit.complex or unit.casts or unit.fixed or len(unit.groups) > 1:
            return False
        if unit.tx.needs and unmet(unit.tx, given):  # which is told, or stood in for, outside
            return False
        for param in unit.params:
            if param.grad is None:
                return False
        values = engine.recipe.values(opt.param_groups, unit.groups)
        if not same(values, unit.values) and (engine.recipe.draws or pattern(values) != pattern(unit.values)):
            return False  # links come or go, or are made with seeds: outside of graphs
    return len(engine.units) > 0


def _others() -> bool:
    """Whether other ranks train too, with whom numbers are averaged outside of graphs."""
    return torch.distributed.is_available() and torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1


def step(opt: Any, given: dict[str, Any]) -> None:
    told = {name: value for name, value in given.items() if value is not None}
    with torch.no_grad(), beside(opt._engine.beside):
        for unit in opt._engine.units:
            _advance(opt, unit, told)


def _advance(opt: Any, unit: Unit, told: dict[str, Any]) -> None:
    group, recipe = opt.param_groups[unit.groups[0]], opt._engine.recipe
    lr, hears = group["lr"], recipe.hears_rate
    check_rate(lr)
    check_direction(group)
    # A number times a tensor stays a number of the graph; made a tensor alone, it would be a constant of it.
    rate = lr.reshape(()) if isinstance(lr, Tensor) else lr * torch.ones((), dtype=torch.float64, device=unit.params[0].device)
    gradients: list[Any] = [p.grad for p in unit.params]
    grads = [-g if group["maximize"] else g for g in gradients]
    heard = {"base_lr": rate} if hears else {}
    updates, new = _transformation(opt, unit).update(
        _arguments(unit, grads), unit.tree, _arguments(unit, unit.params), signals=heard, **told
    )
    unit.factors = [1.0 if hears else rate / recipe.rate]
    held, leaves = unit.leaves if unit.layout is None else unit.held, tree.leaves(new)
    moved = [
        (param + scaled(update, unit.factors[0])).to(param.dtype) for param, update in zip(unit.params, _leaves(unit, updates), strict=True)
    ]
    large = [index for index, leaf in enumerate(leaves) if leaf.dim() > 0]
    write([*unit.params, *(held[index] for index in large)], [*moved, *(leaves[index] for index in large)])
    for index, leaf in enumerate(leaves):
        if leaf.dim() == 0:  # a compiled write into it may be lost or come too early
            shown = index if unit.layout is None else unit.shown[index]
            held[index] = unit.leaves[shown] = leaf
            unit.dicts[shown][unit.names[shown]] = leaf
    unit.tree = tree.unflatten(new, held)


def _transformation(opt: Any, unit: Unit) -> Any:
    """The transformation for what the group says now: the one that is there, or one for numbers that the graph takes in at every call."""
    recipe, groups = opt._engine.recipe, opt.param_groups
    values = recipe.values(groups, unit.groups)
    if same(values, unit.values):
        return unit.tx
    recipe.check(groups[unit.groups[0]], ())
    return recipe.assembled(tightened(*loosened(values, unit.params[0].device)), unit)


def _arguments(unit: Unit, leaves: list[Tensor]) -> Any:
    if unit.layout is None:
        return dict(zip(unit.keys, leaves, strict=True))
    return Flat({unit.vector: torch.cat([x.reshape(-1) for x in leaves])})


def _leaves(unit: Unit, updates: Any) -> list[Tensor]:
    if unit.layout is None:
        return [updates[key] for key in unit.keys]
    parts = torch.split(updates.vectors[unit.vector], [p.numel() for p in unit.params])
    return [part.view(p.shape) for part, p in zip(parts, unit.params, strict=True)]
