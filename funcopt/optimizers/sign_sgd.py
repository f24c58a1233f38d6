"""Sign SGD: a step of one size in every entry, in the direction of the gradient's sign.

    u_t = sign(g_t)

Source: Bernstein et al. 2018. Reference: optax.sign_sgd (0.2.8).
"""

from funcopt.core import GradientTransformation, ScalarOrSchedule, TensorTree, chain
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.sign import sign
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["sign_sgd"]


def sign_sgd(lr: ScalarOrSchedule | None, *, weight_decay: ScalarOrSchedule = 0.0, weight_decay_mask: TensorTree | None = None) -> GradientTransformation:
    """Sign SGD: `sign`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Its entries are all of size `lr`, so that it ends in a box of that width around a minimum unless the rate falls.

    Example:
        >>> tx = fo.sign_sgd(0.1)
        >>> tx.update(torch.tensor([3.0, -0.5, 0.0]), tx.init(torch.zeros(3)))[0]
        tensor([-0.1000,  0.1000, -0.0000])
    """
    return chain(sign(), add_decayed_weights(weight_decay, weight_decay_mask), lr_scale(lr))
