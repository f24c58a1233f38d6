"""An episode, taken apart: how it begins, and one step of it. For one member and one environment, without a batch axis."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import TensorTree, check, random, tree
from funcopt.es.rl.normalize import ObservationStats, normalize_observation, observation_stats, push_observation
from funcopt.es.shaping.fitness import real

__all__ = ["Episode", "Player", "Trajectory", "advance", "begin", "needs_stats", "player_of", "takes_key"]

# Step t of an episode draws from counters t 2^24 on of its key: 2^26 words for everything that happens in one step.
STRIDE = 1 << 24


class Trajectory(NamedTuple):
    """One episode, step by step: every leaf has time in front."""

    state: TensorTree  # before the step
    obs: Tensor  # what the policy saw
    action: Tensor  # what the policy did
    reward: Tensor  # of this step; 0 after the end
    live: Tensor  # bool: whether the episode still went on


class Player(NamedTuple):
    """What plays: the arguments of a rollout, checked."""

    policy_apply: Callable[..., Any]
    env: Any
    horizon: int
    memory: Any
    normalize: bool
    check_every: int
    policy_draws: bool


class Episode(NamedTuple):
    """Where an episode stands."""

    state: TensorTree
    obs: Any
    memory: Any  # () of a policy that remembers nothing
    stats: Any  # ObservationStats; () where nobody asked
    total: Tensor  # the return so far
    done: Tensor  # bool
    key: Tensor  # of this step, for the environment
    policy_key: Tensor  # of this step, for the policy
    further: Tensor  # from the key of a step to that of the next; made once, since a constant takes a copy to the device


def player_of(
    where: str, policy_apply: Callable[..., Any], env: Any, horizon: int | None, memory: Any, normalize: bool, check_every: int
) -> Player:
    if isinstance(env, str) or hasattr(env, "observation_space"):
        called = repr(env) if isinstance(env, str) else type(env).__name__
        raise TypeError(
            f"{where}: env must have the functions of es.Environment, as es.cartpole() does, got {called}, which is gymnasium's; "
            f"es.gymnasium_rollout(policy, {repr(env) if isinstance(env, str) else '...'}) plays those"
        )
    for name in ("reset", "step"):
        if not callable(getattr(env, name, None)):
            raise TypeError(f"{where}: env must have the functions of es.Environment, got {type(env).__name__} without {name!r}")
    horizon = getattr(env, "horizon", None) if horizon is None else horizon
    if horizon is None:
        raise ValueError(f"{where}: needs a horizon, which the environment does not give; pass horizon=")
    check.integer(where, "horizon", horizon, 1)
    check.integer(where, "check_every", check_every, 1)
    return Player(policy_apply, env, horizon, memory, normalize, check_every, takes_key(policy_apply))


def takes_key(function: Callable[..., Any]) -> bool:
    """Whether `function` has a parameter of the name `key`."""
    try:
        return "key" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # built in: no signature to read
        return False


def needs_stats(where: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments after the params, of which the first must be statistics."""
    if not args or not isinstance(args[0], ObservationStats):
        raise TypeError(
            f"{where}: normalize=True needs the statistics; call objective(params, stats, key=key), first with es.observation_stats(obs)"
        )
    return args


def begin(player: Player, params: TensorTree, key: Tensor) -> Episode:
    """An episode before its first step."""
    reset_key, key, policy_key = random.split(key, 3)
    state = player.env.reset(reset_key)
    obs = _observe(player.env, state)
    memory = player.memory(params) if callable(player.memory) else player.memory
    return Episode(
        state=state,
        obs=obs,
        memory=() if memory is None else memory,
        stats=observation_stats(obs) if player.normalize else (),
        total=torch.zeros((), device=key.device),
        done=torch.zeros((), dtype=torch.bool, device=key.device),
        key=key,
        policy_key=policy_key,
        further=torch.tensor([0, STRIDE], device=key.device),
    )


def advance(player: Player, params: TensorTree, args: Sequence[Any], episode: Episode) -> tuple[Episode, Trajectory]:
    """The episode one step further, and the step."""
    state, obs, memory, stats, total, done, key, policy_key, further = episode
    live, seen = ~done, obs
    if player.normalize:
        known, *args = args
        seen, stats = normalize_observation(known, obs), push_observation(stats, obs, live)
    draws = {"key": policy_key} if player.policy_draws else {}
    if player.memory is None:
        action = player.policy_apply(params, seen, *args, **draws)
    else:
        action, memory = player.policy_apply(params, seen, memory, *args, **draws)
    after, obs_after, reward, ended = player.env.step(state, action, key)
    if isinstance(reward, Tensor) and reward.is_complex():
        real("rollout", "a reward", reward)
    reward = torch.where(done, 0, reward)
    step = Trajectory(state=state, obs=seen, action=action, reward=reward, live=live)
    # What is done stays as it is, for it may be anything after its end.
    state, obs = tree.where(done, (state, obs), (after, obs_after))
    policy_key = policy_key + further if player.policy_draws else policy_key
    return Episode(state, obs, memory, stats, total + reward, done | ended, key + further, policy_key, further), step


def _observe(env: Any, state: TensorTree):
    if hasattr(env, "observe"):
        return env.observe(state)
    if isinstance(state, Tensor):
        return state
    raise ValueError("rollout: needs observe(state) -> obs of the environment, as its state is no tensor that the policy could see")
