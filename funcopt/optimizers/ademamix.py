"""AdEMAMix: Adam with a second, much longer memory; and a form of it with one.

    m1 = b1 m1 + (1 - b1) g,   m2 = b3 m2 + (1 - b3) g,   nu = b2 nu + (1 - b2) g^2
    u  = (m1 / (1 - b1^t) + alpha m2) / (sqrt(nu / (1 - b2^t) + eps_root) + eps)

    simplified:   m = b1 m + g,   u = (m + alpha g) / (sqrt(n / (1 - b2^t) + eps_root) + eps)

m2 is not corrected: it fills slowly, and is not trusted before.

Source: Pagliardini, Ablin and Grangier 2024; Morwani et al. 2025. Reference: optax.contrib (0.2.8), where the
transform has alpha 6 and the optimizer 5.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, moments, tree
from funcopt.core.math import entrywise
from funcopt.optimizers.adam import corrected
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = [
    "ScaleByAdemamixState",
    "ScaleBySimplifiedAdEMAMixState",
    "ademamix",
    "scale_by_ademamix",
    "scale_by_simplified_ademamix",
    "simplified_ademamix",
]


class ScaleByAdemamixState(NamedTuple):
    count: Tensor  # steps taken
    count_m2: Tensor  # steps taken, by which b3 and alpha are scheduled
    m1: TensorTree  # fast mean of g; like params
    m2: TensorTree  # slow mean of g; like params
    nu: TensorTree  # running mean of g^2; like params


class ScaleBySimplifiedAdEMAMixState(NamedTuple):
    t: Tensor  # steps taken
    m: TensorTree  # decayed sum of g; like params
    n: TensorTree  # running mean of g^2; like params


def _now(where: str, name: str, value: ScalarOrSchedule, count: Tensor) -> Scalar:
    return tree.scalar(check.value_at(where, name, value, count), count) if callable(value) else value


def scale_by_ademamix(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    b3: ScalarOrSchedule = 0.9999,
    alpha: ScalarOrSchedule = 6.0,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: torch.dtype | None = None,
) -> GradientTransformation[ScaleByAdemamixState]:
    """Divides a fast and a slow running mean of the gradient by its running root mean square.

    Args:
        b1: share of the past in the fast mean, in [0, 1).
        b2: share of the past in the mean of the square, in [0, 1).
        b3: share of the past in the slow mean, in [0, 1), or a schedule of it.
        alpha: weight of the slow mean, >= 0, or a schedule of it.
        eps: added to the root, >= 0.
        eps_root: added under the root, >= 0.
        mu_dtype: dtype of both means of the gradient; None: that of the params.

    Returns:
        A transform from gradients to directions of order one, and of order 1 + alpha where
        the gradient is steady. Holds three trees like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 that entry stays at 0; clip.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> ademamix = fo.scale_by_ademamix(b3=0.5, alpha=2.0)
        >>> ademamix.update(torch.tensor([3.0, -0.5]), ademamix.init(torch.zeros(2)))[0]
        tensor([ 2.0000, -2.0000])
    """
    where = "scale_by_ademamix"
    check.half_open(where, "b1", b1, 0, 1)
    check.half_open(where, "b2", b2, 0, 1)
    check.schedule_or(check.half_open, where, "b3", b3, 0, 1)
    check.schedule_or(check.nonnegative, where, "alpha", alpha)
    check.nonnegative(where, "eps", eps)
    check.nonnegative(where, "eps_root", eps_root)
    check.dtype(where, "mu_dtype", mu_dtype)

    def init(params: TensorTree) -> ScaleByAdemamixState:
        return ScaleByAdemamixState(
            count=moments.zero_count(params),
            count_m2=moments.zero_count(params),
            m1=tree.zeros_like(params, mu_dtype),
            m2=tree.zeros_like(params, mu_dtype),
            nu=tree.zeros_like(tree.real(params)),
        )

    def update(updates: TensorTree, state: ScaleByAdemamixState, params: TensorTree | None = None, **extra: Any):
        count = moments.increment(state.count)
        (weight,) = entrywise.once(updates, _now(where, "alpha", alpha, state.count_m2))
        m1 = moments.update_moment(updates, state.m1, b1)
        m2 = moments.update_moment(updates, state.m2, _now(where, "b3", b3, state.count_m2))
        nu = moments.update_moment(updates, state.nu, b2, order=2)
        mean, f2 = corrected(count, b1, b2)
        (root,) = entrywise.stacked(f2.sqrt())

        def turn(g: Tensor, m1: Tensor, m2: Tensor, nu: Tensor) -> Tensor:
            return entrywise.over_root(mean(g, m1) + weight * m2, nu, eps, eps_root, root).to(g.dtype)

        direction = tree.map(turn, updates, m1, m2, nu)
        return direction, ScaleByAdemamixState(count=count, count_m2=moments.increment(state.count_m2), m1=m1, m2=m2, nu=nu)

    return GradientTransformation(init, update, name=where, flattenable=True, leaves="complex", per_leaf=True, turns=False)


def ademamix(
    lr: ScalarOrSchedule | None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    b3: ScalarOrSchedule = 0.9999,
    alpha: ScalarOrSchedule = 5.0,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: torch.dtype | None = None,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """AdEMAMix: `scale_by_ademamix`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    For long runs; schedule `b3` and `alpha` up from `b1` and 0 over the whole of it.

    Args:
        lr: size of a step in units of params per unit of direction, >= 0: a number, a 0-dim tensor or a schedule of the
            count of steps; None: the `base_lr` it hears.
        b1: share of the past in the fast mean, in [0, 1).
        b2: share of the past in the mean of the square, in [0, 1).
        b3: share of the past in the slow mean, in [0, 1), or a schedule of it.
        alpha: weight of the slow mean, >= 0, or a schedule of it.
        eps: added to the root, >= 0.
        eps_root: added under the root, >= 0.
        mu_dtype: dtype of both means of the gradient; None: that of the params.
        weight_decay: decoupled: each step also takes away `lr * weight_decay` of the params, >= 0; a number, a 0-dim
            tensor or a schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A transformation from gradients to the updates that `apply_updates` adds, in their shapes and dtypes. Holds three
        trees like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 that entry stays at 0; clip.

    Raises:
        ValueError: a number is out of range; at `update`, weights decay and no params are given.

    Example:
        >>> tx = fo.ademamix(0.1, b3=0.5, alpha=2.0)
        >>> tx.update(torch.tensor([3.0, -0.5]), tx.init(torch.zeros(2)))[0]
        tensor([-0.2000,  0.2000])
    """
    return chain(
        scale_by_ademamix(b1, b2, b3, alpha, eps, eps_root, mu_dtype), add_decayed_weights(weight_decay, weight_decay_mask), lr_scale(lr)
    )


def scale_by_simplified_ademamix(
    b1: Scalar = 0.99, b2: Scalar = 0.95, alpha: ScalarOrSchedule = 0.0, eps: Scalar = 1e-8, eps_root: Scalar = 0.0
) -> GradientTransformation[ScaleBySimplifiedAdEMAMixState]:
    """Divides a decayed sum of gradients, and some of the last of them, by the running root mean square.

    Args:
        b1: what is left of the sum after a step, in [0, 1).
        b2: share of the past in the mean of the square, in [0, 1).
        alpha: additional weight of the last gradient, >= 0, or a schedule of it.
        eps: added to the root, >= 0.
        eps_root: added under the root, >= 0.

    Returns:
        A transform from gradients to directions of order 1 / (1 - b1) + alpha: rates are
        smaller than Adam's by as much. Holds two trees like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 that entry stays at 0; clip.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> simplified = fo.scale_by_simplified_ademamix(alpha=2.0)
        >>> simplified.update(torch.tensor([3.0, -0.5]), simplified.init(torch.zeros(2)))[0]
        tensor([ 3.0000, -3.0000])
    """
    where = "scale_by_simplified_ademamix"
    check.half_open(where, "b1", b1, 0, 1)
    check.half_open(where, "b2", b2, 0, 1)
    check.schedule_or(check.nonnegative, where, "alpha", alpha)
    check.nonnegative(where, "eps", eps)
    check.nonnegative(where, "eps_root", eps_root)

    def init(params: TensorTree) -> ScaleBySimplifiedAdEMAMixState:
        return ScaleBySimplifiedAdEMAMixState(t=moments.zero_count(params), m=tree.zeros_like(params), n=tree.zeros_like(params))

    def update(updates: TensorTree, state: ScaleBySimplifiedAdEMAMixState, params: TensorTree | None = None, **extra: Any):
        t = moments.increment(state.t)
        (weight,) = entrywise.once(updates, _now(where, "alpha", alpha, state.t))
        (root,) = entrywise.stacked(moments.bias_factors(t, b2)[0].sqrt())
        m = tree.map(lambda g, m: (b1 * m + g).to(m.dtype), updates, state.m)
        n = moments.update_moment(updates, state.n, b2, order=2)
        direction = tree.map(lambda g, m, n: entrywise.over_root(m + weight * g, n, eps, eps_root, root).to(g.dtype), updates, m, n)
        return direction, ScaleBySimplifiedAdEMAMixState(t=t, m=m, n=n)

    return GradientTransformation(init, update, name=where, flattenable=True, per_leaf=True, turns=False)


def simplified_ademamix(
    lr: ScalarOrSchedule | None,
    b1: Scalar = 0.99,
    b2: Scalar = 0.95,
    alpha: ScalarOrSchedule = 0.0,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """Simplified AdEMAMix: its direction, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: size of a step in units of params per unit of direction, >= 0: a number, a 0-dim tensor or a schedule of the
            count of steps; None: the `base_lr` it hears.
        b1: what is left of the sum after a step, in [0, 1).
        b2: share of the past in the mean of the square, in [0, 1).
        alpha: additional weight of the last gradient, >= 0, or a schedule of it.
        eps: added to the root, >= 0.
        eps_root: added under the root, >= 0.
        weight_decay: decoupled: each step also takes away `lr * weight_decay` of the params, >= 0; a number, a 0-dim
            tensor or a schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A transformation from gradients to the updates that `apply_updates` adds, in their shapes and dtypes. Holds two
        trees like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 that entry stays at 0; clip.

    Raises:
        ValueError: a number is out of range; at `update`, weights decay and no params are given.

    Example:
        >>> tx = fo.simplified_ademamix(0.1)
        >>> tx.update(torch.tensor([3.0, -0.5]), tx.init(torch.zeros(2)))[0]
        tensor([-0.1000,  0.1000])
    """
    return chain(
        scale_by_simplified_ademamix(b1, b2, alpha, eps, eps_root), add_decayed_weights(weight_decay, weight_decay_mask), lr_scale(lr)
    )
