"""ADOPT: Adam that divides by the mean square of the past alone, so that it converges for any b2.

    step 1:   nu = g^2, and nothing moves
    later:    n  = clip(g / max(sqrt(nu), eps), -c, c),   c = clip_value_fn(t - 1)
              mu = b1 mu + (1 - b1) n,   u = mu,   or with Nesterov   b1 mu + (1 - b1) n
              nu = b2 nu + (1 - b2) g^2

Source: Taniguchi et al. 2024. Reference: optax.contrib.adopt (0.2.8), whose bound is (t - 1)^(1/4);
that of the authors is t^(1/4): clip_value_fn=lambda count: (count + 1) ** 0.25.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, moments, tree
from funcopt.core.math import entrywise
from funcopt.optimizers.adam import ScaleByAdamState
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["adopt", "scale_by_adopt"]


def fourth_root(count: Tensor) -> Tensor:
    return count**0.25


def scale_by_adopt(
    b1: Scalar = 0.9,
    b2: Scalar = 0.9999,
    eps: Scalar = 1e-6,
    mu_dtype: torch.dtype | None = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Callable[[Tensor], Tensor] = fourth_root,
) -> GradientTransformation[ScaleByAdamState]:
    """A running mean of gradients that are divided by the RMS of those before them.

    Args:
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: share of the past in the mean of its square, in [0, 1).
        eps: floor of the root, > 0.
        mu_dtype: dtype of the stored mean; None: that of the params.
        nesterov: look one step ahead.
        use_clipping: bound the divided gradients.
        clip_value_fn: the bound, from the count of completed steps as a 0-dim float64.

    Returns:
        A transform from gradients to directions of order one, zero at the first step. Holds
        two trees like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> adopt = fo.scale_by_adopt(b1=0.5)
        >>> first, state = adopt.update(torch.tensor([4.0]), adopt.init(torch.zeros(1)))
        >>> first, adopt.update(torch.tensor([2.0]), state)[0]
        (tensor([0.]), tensor([0.2500]))
    """
    check.half_open("scale_by_adopt", "b1", b1, 0, 1)
    check.half_open("scale_by_adopt", "b2", b2, 0, 1)
    check.positive("scale_by_adopt", "eps", eps)
    check.dtype("scale_by_adopt", "mu_dtype", mu_dtype)

    def init(params: TensorTree) -> ScaleByAdamState:
        return ScaleByAdamState(count=moments.zero_count(params), mu=tree.zeros_like(params, mu_dtype), nu=tree.zeros_like(params))

    def update(updates: TensorTree, state: ScaleByAdamState, params: TensorTree | None = None, **extra: Any):
        first = state.count == 0
        steps = state.count.to(tree.scalar_dtype(state.count.device))
        kept, squared = torch.where(first, 1.0, tree.scalar(b1, steps)), torch.where(first, 0.0, tree.scalar(b2, steps))
        (bound, floor) = entrywise.once(updates, tree.scalar(clip_value_fn(steps), steps), eps)

        def divided(g: Tensor, nu: Tensor) -> Tensor:
            root = moments.safe_sqrt(nu)
            n = g / torch.maximum(root, entrywise.scalar_of(floor, root))
            if use_clipping:
                limit = entrywise.scalar_of(bound, n)
                n = torch.minimum(torch.maximum(n, -limit), limit)
            return n.to(g.dtype)

        normal = tree.map(divided, updates, state.nu)
        mu = moments.update_moment(normal, state.mu, kept)
        direction = moments.update_moment(normal, mu, kept) if nesterov else tree.clone(mu)
        nu = moments.update_moment(updates, state.nu, squared, order=2)
        return tree.cast_like(direction, updates), ScaleByAdamState(count=moments.increment(state.count), mu=mu, nu=nu)

    return GradientTransformation(init, update, name="scale_by_adopt", flattenable=True, per_leaf=True, turns=False)


def adopt(
    lr: ScalarOrSchedule | None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.9999,
    eps: Scalar = 1e-6,
    mu_dtype: torch.dtype | None = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Callable[[Tensor], Tensor] = fourth_root,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """ADOPT: `scale_by_adopt`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: size of a step in units of params per unit of direction, >= 0: a number, a 0-dim tensor or a schedule of the
            count of steps; None: the `base_lr` it hears.
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: share of the past in the mean of its square, in [0, 1).
        eps: floor of the root, > 0.
        mu_dtype: dtype of the stored mean; None: that of the params.
        nesterov: look one step ahead.
        use_clipping: bound the divided gradients.
        clip_value_fn: the bound, from the count of completed steps as a 0-dim float64.
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
        >>> tx = fo.adopt(0.1)
        >>> tx.update(torch.tensor([4.0]), tx.init(torch.zeros(1)))[0].abs()
        tensor([0.])
    """
    scaled = scale_by_adopt(b1, b2, eps, mu_dtype, nesterov=nesterov, use_clipping=use_clipping, clip_value_fn=clip_value_fn)
    return chain(scaled, add_decayed_weights(weight_decay, weight_decay_mask), lr_scale(lr))
