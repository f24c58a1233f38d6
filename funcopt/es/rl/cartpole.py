"""CartPole: keep a pole upright on a cart that is pushed left or right.

    F = +force_mag for action 1, -force_mag else
    m = masscart + masspole,   k = masspole length / m
    a = F / m + k theta'^2 sin theta
    theta'' = (gravity sin theta - a cos theta) / (4/3 length - k cos^2 theta)
    x'' = a - k theta'' cos theta
    x, x', theta, theta' advance by tau x', tau x'', tau theta', tau theta''      (explicit Euler: all with the old derivatives)

Source: Barto, Sutton and Anderson, 1983; Florian, "Correct equations for the
dynamics of the cart-pole system", 2007. Reference: CartPole-v1 of gymnasium
1.4 (v0: horizon=200). Ours goes on paying 1 after the pole has fallen; a rollout
does not count it.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from funcopt.core import Scalar, check, random
from funcopt.es.rl.environment import Environment, check_constants, constants, single

__all__ = ["CartPoleState", "cartpole"]


class CartPoleState(NamedTuple):
    x: Tensor  # m; 0-dim, as all of these
    x_dot: Tensor  # m / s
    theta: Tensor  # rad from upright
    theta_dot: Tensor  # rad / s


def cartpole(
    gravity: Scalar = 9.8,
    masscart: Scalar = 1.0,
    masspole: Scalar = 0.1,
    length: Scalar = 0.5,
    force_mag: Scalar = 10.0,
    tau: Scalar = 0.02,
    theta_threshold_radians: Scalar = 12 * math.pi / 180,
    x_threshold: Scalar = 2.4,
    start: Scalar = 0.05,
    *,
    horizon: int = 500,
    dtype: torch.dtype = torch.float32,
) -> Environment:
    """A pole on a cart, pushed by action 0 to the left or 1 to the right; reward 1 for each step.

    The policy sees `[x, x', theta, theta']`. The episode is done when the cart is
    further than `x_threshold` from the middle or the pole further than
    `theta_threshold_radians` from upright.

    Args:
        gravity: m / s^2.
        masscart: kg.
        masspole: kg.
        length: half of the pole's length, m.
        force_mag: the push, N.
        tau: seconds in a step.
        theta_threshold_radians: the angle at which it counts as fallen; inf: never.
        x_threshold: the end of the track, m; inf: it has none.
        start: all four numbers begin uniform in [-start, start).
        horizon: steps in an episode; 500 in v1, 200 in v0.
        dtype: of the state, the observation and the reward.

    Returns:
        An environment for `es.rollout`. Every constant may be a 0-dim tensor, so a
        `vmap` over `lambda mass: es.cartpole(masspole=mass)` is one over worlds.

    Raises:
        TypeError: `dtype` is no floating dtype.
        ValueError: a constant is no finite number, or is not above 0 where it must be.

    Example:
        >>> env = fo.es.cartpole()
        >>> at_rest = fo.es.CartPoleState(*torch.zeros(4))
        >>> state, obs, reward, done = env.step(at_rest, torch.tensor(1))  # theta'' = -(10 / 1.1) / (0.5 (4/3 - 0.1 / 1.1))
        >>> obs
        tensor([ 0.0000,  0.1951,  0.0000, -0.2927])
        >>> reward, done
        (tensor(1.), tensor(False))
    """
    check.dtype("cartpole", "dtype", dtype)
    weights = {"masscart": masscart, "masspole": masspole, "length": length, "force_mag": force_mag, "tau": tau}
    bounds = {"theta_threshold_radians": theta_threshold_radians, "x_threshold": x_threshold}
    check_constants("cartpole", horizon, weights, {"gravity": gravity, "start": start}, bounds)
    gravity, masscart, masspole, length, force_mag, tau = constants(dtype, gravity, masscart, masspole, length, force_mag, tau)
    theta_threshold_radians, x_threshold, start = constants(dtype, theta_threshold_radians, x_threshold, start)
    # What does not change is worked out once: a step of a few hundred members costs what its operations cost to launch.
    mass = masscart + masspole
    k = masspole * length / mass
    right = torch.as_tensor(force_mag / mass, dtype=dtype)
    left = -right

    def reset(key: Tensor) -> CartPoleState:
        return CartPoleState(*((2 * random.uniform(key, 4, dtype) - 1) * start).unbind())

    def step(state: CartPoleState, action: Tensor, key: Tensor | None = None):
        push = single("cartpole", action, "one number, 0 or 1 (of two scores the policy returns scores.argmax(-1))")
        sine, cosine = state.theta.sin(), state.theta.cos()
        a = torch.where(push == 1, right, left) + k * (state.theta_dot.square() * sine)
        theta_acc = (gravity * sine - cosine * a) / (length * 4 / 3 - k * cosine.square())
        x_acc = a - k * (theta_acc * cosine)
        state = CartPoleState(
            x=state.x + tau * state.x_dot,
            x_dot=state.x_dot + tau * x_acc,
            theta=state.theta + tau * state.theta_dot,
            theta_dot=state.theta_dot + tau * theta_acc,
        )
        done = (state.x.abs() > x_threshold) | (state.theta.abs() > theta_threshold_radians)
        return state, observe(state), torch.ones_like(state.x), done

    def observe(state: CartPoleState) -> Tensor:
        return torch.stack(tuple(state))

    return Environment(reset, step, observe, horizon)
