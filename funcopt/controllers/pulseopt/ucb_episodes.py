"""AEES (PulseOpt): bandits choose, episode by episode, by what factor to stretch the step and how much noise to add.

    episode = `episode_length` steps with one pair (multiplier mu, noise nu)
    g'_t    = g_t + nu z_t,   lr_multiplier_t = mu
    reward  = the fall of the losses in units of their noise, clipped          (`episodes.py`; published: ln e_1 - ln e_n, e a running mean)
    arms    = discounted UCB, a bandit for mu and one for nu                    (`bandits.py`)

`ucb_episodes` is the link: it adds its noise to what passes and says the multiplier,
by which `lr_scale` further right multiplies its size. `aees(inner)` is the reference (`aees.py`).

Source: PulseOpt, github.com/davidkfoss/pulseopt. Reference: pulseopt 0.3.0. Beyond it: joint
control, exposed exploration, discount and warm-up, rewards for losses of any sign,
credit where it is due, no waiting for the device. Other than there, losses that are not
finite are ignored and counted in place of ending the run, and so are episodes whose
reward is not defined; noise depends on key, step and place alone (the reference
gives equal leaves equal noise unless it has a seed).
"""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from funcopt.controllers.pulseopt import arms, bandits, episodes
from funcopt.controllers.pulseopt.arms import Axes
from funcopt.controllers.pulseopt.bandits import Ucb, one_hot, vector
from funcopt.controllers.pulseopt.episodic import REPORT, KeyedDraws, UcbEpisodes, UcbEpisodesState, when
from funcopt.core import EmptyState, Scalar, TensorTree, check, random, scoped, tree
from funcopt.core.door.callers import warn
from funcopt.core.sent import sent
from funcopt.core.typed import TypedDict

__all__ = ["ucb_episodes"]

Dispatch = Literal["auto", "branch", "select"]
Context = Literal["trend"]
Partial = Literal["keep", "weigh", "discard"]


class Keywords(TypedDict, total=False):
    """What `aees` hands on to `ucb_episodes`, which says what each means."""

    control: arms.Control
    context: Context | None
    exploration: Scalar
    discount: Scalar
    warmup: int
    reward: episodes.Base | episodes.Reward
    instability: float
    reward_epsilon: float
    reward_clip: tuple[float, float] | None
    ema_alpha: float
    start_losses: int
    standardize: bool
    shift_credit: bool
    trend_window: int
    trend_epsilon: float
    relative_trend: bool
    partial: Partial
    check_losses: bool
    dispatch: Dispatch
    draw: Any
    name: str | None
    seed: int | Tensor | None


