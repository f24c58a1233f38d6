"""Pendulum: swing a pendulum up with a weak motor, and hold it there.

    u = clip(action, +-max_torque)
    reward = -(wrap(theta)^2 + 0.1 theta'^2 + 0.001 u^2)                  (the old angle and speed; wrap to [-pi, pi))
    theta' <- clip(theta' + (3 g / (2 l) sin theta + 3 u / (m l^2)) dt, +-max_speed)
    theta  <- theta + theta' dt                                           (the new speed)

Reference: Pendulum-v1 of gymnasium 1.4. theta = 0 is upright.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from funcopt.core import Scalar, check, random
from funcopt.es.rl.environment import Environment, check_constants, clip, constants, single

__all__ = ["PendulumState", "pendulum"]


class PendulumState(NamedTuple):
    theta: Tensor  # rad from upright, unwrapped; 0-dim
    theta_dot: Tensor  # rad / s


def pendulum(
    g: Scalar = 10.0,
    m: Scalar = 1.0,
    l: Scalar = 1.0,
    dt: Scalar = 0.05,
    max_torque: Scalar = 2.0,
    max_speed: Scalar = 8.0,
    *,
    horizon: int = 200,
    dtype: torch.dtype = torch.float32,
) -> Environment:
    """A pendulum on a motor that is too weak to lift it in one go; the reward is never positive, 0 is upright and at rest.

    The policy sees `[cos theta, sin theta, theta']` and gives a torque, clipped to
    `max_torque`. No step is the last; an episode ends with its horizon. It starts at
    any angle, turning at up to 1 rad/s.

    Args:
        g: gravity, m / s^2.
        m: the mass, kg.
        l: the length, m.
        dt: seconds in a step.
        max_torque: N m; inf: any.
        max_speed: rad / s; inf: any.
        horizon: steps in an episode.
        dtype: of the state, the observation and the reward.

    Returns:
        An environment for `es.rollout`; every constant may be a 0-dim tensor.

    Raises:
        TypeError: `dtype` is no floating dtype.
        ValueError: a constant is no finite number, or is not above 0 where it must be.

    Example:
        >>> env = fo.es.pendulum()
        >>> upright = fo.es.PendulumState(theta=torch.tensor(0.0), theta_dot=torch.tensor(0.0))
        >>> state, obs, reward, done = env.step(upright, torch.tensor(2.0))  # theta' = 3 u dt
        >>> obs
        tensor([0.9999, 0.0150, 0.3000])
        >>> reward
        tensor(-0.0040)
    """
    check.dtype("pendulum", "dtype", dtype)
    check_constants("pendulum", horizon, {"m": m, "l": l, "dt": dt}, {"g": g}, {"max_torque": max_torque, "max_speed": max_speed})
    g, m, l, dt, max_torque, max_speed = constants(dtype, g, m, l, dt, max_torque, max_speed)

    def reset(key: Tensor) -> PendulumState:
        theta, theta_dot = (2 * random.uniform(key, 2, dtype) - 1).unbind()
        return PendulumState(theta=math.pi * theta, theta_dot=theta_dot)

    def step(state: PendulumState, action: Tensor, key: Tensor | None = None):
        u = clip(single("pendulum", action, "one number, the torque").to(dtype), -max_torque, max_torque)
        theta, theta_dot = state
        wrapped = (theta + math.pi) % (2 * math.pi) - math.pi
        reward = -(wrapped.square() + 0.1 * theta_dot.square() + 0.001 * u.square())
        theta_dot = clip(theta_dot + (3 * g / (2 * l) * theta.sin() + 3 * u / (m * l**2)) * dt, -max_speed, max_speed)
        state = PendulumState(theta=theta + theta_dot * dt, theta_dot=theta_dot)
        return state, observe(state), reward, torch.zeros_like(theta, dtype=torch.bool)

    def observe(state: PendulumState) -> Tensor:
        return torch.stack([state.theta.cos(), state.theta.sin(), state.theta_dot])

    return Environment(reset, step, observe, horizon)
