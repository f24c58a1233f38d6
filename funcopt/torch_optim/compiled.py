"""The compiled step of a unit: update and addition in one graph, whose results are written into the old buffers.

One graph for each plan of the transformation; rates, counts, losses and hyperparameters
that change are tensors, and no reason to compile again.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from funcopt.core import tree
from funcopt.core.ahead import Unavailable, ahead_of_time
from funcopt.core.donation import write_back
from funcopt.core.flat import Flat
from funcopt.core.graphs import compiled, tensors_for_numbers
from funcopt.core.step import outside_the_graph
from funcopt.torch_optim.groups import scaled, scaler
from funcopt.torch_optim.recipes import loosened, pattern, tightened
from funcopt.torch_optim.units import Unit

__all__ = ["Compiled"]

SMALL = 16 * 2**20  # bytes of parameters up to which the overhead of a call counts


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
        self.plain: Callable | None = None  # the graph of a step that is told nothing
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
        if self.plain is not None and not told and unit.values is self.first and all(type(f) is float and f == 1.0 for f in factors):
            return functools.partial(self._run, self.plain, grads, words, [], [], told)  # nothing to be looked up
        loose, marked, numbers = unit.values is not self.first, None, []
        if loose:
            marked, numbers = loosened(unit.values, unit.params[0].device)
        sized = len(factors) > 1 or isinstance(factors[0], Tensor) or factors[0] != 1.0
        if sized:
            factors = [f if isinstance(f, Tensor) else torch.full((), f, dtype=torch.float64) for f in factors]
        else:
            factors = []
        key = (plan, tuple(told), sized, pattern(unit.values) if loose else None)
        run = self.graphs.get(key)
        if run is None:
            run = self.graphs[key] = self._build(plan, marked, sized)
        if key == (None, (), False, None):
            self.plain = run
        told = tensors_for_numbers(told)
        return lambda: self._run(run, grads, words, factors, numbers, told)

    def _run(self, run: Callable, grads, words, factors, numbers, told) -> None:
        unit = self.unit
        rest = {"words": words, "factors": factors, "numbers": numbers, "told": told}
        if unit.layout is None:
            params, held = unit.params if not unit.complex else unit.views(), unit.leaves
            run(params, held, grads, rest)
            return
        params, gradient = unit.gathered(grads)
        if unit.owned is not None and not unit.casts:
            run([params], unit.held, gradient, rest)
        else:
            unit.scatter(params, run([], unit.held, (params, gradient), rest))

    def _late(self, params: list[Tensor], positions: tuple[int, ...], results: list[Tensor]) -> None:
        """Writes what the graph has left over: 0-dim leaves."""
        unit, count = self.unit, len(params)
        held = unit.leaves if unit.layout is None else unit.held
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

        def update(grads, held, params, rest):
            tx = unit.tx if marked is None else recipe.assembled(tightened(marked, rest["numbers"]), unit)
            state = tree.substitute(numbers_of, dict(enumerate(held)))
            return tx.update(grads, state, params, signals=rest["words"], **rest["told"], **planned)

        def leafwise(params, held, grads, rest):
            wide = [p.to(dtype) for p, dtype in zip(params, dtypes, strict=True)]
            given = {key: g.to(dtype) for key, g, dtype in zip(keys, grads, dtypes, strict=True)}
            updates, state = update(given, held, dict(zip(keys, wide, strict=True)), rest)
            moved = [updates[key] for key in keys]
            if sized:
                moved = [scaled(u, rest["factors"][number]) for u, number in zip(moved, groups, strict=True)]
            return [(p + u).to(old.dtype) for p, u, old in zip(wide, moved, params, strict=True)], tree.leaves(state), ()

        def flat(params, held, given, rest):
            whole, gradient = (params[0], given) if owned else given
            updates, state = update(Flat({vector: gradient}), held, Flat({vector: whole}), rest)
            moved = scaled(updates.vectors[vector], rest["factors"][0]) if sized else updates.vectors[vector]
            return ([(whole + moved).to(whole.dtype)], tree.leaves(state), ()) if owned else ([], tree.leaves(state), moved)

        vector, owned = unit.vector, unit.owned is not None and not unit.casts
        pure = leafwise if unit.layout is None else flat
        name = f"a step of {unit.tx.name} on {len(keys)} parameters"

        def donated(params, held, given, rest):
            new_params, new_held, value = pure(params, held, given, rest)
            return write_back([*params, *held], [*new_params, *new_held]), value

        graph = compiled(donated, name)

        def run(params, held, given, rest):
            late, value = graph(params, held, given, rest)
            self._late(params, *late)
            return value

        if sum(p.numel() * p.element_size() for p in unit.params) > SMALL:
            return run
        return self._ahead(pure, name, run)

    def _ahead(self, pure: Callable, name: str, otherwise: Callable) -> Callable:
        """The engine without guards, for steps that cost little more than their call; it writes 0-dim leaves in place."""
        ahead = ahead_of_time(pure, name, donate=True, owned=False)
        chosen: list[Callable] = []

        def run(params, held, given, rest):
            if chosen:
                return chosen[0](params, held, given, rest)
            try:
                value = ahead(params, held, given, rest)
                chosen.append(ahead)
                return value
            except Unavailable:
                chosen.append(otherwise)
                return otherwise(params, held, given, rest)

        return run
