"""States of torch.optim's own classes, read and written by the classes here that have their formula.

    ours, of a parameter       torch's, of a parameter          ours, of all that have taken as many steps
    direction/mu, direction/nu exp_avg, exp_avg_sq              direction/count    step

torch counts the steps of each parameter. Parameters of a group that have taken as many share a count here,
and those that have not get one of their own.

Reference: torch.optim of torch 2.13.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core.dtypes import kind
from funcopt.core.versions import default_rate
from funcopt.torch_optim.cohorts import COHORT
from funcopt.torch_optim.storage import ELSEWHERE, ENTRY
from funcopt.torch_optim.units import Unit

__all__ = ["of_torch", "to_torch"]


class Spec(NamedTuple):
    """What a class of torch keeps."""

    name: str  # of the class
    settings: tuple[str, ...]  # of a group, beside lr and what all classes have
    fields: dict[str, str]  # last name of a leaf of ours -> name in the state of a parameter
    shared: dict[str, str] = {}  # noqa: RUF012  the same for what several parameters share; "step" is the count
    counts: bool = True  # a state has "step"


OF_SQUARES = ("exp_avg_sq", "max_exp_avg_sq", "exp_inf", "square_avg", "acc_delta", "sum", "variance", "row_var", "col_var")
MOMENTS = {"mu": "exp_avg", "nu": "exp_avg_sq"}
DECAY = "weight_decay"
STEP = {"count": "step"}
SPECS = {
    "sgd": Spec("SGD", ("momentum", "dampening", DECAY, "nesterov"), {"trace": "momentum_buffer"}, counts=False),
    "adam": Spec("Adam", ("betas", "eps", DECAY, "amsgrad"), {**MOMENTS, "nu_max": "max_exp_avg_sq"}, STEP),
    "adamw": Spec("AdamW", ("betas", "eps", DECAY, "amsgrad"), {**MOMENTS, "nu_max": "max_exp_avg_sq"}, STEP),
    "nadam": Spec("NAdam", ("betas", "eps", DECAY, "momentum_decay"), MOMENTS, {**STEP, "mu_product": "mu_product"}),
    "radam": Spec("RAdam", ("betas", "eps", DECAY), MOMENTS, STEP),
    "adamax": Spec("Adamax", ("betas", "eps", DECAY), {"mu": "exp_avg", "nu": "exp_inf"}, STEP),
    "adagrad": Spec("Adagrad", ("lr_decay", "eps", DECAY, "initial_accumulator_value"), {"sum_of_squares": "sum"}, STEP),
    "adadelta": Spec("Adadelta", ("rho", "eps", DECAY), {"e_g": "square_avg", "e_x": "acc_delta"}),
    "rmsprop": Spec(
        "RMSprop", ("alpha", "eps", DECAY, "momentum", "centered"), {"mu": "grad_avg", "nu": "square_avg", "trace": "momentum_buffer"}
    ),
    "rprop": Spec("Rprop", ("etas", "step_sizes"), {"step_sizes": "step_size", "prev_updates": "prev"}),
    "adafactor": Spec("Adafactor", ("beta2_decay", "eps", "d", DECAY), {"v_row": "row_var", "v_col": "col_var", "v": "variance"}, STEP),
    "muon": Spec(
        "Muon",
        (DECAY, "momentum", "nesterov", "ns_coefficients", "eps", "ns_steps", "adjust_lr_fn"),
        {"mu": "momentum_buffer"},
        counts=False,
    ),
}
SETTINGS = {setting for spec in SPECS.values() for setting in spec.settings}


def _spec(opt: Any) -> Spec | None:
    kind = opt._kind() if hasattr(opt, "_kind") else type(opt)
    return SPECS.get(kind.__name__) if kind.__module__ == "funcopt.torch_optim.classes.ready_made" else None


def _field(path: str) -> str:
    return path.rpartition("/")[2]


def _held(spec: Spec, unit: Unit) -> list[tuple[Any, str, Tensor]]:
    """(owner, name in torch, leaf) of what torch keeps for the parameters of a unit, each of its own; placeholders are left out."""
    parameters = dict(zip(unit.keys, unit.params, strict=True))
    found = []
    for place, leaf in zip(unit.places, unit.leaves, strict=True):
        if place.owner is None:
            continue
        name = spec.fields.get(_field(place.path))
        if name is None or "/adam/" in place.path:  # Muon here hands what is no matrix to Adam; there it takes none
            continue
        if spec.name == "Adafactor" and (name == "variance") == (parameters[place.owner].dim() > 1):
            continue
        found.append((parameters[place.owner], name, leaf))
    return found


def _shared(spec: Spec, unit: Unit) -> list[tuple[str, Tensor]]:
    owned = [
        (spec.shared.get(_field(place.path)), leaf) for place, leaf in zip(unit.places, unit.leaves, strict=True) if place.owner is None
    ]
    return [(name, leaf) for name, leaf in owned if name is not None]


# --- in ---------------------------------------------------------------------------------------------------------------------------


def of_torch(opt: Any, groups: Sequence[dict[str, Any]], state: dict) -> None:
    """Turns a state that torch.optim has saved, in place, into that of an optimizer here, and makes its units.

    Raises:
        ValueError: the optimizer has another formula; what is there is not what the class of torch keeps.
    """
    where, spec = f"{type(opt).__name__}.load_state_dict", _spec(opt)
    shown = sorted({str(name) for own in state.values() for name in own})
    if spec is None:
        raise ValueError(
            f"{where}: the state must be one that this optimizer has saved, got {', '.join(shown)} for each parameter and nothing of ours; "
            f"states of torch.optim are taken by the classes with torch's formulas ({', '.join(SPECS)})"
        )
    for number, group in enumerate(groups):
        _check_group(where, spec, opt, group, number)
    per_leaf = opt._engine.recipe.per_leaf
    taken: dict[Any, dict[str, Any]] = {}
    for number, group in enumerate(groups):
        begun = [param for param in group["params"] if param in state and any(value is not None for value in state[param].values())]
        steps = {id(param): _step(where, spec, state[param], number) for param in begun}
        known = sorted(set(steps.values()), reverse=True) if per_leaf else [max(steps.values(), default=0.0)]
        if not per_leaf and set(steps.values()) - set(known):
            raise ValueError(f"{where}: sees all parameters as one, which must have taken as many steps, got {sorted(set(steps.values()))}")
        for param in group["params"]:
            own = state.pop(param, None)
            if id(param) in steps:
                taken[param] = own
                state[param] = {COHORT: known.index(steps[id(param)])}
    engine = opt._engine
    engine.build(groups, state, set(map(id, taken)))
    for unit in engine.units:
        for param, name, leaf in _held(spec, unit):
            _fill(where, spec, leaf, taken[param], name, param.is_complex())
        for name, leaf in _shared(spec, unit):
            _fill(where, spec, leaf, taken[unit.params[0]], name)
        if spec.name == "SGD":  # where it dampens, the first gradient is whole; one with a buffer is past it
            for place, leaf in zip(unit.places, unit.leaves, strict=True):
                if _field(place.path) == "count":
                    leaf.fill_(1)
    for param in taken:
        if state[param].get(COHORT) == 0 and len(state[param]) > 1:
            del state[param][COHORT]
    for group in groups:
        for name in ELSEWHERE:
            group.pop(name, None)


def _check_group(where: str, spec: Spec, opt: Any, group: dict[str, Any], number: int) -> None:
    given = opt._engine.given["param_groups"][number]  # without what defaults have added
    said, wanted = SETTINGS & set(given), set(spec.settings)
    if said != wanted:
        raise ValueError(
            f"{where}: takes states of torch.optim.{spec.name}, whose groups say {', '.join(sorted(wanted))}, "
            f"but group {number} says {', '.join(sorted(said)) or 'none of these'}: it is that of another class"
        )
    if spec.name == "AdamW" and group.get("decoupled_weight_decay", True) is False and group[DECAY] != 0:
        raise ValueError(f"{where}: the weight_decay of group {number} is added to the gradient (torch.optim.Adam); load it into adam")
    recipe = opt._engine.recipe
    for name in wanted - set(recipe.names):
        ours = recipe.statics.get(name)
        if (list(given[name]) if isinstance(given[name], tuple) else given[name]) != (list(ours) if isinstance(ours, tuple) else ours):
            raise ValueError(f"{where}: {name} must be that of the optimizer, {ours!r}, but group {number} says {given[name]!r}")


def _step(where: str, spec: Spec, own: Mapping[str, Any], number: int) -> float:
    """By what parameters are told apart; 0.0 where nothing here counts."""
    if "step" not in spec.shared.values():
        return 0.0
    step = own.get("step")
    value = (
        float(step)
        if isinstance(step, (int, float)) or (isinstance(step, Tensor) and step.numel() == 1 and not step.is_complex())
        else math.nan
    )
    if not (value >= 0 and value.is_integer()):
        raise ValueError(
            f"{where}: a parameter of group {number} must have a step, a whole number from 0 on, got {step!r}; it has {', '.join(own)}"
        )
    return value


def _fill(where: str, spec: Spec, leaf: Tensor, own: Mapping[str, Any], name: str, is_complex: bool = False) -> None:
    value = own.get(name)
    if name in spec.shared.values() and isinstance(value, (int, float)):
        value = torch.tensor(float(value), dtype=torch.float64, device="cpu")
    if not isinstance(value, Tensor):
        raise ValueError(f"{where}: takes states of torch.optim.{spec.name}, but a parameter has no {name}; it has {', '.join(own)}")
    kinds = [kind(value.dtype), "complex" if is_complex else "float"]
    if kinds[0] != kinds[1] and name not in spec.shared.values():
        raise ValueError(f"{where}: {name} must be saved as {kinds[1]} numbers, as its parameter is, got {value.dtype}")
    value = torch.view_as_real(value) if value.is_complex() else value
    squeezed = name in ("row_var", "col_var", *spec.shared.values())  # with an axis of one entry there, or of one entry itself
    if value.shape != leaf.shape and not (squeezed and value.numel() == leaf.numel()):
        raise ValueError(f"{where}: {name} must have the shape {tuple(leaf.shape)} of its parameter, got {tuple(value.shape)}")
    if name in OF_SQUARES and not is_complex and bool((value < 0).any()):
        raise ValueError(f"{where}: {name} must be >= 0, as what is kept of squares is, got {value.min().item()}")
    leaf.copy_(value.reshape(leaf.shape))


# --- out --------------------------------------------------------------------------------------------------------------------------


def to_torch(opt: Any) -> dict[str, Any]:
    """The state dict with which the class of torch goes on.

    Raises:
        ValueError: torch has no class with the formula; a mask or a schedule of ours cannot be said there.
    """
    from funcopt.torch_optim.steering import standing_units

    where, spec = f"{type(opt).__name__}.to_torch_state_dict", _spec(opt)
    if spec is None or not hasattr(torch.optim, spec.name):
        raise ValueError(f"{where}: there is no class of torch.optim with this formula; there is one for {', '.join(SPECS)}")
    if opt._engine.evaluating:
        raise ValueError(f"{where}: the parameters are those of evaluation; call train() first")
    recipe = opt._engine.recipe
    if recipe.statics.get("weight_decay_mask") is not None:
        raise ValueError(f"{where}: torch has no weight_decay_mask; give the parameters without decay a group of their own")
    kind_there = getattr(torch.optim, spec.name)
    defaults = kind_there([torch.nn.Parameter(torch.zeros(1, 1, device="cpu"))], **default_rate(kind_there)).defaults
    groups, index = [], {}
    for group in opt.param_groups:
        said = {**defaults, **{name: value for name, value in recipe.statics.items() if name in defaults}}
        said |= {
            name: value
            for name, value in group.items()
            if name not in ("params", ENTRY, "capturable") or (name == "capturable" and name in defaults)
        }
        scheduled = next((name for name, value in said.items() if callable(value) and not isinstance(value, Tensor)), None)
        if scheduled is not None:
            raise ValueError(
                f"{where}: {scheduled} follows a function, which torch's groups do not hold; set it in the groups step by step"
            )
        numbers = [index.setdefault(id(param), len(index)) for param in group["params"]]
        groups.append({**said, "params": numbers})
    state: dict[int, dict[str, Any]] = {}
    for unit in standing_units(opt):
        shared = {name: leaf.detach().to(_count_dtype(), copy=True).reshape(()) for name, leaf in _shared(spec, unit)}
        if spec.counts:  # where nothing depends on it, nothing is counted here
            shared.setdefault("step", torch.ones((), dtype=_count_dtype(), device="cpu"))
        for param, name, leaf in _held(spec, unit):
            own = state.setdefault(index[id(param)], {name: value.clone() for name, value in shared.items()})
            value = leaf.detach().clone().contiguous()
            if param.is_complex():
                value = torch.view_as_complex(value)
            if name in ("row_var", "col_var"):
                value = value.unsqueeze(-1 if name == "row_var" else -2)
            own[name] = value
    if spec.name == "Adagrad":  # which has a state of every parameter from the start
        for param in (param for group in opt.param_groups for param in group["params"] if index[id(param)] not in state):
            first = recipe.statics["initial_accumulator_value"]
            whole = torch.full_like(param.detach(), complex(first, first) if param.is_complex() else first)
            state[index[id(param)]] = {"step": torch.zeros((), dtype=_count_dtype(), device="cpu"), "sum": whole}
    return {"state": dict(sorted(state.items())), "param_groups": groups}


def _count_dtype() -> torch.dtype:
    return torch.float64 if torch.get_default_dtype() == torch.float64 else torch.float32
