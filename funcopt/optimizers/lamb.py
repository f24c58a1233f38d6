"""LAMB: Adam's direction and the decay of the weights, in proportion to the length of each leaf.

    x_t = direction of adam.py + weight_decay * p_t
    u_t = x_t * ||p_t|| / ||x_t||          (per leaf; x_t where either norm is 0)

Source: You et al. 2019. Reference: optax.lamb (0.2.8).
"""

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain
from funcopt.optimizers.adam import scale_by_adam
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.trust_ratio import scale_by_trust_ratio
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["lamb"]


def lamb(
    lr: ScalarOrSchedule | None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-6,
    eps_root: Scalar = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """LAMB: `scale_by_adam`, decay, `scale_by_trust_ratio`, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: the rate, >= 0, as a share of the length of each leaf; a number, a 0-dim tensor or a schedule.
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: share of the past in the mean of its square, in [0, 1).
        eps: added to the root, >= 0.
        eps_root: added under the root, >= 0; > 0 where somebody differentiates through it.
        weight_decay: >= 0; it enters before the ratio is taken.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A transformation from gradients to the updates that `apply_updates` adds, in their shapes and dtypes. Holds two
        trees like `params`.

    After a NaN:
        Its leaf of this and every later step is NaN; guard with `apply_if_finite`.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Example:
        >>> tx = fo.lamb(0.1)
        >>> params = torch.tensor([3.0, 4.0, 0.0, 0.0])
        >>> tx.update(torch.ones(4), tx.init(params), params)[0]
        tensor([-0.2500, -0.2500, -0.2500, -0.2500])
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root), add_decayed_weights(weight_decay, weight_decay_mask), scale_by_trust_ratio(), lr_scale(lr)
    )
