"""lr_scale: give a direction its size and turn it downhill; the only link that does.

    size_t = lr(t-1) * product of the words it hears,   u_t = -size_t * direction_t

`scale_by_signal` multiplies by a word and nothing else. After optax's
scale_by_learning_rate (0.2.8); that the size hears others is ours.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from funcopt.core import GradientTransformation, ScalarOrSchedule, TensorTree, check, moments, rates, signals as words, tree
from funcopt.core.math import entrywise
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


def lr_scale(lr: ScalarOrSchedule | None = None, *, hear: Sequence[str] = words.MULTIPLIERS) -> GradientTransformation:
    """Multiplies a direction by minus the size of the step.

    Args:
        lr: the rate, >= 0: a number, a 0-dim tensor or a schedule, which is called with
            the count of completed steps. None: the `base_lr` that is said to the left or
            handed over by the loop.
        hear: words by which the size is multiplied where somebody says them.

    Returns:
        A transform from directions to updates, in the shapes and dtypes it is given.
        Before the first step it says the rate of the first step (0 where that must be heard).

    After a NaN:
        That entry of this step is NaN, the next is clean.

    Signals:
        hears `base_lr` (only with `lr=None`) and, if anyone says them, `lr_multiplier` and
        `rate_multiplier`; says `lr`, the size of the step just taken, in units of params per unit of direction.

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

    def init(params: TensorTree) -> LrScaleState | ScheduledLrScaleState:
        first = rates.first("lr_scale", lr, params)
        return ScheduledLrScaleState(count=moments.zero_count(params), lr=first) if scheduled else LrScaleState(lr=first)

    def update(updates: TensorTree, state: Any, params: TensorTree | None = None, *, signals: Any = None, **extra: Any):
        if lr is None:
            base = words.need(
                signals,
                "lr_scale",
                "base_lr",
                "pass lr=, put a roulette to its left, or hand it over: update(..., signals={'base_lr': lr})",
            )
            size = tree.scalar(base, state.lr).clone()  # the word is a leaf of its speaker's state
        else:
            size = tree.scalar(check.value_at("lr_scale", "lr", lr, state.count) if callable(lr) else lr, state.lr)
        for word in hear:
            factor = words.hear(signals, word)
            if factor is not None:
                size = size * factor
        if size.dtype != state.lr.dtype:
            size = size.to(state.lr.dtype)
        (downhill,) = entrywise.once(updates, -size)
        updates = tree.map(lambda direction: downhill * direction, updates)
        if scheduled:
            return updates, ScheduledLrScaleState(count=moments.increment(state.count), lr=size)
        return updates, LrScaleState(lr=size)

    hears = dict.fromkeys(hear, "if said")
    if lr is None:
        hears = {"base_lr": "needed", **hears}
    return GradientTransformation(init, update, name="lr_scale", hears=hears, flattenable=True, leaves="complex", per_leaf=True, turns=True)


def scale_by_signal(word: str) -> GradientTransformation[EmptyState]:
    """Multiplies what passes by a word said to its left in this step.

    Args:
        word: what to hear, for instance "lr_multiplier".

    Returns:
        A transformation that keeps shapes and dtypes, and no state.

    After a NaN:
        That entry of this step is NaN, the next is clean.

    Raises:
        ValueError: at `init` of the chain, nobody to the left says it.
        TypeError: `word` is no string, or empty.

    Example:
        >>> stretch = fo.scale_by_signal("lr_multiplier")
        >>> stretch.update(torch.ones(2), stretch.init(torch.ones(2)), signals={"lr_multiplier": torch.tensor(2.0)})[0]
        tensor([2., 2.])
    """
    if not isinstance(word, str) or not word:
        raise TypeError(f"scale_by_signal: word must be a non-empty string, got {word!r}")

    def update(updates: TensorTree, state: EmptyState, params: TensorTree | None = None, *, signals: Any = None, **extra: Any):
        factor = words.need(signals, "scale_by_signal", word, "put a link that says it to its left")
        return tree.map(lambda u: factor * u, updates), state

    return GradientTransformation(
        lambda params: EmptyState(),
        update,
        name="scale_by_signal",
        hears={word: "needed"},
        flattenable=True,
        leaves="complex",
        per_leaf=True,
        turns=False,
    )
