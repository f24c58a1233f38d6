"""Rollouts: from a policy and an environment to an objective, the mean return of a member's episodes.

    R = sum_t r_t over the steps up to and including the one that is done

One function of one member's params, without a batch axis: `es.grad` puts members
over it, it puts episodes over itself. What is done stays: its state is frozen and
nothing that follows counts. The loop ends early only when every episode of every
member in the same `vmap` is done.

Randomness: episode e plays with `fold_in(key, e)`. With common random numbers, the
default of `es.grad`, both members of a pair get the same key, so they start from
the same states and meet the same noise.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import TensorTree, check, random, tree
from funcopt.es.rl.normalize import ObservationStats, merge_observations, normalize_observation, observation_stats, push_observation
from funcopt.es.rl.stop import everywhere

__all__ = ["Trajectory", "rollout", "trajectory"]

# Step t of an episode draws from counters t 2^24 on of its key: 2^26 words for everything that happens in one step.
STRIDE = 1 << 24


class Trajectory(NamedTuple):
    """One episode, step by step: every leaf has time in front."""

    state: TensorTree  # before the step
    obs: Tensor  # what the policy saw
    action: Tensor
    reward: Tensor  # of this step; 0 after the end
    live: Tensor  # bool: whether the episode still went on


class Player(NamedTuple):
    """What plays: the arguments of a rollout, checked."""

    policy_apply: Callable
    env: Any
    horizon: int
    memory: Any
    normalize: bool
    check_every: int
    policy_draws: bool


class Played(NamedTuple):
    total: Tensor  # the return
    stats: ObservationStats | tuple  # () where nobody asked
    steps: list[Trajectory]


def rollout(
    policy_apply: Callable,
    env: Any,
    horizon: int | None = None,
    episodes: int = 1,
    *,
    memory: TensorTree | Callable[[TensorTree], TensorTree] | None = None,
    normalize: bool = False,
    reduce: Callable[[Tensor], Tensor] = torch.mean,
    check_every: int = 16,
) -> Callable:
    """An objective for `es.grad(..., maximize=True)`: the mean return of some episodes.

    Args:
        policy_apply: `(params, obs, *args) -> action`, for one observation; with
            `memory` `(params, obs, memory, *args) -> (action, memory)`. One that takes
            the keyword `key` gets a fresh one in every step. A module is
            `lambda params, obs: torch.func.functional_call(module, params, (obs,))`.
        env: `es.cartpole()` and the like, or anything with the attributes of
            `es.Environment`.
        horizon: steps after which an episode is cut off, >= 1; None: the
            environment's own.
        episodes: played side by side, >= 1.
        memory: what a recurrent policy remembers before the first step, a tree of
            tensors or a function of the params.
        normalize: whether the policy sees normalised observations.
        reduce: from the returns [episodes] to the fitness.
        check_every: after how many steps to look whether all are done; looking waits
            for an accelerator. Under `torch.compile` all `horizon` steps are played.

    Returns:
        `objective(params, *args, key) -> fitness`, 0-dim, for one member; `args` go on
        to the policy. With `normalize` `objective(params, stats, *args, key) ->
        (fitness, stats of these episodes)`, for `es.grad(..., has_aux=True)`: the
        given `ObservationStats` stay frozen, those that come back go to
        `es.merge_observations`.

    Raises:
        ValueError: a number is out of range, or the environment has neither a
            horizon nor `observe`.

    Example:
        >>> def push_the_way_it_falls(params, obs):
        ...     return (obs @ params > 0).long()
        >>> objective = fo.es.rollout(push_the_way_it_falls, fo.es.cartpole(), episodes=4)
        >>> objective(torch.tensor([0.0, 0.0, 1.0, 0.0]), key=0) < objective(torch.tensor([0.1, 0.5, 1.0, 1.0]), key=0)
        tensor(True)
    """
    check.integer("rollout", "episodes", episodes, 1)
    player = _player("rollout", policy_apply, env, horizon, memory, normalize, check_every)

    def objective(params: TensorTree, *args, key: Tensor | int):
        keys = random.split(random.as_key(key, "rollout"), episodes)

        def episode(key: Tensor):
            played = _play(player, params, args, key)
            return played.total, played.stats

        if episodes == 1:
            total, stats = episode(keys[0])
            returns = total.unsqueeze(0)
        else:
            returns, stats = torch.func.vmap(episode, randomness="different")(keys)
        return (reduce(returns), merge_observations(stats)) if normalize else reduce(returns)

    return objective


def trajectory(
    policy_apply: Callable,
    env: Any,
    horizon: int | None = None,
    *,
    memory: TensorTree | Callable[[TensorTree], TensorTree] | None = None,
    normalize: bool = False,
    check_every: int = 16,
) -> Callable:
    """One episode to look at: `play(params, *args, key) -> Trajectory`.

    Args: as of `rollout`. The episode of key k is the one that
    `rollout(..., episodes=1)` plays with key k.

    Example:
        >>> play = fo.es.trajectory(lambda params, obs: params, fo.es.pendulum(), horizon=3)
        >>> seen = play(torch.tensor(0.0), key=0)
        >>> seen.obs.shape, seen.state.theta.shape, seen.live
        (torch.Size([3, 3]), torch.Size([3]), tensor([True, True, True]))
    """
    player = _player("trajectory", policy_apply, env, horizon, memory, normalize, check_every)

    def play(params: TensorTree, *args, key: Tensor | int) -> Trajectory:
        first = random.split(random.as_key(key, "trajectory"), 1)[0]
        steps = _play(player, params, args, first, record=True).steps
        return tree.map_plain(lambda *leaves: torch.stack(leaves), *steps)

    return play


def _player(where: str, policy_apply: Callable, env: Any, horizon: int | None, memory: Any, normalize: bool, check_every: int) -> Player:
    for name in ("reset", "step"):
        if not callable(getattr(env, name, None)):
            raise TypeError(f"{where}: env must have the functions of es.Environment, got {type(env).__name__} without {name!r}")
    horizon = getattr(env, "horizon", None) if horizon is None else horizon
    if horizon is None:
        raise ValueError(f"{where}: needs a horizon, which the environment does not give; pass horizon=")
    check.integer(where, "horizon", horizon, 1)
    check.integer(where, "check_every", check_every, 1)
    return Player(policy_apply, env, horizon, memory, normalize, check_every, takes_key(policy_apply))


def takes_key(function: Callable) -> bool:
    """Whether `function` has a parameter of the name `key`."""
    try:
        return "key" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # built in: no signature to read
        return False


def needs_stats(where: str, args: Sequence) -> Sequence:
    """The arguments after the params, of which the first must be statistics."""
    if not args or not isinstance(args[0], ObservationStats):
        raise TypeError(f"{where}: normalize=True needs the statistics; call objective(params, stats, key=key), first with es.observation_stats(obs)")
    return args


def _play(player: Player, params: TensorTree, args: Sequence, key: Tensor, record: bool = False) -> Played:
    """One episode of one member."""
    env, steps = player.env, []
    reset_key, key, policy_key = random.split(key, 3)
    further = torch.tensor([0, STRIDE], device=key.device)
    state = env.reset(reset_key)
    obs = _observe(env, state)
    known = None
    if player.normalize:
        known, *args = needs_stats("rollout", args)
    stats = observation_stats(obs) if player.normalize else ()
    memory = player.memory(params) if callable(player.memory) else player.memory
    done = torch.zeros((), dtype=torch.bool, device=key.device)
    total = torch.zeros((), device=key.device)
    for t in range(player.horizon):
        if t and t % player.check_every == 0 and everywhere(done):
            break
        live = ~done
        seen = normalize_observation(known, obs) if player.normalize else obs
        stats = push_observation(stats, obs, live) if player.normalize else ()
        draws = {"key": policy_key} if player.policy_draws else {}
        if memory is None:
            action = player.policy_apply(params, seen, *args, **draws)
        else:
            action, memory = player.policy_apply(params, seen, memory, *args, **draws)
        after, obs_after, reward, ended = env.step(state, action, key)
        reward = torch.where(done, 0, reward)
        if record:
            steps.append(Trajectory(state=state, obs=seen, action=action, reward=reward, live=live))
        # What is done stays as it is, for it may be anything after its end.
        state, obs = tree.where(done, (state, obs), (after, obs_after))
        total, done = total + reward, done | ended
        key, policy_key = key + further, policy_key + further if player.policy_draws else policy_key
    return Played(total, stats, steps)


def _observe(env: Any, state: TensorTree):
    if hasattr(env, "observe"):
        return env.observe(state)
    if isinstance(state, Tensor):
        return state
    raise ValueError("rollout: needs observe(state) -> obs of the environment, as its state is no tensor that the policy could see")
