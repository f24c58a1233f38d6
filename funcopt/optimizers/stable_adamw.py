"""StableAdamW: AdamW whose rate falls, leaf by leaf, where gradients are larger than their running RMS knows.

    m^, v^ as in adam.py
    RMS_t = sqrt(mean of g_t^2 / max(v^, eps^2))                               for every leaf
    u_t   = (m^ / (sqrt(v^) + eps) + weight_decay * p) / max(1, RMS_t)

Adafactor's clipping in place of a bound on the norm of the gradient: spikes of the loss follow from steps in which v^
lags behind g^2.

Source: Wortsman et al., "Stable and low-precision training for large-scale vision-language models", 2023. Reference:
pytorch_optimizer.StableAdamW (4.1), whose debiased shares of the past are the bias correction in another form.
"""

from typing import Any, NamedTuple

from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, moments, numerics, tree
from funcopt.core.math import entrywise
from funcopt.core.math.lengths import safe_sqrt
from funcopt.optimizers.adam import corrected_ratio
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["ScaleByStableAdamState", "scale_by_stable_adam", "stable_adamw"]


class ScaleByStableAdamState(NamedTuple):
    count: Tensor  # steps taken
    mu: TensorTree  # running mean of g; like params
    nu: TensorTree  # running mean of g^2; like params
    decay: Any  # of the decay of the weights


def scale_by_stable_adam(
    b1: Scalar = 0.9,
    b2: Scalar = 0.99,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation[ScaleByStableAdamState]:
    """Adam's direction and the decay of the weights, both made smaller where the gradient outgrows its running RMS.

    Args:
        b1: share of the past in the mean, in [0, 1).
        b2: share of the past in the mean square, in [0, 1).
        eps: added to the root, > 0.
        weight_decay, weight_decay_mask: decoupled; of a leaf whose step is clipped it is clipped too.

    Returns:
        A transform from gradients to directions of order one, in the shapes and dtypes it is given. Holds two trees
        like `params`.

    After a NaN:
        Its leaf of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 that entry stays at 0; clip.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> stable = fo.scale_by_stable_adam(b1=0.0, b2=0.5)
        >>> _, state = stable.update(torch.tensor([1.0]), stable.init(torch.zeros(1)))
        >>> stable.update(torch.tensor([5.0]), state)[0]  # v^ = (1 / 4 + 25 / 2) / (3 / 4) = 17; Adam: 5 / sqrt(17), the RMS too
        tensor([1.])
    """
    where = "scale_by_stable_adam"
    check.half_open(where, "b1", b1, 0, 1)
    check.half_open(where, "b2", b2, 0, 1)
    check.positive(where, "eps", eps)
    decay = add_decayed_weights(weight_decay, weight_decay_mask)

    def init(params: TensorTree) -> ScaleByStableAdamState:
        return ScaleByStableAdamState(
            count=moments.zero_count(params), mu=tree.zeros_like(params), nu=tree.zeros_like(params), decay=decay.init(params)
        )

    def update(updates: TensorTree, state: ScaleByStableAdamState, params: TensorTree | None = None, **extra: Any):
        count = moments.increment(state.count)
        mu = moments.update_moment(updates, state.mu, b1)
        nu = moments.update_moment(updates, state.nu, b2, order=2)
        adam = corrected_ratio(updates, count, b1, b2, eps)
        (f2,) = moments.bias_factors(count, b2)
        (root,) = entrywise.stacked(f2.sqrt())

        def rms(g: Tensor, nu: Tensor) -> Tensor:
            ratio = entrywise.at_least(g, nu) / (root * safe_sqrt(nu)).clamp(min=eps)
            return numerics.safe_root_mean_squares(ratio)

        direction, decayed = decay.update(tree.map(adam, updates, mu, nu), state.decay, params)
        u = tree.map(lambda x, g, nu: (x / rms(g, nu).clamp(min=1)).to(x.dtype), direction, updates, nu)
        return u, ScaleByStableAdamState(count=count, mu=mu, nu=nu, decay=decayed)

    return GradientTransformation(init, update, name=where, per_leaf=decay.per_leaf, turns=False)


def stable_adamw(
    lr: ScalarOrSchedule | None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.99,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.01,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """StableAdamW: `scale_by_stable_adam`, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: the rate, >= 0: a number, a 0-dim tensor or a schedule.
        b1, b2, eps, weight_decay: as in `scale_by_stable_adam`.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A transformation from gradients to updates, downhill and in units of the params. Its state is that of its links.

    After a NaN:
        Its leaf of this and every later step is NaN; guard with `apply_if_finite`.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given where they decay.

    Example:
        >>> tx = fo.stable_adamw(0.1, weight_decay=0.0)
        >>> tx.update(torch.tensor([3.0, -0.5]), tx.init(torch.zeros(2)), torch.zeros(2))[0]
        tensor([-0.1000,  0.1000])
    """
    return chain(scale_by_stable_adam(b1, b2, eps, weight_decay, weight_decay_mask), lr_scale(lr))
