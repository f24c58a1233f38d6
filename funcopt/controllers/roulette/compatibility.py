"""Who may replace whom: groups, preferences and aversions of a pool as two constant tables.

    the replacement of f = the available c with valid[f, c] that minimises (rank[f, c], place of c)

`rank[f, c]` is the place of the first entry that reaches c in: the members of f's group (if it
is enabled), the preferences of f, tier after tier, then the priorities of the groups.
Source: OptiRoulette 0.1.0, whose search this equals where no name is both a member and a group.
"""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field

import torch
from torch import Tensor

from funcopt.core.door.callers import warn

__all__ = ["Compatibility", "Group"]

LAST = 999  # the priority of members without a group
NEVER = 1 << 20  # a rank behind every other


@dataclass(frozen=True)
class Group:
    """Members that can stand in for each other.

    Args:
        members: their names, the first one first.
        enabled: look here first for a replacement of a member of the group.
        priority: of the group when nothing else decides; the least wins.
        internal: members are only replaced by members, and replace only members.
        compatible: groups with which it may exchange members.
        incompatible: groups with which it may not.
    """

    members: Sequence[str]
    _: KW_ONLY
    enabled: bool = False
    priority: int = LAST
    internal: bool = False
    compatible: Sequence[str] = ()
    incompatible: Sequence[str] = ()


@dataclass(frozen=True)
class Compatibility:
    """Who may replace whom.

    Args:
        groups: names and groups; a member of several belongs to the last.
        across: members of different groups may replace each other (members without a
            group always may).
        interactions: look at what the groups say they are compatible with; where they say
            nothing, `across` holds.
        preferred: for a member, tiers of names of members or groups, the best tier first.
        avoid: for a member, names of members or groups that never replace it.
        transfer: for a member, the members that may take over its state; None: anybody's may.

    Example:
        >>> fo.Compatibility(groups={"adaptive": fo.Group(["adam", "lion"])}, avoid={"adam": ["lion"]}).across
        False
    """

    groups: Mapping[str, Group] = field(default_factory=dict)
    _: KW_ONLY
    across: bool = False
    interactions: bool = False
    preferred: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)
    avoid: Mapping[str, Sequence[str]] = field(default_factory=dict)
    transfer: Mapping[str, Sequence[str]] | None = None


def groups_of(compatible: Compatibility) -> dict[str, str]:
    """The group of each member that has one."""
    return {member: name for name, group in compatible.groups.items() for member in group.members}


def check_names(where: str, compatible: Compatibility, names: list[str]) -> None:
    groups = set(compatible.groups)
    for name in names:
        if name in groups:
            raise ValueError(f"{where}: a name must stand for a member or for a group, got '{name}' for both")
    for name, group in compatible.groups.items():
        for member in group.members:
            if member not in names:
                raise ValueError(f"{where}: group '{name}' names '{member}', which is no member of the pool")
        for other in (*group.compatible, *group.incompatible):
            if other not in groups:
                raise ValueError(f"{where}: group '{name}' speaks of the group '{other}', and there is none of that name")
    tiers = {member: [entry for tier in tiers for entry in tier] for member, tiers in compatible.preferred.items()}
    for what, lists in (("preferred", tiers), ("avoid", compatible.avoid), ("transfer", compatible.transfer or {})):
        for member, entries in lists.items():
            for entry in (member, *entries):
                if entry not in names and (entry not in groups or entry == member or what == "transfer"):
                    raise ValueError(
                        f"{where}: {what} names '{entry}', and there is no such member" + ("" if what == "transfer" else " or group")
                    )


def may_swap(compatible: Compatibility, ours: str | None, theirs: str | None) -> bool:
    if ours is None or theirs is None or ours == theirs:
        return True
    a, b = compatible.groups[ours], compatible.groups[theirs]
    if a.internal or b.internal:
        return False
    if compatible.interactions:
        if theirs in a.incompatible or ours in b.incompatible:
            return False
        if theirs in a.compatible or ours in b.compatible:
            return True
    return compatible.across


def replacement_tables(compatible: Compatibility | None, names: list[str]) -> tuple[Tensor, Tensor]:
    """`valid` and `rank`, both [n, n]; without data everybody may follow everybody, the first in line first."""
    n = len(names)
    valid, rank = torch.ones(n, n, dtype=torch.bool, device="cpu"), torch.zeros(n, n, dtype=torch.int64, device="cpu")
    if compatible is None:
        return valid, rank
    group_of = groups_of(compatible)
    priorities = sorted({LAST, *(group.priority for group in compatible.groups.values())})
    for f, failed in enumerate(names):
        ours = group_of.get(failed)
        entries: list[set[str]] = []  # each reaches these members at the same place
        if ours is not None and compatible.groups[ours].enabled:
            entries += [{member} for member in compatible.groups[ours].members if group_of[member] == ours and member != failed]
        for tier in compatible.preferred.get(failed, ()):
            entries += [{entry} if entry in names else {member for member in names if group_of.get(member) == entry} for entry in tier]
        avoid = set(compatible.avoid.get(failed, ()))
        for c, candidate in enumerate(names):
            theirs = group_of.get(candidate)
            valid[f, c] = candidate not in avoid and theirs not in avoid and may_swap(compatible, ours, theirs)
            behind = priorities.index(compatible.groups[theirs].priority if theirs is not None else LAST)
            rank[f, c] = next((place for place, reached in enumerate(entries) if candidate in reached), len(entries) + behind)
    return valid, rank


def warn_of_unreachable(where: str, compatible: Compatibility, names: list[str], valid: Tensor) -> None:
    """Preferences that a group's `internal` rules out."""
    group_of = groups_of(compatible)
    allowed = {
        failed: {name for name, good in zip(names, row, strict=True) if good} for failed, row in zip(names, valid.unbind(), strict=True)
    }
    for failed, tiers in compatible.preferred.items():
        for entry in (entry for tier in tiers for entry in tier):
            reached = {entry} if entry in names else {member for member in names if group_of.get(member) == entry}
            shut = [name for name in reached if name not in allowed[failed] and _internal(compatible, group_of, failed, name)]
            if reached and len(shut) == len(reached):
                warn(f"{where}: '{failed}' prefers '{entry}', which an internal group puts out of reach")


def _internal(compatible: Compatibility, group_of: dict[str, str], *members: str) -> bool:
    groups = [group_of[member] for member in members if member in group_of]
    return len(groups) == 2 and groups[0] != groups[1] and any(compatible.groups[group].internal for group in groups)


def transfer_pairs(compatible: Compatibility | None, names: list[str]) -> list[tuple[int, int]]:
    """Who may hand its state to whom."""
    n = len(names)
    if compatible is None or compatible.transfer is None:
        return [(i, j) for i in range(n) for j in range(n) if i != j]
    known = [
        (giver, taker)
        for giver, takers in compatible.transfer.items()
        for taker in takers
        if giver != taker and giver in names and taker in names
    ]
    return [(names.index(giver), names.index(taker)) for giver, taker in known]
