"""Adagrad: divide each gradient entry by the root of the sum of all its squares so far.

    s_t = s_{t-1} + g_t^2,   s_0 = initial_accumulator_value
    u_t = g_t / sqrt(s_t + eps)          (eps_in_sqrt, the default)
    u_t = g_t / (sqrt(s_t) + eps)        (else);   0 where s_t = 0

Source: Duchi, Hazan and Singer 2011. Reference: optax.adagrad (0.2.8); with
initial_accumulator_value=0, eps=1e-10 and eps_in_sqrt=False torch.optim.Adagrad.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, tree
from funcopt.core.math import entrywise
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["ScaleByRssState", "adagrad", "scale_by_rss"]


class ScaleByRssState(NamedTuple):
    sum_of_squares: TensorTree  # of all gradients so far; like params


def scale_by_rss(
    initial_accumulator_value: float = 0.1, eps: Scalar = 1e-7, *, eps_in_sqrt: bool = True
) -> GradientTransformation[ScaleByRssState]:
    """Divides each gradient entry by the root of the sum of its squares.

    Args:
        initial_accumulator_value: what the sum starts from, >= 0. The larger, the smaller the first steps.
        eps: added to the sum (to its root if not `eps_in_sqrt`), >= 0.
        eps_in_sqrt: where `eps` stands.

    Returns:
        A transform from gradients to directions that shrink like 1 / sqrt(t), in the
        shapes and dtypes it is given; 0 where the sum is 0. Holds one tree like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`. After an infinity or 1e30 that entry stays at 0; clip.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> rss = fo.scale_by_rss(initial_accumulator_value=0.0, eps=0.0)
        >>> _, state = rss.update(torch.tensor([3.0]), rss.init(torch.zeros(1)))
        >>> rss.update(torch.tensor([4.0]), state)[0]
        tensor([0.8000])
    """
    check.nonnegative("scale_by_rss", "initial_accumulator_value", initial_accumulator_value)
    check.nonnegative("scale_by_rss", "eps", eps)

    def init(params: TensorTree) -> ScaleByRssState:
        return ScaleByRssState(sum_of_squares=tree.full_like(tree.real(params), initial_accumulator_value))

    def update(updates: TensorTree, state: ScaleByRssState, params: TensorTree | None = None, **extra: Any):
        squares = tree.map(lambda g, s: s + entrywise.square(g, s).to(s.dtype), updates, state.sum_of_squares)

        def divided(g: Tensor, s: Tensor) -> Tensor:
            none = s == 0
            s = torch.where(none, 1, s)
            root = (s + eps).sqrt() if eps_in_sqrt else s.sqrt() + eps
            return torch.where(none, 0, g / root).to(g.dtype)

        return tree.map(divided, updates, squares), ScaleByRssState(sum_of_squares=squares)

    return GradientTransformation(init, update, name="scale_by_rss", flattenable=True, leaves="complex", per_leaf=True, turns=False)


def adagrad(
    lr: ScalarOrSchedule | None,
    initial_accumulator_value: float = 0.1,
    eps: Scalar = 1e-7,
    *,
    eps_in_sqrt: bool = True,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """Adagrad: `scale_by_rss`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: size of a step in units of params per unit of direction, >= 0: a number, a 0-dim tensor or a schedule of the
            count of steps; None: the `base_lr` it hears.
        initial_accumulator_value: what the sum starts from, >= 0. The larger, the smaller the first steps.
        eps: added to the sum (to its root if not `eps_in_sqrt`), >= 0.
        eps_in_sqrt: where `eps` stands.
        weight_decay: decoupled: each step also takes away `lr * weight_decay` of the params, >= 0; a number, a 0-dim
            tensor or a schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A transformation from gradients to the updates that `apply_updates` adds, in their shapes and dtypes. Holds one
        tree like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`. After an infinity or 1e30 that entry stays at 0; clip.

    Raises:
        ValueError: a number is out of range; at `update`, weights decay and no params are given.

    Example:
        >>> tx = fo.adagrad(0.1, initial_accumulator_value=0.0)
        >>> tx.update(torch.tensor([3.0, -0.5]), tx.init(torch.zeros(2)))[0]
        tensor([-0.1000,  0.1000])
    """
    return chain(
        scale_by_rss(initial_accumulator_value, eps, eps_in_sqrt=eps_in_sqrt),
        add_decayed_weights(weight_decay, weight_decay_mask),
        lr_scale(lr),
    )
