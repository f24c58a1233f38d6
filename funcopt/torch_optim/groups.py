"""What the groups of a torch optimizer say: parameters, rates and other hyperparameters."""

import math
import operator
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from funcopt.core import tree
from funcopt.core.door.shown import shown
from funcopt.core.sent import sent
from funcopt.core.shared import REMEDY, overlaps
from funcopt.core.versions import compiling
from funcopt.torch_optim.units import Member

__all__ = [
    "Params",
    "Rates",
    "as_number",
    "check_rate",
    "is_zero",
    "members",
    "named_apart",
    "refuse_no_params",
    "refuse_stretched",
    "refuse_tied",
    "same",
    "scaled",
    "scaler",
    "sizing",
    "warn_of_lacking",
]

# As torch takes them: tensors, groups, or pairs of a name and a tensor.
Params = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]


def named_apart(group: dict[str, Any]) -> dict[str, Any]:
    """A group given by `(name, tensor)` pairs with the names in `param_names`, as newer versions of torch keep them."""
    params = group.get("params")
    if params is None or isinstance(params, (Tensor, set)):
        return group
    params = list(params)
    names = [entry[0] for entry in params if isinstance(entry, tuple)]
    if names and len(names) != len(params):
        raise ValueError("all optimizer params should be with/without names. Some param names are missing")
    group["params"] = [entry[1] for entry in params] if names else params
    if names:
        group["param_names"] = names
    return group


def members(groups: Sequence[dict[str, Any]]) -> list[Member]:
    """All parameters, each once, with the key that it has in the tree."""
    found, seen, index = [], set(), 0
    for number, group in enumerate(groups):
        names = group.get("param_names")
        for place, param in enumerate(group["params"]):
            if id(param) not in seen:
                found.append(Member(names[place] if names else f"param:{index}", param, number))
                seen.add(id(param))
            index += 1
    keys = [member.key for member in found]
    if len(set(keys)) != len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"torch_optim: names of parameters must differ, got '{twice}' twice")
    return found


def _strides(param: Tensor) -> tuple[int, ...]:
    return param.stride() if type(param) in (Tensor, torch.nn.Parameter) and param.layout is torch.strided else ()


def refuse_tied(groups: Sequence[dict[str, Any]]) -> set[int]:
    """Raises a ValueError where two parameters that are trained share memory; returns (by id) who shares some with one that is not.

    torch.optim writes one after the other, and what they share takes both steps. Here all steps are worked out before one is written.
    """
    listed = {id(param): (param, number, place) for number, group in enumerate(groups) for place, param in enumerate(group["params"])}
    for param, number, place in listed.values():
        if any(stride == 0 and size > 1 for stride, size in zip(_strides(param), param.shape, strict=False)):
            raise ValueError(
                f"torch_optim: every entry of a parameter must have memory of its own, but {place} of group {number} was expanded; clone it"
            )
    tied: set[int] = set()
    entries = list(listed.values())
    for pair in overlaps([param for param, _, _ in entries]):
        both = [entries[index] for index in pair]
        if all(param.requires_grad or param.grad is not None for param, _, _ in both):
            a, b = (
                f"'{groups[number]['param_names'][place]}'" if "param_names" in groups[number] else f"{place} of group {number}"
                for _, number, place in both
            )
            raise ValueError(f"torch_optim: every parameter must have memory of its own, but {a} and {b} share some; {REMEDY}")
        tied |= {id(param) for param, _, _ in both}
    return tied


def refuse_no_params(where: str, params: Any) -> None:
    """Raises a TypeError for what is no collection of parameters, of which torch says that it is not iterable."""
    remedy = "write model.parameters(), or model.named_parameters() to keep the names"
    if isinstance(params, Mapping):
        remedy = "write params.items() where its keys are names, [params] where it is a group"
    elif isinstance(params, torch.nn.Module):
        if isinstance(params, torch.nn.ParameterList):
            return
    elif isinstance(params, Iterable) and not isinstance(params, (str, bytes)):
        return
    elif callable(params):
        remedy = f"call it: {getattr(params, '__name__', 'it')}()"
    got = "a dict" if isinstance(params, Mapping) else shown(params)
    raise TypeError(f"{where}: params must be parameters or groups of them, got {got}; {remedy}")


def as_number(value: Any) -> Any:
    """The number in a tensor that no device has to be waited for, and in pairs of such; anything else as it is."""
    if isinstance(value, tuple):
        parts = tuple(map(as_number, value))
        return value if all(map(operator.is_, parts, value)) else parts
    plain = type(value) is Tensor and value.is_cpu and value.numel() == 1 and not value.is_complex() and value.dtype is not torch.bool
    return value.item() if plain else value


