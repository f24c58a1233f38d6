"""What an optimizer of torch keeps, as a tree of tensors, and back.

Its memory hides in four places: `state[p]`, the entries of `param_groups`, entries of
`state` that belong to no parameter, and attributes of the instance. In the tree

    a tensor                     is itself; a 0-dim one of int64, float64, complex128 or bool stands in a `Boxed`
    a Python number              is a bare 0-dim tensor of one of those dtypes
    a list, a tuple, a dict      is one
    an object, a torch.Generator is `Insides`, of its attributes or of its words

so that what comes out can be saved and goes in again in another process. Strings,
functions and whatever else is no number stay with the instance, in `Kept`.
"""

from collections import deque
from collections.abc import Mapping
from types import FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from funcopt.core import tree

__all__ = ["Boxed", "Insides", "Kept", "grown"]

NUMBERS = {bool: torch.bool, int: torch.int64, float: torch.float64, complex: torch.complex128}
TEXT = (str, bytes, torch.dtype, torch.device)
NO_OBJECT = (type, FunctionType, MethodType, ModuleType, *TEXT)
NOT_KEPT = {"defaults", "state", "param_groups"}

Path = tuple[str, ...]


class Boxed(NamedTuple):
    """A 0-dim tensor that would be taken for a Python number."""

    tensor: Tensor


class Insides(NamedTuple):
    """An object without the object, which an instance has to have made to be given them."""

    attributes: dict[str, Any]


class _Fixed:
    """What stays with the instance."""


FIXED = _Fixed()


