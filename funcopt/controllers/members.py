"""The members of a pool: directions with a rate of their own, and ready-made optimizers that have their size.

    Member(direction, lr)    direction_t as it is,             says lr
    Member(optimizer)        -step_t / lr_t, 0 where lr_t = 0, says the lr_t that its state says

So whoever multiplies by the rate and turns downhill does so once for either kind.
"""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, TensorTree, check, read_signals, signals as words, tree

__all__ = ["Member"]


@dataclass(frozen=True, eq=False)
class Member:
    """One optimizer of a pool.

    Args:
        transformation: a direction (with `lr`), or a ready-made optimizer whose state
            says `lr` (without). Members hear nothing of the chain around the pool.
        lr: the rate of a direction, >= 0; a number or a 0-dim tensor.
        group: the group it belongs to, for switch rules and replacements.
        sized: it has its size and cannot say it. Its step is handed on as it is and its
            rate is read as 1.
        anchors: `(member_state, params) -> member_state`, called with
            `on_activate="resync"` when it becomes current again.
        roles: what its averages mean, for state transfer (`Roles`); None: read off the
            names of its fields.

    Raises:
        TypeError: `transformation` is none, or `lr` is a schedule.
        ValueError: `lr` is negative, or given to a member that is `sized`.

    Example:
        >>> fo.Member(fo.scale_by_adam(), lr=1e-3).sized
        False
    """

    transformation: GradientTransformation
    lr: Scalar | None = None
    _: KW_ONLY
    group: str | None = None
    sized: bool = False
    anchors: Callable[[Any, TensorTree], Any] | None = None
    roles: Any = None

    def __post_init__(self):
        if not isinstance(self.transformation, GradientTransformation):
            raise TypeError(f"Member: transformation must be a GradientTransformation, got {self.transformation!r}")
        if callable(self.lr) and not isinstance(self.lr, Tensor):
            raise TypeError("Member: lr must be a number or a 0-dim tensor, got a schedule; make the member a ready-made optimizer with that schedule")
        if self.lr is not None:
            check.nonnegative("Member", "lr", self.lr)
        if self.lr is not None and self.sized:
            raise ValueError("Member: lr must be left out where sized=True, for such a step has its size already")
        if self.group is not None and (not isinstance(self.group, str) or not self.group):
            raise TypeError(f"Member: group must be a non-empty string, got {self.group!r}")

    @property
    def has_size(self) -> bool:
        """Whether its step has its size already."""
        return self.lr is None


def checked_pool(where: str, pool: Mapping[str, Member]) -> dict[str, Member]:
    """The pool as a dict; a transformation in place of a member is one without `lr`."""
    if not isinstance(pool, Mapping):
        raise TypeError(f'{where}: pool must be a mapping from names to members, such as {{"adam": Member(scale_by_adam(), lr=1e-3)}}, got {pool!r}')
    if not pool:
        raise ValueError(f"{where}: pool must have at least one member")
    members = {}
    for name, member in pool.items():
        if not isinstance(name, str) or not name or "/" in name:
            raise ValueError(f"{where}: a member's name must be a non-empty string without '/', got {name!r}")
        if isinstance(member, GradientTransformation):
            member = Member(member)
        if not isinstance(member, Member):
            raise TypeError(f"{where}: member '{name}' must be a Member, got {member!r}")
        members[name] = member
    return members


def checked_states(where: str, members: Mapping[str, Member], params: TensorTree) -> dict[str, Any]:
    """The first states of all members; what they say must fit what they are."""
    with words.isolated():
        states = {name: member.transformation.init(params) for name, member in members.items()}
    for name, member in members.items():
        said = read_signals(states[name])
        if member.transformation.hears.get("base_lr") == "needed" and "base_lr" not in said:
            raise ValueError(f"{where}: member '{name}' needs 'base_lr', and members hear nothing of the chain around the pool; give it its own rate")
        says = "lr" in said
        if says and member.lr is not None:
            raise ValueError(f"{where}: member '{name}' says 'lr', so its step has its size already; leave lr= out, or give the direction alone")
        if not says and member.has_size and not member.sized:
            raise ValueError(
                f"{where}: member '{name}' has no lr and says none; give the direction its rate, Member(..., lr=...), "
                "or say Member(..., sized=True) if its step has its size already"
            )
    return states


def said_rate(member: Member, state: Any, like: Tensor) -> Tensor | None:
    """What a ready-made member says its rate is; None for a direction; 1 where it cannot say it."""
    if not member.has_size:
        return None
    return torch.ones_like(like) if member.sized else read_signals(state)["lr"]


def run(
    member: Member, updates: TensorTree, state: Any, params: TensorTree | None, like: Tensor, extra: dict[str, Any]
) -> tuple[TensorTree, Any, Tensor | None]:
    """One update of a member: its direction, its new state and what it says its rate is (None for a direction)."""
    alone = words.Signals(None, read_signals(state))  # a scope of its own: its last words, and nothing from outside
    updates, state = member.transformation.update(updates, state, params, signals=alone, **extra)
    if not member.has_size:
        return updates, state, None
    if member.sized:
        return tree.map(torch.neg, updates), state, torch.ones_like(like)
    lr = read_signals(state)["lr"]
    still = lr == 0
    per_step = torch.where(still, 0.0, -1 / torch.where(still, 1.0, lr)).to(lr.dtype)
    return tree.map(lambda step: (per_step * step).to(step.dtype), updates), state, lr
