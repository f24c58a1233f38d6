"""OptiRoulette: a pool of optimizers, one of which, drawn at random, makes the step.

    every `every` steps (or in each new epoch), with probability p:
        i_t = one of the active members, each with the same probability, not the last one
    d_t, s_t[i] = member_i(g_t, s_{t-1}[i]),   s_t[j] = s_{t-1}[j] for j != i
    says base_lr_t = lr[i] after the switch rules; lr_scale() makes the step of it

Source: OptiRoulette 0.1.0. Where it is wrong we differ (the table in docs/methods/roulette.md);
`optiroulette` and `parity=True` reproduce it to the letter, quirk by quirk (`quirks.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

from torch import Tensor

from funcopt.controllers.roulette import epochs, wheel
from funcopt.controllers.roulette.compatibility import Compatibility
from funcopt.controllers.roulette.hooks import hooks_of
from funcopt.controllers.roulette.members import Member, checked_pool
from funcopt.controllers.roulette.pool import Failures, Recovery
from funcopt.controllers.roulette.profile import Profile
from funcopt.controllers.roulette.quirks import NONE, REFERENCE
from funcopt.controllers.roulette.settings import Dispatch, OnActivate, Settings, Switch, Track, settled
from funcopt.controllers.roulette.state import RouletteState, first_state
from funcopt.controllers.roulette.step import step
from funcopt.controllers.roulette.switch_rules import SwitchRules
from funcopt.controllers.roulette.warmup import Warmup
from funcopt.core import GradientTransformation, TensorTree, chain, check, plans, random, scoped
from funcopt.core.traits import EAGER
from funcopt.core.typed import TypedDict, Unpack
from funcopt.core.wrap import joined_hooks, joined_words, part
from funcopt.transforms.lr_scale import lr_scale

__all__ = ["Roulette", "optiroulette", "roulette"]

PUBLISHED: dict[str, Any] = {"switch": "epoch", "parity": True}


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


class Keywords(TypedDict, total=False):
    """What `optiroulette` hands on to `roulette`, which says what each means."""

    switch: Switch
    every: int
    probability: float
    avoid_repeat: bool
    warmup: Warmup | None
    active: Sequence[str] | None
    backup: Sequence[str] | None
    reserve: Sequence[str] | None
    failures: Failures | Mapping[str, Any] | None
    recovery: Recovery | Mapping[str, Any] | None
    compatible: Compatibility | None
    rules: SwitchRules | Sequence[SwitchRules | None] | None
    compounding: bool
    track: Track
    on_activate: OnActivate
    dispatch: Dispatch
    draw: Any
    seed: int | Tensor | None
    name: str | None
    parity: bool


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
    quirks = REFERENCE if parity else NONE
    settings = settled(
        checked_pool("roulette", pool),
        quirks,
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
        compounding=compounding or quirks.compounds,
        track_all=track == "all",
        on_activate=on_activate,
        dispatch=dispatch,
        draw=wheel.CounterDraw() if draw is None else check.functions("roulette", "draw", draw, ("init", "uniform", "choice")),
    )
    return _made(settings, key, name)


def _made(settings: Settings, key: Tensor, name: str | None, planning: bool = True) -> Roulette:
    """The roulette of these settings; without `planning` a graph holds all members and chooses."""
    each_planned = [replace(settings, planned=i) for i in range(len(settings.names))]

    def init(params: TensorTree) -> RouletteState:
        return first_state(settings, key, params)

    def update(
        updates: TensorTree, state: RouletteState, params: TensorTree | None = None, *, signals: Any = None, plan: Any = None, **extra: Any
    ):
        plan = None if plan == EAGER else plan
        known = settings if plan is None or random.readable(state.pick) else each_planned[plan[0] if isinstance(plan, tuple) else plan]
        state = epochs.before_step(known, state, **extra)
        updates, state = step(settings, updates, state, params, plan, extra)
        return updates, epochs.after_step(known, state, **extra)

    def plan(state: RouletteState, **extra: Any):
        if state.pick.dim() or not random.readable(state.pick):
            return None
        if settings.has_pool and extra.get("metric") is not None:
            turns = epochs.turns(state, extra)
            if turns or turns is None:  # a graph would hold the arithmetic of swaps for the sake of one step in an epoch
                return EAGER if turns else None
        ahead = epochs.before_step(settings, state._replace(members={}), **extra)  # the members' states play no part
        pick = random.host_int(ahead.pick)
        if settings.mends_outside and random.host_int(ahead.running) != pick and random.host_int(state.counts[pick]):
            return EAGER  # a graph would look at the member's state in every step for the sake of the draws
        inner = settings.members[settings.names[pick]].transformation.plan
        return pick if inner is None else (pick, inner(state.members[settings.names[pick]], **extra))

    def all_plans(state: RouletteState):
        names = settings.may_run()
        found = {name: plans.of_one(settings.members[name].transformation, state.members[name]) for name in names}
        if any(each is None for each in found.values()):
            return None
        numbers = {name: settings.names.index(name) for name in names}
        planned = {name: settings.members[name].transformation.plan is not None for name in names}
        return [(numbers[name], plan) if planned[name] else numbers[name] for name in names for plan in found[name] or ()]

    def run(updates: TensorTree, state: RouletteState, params: TensorTree | None = None, *, plan: Any = None, **extra: Any):
        return step(settings, updates, wheel.forget_events(settings, state), params, plan, extra)

    def run_inside(updates: TensorTree, state: Any, params: TensorTree | None = None, **extra: Any):
        updates, inner = run(updates, state.inner[name], params, **extra)
        return updates, state._replace(inner={name: inner})

    members = {label: member.transformation for label, member in settings.members.items()}
    told = {"epoch|epoch_start": "may hold"} if settings.by_epoch or settings.warmup is not None else {}
    elementwise = not (settings.has_pool or settings.must_branch or any(member.plan is not None for member in members.values()))
    tx = Roulette(
        init,
        update,
        name="roulette",
        must_be_heard=("base_lr",),
        needs=joined_words("needs", [told, *(members[label].needs for label in settings.may_run())]),
        flattenable=all(member.flattenable for member in members.values()),
        # steps are turned back
        turns=False if all(member.transformation.turns is member.has_size for member in settings.members.values()) else None,
        leaves="any",
        plan=plan if planning and not settings.select else None,
        plans=all_plans,
        in_one_graph=(lambda: _made(replace(settings, mends_outside=False), key, None, planning=False)) if elementwise else None,
        hooks=joined_hooks([(label, member, part(label, inside="members")) for label, member in members.items()]) | hooks_of(settings),
        house=all(member.house for member in members.values()),
    )
    tx = tx if name is None else scoped(name, tx, kind=Roulette)
    tx.run, tx.names = run if name is None else run_inside, tuple(settings.names)
    return tx


def optiroulette(pool: Mapping[str, Member] | Profile, **settings: Unpack[Keywords]) -> GradientTransformation:
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
    members, own = (pool.pool, pool.settings) if isinstance(pool, Profile) else (pool, {})
    made: dict[str, Any] = {**PUBLISHED, **own, **settings}
    return chain(roulette(members, **made), lr_scale())
