"""AdaBelief: step far where the gradient is as expected, carefully where it surprises.

    mu_t = b1 * mu_{t-1} + (1 - b1) * g_t
    nu_t = b2 * nu_{t-1} + (1 - b2) * (g_t - mu_t)^2 + eps_root
    u_t  = mu_t / (1 - b1^t) / (sqrt(nu_t / (1 - b2^t)) + eps)

`eps_root` enters what is stored, so it adds up to eps_root / (1 - b2). Nesterov as in adam.py.

Source: Zhuang et al. 2020. Reference: optax.adabelief (0.2.8); pytorch_optimizer's has one eps for both.
"""

from typing import Any

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, moments, tree
from funcopt.optimizers.adam import ScaleByAdamState, corrected_ratio
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["adabelief", "scale_by_belief"]


def scale_by_belief(
    b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-16, eps_root: Scalar = 1e-16, *, nesterov: bool = False
) -> GradientTransformation[ScaleByAdamState]:
    """Divides a running mean of the gradient by the running RMS of what differed from it.

    Args:
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: share of the past in the mean of the squared surprise, in [0, 1).
        eps: added to the root, >= 0.
        eps_root: added to the stored mean at every step, >= 0; one of the two > 0, else a
            gradient that never changes is divided by zero.
        nesterov: look one step ahead.

    Returns:
        A transform from gradients to directions, in the shapes and dtypes it is given;
        of order one at first, and larger the steadier the gradient. Holds two trees like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 that entry stays at 0; clip.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> belief = fo.scale_by_belief(b1=0.5, b2=0.0)
        >>> belief.update(torch.tensor([4.0]), belief.init(torch.zeros(1)))[0]
        tensor([2.])
    """
    check.half_open("scale_by_belief", "b1", b1, 0, 1)
    check.half_open("scale_by_belief", "b2", b2, 0, 1)
    check.nonnegative("scale_by_belief", "eps", eps)
    check.nonnegative("scale_by_belief", "eps_root", eps_root)

    def init(params: TensorTree) -> ScaleByAdamState:
        return ScaleByAdamState(count=moments.zero_count(params), mu=tree.zeros_like(params), nu=tree.zeros_like(tree.real(params)))

    def update(updates: TensorTree, state: ScaleByAdamState, params: TensorTree | None = None, **extra: Any):
        count = moments.increment(state.count)
        mu = moments.update_moment(updates, state.mu, b1)
        surprise = tree.map(lambda g, mu: g - mu, updates, mu)
        nu = moments.update_moment(surprise, state.nu, b2, order=2)
        nu = tree.map(lambda nu: (nu + eps_root).to(nu.dtype), nu)
        ratio = corrected_ratio(updates, count, b1, b2, eps, nesterov=nesterov)
        direction = tree.map(ratio, updates, mu, nu)
        return direction, ScaleByAdamState(count=count, mu=mu, nu=nu)

    return GradientTransformation(init, update, name="scale_by_belief", flattenable=True, leaves="complex", per_leaf=True, turns=False)


def adabelief(
    lr: ScalarOrSchedule | None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-16,
    eps_root: Scalar = 1e-16,
    *,
    nesterov: bool = False,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """AdaBelief: `scale_by_belief`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: size of a step in units of params per unit of direction, >= 0: a number, a 0-dim tensor or a schedule of the
            count of steps; None: the `base_lr` it hears.
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: share of the past in the mean of the squared surprise, in [0, 1).
        eps: added to the root, >= 0.
        eps_root: added to the stored mean at every step, >= 0; one of the two > 0, else a gradient that never changes is
            divided by zero.
        nesterov: look one step ahead.
        weight_decay: decoupled: each step also takes away `lr * weight_decay` of the params, >= 0; a number, a 0-dim
            tensor or a schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A transformation from gradients to the updates that `apply_updates` adds, in their shapes and dtypes. Holds two
        trees like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 that entry stays at 0; clip.

    Raises:
        ValueError: a number is out of range; at `update`, weights decay and no params are given.

    Example:
        >>> tx = fo.adabelief(0.1, b1=0.5, b2=0.0)
        >>> tx.update(torch.tensor([4.0]), tx.init(torch.zeros(1)))[0]
        tensor([-0.2000])
    """
    return chain(
        scale_by_belief(b1, b2, eps, eps_root, nesterov=nesterov), add_decayed_weights(weight_decay, weight_decay_mask), lr_scale(lr)
    )
