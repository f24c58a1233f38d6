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

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from funcopt.core import TensorTree, check, random, tree
from funcopt.es.rl.episode import Episode, Player, Trajectory, advance, begin, needs_stats, player_of
from funcopt.es.rl.normalize import merge_observations
from funcopt.es.rl.stop import everywhere

__all__ = ["rollout", "trajectory"]


def rollout(
    policy_apply: Callable[..., Any],
    env: Any,
    horizon: int | None = None,
    episodes: int = 1,
    *,
    memory: TensorTree | Callable[[TensorTree], TensorTree] | None = None,
    normalize: bool = False,
    reduce: Callable[[Tensor], Tensor] = torch.mean,
    check_every: int = 16,
) -> Callable[..., Any]:
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
    player = player_of("rollout", policy_apply, env, horizon, memory, normalize, check_every)

    def objective(params: TensorTree, *args: Any, key: Tensor | int):
        args = needs_stats("rollout", args) if normalize else args
        keys = random.split(random.as_key(key, "rollout"), episodes)

        def play(key: Tensor):
            episode = _play(player, begin(player, params, key), lambda episode: advance(player, params, args, episode)[0])
            return episode.total, episode.stats

        if episodes == 1:
            total, stats = play(keys[0])
            returns = total.unsqueeze(0)
        else:
            returns, stats = vmap(play, randomness="different")(keys)
        return (reduce(returns), merge_observations(stats)) if normalize else reduce(returns)

    return objective


def _play(player: Player, episode: Episode, step: Callable[[Episode], Episode]) -> Episode:
    for t in range(player.horizon):
        if t and t % player.check_every == 0 and everywhere(episode.done):
            break
        episode = step(episode)
    return episode


def trajectory(
    policy_apply: Callable[..., Any],
    env: Any,
    horizon: int | None = None,
    *,
    memory: TensorTree | Callable[[TensorTree], TensorTree] | None = None,
    normalize: bool = False,
    check_every: int = 16,
) -> Callable[..., Any]:
    """One episode to look at: `play(params, *args, key) -> Trajectory`.

    The episode of key k is the one that `rollout(..., episodes=1)` plays with key k.

    Args:
        policy_apply, env, horizon, memory, normalize, check_every: as of `rollout`.

    Returns:
        The function `play`, whose `Trajectory` has the steps along its leading axis.

    Raises:
        ValueError: as in `rollout`.

    Example:
        >>> play = fo.es.trajectory(lambda params, obs: params, fo.es.pendulum(), horizon=3)
        >>> seen = play(torch.tensor(0.0), key=0)
        >>> seen.obs.shape, seen.state.theta.shape, seen.live
        (torch.Size([3, 3]), torch.Size([3]), tensor([True, True, True]))
    """
    player = player_of("trajectory", policy_apply, env, horizon, memory, normalize, check_every)

    def play(params: TensorTree, *args: Any, key: Tensor | int) -> Trajectory:
        args, steps = needs_stats("trajectory", args) if normalize else args, []

        def step(episode: Episode) -> Episode:
            episode, seen = advance(player, params, args, episode)
            steps.append(seen)
            return episode

        _play(player, begin(player, params, random.split(random.as_key(key, "trajectory"), 1)[0]), step)
        return tree.map_plain(lambda *leaves: torch.stack(leaves), *steps)

    return play
