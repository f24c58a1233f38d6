"""The engine of a torch optimizer: which parameters step together, and the step itself.

All that changes lives in one object, in place: wrappers that share an optimizer without
sharing its attributes then see the same.
"""

import operator
import re
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from funcopt.core import check, sharded
from funcopt.core.protocol import GradientTransformation
from funcopt.core.step import CACHED_BYTES, MANY_LEAVES
from funcopt.core.versions import TORCH, compiler_missing
from funcopt.torch_optim import extras
from funcopt.torch_optim.compiled import Compiled
from funcopt.torch_optim.groups import Rates, members, same, scaler, sizing
from funcopt.torch_optim.pieces import refuse_flattened
from funcopt.torch_optim.storage import ENTRY, entry
from funcopt.torch_optim.units import Member, Unit

__all__ = ["Engine", "Options"]

LARGE_LEAF = 2**18  # bytes of an average leaf from which on gathering gradients costs more than a loop of its own, which takes longer to compile
COHORT = "cohort"  # of a parameter that came late or paused: the number of its counters


class Options:
    """How an optimizer runs; numbers that people may change are in its groups."""

    def __init__(self, where: str, *, compile, flat, capturable, process_group, on_missing, state_dtype):
        check.choice(where, "flat", flat, (True, False, "auto"))
        check.choice(where, "on_missing", on_missing, ("raise", "hold"))
        check.choice(where, "state_dtype", state_dtype, ("auto", None))
        self.compile, self.flat, self.capturable = bool(compile), flat, bool(capturable)
        self.process_group, self.on_missing, self.wide = process_group, on_missing, state_dtype == "auto"