def ucb_episodes(
    lr_candidates: Sequence[float] = (0.7, 1.0, 1.4),
    noise_candidates: Sequence[float] = (0.0,),
    *,
    episode_length: int = 10,
    control: arms.Control = "independent",
    context: Context | None = None,
    exploration: Scalar = 0.3,
    discount: Scalar = 0.95,
    warmup: int = 1,
    reward: episodes.Base | episodes.Reward = "slope",
    instability: float = 0.0,
    reward_epsilon: float = 1e-8,
    reward_clip: tuple[float, float] | None = None,
    ema_alpha: float = 0.1,
    start_losses: int = 1,
    standardize: bool = False,
    shift_credit: bool = False,
    trend_window: int = 3,
    trend_epsilon: float = 1e-3,
    relative_trend: bool = False,
    partial: Partial = "keep",
    check_losses: bool = False,
    dispatch: Dispatch = "auto",
    draw: Any = None,
    name: str | None = None,
    seed: int | Tensor | None = None,
) -> UcbEpisodes:
    """Chooses a factor for the size of the step, and gradient noise, by bandits that are paid by the fall of the loss.

    Args:
        lr_candidates: factors of the step, > 0, all different; with a single one there
            is nothing to learn on this axis.
        noise_candidates: standard deviations of the noise added to what passes, >= 0,
            in its units. Right of clipping and left of an optimizer that is its gradient.
        episode_length: steps of an episode, >= 1 (with 1 nothing can be learned: a
            reward compares losses). Short ones give each arm more rewards.
        control: "independent" has a bandit for each axis; "conditional" one for the
            noise under each LR arm; "joint" one for all pairs; "random" draws and
            learns nothing.
        context: "trend" keeps statistics of their own for a loss that improves, stands
            or worsens from episode to episode; None keeps one.
        exploration: factor of the bonus for arms that are seldom tried, >= 0. Rewards by
            "slope" or with `standardize` are in units of noise. Published rewards are around 0.05:
            the reference's 1.0 tries all arms nearly in turn.
        discount: share of the past, in (0, 1]; the memory is 1 / (1 - discount) episodes.
        warmup: episodes that every arm gets first, >= 0.
        reward: "slope", the fall of the line through the losses in units of its standard
            error (losses of any sign; says how sure the fall is); "log", as published (positive losses);
            "relative" (losses of any sign); or a function from `EpisodeLosses` to a 0-dim
            tensor. Where it is not finite the episode is discarded.
        instability: weight of `variance / mean^2` of the losses in the reward, >= 0.
        reward_epsilon: keeps logarithms and quotients finite, > 0, in units of the loss.
        reward_clip: least and greatest reward; None: -5 and 5 for "slope", else -1 and 1.
        ema_alpha: weight of the new loss in the running mean, in (0, 1].
        start_losses: how many first losses the start of an episode is the mean of, >= 1.
        standardize: count rewards in standard deviations from their running mean.
        shift_credit: let an episode own the losses that its steps have caused, from its
            second step to the first of the next episode (a loss is that before the step).
        trend_window: episodes over which the trend is taken, >= 2 to see one.
        trend_epsilon: least slope that is a trend, >= 0, in units of loss per episode.
        relative_trend: take the slope of the running means, relative to their size.
        partial: what `finalize` makes of a partial episode: "keep" counts it in full,
            "weigh" by its length, "discard" not at all.
        check_losses: raise on a loss that is not finite; waits for the device, eagerly only.
        dispatch: "branch" closes and chooses only at the ends of episodes, which a
            Python `if` sees in counters on the CPU; "select" computes it at every step,
            all on the device of the params; "auto" has the state of branch, and selects
            inside `torch.func` transforms and graphs.
        draw: other draws than those of the key (`KeyedDraws` shows which).
        name: prefix of the words.
        seed: an int, a 0-dim tensor or a key; None draws one from torch's generator, now.

    Returns:
        A transform that keeps shapes and dtypes, and has `finalize(state) -> state`,
        which closes the open episode (at the end of a run, or before a checkpoint of the
        statistics); a state without one is left as it is.

    After a NaN:
        That entry of this step is NaN, the next is clean. A NaN loss passes.

    Signals:
        needs `loss=`, the loss before this step. Says `lr_multiplier` (somebody to the
        right must hear it, unless there is only 1.0), `noise_std` and `episode_reward`,
        the last one paid.

    Raises:
        TypeError, ValueError: an argument is out of its range; at `update`, no loss.

    Example:
        >>> tx = fo.chain(fo.ucb_episodes((0.5, 2.0), episode_length=2, seed=0), fo.sgd(0.1))
        >>> state = tx.init(torch.zeros(1))
        >>> for loss in (4.0, 2.0, 1.0):
        ...     updates, state = tx.update(torch.ones(1), state, loss=torch.tensor(loss))
        >>> sorted(fo.read_signals(state))
        ['episode_reward', 'lr', 'lr_multiplier', 'noise_std']
    """
    where = "ucb_episodes"
    lr_candidates = arms.candidates(where, "lr_candidates", lr_candidates, positive=True)
    noise_candidates = arms.candidates(where, "noise_candidates", noise_candidates, positive=False)
    check.integer(where, "episode_length", episode_length, 1)
    check.choice(where, "control", control, arms.CONTROLS)
    check.choice(where, "context", context, (None, *get_args(Context)))
    check.choice(where, "partial", partial, get_args(Partial))
    check.choice(where, "dispatch", dispatch, get_args(Dispatch))
    check.integer(where, "trend_window", trend_window, 1)
    check.nonnegative(where, "trend_epsilon", trend_epsilon)
    settings = Ucb(exploration=exploration, discount=discount, warmup=warmup)
    bandits.check_settings(where, settings)
    if reward_clip is None:
        reward_clip = (-5.0, 5.0) if reward == "slope" else (-1.0, 1.0)
    wages = episodes.Wages(reward, instability, reward_epsilon, tuple(reward_clip), ema_alpha, start_losses)
    episodes.check_wages(where, wages)
    axes = Axes(len(lr_candidates), len(noise_candidates), control)
    draws = (
        KeyedDraws(random.as_key(seed, where)) if draw is None else check.functions(where, "draw", draw, ("init", "priorities", "noise"))
    )
    _warn(where, axes, episode_length, context, trend_window)

    def init(params: TensorTree) -> UcbEpisodesState:
        device = tree.device(params)
        home = device if dispatch == "select" else torch.device("cpu")
        number: dict[str, Any] = {"dtype": tree.scalar_dtype(device), "device": device}
        rows = 1 if context is None else 1 + len(episodes.BUCKETS)
        return UcbEpisodesState(
            step=torch.zeros((), dtype=torch.int64, device=home),
            start=torch.zeros((), dtype=torch.int64, device=home),
            episode=torch.zeros((), dtype=torch.int64, device=home),
            key=tree.map(lambda x: x.to(home), draws.init()),
            bandits=bandits.init(axes.bandits, rows, device=device) if axes.learns else EmptyState(),
            arms=torch.zeros(3, dtype=torch.int64, device=device),
            lr_multiplier=torch.full((), lr_candidates[0] if len(lr_candidates) == 1 else 1.0, **number),
            noise_std=torch.full((), noise_candidates[0] if len(noise_candidates) == 1 else 0.0, **number),
            episode_reward=torch.zeros((), **number),
            losses=torch.zeros(episodes.how_many_sums(wages), **number),
            ends=EmptyState() if context is None else torch.zeros(trend_window + 1, **number),
            scale=torch.zeros(3, **number) if standardize else EmptyState(),
            report=torch.zeros(len(REPORT), **number),
            ignored_losses=torch.zeros((), dtype=torch.int64, device=device),
            discarded_episodes=torch.zeros((), dtype=torch.int64, device=device),
        )

    def begin(state: UcbEpisodesState) -> UcbEpisodesState:
        """Chooses the arms of the episode that begins."""
        device = state.arms.device
        bucket = (
            torch.zeros_like(state.arms[2])
            if context is None
            else bandits.settled(True, episodes.trend(state.ends, trend_epsilon, relative_trend))[0]
        )
        if not axes.bandits:
            return state if context is None else state._replace(arms=torch.stack([state.arms[0], state.arms[1], bucket]))
        shape = (len(axes.bandits), max(axes.bandits))
        priorities = sent(draws.priorities(state.key, state.episode, shape), device)
        lr_arm, noise_arm, learned = arms.choose(axes, state.bandits, None if context is None else bucket + 1, settings, priorities)
        # stacked, so that the compiler works the two words out once and not again for every entry of every leaf
        pair = torch.stack([_value(lr_candidates, lr_arm), _value(noise_candidates, noise_arm)])
        return state._replace(bandits=learned, arms=torch.stack([lr_arm, noise_arm, bucket]), lr_multiplier=pair[0], noise_std=pair[1])

    def observe(state: UcbEpisodesState, loss: Tensor) -> UcbEpisodesState:
        ignored = state.ignored_losses + ~torch.isfinite(loss)
        return state._replace(losses=episodes.observe(state.losses, loss, wages), ignored_losses=ignored)

    def close(state: UcbEpisodesState, weight: Tensor | float = 1.0) -> UcbEpisodesState:
        """Pays for the episode that ends before step number `state.step`."""
        deep = bandits.is_deep(state.bandits)
        losses = episodes.summary(*bandits.settled(deep, state.losses))
        paid, scale = episodes.pay(losses, wages, state.scale if standardize else None)
        lr_arm, noise_arm, bucket = bandits.settled(deep, *state.arms.unbind())
        learned, ends = state.bandits, state.ends
        if axes.learns:
            picked, chose = arms.chosen(axes, lr_arm, noise_arm)
            earned, counts = bandits.settled(deep, paid.reward, (paid.defined * weight).to(paid.reward.dtype))
            learned = bandits.update(learned, None if context is None else bucket + 1, picked, chose, earned, counts, settings)
        if context is not None:
            ends = episodes.push(ends, losses.ema if relative_trend else losses.last, losses.n > 0)
        numbers = (state.start, state.step - state.start, state.episode, state.lr_multiplier, state.noise_std)
        report = (*paid[:5], losses.start, losses.ema, losses.first, losses.last, lr_arm, noise_arm, bucket, *numbers)
        return state._replace(
            start=state.step.clone(),
            episode=state.episode + 1,
            bandits=learned,
            episode_reward=torch.where(paid.defined, paid.reward, state.episode_reward),
            losses=torch.zeros_like(state.losses),
            ends=ends,
            scale=scale if standardize else state.scale,
            report=torch.stack([sent(x, state.report.device, state.report.dtype) for x in report]),
            discarded_episodes=state.discarded_episodes + ~paid.defined,
        )

    def phase(calls: int | Tensor) -> tuple[Any, ...]:
        """Whether an episode begins at this call, goes on and is full."""
        return calls == 0, calls > 0, calls == episode_length - (not shift_credit)

    def phase_of(state: UcbEpisodesState) -> tuple[Any, ...]:
        """Its phase: bools if they may be known, else tensors."""
        calls = state.step - state.start
        if dispatch == "branch" or (dispatch == "auto" and random.readable(calls)):
            calls = random.host_int(calls, where)
        return phase(calls)

    def update(
        updates: TensorTree,
        state: UcbEpisodesState,
        params: TensorTree | None = None,
        *,
        loss: Scalar | None = None,
        signals: Any = None,
        plan: Any = None,
        **extra: Any,
    ):
        check.loss(where, loss)
        loss = _loss(where, loss, state.report, check_losses)
        begins, goes_on, is_full = phase_of(state) if plan is None else plan
        if shift_credit:
            state = when(goes_on, lambda state: observe(state, loss), state)
            state = when(is_full, close, state)
            state = when(begins | is_full, begin, state)
        else:
            state = observe(when(begins, begin, state), loss)
        updates = noisy(updates, state)
        state = state._replace(step=state.step + 1)
        if not shift_credit:
            state = when(is_full, close, state)
        return updates, state

    def noisy(updates: TensorTree, state: UcbEpisodesState) -> TensorTree:
        if not any(noise_candidates):
            return updates
        arm = state.arms[1]
        if dispatch != "select" and random.readable(arm) and noise_candidates[random.host_int(arm, where)] == 0:
            return updates  # on the CPU the arm is known without waiting
        noise = draws.noise(state.key, state.step, updates)
        return tree.map(lambda g, z: g + (state.noise_std * z).to(g.dtype), updates, noise)

    def finalize(state: UcbEpisodesState) -> UcbEpisodesState:
        _, goes_on, _ = phase_of(state)
        if partial == "discard":
            return when(goes_on, lambda state: state._replace(start=state.step.clone(), losses=torch.zeros_like(state.losses)), state)
        calls = sent(state.step - state.start, state.report.device, state.report.dtype)
        return when(goes_on, lambda state: close(state, calls / episode_length if partial == "weigh" else 1.0), state)

    def plan(state: UcbEpisodesState, **extra: Any) -> tuple[Any, ...] | None:
        calls = state.step - state.start
        if in_one_graph(state) or calls.dim() or not random.readable(calls):  # lanes of a population select
            return None
        return phase(random.host_int(calls))

    def in_one_graph(state: UcbEpisodesState) -> bool:
        """Whether all phases are: where the counters lie beside the bandits, a choice of numbers costs less than a graph each."""
        return dispatch == "auto" and state.report.device == state.step.device

    def plans(state: UcbEpisodesState) -> Sequence[Any]:
        calls = range(episode_length + shift_credit)
        return (None,) if in_one_graph(state) else tuple(dict.fromkeys(map(phase, calls)))

    noiseless = not any(noise_candidates)
    declared: dict[str, Any] = {
        "name": where,
        "must_be_heard": () if lr_candidates == (1.0,) else ("lr_multiplier",),
        "needs": ("loss",),
        "flattenable": True,
        "turns": False,
        "leaves": "complex" if noiseless else "real",
        "hooks": {"finalize": finalize},
    }

    def in_graph() -> UcbEpisodes:
        return UcbEpisodes(init, update, **declared)

    planned: dict[str, Any] = (
        {} if dispatch == "select" else {"plan": plan, "plans": plans, "in_one_graph": in_graph if dispatch == "auto" else None}
    )
    tx = UcbEpisodes(init, update, **declared, **planned)
    return tx if name is None else scoped(name, tx, kind=UcbEpisodes)


