"""OptiRoulette: a pool of optimizers, one of which, drawn at random, makes the step.

    every `every` steps (or in each new epoch), with probability p:
        i_t = one of the active members, each with the same probability, not the last one
    d_t, s_t[i] = member_i(g_t, s_{t-1}[i]),   s_t[j] = s_{t-1}[j] for j != i
    says base_lr_t = lr[i] after the switch rules; lr_scale() makes the step of it

Source: OptiRoulette 0.1.0. Where it is wrong we differ (the table in docs/methods/roulette.md);
`optiroulette` and `parity=True` reproduce it to the letter.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from funcopt.controllers.roulette import steering, wheel
from funcopt.controllers.roulette.compatibility import Compatibility
from funcopt.controllers.roulette.members import Member, checked_pool
from funcopt.controllers.roulette.pool import Failures, Recovery, aged, record, unstable
from funcopt.controllers.roulette.profile import Profile
from funcopt.controllers.roulette.settings import RouletteState, Settings, first_state, step
from funcopt.controllers.roulette.switch_rules import SwitchRules
from funcopt.controllers.roulette.warmup import Warmup
from funcopt.core import GradientTransformation, Scalar, TensorTree, chain, check, random, scoped
from funcopt.core.traits import EAGER
from funcopt.core.wrap import joined_hooks, joined_words, part
from funcopt.transforms.lr_scale import lr_scale

__all__ = ["Roulette", "optiroulette", "roulette"]

Switch = Literal["step", "epoch"]
Dispatch = Literal["auto", "branch", "select"]
Track = Literal["current", "all"]
OnActivate = Literal["keep", "resync", "reset"]


class Roulette(GradientTransformation):
    """A roulette: a transformation, and the functions by which a loop steers it.

    Each is pure and gives a new state. Members are named by strings, or by 0-dim int64
    tensors with their number in the pool.

        start_epoch(state, epoch, phase=None)          end_epoch(state, metric=None, reward=None, best=None)
        record(state, member, reward, metric, best=None)   age(state)   report_instability(state, member)
        lock(state, member)   unlock(state)   block(state, member)   unblock(state, member)
        set_phase(state, "warmup" | "roulette")   set_lr(state, member, lr)   reset_counts(state)
        start_batch(state)   count_step(state)

    These are its hooks, which `fo.control(tx, state, name, ...)` finds wherever the roulette stands.

    run: `(updates, state, params, **extra) -> (updates, state)`, the member's update alone.
    names: of its members, in the order of the pool.
    """

    run: Callable[..., Any]
    names: tuple[str, ...]


def roulette(
    pool: Mapping[str, Member],
    *,
    switch: Switch = "step",
    every: int = 100,
    probability: float = 1.0,
    avoid_repeat: bool = True,
    warmup: Warmup | None = None,
    active: Sequence[str] | None = None,
    backup: Sequence[str] | None = None,
    reserve: Sequence[str] | None = None,
    failures: Failures | Mapping[str, Any] | None = None,
    recovery: Recovery | Mapping[str, Any] | None = None,
    compatible: Compatibility | None = None,
    rules: SwitchRules | Sequence[SwitchRules | None] | None = None,
    compounding: bool = False,
    track: Track = "current",
    on_activate: OnActivate = "keep",
    dispatch: Dispatch = "auto",
    draw: Any = None,
    seed: int | Tensor | None = None,
    name: str | None = None,
    parity: bool = False,
) -> Roulette:
    """Turns what passes into the direction of a member drawn at random; only that member's state moves.

    A member that is drawn (or made current by hand) and whose state holds a NaN or an
    infinity starts anew, with the state that it would have at these params; not with
    `parity`, without params, or where its state grows with the run (`from_torch`).

    A direction without a rate, `Member(scale_by_adam())`, finds it: its multiplier moves
    after the steps that it made itself. In such a pool, told `loss=`, whoever made a step after
    which the loss is not finite, or more than 10 times the largest of before it took over, is cut to
    half the rate at which all was well.

    Args:
        pool: names and members; their order is the order of the pool.
        switch: "step": a draw before every `every`-th step. "epoch": in each new epoch.
        every: steps, >= 1.
        probability: of drawing when it is time to, in [0, 1].
        avoid_repeat: leave the current member out where there are others.
        warmup: `fixed_warmup(...)` or `plateau_warmup(...)`; None: none.
        active: who may be drawn, in order; None: all that are neither backup nor reserve.
        backup, reserve: who replaces a failed member, the first one first. With only
            `active` given and something to replace for, all others are backup.
        failures: when a member has failed (`Failures`, or a dict of its arguments). None
            and no backup: nothing is recorded and nobody is ever swapped.
        recovery: how newcomers start, and what instability costs (`Recovery`).
        compatible: who may replace whom (`Compatibility`).
        rules: what a switch does to rates (`switch_rules`).
        compounding: rates after the rules stay and are ruled again at the next switch,
            as in the reference; else every switch starts from the member's own rate.
        track: "current": the others are frozen, bit for bit. "all": every member sees
            every gradient (n updates), only the current one makes the step.
        on_activate: of a member that becomes current again: "keep" its state, "resync" it by
            the `anchors` it has, or "reset" it.
        dispatch: "branch": exactly one member runs, and the bookkeeping lives on the CPU.
            "select": all run and one is chosen, on the device of params. "auto": state as for
            "branch"; select inside functorch transforms and graphs, else branch.
        draw: another source of draws (`wheel.CounterDraw` shows its form).
        seed: an int, a 0-dim tensor or a key; None draws one now.
        name: prefix of its words.
        parity: reproduce the reference, its quirks included.

    Returns:
        A `Roulette`. Told `epoch`, it notices by itself where one ends and the next begins
        (needed in every call with switch="epoch" or a warm-up); `metric` and `reward` are
        those of the epoch just ended and count in the first call of the next. Or flags:
        `epoch_start=True` in the first, `epoch_end=True` in the last call of an epoch. It
        holds the states of all members.

    After a NaN:
        That entry of this step is NaN, later ones are clean again. A NaN loss passes.

    Signals:
        says `pick`, `previous_pick` (-1 before the first switch), `base_lr`, and the words
        of each member as "name/word"; where a member finds its rate, for each member
        "name/rate_multiplier", "name/held" and "name/setbacks", too.

    Raises:
        ValueError: a number is out of range, a name unknown, in two lists or a group's, too;
            a rule sets the rate of a member that has its size or finds its rate; at `init`,
            a member has its size twice or not at all; at `update`, `epoch` is missing, or
            `params` where a member finds its rate.

    Example:
        >>> pool = {"adam": fo.Member(fo.scale_by_adam(), lr=0.1), "sign": fo.Member(fo.scale_by_lion(), lr=0.01)}
        >>> tx = fo.chain(fo.roulette(pool, seed=0), fo.lr_scale())
        >>> params = torch.zeros(2)
        >>> updates, state = tx.update(torch.tensor([3.0, -0.5]), tx.init(params), params)
        >>> updates, fo.read_signals(state)["pick"]
        (tensor([-0.0100,  0.0100]), tensor(1))
    """
    check.choice("roulette", "switch", switch, get_args(Switch))
    check.choice("roulette", "dispatch", dispatch, get_args(Dispatch))
    check.choice("roulette", "track", track, get_args(Track))
    check.choice("roulette", "on_activate", on_activate, get_args(OnActivate))
    check.integer("roulette", "every", every, 1)
    if isinstance(probability, Tensor):
        raise TypeError("roulette: probability must be a number, got a tensor")
    check.within("roulette", "probability", probability, 0, 1)
    key = random.as_key(seed, "roulette")
    settings = Settings(
        checked_pool("roulette", pool),
        lists=(active, backup, reserve),
        by_epoch=switch == "epoch",
        every=every,
        probability=probability,
        avoid_repeat=avoid_repeat,
        warmup=warmup,
        failures=failures,
        recovery=recovery,
        compatible=compatible,
        rules=rules,
        compounding=compounding or parity,
        track_all=track == "all",
        on_activate=on_activate,
        dispatch=dispatch,
        parity=parity,
        draw=wheel.CounterDraw() if draw is None else check.functions("roulette", "draw", draw, ("init", "uniform", "choice")),
    )

    def init(params: TensorTree) -> RouletteState:
        return first_state(settings, key, params)

    def update(
        updates: TensorTree, state: RouletteState, params: TensorTree | None = None, *, signals: Any = None, plan: Any = None, **extra: Any
    ):
        plan = None if plan == EAGER else plan
        known = settings if plan is None or random.readable(state.pick) else settings.plans[plan[0] if isinstance(plan, tuple) else plan]
        state = before_step(known, state, **extra)
        updates, state = step(settings, updates, state, params, plan, extra)
        return updates, after_step(known, state, **extra)

    def plan(state: RouletteState, **extra: Any):
        if state.pick.dim() or not random.readable(state.pick):
            return None
        if settings.has_pool and extra.get("metric") is not None:
            turns = _turns(state, extra)
            if turns or turns is None:  # a graph would hold the arithmetic of swaps for the sake of one step in an epoch
                return EAGER if turns else None
        ahead = before_step(settings, state._replace(members={}), **extra)  # the members' states play no part
        pick = random.host_int(ahead.pick)
        if settings.mends_outside and random.host_int(ahead.running) != pick and random.host_int(state.counts[pick]):
            return EAGER  # a graph would look at the member's state in every step for the sake of the draws
        inner = settings.members[settings.names[pick]].transformation.plan
        return pick if inner is None else (pick, inner(state.members[settings.names[pick]], **extra))

    def run(updates: TensorTree, state: RouletteState, params: TensorTree | None = None, *, plan: Any = None, **extra: Any):
        return step(settings, updates, wheel.forget_events(settings, state), params, plan, extra)

    def run_inside(updates: TensorTree, state: Any, params: TensorTree | None = None, **extra: Any):
        updates, inner = run(updates, state.inner[name], params, **extra)
        return updates, state._replace(inner={name: inner})

    members = {label: member.transformation for label, member in settings.members.items()}
    epochs = {"epoch|epoch_start": "may hold"} if settings.by_epoch or settings.warmup is not None else {}
    tx = Roulette(
        init,
        update,
        name="roulette",
        must_be_heard=("base_lr",),
        needs=joined_words("needs", [epochs, *(members[label].needs for label in settings.may_run())]),
        flattenable=all(member.flattenable for member in members.values()),
        # steps are turned back
        turns=False if all(member.transformation.turns is member.has_size for member in settings.members.values()) else None,
        leaves="any",
        plan=None if settings.select else plan,
        hooks=joined_hooks([(label, member, part(label, inside="members")) for label, member in members.items()]) | _hooks(settings),
        house=all(member.house for member in members.values()),
    )
    tx = tx if name is None else scoped(name, tx, kind=Roulette)
    tx.run, tx.names = run if name is None else run_inside, tuple(settings.names)
    return tx


def _turns(state: RouletteState, told: dict[str, Any]) -> bool | None:
    """Whether an epoch ends or begins in this call; None where that cannot be read."""
    answers = []
    for flag in (told.get("epoch_start") if told.get("epoch") is None else None, told.get("epoch_end")):
        if isinstance(flag, Tensor) and not random.readable(flag):
            return None
        answers.append(bool(random.host_int(flag)) if isinstance(flag, Tensor) else bool(flag))
    epoch = told.get("epoch")
    if isinstance(epoch, Tensor) and not random.readable(epoch):
        return None
    if epoch is not None:
        number = random.host_int(epoch) if isinstance(epoch, Tensor) else epoch
        answers.append(not random.host_int(state.started) or random.host_int(state.epoch) != number)
    return any(answers)


# --- one call for everything --------------------------------------------------------------------------------------------------


def before_step(
    settings: Settings,
    state: RouletteState,
    *,
    epoch: int | Tensor | None = None,
    metric: Scalar | None = None,
    reward: Scalar | None = None,
    best: Scalar | None = None,
    loss: Scalar | None = None,
    epoch_start: bool | None = None,
    epoch_end: bool | None = None,
    **extra: Any,
) -> RouletteState:
    """All that may change the pick of this step: the end of an epoch, a new one, a new batch."""
    state = wheel.forget_events(settings, state)
    if epoch is None and epoch_start is None and (settings.by_epoch or settings.warmup is not None):
        why = "switch='epoch'" if settings.by_epoch else "a warm-up"
        raise check.Missing(f"roulette: needs the epoch of this step with {why}", "epoch")
    loss = None if loss is None else check.told("roulette", "loss", loss)
    if settings.has_pool and loss is not None:
        told_loss = loss if isinstance(loss, Tensor) else torch.full_like(state.base_lr, loss)
        state = state._replace(bad_losses=state.bad_losses + ~told_loss.detach().isfinite().to(state.bad_losses.device))
    turned_outside = settings.planned is not None and settings.has_pool and metric is not None  # by a plan that was EAGER
    if (epoch is None and epoch_start is None) or turned_outside:
        return steering.start_batch(settings, state)
    if epoch is not None:
        now = settings.whole(epoch, state)
        new = ~state.started | (now != state.epoch)
    else:
        new, now = settings.flag(epoch_start, state), torch.where(state.started, state.epoch + 1, state.epoch)

    def turn(state: RouletteState) -> RouletteState:
        if epoch_end is None:
            told = [settings.real(value, state) for value in (metric, reward, best)]
            state = wheel.when(settings, state.started, lambda s: steering.end_epoch(settings, s, *told), state)
        return steering.start_epoch(settings, state, now)

    return steering.start_batch(settings, wheel.when(settings, new, turn, state))


def after_step(
    settings: Settings,
    state: RouletteState,
    *,
    metric: Scalar | None = None,
    reward: Scalar | None = None,
    best: Scalar | None = None,
    epoch_end: bool | None = None,
    **extra: Any,
) -> RouletteState:
    if epoch_end is None or (settings.planned is not None and settings.has_pool and metric is not None):
        return state
    told = [settings.real(value, state) for value in (metric, reward, best)]
    return wheel.when(settings, settings.flag(epoch_end, state), lambda s: steering.end_epoch(settings, s, *told), state)


# --- hooks --------------------------------------------------------------------------------------------------------------------


def _hooks(settings: Settings) -> dict[str, Any]:
    member = settings.index

    def fresh(state: RouletteState) -> RouletteState:
        return wheel.forget_events(settings, state)

    def needs_pool(what: str) -> None:
        if not settings.has_pool:
            raise ValueError(f"roulette: {what} needs a pool that keeps records; pass failures= or backup=")

    def start_epoch(state: RouletteState, epoch: int | Tensor, phase: Any = None):
        if phase is not None:
            check.choice("roulette.start_epoch", "phase", phase, tuple(steering.PHASES))
        return steering.start_epoch(settings, fresh(state), settings.whole(epoch, state), phase)

    def end_epoch(state: RouletteState, metric: Scalar | None = None, reward: Scalar | None = None, best: Scalar | None = None):
        return steering.end_epoch(settings, fresh(state), *[settings.real(value, state) for value in (metric, reward, best)])

    def records(state: RouletteState, m: Any, reward: Scalar | None, metric: Scalar | None, best: Scalar | None = None):
        needs_pool("record")
        return record(settings, fresh(state), member(m, state.pick), *[settings.real(value, state) for value in (reward, metric, best)])

    def age(state: RouletteState):
        needs_pool("age")
        return aged(settings, fresh(state))

    def known(hook: Callable[[RouletteState, Any], RouletteState]) -> Callable[[RouletteState, Any], RouletteState]:
        """Names that nobody bears are passed over, as in the reference."""
        return lambda state, m: fresh(state) if isinstance(m, str) and m not in settings.names else hook(fresh(state), m)

    def report_instability(state: RouletteState, m: Any) -> RouletteState:
        if settings.parity and not settings.has_pool:
            return state
        needs_pool("report_instability")
        return unstable(settings, state, member(m, state.pick), torch.ones_like(state.count))

    def lock(state: RouletteState, m: Any) -> RouletteState:
        return steering.lock(settings, state, None if m is None else member(m, state.pick))

    def blocks(blocked: bool) -> Callable[[RouletteState, Any], RouletteState]:
        return lambda state, m: state._replace(blocked=wheel.put(state.blocked, member(m, state.pick), blocked))

    def set_phase(state: RouletteState, phase: Any):
        check.choice("roulette.set_phase", "phase", phase, tuple(steering.PHASES))
        return steering.set_phase(settings, fresh(state), phase)

    def set_lr(state: RouletteState, m: Any, lr: Scalar):
        check.nonnegative("roulette.set_lr", "lr", lr)
        if isinstance(m, str) and m in settings.names and (settings.members[m].has_size or settings.members[m].finds_rate):
            why = "finds its rate by itself" if settings.members[m].finds_rate else "has its size already, and its rate is its own"
            raise ValueError(f"roulette.set_lr: member '{m}' {why}")
        return fresh(state)._replace(lr=wheel.put(state.lr, member(m, state.pick), settings.real(lr, state)))

    def reset_counts(state: RouletteState):
        return fresh(state)._replace(counts=state.counts.clamp(max=0))  # -1: an entry that was dropped

    return {
        "start_epoch": start_epoch,
        "end_epoch": end_epoch,
        "record": records,
        "age": age,
        "report_instability": known(report_instability),
        "lock": known(lock),
        "unlock": lambda state: lock(fresh(state), None),
        "block": known(blocks(True)),
        "unblock": known(blocks(False)),
        "set_phase": set_phase,
        "set_lr": set_lr,
        "reset_counts": reset_counts,
        "start_batch": lambda state: steering.start_batch(settings, fresh(state)),
        "count_step": lambda state: fresh(state)._replace(count=state.count + 1),
    }


def optiroulette(pool: Mapping[str, Member] | Profile, **settings: Any) -> GradientTransformation:
    """OptiRoulette as its reference is: `roulette(pool, parity=True, ...)`, then the step.

    Args:
        pool: as for `roulette`, or what `optiroulette_profile()` gives.
        settings: as for `roulette`, in place of those of the profile; a draw in each
            epoch unless `switch` says otherwise.

    Returns:
        A chain of a `Roulette` and the step; told `epoch` at each update, as `roulette` is.

    After a NaN:
        That entry of this step is NaN, the next is clean.

    Raises:
        ValueError: as in `roulette`.

    Example:
        >>> tx = fo.optiroulette({"adam": fo.Member(fo.scale_by_adam(), lr=0.1), "sgd": fo.Member(fo.trace(0.9), lr=0.01)}, seed=0)
        >>> params = torch.tensor([1.0])
        >>> updates, state = tx.update(params, tx.init(params), params, epoch=0)
        >>> updates
        tensor([-0.0100])
    """
    if isinstance(pool, Profile):
        pool, settings = pool.pool, {**pool.settings, **settings}
    published: dict[str, Any] = {"switch": "epoch", "parity": True, **settings}
    return chain(roulette(pool, **published), lr_scale())
