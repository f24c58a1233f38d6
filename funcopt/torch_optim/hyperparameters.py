"""Recipes: from what a group says to the transformation that its parameters step with.

Numbers are checked by the factory and built in, those at construction as those that
change later (a scheduler cycles the momentum). Into a compiled step the latter come as
0-dim tensors, so that it is not compiled anew for each.
"""

import inspect
import operator
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from funcopt.core import tree
from funcopt.core.door.kinds import stranger
from funcopt.core.protocol import GradientTransformation
from funcopt.core.random.keys import seeds_drawn, seeds_repeated
from funcopt.core.versions import compiling
from funcopt.torch_optim.groups import as_number, is_zero, same
from funcopt.torch_optim.units import Member, Unit

__all__ = ["Fixed", "Made", "hears_rate", "loosened", "tightened"]


def hears_rate(tx: GradientTransformation) -> bool:
    """Whether the loop must say `base_lr`, since no link does."""
    return tx.hears.get("base_lr") == "needed"


NOT_ONE = "torch_optim.Optimizer: transformation must be a GradientTransformation, or a function without arguments that makes one"


def _made_of(factory: Callable) -> Any:
    """What a function without arguments makes; one that needs some is the slip of somebody who meant to call it."""
    if isinstance(factory, torch.nn.Module):
        raise TypeError(f"{NOT_ONE}, {stranger(factory)}")
    try:
        inspect.signature(factory).bind()
    except TypeError:
        raise TypeError(f"{NOT_ONE}, {stranger(factory)}") from None
    except ValueError:  # a builtin that does not say
        pass
    return factory()


