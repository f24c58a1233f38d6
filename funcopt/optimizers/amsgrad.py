"""AMSGrad: Adam whose denominator never shrinks.

    mu_t, nu_t as in adam.py,   m = mu_t / (1 - b1^t),   v = nu_t / (1 - b2^t)
    nu_max_t = max(nu_max_{t-1}, v)
    u_t = m / (sqrt(nu_max_t + eps_root) + eps)
    correct_before_max=False:   nu_max_t = max(nu_max_{t-1}, nu_t),   u_t = m / (sqrt(nu_max_t / (1 - b2^t) + eps_root) + eps)

Source: Reddi, Kale and Kumar 2018. Reference: optax.amsgrad (0.2.8), which takes the largest of the
corrected means; with correct_before_max=False torch.optim.Adam(amsgrad=True).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, moments, tree
from funcopt.core.math import entrywise
from funcopt.optimizers.adam import corrected
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["ScaleByAmsgradState", "amsgrad", "scale_by_amsgrad"]


class ScaleByAmsgradState(NamedTuple):
    count: Tensor  # steps taken
    mu: TensorTree  # running mean of g; like params
    nu: TensorTree  # running mean of g^2; like params
    nu_max: TensorTree  # the largest mean of g^2 so far; like params


def scale_by_amsgrad(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: torch.dtype | None = None,
    *,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    correct_before_max: bool = True,
) -> GradientTransformation[ScaleByAmsgradState]:
    """Divides a running mean of the gradient by the largest root mean square it has had.

    Args:
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: share of the past in the mean of its square, in [0, 1).
        eps: added to the root, >= 0.
        eps_root: added under the root, >= 0.
        mu_dtype: dtype of the stored mean; None: that of the params.
        bias_correction_mu: divide the mean of the gradient by 1 - b1^t.
        bias_correction_nu: divide the mean of the square by 1 - b2^t.
        correct_before_max: take the largest of the corrected means; else (torch) correct the largest.
            Early corrected means weigh few gradients, so one large early gradient stays longer; of one above
            1.8e19 in float32 at the first step the corrected mean is no float32, and that entry stays at 0.

    Returns:
        A transform from gradients to directions of order one, in the shapes and dtypes
        it is given. Holds three trees like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 that entry stays at 0; clip.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> amsgrad = fo.scale_by_amsgrad(b1=0.0, b2=0.0)
        >>> _, state = amsgrad.update(torch.tensor([4.0]), amsgrad.init(torch.zeros(1)))
        >>> amsgrad.update(torch.tensor([1.0]), state)[0]
        tensor([0.2500])
    """
    check.half_open("scale_by_amsgrad", "b1", b1, 0, 1)
    check.half_open("scale_by_amsgrad", "b2", b2, 0, 1)
    check.nonnegative("scale_by_amsgrad", "eps", eps)
    check.nonnegative("scale_by_amsgrad", "eps_root", eps_root)
    check.dtype("scale_by_amsgrad", "mu_dtype", mu_dtype)

    def init(params: TensorTree) -> ScaleByAmsgradState:
        zeros = tree.real(params)
        return ScaleByAmsgradState(
            count=moments.zero_count(params), mu=tree.zeros_like(params, mu_dtype), nu=tree.zeros_like(zeros), nu_max=tree.zeros_like(zeros)
        )

    def update(updates: TensorTree, state: ScaleByAmsgradState, params: TensorTree | None = None, **extra: Any):
        count = moments.increment(state.count)
        mu = moments.update_moment(updates, state.mu, b1)
        nu = moments.update_moment(updates, state.nu, b2, order=2)
        mean, f2 = corrected(count, b1, b2)
        (root,) = entrywise.stacked(f2.sqrt())
        before, after = (f2, None) if correct_before_max else (1, root)
        if not bias_correction_nu:
            before, after = 1, None
        nu_max = tree.map(lambda nu, largest: torch.maximum(largest, (nu * before).to(largest.dtype)), nu, state.nu_max)

        def divided(g: Tensor, mu: Tensor, largest: Tensor) -> Tensor:
            return entrywise.over_root(mean(g, mu) if bias_correction_mu else mu, largest, eps, eps_root, after).to(g.dtype)

        return tree.map(divided, updates, mu, nu_max), ScaleByAmsgradState(count=count, mu=mu, nu=nu, nu_max=nu_max)

    return GradientTransformation(init, update, name="scale_by_amsgrad", flattenable=True, leaves="complex", per_leaf=True, turns=False)


def amsgrad(
    lr: ScalarOrSchedule | None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: torch.dtype | None = None,
    *,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    correct_before_max: bool = True,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """AMSGrad: `scale_by_amsgrad`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: size of a step in units of params per unit of direction, >= 0: a number, a 0-dim tensor or a schedule of the
            count of steps; None: the `base_lr` it hears.
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: share of the past in the mean of its square, in [0, 1).
        eps: added to the root, >= 0.
        eps_root: added under the root, >= 0.
        mu_dtype: dtype of the stored mean; None: that of the params.
        bias_correction_mu: divide the mean of the gradient by 1 - b1^t.
        bias_correction_nu: divide the mean of the square by 1 - b2^t.
        correct_before_max: take the largest of the corrected means; else (torch) correct the largest. Early corrected
            means weigh few gradients, so one large early gradient stays longer.
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
        >>> tx = fo.amsgrad(0.1)
        >>> tx.update(torch.tensor([3.0, -0.5]), tx.init(torch.zeros(2)))[0]
        tensor([-0.1000,  0.1000])
    """
    scaled = scale_by_amsgrad(
        b1,
        b2,
        eps,
        eps_root,
        mu_dtype,
        bias_correction_mu=bias_correction_mu,
        bias_correction_nu=bias_correction_nu,
        correct_before_max=correct_before_max,
    )
    return chain(scaled, add_decayed_weights(weight_decay, weight_decay_mask), lr_scale(lr))
