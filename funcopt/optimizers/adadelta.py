"""Adadelta: steps in the units of the params, from the running RMS of past steps over that of gradients.

    e_g_t = rho * e_g_{t-1} + (1 - rho) * g_t^2
    u_t   = sqrt(e_x_{t-1} + eps) / sqrt(e_g_t + eps) * g_t
    e_x_t = rho * e_x_{t-1} + (1 - rho) * u_t^2

Weight decay is coupled, as in both references: it stands before the method.

Source: Zeiler 2012. Reference: optax.adadelta (0.2.8), torch.optim.Adadelta.
"""

from typing import Any, NamedTuple

from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, moments, tree
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["ScaleByAdaDeltaState", "adadelta", "scale_by_adadelta"]


class ScaleByAdaDeltaState(NamedTuple):
    e_g: TensorTree  # running mean of g^2; like params
    e_x: TensorTree  # running mean of the squared direction; like params


def scale_by_adadelta(rho: Scalar = 0.9, eps: Scalar = 1e-6) -> GradientTransformation[ScaleByAdaDeltaState]:
    """Scales each gradient entry by the running RMS of past directions over that of gradients.

    Args:
        rho: share of the past in both means, in [0, 1).
        eps: added under both roots, > 0. Its root is the size of the first steps.

    Returns:
        A transform from gradients to directions in units of the params, in the shapes
        and dtypes it is given. Holds two trees like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 that entry stays at 0; clip.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> adadelta = fo.scale_by_adadelta(rho=0.75, eps=1.0)
        >>> adadelta.update(torch.tensor([3.0]), adadelta.init(torch.zeros(1)))[0]
        tensor([1.6641])
    """
    check.half_open("scale_by_adadelta", "rho", rho, 0, 1)
    check.positive("scale_by_adadelta", "eps", eps)

    def init(params: TensorTree) -> ScaleByAdaDeltaState:
        return ScaleByAdaDeltaState(e_g=tree.zeros_like(params), e_x=tree.zeros_like(params))

    def update(updates: TensorTree, state: ScaleByAdaDeltaState, params: TensorTree | None = None, **extra: Any):
        e_g = moments.update_moment(updates, state.e_g, rho, order=2)

        def turn(g: Tensor, e_g: Tensor, e_x: Tensor) -> Tensor:
            return ((e_x + eps).sqrt() / (e_g + eps).sqrt() * g).to(g.dtype)

        direction = tree.map(turn, updates, e_g, state.e_x)
        return direction, ScaleByAdaDeltaState(e_g=e_g, e_x=moments.update_moment(direction, state.e_x, rho, order=2))

    return GradientTransformation(init, update, name="scale_by_adadelta", flattenable=True, per_leaf=True, turns=False)


def adadelta(
    lr: ScalarOrSchedule | None = 1.0,
    rho: Scalar = 0.9,
    eps: Scalar = 1e-6,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """Adadelta: coupled decay, `scale_by_adadelta`, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: factor of the step that the method finds itself, >= 0: a number, a 0-dim tensor or a schedule of the count of
            steps; None: the `base_lr` it hears.
        rho: share of the past in both means, in [0, 1).
        eps: added under both roots, > 0. Its root is the size of the first steps.
        weight_decay: coupled: this share of the params is added to the gradient, >= 0; a number, a 0-dim tensor or a
            schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A transformation from gradients to the updates that `apply_updates` adds, in their shapes and dtypes. Holds two
        trees like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 that entry stays at 0; clip.

    Raises:
        ValueError: a number is out of range; at `update`, weights decay and no params are given.

    Example:
        >>> tx = fo.adadelta(eps=1.0)
        >>> tx.update(torch.tensor([3.0]), tx.init(torch.zeros(1)))[0]
        tensor([-2.1764])
    """
    return chain(add_decayed_weights(weight_decay, weight_decay_mask), scale_by_adadelta(rho, eps), lr_scale(lr))
