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
from funcopt.core.ahead import Unavailable, ahead_of_time, hand_on
from funcopt.core.donation import Late, write_back
from funcopt.core.flat import Flat
from funcopt.core.graphs import compiled, tensors_for_numbers
from funcopt.core.step import outside_the_graph
from funcopt.torch_optim.groups import scaled, scaler
from funcopt.torch_optim.recipes import loosened, pattern, tightened
from funcopt.torch_optim.units import Unit

__all__ = ["Compiled"]

SMALL = 2**27  # bytes of parameters up to which the guards of a call count (a tenth of a step on 62 of 800 kB), and copies for a first comparison do not


class Run:
    """A compiled step: ahead of time, where it costs little more than its call and can be had; else through torch.compile.

    `again(leaves)` is the graph ahead of time of the call before if these leaves, in the order
    of the arguments, fit it; else None.
    """

    def __init__(self, by_torch_compile: Callable, ahead: Callable | None):
        self.by_torch_compile, self.ahead = by_torch_compile, ahead
        self.again: Callable[[list[Tensor]], Any] = never if ahead is None else ahead.again

    def __call__(self, params: list[Tensor], held: list[Tensor], given: list[Tensor], rest: dict[str, Any]) -> Any:
        if self.ahead is not None:
            try:
                return self.ahead(params, held, given, rest)
            except Unavailable:
                self.ahead, self.again = None, never
        return self.by_torch_compile(params, held, [x.resolve_neg() for x in given], rest)  # such a graph reads the memory of a lazy view


def never(leaves: list[Tensor]) -> None:
    """There is no graph ahead of time."""


class Compiled:
    """Runs a unit's steps through graphs.

    Args:
        unit: the parameters and their state.
        recipe: makes the transformation anew inside the graph once hyperparameters have changed.
        fixed: keep the addresses of the 0-dim leaves, too.
    """

    def __init__(self, unit: Unit, recipe: Any, fixed: bool):
        self.unit, self.recipe, self.fixed = unit, recipe, fixed
        if unit.layout is None:
            unit.spread()
        self.first = unit.values
        self.graphs: dict[Any, Run] = {}
        self.plain: Run | None = None  # the graph of a step that is told nothing
        self.places = unit.places
        self.owned = unit.owned is not None and not unit.casts
        self.numbers = tree.unflatten(unit.tree, list(range(len(tree.leaves(unit.tree)))))

    def outdated(self) -> bool:
        """Whether the state is another one than that of the graphs."""
        return self.unit.places != self.places

    def advance(self, grads: list[Tensor], words: dict[str, Tensor], factors: list[Any], told: dict[str, Any]) -> Callable:
        unit = self.unit
        sized = len(factors) > 1 or isinstance(factors[0], Tensor) or factors[0] != 1.0
        if self.plain is not None and not (told or sized) and unit.values is self.first:
            return functools.partial(self._run, self.plain, grads, words, [], [], told)  # nothing to be looked up
        tx = unit.tx
        plan = tx.plan(unit.fresh(), **told) if tx.plan else None
        if outside_the_graph(plan):
            return unit.advance(grads, words, told, set(), scaler(unit.group_of, unit.groups, factors))
        loose, marked, numbers = unit.values is not self.first, None, []
        if loose:
            marked, numbers = loosened(unit.values, unit.params[0].device)
        if sized:
            factors = [f if isinstance(f, Tensor) else torch.full((), f, dtype=torch.float64) for f in factors]
        else:
            factors = []
        key = (plan, tuple(told), sized, pattern(unit.values) if loose else None)
        run = self.graphs.get(key)
        if run is None:
            if not unit.apart:  # what a link is not told it says in its own words here, and not in those of a compiler; nothing is written
                unit.advance(grads, words, told, set(), scaler(unit.group_of, unit.groups, [1.0] * len(unit.groups)))
            run = self.graphs[key] = self._build(plan, marked, sized)
        if tx.plan is None and key == (None, (), False, None):
            self.plain = run
        told = tensors_for_numbers(told)
        return lambda: self._run(run, grads, words, factors, numbers, told)

    def _run(self, run: Run, grads, words, factors, numbers, told) -> None:
        unit = self.unit
        if unit.layout is None:
            params, held, given = unit.params if not unit.complex else unit.views(), unit.leaves, grads
        else:
            vector, gradient = unit.gathered(grads)
            params, held, given = ([vector], unit.held, [gradient]) if self.owned else ([], unit.held, [vector, gradient])
        leaves = [*params, *held, *given, *words.values()]
        graph = run.again(leaves) if run is self.plain else None
        if graph is not None:
            value = hand_on(graph, leaves)
        else:
            value = run(params, held, given, {"words": words, "factors": factors, "numbers": numbers, "told": told})
        if unit.layout is not None and not self.owned:
            unit.scatter(vector, value)

    def _late(self, count: int, late: Late) -> None:
        """Writes what the graph has left over: 0-dim leaves, of which the first `count` are parameters."""
        unit = self.unit
        held = unit.leaves if unit.layout is None else unit.held
        for position, target, result in zip(*late, strict=True):
            index = position - count
            if index < 0 or self.fixed:
                target.copy_(result)
                continue
            held[index] = result
            shown = index if unit.layout is None else unit.shown[index]
            unit.leaves[shown] = result
            unit.dicts[shown][unit.names[shown]] = result
            unit.stale = True

    def _build(self, plan: Any, marked: Any, sized: bool) -> Run:
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
            whole, gradient = (*params, *given)
            updates, state = update(Flat({vector: gradient}), held, Flat({vector: whole}), rest)
            moved = scaled(updates.vectors[vector], rest["factors"][0]) if sized else updates.vectors[vector]
            return ([(whole + moved).to(whole.dtype)], tree.leaves(state), ()) if owned else ([], tree.leaves(state), moved)

        vector, owned = unit.vector, self.owned
        pure = leafwise if unit.layout is None else flat
        name = f"a step of {unit.tx.name} on {len(keys)} parameters"

        def donated(params, held, given, rest):
            new_params, new_held, value = pure(params, held, given, rest)
            return write_back([*params, *held], [*new_params, *new_held]), value

        graph = compiled(donated, name)

        def by_torch_compile(params, held, given, rest):
            late, value = graph(params, held, given, rest)
            self._late(len(params), late)
            return value

        small = sum(p.numel() * p.element_size() for p in unit.params) <= SMALL
        return Run(by_torch_compile, ahead_of_time(pure, name, donate=True) if small else None)
