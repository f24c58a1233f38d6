"""AdamW: Adam with decay of the weights outside of its moments.

    p_t = p_{t-1} - lr * (u_t + weight_decay * p_{t-1}),   u_t the direction of adam.py

Source: Loshchilov and Hutter 2019, in torch's convention (the rate multiplies the decay).
Reference: optax.adamw (0.2.8, decay 1e-4); with weight_decay=0.01 torch.optim.AdamW.
"""

import torch

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain
from funcopt.optimizers.adam import scale_by_adam
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["adamw"]


def adamw(
    lr: ScalarOrSchedule | None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: torch.dtype | None = None,
    weight_decay: ScalarOrSchedule = 1e-4,
    weight_decay_mask: TensorTree | None = None,
    *,
    nesterov: bool = False,
) -> GradientTransformation:
    """AdamW: `scale_by_adam`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: size of a step in units of params per unit of direction, >= 0: a number, a 0-dim tensor or a schedule of the
            count of steps; None: the `base_lr` it hears.
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: share of the past in the mean of its square, in [0, 1).
        eps: added to the root, >= 0.
        eps_root: added under the root, >= 0; > 0 where somebody differentiates through it.
        mu_dtype: dtype of the stored mean; None: that of the params.
        weight_decay: >= 0, per unit of `lr`; optax's default, torch has 0.01.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.
        nesterov: look one step ahead.

    Returns:
        A transformation from gradients to the updates that `apply_updates` adds, in their shapes and dtypes. Holds two
        trees like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 that entry stays at 0; clip.

    Raises:
        ValueError: a number is out of range; at `update`, weights decay and no params are given.

    Example:
        >>> tx = fo.adamw(0.1, weight_decay=0.5)
        >>> params = torch.tensor([2.0])
        >>> tx.update(torch.tensor([3.0]), tx.init(params), params)[0]
        tensor([-0.2000])
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov),
        add_decayed_weights(weight_decay, weight_decay_mask),
        lr_scale(lr),
    )
