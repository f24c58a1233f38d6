"""What a roulette is told when it is made, its state, and the step of the member drawn."""

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.controllers.roulette import compatibility, member_rates, pool, warmup, wheel
from funcopt.controllers.roulette.members import Member, checked_states, run, said_rate
from funcopt.controllers.roulette.switch_rules import SwitchRules, mentioned, tables
from funcopt.core import TensorTree, check, random, read_signals, tree
from funcopt.core.protocol import EmptyState
from funcopt.core.versions import compiling

__all__ = ["RouletteState"]

RARE = 20  # steps from draw to draw from which on an eager step for each costs less than looking at a state in every step


class RouletteState(NamedTuple):
    members: dict[str, Any]  # the state of each
    pick: Tensor  # the current member
    previous_pick: Tensor  # the member before the last switch, -1 before the first
    base_lr: Tensor  # rate of the step just taken; float64, on the device of params
    lr: Tensor  # [n]; rate of each, with `compounding` after the rules; of members that have their size a factor of it
    active: Tensor  # [num_active]; who may be drawn, in order
    blocked: Tensor  # bool [n]
    locked: Tensor  # who is held, -1 for nobody
    phase: Tensor  # 0 warm-up, 1 roulette
    warmup_lock: Tensor  # whom the warm-up holds, -1 for nobody
    warmup_completed: Tensor  # bool
    window: Any  # metrics of a plateau warm-up
    epoch: Tensor  # its number
    started: Tensor  # bool; whether an epoch has begun
    count: Tensor  # steps taken
    counts: Tensor  # [n]; batches begun with each; with `parity` -1 for an entry that was dropped
    running: Tensor  # the member that made the last step, -1 before the first
    events: Tensor  # [3, 4]; (step, old, new, reason) of the switches of the last call: a swap, at an epoch, at a batch
    bad_losses: Tensor  # non-finite losses since the last record; on the device of params
    draw: Any  # of the source of draws
    pool: Any  # records and queues
    rates: Any  # what members without a rate have found; empty where all have one

    def signals(self) -> dict[str, Tensor]:
        said = {"pick": self.pick, "previous_pick": self.previous_pick, "base_lr": self.base_lr}
        for name, state in self.members.items():
            for word, value in read_signals(state).items():
                said[f"{name}/{word}"] = value
        return said if isinstance(self.rates, EmptyState) else said | self.rates.said(list(self.members))


def _made(kind: type, given: Any, name: str) -> Any:
    """Settings of a kind, from an object of it or a mapping of its arguments."""
    if given is None or isinstance(given, kind):
        return given
    if not isinstance(given, Mapping):
        raise TypeError(f"roulette: {name} must be a {kind.__name__} or a mapping of its arguments, got {given!r}")
    unknown = set(given) - set(kind.__dataclass_fields__)
    if unknown:
        raise ValueError(f"roulette: {name} knows {', '.join(kind.__dataclass_fields__)}, got {', '.join(sorted(map(str, unknown)))}")
    return kind(**given)


