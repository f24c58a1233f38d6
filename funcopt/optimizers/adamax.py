"""Adamax and AdamaxW: Adam with the largest recent gradient in place of the RMS.

    mu_t = b1 * mu_{t-1} + (1 - b1) * g_t
    nu_t = max(b2 * nu_{t-1}, |g_t| + eps)
    u_t  = mu_t / (1 - b1^t) / nu_t

Source: Kingma and Ba 2015, section 7.1. Reference: optax.adamax, optax.adamaxw (0.2.8); torch.optim.Adamax.
"""

from typing import Any

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, moments, tree
from funcopt.optimizers.adam import ScaleByAdamState
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["adamax", "adamaxw", "scale_by_adamax"]


def scale_by_adamax(b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-8) -> GradientTransformation[ScaleByAdamState]:
    """Divides a running mean of the gradient by the largest recent magnitude of its entries.

    Args:
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: what is left of the largest magnitude after a step, in [0, 1).
        eps: added to the magnitude, > 0.

    Returns:
        A transform from gradients to directions with entries in about [-1, 1], in the
        shapes and dtypes it is given. Holds two trees like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> adamax = fo.scale_by_adamax(b1=0.0, b2=0.5)
        >>> _, state = adamax.update(torch.tensor([4.0]), adamax.init(torch.zeros(1)))
        >>> adamax.update(torch.tensor([1.0]), state)[0]
        tensor([0.5000])
    """
    check.half_open("scale_by_adamax", "b1", b1, 0, 1)
    check.half_open("scale_by_adamax", "b2", b2, 0, 1)
    check.positive("scale_by_adamax", "eps", eps)

    def init(params: TensorTree) -> ScaleByAdamState:
        return ScaleByAdamState(count=moments.zero_count(params), mu=tree.zeros_like(params), nu=tree.zeros_like(tree.real(params)))

    def update(updates: TensorTree, state: ScaleByAdamState, params: TensorTree | None = None, **extra: Any):
        count = moments.increment(state.count)
        mu = moments.update_moment(updates, state.mu, b1)
        (f1,) = moments.bias_factors(count, b1)
        nu = moments.update_infinity_moment(updates, state.nu, b2, eps)
        direction = tree.map(lambda g, mu, nu: (f1 * mu / nu).to(g.dtype), updates, mu, nu)
        return direction, ScaleByAdamState(count=count, mu=mu, nu=nu)

    return GradientTransformation(init, update, name="scale_by_adamax", flattenable=True, leaves="complex", per_leaf=True, turns=False)


def adamax(
    lr: ScalarOrSchedule | None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    *,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """Adamax: `scale_by_adamax`, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    `weight_decay` is decoupled, as in `adamaxw`, and 0 unless given.

    Args:
        lr: size of a step in units of params per unit of direction, >= 0: a number, a 0-dim tensor or a schedule of the
            count of steps; None: the `base_lr` it hears.
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: what is left of the largest magnitude after a step, in [0, 1).
        eps: added to the magnitude, > 0.
        weight_decay: decoupled: each step also takes away `lr * weight_decay` of the params, >= 0; a number, a 0-dim
            tensor or a schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A transformation from gradients to the updates that `apply_updates` adds, in their shapes and dtypes. Holds two
        trees like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`.

    Raises:
        ValueError: a number is out of range; at `update`, weights decay and no params are given.

    Example:
        >>> tx = fo.adamax(0.1)
        >>> tx.update(torch.tensor([3.0, -0.5]), tx.init(torch.zeros(2)))[0]
        tensor([-0.1000,  0.1000])
    """
    return chain(scale_by_adamax(b1, b2, eps), add_decayed_weights(weight_decay, weight_decay_mask), lr_scale(lr))


def adamaxw(
    lr: ScalarOrSchedule | None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 1e-4,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """Adamax with decay of the weights outside of its moments, 1e-4 unless given.

    Args:
        lr: size of a step in units of params per unit of direction, >= 0: a number, a 0-dim tensor or a schedule of the
            count of steps; None: the `base_lr` it hears.
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: what is left of the largest magnitude after a step, in [0, 1).
        eps: added to the magnitude, > 0.
        weight_decay: decoupled: each step also takes away `lr * weight_decay` of the params, >= 0; a number, a 0-dim
            tensor or a schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A transformation from gradients to the updates that `apply_updates` adds, in their shapes and dtypes. Holds two
        trees like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`.

    Raises:
        ValueError: a number is out of range; at `update`, weights decay and no params are given.

    Example:
        >>> tx = fo.adamaxw(0.1, weight_decay=0.5)
        >>> params = torch.tensor([2.0])
        >>> tx.update(torch.tensor([3.0]), tx.init(params), params)[0]
        tensor([-0.2000])
    """
    return chain(scale_by_adamax(b1, b2, eps), add_decayed_weights(weight_decay, weight_decay_mask), lr_scale(lr))
