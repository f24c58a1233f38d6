"""LaProp: Adam's two means the other way round: the gradient is divided first, and what is divided is averaged.

    n_t = b2 * n_{t-1} + (1 - b2) * g_t^2
    m_t = b1 * m_{t-1} + (1 - b1) * g_t / (sqrt(n_t / (1 - b2^t)) + eps)
    u_t = m_t / (1 - b1^t)

A gradient counts in the momentum by what was known when it came, so that b1 and b2 may be chosen freely (Adam diverges
where b1^2 > b2).

Source: Ziyin, Wang and Ueda, "LaProp: Separating Momentum and Adaptivity in Adam", 2020. Reference:
pytorch_optimizer.LaProp (4.1), which multiplies by the rate before it averages: the same at a constant rate, and under a
schedule each gradient there keeps the rate of its own step.
"""

from typing import Any, NamedTuple

from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, moments, tree
from funcopt.core.math import entrywise
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["ScaleByLapropState", "laprop", "scale_by_laprop"]


class ScaleByLapropState(NamedTuple):
    count: Tensor  # steps taken
    m: TensorTree  # running mean of what is divided; like params
    n: TensorTree  # running mean of g^2; like params


def scale_by_laprop(b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-15) -> GradientTransformation[ScaleByLapropState]:
    """Averages gradients that have been divided by their running RMS.

    Args:
        b1: share of the past in the mean, in [0, 1).
        b2: share of the past in the mean square, in [0, 1).
        eps: added to the root, > 0.

    Returns:
        A transform from gradients to directions of order one, in the shapes and dtypes it is given. Holds two trees
        like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> laprop = fo.scale_by_laprop(b1=0.5, b2=0.0)
        >>> _, state = laprop.update(torch.tensor([3.0]), laprop.init(torch.zeros(1)))
        >>> laprop.update(torch.tensor([-0.5]), state)[0]  # m = (1 / 2) / 2 - 1 / 2, over 1 - 1 / 4
        tensor([-0.3333])
    """
    check.half_open("scale_by_laprop", "b1", b1, 0, 1)
    check.half_open("scale_by_laprop", "b2", b2, 0, 1)
    check.positive("scale_by_laprop", "eps", eps)

    def init(params: TensorTree) -> ScaleByLapropState:
        return ScaleByLapropState(count=moments.zero_count(params), m=tree.zeros_like(params), n=tree.zeros_like(params))

    def update(updates: TensorTree, state: ScaleByLapropState, params: TensorTree | None = None, **extra: Any):
        count = moments.increment(state.count)
        n = moments.update_moment(updates, state.n, b2, order=2)
        f1, f2 = moments.bias_factors(count, b1, b2)
        (root,) = entrywise.stacked(f2.sqrt())
        divided = tree.map(lambda g, n: entrywise.over_root(entrywise.at_least(g, n), n, eps, 0.0, root), updates, n)
        m = moments.update_moment(divided, state.m, b1)
        return tree.map(lambda g, m: (f1 * m).to(g.dtype), updates, m), ScaleByLapropState(count=count, m=m, n=n)

    return GradientTransformation(init, update, name="scale_by_laprop", flattenable=True, per_leaf=True, turns=False)


def laprop(
    lr: ScalarOrSchedule | None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-15,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """LaProp: `scale_by_laprop`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: the rate, >= 0: a number, a 0-dim tensor or a schedule.
        b1, b2, eps: as in `scale_by_laprop`.
        weight_decay: share of the params that a step takes away, times `lr`; >= 0.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A transformation from gradients to updates, downhill and in units of the params. Its state is that of its links.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given where they decay.

    Example:
        >>> tx = fo.laprop(0.1)
        >>> tx.update(torch.tensor([3.0, -0.5]), tx.init(torch.zeros(2)))[0]
        tensor([-0.1000,  0.1000])
    """
    return chain(scale_by_laprop(b1, b2, eps), add_decayed_weights(weight_decay, weight_decay_mask), lr_scale(lr))
