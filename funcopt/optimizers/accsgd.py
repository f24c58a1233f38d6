"""AccSGD: gradient descent beside a second iterate that takes steps a thousand times as long, and is heard a little.

    a   = xi c^2 / kappa,      z = c / (c + a)
    b_t = (1 - a) * b_{t-1} + a * (p_t - lr * kappa / c * g_t),      b_0 = p_0
    p_{t+1} = z * (p_t - lr * g_t) + (1 - z) * b_t

Steps are sized inside, since the rate stands in both iterates. Weight decay is coupled, as in the reference: it stands before the method.

Source: Kidambi et al., "On the insufficiency of existing momentum schemes for Stochastic Optimization", 2018. Reference:
pytorch_optimizer's AccSGD (4.1).
"""

from typing import Any, NamedTuple

from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, moments, rates, tree
from funcopt.core.math import entrywise
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["AccSgdState", "accsgd", "scale_by_accsgd"]


class AccSgdState(NamedTuple):
    count: Tensor  # steps taken
    b: TensorTree  # the second iterate; like params
    lr: Tensor  # rate of the step just taken

    def signals(self) -> dict[str, Tensor]:
        return {"lr": self.lr}


def scale_by_accsgd(
    lr: ScalarOrSchedule | None, kappa: Scalar = 1000.0, xi: Scalar = 10.0, c: Scalar = 0.7
) -> GradientTransformation[AccSgdState]:
    """Accelerated gradient descent for gradients of few examples.

    Args:
        lr: the rate of the short steps, >= 0; a number, a 0-dim tensor or a schedule; None: the `base_lr` it hears.
        kappa: the long step in units of the short one, > xi c^2; how badly conditioned the task is.
        xi: what averaging gains in noise, > 0; at most sqrt(kappa) in theory.
        c: a number below 1, > 0.

    Returns:
        A transform from gradients to updates, downhill and in units of the params. Holds one tree like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`.

    Signals:
        hears `base_lr` (with `lr=None`) and, if anyone says them, `lr_multiplier` and `rate_multiplier`; says `lr`.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Example:
        >>> accsgd = fo.scale_by_accsgd(1.0, kappa=10.0, xi=10.0, c=0.5)  # a = 1/4, z = 2/3
        >>> params = torch.zeros(1)
        >>> accsgd.update(torch.tensor([3.0]), accsgd.init(params), params)[0]  # b = -15: two thirds of -3, a third of -15
        tensor([-7.])
    """
    where = "scale_by_accsgd"
    if lr is not None:
        check.schedule_or(check.nonnegative, where, "lr", lr)
    for name, value in (("kappa", kappa), ("xi", xi), ("c", c)):
        check.positive(where, name, value)
    check.within(where, "c", c, 0, 1)
    a = xi * c**2 / kappa
    if not isinstance(a, Tensor) and a >= 1:
        raise ValueError(f"{where}: kappa must be > xi c^2, else the second iterate forgets more than all, got {kappa} and {xi * c**2}")
    z = c / (c + a)

    def init(params: TensorTree) -> AccSgdState:
        return AccSgdState(count=moments.zero_count(params), b=tree.clone(params), lr=rates.first(where, lr, params))

    def update(updates: TensorTree, state: AccSgdState, params: TensorTree | None = None, *, signals: Any = None, **extra: Any):
        check.params(where, params)
        rate = rates.now(where, lr, state.count, state.lr, signals)
        short, long = entrywise.once(updates, rate, rate * kappa / c)
        b = tree.map(lambda g, b, p: (b + a * (p - b - long * g)).to(b.dtype), updates, state.b, params)
        steps = tree.map(lambda g, b, p: ((1 - z) * (b - p) - z * short * g).to(g.dtype), updates, b, params)
        return steps, AccSgdState(count=moments.increment(state.count), b=b, lr=rate)

    return GradientTransformation(init, update, name=where, hears=rates.heard(lr), flattenable=True, per_leaf=True, turns=True)


def accsgd(
    lr: ScalarOrSchedule | None,
    kappa: Scalar = 1000.0,
    xi: Scalar = 10.0,
    c: Scalar = 0.7,
    *,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """AccSGD: coupled decay, then `scale_by_accsgd`, whose steps are sized (`lr` None: by the `base_lr` it hears) and downhill.

    Args:
        lr: the rate of the short steps, >= 0; a number, a 0-dim tensor or a schedule.
        kappa, xi, c: as in `scale_by_accsgd`.
        weight_decay: coupled, >= 0.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A ready-made optimizer, whose state says `lr`. Holds one tree like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`.

    Signals:
        hears `base_lr` (with `lr=None`) and, if anyone says them, `lr_multiplier` and `rate_multiplier`; says `lr`.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Example:
        >>> tx = fo.accsgd(1.0, kappa=10.0, xi=10.0, c=0.5)
        >>> params = torch.zeros(1)
        >>> tx.update(torch.tensor([3.0]), tx.init(params), params)[0]
        tensor([-7.])
    """
    return chain(add_decayed_weights(weight_decay, weight_decay_mask), scale_by_accsgd(lr, kappa, xi, c))
