"""DP-SGD: stochastic gradient descent whose steps tell little about any one example.

    u_t = -lr * trace(noisy mean of the gradients of single examples)

Source: Abadi et al., "Deep Learning with Differential Privacy", 2016. Reference:
optax.contrib.dpsgd (0.2.8).
"""

from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, chain
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.privacy import differentially_private_aggregate
from funcopt.transforms.trace import trace

__all__ = ["dpsgd"]


def dpsgd(
    lr: ScalarOrSchedule | None,
    l2_norm_clip: Scalar,
    noise_multiplier: Scalar,
    seed: int | Tensor | None = None,
    momentum: Scalar | None = None,
    nesterov: bool = False,
) -> GradientTransformation:
    """`differentially_private_aggregate`, `trace` if there is momentum, and a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr, momentum, nesterov: as in `sgd`.
        l2_norm_clip, noise_multiplier: as in `differentially_private_aggregate`.
        seed: of the noise; an int, a 0-dim tensor or a key; None draws one now.

    Returns:
        An optimizer of gradients with a leading batch axis.

    Raises:
        ValueError: a number is out of range; at `update`, the leaves share no batch axis.

    Example:
        >>> tx = fo.dpsgd(0.5, l2_norm_clip=1.0, noise_multiplier=0.0)
        >>> tx.update(torch.tensor([[3.0, 4.0], [0.0, 0.5]]), tx.init(torch.zeros(2)))[0]
        tensor([-0.1500, -0.3250])
    """
    aggregate = differentially_private_aggregate(l2_norm_clip, noise_multiplier, seed)
    if momentum is None:
        return chain(aggregate, lr_scale(lr))
    return chain(aggregate, trace(momentum, nesterov), lr_scale(lr))