class Settings:
    """What a roulette is told, checked and in the form in which it is used."""

    def __init__(self, members: dict[str, Member], *, lists: Any, failures: Any, recovery: Any, compatible: Any, rules: Any, **plain: Any):
        self.members, self.names = members, list(members)
        self.parity: bool = plain["parity"]
        self.by_epoch: bool = plain["by_epoch"]
        self.warmup: Any = plain["warmup"]
        self.__dict__.update(plain)
        self.select, self.must_branch = plain["dispatch"] == "select", plain["dispatch"] == "branch"
        self.compatible = self._compatible(_made(compatibility.Compatibility, compatible, "compatible"))
        self.has_pool = any(given is not None for given in (*lists[1:], failures, recovery, compatible))
        self.active, self.backup, self.reserve = self._lists(*lists)
        self.failures = _made(pool.Failures, failures, "failures") or pool.Failures(
            swaps=failures is not None or bool(self.backup or self.reserve)
        )
        self.recovery = _made(pool.Recovery, recovery, "recovery") or pool.Recovery()
        self.valid, self.rank = compatibility.replacement_tables(self.compatible, self.names)
        self.pairs = [] if self.recovery.transfer == "none" else compatibility.transfer_pairs(self.compatible, self.names)
        if self.compatible is not None and not self.parity:
            compatibility.warn_of_unreachable("roulette", self.compatible, self.names, self.valid)
        finders = [name for name, member in members.items() if member.finds_rate]
        if finders and self.parity:
            raise ValueError(f"roulette: with parity=True each member has its rate, and '{finders[0]}' has none; give it lr=")
        self.finds, self.all_find = bool(finders), len(finders) == len(members)
        self.rules, self.pool_rules = self._rules(rules)
        self._check_warmup()
        self.one = torch.eye(len(members), dtype=torch.int64).unbind()  # constants, added and never kept
        # Drawn members are looked at, where draws are rare, in a step outside the graph of the others.
        self.mends_outside = not self.parity and (plain["by_epoch"] or plain["every"] >= RARE)
        self.planned: int | None = None  # the member of this call, where it was found before the graph was entered
        self.plans = [copy.copy(self) for _ in members]
        for i, planned in enumerate(self.plans):
            planned.planned = i

    def may_run(self) -> list[str]:
        """Who makes steps unless somebody locks another: the active ones and the warm-up's; with swaps, a refill or "select" all."""
        held = self.warmup
        if self.select or self.failures.swaps or (held is not None and held.refill):
            return self.names
        drawn = {self.names[i] for i in self.active} | ({held.member} if held is not None and held.member is not None else set())
        return [name for name in self.names if name in drawn]

    def _compatible(self, compatible: Any) -> Any:
        """With the groups that the members themselves name."""
        named: dict[str, list[str]] = {}
        for name, member in self.members.items():
            if member.group is not None:
                named.setdefault(member.group, []).append(name)
        if compatible is not None:
            if not self.parity:
                compatibility.check_names("roulette", compatible, self.names)
            given = compatibility.groups_of(compatible)
            for group, members in named.items():
                for member in members:
                    if given.get(member) != group:
                        raise ValueError(
                            f"roulette: member '{member}' has one group, got '{group}' from itself and {given.get(member)!r} from "
                            "compatible"
                        )
        self.group_of = {member: group for group, members in named.items() for member in members}
        if compatible is not None:
            self.group_of |= compatibility.groups_of(compatible)
        for group in self.group_of.values():
            if group in self.names:
                raise ValueError(f"roulette: a name must stand for a member or for a group, got '{group}' for both")
        return compatible

    def _lists(self, active: Any, backup: Any, reserve: Any) -> tuple[tuple[int, ...], ...]:
        taken = {*(backup or ()), *(reserve or ())}
        if active is None:
            active = [name for name in self.names if name not in taken]
        if backup is None:
            rest = [name for name in self.names if name not in active and name not in taken]
            backup = rest if self.has_pool else []
        found = {"active": list(active), "backup": list(backup), "reserve": list(reserve or ())}
        seen: dict[str, str] = {}
        for what, given in found.items():
            for name in given:
                if name not in self.names:
                    raise ValueError(f"roulette: {what} must name members of the pool, got {name!r}; there are {', '.join(self.names)}")
                if name in seen:
                    raise ValueError(f"roulette: a member must be in one list, got '{name}' in {seen[name]} and in {what}")
                seen[name] = what
        if not found["active"]:
            raise ValueError("roulette: active must name at least one member")
        return tuple(tuple(self.names.index(name) for name in given) for given in found.values())

    def _rules(self, rules: Any) -> tuple[Any, Any]:
        """The tables of the switches and, with `parity`, those of the swaps, which alone know groups."""
        if isinstance(rules, tuple) and not rules:
            raise ValueError("roulette: rules must be made by switch_rules(...), got an empty tuple; None rules nothing")
        pair = rules if isinstance(rules, tuple) and self.parity else (rules[0] if isinstance(rules, tuple) else rules, None)
        for one in pair:
            if one is not None and not isinstance(one, SwitchRules):
                raise TypeError(f"roulette: rules must be made by switch_rules(...), got {one!r}")
        if pair[0] is not None and not self.parity:
            for name in mentioned(pair[0]):
                if name not in self.names and name not in self.group_of.values():
                    raise ValueError(f"roulette: rules name '{name}', and there is no such member or group")
            for name, case in pair[0].special.items():
                member = self.members[name]
                if (member.has_size or member.finds_rate) and (case.get("lr") is not None or case.get("max_lr") is not None):
                    why = "which finds it by itself" if member.finds_rate else "whose step has its size already"
                    raise ValueError(f"roulette: rules set or limit the rate of '{name}', {why}; leave that to the member")
        switch = None if pair[0] is None else tables(pair[0], self.names, {} if self.parity else self.group_of)
        return switch, None if pair[1] is None else tables(pair[1], self.names, self.group_of)

    def _check_warmup(self) -> None:
        given = self.__dict__["warmup"]
        if given is None:
            return
        if not isinstance(given, warmup.Warmup):
            raise TypeError(f"roulette: warmup must be made by fixed_warmup(...) or plateau_warmup(...), got {given!r}")
        if given.member is not None and given.member not in self.names:
            if not self.parity:
                raise ValueError(
                    f"roulette: warmup must name a member of the pool, got {given.member!r}; there are {', '.join(self.names)}"
                )
            self.__dict__["warmup"] = given = given._replace(member=None)
        if given.drop and given.member is None and not self.parity:
            raise ValueError("roulette: a warm-up that drops its member must name it; pass member=")
        if given.refill and not (given.drop and self.has_pool):
            raise ValueError("roulette: refill=True needs drop=True and a pool with backups; pass backup=")
        if given.drop and self.active == (self.names.index(given.member),) if given.member is not None else False:
            if len(self.names) == 1 and not self.parity:
                raise ValueError("roulette: a warm-up cannot drop the only member of the pool")

    def index(self, member: str | Tensor, like: Tensor) -> Tensor:
        """The number of a member, 0-dim int64; with `parity` -1 for an unknown name."""
        if isinstance(member, Tensor):
            return member.to(device=like.device, dtype=torch.int64)
        if member not in self.names:
            if not self.parity:
                raise ValueError(f"roulette: there is no member {member!r}; there are {', '.join(self.names)}")
            return torch.full_like(like, -1)
        return torch.full_like(like, self.names.index(member))

    def whole(self, value: int | Tensor, state: RouletteState) -> Tensor:
        return self._told(value, torch.int64, state.epoch.device)

    def real(self, value: Any, state: RouletteState) -> Any:
        if value is None:
            return None
        return self._told(
            check.told("roulette", "what an epoch was worth", value), tree.scalar_dtype(state.epoch.device), state.epoch.device
        )

    def _told(self, value: float | Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
        """What the loop tells; a number is filled in where it is needed, since a copy would wait."""
        return value.to(device=device, dtype=dtype) if isinstance(value, Tensor) else torch.full((), value, dtype=dtype, device=device)

    def flag(self, value: bool | Tensor | None, state: RouletteState) -> bool | Tensor:
        return value.to(device=state.epoch.device, dtype=torch.bool) if isinstance(value, Tensor) else bool(value)

    def rates(self, like: Tensor) -> Tensor:
        """The rate of each member as it was given, 1 for those that have their size, the start for those that find theirs."""
        given = [member.first_rate for member in self.members.values()]
        if all(isinstance(rate, (int, float)) for rate in given):
            return torch.tensor(given, dtype=like.dtype).to(like.device, non_blocking=True)
        return torch.stack(
            [rate.to(like) if isinstance(rate, Tensor) else torch.full((), rate, dtype=like.dtype, device=like.device) for rate in given]
        )


def first_state(settings: Any, key: Tensor, params: TensorTree) -> RouletteState:
    n, device = len(settings.members), tree.device(params)
    here = device if settings.select else torch.device("cpu")
    states = checked_states("roulette", settings.members, params)

    def number(value: int) -> Tensor:
        return torch.full((), value, dtype=torch.int64, device=here)

    lr = settings.rates(torch.zeros((), dtype=tree.scalar_dtype(here), device=here))
    held = settings.warmup
    first = settings.active[0] if held is None or held.member is None else settings.names.index(held.member)
    current = settings.members[settings.names[first]]
    said = said_rate(current, states[settings.names[first]], tree.scalar(0.0, params))
    state = RouletteState(
        members=states,
        pick=number(first),
        previous_pick=number(-1),
        base_lr=tree.scalar(lr[first] if said is None else said, params).to(device).clone(),
        lr=lr,
        active=torch.tensor(settings.active, dtype=torch.int64, device=here),
        blocked=torch.zeros(n, dtype=torch.bool, device=here),
        locked=number(-1 if held is None else first),
        phase=number(warmup.ROULETTE if held is None else warmup.WARMUP),
        warmup_lock=number(-1 if held is None else first),
        warmup_completed=torch.zeros((), dtype=torch.bool, device=here),
        window=EmptyState() if held is None or held.epochs is not None else warmup.window(held, number(0)),
        epoch=number(0),
        started=torch.zeros((), dtype=torch.bool, device=here),
        count=number(0),
        counts=torch.zeros(n, dtype=torch.int64, device=here),
        running=number(-1),
        events=torch.zeros(3, 4, dtype=torch.int64, device=here),
        bad_losses=torch.zeros((), dtype=torch.int64, device=device),
        draw=settings.draw.init(key.to(here)),
        pool=EmptyState(),
        rates=member_rates.first(settings, params) if settings.finds else EmptyState(),
    )
    return state._replace(pool=pool.first(settings, state.pick)) if settings.has_pool else state


# --- the step -----------------------------------------------------------------------------------------------------------------


def _woken(settings: Any, member: Member, state: Any, params: TensorTree) -> Any:
    """The state of a member that becomes current."""
    check.params(f"roulette: on_activate='{settings.on_activate}'", params)
    if settings.on_activate == "reset":
        return checked_states("roulette", {"": member}, params)[""]
    return state if member.anchors is None else member.anchors(state, params)


def _mended(member: Member, state: Any, params: TensorTree) -> Any:
    """The state of a member that is drawn; one that is not finite where a new one is starts anew: it would stay so for ever."""
    fresh = checked_states("roulette", {"": member}, params)[""]
    # it grows with the run (`from_torch`), and no flag on a device could choose
    if not compiling() and tree.structure(fresh) != tree.structure(state):
        return state
    device = tree.device(params)
    pairs = [
        (new, old)
        for new, old in zip(tree.leaves(fresh), tree.leaves(state), strict=True)
        if old.device == device and old.shape == new.shape
    ]
    well = tree.all_finite([torch.where(new.isfinite(), old, torch.zeros_like(old)) for new, old in pairs])
    return tree.map_plain(lambda new, old: torch.where(well, old, new.to(old.dtype)) if old.device == device else old, fresh, state)


def step(settings: Any, updates: TensorTree, state: RouletteState, params: TensorTree | None, plan: Any, extra: dict[str, Any]):
    """The update of the current member alone, or of all members with one of them chosen."""
    device = state.base_lr.device
    if settings.finds:
        state = state._replace(rates=member_rates.after_last_step(settings, state.rates, updates, params, extra.get("loss")))
    readable = not settings.select and random.readable(state.pick)
    if readable or (not settings.select and (plan is not None or settings.must_branch)):
        # On the host the pick is read, in a graph it is the plan, and else reading it raises.
        i, inner = (
            (random.host_int(state.pick, "roulette"), None)
            if readable or plan is None
            else plan
            if isinstance(plan, tuple)
            else (plan, None)
        )
        as_it_is = settings.rules is None or settings.compounding
        factor = (state.lr[i].clone() if as_it_is else wheel.rate(settings, state)).to(device, non_blocking=True)
        mover = i
        factor = member_rates.stretched(state.rates, factor, mover) if settings.finds else factor
        direction, states, base_lr = _one(settings, i, updates, state, params, factor, extra if inner is None else {**extra, "plan": inner})
    else:
        factor, mover = wheel.rate(settings, state).to(device, non_blocking=True), state.pick.to(device)
        factor = member_rates.stretched(state.rates, factor, mover) if settings.finds else factor
        direction, states, base_lr = _all(settings, updates, state, params, factor, extra)
    if settings.finds:
        rates, base_lr = member_rates.after_this_step(settings, state.rates, mover, direction, base_lr)
        state = state._replace(rates=rates)
    state = state._replace(members=states, base_lr=base_lr, count=state.count + 1)
    if settings.pairs:
        state = state._replace(pool=state.pool._replace(has_run=wheel.put(state.pool.has_run, state.pick, True)))
    if settings.on_activate != "keep" or not settings.parity:
        state = state._replace(running=state.pick.clone())
    return direction, state


def _before(settings: Any, i: int, state: RouletteState, params: TensorTree | None) -> Any:
    """The state of member `i` as its update finds it."""
    member, before = settings.members[settings.names[i]], state.members[settings.names[i]]
    wakes = (state.pick == i) & (state.running != i)
    if settings.on_activate != "keep":
        before = wheel.when(settings, wakes, lambda s: _woken(settings, member, s, params), before)
    in_a_graph_of_its_own = settings.mends_outside and not settings.select and not random.readable(state.pick)
    if settings.parity or settings.on_activate == "reset" or params is None or in_a_graph_of_its_own:
        return before
    return wheel.when(settings, wakes, lambda s: _mended(member, s, params), before)


def _one(
    settings: Any, i: int, updates: TensorTree, state: RouletteState, params: TensorTree | None, factor: Tensor, extra: dict[str, Any]
):
    states = dict(state.members)
    for j, (name, member) in enumerate(settings.members.items()) if settings.track_all else ():
        if j != i:
            states[name] = run(member, updates, state.members[name], params, state.base_lr, extra)[1]
    name = settings.names[i]
    direction, states[name], said = run(settings.members[name], updates, _before(settings, i, state, params), params, state.base_lr, extra)
    return direction, states, factor if said is None else factor * said.to(factor.dtype)


def _all(settings: Any, updates: TensorTree, state: RouletteState, params: TensorTree | None, factor: Tensor, extra: dict[str, Any]):
    direction, base_lr = None, factor
    states: dict[str, Any] = {}
    for i, (name, member) in enumerate(settings.members.items()):
        here = (state.pick == i).to(factor.device)
        given = updates
        if not settings.track_all:  # derivatives flow through both sides of a choice, so an idle member must stay finite
            given = tree.map(lambda u, here=here: torch.where(here, u, torch.zeros_like(u)), updates)
        turned, after, said = run(member, given, _before(settings, i, state, params), params, state.base_lr, extra)
        states[name] = after if settings.track_all else wheel.choose(here, after, state.members[name])
        direction = turned if direction is None else tree.where(here, turned, direction)
        if said is not None:
            base_lr = torch.where(here, factor * said.to(factor.dtype), base_lr)
    return direction, states, base_lr.clone() if base_lr is factor else base_lr
