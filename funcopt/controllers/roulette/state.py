"""The state of a roulette, and how it begins."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.controllers.roulette import member_rates, pool, warmup
from funcopt.controllers.roulette.members import checked_states, said_rate
from funcopt.controllers.roulette.settings import Settings
from funcopt.core import TensorTree, read_signals, tree
from funcopt.core.protocol import EmptyState

__all__ = ["RouletteState"]


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


def first_state(settings: Settings, key: Tensor, params: TensorTree) -> RouletteState:
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
