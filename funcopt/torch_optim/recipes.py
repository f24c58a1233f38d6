"""Recipes: from what a group says to the transformation that its parameters step with.

Numbers that were there at construction are checked and built in. Numbers that change
later (a scheduler cycles the momentum) are handed over as 0-dim tensors, on trust, so
that no step compares them or is compiled anew for them.
"""

import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from funcopt.core import tree
from funcopt.core.keys import seeds_drawn, seeds_repeated
from funcopt.core.protocol import GradientTransformation
from funcopt.torch_optim.groups import by_leaf, same
from funcopt.torch_optim.units import Member, Unit

__all__ = ["Fixed", "Made", "hears_rate", "loosened", "tightened"]


def hears_rate(tx: GradientTransformation) -> bool:
    """Whether the loop must say `base_lr`, since no link does."""
    return tx.hears.get("base_lr") == "needed" and "base_lr" not in tx.must_be_heard


class Fixed:
    """A finished transformation, or a function without arguments that makes it."""

    names: tuple[str, ...] = ()

    def __init__(self, transformation: Any):
        self.factory = None if isinstance(transformation, GradientTransformation) else transformation
        self.tx = transformation() if self.factory is not None and callable(transformation) else transformation
        if not isinstance(self.tx, GradientTransformation):
            raise TypeError(f"torch_optim.Optimizer: transformation must be a GradientTransformation, or a function that makes one, got {transformation!r}")
        self.hears_rate = hears_rate(self.tx)
        self.rate = 1.0  # the lr of a group with which a transformation with its own rate makes its own step
        self.per_leaf = by_leaf(self.tx)

    def __reduce__(self):
        if self.factory is None:
            raise pickle.PicklingError(
                f"torch_optim.Optimizer: {self.tx.name} is made of functions and cannot be pickled; "
                "use a module-level function or the class form: Optimizer(params, make_transformation), or optimizer_class(factory)"
            )
        return Fixed, (self.factory,)

    def __deepcopy__(self, memo: dict) -> "Fixed":
        return self

    def separable(self, group: dict) -> bool:
        return self.per_leaf

    def values(self, groups: Sequence[dict], numbers: Sequence[int]) -> tuple:
        return ()

    def transformation(self, groups: Sequence[dict], part: Sequence[Member]) -> tuple[GradientTransformation, tuple]:
        return self.tx, ()

    def assembled(self, values: tuple, unit: Unit) -> GradientTransformation:
        return self.tx

    def trusted(self, values: tuple) -> bool:
        return True

    def renew(self, unit: Unit, values: tuple) -> None:
        """Nothing can have changed."""

    def check(self, group: dict, groups: Sequence[dict]) -> None:
        """There is nothing to check."""

    def agree(self, process_group: Any) -> None:
        """What it draws from is its maker's business."""


