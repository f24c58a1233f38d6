"""lr_scale: give a direction its size and turn it downhill; the only link that does.

    size_t = lr(t-1) * product of the words it hears,   u_t = -size_t * direction_t

`scale_by_signal` multiplies by a word and nothing else. After optax's
scale_by_learning_rate (0.2.8); that the size hears others is ours.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, ScalarOrSchedule, TensorTree, check, moments, signals as words, tree
from funcopt.core.protocol import EmptyState

__all__ = ["LrScaleState", "ScheduledLrScaleState", "lr_scale", "scale_by_signal"]


class LrScaleState(NamedTuple):
    lr: Tensor  # size of the step just taken

    def signals(self) -> dict[str, Tensor]:
        return {"lr": self.lr}


class ScheduledLrScaleState(NamedTuple):
    count: Tensor  # steps taken
    lr: Tensor  # size of the step just taken

    def signals(self) -> dict[str, Tensor]:
        return {"lr": self.lr}


def lr_scale(lr: ScalarOrSchedule | None = None, *, hear: Sequence[str] = ("lr_multiplier",)) -> GradientTransformation:
    """Multiplies a direction by minus the size of the step.

    Args:
        lr: the rate, >= 0: a number, a 0-dim tensor or a schedule, which is called with
            the count of completed steps. None: the `base_lr` that is said to the left or
            handed over by the loop.
        hear: words by which the size is multiplied where somebody says them.

    Returns:
        A transform from directions to updates, in the shapes and dtypes it is given.
        Before the first step it says the rate of the first step (0 where that must be heard).

    Signals:
        hears `base_lr` (only with `lr=None`) and, if anyone says it, `lr_multiplier`;
        says `lr`, the size of the step just taken, in units of params per unit of direction.

    Raises:
        ValueError: `lr` is a negative number; at the first `update`, nobody says `base_lr`.

    Example:
        >>> size = fo.lr_scale(0.5)
        >>> updates, state = size.update(torch.tensor([2.0]), size.init(torch.zeros(1)), signals={"lr_multiplier": torch.tensor(3.0)})
        >>> updates, state.lr
        (tensor([-3.]), tensor(1.5000, dtype=torch.float64))
    """
    if lr is not None:
        check.schedule_or(check.nonnegative, "lr_scale", "lr", lr)
    hear = (hear,) if isinstance(hear, str) else tuple(hear)
    scheduled = callable(lr)

    def first(params: TensorTree) -> Tensor:
        if lr is None:
            return tree.scalar(0.0, params)
        value = lr(torch.zeros((), dtype=torch.int64, device=tree.device(params))) if scheduled else lr
        return tree.scalar(value, params).clone()

    def init(params: TensorTree) -> LrScaleState | ScheduledLrScaleState:
        if scheduled:
            return ScheduledLrScaleState(count=torch.zeros((), dtype=torch.int64, device=tree.device(params)), lr=first(params))
        return LrScaleState(lr=first(params))

    def update(updates: TensorTree, state, params=None, *, signals=None, **extra):
        if scheduled:
            size = tree.scalar(lr(state.count), state.lr)
        elif lr is None:
            base = words.need(signals, "lr_scale", "base_lr", "pass lr=, put a roulette to its left, or hand it over: update(..., signals={'base_lr': lr})")
            size = tree.scalar(base, state.lr).clone()  # the word is a leaf of its speaker's state
        else:
            size = tree.scalar(lr, state.lr)
        for word in hear:
            factor = words.hear(signals, word)
            if factor is not None:
                size = size * factor
        if size.dtype != state.lr.dtype:
            size = size.to(state.lr.dtype)
        (downhill,) = moments.once(updates, -size)
        updates = tree.map(lambda direction: downhill * direction, updates)
        if scheduled:
            return updates, ScheduledLrScaleState(count=moments.increment(state.count), lr=size)
        return updates, LrScaleState(lr=size)

    hears = dict.fromkeys(hear, "if said")
    if lr is None:
        hears = {"base_lr": "needed", **hears}
    return GradientTransformation(init, update, name="lr_scale", hears=hears, leafwise=True, leaves="complex")


def scale_by_signal(word: str) -> GradientTransformation:
    """Multiplies what passes by a word said to its left in this step.

    Args:
        word: what to hear, for instance "lr_multiplier".

    Raises:
        ValueError: at `init` of the chain, nobody to the left says it.

    Example:
        >>> stretch = fo.scale_by_signal("lr_multiplier")
        >>> stretch.update(torch.ones(2), stretch.init(torch.ones(2)), signals={"lr_multiplier": torch.tensor(2.0)})[0]
        tensor([2., 2.])
    """
    if not isinstance(word, str) or not word:
        raise TypeError(f"scale_by_signal: word must be a non-empty string, got {word!r}")

    def update(updates: TensorTree, state: EmptyState, params=None, *, signals=None, **extra):
        factor = words.need(signals, "scale_by_signal", word, "put a link that says it to its left")
        return tree.map(lambda u: factor * u, updates), state

    return GradientTransformation(lambda params: EmptyState(), update, name="scale_by_signal", hears={word: "needed"}, leafwise=True, leaves="complex")
