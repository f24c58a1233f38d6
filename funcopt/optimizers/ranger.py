"""Ranger: RAdam on centred gradients, pulled back every few steps to a slow average of the params.

    g_t less its mean over all axes but the first        (centralize.py; leaves with more than one axis)
    u_t = R * m * sqrt(1 - b2^t) / (sqrt(nu_t) + eps)    (radam.py) where the mean square is trusted, else m
    p_{t+1} = p_t - lr * (u_t + weight_decay * p_t),     every sync_period-th step halfway to the slow weights      (lookahead.py)

Source: Wright 2019 (Ranger), of Liu et al. 2019 (RAdam), Zhang et al. 2019 (Lookahead) and Yong et al. 2020 (gradient centralization).
Reference: pytorch_optimizer's Ranger (4.1) with uphill=True: it adds m to the params while the mean square is not trusted, in place of
taking it away.
"""

from typing import Any

import torch

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, moments, tree
from funcopt.optimizers.radam import rectified, scale_by_radam
from funcopt.transforms.centralize import centralize
from funcopt.transforms.lookahead import lookahead
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import AddDecayedWeightsState, add_decayed_weights

__all__ = ["ranger"]


def _uphill_at_first(b2: Scalar, threshold: Scalar) -> GradientTransformation[AddDecayedWeightsState]:
    """Turns a direction round in the steps in which RAdam does not trust its mean square."""

    def init(params: TensorTree) -> AddDecayedWeightsState:
        return AddDecayedWeightsState(count=moments.zero_count(params))

    def update(updates: TensorTree, state: AddDecayedWeightsState, params: TensorTree | None = None, **extra: Any):
        count = moments.increment(state.count)
        trusted, _ = rectified(count, b2, threshold)
        return tree.map(lambda u: torch.where(trusted, u, -u), updates), AddDecayedWeightsState(count=count)

    return GradientTransformation(init, update, name="uphill_at_first", flattenable=True, per_leaf=True, turns=None)


def ranger(
    lr: ScalarOrSchedule | None,
    b1: Scalar = 0.95,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-5,
    sync_period: int = 6,
    slow_step_size: Scalar = 0.5,
    threshold: Scalar = 5.0,
    *,
    uphill: bool = False,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """Ranger: `centralize`, `scale_by_radam`, decoupled decay, a step of size `lr` (None: the `base_lr` it hears), in a `lookahead`.

    Args:
        lr: the rate, >= 0; a number, a 0-dim tensor or a schedule.
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: share of the past in the mean of its square, in [0, 1).
        eps: added to the uncorrected root, >= 0.
        sync_period: steps from one pull to the next, >= 1.
        slow_step_size: how far the slow weights move towards the params, in [0, 1].
        threshold: from which length of the average on the mean square is trusted, >= 4.
        uphill: as in pytorch_optimizer, which walks *up* the mean of the gradient in the first steps (five with b2 = 0.999).
        weight_decay: decoupled, >= 0.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A ready-made optimizer. Holds three trees like `params`; `find(state, "slow")` gives the slow weights.

    After a NaN:
        Its leaf of this and every later step is NaN; guard with `apply_if_finite`.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Example:
        >>> params = torch.zeros(2)
        >>> for tx in (fo.ranger(0.1), fo.ranger(0.1, uphill=True)):
        ...     tx.update(torch.tensor([3.0, -0.5]), tx.init(params), params)[0]
        tensor([-0.3000,  0.0500])
        tensor([ 0.3000, -0.0500])
    """
    direction: list[GradientTransformation[Any]] = [centralize(), scale_by_radam(b1, b2, eps, threshold=threshold, correct_eps=True)]
    if uphill:
        direction.append(_uphill_at_first(b2, threshold))
    fast = chain(*direction, add_decayed_weights(weight_decay, weight_decay_mask), lr_scale(lr))
    return lookahead(fast, sync_period, slow_step_size)
