"""Lion: the sign of an interpolation between the gradient and its running mean.

    x_t  = (1 - b1) * g_t + b1 * mu_{t-1}
    u_t  = sign(x_t)
    mu_t = (1 - b2) * g_t + b2 * mu_{t-1}

`mode="smooth"` takes tanh(smooth_beta * x) for the sign, `mode="refined"` x where |x| < 1.

Source: Chen et al. 2023. Reference: optax.lion (0.2.8); a NaN stays NaN, which torch.sign would hide.
"""

from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, moments, tree
from funcopt.core.math import entrywise
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["ScaleByLionState", "lion", "scale_by_lion"]

Mode = Literal["hard", "smooth", "refined"]


class ScaleByLionState(NamedTuple):
    count: Tensor  # steps taken
    mu: TensorTree  # running mean of g; like params


def scale_by_lion(
    b1: Scalar = 0.9, b2: Scalar = 0.99, mu_dtype: torch.dtype | None = None, *, mode: Mode = "hard", smooth_beta: Scalar = 1.0
) -> GradientTransformation[ScaleByLionState]:
    """Takes the sign of a mixture of the gradient and its running mean.

    Args:
        b1: share of the mean in the mixture, in [0, 1).
        b2: share of the past in the mean, in [0, 1).
        mu_dtype: dtype of the stored mean; None: that of the params.
        mode: "hard" for the sign, "smooth" for tanh(smooth_beta * x), "refined" for x where |x| < 1.
        smooth_beta: steepness of "smooth", > 0.

    Returns:
        A transform from gradients to directions with entries in [-1, 1]. Holds one tree like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`.

    Raises:
        ValueError: a number is out of range, or `mode` is unknown.

    Example:
        >>> lion = fo.scale_by_lion()
        >>> lion.update(torch.tensor([3.0, -0.5, 0.0]), lion.init(torch.zeros(3)))[0]
        tensor([ 1., -1.,  0.])
    """
    check.half_open("scale_by_lion", "b1", b1, 0, 1)
    check.half_open("scale_by_lion", "b2", b2, 0, 1)
    check.choice("scale_by_lion", "mode", mode, get_args(Mode))
    check.positive("scale_by_lion", "smooth_beta", smooth_beta)
    check.dtype("scale_by_lion", "mu_dtype", mu_dtype)

    def turn(x: Tensor) -> Tensor:
        if mode == "smooth":
            return torch.tanh(smooth_beta * x)
        sign = moments.sign(x)
        return sign if mode == "hard" else torch.where(x.abs() < 1, x, sign)

    def init(params: TensorTree) -> ScaleByLionState:
        count = torch.zeros((), dtype=torch.int64, device=tree.device(params))
        return ScaleByLionState(count=count, mu=tree.zeros_like(params, mu_dtype))

    def update(updates: TensorTree, state: ScaleByLionState, params: TensorTree | None = None, **extra: Any):
        direction = tree.map(lambda g, mu: turn((1 - b1) * entrywise.at_least(g, mu) + b1 * mu).to(g.dtype), updates, state.mu)
        mu = moments.update_moment(updates, state.mu, b2)
        return direction, ScaleByLionState(count=moments.increment(state.count), mu=mu)

    signs = mode == "hard"
    return GradientTransformation(init, update, name="scale_by_lion", flattenable=True, per_leaf=True, turns=False, one_length=signs)


def lion(
    lr: ScalarOrSchedule | None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.99,
    mu_dtype: torch.dtype | None = None,
    weight_decay: ScalarOrSchedule = 1e-3,
    weight_decay_mask: TensorTree | None = None,
    *,
    mode: Mode = "hard",
    smooth_beta: Scalar = 1.0,
) -> GradientTransformation:
    """Lion: `scale_by_lion`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Its entries are all of size `lr`: use a tenth to a third of Adam's rate.

    Args:
        lr: size of a step in units of params per unit of direction, >= 0: a number, a 0-dim tensor or a schedule of the
            count of steps; None: the `base_lr` it hears.
        b1: share of the mean in the mixture, in [0, 1).
        b2: share of the past in the mean, in [0, 1).
        mu_dtype: dtype of the stored mean; None: that of the params.
        weight_decay: decoupled: each step also takes away `lr * weight_decay` of the params, >= 0; a number, a 0-dim
            tensor or a schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.
        mode: "hard" for the sign, "smooth" for tanh(smooth_beta * x), "refined" for x where |x| < 1.
        smooth_beta: steepness of "smooth", > 0.

    Returns:
        A transformation from gradients to the updates that `apply_updates` adds, in their shapes and dtypes. Holds one
        tree like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`.

    Raises:
        ValueError: a number is out of range, or `mode` is unknown; at `update`, weights decay and no params are given.

    Example:
        >>> tx = fo.lion(0.1, weight_decay=0.0)
        >>> tx.update(torch.tensor([3.0, -0.5]), tx.init(torch.zeros(2)))[0]
        tensor([-0.1000,  0.1000])
    """
    return chain(
        scale_by_lion(b1, b2, mu_dtype, mode=mode, smooth_beta=smooth_beta),
        add_decayed_weights(weight_decay, weight_decay_mask),
        lr_scale(lr),
    )
