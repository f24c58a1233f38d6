"""Who steps together: from groups, and the state that is there, to units.

A transformation that works out each parameter by itself keeps a group's state with that group, and so does one to
which each group is a tree of its own. One that sees all groups as one tree keeps it with the first. None of it depends
on who had a gradient first.
"""

from typing import Any

import torch
from torch import Tensor

from funcopt.core.protocol import GradientTransformation
from funcopt.execute.policy import compiles, gathers, sizes
from funcopt.torch_optim import notes
from funcopt.torch_optim.cohorts import COHORT, arrive, bare, free, label, leave, number_of, shared_of, swept, uneven
from funcopt.torch_optim.groups import members, refuse_tied
from funcopt.torch_optim.refuse_shards import refuse_flattened
from funcopt.torch_optim.run.compiled import Compiled
from funcopt.torch_optim.storage import ENTRY, entry
from funcopt.torch_optim.units import Member, Unit
from funcopt.transforms.groups import beside

__all__ = ["Assembly"]


class Assembly:
    """The units of an optimizer.

    Args:
        recipe: makes the transformation from the hyperparameters of a group (`recipes.py`).
        options: how it runs (`engine.Options`).
    """

    def __init__(self, recipe: Any, options: Any):
        self.recipe, self.options = recipe, options
        self.units: list[Unit] = []
        self.ids: list[int] | None = None  # of all parameters, as of the last look
        self.strangers: list[Member] = []  # parameters that have never had a gradient
        # the names of all parameters, if a unit is a part of them: of its group, or of those with gradients
        self.beside: frozenset[str] = frozenset()
        self.tied: set[int] = set()  # parameters (by id) that share memory with one that is not trained
        self.warned = False

    def forget(self) -> None:
        """Looks at groups and state anew before the next step."""
        self.ids = None

    def current(self, groups: list[dict], state: dict) -> bool:
        """Whether the units still stand for groups and state as they are."""
        if self.ids is None or placed(groups) != self.ids:
            return False
        return all(unit.intact(state) and groups[unit.number].get(ENTRY, {}).get("state") is unit.home for unit in self.units)

    def build(self, groups: list[dict], state: dict, wanted: set[int]) -> None:
        """Units of the parameters that have a state, and of those `wanted` (by id), which get one; one to which nothing happened stays.

        Groups that step apart keep their own state. What sees all of them as one tree lives in the first, with gradients or without.
        """
        self.note(groups, state)
        self.tied = refuse_tied(groups)
        of_group: dict[int, list[Member]] = {}
        everybody = members(groups)
        per_leaf, by_group = self.recipe.per_leaf, self.recipe.by_group
        for member in everybody:
            of_group.setdefault(member.group, []).append(member)
        before, self.units = self.units, []
        arrive(groups, state)
        for number, group in enumerate(groups if by_group else groups[:1]):
            candidates = of_group.get(number, []) if by_group else everybody
            paths = group.get(ENTRY, {}).get("structure", ())
            memoryless = ENTRY in group and not set(paths) - {bare(name) for name in group[ENTRY]["state"]}
            stepping = standing(candidates, group, state, before) if memoryless else set()
            cohorts: dict[int, list[Member]] = {}
            fresh = []
            for member in candidates:
                own = state.get(member.param) if member.param in state else None
                if own and (COHORT in own or any(path in own for path in paths)):
                    cohorts.setdefault(own.get(COHORT, 0) if per_leaf else 0, []).append(member)
                elif id(member.param) in stepping:
                    cohorts.setdefault(0, []).append(member)
                elif id(member.param) in wanted:
                    fresh.append(member)
            if fresh:
                if by_group and not per_leaf:
                    begin_anew(fresh, groups, state)
                if not cohorts and ENTRY in group:  # counters of parameters that are no longer there
                    group[ENTRY]["state"].clear()
                    notes.forget(group)
                counted = per_leaf and cohorts and group.get(ENTRY, {}).get("state")
                late = free(group[ENTRY]["state"], cohorts) if counted else 0
                cohorts.setdefault(late, []).extend(fresh)
                for member in fresh if late else ():
                    state[member.param][COHORT] = late
            with beside(frozenset(member.key for member in everybody)):
                self._make(groups, state, number, cohorts, before, wanted)
            mark(self.units, number, candidates, state)
            if per_leaf and ENTRY in group:
                swept(group[ENTRY]["state"], [unit.label for unit in self.units if unit.number == number])
        known = {id(param) for unit in self.units for param in unit.params}
        partial = any(len(unit.keys) < len(everybody) for unit in self.units)
        self.beside = frozenset(member.key for member in everybody) if partial else frozenset()
        self.strangers = [member for member in everybody if id(member.param) not in known]
        self.ids = placed(groups)

    def _make(
        self, groups: list[dict], state: dict, home: int, cohorts: dict[int, list[Member]], before: list[Unit], wanted: set[int]
    ) -> None:
        if not cohorts:
            return
        kept, made = entry(groups[home]), []
        for number, part in sorted(cohorts.items()):
            own = label(number)
            former = next((unit for unit in before if unit.label == own and unit.home is kept["state"]), None)
            if former is not None and not former.outdated and former.stands_for(part, state):
                made.append(former)
                continue
            units = self._made(groups, notes.made_for(groups, home, own), state, home, own, part, former, wanted)
            if former is not None and former.outdated:
                self._left(former, units)
            made += units
        self.units += made
        kept["structure"] = sorted({place.path for unit in made for place in unit.places} | set(kept["structure"]))

    def _left(self, former: Unit, units: list[Unit]) -> None:
        """Forgets what an option has kept that is off now, unless it waits."""
        present = {(id(home), name) for unit in units for home, name in zip(unit.dicts, unit.names, strict=True)}
        for home, name in zip(former.dicts, former.names, strict=True):
            if (id(home), name) not in present and bare(name) not in self.recipe.waits:
                home.pop(name, None)

    def _made(
        self,
        groups: list[dict],
        said: list[dict],
        state: dict,
        home: int,
        label: str,
        part: list[Member],
        former: Unit | None,
        wanted: set[int],
        sort=True,
    ) -> list[Unit]:
        """The units of a cohort, for hyperparameters as they were `said`: one, unless some members miss what an option asks for."""
        tx, values = self.recipe.transformation(said, part)
        refuse_flattened(tx, self.recipe.per_leaf, [member.param for member in part])
        flat = self._choose_flat(tx, part)
        fixed, per_leaf = self.options.capturable or self.options.compile, self.recipe.per_leaf
        unit = Unit(tx, part, entry(groups[home])["state"], home, label, wide=self.options.wide, flat=flat, fixed=fixed, per_leaf=per_leaf)
        unit.values = values
        notes.recall(unit, groups)
        unit.begin(former if former is not None and not former.outdated and former.intact(state) else None)
        if sort and per_leaf:
            labelled = uneven(unit, state, wanted, self.recipe)
            if len(labelled) != 1 or len(labelled[0][1]) != len(part):
                return [
                    one for label, some in labelled for one in self._made(groups, said, state, home, label, some, None, wanted, sort=False)
                ]
        unit.settle(state)
        unit.alone = not any(id(param) in self.tied for param in unit.params)
        if flat and self.options.flat is True:
            unit.own()
        if self.options.compile and self._compiles(unit):
            unit.compiled = Compiled(unit, self.recipe)
        return [unit]

    def moved(self, unit: Unit, groups: list[dict]) -> None:
        """Looks anew where parameters lie, once somebody has given one other memory (vector_to_parameters, a swap of averages)."""
        self.tied = refuse_tied(groups)
        unit.alone, owned = not any(id(param) in self.tied for param in unit.params), unit.owned is not None
        unit.look()
        if owned:
            unit.own()
        if owned and unit.owned is None and unit.compiled is not None:
            unit.compiled = Compiled(unit, self.recipe)

    def note(self, groups: list[dict], state: dict) -> None:
        """Keeps with the state what the units know beside it."""
        notes.write(self.units, groups, self.recipe.names)
        if self.units and self.recipe.per_leaf:
            leave(self.units, groups, state)

    def _choose_flat(self, tx: GradientTransformation, part: list[Member]) -> bool:
        wanted = self.options.flat
        if wanted is True and not tx.flattenable:
            raise ValueError(
                f"torch_optim: flat=True needs a transformation that is flattenable, and {tx.name} looks at each leaf; pass flat='auto'"
            )
        params = [member.param for member in part]
        first = params[0]
        alike = all(type(p) in (Tensor, torch.nn.Parameter) and p.dtype == first.dtype and p.device == first.device for p in params)
        alike = alike and first.is_floating_point() and first.device.type != "meta" and len({member.group for member in part}) == 1
        if not wanted or not tx.flattenable or not alike:
            return False
        return wanted is True or gathers(sizes(params), bool(self.options.compile))

    def _compiles(self, unit: Unit) -> bool:
        here = compiles("torch_optim", unit.params[0].device, best_effort=False, told=self.warned)
        self.warned = self.warned or not here
        return here and unit.plain

    def split(self, unit: Unit, absent: list[int], state: dict, group: dict) -> None:
        """Gives the parameters that pause the counters of the unit as their own."""
        kept = entry(group)["state"]
        number = free(kept)
        kept |= {label(number) + path: value.clone() for path, value in shared_of(kept, unit.label).items()}
        for index in absent:
            state[unit.params[index]][COHORT] = number