def _value(values: Sequence[float], arm: Tensor) -> Tensor:
    return (vector(values, arm.device) * one_hot(arm, len(values))).sum(-1)


def _loss(where: str, loss: Any, like: Tensor, check_it: bool) -> Tensor:
    """The loss as a number that steers: 0-dim, apart from its graph."""
    if isinstance(loss, Tensor) and loss.dim() != 0:
        raise ValueError(f"{where}: loss must be a number or a 0-dim tensor, got a tensor of shape {tuple(loss.shape)}")
    value = sent(loss.detach(), like.device, like.dtype) if isinstance(loss, Tensor) else tree.scalar(loss, like)
    if check_it and not random.host_int(torch.isfinite(value).to("cpu"), where):
        raise ValueError(f"{where}: loss must be finite, got {loss}; it is ignored and counted without check_losses")
    return value


def _warn(where: str, axes: Axes, episode_length: int, context: str | None, trend_window: int) -> None:
    if episode_length == 1 and axes.learns:
        warn(f"{where}: with episode_length=1 a reward compares a loss with itself and is always 0; nothing is learned")
    if context is not None and trend_window == 1:
        warn(f"{where}: with trend_window=1 there is no slope and the context is always 'stable'; use 2 or more")
    if axes.in_lock_step:
        warn(
            f"{where}: {axes.lr_arms} LR and {axes.noise_arms} noise candidates under independent control move in lock step: "
            f"only {axes.lr_arms} "
            "of the pairs are ever tried; use control='joint' or 'conditional', or another number of candidates",
        )
