"""Who counts with whom: parameters of a group that have taken the same steps share their counters, as a cohort.

    state[parameter]["cohort"]            the number of its cohort; 0, which is not noted, is that of the first steps
    group["funcopt"]["state"]["c1/0/count"]    a counter of cohort 1
    state[parameter]["along/0/count"]     a counter that a parameter takes along from a group that it has left

In torch every parameter has counters to itself. Here one that pauses, that comes later, whose state is deleted, that
moves to another group, or that misses what an option asks for which was switched on later, is given its own.
"""

import re
from collections.abc import Collection, Sequence
from typing import Any

from funcopt.torch_optim.storage import ENTRY, entry
from funcopt.torch_optim.units import Member, Unit

__all__ = ["ALONG", "COHORT", "arrive", "bare", "borne", "free", "label", "leave", "number_of", "shared_of", "swept", "uneven"]

COHORT = "cohort"  # of a parameter that came late or paused: the number of its counters; of one without leaves: that it steps
ALONG = "along/"


def label(number: int) -> str:
    """What stands in front of the paths of what a cohort shares."""
    return f"c{number}/" if number else ""


def number_of(label: str) -> int:
    return int(label[1:-1] or 0)


def bare(name: str) -> str:
    """A path without the label of a cohort."""
    return re.sub(r"^c\d+/", "", name)


def label_of(name: str) -> str:
    found = re.match(r"^c\d+/", name)
    return found.group() if found else ""


def shared_of(kept: dict[str, Any], label: str) -> dict[str, Any]:
    """What a cohort shares, by its path, also what no option asks for at present."""
    return {bare(name): value for name, value in kept.items() if label_of(name) == label}


def free(kept: dict[str, Any], taken: Collection[int] = ()) -> int:
    """A number that no cohort of a group has."""
    labels, number = {label_of(name) for name in kept}, 1
    while label(number) in labels or number in taken:
        number += 1
    return number


def leave(units: Sequence[Unit], groups: Sequence[dict], state: dict) -> None:
    """Gives parameters that are no longer in the group of their unit the counters that they had there."""
    where = {id(p): number for number, group in enumerate(groups) for p in group["params"]}
    for unit in units:
        gone = [p for p in unit.params if where.get(id(p)) != unit.number and state.get(p)]
        if not gone or unit.number >= len(groups) or groups[unit.number].get(ENTRY, {}).get("state") is not unit.home:
            continue
        along: dict[Any, dict[str, Any]] = {}
        for param in gone:
            own = state[param]
            if own.pop(COHORT, 0) != number_of(unit.label) or any(name.startswith(ALONG) for name in own):
                continue
            place = where.get(id(param))
            if place not in along:  # those that go to the same place go on together
                along[place] = {ALONG + path: value.clone() for path, value in shared_of(unit.home, unit.label).items()}
            own |= along[place]


def arrive(groups: Sequence[dict], state: dict) -> None:
    """Makes cohorts of parameters that have brought counters along."""
    for group in groups:
        cohorts: dict[tuple, int] = {}
        owned = [state[param] for param in group["params"] if state.get(param)]
        for own in owned:
            brought = {name: own.pop(name) for name in list(own) if name.startswith(ALONG)}
            if not brought:
                continue
            kept, together = entry(group)["state"], tuple(map(id, brought.values()))
            if together not in cohorts:
                number = cohorts[together] = free(kept, [other.get(COHORT, 0) for other in owned])
                kept |= {label(number) + name.removeprefix(ALONG): value for name, value in brought.items()}
            own[COHORT] = cohorts[together]


def borne(group: dict, state: dict) -> list[str]:
    """The labels of the cohorts that parameters of a group are in."""
    kept = group[ENTRY]
    # of leaves of parameters; without any, all that step are the first cohort
    paths = set(kept["structure"]) - set(map(bare, kept["state"]))
    owned = [state.get(param) or {} for param in group["params"]]
    numbers = {own.get(COHORT, 0) for own in owned if COHORT in own or not paths.isdisjoint(own)}
    if owned and not paths and not any(COHORT in own for own in owned):
        numbers = {0}
    return list(map(label, numbers))


def swept(kept: dict[str, Any], labels: Collection[str]) -> None:
    """Forgets the counters of cohorts that nobody is in."""
    for name in [name for name in kept if label_of(name) not in labels]:
        del kept[name]


def link(path: str) -> str:
    """The part of a state in which a leaf stands; leaves of one link begin together."""
    return path.rpartition("/")[0]


def uneven(unit: Unit, state: dict, wanted: set[int], recipe: Any) -> list[tuple[str, list[Member]]]:
    """Sorts the members of a unit that is not settled yet by what they miss of what it asks for.

    Those that miss the same share counters: where others miss less they get a new cohort, in which the links that they
    miss whole begin anew. One that misses everything, and has no gradient, is a stranger.

    Returns:
        The members by cohorts, each with its label; without strangers.
    """
    asked: dict[str, set[str]] = {member.key: set() for member in unit.members}
    for place in unit.places:
        if place.owner is not None:
            asked[place.owner].add(place.path)
    classes: dict[frozenset, list[Member]] = {}
    for member in unit.members:
        kept, paths = state.get(member.param) or {}, asked[member.key]
        missing = frozenset(map(link, paths)) - {link(path) for path in paths if path in kept}
        if paths and missing == set(map(link, paths)) and id(member.param) not in wanted:
            kept.pop(COHORT, None)
        else:
            classes.setdefault(missing, []).append(member)
    staying = min(classes, key=lambda missing: (len(missing), -len(classes[missing])), default=None)
    before, labelled = shared_of(unit.home, unit.label), []
    for missing, part in classes.items():
        anew = bool(missing) and all(link(path) in missing for member in part for path in asked[member.key])
        going = {path: value for path, value in before.items() if not anew and link(path) not in missing}
        own = unit.label if missing == staying else label(free(unit.home))
        if missing == staying:
            for path in before.keys() - going.keys():
                del unit.home[own + path]
        else:
            unit.home |= {own + path: value.clone() for path, value in going.items()}
            for member in part:
                state[member.param][COHORT] = number_of(own)
        for place in unit.places:  # what counts for leaves that were there without being counted
            if place.owner is None and not anew and link(place.path) not in missing and own + place.path not in unit.home:
                first = recipe.late(place.path)
                if first is not None:
                    unit.home[own + place.path] = first
        labelled.append((own, part))
    return labelled
