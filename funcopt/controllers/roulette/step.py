"""The step of a roulette: the update of the member drawn, or of all with one of them chosen."""

from typing import Any

import torch
from torch import Tensor

from funcopt.controllers import select
from funcopt.controllers.roulette import member_rates, wheel
from funcopt.controllers.roulette.members import Member, checked_states, run
from funcopt.controllers.roulette.settings import Settings
from funcopt.controllers.roulette.state import RouletteState
from funcopt.core import TensorTree, check, random, tree
from funcopt.core.sent import sent
from funcopt.core.versions import compiling


def _woken(settings: Settings, member: Member, state: Any, params: TensorTree) -> Any:
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


def step(settings: Settings, updates: TensorTree, state: RouletteState, params: TensorTree | None, plan: Any, extra: dict[str, Any]):
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
        factor = sent(state.lr[i].clone() if as_it_is else wheel.rate(settings, state), device)
        mover = i
        factor = member_rates.stretched(state.rates, factor, mover) if settings.finds else factor
        direction, states, base_lr = _one(settings, i, updates, state, params, factor, extra if inner is None else {**extra, "plan": inner})
    else:
        factor, mover = sent(wheel.rate(settings, state), device), sent(state.pick, device)
        factor = member_rates.stretched(state.rates, factor, mover) if settings.finds else factor
        direction, states, base_lr = _all(settings, updates, state, params, factor, extra)
    if settings.finds:
        rates, base_lr = member_rates.after_this_step(settings, state.rates, mover, direction, base_lr)
        state = state._replace(rates=rates)
    state = state._replace(members=states, base_lr=base_lr, count=state.count + 1)
    if settings.pairs:
        state = state._replace(pool=state.pool._replace(has_run=select.put(state.pool.has_run, state.pick, True)))
    if settings.on_activate != "keep" or not settings.quirks.keeps_nan:
        state = state._replace(running=state.pick.clone())
    return direction, state


def _before(settings: Settings, i: int, state: RouletteState, params: TensorTree | None) -> Any:
    """The state of member `i` as its update finds it."""
    member, before = settings.members[settings.names[i]], state.members[settings.names[i]]
    wakes = (state.pick == i) & (state.running != i)
    if settings.on_activate != "keep":
        before = select.when(settings, wakes, lambda s: _woken(settings, member, s, params), before)
    in_a_graph_of_its_own = settings.mends_outside and not settings.select and not random.readable(state.pick)
    if settings.quirks.keeps_nan or settings.on_activate == "reset" or params is None or in_a_graph_of_its_own:
        return before
    return select.when(settings, wakes, lambda s: _mended(member, s, params), before)


def _one(
    settings: Settings, i: int, updates: TensorTree, state: RouletteState, params: TensorTree | None, factor: Tensor, extra: dict[str, Any]
):
    states = dict(state.members)
    for j, (name, member) in enumerate(settings.members.items()) if settings.track_all else ():
        if j != i:
            states[name] = run(member, updates, state.members[name], params, state.base_lr, extra)[1]
    name = settings.names[i]
    direction, states[name], said = run(settings.members[name], updates, _before(settings, i, state, params), params, state.base_lr, extra)
    return direction, states, factor if said is None else factor * said.to(factor.dtype)


def _all(settings: Settings, updates: TensorTree, state: RouletteState, params: TensorTree | None, factor: Tensor, extra: dict[str, Any]):
    direction, base_lr = None, factor
    states: dict[str, Any] = {}
    for i, (name, member) in enumerate(settings.members.items()):
        here = sent(state.pick == i, factor.device)
        given = updates
        if not settings.track_all:  # derivatives flow through both sides of a choice, so an idle member must stay finite
            given = tree.map(lambda u, here=here: torch.where(here, u, torch.zeros_like(u)), updates)
        turned, after, said = run(member, given, _before(settings, i, state, params), params, state.base_lr, extra)
        states[name] = after if settings.track_all else select.choose(here, after, state.members[name])
        direction = turned if direction is None else tree.where(here, turned, direction)
        if said is not None:
            base_lr = torch.where(here, factor * said.to(factor.dtype), base_lr)
    return direction, states, base_lr.clone() if base_lr is factor else base_lr
