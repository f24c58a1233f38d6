"""The wheel of a roulette: who may be drawn, the draw, and what a switch changes.

Candidates are the active members that are not blocked, in the order of their list; if
all of those are blocked, every member that is not, in the order of the pool. One
candidate is taken without a draw; of several, the current member is left out
(`avoid_repeat`), and one of the K that remain is drawn: number floor(u K).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.controllers import select
from funcopt.core import random, tree
from funcopt.core.random.philox import host_value

NONE, EPOCH_START, BATCH_START, LOCK, LOCKED_EPOCH, POOL_SWAP = range(6)  # why a switch happened
SWAP_ROW, EPOCH_ROW, BATCH_ROW = range(3)  # of `events`


def stop(error: Exception, state: Any) -> None:
    """Raises where the reference does; what had changed by then is the error's `state`."""
    error.state = state  # type: ignore[attr-defined]
    raise error


# --- draws --------------------------------------------------------------------------------------------------------------------


class DrawState(NamedTuple):
    key: Tensor  # int64 [2]
    draws: Tensor  # draws so far; int64


class CounterDraw:
    """Draw number c is a uniform of `fold_in(key, c)`: the same on every device, under vmap and in a graph.

    Another source of draws, passed as `draw=`, has these three methods; `choice` is given the
    members in order and which of them stand to be drawn, and returns the number of one among those.
    `skip` is what a draw leaves behind whose outcome is known; a source without it draws.
    """

    def init(self, key: Tensor) -> DrawState:
        return DrawState(key=key.clone(), draws=torch.zeros((), dtype=torch.int64, device=key.device))

    def uniform(self, state: DrawState) -> tuple[Tensor, DrawState]:
        u = random.uniform(random.fold_in(state.key, state.draws), (), tree.scalar_dtype(state.key.device))
        return u, state._replace(draws=state.draws + 1)

    def skip(self, state: DrawState) -> DrawState:
        return state._replace(draws=state.draws + 1)

    def choice(self, state: DrawState, order: Tensor, mask: Tensor) -> tuple[Tensor, DrawState]:
        u, state = self.uniform(state)
        count = mask.sum()
        return torch.minimum((u * count).floor().to(torch.int64), count - 1), state


# --- candidates, pick, switch -------------------------------------------------------------------------------------------------


def candidates(state: Any) -> tuple[Tensor, Tensor]:
    """The order in which members stand, active ones first and then all, and which of them may be drawn."""
    everybody = select.places(state.blocked)
    first = ~state.blocked.gather(0, state.active)
    rest = ~state.blocked & ~first.any()
    return torch.cat([state.active, everybody]), torch.cat([first, rest])


def spin(settings: Any, state: Any, reason: int, row: int) -> Any:
    """Picks a member and switches to it."""
    order, mask = candidates(state)
    count = mask.sum()
    if settings.quirks.stops_where_all_are_blocked and random.readable(count) and not random.host_int(count):
        stop(IndexError("roulette: every member is blocked, so there is none to draw; unblock one"), state)
    several = count > 1
    if settings.avoid_repeat:
        mask = mask & ~(several & (order == state.pick))
    skip = getattr(settings.draw, "skip", None)
    if settings.planned is not None and skip is not None:  # found before the graph was entered
        draw = select.when(settings, several, lambda _: skip(state.draw), state.draw)
        drawn = torch.full_like(state.pick, settings.planned)
    else:
        k, draw = select.when(
            settings, several, lambda _: settings.draw.choice(state.draw, order, mask), (torch.zeros_like(count), state.draw)
        )
        drawn = torch.where(mask & (mask.cumsum(0) - 1 == k), order, torch.zeros_like(order)).sum()
    state = state._replace(draw=draw)
    if settings.on_activate == "keep" and not settings.quirks.keeps_nan:
        state = state._replace(running=torch.full_like(state.running, -1))  # who is drawn once more is looked at once more
    return switch_to(settings, state, torch.where(count > 0, drawn, state.pick), reason, row)


def chance(settings: Any, state: Any, reason: int, row: int) -> Any:
    """Picks with probability `settings.probability`: one uniform decides."""
    if settings.probability >= 1 and hasattr(settings.draw, "skip"):
        return spin(settings, state._replace(draw=settings.draw.skip(state.draw)), reason, row)
    u, draw = settings.draw.uniform(state.draw)
    passed = u <= settings.probability if settings.quirks.zero_may_draw else u < settings.probability
    return select.when(settings, passed, lambda s: spin(settings, s, reason, row), state._replace(draw=draw))


def switch_to(settings: Any, state: Any, new: Tensor, reason: int, row: int) -> Any:
    """Makes `new` the current member; nothing happens if it is, or if it is -1."""

    def go(state: Any) -> Any:
        event = torch.stack([state.count, state.pick, new, torch.full_like(state.count, reason)])
        events = torch.where((select.places(state.events) == row).unsqueeze(1), event, state.events)
        if settings.compounding and settings.rules is not None:
            ruled = settings.rules.adjusted(state.pick, new, select.at(state.lr, new))
            state = state._replace(lr=select.put(state.lr, new, ruled))
        return state._replace(pick=new.clone(), previous_pick=state.pick.clone(), events=events)

    return select.when(settings, (new != state.pick) & (new >= 0), go, state)


def forget_events(settings: Any, state: Any) -> Any:
    """Without the switches of the last call; the same state if there were none."""
    known = None if settings.select else host_value(state.events)
    if known is not None and not any(reason for *_, reason in known):
        return state
    return state._replace(events=torch.zeros_like(state.events))


def rate(settings: Any, state: Any) -> Tensor:
    """The rate of the current member after the rules, 0-dim; of a member that has its size, what its size is multiplied by."""
    if settings.compounding:
        return select.at(state.lr, state.pick)
    base = select.at(state.lr, state.pick)
    return base if settings.rules is None else settings.rules.ruled(state.previous_pick, state.pick, base)
