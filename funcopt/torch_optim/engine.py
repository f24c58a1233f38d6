"""The engine of a torch optimizer: the step itself, of the units that `assembly.py` makes.

All that changes lives in one object, in place: wrappers that share an optimizer without
sharing its attributes then see the same.
"""

import copy
import warnings
import weakref
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from funcopt.core import check, sharded
from funcopt.core.arrival import arrived
from funcopt.execute.settings import Auto, Flat
from funcopt.torch_optim import extras
from funcopt.torch_optim.assembly import Assembly
from funcopt.torch_optim.groups import Rates, refuse_stretched, scaler, sizing
from funcopt.torch_optim.hyperparameters import pattern
from funcopt.torch_optim.reading import Reading, as_before
from funcopt.torch_optim.storage import ENTRY
from funcopt.torch_optim.units import Unit
from funcopt.transforms.groups import beside

__all__ = ["Engine", "Flat", "OnMissing", "Options", "StateDtype"]

OnMissing = Literal["raise", "hold"]
StateDtype = Literal["auto"]

# into copies and pickles; the units are made anew, of what is stored
TAKEN_ALONG = ("epoch", "evaluating", "pending", "standing", "history", "ahead")


class Options:
    """How an optimizer runs; numbers that people may change are in its groups."""

    def __init__(self, where: str, *, compile, flat, capturable, process_group, on_missing, state_dtype):
        check.choice(where, "flat", flat, (True, False, *get_args(Auto)))
        check.choice(where, "on_missing", on_missing, get_args(OnMissing))
        check.choice(where, "state_dtype", state_dtype, (*get_args(StateDtype), None))
        self.compile, self.flat, self.capturable = compile, flat, capturable
        self.process_group, self.on_missing, self.wide = process_group, on_missing, state_dtype == "auto"


