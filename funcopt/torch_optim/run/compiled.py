"""The compiled step of a unit: update and addition in one graph, whose results are written into the old buffers.

One graph for each plan of the transformation, or one that chooses where all is small (`execute/planned.py`); rates, counts,
losses and hyperparameters that change are tensors, and no reason to compile again.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from funcopt.core import tree
from funcopt.core.plans import in_one_graph
from funcopt.core.traits import outside_the_graph
from funcopt.execute.engines.ahead import Unavailable, hand_on
from funcopt.execute.engines.dynamo import tensors_for_numbers
from funcopt.execute.layouts.layout import Flat
from funcopt.execute.planned import without_plan
from funcopt.execute.runner import Form, in_form, updated
from funcopt.torch_optim.groups import scaled, scaler
from funcopt.torch_optim.hyperparameters import loosened, pattern, tightened
from funcopt.torch_optim.units import Unit

__all__ = ["Compiled"]

# bytes of parameters up to which the guards of a call count (a tenth of a step on 62 of 800 kB), and copies for a first comparison do not
SMALL = 2**27


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
    """

    def __init__(self, unit: Unit, recipe: Any):
        self.unit, self.recipe = unit, recipe
        if unit.layout is None:
            unit.spread()
        self.first = unit.values
        self.graphs: dict[Any, Run] = {}
        self.plain: Run | None = None  # the graph of a step that is told nothing
        self.places = unit.places
        self.tx = without_plan(unit.tx, unit.params, unit.tree) or unit.tx
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
        tx = self.tx
        plan = tx.plan(unit.fresh(), **told) if tx.plan else None
        if outside_the_graph(plan):
            return unit.advance(grads, words, told, set(), scaler(unit.group_of, unit.groups, factors))
        loose, marked, numbers = unit.values is not self.first, None, []
        if loose:
            marked, numbers = loosened(unit.values, unit.params[0].device)
        if sized:
            factors = [f if isinstance(f, Tensor) else torch.full((), f, dtype=torch.float64, device="cpu") for f in factors]
        else:
            factors = []
        key = (plan, tuple(told), sized, pattern(unit.values) if loose else None)
        run = self.graphs.get(key)
        if run is None:
            # what a link is not told it says in its own words here, and not in those of a compiler; nothing is written
            if not unit.per_leaf:
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

    def _build(self, plan: Any, marked: Any, sized: bool) -> Run:
        unit, recipe, numbers_of, chosen = self.unit, self.recipe, self.numbers, self.tx is not self.unit.tx
        planned = {} if plan is None else {"plan": plan}
        keys, dtypes, groups = unit.keys, unit.dtypes, [unit.groups.index(number) for number in unit.group_of]

        def made(rest):
            tx = unit.tx if marked is None else recipe.assembled(tightened(marked, rest["numbers"]), unit)
            return (in_one_graph(tx) or tx) if chosen else tx

        def state_of(held):
            return tree.substitute(numbers_of, dict(enumerate(held)))

        def said(rest):
            return {"signals": rest["words"], **rest["told"], **planned}

        def leafwise(params, held, grads, rest):
            wide = {key: p.to(dtype) for key, p, dtype in zip(keys, params, dtypes, strict=True)}
            given = {key: g.to(dtype) for key, g, dtype in zip(keys, grads, dtypes, strict=True)}

            def longer(updates):
                return {key: scaled(updates[key], rest["factors"][number]) for key, number in zip(keys, groups, strict=True)}

            new, state = updated(made(rest), given, state_of(held), wide, said(rest), longer if sized else None)
            return [new[key].to(old.dtype) for key, old in zip(keys, params, strict=True)], tree.leaves(state), ()

        def flat(params, held, given, rest):
            whole, gradient = (*params, *given)

            def longer(updates):
                return Flat({vector: scaled(updates.vectors[vector], rest["factors"][0])})

            trees = Flat({vector: gradient}), state_of(held), Flat({vector: whole})
            if owned:
                new, state = updated(made(rest), *trees, said(rest), longer if sized else None)
                return [new.vectors[vector]], tree.leaves(state), ()
            updates, state = made(rest).update(*trees, **said(rest))  # which are added where the parameters lie
            return [], tree.leaves(state), (longer(updates) if sized else updates).vectors[vector]

        vector, owned = unit.vector, self.owned
        pure = leafwise if unit.layout is None else flat
        name = f"a step of {unit.tx.name} on {len(keys)} parameters"
        small = sum(p.numel() * p.element_size() for p in unit.params) <= SMALL
        ahead = in_form(pure, name, Form("ahead", donate=True)) if small else None
        return Run(in_form(pure, name, Form("dynamo", donate=True, dynamic=False, where="torch_optim")), ahead)
