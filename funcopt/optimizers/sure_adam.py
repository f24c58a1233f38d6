"""Adam whose second moment forgets sooner where a search says that gradients are sure.

    w_t  = max(0, (q_t - 0.8) / (1 - 0.8))                        q: the word `sureness`, in [0, 1]
    s_t  = (1 - b2)^(1 - w_t) * (1 - b2_sure)^w_t                 share of the new square in
    mu_t = b1 * mu_{t-1} + (1 - b1) * g_t
    nu_t = (1 - s_t) * nu_{t-1} + s_t * g_t^2
    W_t  = (1 - s_t) * W_{t-1} + s_t                              sum of the weights in nu
    u_t  = m / (sqrt(nu_t / W_t + eps_root) + eps)                m as Adam has it, or as Nesterov's form has it

A second moment is a mean because gradients are noise; where they are not, a long one holds the
lengths of long ago. Where q stays at 0.8 and below it is Adam with b2, where it stays at 1 with b2_sure.

Source: ours; Adam: Kingma and Ba 2015, Nesterov's form: Dozat 2016. That small batches want a larger b2 is seen in Porian et al. 2024
("Resolving discrepancies in compute-optimal scaling of language models").
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, TensorTree, check, moments, tree
from funcopt.core.signals import need
from funcopt.optimizers.adam import corrected_ratio

__all__ = ["ScaleBySureAdamState", "scale_by_sure_adam"]

SURE_FROM = 0.8  # q, up to which it is Adam with b2


class ScaleBySureAdamState(NamedTuple):
    count: Tensor  # steps taken
    mu: TensorTree  # running mean of g; like params
    nu: TensorTree  # running mean of g^2; like params
    weight: Tensor  # W, sum of the weights in nu


def scale_by_sure_adam(
    b1: Scalar = 0.9,
    b2: Scalar = 0.995,
    b2_sure: Scalar = 0.9,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: torch.dtype | None = None,
    *,
    nesterov: bool = False,
) -> GradientTransformation[ScaleBySureAdamState]:
    """Adam whose second moment remembers `b2` where gradients are noise and `b2_sure` where they are sure, as `find_rate` says.

    Args:
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: share of the past in the mean of its square where `sureness` is 0.8 or less, in [0, 1).
        b2_sure: where it is 1, in [0, 1); between them the logarithm of 1 - b2 goes evenly.
        eps: added to the root, >= 0.
        eps_root: added under the root, >= 0; > 0 where somebody differentiates through it.
        mu_dtype: dtype of the stored mean; None: that of the params.
        nesterov: look one step ahead.

    Returns:
        A transform from gradients to directions of order one, in the shapes and dtypes
        it is given. Holds two trees like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 that entry stays at 0; clip.

    Signals:
        hears `sureness`, in [0, 1], which `find_rate` says.

    Raises:
        ValueError: a number is out of range; at `init` of a chain, nobody to the left says `sureness`.

    Example:
        >>> adam = fo.scale_by_sure_adam(b1=0.0, b2=0.99, b2_sure=0.75)
        >>> state = adam.init(torch.zeros(1))
        >>> direction, state = adam.update(torch.tensor([3.0]), state, signals={"sureness": torch.tensor(1.0)})
        >>> adam.update(torch.tensor([0.0]), state, signals={"sureness": torch.tensor(0.9)})[1].nu  # a tenth is new, of 9 / 4
        tensor([2.1375])
    """
    where = "scale_by_sure_adam"
    check.half_open(where, "b1", b1, 0, 1)
    check.half_open(where, "b2", b2, 0, 1)
    check.half_open(where, "b2_sure", b2_sure, 0, 1)
    check.nonnegative(where, "eps", eps)
    check.nonnegative(where, "eps_root", eps_root)
    check.dtype(where, "mu_dtype", mu_dtype)

    def init(params: TensorTree) -> ScaleBySureAdamState:
        return ScaleBySureAdamState(
            count=moments.zero_count(params),
            mu=tree.zeros_like(params, mu_dtype),
            nu=tree.zeros_like(tree.real(params)),
            weight=tree.scalar(0.0, params).clone(),
        )

    def update(updates: TensorTree, state: ScaleBySureAdamState, params: TensorTree | None = None, *, signals: Any = None, **extra: Any):
        q = need(signals, where, "sureness", "put find_rate() to its left")
        w = ((q.to(state.weight.dtype) - SURE_FROM) / (1 - SURE_FROM)).clamp(0, 1)
        s = (1 - b2) ** (1 - w) * (1 - b2_sure) ** w
        count = moments.increment(state.count)
        mu = moments.update_moment(updates, state.mu, b1)  # b1 mu + (1 - b1) g
        nu = moments.update_moment(updates, state.nu, 1 - s, order=2)  # (1 - s) nu + s g^2
        W = state.weight + s * (1 - state.weight)
        ratio = corrected_ratio(updates, count, b1, b2, eps, eps_root, nesterov, c2=W)  # m / (sqrt(nu / W + eps_root) + eps)
        return tree.map(ratio, updates, mu, nu), ScaleBySureAdamState(count=count, mu=mu, nu=nu, weight=W)

    return GradientTransformation(
        init, update, name=where, hears={"sureness": "needed"}, flattenable=True, leaves="complex", per_leaf=True, turns=False
    )
