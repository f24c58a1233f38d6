"""Noisy SGD: gradient descent with normal noise that fades.

    u_t = g_t + sqrt(eta / t^gamma) * z_t,   z_t standard normal

Source: Neelakantan et al. 2015. Reference: optax.noisy_sgd (0.2.8), whose generator is another.
"""

from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.noise import add_noise
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["noisy_sgd"]


def noisy_sgd(
    lr: ScalarOrSchedule | None,
    eta: Scalar = 0.01,
    gamma: Scalar = 0.55,
    key: int | Tensor | None = None,
    *,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """Noisy SGD: `add_noise`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: the rate, >= 0; a number, a 0-dim tensor or a schedule.
        eta: variance of the noise at the first step, before the rate, >= 0.
        gamma: how fast it fades, >= 0.
        key: where the noise comes from: an int, a 0-dim integer tensor or a key; None draws
            one from torch's generator, now.
        weight_decay: decoupled, >= 0.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A transformation from gradients to the updates that `apply_updates` adds, in their shapes and dtypes. Holds a
        count and a key.

    After a NaN:
        That entry of this step is NaN, the next is clean.

    Raises:
        ValueError: a number is out of range; at `update`, weights decay and no params are given.

    Example:
        >>> tx = fo.noisy_sgd(0.1, key=0)
        >>> tx.update(torch.ones(3), tx.init(torch.zeros(3)))[0]
        tensor([-0.1026, -0.0901, -0.0811])
    """
    return chain(add_noise(eta, gamma, key), add_decayed_weights(weight_decay, weight_decay_mask), lr_scale(lr))
