"""Sign SGD: a step of one size in every entry, in the direction of the gradient's sign.

    u_t = sign(g_t)

Source: Bernstein et al. 2018. Reference: optax.sign_sgd (0.2.8).
"""

from funcopt.core import GradientTransformation, ScalarOrSchedule, TensorTree, chain
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.sign import sign
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["sign_sgd"]


def sign_sgd(
    lr: ScalarOrSchedule | None, *, weight_decay: ScalarOrSchedule = 0.0, weight_decay_mask: TensorTree | None = None
) -> GradientTransformation:
    """Sign SGD: `sign`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Its entries are all of size `lr`, so that it ends in a box of that width around a minimum unless the rate falls.

    Args:
        lr: size of a step in units of params per unit of direction, >= 0: a number, a 0-dim tensor or a schedule of the
            count of steps; None: the `base_lr` it hears.
        weight_decay: decoupled: each step also takes away `lr * weight_decay` of the params, >= 0; a number, a 0-dim
            tensor or a schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A transformation from gradients to the updates that `apply_updates` adds, in their shapes and dtypes. Holds no
        tree.

    After a NaN:
        That entry of this step is NaN, the next is clean.

    Raises:
        ValueError: a number is out of range; at `update`, weights decay and no params are given.

    Example:
        >>> tx = fo.sign_sgd(0.1)
        >>> tx.update(torch.tensor([3.0, -0.5, 0.0]), tx.init(torch.zeros(3)))[0]
        tensor([-0.1000,  0.1000, -0.0000])
    """
    return chain(sign(), add_decayed_weights(weight_decay, weight_decay_mask), lr_scale(lr))
