"""reduce_on_plateau: smaller steps when the loss stops falling.

    avg = mean of `accumulation_size` losses;   once it is there:
    improved = avg < (1 - rtol) * best - atol;  best = avg if improved
    n        = 0 if improved or cooling, else n + 1
    n == patience:  scale = max(factor * scale, min_scale),  n = 0,  cooling for `cooldown` averages
    u = scale * g, with the new scale already

Reference: optax.contrib.reduce_on_plateau (0.2.8), where the loss is called `value`;
torch.optim.lr_scheduler.ReduceLROnPlateau waits one bad epoch more (n > patience).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, TensorTree, check, tree
from funcopt.core.sent import sent

__all__ = ["ReduceLROnPlateauState", "reduce_on_plateau"]


class ReduceLROnPlateauState(NamedTuple):
    scale: Tensor  # float64
    best_value: Tensor  # lowest average so far; float64
    plateau_count: Tensor  # averages without improvement
    cooldown_count: Tensor  # averages for which it still waits
    count: Tensor  # losses in the average so far
    avg_value: Tensor  # float64

    def signals(self) -> dict[str, Tensor]:
        return {"plateau_scale": self.scale}


def reduce_on_plateau(
    factor: Scalar = 0.1,
    patience: int = 10,
    rtol: Scalar = 1e-4,
    atol: Scalar = 0.0,
    cooldown: int = 0,
    accumulation_size: int = 1,
    min_scale: Scalar = 0.0,
) -> GradientTransformation[ReduceLROnPlateauState]:
    """Multiplies what passes by a number that shrinks whenever the loss has not improved for a while.

    Args:
        factor: by which it shrinks, in (0, 1).
        patience: averages without improvement until it does, >= 1.
        rtol: share of the best by which the loss must fall to count as improved, >= 0.
        atol: the same in units of the loss, >= 0. Not both zero.
        cooldown: averages after a reduction that do not count, >= 0.
        accumulation_size: losses in an average, >= 1.
        min_scale: floor of the number, >= 0.

    Returns:
        A transformation that is told `loss` in every call.

    After a NaN:
        That entry of this step is NaN, the next is clean. A NaN loss passes.

    Signals:
        says `plateau_scale`.

    Raises:
        ValueError: a number is out of range; at `update`, `loss` is missing.

    Example:
        >>> tx = fo.reduce_on_plateau(factor=0.5, patience=1)
        >>> _, state = tx.update(torch.ones(1), tx.init(torch.ones(1)), loss=1.0)
        >>> tx.update(torch.ones(1), state, loss=1.0)[0]
        tensor([0.5000])
    """
    where = "reduce_on_plateau"
    if check.number(where, "factor", factor) and not 0 < factor < 1:
        raise ValueError(f"{where}: factor must be in (0, 1), got {factor}")
    check.integer(where, "patience", patience, 1)
    check.nonnegative(where, "rtol", rtol)
    check.nonnegative(where, "atol", atol)
    if isinstance(rtol, (int, float)) and isinstance(atol, (int, float)) and rtol == atol == 0:
        raise ValueError(f"{where}: rtol or atol must be > 0, got 0 for both")
    if check.number(where, "rtol", rtol) and rtol > 1:
        raise ValueError(f"{where}: rtol must be <= 1, got {rtol}")
    check.integer(where, "cooldown", cooldown, 0)
    check.integer(where, "accumulation_size", accumulation_size, 1)
    check.nonnegative(where, "min_scale", min_scale)

    def init(params: TensorTree) -> ReduceLROnPlateauState:
        def zero() -> Tensor:
            return torch.zeros((), dtype=torch.int64, device=tree.device(params))

        return ReduceLROnPlateauState(
            scale=tree.scalar(1.0, params),
            best_value=tree.scalar(torch.inf, params),
            plateau_count=zero(),
            cooldown_count=zero(),
            count=zero(),
            avg_value=tree.scalar(0.0, params),
        )

    def judged(state: ReduceLROnPlateauState, average: Tensor) -> ReduceLROnPlateauState:
        """The state after a whole average."""
        improved = average < (1 - rtol) * state.best_value - atol
        cooling = state.cooldown_count > 0
        bad = torch.where(improved | cooling, 0, state.plateau_count + 1)
        reduces = bad == patience
        smaller = state.scale * factor
        smaller = torch.maximum(smaller, min_scale.to(smaller)) if isinstance(min_scale, Tensor) else smaller.clamp(min=min_scale)
        return ReduceLROnPlateauState(
            scale=torch.where(reduces, smaller, state.scale),
            best_value=torch.where(improved, average, state.best_value),
            plateau_count=torch.where(reduces, 0, bad),
            cooldown_count=torch.where(cooling, state.cooldown_count - 1, torch.where(reduces, cooldown, 0)),
            count=torch.zeros_like(state.count),
            avg_value=torch.zeros_like(average),
        )

    def update(
        updates: TensorTree, state: ReduceLROnPlateauState, params: TensorTree | None = None, *, loss: Scalar | None = None, **extra: Any
    ):
        value = sent(tree.scalar(check.loss(where, loss), state.scale), state.scale.device, state.scale.dtype)
        count = state.count + 1
        average = (state.count * state.avg_value + value) / count
        whole = count == accumulation_size
        waiting = state._replace(count=count, avg_value=average)
        state = tree.where(whole, judged(state, average), waiting)
        return tree.map(lambda g: state.scale * g, updates), state

    return GradientTransformation(init, update, name=where, flattenable=True, leaves="complex", turns=False, needs={"loss": "always"})
