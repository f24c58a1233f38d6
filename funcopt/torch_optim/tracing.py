"""The step inside somebody else's `torch.compile`: no containers made, no questions asked, results written at the end."""

from typing import Any

import torch
from torch import Tensor

from funcopt.core import tree
from funcopt.core.flat import Flat
from funcopt.torch_optim.groups import scaled
from funcopt.torch_optim.units import Unit

__all__ = ["ready", "step"]


def ready(opt: Any, given: dict[str, Any]) -> bool:
    """Whether all state is there, so that a step can be traced: after one eager step, with a gradient for every parameter, and nothing to average."""
    engine = opt._engine
    if engine.ids is None or engine.evaluating or engine.pending or engine.standing:
        return False
    if engine.options.process_group is not False and any(value is not None for value in given.values()) and _others():
        return False
    for unit in engine.units:
        if not unit.plain or unit.complex or unit.casts or unit.fixed or len(unit.groups) > 1:
            return False
        for param in unit.params:
            if param.grad is None:
                return False
    return len(engine.units) > 0


def _others() -> bool:
    """Whether other ranks train too, with whom numbers are averaged outside of graphs."""
    return torch.distributed.is_available() and torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1


def step(opt: Any, given: dict[str, Any]) -> None:
    told = {name: value for name, value in given.items() if value is not None}
    with torch.no_grad():
        for unit in opt._engine.units:
            _advance(opt, unit, told)


def _advance(opt: Any, unit: Unit, told: dict[str, Any]) -> None:
    group, hears = opt.param_groups[unit.groups[0]], opt._engine.recipe.hears_rate
    lr = group["lr"]
    # A number times a tensor stays a number of the graph; made a tensor alone, it would be a constant of it.
    rate = lr.reshape(()) if isinstance(lr, Tensor) else lr * torch.ones((), dtype=torch.float64, device=unit.params[0].device)
    grads = [-p.grad if group["maximize"] else p.grad for p in unit.params]
    updates, new = unit.tx.update(_arguments(unit, grads), unit.tree, _arguments(unit, unit.params), signals={"base_lr": rate} if hears else {}, **told)
    for param, update in zip(unit.params, _leaves(unit, updates), strict=True):
        param.copy_((param + (update if hears else scaled(update, rate))).to(param.dtype))
    held = unit.leaves if unit.layout is None else unit.held
    for index, leaf in enumerate(tree.leaves(new)):
        if leaf.dim() > 0:
            held[index].copy_(leaf)
            continue
        shown = index if unit.layout is None else unit.shown[index]  # a compiled write into a 0-dim tensor may be lost or come too early
        held[index] = unit.leaves[shown] = leaf
        unit.dicts[shown][unit.names[shown]] = leaf
    unit.tree = tree.unflatten(new, held)


def _arguments(unit: Unit, leaves: list[Tensor]) -> Any:
    if unit.layout is None:
        return dict(zip(unit.keys, leaves, strict=True))
    return Flat({unit.vector: torch.cat([x.reshape(-1) for x in leaves])})


def _leaves(unit: Unit, updates: Any) -> list[Tensor]:
    if unit.layout is None:
        return [updates[key] for key in unit.keys]
    parts = torch.split(updates.vectors[unit.vector], [p.numel() for p in unit.params])
    return [part.view(p.shape) for part, p in zip(parts, unit.params, strict=True)]
