"""What the groups of a torch optimizer say: parameters, rates and other hyperparameters."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from funcopt.core import tree
from funcopt.core.protocol import GradientTransformation
from funcopt.torch_optim.units import Member

__all__ = ["Rates", "by_leaf", "check_rate", "members", "named_apart", "same", "scaled", "scaler", "sizing", "warn_of_lacking"]

# Links that work out each leaf from that leaf and from counters: their parameters may have counters of
# their own. Everything else sees all groups as one tree.
PER_LEAF = (
    "scale_by_adam scale_by_amsgrad scale_by_adamax scale_by_nadam scale_by_radam scale_by_adan scale_by_adopt scale_by_yogi scale_by_belief",
    "scale_by_ademamix scale_by_simplified_ademamix scale_by_adahessian scale_by_adadelta scale_by_rss scale_by_rms scale_by_stddev scale_by_rprop",
    "scale_by_lion scale_by_sm3 scale_by_novograd scale_by_optimistic_gradient scale_by_factored_rms scale_by_trust_ratio scale_by_param_block_norm",
    "scale_by_param_block_rms scale_by_schedule scale trace ema sign clip clip_by_block_rms adaptive_grad_clip centralize add_decayed_weights lr_scale",
    "at_most_inverse_root zero_nans identity fromage muon scale_by_muon scale_by_madgrad",
)
_NAMES = {name for line in PER_LEAF for name in line.split()}


def by_leaf(tx: GradientTransformation) -> bool:
    """Whether every leaf is worked out by itself, but for what is counted."""
    return all(by_leaf(link) for link in tx.links) if tx.links else tx.name in _NAMES


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


def check_rate(lr: Any) -> None:
    """Raises as torch does where a rate cannot be one."""
    if isinstance(lr, Tensor):
        if lr.numel() != 1:
            raise ValueError("Tensor lr must be 1-element")
    elif isinstance(lr, bool) or not isinstance(lr, (int, float)):
        raise TypeError(f"torch_optim: lr must be a number or a tensor of one element, got {lr!r}")
    elif not lr >= 0.0:
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


class Rates:
    """Rates as 0-dim tensors, made anew only where a number has changed."""

    def __init__(self):
        self.known: dict[Any, tuple[float, Tensor]] = {}

    def tensor(self, place: Any, value: Any, device: torch.device) -> Tensor:
        if isinstance(value, Tensor):
            return value.detach().reshape(()).to(device, non_blocking=True)
        known = self.known.get(place)
        if known is None or known[0] != value or known[1].device != device:
            known = self.known[place] = (value, torch.full((), value, dtype=tree.scalar_dtype(device), device=device))
        return known[1]


def sizing(rates: Rates, groups: Sequence[dict], numbers: Sequence[int], own: float | None, device: torch.device) -> tuple[dict[str, Tensor], list[Any]]:
    """What a unit hears of the loop, and by what the updates of each of its groups are multiplied (1.0: by nothing).

    Args:
        numbers: the groups of the unit.
        own: None for a transformation that hears `base_lr`. One with a rate of its own
            makes its own step where `lr` of a group is this, and multiples of it else.
    """
    given = [groups[number]["lr"] for number in numbers]
    if own is not None:
        return {}, [rates.tensor(number, lr, device) / own if isinstance(lr, Tensor) else lr / own for number, lr in zip(numbers, given, strict=True)]
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
