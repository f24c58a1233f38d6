"""ACProp: each gradient over the RMS of the surprises before it, so that no gradient shrinks itself.

    u_t  = g_t / (sqrt(nu_{t-1} / (1 - b2^(t-1))) + eps)        (u_1 = g_1 / (1 + eps))
    nu_t = b2 * nu_{t-1} + (1 - b2) * (g_t - mu_{t-1})^2 + eps_root
    mu_t = b1 * mu_{t-1} + (1 - b1) * g_t

Numerator and denominator are independent given the past, as in ADOPT; the second moment is
centred, as in AdaBelief (adabelief.py). `eps_root` enters what is stored. The paper's surprise is
g_t - mu_t, which is b1 times this one: its steps are longer by 1 / b1 from the second on.

Source: Zhuang et al., "Momentum centering and asynchronous update for adaptive gradient methods", 2021.
Reference: optax.contrib.acprop (0.2.8).
"""

from typing import Any

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, moments, tree
from funcopt.core.math import entrywise
from funcopt.optimizers.adam import ScaleByAdamState
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["acprop", "scale_by_acprop"]


def scale_by_acprop(
    b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-16, eps_root: Scalar = 1e-16
) -> GradientTransformation[ScaleByAdamState]:
    """Divides the gradient by the running RMS of what differed from its running mean, up to the step before.

    Args:
        b1: share of the past in the mean of the gradient, which only centres, in [0, 1).
        b2: share of the past in the mean of the squared surprise, in [0, 1).
        eps: added to the root, >= 0.
        eps_root: added to the stored mean at every step, >= 0; one of the two > 0, else a
            gradient that never changes is divided by zero.

    Returns:
        A transform from gradients to directions, in the shapes and dtypes it is given. The
        first is the gradient itself. Holds two trees like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 that entry stays at 0; clip.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> acprop = fo.scale_by_acprop(b1=0.5, b2=0.0)
        >>> direction, state = acprop.update(torch.tensor([4.0]), acprop.init(torch.zeros(1)))
        >>> direction, acprop.update(torch.tensor([3.0]), state)[0]  # the surprise was 4
        (tensor([4.]), tensor([0.7500]))
    """
    where = "scale_by_acprop"
    check.half_open(where, "b1", b1, 0, 1)
    check.half_open(where, "b2", b2, 0, 1)
    check.nonnegative(where, "eps", eps)
    check.nonnegative(where, "eps_root", eps_root)

    def init(params: TensorTree) -> ScaleByAdamState:
        return ScaleByAdamState(count=moments.zero_count(params), mu=tree.zeros_like(params), nu=tree.zeros_like(tree.real(params)))

    def update(updates: TensorTree, state: ScaleByAdamState, params: TensorTree | None = None, **extra: Any):
        first = state.count == 0
        (f2,) = moments.bias_factors(torch.where(first, 1, state.count), b2)
        (root,) = entrywise.stacked(f2.sqrt())

        def direct(g: Tensor, nu: Tensor) -> Tensor:
            known = torch.where(first, torch.ones_like(nu), nu)
            return entrywise.over_root(g, known, eps, scale=torch.where(first, 1.0, root)).to(g.dtype)

        direction = tree.map(direct, updates, state.nu)
        surprise = tree.map(lambda g, mu: g - mu, updates, state.mu)
        nu = moments.update_moment(surprise, state.nu, b2, order=2)
        nu = tree.map(lambda nu: (nu + eps_root).to(nu.dtype), nu)
        mu = moments.update_moment(updates, state.mu, b1)
        return direction, ScaleByAdamState(count=moments.increment(state.count), mu=mu, nu=nu)

    return GradientTransformation(init, update, name=where, flattenable=True, leaves="complex", per_leaf=True, turns=False)


def acprop(
    lr: ScalarOrSchedule | None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-16,
    eps_root: Scalar = 1e-16,
    weight_decay: ScalarOrSchedule = 0.0,
    *,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """ACProp: `scale_by_acprop`, decoupled decay, then a step of size `lr` downhill.

    Args:
        lr: the rate, >= 0: a number, a 0-dim tensor or a schedule; None: the `base_lr` it hears.
        b1, b2, eps, eps_root: as in `scale_by_acprop`.
        weight_decay: decoupled, multiplied by the rate, >= 0, or a schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A ready-made optimizer. Holds two trees like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 that entry stays at 0; clip.

    Signals:
        as `lr_scale`.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given and there is decay.

    Example:
        >>> tx = fo.acprop(0.5)
        >>> tx.update(torch.tensor([4.0]), tx.init(torch.zeros(1)))[0]
        tensor([-2.])
    """
    return chain(scale_by_acprop(b1, b2, eps, eps_root), add_decayed_weights(weight_decay, weight_decay_mask), lr_scale(lr))
