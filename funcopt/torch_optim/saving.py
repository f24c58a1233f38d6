"""Reading a state dict: torch's checks and hooks, then the values as they were saved.

The base class casts what it reads to the dtype of the parameter, which rounds counters,
masks and random words; so the values are taken from what was given, once more.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from funcopt.torch_optim.cohorts import COHORT, arrive, bare, borne, swept
from funcopt.torch_optim.form import has_form
from funcopt.torch_optim.interchange import of_torch
from funcopt.torch_optim.storage import ENTRY, FORMAT, TRAINED, compare

__all__ = ["reading", "restore"]


@contextmanager
def reading(opt: Any) -> Iterator[None]:
    """Notes what is read, as the last hook before reading leaves it."""

    def note(_: Any, given: dict) -> None:
        has_form(f"{type(opt).__name__}.load_state_dict", given)
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
            raise ValueError(
                f"torch_optim: the form of a state must be at most {FORMAT}, got {entry['format']}; it was saved by a newer funcopt"
            )
    saved_ids = [number for group in given["param_groups"] for number in group["params"]]
    params = [p for group in groups for p in group["params"]]
    for number, param in zip(saved_ids, params, strict=True):
        if number in given["state"]:
            state[param] = {name: copied(value) for name, value in given["state"][number].items()}
    if not ours:
        if any(value is not None for own in state.values() for value in own.values()):
            try:
                of_torch(opt, groups, state)
            except ValueError:
                engine.forget()
                raise
        engine.evaluating = False
        return
    for group, source in zip(groups, given["param_groups"], strict=True):
        if ENTRY in source:
            group[ENTRY]["state"] = {name: copied(value) for name, value in source[ENTRY]["state"].items()}
            engine.recipe.upgrade(group[ENTRY]["state"])
    if engine.recipe.per_leaf:
        _handed_on(groups, state)
    for number, group in enumerate(groups):
        engine.recipe.check(group, groups[:number])  # what they say need not be what their state was made for
    arrive(groups, state)
    for group in groups:
        if ENTRY in group and engine.recipe.per_leaf:
            swept(group[ENTRY]["state"], borne(group, state))  # of parameters that are no longer there
    saved = _listed(groups, state)
    before = {name: value.dtype for name, value in saved.items()}
    try:
        paths = {path for entry in ours for path in entry["structure"]}
        engine.build(groups, state, {id(p) for p in params if not paths.isdisjoint(state.get(p, ()))})
        wanted, waits = _wanted(engine, groups), engine.recipe.waits
        known = {name.partition(": ")[0] for name in wanted if name in saved}
        begun = {
            name: x
            for name, x in wanted.items()
            if name in saved or name.partition(": ")[0] not in known or bare(name.partition(": ")[2]) not in waits
        }
        compare(
            "torch_optim.load_state_dict",
            begun,
            {name: x for name, x in saved.items() if name in wanted or not _idle(name, engine, groups)},
        )
    except ValueError:
        engine.forget()
        raise
    engine.evaluating = any(TRAINED in own for own in state.values())  # it was saved with the weights for evaluation in place
    found = {name: value for name, value in wanted.items() if name in before and value.is_floating_point()}
    narrowed = [name for name, value in found.items() if value.element_size() < before[name].itemsize]
    if narrowed:
        warnings.warn(
            f"torch_optim.load_state_dict: narrowed to the dtype that the transformation gives: {', '.join(narrowed[:3])}", stacklevel=5
        )


def _idle(name: str, engine: Any, groups: list[dict]) -> bool:
    """Whether what was saved waits for an option that is off, or was counted for parameters that have nothing to go on from."""
    owner, _, path = name.partition(": ")
    forgotten = path != bare(path) and owner.startswith("group") and path not in groups[int(owner.split()[1])][ENTRY]["state"]
    return forgotten or bare(path) in engine.recipe.waits


def _handed_on(groups: list[dict], state: dict) -> None:
    """Counts saved of all groups as one become each group's own: they are of a version in which wrappers had groups step together."""
    first = groups[0].get(ENTRY)
    if first is None:
        return
    for group in groups[1:]:
        if ENTRY not in group and any(path in state.get(param, ()) for param in group["params"] for path in first["structure"]):
            group[ENTRY] = {**first, "state": {name: copied(value) for name, value in first["state"].items()}}


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
            found[f"group {unit.number}: {name}" if place.owner is None else f"parameter {ids[place.owner]}: {name}"] = leaf
    return found
