"""Rollouts in any environment of gymnasium: one copy for each member and episode, one policy call for all of them per step.

    actions[member, episode] = policy_apply(params[member], obs[member, episode])           one nested vmap
    return[member, episode]  = sum of rewards up to and including the first step that is terminated or truncated

A copy that is done begins again by itself (gymnasium's next-step autoreset); what it
does then is not counted. Episode e of a key begins from a seed made of `fold_in(key, e)`,
so members with the same key meet the same start.

The environments live on the host and keep their state there: this file reads tensors.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.func import vmap

from funcopt.core import TensorTree, check, random, tree
from funcopt.es.rl.episode import needs_stats, takes_key
from funcopt.es.rl.normalize import ObservationStats, merge_observations, normalize_observation, observation_stats, push_observation

__all__ = ["GymnasiumRollout", "gymnasium_rollout"]

Copies = Literal["sync", "async"]


def gymnasium_rollout(
    policy_apply: Callable[..., Any],
    env: str | Callable[[], Any],
    horizon: int | None = None,
    episodes: int = 1,
    *,
    stacked: bool = True,
    copies: Copies = "sync",
    side_by_side: bool = True,
    memory: TensorTree | None = None,
    normalize: bool = False,
    reduce: Callable[[Tensor], Tensor] = torch.mean,
    **vector_options: Any,
) -> "GymnasiumRollout":
    """An objective for `es.grad(..., vectorize="external", maximize=True)` from an environment of gymnasium.

    Args:
        policy_apply: as of `es.rollout`: `(params, obs, *args) -> action` for one
            observation.
        env: an id such as "CartPole-v1", or a function without arguments that makes
            an environment.
        horizon: steps after which an episode is cut off; None: the environment's own
            limit.
        episodes: for each member, >= 1.
        stacked: the objective takes all members at once, their params stacked along a
            leading axis. False: params of one member, for `vectorize="loop"` or
            `"processes"`.
        copies: "sync" steps the copies one after another in this process, "async"
            each in a process of its own.
        side_by_side: one copy for each episode. False: one for each member, which
            plays its episodes one after another.
        memory: what a recurrent policy remembers before the first step.
        normalize: whether the policy sees normalised observations.
        reduce: from the returns [episodes] of a member to its fitness.
        vector_options: further arguments of gymnasium's SyncVectorEnv or
            AsyncVectorEnv, such as `shared_memory` and `context`.

    Returns:
        `objective(params, *args, key) -> fitness` [members], 0-dim if not `stacked`;
        with `normalize` `objective(params, stats, *args, key) -> (fitness, stats)` as
        of `es.rollout`. `key` is one key for all members or one for each [members, 2].
        There are as many copies as members in one call (bounded by `chunk_size=` of
        `es.grad`), times `episodes`. They are made in the first call and kept until
        `objective.close()` or the end of `with objective:`.

    Raises:
        ImportError: gymnasium is not installed.
        ValueError: a number is out of range.

    Example:
        >>> import pytest; _ = pytest.importorskip("gymnasium")
        >>> def policy(params, obs):
        ...     return (params @ obs > 0).long()
        >>> objective = fo.es.gymnasium_rollout(policy, "CartPole-v1", horizon=20, stacked=False)
        >>> fitness = objective(torch.zeros(4), key=fo.random.key(0))
        >>> objective.close()
        >>> fitness.shape, bool(fitness >= 1)
        (torch.Size([]), True)
    """
    check.integer("gymnasium_rollout", "episodes", episodes, 1)
    if horizon is not None:
        check.integer("gymnasium_rollout", "horizon", horizon, 1)
    check.choice("gymnasium_rollout", "copies", copies, get_args(Copies))
    _library()
    return GymnasiumRollout(policy_apply, env, horizon, episodes, stacked, copies, side_by_side, memory, normalize, reduce, vector_options)


class GymnasiumRollout:
    """What `gymnasium_rollout` returns: a function that holds environments. Close it when done."""

    def __init__(
        self,
        policy_apply: Callable[..., Any],
        env: str | Callable[[], Any],
        horizon: int | None,
        episodes: int,
        stacked: bool,
        copies: Copies,
        side_by_side: bool,
        memory: TensorTree | None,
        normalize: bool,
        reduce: Callable[[Tensor], Tensor],
        vector_options: dict[str, Any],
    ):
        self.policy_apply, self.env, self.horizon, self.episodes = policy_apply, env, horizon, episodes
        self.stacked, self.copies, self.side_by_side = stacked, copies, side_by_side
        self.memory, self.normalize, self.reduce, self.vector_options = memory, normalize, reduce, vector_options
        self.policy_draws = takes_key(policy_apply)
        self.held: Any = None  # the vector environment of the last call

    def __call__(self, params: TensorTree, *args: Any, key: Tensor | int) -> Any:
        if not self.stacked:
            params = tree.map_plain(lambda p: p.unsqueeze(0), params)
        members = tree.leaves(params)[0].shape[0]
        key = key if isinstance(key, Tensor) and key.dim() == 2 else random.as_key(key, "gymnasium_rollout").expand(members, 2)
        known = None
        if self.normalize:
            known, *args = needs_stats("gymnasium_rollout", args)  # pyright: ignore[reportAssignmentType] (a list is as good)
        keys = torch.stack([random.split(one, self.episodes) for one in key.unbind()])  # [members, episodes, 2]
        together = [keys] if self.side_by_side else keys.split(1, dim=1)
        played = [self.play(params, args, some, known) for some in together]
        returns = torch.cat([total for total, _ in played], dim=1)
        fitness = torch.stack([self.reduce(one) for one in returns.unbind()])
        if not self.normalize:
            return fitness if self.stacked else fitness[0]
        stats = vmap(merge_observations)(tree.map_plain(lambda *s: torch.cat(s, dim=1), *[stats for _, stats in played]))
        return (fitness, stats) if self.stacked else (fitness[0], tree.map_plain(lambda s: s[0], stats))

    def play(
        self, params: TensorTree, args: Sequence[Any], keys: Tensor, known: ObservationStats | None
    ) -> tuple[Tensor, ObservationStats | tuple[()]]:
        """Returns [members, k] and what was seen, of the k episodes for each member that `keys` [members, k, 2] begin."""
        shape = keys.shape[:2]
        worlds = self.open(shape.numel())
        device = tree.leaves(params)[0].device
        seeds = vmap(vmap(lambda key: random.bits(key, 1)[0]))(keys).flatten() >> 1  # below 2^31
        seen, _ = worlds.reset(seed=seeds.tolist())
        memory = None if self.memory is None else tree.map_plain(lambda m: m.expand(*shape, *m.shape), self.memory)
        total, done = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.bool)
        stats: Any = ()
        step = 0
        while not done.all() and (self.horizon is None or step < self.horizon):
            obs = tree.map_plain(lambda x: x.to(device).unflatten(0, shape), _tensors(seen))
            if known is not None:
                blank = tree.map_plain(lambda s: s.expand(*shape, *s.shape), observation_stats(obs[0, 0]))
                stats = vmap(vmap(push_observation))(stats or blank, obs, ~done.to(device))
            action, memory = self.act(params, obs, memory, args, keys, step, known)
            seen, reward, terminated, truncated, _ = worlds.step(_as_actions(action, worlds))
            total += torch.where(done, 0.0, torch.as_tensor(reward, dtype=torch.float64).view(shape))
            done = done | torch.as_tensor(terminated | truncated).view(shape)
            step += 1
        return total.to(device, torch.float32), stats

    def act(
        self, params: TensorTree, obs: Any, memory: Any, args: Sequence[Any], keys: Tensor, step: int, known: ObservationStats | None
    ) -> Any:
        """Actions [members, k, ...] and what is remembered, from one call of the policy."""

        def one(params: TensorTree, obs: Any, memory: Any, key: Tensor) -> Any:
            obs = obs if known is None else normalize_observation(known, obs)
            draws = {"key": random.fold_in(key, step)} if self.policy_draws else {}
            if memory is None:
                return self.policy_apply(params, obs, *args, **draws), ()
            return self.policy_apply(params, obs, memory, *args, **draws)

        axis = None if memory is None else 0
        over_episodes = vmap(one, in_dims=(None, 0, axis, 0), randomness="different")
        action, after = vmap(over_episodes, in_dims=(0, 0, axis, 0), randomness="different")(params, obs, memory, keys)
        return action, None if memory is None else after

    def open(self, count: int):
        """The vector environment of `count` copies; that of the last call where it has as many."""
        if self.held is None or self.held.num_envs != count:
            self.close()
            library = _library()
            make = (lambda: library.make(self.env)) if isinstance(self.env, str) else self.env
            if self.horizon is None:
                check_limit(make)
            kind = library.vector.SyncVectorEnv if self.copies == "sync" else library.vector.AsyncVectorEnv
            self.held = kind([make] * count, **self.vector_options)
        return self.held

    def close(self) -> None:
        """Closes the environments; the next call opens them again."""
        held, self.held = self.held, None
        if held is not None:
            held.close()

    def __enter__(self) -> "GymnasiumRollout":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "held": None}  # environments stay in the process that made them


def check_limit(make: Callable[[], Any]) -> None:
    env = make()
    spec = env.spec
    env.close()
    if spec is None or spec.max_episode_steps is None:
        raise ValueError("gymnasium_rollout: needs a horizon, as the environment says no max_episode_steps; pass horizon=")


def _library() -> Any:
    try:
        import gymnasium
    except ImportError as error:
        raise ImportError("gymnasium_rollout: needs gymnasium; pip install gymnasium") from error
    return gymnasium


def _tensors(obs: Any) -> Any:
    """Observations as tensors; a dict or tuple of arrays as one of tensors. Floats in float32."""
    if isinstance(obs, dict):
        return {name: _tensors(part) for name, part in obs.items()}
    if isinstance(obs, tuple):
        return tuple(_tensors(part) for part in obs)
    found = torch.as_tensor(obs)
    return found.float() if found.is_floating_point() else found


def _as_actions(action: Tensor, worlds: Any):
    """Actions [members, k, ...] as the environments take them: [copies, *shape of an action]."""
    space = worlds.single_action_space
    return action.detach().cpu().numpy().astype(space.dtype).reshape(worlds.num_envs, *space.shape)