def check_rate(lr: Any) -> None:
    """Raises as torch does where a rate cannot be one."""
    if isinstance(lr, Tensor):
        if lr.numel() != 1:
            raise ValueError("Tensor lr must be 1-element")
        if not compiling() and as_number(lr) is not lr:
            check_rate(as_number(lr))
    elif isinstance(lr, bool) or not isinstance(lr, (int, float, Real)):  # of the first two Python knows without asking
        raise TypeError(f"torch_optim: lr must be a number or a tensor of one element, got {lr!r}")
    elif not 0.0 <= float(lr) < math.inf:
        raise ValueError(f"Invalid learning rate: {lr}")


KNOWN = ("alpha", "amsgrad", "betas", "centered", "dampening", "eps", "momentum", "nesterov", "rho", "weight_decay")  # to torch


def warn_of_lacking(where: str, group: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Says that a hyperparameter that some class of torch has will change nothing here."""
    lacking = [name for name in KNOWN if name not in defaults and not isinstance(group.get(name), Tensor) and group.get(name)]
    if lacking:
        warnings.warn(f"{where}: does not take {', '.join(lacking)}; what the groups say of it changes nothing", stacklevel=5)


def same(x: Any, y: Any) -> bool:
    """Whether two hyperparameters are one value, without looking into tensors."""
    if x is y:
        return True
    if isinstance(x, (tuple, list)) and isinstance(y, (tuple, list)) and len(x) == len(y):
        return all(same(a, b) for a, b in zip(x, y, strict=True))
    if isinstance(x, Tensor) or isinstance(y, Tensor):
        return False
    return type(x) is type(y) and bool(x == y)


def is_zero(value: Any) -> bool:
    """Whether a hyperparameter is the number 0, without looking into tensors."""
    return not isinstance(value, Tensor) and value == 0


class Rates:
    """Rates as 0-dim tensors, made anew only where a number has changed."""

    def __init__(self):
        self.known: dict[Any, tuple[float, Tensor]] = {}

    def tensor(self, place: Any, value: Any, device: torch.device) -> Tensor:
        if isinstance(value, Tensor):
            return sent(value.detach().reshape(()), device)
        known = self.known.get(place)
        if known is None or known[0] != value or known[1].device != device:
            known = self.known[place] = (value, torch.full((), value, dtype=tree.scalar_dtype(device), device=device))
        return known[1]


def sizing(
    rates: Rates, groups: Sequence[dict[str, Any]], numbers: Sequence[int], own: float | None, device: torch.device
) -> tuple[dict[str, Tensor], list[Any]]:
    """What a unit hears of the loop, and by what the updates of each of its groups are multiplied (1.0: by nothing).

    Args:
        numbers: the groups of the unit.
        own: None for a transformation that hears `base_lr`. One with a rate of its own
            makes its own step where `lr` of a group is this, and multiples of it else.
    """
    given = [groups[number]["lr"] for number in numbers]
    if own is not None:
        return {}, [
            rates.tensor(number, lr, device) / own if isinstance(lr, Tensor) else lr / own
            for number, lr in zip(numbers, given, strict=True)
        ]
    if len(given) == 1:
        return {"base_lr": rates.tensor(numbers[0], given[0], device)}, [1.0]
    if not any(isinstance(lr, Tensor) for lr in given):
        base = next((lr for lr in given if lr != 0), 0.0)
        return {"base_lr": rates.tensor("base", base, device)}, [lr / base if base else 1.0 for lr in given]
    tensors = [rates.tensor(number, lr, device).to(tree.scalar_dtype(device)) for number, lr in zip(numbers, given, strict=True)]
    base = tensors[0]
    for lr in tensors[1:]:
        base = torch.where(base == 0, lr, base)
    still = base == 0
    return {"base_lr": base}, [torch.where(still, 1.0, lr / torch.where(still, 1.0, base)) for lr in tensors]


def refuse_stretched(name: str, factors: Sequence[Any]) -> None:
    """Raises a ValueError where a step that has been rounded to the params' own numbers would be multiplied: a part of a place is lost."""
    if any(isinstance(factor, Tensor) or factor != 1.0 for factor in factors):
        raise ValueError(
            f"torch_optim: {name} rounds whole steps, which the rates of groups must not multiply; leave the rate to the loop, as in "
            "cast_params(adamw(None)), and give groups with rates of their own an optimizer each"
        )


def scaled(update: Tensor, factor: Any) -> Tensor:
    """An update times a factor, in its own dtype."""
    if isinstance(factor, Tensor):
        return (factor * update).to(update.dtype)
    return update if factor == 1.0 else update * factor


def scaler(group_of: Sequence[int], numbers: Sequence[int], factors: Sequence[Any]) -> Callable[[list[Tensor]], list[Tensor]]:
    """Multiplies the updates of each parameter, or the one vector of all, by the factor of their group."""
    if all(not isinstance(factor, Tensor) and factor == 1.0 for factor in factors):
        return lambda updates: updates
    by_group = dict(zip(numbers, factors, strict=True))
    if len(factors) == 1:
        return lambda updates: [scaled(update, factors[0]) for update in updates]
    return lambda updates: [scaled(update, by_group[number]) for update, number in zip(updates, group_of, strict=True)]