class Made:
    """A factory called with the hyperparameters of the groups.

    Args:
        owner: the class of the optimizer, which knows the factory: `owner.build(**values)`.
        names: the keys of groups that the factory takes.
        statics: what else it is called with.
        rate: the lr of a group with which a transformation with its own rate makes its own step; None: 1.0.
    """

    def __init__(self, owner: type, names: Sequence[str], statics: Mapping[str, Any], defaults: Mapping[str, Any], rate: float | None = None):
        self.owner, self.names, self.statics = owner, tuple(names), dict(statics)
        self.defaults = {name: defaults[name] for name in self.names}
        self.seeds: list | None = None
        self.known: list[tuple] = []  # hyperparameters of single groups that have passed the checks of the factory
        sample = self.make(self.defaults)
        self.hears_rate, self.per_leaf = hears_rate(sample), by_leaf(sample)
        self.rate = 1.0 if rate is None else rate

    def __deepcopy__(self, memo: dict) -> "Made":
        return self

    def make(self, values: Mapping[str, Any], mask: Any = None) -> GradientTransformation:
        masks = {} if mask is None else {"weight_decay_mask": mask}
        if self.seeds is None:
            with seeds_drawn() as seeds:
                tx = self.owner.build(**{**values, **self.statics, **masks})
            self.seeds = list(seeds)
            return tx
        if not self.seeds:
            return self.owner.build(**{**values, **self.statics, **masks})
        with seeds_repeated(self.seeds):
            return self.owner.build(**{**values, **self.statics, **masks})

    def agree(self, process_group: Any) -> None:
        """Takes over the seeds that the first rank has drawn, where nobody gave any: torch's generator may be seeded differently on each."""
        if self.seeds and process_group is not False and torch.distributed.is_available() and torch.distributed.is_initialized():
            from funcopt.distributed.exchange import broadcast

            self.seeds = broadcast(self.seeds, 0, process_group)

    def of(self, group: dict) -> tuple:
        return tuple(group.get(name, self.defaults[name]) for name in self.names)

    def check(self, group: dict, groups: Sequence[dict]) -> None:
        """Raises what the factory says of these numbers, and where a method that sees the whole tree is told different ones."""
        values = self.of(group)
        self.make(dict(zip(self.names, values, strict=True)))
        self.known.append(values)
        if self.per_leaf or not groups:
            return
        for name, value, first in zip(self.names, values, self.of(groups[0]), strict=True):
            if not same(value, first) and not (name == "weight_decay" and self.masks):
                raise ValueError(
                    f"{self.owner.__name__}: looks at all parameters as one, so {name} must be the same in all groups, got {value!r} beside {first!r}"
                )
        decays = {group.get("weight_decay", 0) for group in [*groups, group]} - {0} if self.masks else set()
        if len(decays) > 1:
            raise ValueError(
                f"{self.owner.__name__}: looks at all parameters as one, so a group's weight_decay must be 0 or that of the others, got {sorted(decays)}"
            )

    @property
    def masks(self) -> bool:
        return "weight_decay" in self.names and self.owner.masks(**self.statics)

    def separable(self, group: dict) -> bool:
        return self.per_leaf

    def values(self, groups: Sequence[dict], numbers: Sequence[int]) -> tuple:
        return tuple(self.of(groups[number]) for number in numbers)

    def trusted(self, values: tuple) -> bool:
        return all(any(same(part, known) for known in self.known) for part in values)

    def transformation(self, groups: Sequence[dict], part: Sequence[Member]) -> tuple[GradientTransformation, tuple]:
        numbers = sorted({member.group for member in part})
        values = self.values(groups, numbers)
        unit_of = dict(zip(numbers, values, strict=True))
        decays = [(member.key, unit_of[member.group]) for member in part]
        ready = values if self.trusted(values) else tightened(*loosened(values, part[0].param.device))
        return self._assembled(ready, values, decays), values

    def assembled(self, values: tuple, unit: Unit) -> GradientTransformation:
        """The transformation of a unit for these numbers, or tensors in their place."""
        return self._assembled(values, unit.values, [(m.key, unit.values[unit.groups.index(m.group)]) for m in unit.members])

    def _assembled(self, values: tuple, plain: tuple, decays: list[tuple[str, tuple]]) -> GradientTransformation:
        first = dict(zip(self.names, values[0], strict=True))
        if len(values) == 1 or not self.masks:
            return self.make(first)
        place = self.names.index("weight_decay")
        if all(same(own[place], plain[0][place]) for own in plain):
            return self.make(first)
        decayed = {key: not _is_zero(own[place]) for key, own in decays}
        first["weight_decay"] = next(ready[place] for ready, own in zip(values, plain, strict=True) if not _is_zero(own[place]))
        return self.make(first, decayed)

    def renew(self, unit: Unit, values: tuple) -> None:
        """Gives a unit the transformation for hyperparameters that have changed."""
        moved = pattern(values) != pattern(unit.values)
        unit.values = values
        unit.tx = self.assembled(values if self.trusted(values) else tightened(*loosened(values, unit.params[0].device)), unit)
        if moved:  # a link may have come or gone
            unit.resettle()


def _is_zero(value: Any) -> bool:
    return not isinstance(value, Tensor) and value == 0


def pattern(values: Any) -> Any:
    """What of hyperparameters decides which links there are: zeros, flags, words."""
    if isinstance(values, (tuple, list)):
        return tuple(pattern(value) for value in values)
    if isinstance(values, Tensor):
        return "number"
    if isinstance(values, (int, float)) and not isinstance(values, bool):
        return "number" if values != 0 else "zero"
    return repr(values)


class _Place:
    """Where a number was."""

    def __init__(self, index: int):
        self.index = index


def loosened(values: Any, device: torch.device) -> tuple[Any, list[Tensor]]:
    """Hyperparameters with a mark in the place of every number, and the numbers as 0-dim tensors; zeros stay, since they decide which links there are."""
    tensors: list[Tensor] = []

    def mark(value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return tuple(mark(part) for part in value)
        if isinstance(value, Tensor):
            tensors.append(value.detach().reshape(()).to(device))
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and value != 0:
            tensors.append(torch.full((), value, dtype=tree.scalar_dtype(device), device=device))
        else:
            return value
        return _Place(len(tensors) - 1)

    return mark(values), tensors


def tightened(marked: Any, tensors: Sequence[Tensor]) -> Any:
    """The other way."""
    if isinstance(marked, tuple):
        return tuple(tightened(part, tensors) for part in marked)
    return tensors[marked.index] if isinstance(marked, _Place) else marked


Factory = Callable[..., GradientTransformation]
