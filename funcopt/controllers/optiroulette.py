"""OptiRoulette: a pool of optimizers, one of which, drawn at random, makes the step.

    every `every` steps (or in each new epoch), with probability p:
        i_t = one of the active members, each with the same probability, not the last one
    d_t, s_t[i] = member_i(g_t, s_{t-1}[i]),   s_t[j] = s_{t-1}[j] for j != i
    says base_lr_t = lr[i] after the switch rules; lr_scale() makes the step of it

Source: OptiRoulette 0.1.0. Where it is wrong we differ (the table in docs/methods/roulette.md);
`optiroulette` and `parity=True` reproduce it to the letter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.controllers import wheel
from funcopt.controllers.members import Member, checked_pool, checked_states, run, said_rate
from funcopt.core import GradientTransformation, TensorTree, check, random, read_signals, tree

__all__ = ["Roulette", "RouletteState", "roulette"]


class RouletteState(NamedTuple):
    members: dict[str, Any]  # the state of each
    pick: Tensor  # the current member
    previous_pick: Tensor  # the member before the last switch, -1 before the first
    base_lr: Tensor  # rate of the step just taken; float64, on the device of params
    lr: Tensor  # [n]; rate of each, with `compounding` after the rules; 1 for members that have their size
    active: Tensor  # [num_active]; who may be drawn, in order
    blocked: Tensor  # bool [n]
    epoch: Tensor
    started: Tensor  # bool; whether an epoch has begun
    count: Tensor  # steps taken
    counts: Tensor  # [n]; batches begun with each
    events: Tensor  # [3, 4]; (step, old, new, reason) of the switches of the last call: a swap, at an epoch, at a batch
    draw: Any  # of the source of draws

    def signals(self) -> dict[str, Tensor]:
        said = {"pick": self.pick, "previous_pick": self.previous_pick, "base_lr": self.base_lr}
        return said | {f"{name}/{word}": value for name, state in self.members.items() for word, value in read_signals(state).items()}


@dataclass(frozen=True)
class Settings:
    """What a roulette is told when it is made."""

    members: dict[str, Member]
    active: tuple[int, ...]
    by_epoch: bool
    every: int
    probability: float
    avoid_repeat: bool
    rules: Any
    compounding: bool
    select: bool
    parity: bool
    draw: Any

    @property
    def names(self) -> list[str]:
        return list(self.members)


class Roulette(GradientTransformation):
    """A roulette: a transformation, and the functions by which a loop steers it."""


def roulette(
    pool: Mapping[str, Member],
    *,
    switch: str = "step",
    every: int = 100,
    probability: float = 1.0,
    avoid_repeat: bool = True,
    active: Sequence[str] | None = None,
    dispatch: str = "auto",
    draw: Any = None,
    seed: int | Tensor | None = None,
) -> Roulette:
    """Turns what passes into the direction of a member drawn at random; only that member's state moves.

    Args:
        pool: names and members; their order is the order of the pool.
        switch: "step": a draw before every `every`-th step. "epoch": in each new epoch.
        every: steps, >= 1.
        probability: of drawing when it is time to, in [0, 1].
        avoid_repeat: leave the current member out where there are others.
        active: who may be drawn; None: all.
        dispatch: "branch": exactly one member runs, and the bookkeeping lives on the CPU.
            "select": all run and one is chosen, on the device of params. "auto": state as for
            "branch"; select inside functorch transforms and graphs, else branch.
        draw: another source of draws (`wheel.CounterDraw`).
        seed: an int, a 0-dim tensor or a key; None draws one now.

    Returns:
        A transformation that is told `epoch` (with switch="epoch" in every call). It holds
        the states of all members.

    Signals:
        says `pick`, `previous_pick` (-1 before the first switch), `base_lr`, and the words
        of each member as "name/word".

    Raises:
        ValueError: a number is out of range, a name unknown; at `init`, a member has its
            size twice or not at all; at `update`, `epoch` is missing with switch="epoch".

    Example:
        >>> pool = {"adam": fo.Member(fo.scale_by_adam(), lr=0.1), "sign": fo.Member(fo.scale_by_lion(), lr=0.01)}
        >>> tx = fo.chain(fo.roulette(pool, seed=0), fo.lr_scale())
        >>> params = torch.zeros(2)
        >>> updates, state = tx.update(torch.tensor([3.0, -0.5]), tx.init(params), params)
        >>> updates, fo.read_signals(state)["pick"]
        (tensor([-0.0100,  0.0100]), tensor(1))
    """
    members = checked_pool("roulette", pool)
    check.choice("roulette", "switch", switch, ("step", "epoch"))
    check.choice("roulette", "dispatch", dispatch, ("auto", "branch", "select"))
    check.integer("roulette", "every", every, 1)
    check.within("roulette", "probability", probability, 0, 1)
    key = random.as_key(seed, "roulette")
    settings = Settings(
        members=members,
        active=_indices("active", active if active is not None else list(members), list(members)),
        by_epoch=switch == "epoch",
        every=every,
        probability=probability,
        avoid_repeat=avoid_repeat,
        rules=None,
        compounding=False,
        select=dispatch == "select",
        parity=False,
        draw=wheel.CounterDraw() if draw is None else draw,
    )

    def init(params: TensorTree) -> RouletteState:
        return first_state(settings, key, params)

    def update(updates: TensorTree, state: RouletteState, params=None, *, signals=None, plan=None, epoch=None, **extra):
        state = before_step(settings, state, epoch)
        return step(settings, updates, state, params, plan, dispatch == "branch", extra if epoch is None else {**extra, "epoch": epoch})

    def plan(state: RouletteState, *, epoch=None, **extra):
        if state.pick.dim() or not random.readable(state.pick):
            return None
        return random.host_int(before_step(settings, state, epoch).pick)

    return Roulette(
        init,
        update,
        name="roulette",
        must_be_heard=("base_lr",),
        leafwise=all(member.transformation.leafwise for member in members.values()),
        leaves="any",
        plan=None if settings.select else plan,
    )


def _indices(what: str, given: Sequence[str], names: list[str]) -> tuple[int, ...]:
    for name in given:
        if name not in names:
            raise ValueError(f"roulette: {what} must name members of the pool, got {name!r}; there are {', '.join(names)}")
        if list(given).count(name) > 1:
            raise ValueError(f"roulette: {what} must name each member once, got {name!r} twice")
    if not given:
        raise ValueError(f"roulette: {what} must name at least one member")
    return tuple(names.index(name) for name in given)


def first_state(settings: Settings, key: Tensor, params: TensorTree) -> RouletteState:
    n, device = len(settings.members), tree.device(params)
    here = device if settings.select else torch.device("cpu")
    states = checked_states("roulette", settings.members, params)
    rates = [1.0 if member.has_size else member.lr for member in settings.members.values()]

    def number(value: int) -> Tensor:
        return torch.full((), value, dtype=torch.int64, device=here)

    lr = torch.stack([tree.scalar(value, number(0)).to(here) for value in rates])
    first = settings.active[0]
    current = list(settings.members.values())[first]
    base_lr = said_rate(current, states[settings.names[first]], tree.scalar(0.0, params))
    return RouletteState(
        members=states,
        pick=number(first),
        previous_pick=number(-1),
        base_lr=tree.scalar(lr[first] if base_lr is None else base_lr, params).to(device).clone(),
        lr=lr,
        active=torch.tensor(settings.active, dtype=torch.int64, device=here),
        blocked=torch.zeros(n, dtype=torch.bool, device=here),
        epoch=number(0),
        started=torch.zeros((), dtype=torch.bool, device=here),
        count=number(0),
        counts=torch.zeros(n, dtype=torch.int64, device=here),
        events=torch.zeros(3, 4, dtype=torch.int64, device=here),
        draw=settings.draw.init(key.to(here)),
    )


# --- before the step ----------------------------------------------------------------------------------------------------------


def before_step(settings: Settings, state: RouletteState, epoch: int | Tensor | None) -> RouletteState:
    """All that may change the pick of this step: a new epoch, a new batch."""
    state = wheel.forget_events(settings, state)
    if epoch is None:
        if settings.by_epoch:
            raise ValueError("roulette: needs the epoch of this step with switch='epoch'; call update(..., epoch=epoch)")
    else:
        epoch = torch.as_tensor(epoch, dtype=torch.int64, device=state.epoch.device)
        state = wheel.when(settings, ~state.started | (epoch != state.epoch), lambda s: start_epoch(settings, s, epoch), state)
    return start_batch(settings, state)


def start_epoch(settings: Settings, state: RouletteState, epoch: Tensor) -> RouletteState:
    state = state._replace(epoch=epoch.clone(), started=torch.ones_like(state.started))
    if not settings.by_epoch:
        return state
    if settings.probability < 1:
        return wheel.chance(settings, state, wheel.EPOCH_START, wheel.EPOCH_ROW)
    return wheel.spin(settings, state, wheel.EPOCH_START, wheel.EPOCH_ROW)


def _due(settings: Settings, count: Tensor) -> Tensor | bool:
    if not settings.select and random.readable(count):
        return random.host_int(count) % settings.every == 0
    return count % settings.every == 0


def start_batch(settings: Settings, state: RouletteState) -> RouletteState:
    if not settings.by_epoch:
        state = wheel.when(settings, _due(settings, state.count), lambda s: wheel.chance(settings, s, wheel.BATCH_START, wheel.BATCH_ROW), state)
    return state._replace(counts=state.counts + (wheel.places(state.counts) == state.pick))


# --- the step -----------------------------------------------------------------------------------------------------------------


def step(settings: Settings, updates: TensorTree, state: RouletteState, params, plan, must_branch: bool, extra: dict[str, Any]):
    """The update of the current member alone, or of all members with one of them chosen."""
    names, members = settings.names, settings.members
    factor = wheel.rate(settings, state).to(state.base_lr.device, non_blocking=True)
    if not settings.select and (random.readable(state.pick) or plan is not None or must_branch):
        i = random.host_int(state.pick, "roulette") if plan is None or random.readable(state.pick) else plan
        name = names[i]
        direction, member_state, said = run(members[name], updates, state.members[name], params, state.base_lr, extra)
        states = {**state.members, name: member_state}
        base_lr = factor if said is None else factor * said.to(factor.dtype)
    else:
        direction, states, base_lr = None, {}, factor
        for i, (name, member) in enumerate(members.items()):
            chosen = (state.pick == i).to(state.base_lr.device)
            alone = tree.map(lambda u, chosen=chosen: torch.where(chosen, u, torch.zeros_like(u)), updates)  # an idle member must stay finite
            new_direction, member_state, said = run(member, alone, state.members[name], params, state.base_lr, extra)
            states[name] = wheel.choose(chosen, member_state, state.members[name])
            direction = new_direction if direction is None else tree.where(chosen, new_direction, direction)
            if said is not None:
                base_lr = torch.where(chosen, factor * said.to(factor.dtype), base_lr)
    return direction, state._replace(members=states, base_lr=base_lr.clone(), count=state.count + 1)
