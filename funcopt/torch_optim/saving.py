"""Reading a state dict: torch's checks and hooks, then the values as they were saved.

The base class casts what it reads to the dtype of the parameter, which rounds counters,
masks and random words; so the values are taken from what was given, once more.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from funcopt.torch_optim.engine import COHORT
from funcopt.torch_optim.storage import ENTRY, FORMAT, TRAINED, compare

__all__ = ["reading", "restore"]


@contextmanager
def reading(opt: Any) -> Iterator[None]:
    """Notes what is read, as the last hook before reading leaves it."""

    def note(_: Any, given: dict) -> None:
        opt._engine.given = given

    handle = opt.register_load_state_dict_pre_hook(note)
    try:
        yield
    finally:
        handle.remove()
        opt._engine.given = None


def restore(opt: Any, read: dict[str, Any]) -> None:
    """Completes the groups and the state that the base class has read, before they become those of the optimizer."""
    engine = opt._engine
    engine.forget()
    groups, state, given = read["param_groups"], read["state"], engine.given
    for group in groups:
        for name, default in opt.defaults.items():
            group.setdefault(name, default)
    if given is None:
        return
    ours = [group[ENTRY] for group in groups if ENTRY in group]
    for entry in ours:
        if entry["format"] > FORMAT:
            raise ValueError(f"torch_optim: the form of a state must be at most {FORMAT}, got {entry['format']}; it was saved by a newer funcopt")
    saved_ids = [number for group in given["param_groups"] for number in group["params"]]
    params = [p for group in groups for p in group["params"]]
    for number, param in zip(saved_ids, params, strict=True):
        if number in given["state"]:
            state[param] = {name: copied(value) for name, value in given["state"][number].items()}
    if not ours:
        engine.evaluating = False
        return
    for group, source in zip(groups, given["param_groups"], strict=True):
        if ENTRY in source:
            group[ENTRY]["state"] = {name: copied(value) for name, value in source[ENTRY]["state"].items()}
    saved = _listed(groups, state)
    before = {name: value.dtype for name, value in saved.items()}
    try:
        engine.build(groups, state, set())
        compare("torch_optim.load_state_dict", _wanted(engine, groups), saved)
    except ValueError:
        engine.forget()
        raise
    engine.evaluating = any(TRAINED in own for own in state.values())  # it was saved with the weights for evaluation in place
    narrowed = [name for name, value in _wanted(engine, groups).items() if value.is_floating_point() and value.element_size() < before[name].itemsize]
    if narrowed:
        warnings.warn(f"torch_optim.load_state_dict: narrowed to the dtype that the transformation gives: {', '.join(narrowed[:3])}", stacklevel=5)


def copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    return {name: copied(part) for name, part in value.items()} if isinstance(value, dict) else value


def _listed(groups: list[dict], state: dict) -> dict[str, Tensor]:
    """Everything of ours that was saved, by name."""
    found: dict[str, Tensor] = {}
    index = 0
    for number, group in enumerate(groups):
        entry = group.get(ENTRY, {"state": {}})
        found |= {f"group {number}: {name}": value for name, value in entry["state"].items() if isinstance(value, Tensor)}
        paths = {path for other in groups for path in other.get(ENTRY, {}).get("structure", ())}
        for param in group["params"]:
            own = state[param] if param in state else {}
            found |= {f"parameter {index}: {name}": own[name] for name in own if name in paths and name != COHORT}
            index += 1
    return found


def _wanted(engine: Any, groups: list[dict]) -> dict[str, Tensor]:
    """The same names for what the transformation keeps."""
    index = {id(p): number for number, p in enumerate(p for group in groups for p in group["params"])}
    found: dict[str, Tensor] = {}
    for unit in engine.units:
        ids = {key: index[id(param)] for key, param in zip(unit.keys, unit.params, strict=True)}
        for place, name, leaf in zip(unit.places, unit.names, unit.leaves, strict=True):
            found[f"group {unit.groups[0]}: {name}" if place.owner is None else f"parameter {ids[place.owner]}: {name}"] = leaf
    return found