class Engine:
    """What a torch optimizer does at a step.

    Args:
        recipe: makes the transformation from the hyperparameters of a group (`recipes.py`).
        options: how it runs.
    """

    def __init__(self, recipe: Any, options: Options):
        self.recipe, self.options = recipe, options
        self.units: list[Unit] = []
        self.ids: list[int] | None = None  # of all parameters, as of the last look
        self.strangers: list[Member] = []  # parameters that have never had a gradient
        self.pending: dict[str, Any] = {}  # observed, and not used yet
        self.standing: dict[str, Any] = {}  # told anew at every step: the epoch that has started
        self.history: list = []  # states at the ends of episodes, for whoever keeps a log
        self.rates = Rates()
        self.epoch = 0  # the last one told
        self.consumed: Mark = None  # the gradients of the last step
        self.observed: Mark = None  # those that were there when the loss was observed that waits
        self.ahead = False  # and whether that loss belongs to gradients to come
        self.evaluating = False
        self.warned = False
        self.given: dict | None = None  # the state dict that is being read

    def __deepcopy__(self, memo: dict) -> "Engine":
        return Engine(self.recipe, self.options)._after(self)

    def __getstate__(self) -> dict[str, Any]:
        return {"recipe": self.recipe, "options": self.options, "epoch": self.epoch, "evaluating": self.evaluating}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["recipe"], state["options"])
        self.epoch, self.evaluating = state["epoch"], state["evaluating"]

    def _after(self, other: "Engine") -> "Engine":
        self.epoch, self.evaluating = other.epoch, other.evaluating
        self.pending.update(other.pending)
        self.standing.update(other.standing)
        return self

    # --- who steps together ---

    def forget(self) -> None:
        """Looks at groups and state anew before the next step."""
        self.ids = None

    def current(self, groups: list[dict], state: dict) -> bool:
        """Whether the units still stand for groups and state as they are."""
        if self.ids is None or [id(p) for group in groups for p in group["params"]] != self.ids:
            return False
        return all(unit.intact(state) and groups[unit.groups[0]].get(ENTRY, {}).get("state") is unit.home for unit in self.units)

    def build(self, groups: list[dict], state: dict, wanted: set[int]) -> None:
        """Units of the parameters that have a state, and of those `wanted` (by id), which get one."""
        by_group: dict[int, list[Member]] = {}
        everybody = members(groups)
        for member in everybody:
            by_group.setdefault(member.group, []).append(member)
        self.units, known = [], set()
        separable = self.recipe.separable(groups[0])
        for number, group in enumerate(groups if separable else groups[:1]):
            candidates = by_group.get(number, []) if separable else everybody
            paths = group.get(ENTRY, {}).get("structure", ())
            memoryless = ENTRY in group and not set(paths) - {bare(name) for name in group[ENTRY]["state"]}
            cohorts: dict[int, list[Member]] = {}
            fresh = []
            for member in candidates:
                own = state.get(member.param) if member.param in state else None
                if own and (COHORT in own or any(path in own for path in paths)):
                    cohorts.setdefault(own.get(COHORT, 0) if separable else 0, []).append(member)
                elif memoryless and (member.param.requires_grad or id(member.param) in wanted):
                    cohorts.setdefault(0, []).append(member)
                elif id(member.param) in wanted:
                    fresh.append(member)
            if fresh:
                if not cohorts and ENTRY in group:  # counters of parameters that are no longer there
                    group[ENTRY]["state"].clear()
                counted = separable and cohorts and self._counts(group)
                late = 1 + max(cohorts) if counted else 0
                cohorts.setdefault(late, []).extend(fresh)
                for member in fresh if late else ():
                    state[member.param][COHORT] = late
            self._make(groups, state, group, cohorts)
            known |= {id(member.param) for part in cohorts.values() for member in part}
        self.strangers = [member for member in everybody if id(member.param) not in known]
        self.ids = [id(p) for group in groups for p in group["params"]]

    def _make(self, groups: list[dict], state: dict, group: dict, cohorts: dict[int, list[Member]]) -> None:
        if not cohorts:
            return
        kept = entry(group)
        structure = set()
        for number, part in sorted(cohorts.items()):
            tx, values = self.recipe.transformation(groups, part)
            refuse_flattened(tx, self.recipe.per_leaf, [member.param for member in part])
            flat = self._choose_flat(tx, part)
            label = f"c{number}/" if number else ""
            fixed, apart = self.options.capturable or self.options.compile, self.recipe.separable(groups[0])
            unit = Unit(tx, part, kept["state"], label, wide=self.options.wide, flat=flat, fixed=fixed, apart=apart)
            unit.values = values
            unit.settle(state)
            if flat and self.options.flat is True:
                unit.own()
            if self.options.compile and self._compiles(unit):
                unit.compiled = Compiled(unit, self.recipe, self.options.capturable)
            structure |= {place.path for place in unit.places}
            self.units.append(unit)
        kept["structure"] = sorted(structure | set(kept["structure"]))

    def _counts(self, group: dict) -> bool:
        """Whether parameters of this group have counters to call their own."""
        return bool(group.get(ENTRY, {}).get("state"))

    def _choose_flat(self, tx: GradientTransformation, part: list[Member]) -> bool:
        wanted = self.options.flat
        if wanted is True and not tx.leafwise:
            raise ValueError(f"torch_optim: flat=True needs a transformation that is leafwise, and {tx.name} looks at each leaf; pass flat='auto'")
        params = [member.param for member in part]
        first = params[0]
        alike = all(type(p) in (Tensor, torch.nn.Parameter) and p.dtype == first.dtype and p.device == first.device for p in params)
        alike = alike and first.is_floating_point() and first.device.type != "meta" and len({member.group for member in part}) == 1
        if not wanted or not tx.leafwise or not alike or (wanted != True and len(params) < 2):  # noqa: E712
            return False
        if wanted is True:
            return True
        size = sum(p.numel() * p.element_size() for p in params)
        if self.options.compile:
            return len(params) >= MANY_LEAVES and size <= LARGE_LEAF * len(params)
        return size <= CACHED_BYTES

    def _compiles(self, unit: Unit) -> bool:
        missing = f"torch {torch.__version__} is older than 2.10" if TORCH < (2, 10) else compiler_missing(unit.params[0].device)
        if missing and not self.warned:
            warnings.warn(f"torch_optim: runs eagerly, since there is no compiler here ({missing})", stacklevel=4)
            self.warned = True
        return not missing and unit.plain

    # --- a step ---

    def jobs(self, groups: list[dict], state: dict) -> list[tuple[Unit, list[Tensor], set[str]]]:
        """The units that have gradients, these, and the keys of those of their parameters that have none."""
        if not self.current(groups, state):
            self.build(groups, state, set())
        arrived = {id(member.param) for member in self.strangers if member.param.grad is not None}
        if arrived:
            self.build(groups, state, arrived)
        found, split = [], False
        for unit in self.units:
            grads = [p.grad for p in unit.params]
            absent = [index for index, g in enumerate(grads) if g is None]
            if len(absent) == len(grads):
                continue
            if absent and self.recipe.separable(groups[0]) and unit.owners:
                self._split(unit, absent, state, groups[unit.groups[0]])
                split = True
            found.append((unit, self._dense(unit, grads, groups), {unit.keys[index] for index in absent}))
        if split:
            self.build(groups, state, set())
            return self.jobs(groups, state)
        return found

    def _split(self, unit: Unit, absent: list[int], state: dict, group: dict) -> None:
        """Gives the parameters that pause the counters of the unit as their own."""
        kept = entry(group)["state"]
        labels = {name.partition("/")[0] for name in kept}  # "c1" of "c1/0/count"
        number = 1
        while f"c{number}" in labels:
            number += 1
        for index in absent:
            state[unit.params[index]][COHORT] = number
        for place, leaf in zip(unit.places, unit.leaves, strict=True):
            if place.owner is None:
                kept[f"c{number}/{place.path}"] = leaf.clone()

    def _dense(self, unit: Unit, grads: list, groups: list[dict]) -> list[Tensor]:
        uphill = [number for number in unit.groups if groups[number].get("maximize", False)]
        if not uphill and not unit.complex and all(grad is not None and grad.layout is torch.strided for grad in grads):
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
                if number in uphill:
                    grad = -grad
            dense.append(torch.view_as_real(grad.resolve_conj()) if grad.is_complex() else grad)
        return dense

    def step(self, groups: list[dict], state: dict, given: dict[str, Any]) -> None:
        if self.evaluating:
            raise ValueError("torch_optim: the parameters are those of evaluation; call train() before step()")
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
        if len(jobs) == 1:
            self.advance(*jobs[0], groups, told)()
        else:
            for commit in [self.advance(*job, groups, told) for job in jobs]:
                commit()
        if told:
            self._used(told)
        self.consumed = marked(groups)

    def _used(self, told: dict[str, Any]) -> None:
        """Forgets what a step was told, all but the epoch."""
        self.pending.clear()
        if isinstance(told.get("epoch"), int):
            self.epoch = told["epoch"]

    def advance(self, unit: Unit, grads: list[Tensor], missing: set[str], groups: list[dict], told: dict[str, Any]) -> Callable[[], None]:
        """Works out a step; what it returns writes it."""
        values = self.recipe.values(groups, unit.groups)
        if not all(map(as_before, values, unit.values)):
            self.recipe.renew(unit, values)
            group = groups[unit.groups[0]]
            entry(group)["structure"] = sorted({place.path for other in self.units if other.groups == unit.groups for place in other.places})
            if unit.compiled is not None and unit.compiled.outdated():
                unit.compiled = Compiled(unit, self.recipe, self.options.capturable)
        told = {name: unit.shaped(name, value, groups) if isinstance(value, (dict, list, tuple)) else value for name, value in told.items()}
        device = unit.params[0].device
        words, factors = sizing(self.rates, groups, unit.groups, None if self.recipe.hears_rate else self.recipe.rate, device)
        unit.factors = factors

        def run(told: dict[str, Any]) -> Callable[[], None]:
            if unit.compiled is not None and not missing:
                return unit.compiled.advance(grads, words, factors, told)
            return unit.advance(grads, words, told, missing, scaler(unit.group_of, unit.groups, factors))

        return self._telling(run, told)

    def _telling(self, run: Callable[[dict], Callable[[], None]], told: dict[str, Any]) -> Callable[[], None]:
        """Runs a step, and says in the words of an optimizer what a link misses."""
        for _ in range(4):
            try:
                return run(told)
            except ValueError as error:
                missed, sentence = extras.told_here(error)
                if missed is None or missed in told:
                    raise
                if self.options.on_missing != "hold":
                    raise ValueError(sentence) from None
                told = {**told, missed: extras.held(missed, self.epoch)}
        return run(told)

    # --- observed, and not used ---

    def observe(self, told: dict[str, Any], groups: list[dict]) -> None:
        told = extras.numbers(told)
        if any(name in told for name in extras.ONCE):
            mark = marked(groups)
            # Gradients have come since the last loss, and that was not used: a step was skipped, and what is observed now belongs to the next ones.
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


