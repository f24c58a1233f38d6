"""Polyak's step: as long as the gap between the loss and its lower bound says, if the loss were half a parabola.

    step = min((loss - f_min) / (||g||^2 + eps), max_lr)            (0 where ||g||^2 + eps is)
    u    = step g

variant "sps+" takes max(loss - f_min, 0), so that a bound that was too high stops the run instead of
reversing it. `polyak_sgd` multiplies by `lr` after that; optax.polyak_sgd's `scaling` multiplies the gradient
before its norm is taken, and so divides the step.

Source: Loizou et al., "Stochastic Polyak step-size for SGD", 2021; Garrigos et al. 2023 ("sps+").
Reference: optax.scale_by_polyak and optax.polyak_sgd (0.2.8), whose `value` is our `loss`.
"""

from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, tree
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["ScaleByPolyakState", "polyak_sgd", "scale_by_polyak"]

Variant = Literal["sps", "sps+"]
NEGLIGIBLE = torch.finfo(torch.float64).eps  # a squared norm that is taken for 0


class ScaleByPolyakState(NamedTuple):
    step: Tensor  # by which the last gradient was multiplied

    def signals(self) -> dict[str, Tensor]:
        return {"polyak_step": self.step}


def scale_by_polyak(
    f_min: Scalar = 0.0, max_lr: Scalar = 1.0, eps: Scalar = 0.0, variant: Variant = "sps"
) -> GradientTransformation[ScaleByPolyakState]:
    """Multiplies the gradient by Polyak's step.

    Args:
        f_min: lower bound of the loss, any finite number.
        max_lr: no step is longer, > 0; inf: as long as the gap asks for.
        eps: added to the squared norm, >= 0.
        variant: "sps", in which a loss below `f_min` reverses the step; "sps+", in which it makes none.

    Returns:
        A transform that leaves gradients on their side, and needs `loss=`. A loss that is
        NaN or infinite tells nothing, and makes a step of 0.

    After a NaN:
        This step is NaN, the next is clean. A NaN loss passes.

    Signals:
        says `polyak_step`, by which the gradient was multiplied.

    Raises:
        ValueError: a number is out of range; at `update`, no loss is given.

    Example:
        >>> tx = fo.scale_by_polyak(max_lr=10.0)
        >>> tx.update(torch.tensor([4.0]), tx.init(torch.zeros(1)), loss=torch.tensor(8.0))[0]  # 8 / 16 * 4
        tensor([2.])
    """
    where = "scale_by_polyak"
    check.finite(where, "f_min", f_min)
    check.limit(where, "max_lr", max_lr)
    check.nonnegative(where, "eps", eps)
    check.choice(where, "variant", variant, get_args(Variant))

    def init(params: TensorTree) -> ScaleByPolyakState:
        return ScaleByPolyakState(step=tree.scalar(0.0, params).clone())

    def update(
        updates: TensorTree, state: ScaleByPolyakState, params: TensorTree | None = None, *, loss: Scalar | None = None, **extra: Any
    ):
        gap = tree.scalar(check.loss(where, loss), state.step) - f_min
        if variant == "sps+":
            gap = gap.clamp(min=0)
        told = gap.isfinite()
        square = tree.squared_norm(updates, state.step.dtype) + eps
        none = square <= NEGLIGIBLE
        longest = tree.scalar(max_lr, state.step)
        polyak = torch.minimum(torch.where(told, gap, 0.0) / torch.where(none, 1.0, square), longest)
        step = torch.where(none, 0.0, polyak).to(state.step.dtype)
        return tree.map(lambda g: step * g, updates), ScaleByPolyakState(step=step)

    return GradientTransformation(init, update, name=where, flattenable=True, turns=False, own_rate=True, needs=("loss",))


def polyak_sgd(
    lr: ScalarOrSchedule | None = 1.0,
    max_lr: Scalar = 1.0,
    f_min: Scalar = 0.0,
    eps: Scalar = 0.0,
    variant: Variant = "sps",
    *,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """Gradient descent with Polyak's step: `scale_by_polyak`, decoupled decay, then a factor `lr` downhill.

    Args:
        lr: a factor of Polyak's step, >= 0, or a schedule; None: the `base_lr` it hears.
        max_lr, f_min, eps, variant: as in `scale_by_polyak`.
        weight_decay: decoupled, multiplied by `lr` alone, >= 0, or a schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A ready-made optimizer whose `update` needs `loss=`. Holds no tree.

    After a NaN:
        This step is NaN, the next is clean. A NaN loss passes.

    Signals:
        as `lr_scale`; says `polyak_step`.

    Raises:
        ValueError: a number is out of range; at `update`, no loss is given.

    Example:
        >>> tx = fo.polyak_sgd()
        >>> tx.update(torch.tensor([4.0]), tx.init(torch.zeros(1)), loss=torch.tensor(4.0))[0]  # of p^2 at 2: half the way
        tensor([-1.])
    """
    return chain(scale_by_polyak(f_min, max_lr, eps, variant), add_decayed_weights(weight_decay, weight_decay_mask), lr_scale(lr))
