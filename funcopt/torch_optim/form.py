"""Whether what is to be loaded has the form of an optimizer's state dict; looked at before anything is read."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from funcopt.torch_optim.storage import ENTRY, FORMAT

__all__ = ["has_form"]


def has_form(where: str, given: Any) -> None:
    """Raises a ValueError that says what of a state dict cannot be one."""
    if not isinstance(given, Mapping) or not {"state", "param_groups"} <= set(given):
        raise ValueError(
            f"{where}: must be given what state_dict() of an optimizer returns, with 'state' and 'param_groups', got {_seen(given)}"
        )
    groups, state = given["param_groups"], given["state"]
    if not isinstance(groups, (list, tuple)) or not all(isinstance(group, Mapping) and "params" in group for group in groups):
        raise ValueError(f"{where}: 'param_groups' must be a list of dicts with 'params', got {groups!r}")
    if not isinstance(state, Mapping) or not all(isinstance(own, Mapping) for own in state.values()):
        raise ValueError(f"{where}: 'state' must be a dict of one dict for each parameter, got {type(state).__name__}")
    structure: set[str] = set()
    for number, group in enumerate(groups):
        if ENTRY in group:
            structure |= _entry(f"{where}: '{ENTRY}' of group {number}", group[ENTRY])
    for key, own in state.items():
        for name, value in own.items():
            if name in structure or isinstance(value, Tensor):
                _numbers(f"{where}: '{name}' of parameter {key}", value)


def _seen(given: Any) -> str:
    if not isinstance(given, Mapping):
        return repr(given)
    keys = ", ".join(repr(key) for key in list(given)[:3]) or "nothing"
    return f"{keys}, ..., which is the state of a model" if given and all(isinstance(value, Tensor) for value in given.values()) else keys


def _entry(where: str, entry: Any) -> set[str]:
    """The names of the leaves that it says there are."""
    if not isinstance(entry, Mapping) or not {"format", "structure", "state"} <= set(entry):
        raise ValueError(f"{where} must have format, structure and state, got {_seen(entry)}")
    form, structure, state = entry["format"], entry["structure"], entry["state"]
    if isinstance(form, bool) or not isinstance(form, int) or form < 1:
        raise ValueError(f"{where}: the form must be a whole number from 1 to {FORMAT}, got {form!r}")
    if not isinstance(structure, (list, tuple)) or not all(isinstance(path, str) for path in structure):
        raise ValueError(f"{where}: the structure must be a list of paths, got {structure!r}")
    if not isinstance(state, Mapping):
        raise ValueError(f"{where}: the state must be a dict of tensors, got {state!r}")
    for path, value in state.items():
        if path in structure:
            _numbers(f"{where}: '{path}'", value)
    return set(structure)


def _numbers(where: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        raise ValueError(f"{where} must be a tensor, got {type(value).__name__}")
    if value.layout is not torch.strided or value.is_quantized or value.device.type == "meta":
        kind = (
            "on no device (meta)" if value.device.type == "meta" else "quantized" if value.is_quantized else f"of the layout {value.layout}"
        )
        raise ValueError(f"{where} must be a dense tensor of numbers, got one {kind}")