def as_before(values: tuple, before: tuple) -> bool:
    """Whether the hyperparameters of a group are what they were; mostly they are the same objects."""
    return all(map(operator.is_, values, before)) or same(values, before)


Mark = tuple[weakref.ref, int] | None


def marked(groups: list[dict]) -> Mark:
    """What tells gradients from others that come later: the first of them, and how often it was written."""
    grad = next((p.grad for group in groups for p in group["params"] if p.grad is not None), None)
    return None if grad is None else (weakref.ref(grad), grad._version)


def unchanged(one: Mark, other: Mark) -> bool:
    if one is None or other is None:
        return one is other
    return one[0]() is other[0]() is not None and one[1] == other[1]


def bare(name: str) -> str:
    """A path without the label of a cohort."""
    return re.sub(r"^c\d+/", "", name)


def only_materialises(groups: list[dict]) -> bool:
    """Whether this is a step that only wants the state to be there: all rates and all gradients are 0."""
    if any(isinstance(group["lr"], Tensor) is False and group["lr"] != 0 for group in groups):
        return False
    if any(isinstance(group["lr"], Tensor) and bool((group["lr"] != 0).any()) for group in groups):
        return False
    grads = [p.grad for group in groups for p in group["params"] if p.grad is not None and p.grad.layout is torch.strided]
    return not any(bool(sharded.whole((grad != 0).any())) for grad in grads)
