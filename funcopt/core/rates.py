"""The rate of links that size their steps themselves: a number, a schedule or what they hear, times the multipliers that are said."""

from typing import Any

from torch import Tensor

from funcopt.core import check, tree
from funcopt.core.math import moments
from funcopt.core.protocol import ScalarOrSchedule, TensorTree
from funcopt.core.signals import MULTIPLIERS, multiplier, need

__all__ = ["first", "heard", "now"]


def heard(lr: ScalarOrSchedule | None) -> dict[str, str]:
    """The words that such a link hears, and how."""
    return dict.fromkeys(MULTIPLIERS, "if said") | ({"base_lr": "needed"} if lr is None else {})


def first(where: str, lr: ScalarOrSchedule | None, params: TensorTree) -> Tensor:
    """The rate to say before the first step: that of the first (0 where it must be heard)."""
    return tree.scalar(0.0 if lr is None else check.value_at(where, "lr", lr, moments.zero_count(params)), params).clone()


def now(where: str, lr: ScalarOrSchedule | None, count: Tensor, like: Tensor, signals: Any) -> Tensor:
    """The rate of this step, 0-dim in the dtype of `like`.

    Args:
        where: who asks.
        lr: a number, a 0-dim tensor or a schedule of `count`; None: the `base_lr` that is heard.
        like: a 0-dim tensor of the state.
    """
    if lr is None:
        rate = need(signals, where, "base_lr", "pass lr=, or hand it over: update(..., signals={'base_lr': lr})")
    else:
        rate = check.value_at(where, "lr", lr, count)
    return (tree.scalar(rate, like) * multiplier(signals)).to(like.dtype)
