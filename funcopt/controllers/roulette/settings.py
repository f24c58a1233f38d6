"""What a roulette is told when it is made, checked and in the form in which it is used."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from funcopt.controllers.roulette import compatibility
from funcopt.controllers.roulette.compatibility import Compatibility
from funcopt.controllers.roulette.members import Member
from funcopt.controllers.roulette.pool import Failures, Recovery
from funcopt.controllers.roulette.quirks import Quirks
from funcopt.controllers.roulette.switch_rules import RuleTables, SwitchRules, mentioned, tables
from funcopt.controllers.roulette.warmup import Warmup
from funcopt.core import check, tree

Switch = Literal["step", "epoch"]
Dispatch = Literal["auto", "branch", "select"]
Track = Literal["current", "all"]
OnActivate = Literal["keep", "resync", "reset"]
Kind = TypeVar("Kind", Failures, Recovery, Compatibility)

RARE = 20  # steps from draw to draw from which on an eager step for each costs less than looking at a state in every step


@dataclass(frozen=True, eq=False)
class Settings:
    """Made by `settled`, which checks what they are made from."""

    members: dict[str, Member]
    names: tuple[str, ...]
    quirks: Quirks
    by_epoch: bool  # a draw in each new epoch, and not at every `every`-th step
    every: int  # steps
    probability: float
    avoid_repeat: bool
    compounding: bool
    track_all: bool
    on_activate: OnActivate
    select: bool  # all members run and one is chosen
    must_branch: bool
    draw: Any  # the source of draws
    warmup: Warmup | None
    has_pool: bool  # whether there are records and queues
    active: tuple[int, ...]
    backup: tuple[int, ...]
    reserve: tuple[int, ...]
    failures: Failures
    recovery: Recovery
    compatible: Compatibility | None
    valid: Tensor  # bool [n, n]; who may come for whom
    rank: Tensor  # [n, n]; the lower the sooner
    pairs: tuple[tuple[int, int], ...]  # who hands over to whom
    rules: RuleTables | None
    pool_rules: RuleTables | None  # of swaps
    finds: bool  # whether a member finds its rate
    all_find: bool
    mends_outside: bool  # drawn members are looked at, where draws are rare, in a step outside the graph of the others
    one: tuple[Tensor, ...]  # rows of the identity: constants, added and never kept
    planned: int | None = None  # the member of this call, where it was found before the graph was entered

    def may_run(self) -> list[str]:
        """Who makes steps unless somebody locks another: the active ones and the warm-up's; with swaps, a refill or "select" all."""
        held = self.warmup
        if self.select or self.failures.swaps or (held is not None and held.refill):
            return list(self.names)
        drawn = {self.names[i] for i in self.active} | ({held.member} if held is not None and held.member is not None else set())
        return [name for name in self.names if name in drawn]

    def index(self, member: str | Tensor, like: Tensor) -> Tensor:
        """The number of a member, 0-dim int64; -1 for a name that is passed over."""
        if isinstance(member, Tensor):
            return member.to(device=like.device, dtype=torch.int64)
        if member not in self.names:
            if not self.quirks.swallows:
                raise ValueError(f"roulette: there is no member {member!r}; there are {', '.join(self.names)}")
            return torch.full_like(like, -1)
        return torch.full_like(like, self.names.index(member))

    def whole(self, value: int | Tensor, state: Any) -> Tensor:
        return _told(value, torch.int64, state.epoch.device)

    def real(self, value: Any, state: Any) -> Any:
        if value is None:
            return None
        return _told(check.told("roulette", "what an epoch was worth", value), tree.scalar_dtype(state.epoch.device), state.epoch.device)

    def flag(self, value: bool | Tensor | None, state: Any) -> bool | Tensor:
        return value.to(device=state.epoch.device, dtype=torch.bool) if isinstance(value, Tensor) else bool(value)

    def rates(self, like: Tensor) -> Tensor:
        """The rate of each member as it was given, 1 for those that have their size, the start for those that find theirs."""
        given = [member.first_rate for member in self.members.values()]
        if all(isinstance(rate, (int, float)) for rate in given):
            return torch.tensor(given, dtype=like.dtype, device="cpu").to(like.device, non_blocking=True)
        return torch.stack(
            [rate.to(like) if isinstance(rate, Tensor) else torch.full((), rate, dtype=like.dtype, device=like.device) for rate in given]
        )


