"""The step inside somebody else's `torch.compile`: no containers made, no questions asked, results written at the end."""

from typing import Any

import torch

from funcopt.core import tree
from funcopt.torch_optim.groups import scaled

__all__ = ["ready", "step"]


def ready(opt: Any) -> bool:
    """Whether all state is there, so that a step can be traced: after one eager step, with a gradient for every parameter."""
    engine = opt._engine
    if engine.ids is None or engine.evaluating or engine.pending:
        return False
    for unit in engine.units:
        if unit.layout is not None or unit.complex or unit.casts or len(unit.groups) > 1:
            return False
        for param in unit.params:
            if param.grad is None:
                return False
    return len(engine.units) > 0


def step(opt: Any, given: dict[str, Any]) -> None:
    engine = opt._engine
    told = {name: value for name, value in given.items() if value is not None}
    with torch.no_grad():
        for unit in engine.units:
            group = opt.param_groups[unit.groups[0]]
            lr = group["lr"]
            sign = -1.0 if group["maximize"] else 1.0
            grads = {key: sign * p.grad if sign < 0 else p.grad for key, p in zip(unit.keys, unit.params, strict=True)}
            params = dict(zip(unit.keys, unit.params, strict=True))
            rate = lr if isinstance(lr, torch.Tensor) else torch.full((), lr, dtype=torch.float64)
            words = {"base_lr": rate.reshape(())} if engine.recipe.hears_rate else {}
            updates, new = unit.tx.update(grads, unit.tree, params, signals=words, **told)
            for key, p in zip(unit.keys, unit.params, strict=True):
                update = updates[key] if engine.recipe.hears_rate else scaled(updates[key], rate)
                p.copy_((p + update).to(p.dtype))
            for index, leaf in enumerate(tree.leaves(new)):
                if leaf.dim() > 0:
                    unit.leaves[index].copy_(leaf)
                else:  # a compiled write into a 0-dim tensor may be lost or come too early
                    unit.leaves[index] = leaf
                    unit.dicts[index][unit.names[index]] = leaf
            unit.tree = tree.unflatten(new, unit.leaves)
