"""LARS: SGD with momentum in which each leaf moves in proportion to its length.

    x_t = g_t + weight_decay * p_t
    y_t = trust_coefficient * ||p_t|| / (||x_t|| + eps) * x_t     (per leaf; x_t where either norm is 0)
    u_t = lr * y_t, then momentum over the sized steps

Source: You, Gitman and Ginsburg 2017. Reference: optax.lars (0.2.8).
"""

from collections.abc import Callable
from typing import Any

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.mask import masked
from funcopt.transforms.trace import trace
from funcopt.transforms.trust_ratio import scale_by_trust_ratio
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["lars"]


def lars(
    lr: ScalarOrSchedule | None,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | Callable[..., Any] | bool | None = True,
    trust_coefficient: Scalar = 0.001,
    eps: Scalar = 0.0,
    trust_ratio_mask: TensorTree | Callable[..., Any] | bool | None = True,
    momentum: Scalar = 0.9,
    nesterov: bool = False,
) -> GradientTransformation:
    """LARS: decay, `scale_by_trust_ratio`, a step of size `lr` (None: the `base_lr` it hears) downhill, then momentum.

    Args:
        lr: the rate, >= 0; a number, a 0-dim tensor or a schedule.
        weight_decay: >= 0; it enters before the ratio is taken.
        weight_decay_mask: which leaves decay, as `masked` takes it; True or None: all.
        trust_coefficient: length of a step as a share of the leaf's, at lr 1; > 0.
        eps: added to the norm of the update, >= 0.
        trust_ratio_mask: which leaves are scaled; the others are left to SGD.
        momentum: in [0, 1).
        nesterov: look one step ahead.

    Returns:
        A transformation from gradients to the updates that `apply_updates` adds, in their shapes and dtypes. Holds one
        tree like `params`.

    After a NaN:
        Its leaf of this and every later step is NaN; guard with `apply_if_finite`.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Example:
        >>> tx = fo.lars(1.0)
        >>> params = torch.tensor([3.0, 4.0])
        >>> tx.update(torch.tensor([0.0, 2.0]), tx.init(params), params)[0]
        tensor([ 0.0000, -0.0050])
    """
    ratio = scale_by_trust_ratio(trust_coefficient=trust_coefficient, eps=eps)
    return chain(
        add_decayed_weights(weight_decay, None if weight_decay_mask is True else weight_decay_mask),
        ratio if trust_ratio_mask is True or trust_ratio_mask is None else masked(ratio, trust_ratio_mask),
        lr_scale(lr),
        trace(momentum, nesterov),
    )