class Fixed:
    """A finished transformation, or a function without arguments that makes it."""

    names: tuple[str, ...] = ()
    draws = False  # seeds, where it is made anew
    waits: frozenset[str] = frozenset()  # paths of leaves that stay when their option is switched off

    def __init__(self, transformation: Any):
        self.factory = None if isinstance(transformation, GradientTransformation) else transformation
        self.tx = _made_of(transformation) if self.factory is not None and callable(transformation) else transformation
        if not isinstance(self.tx, GradientTransformation):
            raise TypeError(f"{NOT_ONE}, {stranger(transformation)}")
        self.hears_rate = hears_rate(self.tx)
        self.rate = 1.0  # the lr of a group with which a transformation with its own rate makes its own step
        self.per_leaf = self.by_group = self.tx.per_leaf

    def sampled(self) -> GradientTransformation:
        return self.tx

    def __reduce__(self):
        if self.factory is None:
            raise pickle.PicklingError(
                f"torch_optim.Optimizer: {self.tx.name} is made of functions and cannot be pickled; "
                "use a module-level function or the class form: Optimizer(params, make_transformation), or optimizer_class(factory)"
            )
        return Fixed, (self.factory,)

    def __deepcopy__(self, memo: dict) -> "Fixed":
        return self

    def values(self, groups: Sequence[dict], numbers: Sequence[int]) -> tuple:
        return ()

    def transformation(self, groups: Sequence[dict], part: Sequence[Member]) -> tuple[GradientTransformation, tuple]:
        return self.tx, ()

    def assembled(self, values: tuple, unit: Unit) -> GradientTransformation:
        return self.tx

    def of(self, group: dict) -> tuple:
        return ()

    def renew(self, unit: Unit, values: tuple) -> None:
        """Nothing can have changed."""

    def check(self, group: dict, groups: Sequence[dict]) -> None:
        """There is nothing to check."""

    def upgrade(self, shared: dict[str, Tensor]) -> None:
        """What it keeps has the form that it had."""

    def late(self, path: str) -> Tensor | None:
        """Nothing comes later."""

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

    def __init__(
        self, owner: type, names: Sequence[str], statics: Mapping[str, Any], defaults: Mapping[str, Any], rate: float | None = None
    ):
        self.owner, self.names, self.statics = owner, tuple(names), dict(statics)
        self.defaults = {name: defaults[name] for name in self.names}
        self.seeds: list | None = None
        sample = self.make(self.defaults)
        self.hears_rate, self.per_leaf = hears_rate(sample), sample.per_leaf
        self._sample: GradientTransformation | None = sample
        self.rate = 1.0 if rate is None else rate

    def __deepcopy__(self, memo: dict) -> "Made":
        return self

    def sampled(self) -> GradientTransformation:
        """The one that was made of the defaults, to be asked once; it is not kept, since a pickle could not hold it."""
        sample, self._sample = self._sample, None
        return self.make(self.defaults) if sample is None else sample

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
        """Takes over the seeds that the first rank drew, where nobody gave any: torch's generator may be seeded differently on each."""
        if self.seeds and process_group is not False and torch.distributed.is_available() and torch.distributed.is_initialized():
            from funcopt.distributed.exchange import broadcast

            self.seeds = broadcast(self.seeds, 0, process_group)

    @property
    def waits(self) -> frozenset[str]:
        """The paths of leaves that wait, as in torch, for their option to be switched on again."""
        return self.owner.waits

    def late(self, path: str) -> Tensor | None:
        """The first value of a counter of a link whose other leaves were there before it; None: that of `init`."""
        return self.owner.late(path)

    @property
    def by_group(self) -> bool:
        """Whether every group is a tree of its own."""
        return self.per_leaf or self.owner.by_group(**self.statics)

    @property
    def draws(self) -> bool:
        return bool(self.seeds)

    def of(self, group: dict) -> tuple:
        values = tuple(map(group.get, self.defaults, self.defaults.values()))  # in the order of their names
        return tuple([tuple(value) if isinstance(value, list) else value for value in values]) if list in map(type, values) else values

    def check(self, group: dict, groups: Sequence[dict]) -> None:
        """Raises what the factory says of these numbers, and where a method that sees the whole tree is told different ones."""
        values = self.of(group)
        self.make(dict(zip(self.names, values, strict=True)))
        numbers = tuple(map(as_number, values))
        if not compiling() and not all(map(operator.is_, numbers, values)):
            self.make(dict(zip(self.names, numbers, strict=True)))  # of what lies in tensors the ranges
        if self.by_group or not groups:
            return
        for name, value, first in zip(self.names, values, self.of(groups[0]), strict=True):
            if not same(value, first) and not (name == "weight_decay" and self.masks):
                raise ValueError(
                    f"{self.owner.__name__}: looks at all parameters as one, so {name} must be the same in all groups, "
                    f"got {value!r} beside {first!r}"
                )
        decays = {group.get("weight_decay", 0) for group in [*groups, group]} - {0} if self.masks else set()
        if len(decays) > 1:
            raise ValueError(
                f"{self.owner.__name__}: looks at all parameters as one, so a group's weight_decay must be 0 or that of the others, "
                f"got {sorted(decays)}"
            )

    def upgrade(self, shared: dict[str, Tensor]) -> None:
        """Brings what all parameters of a group share, as an older version saved it, into the form of today."""
        self.owner.upgrade(shared, **self.statics)

    @property
    def masks(self) -> bool:
        return "weight_decay" in self.names and self.owner.masks(**self.statics)

    def values(self, groups: Sequence[dict], numbers: Sequence[int]) -> tuple:
        return tuple(self.of(groups[number]) for number in numbers)

    def transformation(self, groups: Sequence[dict], part: Sequence[Member]) -> tuple[GradientTransformation, tuple]:
        numbers = sorted({member.group for member in part})
        values = self.values(groups, numbers)
        unit_of = dict(zip(numbers, values, strict=True))
        decays = [(member.key, unit_of[member.group]) for member in part]
        return self._assembled(values, values, decays), values

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
        decayed = {key: not is_zero(own[place]) for key, own in decays}
        first["weight_decay"] = next(ready[place] for ready, own in zip(values, plain, strict=True) if not is_zero(own[place]))
        return self.make(first, decayed)

    def renew(self, unit: Unit, values: tuple) -> None:
        """Gives a unit the transformation for hyperparameters that have changed."""
        unit.values = values
        unit.tx = self.assembled(values, unit)


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
    """Hyperparameters with a mark for every number, and the numbers as 0-dim tensors; zeros stay: they decide which links there are."""
    tensors: list[Tensor] = []

    def mark(value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return tuple(mark(part) for part in value)
        if isinstance(value, Tensor):
            tensors.append(value.detach().reshape(()).to(device))
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and value != 0:
            # Inside somebody's graph a number times a tensor stays a number of the graph; a tensor made of it would be a constant.
            made = value * torch.ones((), dtype=tree.scalar_dtype(device), device=device) if compiling() else None
            tensors.append(torch.full((), value, dtype=tree.scalar_dtype(device), device=device) if made is None else made)
        else:
            return value
        return _Place(len(tensors) - 1)

    return mark(values), tensors


def tightened(marked: Any, tensors: Sequence[Tensor]) -> Any:
    """The other way."""
    if isinstance(marked, tuple):
        return tuple(tightened(part, tensors) for part in marked)
    return tensors[marked.index] if isinstance(marked, _Place) else marked
