"""QHAdam: Adam whose step mixes the gradient with its running mean, and its square with the running mean square.

    mu_t = b1 * mu_{t-1} + (1 - b1) * g_t,       m = mu_t / (1 - b1^t)
    nu_t = b2 * nu_{t-1} + (1 - b2) * g_t^2,     v = nu_t / (1 - b2^t)
    u_t  = (nu1 m + (1 - nu1) g_t) / (sqrt(nu2 v + (1 - nu2) g_t^2) + eps)

With nu1 = nu2 = 1 it is Adam, with nu1 = b1 about Nesterov's, with nu1 = 0 RMSprop.

Source: Ma and Yarats, "Quasi-hyperbolic momentum and Adam for deep learning", 2019, whose means are those corrected ones. Reference:
pytorch_optimizer's QHAdam (4.1), which rounds the weights of its means to float32.
"""

from typing import Any

from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, moments, tree
from funcopt.core.math import entrywise
from funcopt.optimizers.adam import ScaleByAdamState
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["qhadam", "scale_by_qhadam"]


def scale_by_qhadam(
    b1: Scalar = 0.995, b2: Scalar = 0.999, nu1: Scalar = 0.7, nu2: Scalar = 1.0, eps: Scalar = 1e-8
) -> GradientTransformation[ScaleByAdamState]:
    """Divides a mixture of the gradient and its running mean by the root of a mixture of their squares.

    Args:
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: share of the past in the mean of its square, in [0, 1).
        nu1: weight of the mean beside the gradient itself, in [0, 1].
        nu2: weight of the mean square beside the square itself, in [0, 1].
        eps: added to the root, >= 0.

    Returns:
        A transform from gradients to directions of order one, in the shapes and dtypes
        it is given. Holds two trees like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 that entry stays at 0; clip.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> qhadam = fo.scale_by_qhadam(b1=0.5, b2=0.0, nu1=0.5)
        >>> _, state = qhadam.update(torch.tensor([2.0]), qhadam.init(torch.zeros(1)))
        >>> qhadam.update(torch.tensor([8.0]), state)[0]  # the mean is 6, (6 + 8) / 2 of 8
        tensor([0.8750])
    """
    where = "scale_by_qhadam"
    check.half_open(where, "b1", b1, 0, 1)
    check.half_open(where, "b2", b2, 0, 1)
    check.within(where, "nu1", nu1, 0, 1)
    check.within(where, "nu2", nu2, 0, 1)
    check.nonnegative(where, "eps", eps)

    def init(params: TensorTree) -> ScaleByAdamState:
        return ScaleByAdamState(count=moments.zero_count(params), mu=tree.zeros_like(params), nu=tree.zeros_like(params))

    def update(updates: TensorTree, state: ScaleByAdamState, params: TensorTree | None = None, **extra: Any):
        count = moments.increment(state.count)
        mu = moments.update_moment(updates, state.mu, b1)
        nu = moments.update_moment(updates, state.nu, b2, order=2)
        f1, f2 = moments.bias_factors(count, b1, b2)
        # The root of f2 stands outside: f2 nu may overflow where nu does not.
        root, fresh = entrywise.stacked(f2.sqrt(), (1 - nu2) / f2)

        def turn(g: Tensor, mu: Tensor, nu: Tensor) -> Tensor:
            return entrywise.over_root(nu1 * f1 * mu + (1 - nu1) * g, nu2 * nu + (fresh * g) * g, eps, scale=root).to(g.dtype)

        return tree.map(turn, updates, mu, nu), ScaleByAdamState(count=count, mu=mu, nu=nu)

    return GradientTransformation(init, update, name=where, flattenable=True, per_leaf=True, turns=False)


def qhadam(
    lr: ScalarOrSchedule | None,
    b1: Scalar = 0.995,
    b2: Scalar = 0.999,
    nu1: Scalar = 0.7,
    nu2: Scalar = 1.0,
    eps: Scalar = 1e-8,
    *,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """QHAdam: `scale_by_qhadam`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: the rate, >= 0; a number, a 0-dim tensor or a schedule.
        b1, b2, nu1, nu2, eps: as in `scale_by_qhadam`; the defaults are those that the authors advise.
        weight_decay: decoupled, >= 0.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A ready-made optimizer, whose state says `lr`. Holds two trees like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 that entry stays at 0; clip.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> tx = fo.qhadam(0.1)
        >>> tx.update(torch.tensor([3.0, -0.5]), tx.init(torch.zeros(2)))[0]
        tensor([-0.1000,  0.1000])
    """
    return chain(scale_by_qhadam(b1, b2, nu1, nu2, eps), add_decayed_weights(weight_decay, weight_decay_mask), lr_scale(lr))
