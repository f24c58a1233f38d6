"""Mountain car with a continuous push: an engine too weak for the hill has to gather speed on the other side.

    u = clip(action, +-1)
    v <- clip(v + power u - 0.0025 cos 3 x, +-max_speed)
    x <- clip(x + v, min_position, max_position)
    v <- 0 where x stands at the left wall and v < 0
    done = x >= goal_position and v >= goal_velocity
    reward = 100 done - 0.1 action^2                           (the action before it is clipped)

Source: Moore, 1990. Reference: MountainCarContinuous-v0 of gymnasium 1.4,
which holds its state in float32 as the default dtype does here.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from funcopt.core import Scalar, check, random
from funcopt.es.rl.environment import Environment, check_constants, clip, constants, single

__all__ = ["MountainCarState", "mountain_car"]


class MountainCarState(NamedTuple):
    position: Tensor  # 0-dim
    velocity: Tensor  # per step


def mountain_car(
    power: Scalar = 0.0015,
    min_position: Scalar = -1.2,
    max_position: Scalar = 0.6,
    max_speed: Scalar = 0.07,
    goal_position: Scalar = 0.45,
    goal_velocity: Scalar = 0.0,
    *,
    horizon: int = 999,
    dtype: torch.dtype = torch.float32,
) -> Environment:
    """A car in a valley: 100 for reaching the goal on the right hill, minus a tenth of the squared push in every step.

    The policy sees `[position, velocity]` and gives a push in [-1, 1]; what exceeds
    this moves nothing and costs all the same. The car starts at rest, at a position
    in [-0.6, -0.4).

    Args:
        power: speed gained in a step by a full push.
        min_position: the wall on the left.
        max_position: where the track ends on the right.
        max_speed: in either direction, per step; inf: any.
        goal_position: where the episode is done.
        goal_velocity: the least speed with which the goal counts.
        horizon: steps in an episode.
        dtype: of the state, the observation and the reward.

    Returns:
        An environment for `es.rollout`; every constant may be a 0-dim tensor.

    Raises:
        TypeError: `dtype` is no floating dtype.
        ValueError: a constant is no finite number, or is not above 0 where it must be.

    Example:
        >>> env = fo.es.mountain_car()
        >>> before_goal = fo.es.MountainCarState(position=torch.tensor(0.44), velocity=torch.tensor(0.05))
        >>> state, obs, reward, done = env.step(before_goal, torch.tensor(0.5))  # 100 - 0.1 0.25
        >>> reward, done
        (tensor(99.9750), tensor(True))
    """
    check.dtype("mountain_car", "dtype", dtype)
    places = {"min_position": min_position, "max_position": max_position, "goal_position": goal_position, "goal_velocity": goal_velocity}
    check_constants("mountain_car", horizon, {}, {"power": power, **places}, {"max_speed": max_speed})
    power, min_position, max_position, max_speed = constants(dtype, power, min_position, max_position, max_speed)
    goal_position, goal_velocity = constants(dtype, goal_position, goal_velocity)

    def reset(key: Tensor) -> MountainCarState:
        position = -0.6 + 0.2 * random.uniform(key, (), dtype)
        return MountainCarState(position=position, velocity=torch.zeros_like(position))

    def step(state: MountainCarState, action: Tensor, key: Tensor | None = None):
        action = single("mountain_car", action, "one number, the push").to(dtype)
        velocity = state.velocity + action.clamp(-1, 1) * power - 0.0025 * (3 * state.position).cos()
        velocity = clip(velocity, -max_speed, max_speed)
        position = clip(state.position + velocity, min_position, max_position)
        velocity = torch.where((position <= min_position) & (velocity < 0), 0.0, velocity)
        done = (position >= goal_position) & (velocity >= goal_velocity)
        reward = 100 * done.to(dtype) - 0.1 * action.square()
        state = MountainCarState(position=position, velocity=velocity)
        return state, observe(state), reward, done

    def observe(state: MountainCarState) -> Tensor:
        return torch.stack(tuple(state))

    return Environment(reset, step, observe, horizon)
