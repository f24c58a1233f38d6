"""Any scheduler of torch as a schedule: its rates, written down once, by the count of steps.

    s(n) = the rate of the group after n calls of scheduler.step(),   n at most steps

The scheduler is stepped on an optimizer of nothing, so that the one it was made for, and the scheduler, stay as they are.
A table has the numbers of the scheduler to the last bit, traces, and costs 8 bytes a step.
"""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from funcopt.core import check, tree
from funcopt.core.door.shown import shown
from funcopt.core.sent import sent
from funcopt.schedules.composable import ComposableSchedule

__all__ = ["from_torch_scheduler"]

WHERE = "from_torch_scheduler"


def from_torch_scheduler(
    scheduler: Any | Callable[[torch.optim.Optimizer], Any], steps: int, *, lr: float | None = None, group: int = 0
) -> ComposableSchedule:
    """The rates that a scheduler of torch gives, as a function of the count of steps.

    Args:
        scheduler: one of torch, or of a class made below `torch.optim.lr_scheduler.LRScheduler`: count 0 is where it stands. Or a
            function from an optimizer to one, such as `lambda opt: CosineAnnealingLR(opt, T_max=1000)`.
        steps: how many of its steps are written down, >= 1; afterwards the last value stays.
        lr: the rate of the optimizer that a function is called with; left out for a scheduler, which has one.
        group: whose rate, where the optimizer of the scheduler has several groups.

    Returns:
        A schedule.

    Raises:
        TypeError: `scheduler` is neither; or it follows a metric, as `ReduceLROnPlateau` does, so that no count tells its rates.
        ValueError: a number is out of range; `lr` is missing, or there is one too many.

    Example:
        >>> halving = lambda opt: torch.optim.lr_scheduler.StepLR(opt, step_size=2, gamma=0.5)
        >>> schedule = fo.schedules.from_torch_scheduler(halving, steps=10, lr=0.8)
        >>> [schedule(count).item() for count in (0, 1, 2, 4, 100)]
        [0.8, 0.8, 0.4, 0.2, 0.025]
    """
    check.integer(WHERE, "steps", steps, 1)
    check.integer(WHERE, "group", group, 0)
    made = isinstance(scheduler, (torch.optim.lr_scheduler.LRScheduler, torch.optim.lr_scheduler.ReduceLROnPlateau))
    if made and lr is not None:
        raise ValueError(f"{WHERE}: lr must be left out for a scheduler, whose optimizer has one, got {lr!r}")
    if not made:
        if isinstance(scheduler, type) or not callable(scheduler):
            raise TypeError(
                f"{WHERE}: scheduler must be a scheduler of torch or a function from an optimizer to one, got {shown(scheduler)}; "
                "write lambda opt: CosineAnnealingLR(opt, T_max=1000)"
            )
        if lr is None:
            raise ValueError(f"{WHERE}: needs lr, the rate of the optimizer with which the function is called")
        check.nonnegative(WHERE, "lr", lr)
    own: Any
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of steps of a scheduler without steps of an optimizer
        own = _apart(scheduler) if made else scheduler(_of_nothing([{"lr": lr}]))
        _refuse(own)
        if group >= len(own.optimizer.param_groups):
            raise ValueError(f"{WHERE}: group must be below {len(own.optimizer.param_groups)}, the number of groups, got {group}")
        rates = [_rate(own, group)]
        for _ in range(steps):
            own.step()
            rates.append(_rate(own, group))
    table = torch.tensor(rates, dtype=torch.float64, device="cpu")

    @ComposableSchedule
    def schedule(count: Tensor) -> Tensor:
        n = tree.scalar(count, ()).to(torch.int64).clamp(min=0, max=steps)
        known = sent(table, n.device, tree.scalar_dtype(n.device))
        return torch.index_select(known, 0, n.reshape(1)).reshape(())

    return schedule


def _of_nothing(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """An optimizer of empty parameters with the hyperparameters of these groups."""
    return torch.optim.SGD([{**group, "params": [torch.zeros(0, device="cpu")]} for group in groups], lr=0.0)


def _apart(scheduler: Any) -> Any:
    """A copy of a scheduler, and of those it is made of, on an optimizer of nothing."""
    own = scheduler.optimizer
    for part in _parts(scheduler):
        if part.optimizer is not own:
            raise ValueError(f"{WHERE}: all parts of a scheduler must move one optimizer, and {type(part).__name__} moves another")
    numbers = [{name: copy.copy(value) for name, value in group.items() if name != "params"} for group in own.param_groups]
    return copy.deepcopy(scheduler, {id(own): _of_nothing(numbers)})


def _parts(scheduler: Any) -> list[Any]:
    """A scheduler and those that it is made of."""
    return [scheduler, *(inner for part in getattr(scheduler, "_schedulers", ()) for inner in _parts(part))]


def _refuse(scheduler: Any) -> None:
    if not hasattr(scheduler, "step") or not hasattr(scheduler, "optimizer"):
        raise TypeError(f"{WHERE}: the function must give a scheduler of torch, got {shown(scheduler)}")
    for part in _parts(scheduler):
        if isinstance(part, torch.optim.lr_scheduler.ReduceLROnPlateau):
            raise TypeError(
                f"{WHERE}: {type(part).__name__} follows a metric, so that no count of steps tells its rates; "
                "put reduce_on_plateau() in the chain, which hears the loss"
            )


def _rate(scheduler: Any, group: int) -> float:
    return float(scheduler.optimizer.param_groups[group]["lr"])