class Engine(Assembly):
    """What a torch optimizer does at a step.

    Args:
        recipe: makes the transformation from the hyperparameters of a group (`recipes.py`).
        options: how it runs.
    """

    def __init__(self, recipe: Any, options: Options):
        super().__init__(recipe, options)
        self.pending: dict[str, Any] = {}  # observed, and not used yet
        self.standing: dict[str, Any] = {}  # told anew at every step: the epoch that has started
        self.history: list = []  # states at the ends of episodes, for whoever keeps a log
        self.rates, self.reading = Rates(), Reading(recipe)
        self.looked = 0  # changes of hyperparameters for which it is known whether links come or go
        self.said: list[tuple] = []  # the hyperparameters of the groups at this step
        self.epoch = 0  # the last one told
        self.consumed: Mark = None  # the gradients of the last step
        self.observed: Mark = None  # those that were there when the loss was observed that waits
        self.ahead = False  # and whether that loss belongs to gradients to come
        self.told_of_late_ones = False
        self.evaluating = False
        self.given: dict | None = None  # the state dict that is being read

    def __deepcopy__(self, memo: dict) -> "Engine":
        again = Engine(self.recipe, self.options)
        vars(again).update({name: copy.deepcopy(getattr(self, name), memo) for name in TAKEN_ALONG})
        return again

    def __getstate__(self) -> dict[str, Any]:
        return {"recipe": self.recipe, "options": self.options, **{name: getattr(self, name) for name in TAKEN_ALONG}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["recipe"], state["options"])
        vars(self).update({name: state[name] for name in TAKEN_ALONG if name in state})

    # --- a step ---

    def jobs(self, groups: list[dict], state: dict) -> list[tuple[Unit, list[Tensor], set[str]]]:
        """The units that have gradients, these, and the keys of those of their parameters that have none."""
        if not self.current(groups, state):
            self.build(groups, state, set())
        if self.looked != self.reading.changes and self._outdated():
            self.build(groups, state, {id(p) for group in groups for p in group["params"] if p.grad is not None})
        self.looked = self.reading.changes
        late = {id(member.param) for member in self.strangers if member.param.grad is not None}
        if late:
            if not self.recipe.per_leaf:
                self._warn_of_late_ones({member.group for member in self.strangers if id(member.param) in late})
            self.build(groups, state, late)
        found, split = [], False
        for unit in self.units:
            if unit.addresses is not None and list(map(Tensor.data_ptr, unit.params)) != unit.addresses:
                self.moved(unit, groups)
            grads = [p.grad for p in unit.params]
            absent = [index for index, g in enumerate(grads) if g is None]
            if len(absent) == len(grads):
                continue
            if absent and self.recipe.per_leaf and unit.owners:
                self.split(unit, absent, state, groups[unit.number])
                split = True
            found.append((unit, self._dense(unit, grads, groups), {unit.keys[index] for index in absent}))
        if split:
            self.build(groups, state, set())
            return self.jobs(groups, state)
        return found

    def _warn_of_late_ones(self, groups: set[int]) -> None:
        """Says once that parameters that come later count as the others do, where torch would count for each."""
        unit = next((unit for unit in self.units if not self.recipe.by_group or unit.number in groups), None)
        if unit is None:
            return
        counted = any(place.owner is None and not leaf.is_floating_point() for place, leaf in zip(unit.places, unit.leaves, strict=True))
        if counted and unit.owners and not self.told_of_late_ones:
            self.told_of_late_ones = True
            warnings.warn(
                f"torch_optim: {unit.tx.name} sees all parameters as one, so that a parameter that gets its first gradient now counts "
                "the steps of the others "
                "(behind Adam its first steps are shorter than in torch); "
                "for counters of its own take a method that works out each parameter by itself, as "
                "fo.torch_optim.adamw after torch.nn.utils.clip_grad_norm_",
                stacklevel=9,
            )

    def _outdated(self) -> bool:
        """Whether hyperparameters have changed so that links come or go; the units that are concerned are made anew then."""
        for unit in self.units:
            values = tuple([self.said[number] for number in unit.groups])
            if not all(map(as_before, values, unit.values)) and pattern(values) != pattern(unit.values):
                unit.values, unit.outdated = values, True
        return any(unit.outdated for unit in self.units)

    def _dense(self, unit: Unit, grads: list, groups: list[dict]) -> list[Tensor]:
        uphill = [number for number in unit.groups if groups[number].get("maximize", False)]
        alike = all(
            grad is not None and grad.dtype is p.dtype and grad.layout is torch.strided for grad, p in zip(grads, unit.params, strict=True)
        )
        if alike and not uphill and not unit.complex:
            return grads
        dense = []
        for grad, param, number in zip(grads, unit.params, unit.group_of, strict=True):
            if grad is None:
                grad = torch.zeros_like(param, requires_grad=False)
            else:
                if grad.layout is not torch.strided:
                    grad = grad.to_dense()
                if not unit.plain:
                    grad = sharded.laid_out(grad, param)  # that of a parameter that all ranks hold may come in parts
                if grad.dtype is not param.dtype:  # as `grad_dtype` of torch allows
                    grad = arrived("torch_optim", grad, param)
                if number in uphill:
                    grad = -grad
            dense.append(torch.view_as_real(grad.resolve_conj()) if grad.is_complex() else grad)
        return dense

    def step(self, groups: list[dict], state: dict, given: dict[str, Any]) -> None:
        if self.evaluating:
            raise ValueError("torch_optim: the parameters are those of evaluation; call train() before step()")
        self.said = self.reading(groups)
        if not self.units and not any(ENTRY in group for group in groups):
            wanted = {id(p) for group in groups for p in group["params"] if p.grad is not None}
            if wanted:
                self.recipe.agree(self.options.process_group)
            if wanted and only_materialises(groups):
                self.build(groups, state, wanted)
                return
        jobs = self.jobs(groups, state)
        if not jobs:
            return
        told = {**self.standing, **self.pending, **extras.numbers(given)}
        if told:
            told = extras.averaged(told, self.options.process_group)
        if self.beside:
            with beside(self.beside):
                self.advance_all(jobs, groups, told)
        else:
            self.advance_all(jobs, groups, told)
        if told:
            self._used(told)
        self.consumed = marked(groups)

    def advance_all(self, jobs: list[tuple[Unit, list[Tensor], set[str]]], groups: list[dict], told: dict[str, Any]) -> None:
        """All steps are worked out before the first is written."""
        if len(jobs) == 1:
            self.advance(*jobs[0], groups, told)()
        else:
            for commit in [self.advance(*job, groups, told) for job in jobs]:
                commit()

    def _used(self, told: dict[str, Any]) -> None:
        """Forgets what a step was told, all but the epoch."""
        self.pending.clear()
        if isinstance(told.get("epoch"), int):
            self.epoch = told["epoch"]

    def advance(self, unit: Unit, grads: list[Tensor], missing: set[str], groups: list[dict], told: dict[str, Any]) -> Callable[[], None]:
        """Works out a step; what it returns writes it."""
        if unit.seen != self.reading.changes:
            values = tuple([self.said[number] for number in unit.groups])
            if not all(map(as_before, values, unit.values)):
                self.recipe.renew(unit, values)
            unit.seen = self.reading.changes
        if told:
            shaped = {name: unit.shaped(name, value, groups) for name, value in told.items() if isinstance(value, (dict, list, tuple))}
            told = told | shaped
        device = unit.params[0].device
        words, factors = sizing(self.rates, groups, unit.groups, None if self.recipe.hears_rate else self.recipe.rate, device)
        if unit.tx.traits.rounds:
            refuse_stretched(unit.tx.name, factors)
        unit.factors = factors

        if unit.tx.traits.needs:
            told = extras.completed(unit.tx, told, self.options.on_missing, self.epoch)
        try:
            if unit.compiled is not None and not missing:
                return unit.compiled.advance(grads, words, factors, told)
            return unit.advance(grads, words, told, missing, scaler(unit.group_of, unit.groups, factors))
        except check.Missing as error:  # of what is not always needed, and so is declared by nobody
            raise ValueError(f"{error.what}; {extras.call(error.word)}") from None

    # --- observed, and not used ---

    def observe(self, told: dict[str, Any], groups: list[dict]) -> None:
        told = extras.numbers(told)
        if any(name in told for name in extras.ONCE):
            mark = marked(groups)
            # Gradients have come since the last loss, and that was not used: a step was skipped, and what is observed now belongs to
            # the next ones.
            if not any(name in self.pending for name in extras.ONCE):
                self.ahead = False
            elif not unchanged(mark, self.observed):
                self.ahead = True
            self.observed = mark
        self.pending.update(told)

    def drop_stale(self, groups: list[dict]) -> None:
        """Forgets a loss whose gradients are thrown away before any step has used them."""
        if not any(name in self.pending for name in extras.ONCE):
            return
        mark = marked(groups)
        if mark is not None and not unchanged(mark, self.consumed) and not (self.ahead and unchanged(mark, self.observed)):
            for name in extras.ONCE:
                self.pending.pop(name, None)


Mark = tuple[weakref.ref, int] | None


def marked(groups: list[dict]) -> Mark:
    """What tells gradients from others that come later: the first of them, and how often it was written."""
    grad = next((p.grad for group in groups for p in group["params"] if p.grad is not None), None)
    return None if grad is None else (weakref.ref(grad), grad._version)


def unchanged(one: Mark, other: Mark) -> bool:
    if one is None or other is None:
        return one is other
    return one[0]() is other[0]() is not None and one[1] == other[1]


def only_materialises(groups: list[dict]) -> bool:
    """Whether this is a step that only wants the state to be there: all rates and all gradients are 0."""
    if any(isinstance(group["lr"], Tensor) is False and group["lr"] != 0 for group in groups):
        return False
    if any(isinstance(group["lr"], Tensor) and bool((group["lr"] != 0).any()) for group in groups):
        return False
    grads = [p.grad for group in groups for p in group["params"] if p.grad is not None and p.grad.layout is torch.strided]
    return not any(bool(sharded.whole((grad != 0).any())) for grad in grads)
