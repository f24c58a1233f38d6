"""Signum: the sign of a running mean of the gradient.

    ema_t = beta * ema_{t-1} + (1 - beta) * g_t
    u_t   = sign(ema_t)

Source: Bernstein et al. 2018. Reference: optax.signum (0.2.8). Lion takes the sign of another mixture.
"""

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain
from funcopt.transforms.ema import ema
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.sign import sign
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["signum"]


def signum(
    lr: ScalarOrSchedule | None, beta: Scalar = 0.9, *, weight_decay: ScalarOrSchedule = 0.0, weight_decay_mask: TensorTree | None = None
) -> GradientTransformation:
    """Signum: the sign of a running mean, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: the rate, >= 0; a number, a 0-dim tensor or a schedule.
        beta: share of the past in the running mean, in [0, 1).
        weight_decay: decoupled, >= 0.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A transformation from gradients to the updates that `apply_updates` adds, in their shapes and dtypes. Holds one
        tree like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`.

    Raises:
        ValueError: a number is out of range; at `update`, weights decay and no params are given.

    Example:
        >>> tx = fo.signum(0.1)
        >>> tx.update(torch.tensor([3.0, -0.5]), tx.init(torch.zeros(2)))[0]
        tensor([-0.1000,  0.1000])
    """
    return chain(ema(beta, debias=False), sign(), add_decayed_weights(weight_decay, weight_decay_mask), lr_scale(lr))