class Kept:
    """Takes the memory out of one optimizer and puts it in; knows what does not travel.

    Args:
        optimizer: the instance.
        names: from the parameters that it trains to their paths.
    """

    def __init__(self, optimizer: Optimizer, names: Mapping[Tensor, str]):
        self.optimizer = optimizer
        self.names = dict(names)
        self.ids = {id(parameter): name for parameter, name in names.items()}
        self.shells: dict[Path, Any] = {}  # containers and objects, whose contents travel
        self.fixed: dict[Path, dict[Any, Any]] = {}  # what does not, by the container it stands in
        self.keys: dict[Path, dict[str, Any]] = {}  # keys of dicts that are no strings
        self.complete = False  # whether it has seen what a step makes; what is new then is what it seems
        self.lent: dict[Path, set[str]] = {}  # of an optimizer inside another: what belongs to the outer one
        self.storages: set[int] = set()  # of what has been taken out
        self.seen: set[int] = set()  # containers and objects
        self.taken: list[tuple[Any, list]] = []  # containers and what is to be removed from them

    # --- out ------------------------------------------------------------------------------------------------------------------

    def taken_out(self) -> dict[str, Any]:
        """The memory as a tree of tensors; the instance is left without it.

        Raises:
            TypeError: a string changed, which a state cannot hold.
        """
        self.storages, self.seen, self.taken = set(), set(), []
        kept = self._of_optimizer(self.optimizer, ())
        for container, keys in self.taken:  # what was handed out belongs to others now
            if isinstance(container, dict):
                for key in keys:
                    container.pop(key, None)
            else:
                container.clear()
        self.seen, self.taken = set(), []
        return kept

    def _of_optimizer(self, optimizer: Optimizer, path: Path) -> dict[str, Any]:
        own = (optimizer, vars(optimizer), optimizer.state, optimizer.param_groups)
        whose = {name: id(part) in self.seen for name, part in zip(("state", "groups"), own[2:], strict=True)}
        self.lent[path] = {name for name, lent in whose.items() if lent}
        self.seen.update(map(id, (*own, *optimizer.param_groups)))
        param, extra, groups = {}, {}, []
        if not whose["state"]:
            param = {name: {} for name in self.names.values()}
            for key, value in optimizer.state.items():
                if isinstance(key, Tensor) and key in self.names:
                    self.seen.add(id(value))
                    param[self.names[key]] = self._of_dict(value, (*path, "param", self.names[key]))
                else:
                    extra[key] = value
            self.taken.append((optimizer.state, list(optimizer.state)))
        if not whose["groups"]:
            groups = [
                self._of_dict(group, (*path, "groups", str(i)), skip=("params", "param_names"))
                for i, group in enumerate(optimizer.param_groups)
            ]
        return {
            "param": param,
            "groups": groups,
            "extra": self._of_dict(extra, (*path, "extra")),
            "attrs": self._of_dict(vars(optimizer), (*path, "attrs"), skip=_not_kept(optimizer)),
        }

    def _of_dict(self, values: Mapping[Any, Any], path: Path, skip: Any = ()) -> dict[str, Any]:
        self.shells[path], kept, fixed, keys = values, {}, {}, {}
        for key, value in list(values.items()):
            if key in skip:
                continue
            name = self._name(key, len(keys))
            part = self._out(value, (*path, name))
            if part is FIXED:
                fixed[key] = value
            else:
                kept[name] = part
                if not isinstance(key, str):
                    keys[name] = key
        self._same_text(self.fixed.get(path, {}), fixed, path)
        self.fixed[path], self.keys[path] = fixed, keys
        self.taken.append((values, [keys.get(name, name) for name, part in kept.items() if not isinstance(part, (dict, list, Insides))]))
        return kept

    def _name(self, key: Any, number: int) -> str:
        """What a key is called; that of a parameter, or of its id, by the path of the parameter."""
        if isinstance(key, Tensor):
            return "#" + self.names.get(key, str(number))
        if type(key) is int and key in self.ids:
            return "#" + self.ids[key]
        return str(key)

    def _of_list(self, values: Any, path: Path) -> Any:
        parts = [self._out(value, (*path, str(i))) for i, value in enumerate(values)]
        if parts and all(part is FIXED for part in parts):
            return FIXED
        fixed = {i: value for i, (part, value) in enumerate(zip(parts, values, strict=True)) if part is FIXED}
        self._same_text(self.fixed.get(path, {}), fixed, path)
        self.shells[path], self.fixed[path] = values, fixed
        if not isinstance(values, tuple):
            self.taken.append((values, []))
        parts = [None if part is FIXED else part for part in parts]
        return tuple(parts) if isinstance(values, tuple) else parts

    def _out(self, value: Any, path: Path) -> Any:
        if value is None:
            return None
        if isinstance(value, Tensor):
            return FIXED if value in self.names else self._of_tensor(value)
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, (bool, int, float, complex)):
            return torch.tensor(value, dtype=next(NUMBERS[kind] for kind in NUMBERS if isinstance(value, kind)), device="cpu")
        if isinstance(value, torch.Generator):
            self.shells[path] = value
            return Insides({"words": value.get_state()})
        containers = (dict, list, tuple, deque)
        if not isinstance(value, containers) and (isinstance(value, NO_OBJECT) or not hasattr(value, "__dict__")):
            return FIXED
        if not isinstance(value, tuple):
            if id(value) in self.seen:  # the same thing under a second name, which it keeps
                return FIXED
            self.seen.add(id(value))
        if isinstance(value, Optimizer):
            self.shells[path] = value
            return Insides(self._of_optimizer(value, path))
        if isinstance(value, dict):
            return self._of_dict(value, path)
        if isinstance(value, containers):
            return self._of_list(value, path)
        if not vars(value):
            return FIXED
        kept = Insides(self._of_dict(vars(value), path))
        self.shells[path] = value
        return kept

    def _of_tensor(self, value: Tensor) -> Any:
        value = value.detach()
        if value.layout == torch.strided and type(value) is Tensor:
            storage = value.untyped_storage()
            whole = storage.nbytes() == value.numel() * value.element_size()
            if not whole or storage.data_ptr() in self.storages:
                value = value.clone()
            self.storages.add(storage.data_ptr())
        else:
            value = value.clone()
        return Boxed(value) if value.dim() == 0 and value.dtype in NUMBERS.values() else value

    def _same_text(self, before: Mapping[Any, Any], now: Mapping[Any, Any], path: Path) -> None:
        for key in before.keys() & now.keys():
            if isinstance(now[key], TEXT) and before[key] != now[key]:
                raise TypeError(
                    f"from_torch({type(self.optimizer).__name__}): keeps text that changes, which a state cannot hold: "
                    f"{'.'.join((*path, str(key)))} was {before[key]!r} and is {now[key]!r}"
                )

    # --- in -------------------------------------------------------------------------------------------------------------------

    def put_in(self, kept: Mapping[str, Any]) -> None:
        """Gives the instance a memory; what it has is forgotten.

        Raises:
            LookupError: the instance has not seen this memory's objects, which a step would show it.
        """
        self._into_optimizer(self.optimizer, kept, ())

    def _into_optimizer(self, optimizer: Optimizer, kept: Mapping[str, Any], path: Path) -> None:
        parameters = {name: parameter for parameter, name in self.names.items()}
        if "state" not in self.lent.get(path, ()):
            optimizer.state.clear()
        for name, values in kept["param"].items():
            if values:
                optimizer.state[parameters[name]] = self._into_dict(values, (*path, "param", name), {})
        for i, values in enumerate(kept["groups"]):
            group = optimizer.param_groups[i]
            self._into_dict(values, (*path, "groups", str(i)), group, skip=("params", "param_names"))
        optimizer.state.update(self._into_dict(kept["extra"], (*path, "extra"), {}))
        self._into_dict(kept["attrs"], (*path, "attrs"), vars(optimizer), skip=_not_kept(optimizer))

    def _into_dict(self, kept: Mapping[str, Any], path: Path, values: dict, skip: Any = ()) -> dict:
        fixed, keys = self.fixed.get(path, {}), self.keys.get(path, {})
        for key in [key for key in values if key not in skip]:
            del values[key]
        for name, part in kept.items():
            values[keys.get(name, name)] = self._into(part, (*path, name))
        values.update(fixed)
        return values

    def _into(self, part: Any, path: Path) -> Any:
        if part is None:
            return None
        if isinstance(part, Boxed):
            return part.tensor.clone()
        if isinstance(part, Tensor):
            return part.item() if part.dim() == 0 and part.dtype in NUMBERS.values() else part.clone()
        shell = self.shells.get(path)
        if shell is None and (isinstance(part, Insides) or not self.complete):
            raise LookupError(".".join(path))
        if isinstance(part, Insides):
            if isinstance(shell, Optimizer):
                self._into_optimizer(shell, part.attributes, path)
            elif isinstance(shell, torch.Generator):
                shell.set_state(part.attributes["words"])
            else:
                self._into_dict(part.attributes, path, vars(shell))
            return shell
        if isinstance(part, dict):
            return self._into_dict(part, path, {} if shell is None else shell)
        fixed = self.fixed.get(path, {})
        values = [fixed.get(i, self._into(x, (*path, str(i)))) for i, x in enumerate(part)]
        if isinstance(part, tuple):
            return type(shell)(*values) if hasattr(shell, "_fields") else tuple(values)
        shell = [] if shell is None else shell
        shell.clear()
        shell.extend(values)
        return shell