def _told(value: float | Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    """What the loop tells; a number is filled in where it is needed, since a copy would wait."""
    return value.to(device=device, dtype=dtype) if isinstance(value, Tensor) else torch.full((), value, dtype=dtype, device=device)


def settled(
    members: dict[str, Member],
    quirks: Quirks,
    *,
    lists: tuple[Sequence[str] | None, Sequence[str] | None, Sequence[str] | None],
    failures: Failures | Mapping[str, Any] | None,
    recovery: Recovery | Mapping[str, Any] | None,
    compatible: Compatibility | Mapping[str, Any] | None,
    rules: SwitchRules | Sequence[SwitchRules | None] | None,
    warmup: Warmup | None,
    by_epoch: bool,
    every: int,
    probability: float,
    avoid_repeat: bool,
    compounding: bool,
    track_all: bool,
    on_activate: OnActivate,
    dispatch: Dispatch,
    draw: Any,
) -> Settings:
    """The settings that a roulette is told, checked.

    Args:
        lists: names of the active members, of backups and of reserves, as `roulette` is given them.

    Raises:
        ValueError, TypeError: as `roulette` tells.
    """
    names = list(members)
    groups = _made(Compatibility, compatible, "compatible")
    group_of = _group_of(members, groups, quirks)
    has_pool = any(given is not None for given in (*lists[1:], failures, recovery, compatible))
    active, backup, reserve = _lists(names, has_pool, *lists)
    fails = _made(Failures, failures, "failures") or Failures(swaps=failures is not None or bool(backup or reserve))
    recovers = _made(Recovery, recovery, "recovery") or Recovery()
    valid, rank = compatibility.replacement_tables(groups, names)
    if groups is not None and not quirks.silent_preferences:
        compatibility.warn_of_unreachable("roulette", groups, names, valid)
    finders = [name for name, member in members.items() if member.finds_rate]
    if finders and quirks.rates_are_given:
        raise ValueError(f"roulette: with parity=True each member has its rate, and '{finders[0]}' has none; give it lr=")
    switch_rules, pool_rules = _rules(rules, members, group_of, quirks)
    return Settings(
        members=members,
        names=tuple(names),
        quirks=quirks,
        by_epoch=by_epoch,
        every=every,
        probability=probability,
        avoid_repeat=avoid_repeat,
        compounding=compounding,
        track_all=track_all,
        on_activate=on_activate,
        select=dispatch == "select",
        must_branch=dispatch == "branch",
        draw=draw,
        warmup=_warmup(warmup, names, active, has_pool, quirks),
        has_pool=has_pool,
        active=active,
        backup=backup,
        reserve=reserve,
        failures=fails,
        recovery=recovers,
        compatible=groups,
        valid=valid,
        rank=rank,
        pairs=() if recovers.transfer == "none" else tuple(compatibility.transfer_pairs(groups, names)),
        rules=switch_rules,
        pool_rules=pool_rules,
        finds=bool(finders),
        all_find=len(finders) == len(members),
        mends_outside=not quirks.keeps_nan and (by_epoch or every >= RARE),
        one=torch.eye(len(members), dtype=torch.int64, device="cpu").unbind(),
    )


def _made(kind: type[Kind], given: Any, name: str) -> Kind | None:
    """Settings of a kind, from an object of it or a mapping of its arguments."""
    if given is None or isinstance(given, kind):
        return given
    if not isinstance(given, Mapping):
        raise TypeError(f"roulette: {name} must be a {kind.__name__} or a mapping of its arguments, got {given!r}")
    unknown = set(given) - set(kind.__dataclass_fields__)
    if unknown:
        raise ValueError(f"roulette: {name} knows {', '.join(kind.__dataclass_fields__)}, got {', '.join(sorted(map(str, unknown)))}")
    return kind(**given)


def _group_of(members: Mapping[str, Member], compatible: Compatibility | None, quirks: Quirks) -> dict[str, str]:
    """The group of each member that has one, whether it names it itself or `compatible` does."""
    named: dict[str, list[str]] = {}
    for name, member in members.items():
        if member.group is not None:
            named.setdefault(member.group, []).append(name)
    if compatible is not None:
        if not quirks.swallows:
            compatibility.check_names("roulette", compatible, list(members))
        given = compatibility.groups_of(compatible)
        for group, those in named.items():
            for member in those:
                if given.get(member) != group:
                    raise ValueError(
                        f"roulette: member '{member}' has one group, got '{group}' from itself and {given.get(member)!r} from compatible"
                    )
    group_of = {member: group for group, those in named.items() for member in those}
    if compatible is not None:
        group_of |= compatibility.groups_of(compatible)
    for group in group_of.values():
        if group in members:
            raise ValueError(f"roulette: a name must stand for a member or for a group, got '{group}' for both")
    return group_of


def _lists(
    names: list[str], has_pool: bool, active: Sequence[str] | None, backup: Sequence[str] | None, reserve: Sequence[str] | None
) -> tuple[tuple[int, ...], ...]:
    taken = {*(backup or ()), *(reserve or ())}
    if active is None:
        active = [name for name in names if name not in taken]
    if backup is None:
        rest = [name for name in names if name not in active and name not in taken]
        backup = rest if has_pool else []
    found = {"active": list(active), "backup": list(backup), "reserve": list(reserve or ())}
    seen: dict[str, str] = {}
    for what, given in found.items():
        for name in given:
            if name not in names:
                raise ValueError(f"roulette: {what} must name members of the pool, got {name!r}; there are {', '.join(names)}")
            if name in seen:
                raise ValueError(f"roulette: a member must be in one list, got '{name}' in {seen[name]} and in {what}")
            seen[name] = what
    if not found["active"]:
        raise ValueError("roulette: active must name at least one member")
    return tuple(tuple(names.index(name) for name in given) for given in found.values())


def _rules(
    rules: Any, members: Mapping[str, Member], group_of: dict[str, str], quirks: Quirks
) -> tuple[RuleTables | None, RuleTables | None]:
    """The tables of the switches, and those of the swaps where these have their own."""
    if isinstance(rules, tuple) and not rules:
        raise ValueError("roulette: rules must be made by switch_rules(...), got an empty tuple; None rules nothing")
    pair = rules if isinstance(rules, tuple) and quirks.rules_twice_at_swaps else (rules[0] if isinstance(rules, tuple) else rules, None)
    for one in pair:
        if one is not None and not isinstance(one, SwitchRules):
            raise TypeError(f"roulette: rules must be made by switch_rules(...), got {one!r}")
    if pair[0] is not None and not quirks.swallows:
        for name in mentioned(pair[0]):
            if name not in members and name not in group_of.values():
                raise ValueError(f"roulette: rules name '{name}', and there is no such member or group")
        for name, case in pair[0].special.items():
            member = members[name]
            if (member.has_size or member.finds_rate) and (case.get("lr") is not None or case.get("max_lr") is not None):
                why = "which finds it by itself" if member.finds_rate else "whose step has its size already"
                raise ValueError(f"roulette: rules set or limit the rate of '{name}', {why}; leave that to the member")
    names = list(members)
    switch = None if pair[0] is None else tables(pair[0], names, {} if quirks.rules_without_groups else group_of)
    return switch, None if pair[1] is None else tables(pair[1], names, group_of)


def _warmup(given: Any, names: list[str], active: tuple[int, ...], has_pool: bool, quirks: Quirks) -> Warmup | None:
    if given is None:
        return None
    if not isinstance(given, Warmup):
        raise TypeError(f"roulette: warmup must be made by fixed_warmup(...) or plateau_warmup(...), got {given!r}")
    if given.member is not None and given.member not in names:
        if not quirks.swallows:
            raise ValueError(f"roulette: warmup must name a member of the pool, got {given.member!r}; there are {', '.join(names)}")
        given = given._replace(member=None)
    if given.drop and given.member is None and not quirks.swallows:
        raise ValueError("roulette: a warm-up that drops its member must name it; pass member=")
    if given.refill and not (given.drop and has_pool):
        raise ValueError("roulette: refill=True needs drop=True and a pool with backups; pass backup=")
    if given.drop and given.member is not None and active == (names.index(given.member),) and len(names) == 1 and not quirks.swallows:
        raise ValueError("roulette: a warm-up cannot drop the only member of the pool")
    return given
