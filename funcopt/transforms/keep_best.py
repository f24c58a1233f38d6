"""keep_best: the params of the best validation loss so far.

    at a step that is told validation_loss < best:   best = validation_loss,  kept = averaged_params(state, params)

A validation loss belongs to the params before the step that is told it, averaged where somebody inside
averages. On data with wrong labels this is worth more than any schedule of the rate.
"""

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, TensorTree, check, moments, read_signals, tree
from funcopt.core.compression.held import decompress_state
from funcopt.core.masking import map_shown
from funcopt.core.states.find import find_all
from funcopt.core.wrap import field, wrapped
from funcopt.transforms.average_params import averaged_params, one_for_each_leaf

__all__ = ["KeepBestState", "best_params", "keep_best"]


class KeepBestState(NamedTuple):
    count: Tensor  # steps taken
    best_loss: Tensor  # the least validation loss that was told; inf before the first
    best_step: Tensor  # steps taken when it was told
    best: TensorTree  # like params
    inner: Any  # of what is wrapped

    def signals(self) -> dict[str, Tensor]:
        return {**read_signals(self.inner), "best_loss": self.best_loss, "best_step": self.best_step}


def keep_best(tx: GradientTransformation) -> GradientTransformation:
    """Keeps the params at which the validation loss was least.

    Args:
        tx: any optimizer; with `average_params` or `schedule_free` inside, their averages are what is kept.

    Returns:
        A transformation with the updates of `tx`. Holds one tree like `params` more, and takes
        `validation_loss=`, a number or 0-dim tensor, on those steps on which one was
        measured: at `averaged_params(state, params)`, before the step. One that is NaN is no best.

    After a NaN:
        That entry of this step is NaN, the next is clean.

    Signals:
        those of `tx`, `best_loss` and `best_step`.

    Raises:
        TypeError: `tx` is no transformation.
        ValueError: at an `update` with a validation loss, no params.

    Example:
        >>> tx = fo.keep_best(fo.sgd(1.0))
        >>> params = torch.tensor([3.0])
        >>> state = tx.init(params)
        >>> for gradient, validation in ((1.0, 5.0), (1.0, 4.0), (1.0, 6.0)):  # at 3, at 2, at 1
        ...     updates, state = tx.update(torch.tensor([gradient]), state, params, validation_loss=validation)
        ...     params = fo.apply_updates(params, updates)
        >>> fo.best_params(state, params), params
        (tensor([2.]), tensor([0.]))
    """
    where = "keep_best"

    def init(params: TensorTree) -> KeepBestState:
        return KeepBestState(
            count=moments.zero_count(params),
            best_loss=tree.scalar(float("inf"), params),
            best_step=moments.zero_count(params),
            best=tree.clone(params),
            inner=tx.init(params),
        )

    def update(
        updates: TensorTree, state: KeepBestState, params: TensorTree | None = None, *, validation_loss: Scalar | None = None, **extra: Any
    ):
        best_loss, best_step, best = state.best_loss, state.best_step, state.best
        if validation_loss is not None:
            check.params(where, params)
            told = tree.scalar(check.told(where, "validation_loss", validation_loss), best_loss)
            better = told < best_loss
            best_loss = torch.where(better, told, best_loss)
            best_step = torch.where(better, state.count, best_step)
            best = tree.where(better, averaged_params(state.inner, params), best)
        updates, inner = tx.update(updates, state.inner, params, **extra)
        return updates, KeepBestState(
            count=moments.increment(state.count), best_loss=best_loss, best_step=best_step, best=best, inner=inner
        )

    return wrapped(init, update, tx, field("inner"), name=f"{where} {tx.name}", again=keep_best)


def best_params(state: Any, params: TensorTree) -> TensorTree:
    """The params of the least validation loss; where none was told or nobody keeps them, `averaged_params(state, params)`.

    Args:
        state: of any transformation.
        params: as they are now.

    Returns:
        A tree like `params`.

    Raises:
        KeyError: several parts of the state keep the best of one leaf, none inside the other.

    Example:
        >>> tx, params = fo.keep_best(fo.sgd(1.0)), torch.tensor([3.0])
        >>> updates, state = tx.update(torch.tensor([1.0]), tx.init(params), params, validation_loss=5.0)
        >>> fo.best_params(state, fo.apply_updates(params, updates))
        tensor([3.])
    """
    found = one_for_each_leaf("best_params", find_all(decompress_state(state), KeepBestState), lambda kept: kept.best, params)
    params = averaged_params(state, params)
    for kept in found:
        params = tree.cast_like(map_shown("best_params", partial(_better, kept.best_loss.isfinite()), kept.best, params), params)
    return params


def _better(told: Tensor, best: Tensor, now: Tensor) -> Tensor:
    return torch.where(told, best, now)