def _not_kept(optimizer: Optimizer) -> set[str]:
    return NOT_KEPT | {name for name in vars(optimizer) if "hook" in name or name.startswith("_zero_grad")}


def grown(kept: Any, saved: Mapping[str, Tensor], place: str) -> Any:
    """`kept` with the lists and what was empty (an empty dict, None) in the form in which they were saved.

    Args:
        saved: tensors by their paths.
        place: the beginning of the paths that belong to `kept`, with its dot.
    """
    inside = {path[len(place) :]: value for path, value in saved.items() if path.startswith(place)}
    if isinstance(kept, (Tensor, Boxed)):  # a number may have become a tensor, or the other way round
        bare, boxed = saved.get(place[:-1]), saved.get(f"{place}tensor")
        if isinstance(kept, Tensor):
            return kept if boxed is None or kept.dim() else Boxed(torch.zeros_like(boxed))
        return kept if bare is None else torch.zeros_like(bare)
    if kept is None:
        whole = saved.get(place[:-1])
        kept = None if not inside else [] if all(path.partition(".")[0].isdigit() for path in inside) else {}
        if whole is not None or set(inside) == {"tensor"}:
            return torch.zeros_like(whole) if whole is not None else Boxed(torch.zeros_like(inside["tensor"]))
        if inside and all(path.startswith("attributes.") for path in inside):
            kept = Insides({})
    if isinstance(kept, dict):
        names = list(kept) or list(dict.fromkeys(path.partition(".")[0] for path in inside))
        return {name: grown(kept.get(name), saved, f"{place}{name}.") for name in names}
    if isinstance(kept, Insides):
        return Insides(grown(kept.attributes, saved, f"{place}attributes."))
    if isinstance(kept, (list, tuple)):
        length = 1 + max((int(path.partition(".")[0]) for path in inside), default=-1)
        if isinstance(kept, tuple) or not all(map(tree.leaves, kept)):  # there are places that are not filled yet
            length = max(length, len(kept))
        parts = [*kept, *[None] * length][:length]
        return type(kept)(grown(part, saved, f"{place}{i}.") for i, part in enumerate(parts))
    return kept