def placed(groups: list[dict]) -> list[int]:
    """Which parameters there are (by id) and where each group ends."""
    return [id(p) for group in groups for p in (*group["params"], None)]


def standing(candidates: list[Member], group: dict, state: dict, before: list[Unit]) -> set[int]:
    """Who steps (by id) where no leaf of a parameter tells: all that stepped until now or are named in a saved state; all if none is."""
    if any(COHORT in state.get(member.param, ()) for member in candidates):
        return set()
    stepped = {id(param) for unit in before if unit.home is group[ENTRY]["state"] for param in unit.params}
    return stepped or {id(member.param) for member in candidates}


def begin_anew(fresh: list[Member], groups: list[dict], state: dict) -> None:
    """Forgets what parameters kept in another group, whose counters stay there: what is remembered and what is counted go together."""
    kept = {path for group in groups for path in group.get(ENTRY, {}).get("structure", ())}
    for member in fresh:
        own = state.get(member.param) or {}
        for path in kept & own.keys():
            del own[path]


def mark(units: list[Unit], home: int, candidates: list[Member], state: dict) -> None:
    """Notes of parameters that step and have no leaf of their own that they do, unless all of a group are such."""
    made = [unit for unit in units if unit.number == home]
    if sum(len(unit.params) for unit in made) == len(candidates):
        if not any(unit.owning for unit in made) and not any(COHORT in state.get(member.param, ()) for member in candidates):
            return
    for unit in made:
        owning = set(map(id, unit.owning))
        for param in unit.params:
            if id(param) not in owning:
                state[param].setdefault(COHORT, number_of(unit.label))
