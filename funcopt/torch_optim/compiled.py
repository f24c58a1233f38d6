"""The compiled step of a unit: update and addition in one graph, whose results are written into the old buffers.

One graph for each plan of the transformation; rates, counts, losses and hyperparameters
that change are tensors, and no reason to compile again.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from funcopt.core import tree
from funcopt.core.donation import write_back
from funcopt.core.flat import Flat
from funcopt.core.graphs import compiled, tensors_for_numbers
from funcopt.core.step import outside_the_graph
from funcopt.torch_optim.groups import scaled, scaler
from funcopt.torch_optim.recipes import loosened, pattern, tightened
from funcopt.torch_optim.units import Unit

__all__ = ["Compiled"]


class Compiled:
    """Runs a unit's steps through graphs.

    Args:
        unit: the parameters and their state.
        recipe: makes the transformation anew inside the graph once hyperparameters have changed.
        fixed: keep the addresses of the 0-dim leaves, too.
    """

    def __init__(self, unit: Unit, recipe: Any, fixed: bool):
        self.unit, self.recipe, self.fixed = unit, recipe, fixed
        self.first = unit.values
        self.graphs: dict[Any, Callable] = {}
        self.places = unit.places
        self.numbers = tree.unflatten(unit.tree, list(range(len(tree.leaves(unit.tree)))))

    def outdated(self) -> bool:
        """Whether the state is another one than that of the graphs."""
        return self.unit.places != self.places

    def advance(self, grads: list[Tensor], words: dict[str, Tensor], factors: list[Any], told: dict[str, Any]) -> Callable:
        unit = self.unit
        tx = unit.tx
        plan = tx.plan(unit.fresh(), **told) if tx.plan else None
        if outside_the_graph(plan):
            return unit.advance(grads, words, told, set(), scaler(unit.group_of, unit.groups, factors))
        loose, marked, numbers = unit.values is not self.first, None, []
        if loose:
            marked, numbers = loosened(unit.values, unit.params[0].device)
        sized = len(factors) > 1 or isinstance(factors[0], Tensor) or factors[0] != 1.0
        if sized:
            factors = [f if isinstance(f, Tensor) else torch.full((), f, dtype=torch.float64) for f in factors]
        key = (plan, tuple(told), sized, pattern(unit.values) if loose else None)
        run = self.graphs.get(key)
        if run is None:
            run = self.graphs[key] = self._build(plan, marked, sized)
        told = tensors_for_numbers(told)
        return lambda: self._run(run, grads, words, factors, numbers, told)

    def _run(self, run: Callable, grads, words, factors, numbers, told) -> None:
        unit = self.unit
        if unit.layout is None:
            params, held = unit.params if not unit.complex else unit.views(), unit.leaves
            late = run(params, grads, held, words, factors, numbers, told)
            self._late(params, held, *late)
            return
        params, gradient = unit.gathered(grads)
        update, late = run(params, gradient, unit.held, words, factors, numbers, told)
        if update is not None:
            unit.scatter(params, update)
        self._late([params], unit.held, *late)

    def _late(self, params: list[Tensor], held: list[Tensor], positions: tuple[int, ...], results: list[Tensor]) -> None:
        """Writes what the graph has left over: 0-dim leaves."""
        if not positions:
            return
        unit, count = self.unit, len(params)
        for position, result in zip(positions, results, strict=True):
            if position < count:
                params[position].copy_(result)
                continue
            index = position - count
            if self.fixed:
                held[index].copy_(result)
                continue
            held[index] = result
            shown = index if unit.layout is None else unit.shown[index]
            unit.leaves[shown] = result
            unit.dicts[shown][unit.names[shown]] = result
        unit.stale = True

    def _build(self, plan: Any, marked: Any, sized: bool) -> Callable:
        unit, recipe, numbers_of = self.unit, self.recipe, self.numbers
        planned = {} if plan is None else {"plan": plan}
        keys, dtypes, groups = unit.keys, unit.dtypes, [unit.groups.index(number) for number in unit.group_of]

        def update(grads, held, params, words, numbers, told):
            tx = unit.tx if marked is None else recipe.assembled(tightened(marked, numbers), unit)
            state = tree.substitute(numbers_of, dict(enumerate(held)))
            return tx.update(grads, state, params, signals=words, **told, **planned)

        def leafwise(params, grads, held, words, factors, numbers, told):
            wide = [p.to(dtype) for p, dtype in zip(params, dtypes, strict=True)]
            given = {key: g.to(dtype) for key, g, dtype in zip(keys, grads, dtypes, strict=True)}
            updates, state = update(given, held, dict(zip(keys, wide, strict=True)), words, numbers, told)
            moved = [updates[key] for key in keys]
            if sized:
                moved = [scaled(u, factors[number]) for u, number in zip(moved, groups, strict=True)]
            new = [(p + u).to(old.dtype) for p, u, old in zip(wide, moved, params, strict=True)]
            return write_back([*params, *held], [*new, *tree.leaves(state)])

        def flat(params, gradient, held, words, factors, numbers, told):
            updates, state = update(Flat({vector: gradient}), held, Flat({vector: params}), words, numbers, told)
            moved = scaled(updates.vectors[vector], factors[0]) if sized else updates.vectors[vector]
            if owned:
                return None, write_back([params, *held], [(params + moved).to(params.dtype), *tree.leaves(state)])
            return moved, write_back([params, *held], [params, *tree.leaves(state)])

        vector, owned = unit.vector, unit.owned is not None and not unit.casts
        return compiled(leafwise if unit.layout is None else flat, f"a step of {unit.tx.name} on {len(keys)} parameters")
