"""RMSprop: divide each gradient entry by the running RMS of its own history.

    nu_t = decay * nu_{t-1} + (1 - decay) * g_t^2,   divided by 1 - decay^t with bias_correction
    mu_t = decay * mu_{t-1} + (1 - decay) * g_t      (centered: nu - mu^2 in place of nu)
    u_t  = g_t / sqrt(nu_t + eps)                    (eps_in_sqrt, the default)
    u_t  = g_t / (sqrt(nu_t) + eps)                  (else)

Momentum, if any, sums the sized steps, after the rate.

Source: Tieleman and Hinton, lecture 6.5 of "Neural Networks for Machine Learning", 2012; centred: Graves 2013.
Reference: optax.rmsprop (0.2.8); with eps_in_sqrt=False and decay=0.99 torch.optim.RMSprop.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, identity, moments, tree
from funcopt.core.math import entrywise
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.trace import trace
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = [
    "ScaleByRStdDevState",
    "ScaleByRStdDevWithCountState",
    "ScaleByRmsState",
    "ScaleByRmsWithCountState",
    "rmsprop",
    "scale_by_rms",
    "scale_by_stddev",
]


class ScaleByRmsState(NamedTuple):
    nu: TensorTree  # running mean of g^2; like params


class ScaleByRmsWithCountState(NamedTuple):
    count: Tensor  # steps taken
    nu: TensorTree  # running mean of g^2; like params


class ScaleByRStdDevState(NamedTuple):
    mu: TensorTree  # running mean of g; like params
    nu: TensorTree  # running mean of g^2; like params


class ScaleByRStdDevWithCountState(NamedTuple):
    count: Tensor  # steps taken
    mu: TensorTree  # running mean of g; like params
    nu: TensorTree  # running mean of g^2; like params


def _divided(g: Tensor, variance: Tensor, eps: Scalar, eps_in_sqrt: bool, scale: Tensor | None = None) -> Tensor:
    """By the root of `scale^2 variance`."""
    return entrywise.over_root(g, variance, *((0.0, eps) if eps_in_sqrt else (eps, 0.0)), scale).to(g.dtype)


def _variance(nu: Tensor, mu: Tensor, f: Scalar = 1.0) -> Tensor:
    """`nu - f mu^2`: infinite where nu is, in place of NaN, and not below 0 by rounding."""
    return (nu - (f * mu.square()).clamp(max=torch.finfo(mu.dtype).max)).clamp(min=0)


def _check(where: str, decay: Scalar, eps: Scalar, initial_scale: Scalar) -> None:
    check.half_open(where, "decay", decay, 0, 1)
    check.positive(where, "eps", eps)
    check.nonnegative(where, "initial_scale", initial_scale)


def scale_by_rms(
    decay: Scalar = 0.9, eps: Scalar = 1e-8, initial_scale: float = 0.0, *, eps_in_sqrt: bool = True, bias_correction: bool = False
) -> GradientTransformation:
    """Divides each gradient entry by its running root mean square.

    Args:
        decay: share of the past in the running mean, in [0, 1). The memory is
            about 1 / (1 - decay) steps.
        eps: added to the mean square (to the RMS if not `eps_in_sqrt`), > 0.
            Where gradients stay far below it the direction fades to zero.
        initial_scale: what the running mean starts from, >= 0.
        eps_in_sqrt: where `eps` stands.
        bias_correction: divide the mean by 1 - decay^t.

    Returns:
        A transform from gradients to dimensionless directions of order one,
        with the shapes and dtypes it was given. Holds one tree like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`. After an infinity or 1e30 that entry stays at 0; clip.

    Raises:
        ValueError: `decay` or `eps` is a number out of range.

    Example:
        >>> params = {"w": torch.zeros(2)}
        >>> rms = fo.scale_by_rms(decay=0.75)
        >>> state = rms.init(params)
        >>> direction, state = rms.update({"w": torch.tensor([3.0, -0.5])}, state)
        >>> direction["w"]
        tensor([ 2.0000, -2.0000])
    """
    _check("scale_by_rms", decay, eps, initial_scale)

    def init(params: TensorTree):
        nu = tree.full_like(params, initial_scale)
        if bias_correction:
            return ScaleByRmsWithCountState(count=torch.zeros((), dtype=torch.int64, device=tree.device(params)), nu=nu)
        return ScaleByRmsState(nu=nu)

    def update(updates: TensorTree, state: Any, params: TensorTree | None = None, **extra: Any):
        nu = moments.update_moment(updates, state.nu, decay, order=2)
        if not bias_correction:
            return tree.map(lambda g, nu: _divided(g, nu, eps, eps_in_sqrt), updates, nu), ScaleByRmsState(nu=nu)
        count = moments.increment(state.count)
        (f,) = moments.bias_factors(count, decay)
        (root,) = entrywise.stacked(f.sqrt())
        direction = tree.map(lambda g, nu: _divided(g, nu, eps, eps_in_sqrt, root), updates, nu)
        return direction, ScaleByRmsWithCountState(count=count, nu=nu)

    return GradientTransformation(init, update, name="scale_by_rms", flattenable=True, per_leaf=True, turns=False)


def scale_by_stddev(
    decay: Scalar = 0.9, eps: Scalar = 1e-8, initial_scale: float = 0.0, *, eps_in_sqrt: bool = True, bias_correction: bool = False
) -> GradientTransformation:
    """Divides each gradient entry by its running standard deviation: centred RMSprop.

    Args:
        decay: share of the past in the running mean, in [0, 1). The memory is about 1 / (1 - decay) steps.
        eps: added to the variance (to the standard deviation if not `eps_in_sqrt`), > 0.
        initial_scale: what the running mean starts from, >= 0.
        eps_in_sqrt: where `eps` stands.
        bias_correction: divide the mean by 1 - decay^t.

    Returns:
        A transformation from gradients to dimensionless directions, in the shapes and dtypes it is given. Holds two trees
        like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 that entry stays at 0; clip.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> centred = fo.scale_by_stddev(decay=0.5, eps=1e-12)
        >>> centred.update(torch.tensor([3.0]), centred.init(torch.zeros(1)))[0]
        tensor([2.])
    """
    _check("scale_by_stddev", decay, eps, initial_scale)

    def init(params: TensorTree):
        mu, nu = tree.zeros_like(params), tree.full_like(params, initial_scale)
        if bias_correction:
            return ScaleByRStdDevWithCountState(count=torch.zeros((), dtype=torch.int64, device=tree.device(params)), mu=mu, nu=nu)
        return ScaleByRStdDevState(mu=mu, nu=nu)

    def update(updates: TensorTree, state: Any, params: TensorTree | None = None, **extra: Any):
        mu = moments.update_moment(updates, state.mu, decay)
        nu = moments.update_moment(updates, state.nu, decay, order=2)
        if not bias_correction:
            direction = tree.map(lambda g, mu, nu: _divided(g, _variance(nu, mu), eps, eps_in_sqrt), updates, mu, nu)
            return direction, ScaleByRStdDevState(mu=mu, nu=nu)
        count = moments.increment(state.count)
        (f,) = moments.bias_factors(count, decay)
        (root,) = entrywise.stacked(f.sqrt())
        direction = tree.map(lambda g, mu, nu: _divided(g, _variance(nu, mu, f), eps, eps_in_sqrt, root), updates, mu, nu)
        return direction, ScaleByRStdDevWithCountState(count=count, mu=mu, nu=nu)

    return GradientTransformation(init, update, name="scale_by_stddev", flattenable=True, per_leaf=True, turns=False)


def rmsprop(
    lr: ScalarOrSchedule | None,
    decay: Scalar = 0.9,
    eps: Scalar = 1e-8,
    initial_scale: float = 0.0,
    *,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: Scalar | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """RMSprop: `scale_by_rms` (`scale_by_stddev` if centered), a step of size `lr` (None: the `base_lr` it hears) downhill, then momentum.

    Args:
        lr: size of a step in units of params per unit of direction, >= 0: a number, a 0-dim tensor or a schedule of the
            count of steps; None: the `base_lr` it hears.
        decay: share of the past in the running mean, in [0, 1). The memory is about 1 / (1 - decay) steps.
        eps: added to the mean square (to the RMS if not `eps_in_sqrt`), > 0. Where gradients stay far below it the
            direction fades to zero.
        initial_scale: what the running mean starts from, >= 0.
        eps_in_sqrt: where `eps` stands.
        centered: divide by the running standard deviation (`scale_by_stddev`) instead of the root mean square.
        momentum: share of the last step in the next, in [0, 1); None: none.
        nesterov: look one step ahead; only with `momentum`.
        bias_correction: divide the mean by 1 - decay^t.
        weight_decay: this share of the params is added to the direction, before rate and momentum, >= 0; a number, a
            0-dim tensor or a schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A transformation from gradients to the updates that `apply_updates` adds, in their shapes and dtypes. Holds one
        tree like `params`, one more if centered and one more with momentum.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 that entry stays at 0; clip.

    Raises:
        ValueError: a number is out of range; at `update`, weights decay and no params are given.

    Example:
        >>> tx = fo.rmsprop(0.1, decay=0.75)
        >>> tx.update(torch.tensor([3.0, -0.5]), tx.init(torch.zeros(2)))[0]
        tensor([-0.2000,  0.2000])
    """
    scaled = scale_by_stddev if centered else scale_by_rms
    return chain(
        scaled(decay, eps, initial_scale, eps_in_sqrt=eps_in_sqrt, bias_correction=bias_correction),
        add_decayed_weights(weight_decay, weight_decay_mask),
        lr_scale(lr),
        identity() if momentum is None else trace(momentum, nesterov),
    )
