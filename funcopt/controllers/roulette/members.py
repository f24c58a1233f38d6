"""The members of a pool: directions with a rate of their own or without, and ready-made optimizers that have their size.

    Member(direction, lr)    direction_t as it is,             says lr
    Member(direction)        direction_t as it is,             says start s_t, found on the way (`member_rates.py`)
    Member(optimizer)        -step_t / lr_t, 0 where lr_t = 0, says the lr_t that its state says

So whoever multiplies by the rate and turns downhill does so once for either kind.
"""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import Tensor

from funcopt.controllers.roulette.member_rates import START
from funcopt.controllers.roulette.transfer import Roles
from funcopt.core import GradientTransformation, Scalar, TensorTree, check, read_signals, signals as words, tree
from funcopt.core.door.kinds import stranger
from funcopt.core.searched import unfindable

__all__ = ["Member"]


@dataclass(frozen=True, eq=False)
class Member:
    """One optimizer of a pool.

    Args:
        transformation: a direction, or a ready-made optimizer whose state says `lr`.
            Members hear nothing of the chain around the pool.
        lr: the rate of a direction, >= 0; a number or a 0-dim tensor. None: a direction
            finds its rate, each by the steps that it makes itself, as `find_rate` does.
        group: the group it belongs to, for switch rules and replacements.
        sized: it has its size and cannot say it. Its step is handed on as it is and its
            rate is read as 1.
        anchors: `(member_state, params) -> member_state`, called with
            `on_activate="resync"` when it becomes current again.
        roles: what its averages mean, for state transfer (`Roles`); None: read off the
            names of its fields.
        rate_free: whether it finds its rate; None: where it has no `lr` and declares
            that it leaves the step on the side of the gradient (`turns=False`).
        start: where the search begins, > 0, far below what may be right; None: 1e-6.

    Raises:
        TypeError: `transformation` is none, or `lr` is a schedule.
        ValueError: `lr` is negative, or given to a member that is `sized` or finds its
            rate; it declares steps of one length (`scale_by_lion`, `sign`) or a rate of its own (`scale_by_dog`) and
            has none given;
            `start` is given to a member with a rate.

    Example:
        >>> fo.Member(fo.scale_by_adam(), lr=1e-3).finds_rate, fo.Member(fo.scale_by_adam()).finds_rate, fo.Member(fo.adam(1e-3)).finds_rate
        (False, True, False)
    """

    transformation: GradientTransformation
    lr: Scalar | None = None
    _: KW_ONLY
    group: str | None = None
    sized: bool = False
    anchors: Callable[[Any, TensorTree], Any] | None = None
    roles: Any = None
    rate_free: bool | None = None
    start: Scalar | None = None

    def __post_init__(self):
        if self.roles is not None and not isinstance(self.roles, Roles):
            raise TypeError(f"Member: roles must be fo.Roles or None, got {self.roles!r}")
        if not isinstance(self.transformation, GradientTransformation):
            raise TypeError(f"Member: transformation must be a GradientTransformation, {stranger(self.transformation)}")
        if callable(self.lr) and not isinstance(self.lr, Tensor):
            raise TypeError(
                "Member: lr must be a number or a 0-dim tensor, got a schedule; make the member a ready-made optimizer with that schedule"
            )
        if self.lr is not None:
            check.nonnegative("Member", "lr", self.lr)
        if self.lr is not None and self.sized:
            raise ValueError("Member: lr must be left out where sized=True, for such a step has its size already")
        if self.group is not None and (not isinstance(self.group, str) or not self.group):
            raise TypeError(f"Member: group must be a non-empty string, got {self.group!r}")
        self._check_search()

    def _check_search(self) -> None:
        name = self.transformation.name
        if self.rate_free not in (None, True, False):
            raise TypeError(f"Member: rate_free must be True, False or None, got {self.rate_free!r}")
        if self.rate_free:
            for given, what in (
                (self.lr is not None, "lr"),
                (self.sized, "sized=True"),
                (self.transformation.turns, f"{name}, which sizes its step itself,"),
            ):
                if given:
                    raise ValueError(f"Member: rate_free=True is for a direction that finds its rate; leave {what} out")
        if self.start is not None:
            check.positive("Member", "start", self.start)
            if not self.finds_rate:
                raise ValueError(
                    "Member: start is where the search of a member without a rate begins, and this one has its rate; leave start out"
                )
        if self.finds_rate and (reason := unfindable(self.transformation)) is not None:
            raise ValueError(f"Member: {reason}; give it its rate, Member(..., lr=...)")

    @property
    def finds_rate(self) -> bool:
        """Whether its rate is found on the way."""
        tx = self.transformation
        if self.rate_free is None:  # what must be heard and is not would be lost without a word
            return self.lr is None and not self.sized and tx.turns is False and not tx.must_be_heard
        return bool(self.rate_free)

    @property
    def has_size(self) -> bool:
        """Whether its step has its size already."""
        return self.lr is None and not self.finds_rate

    @property
    def first_rate(self) -> Scalar:
        """The rate with which it begins; 1 if it has its size."""
        if self.finds_rate:
            return START if self.start is None else self.start
        return 1.0 if self.lr is None else self.lr


def checked_pool(where: str, pool: Mapping[str, Member]) -> dict[str, Member]:
    """The pool as a dict; a transformation in place of a member is one without `lr`."""
    if not isinstance(pool, Mapping):
        raise TypeError(
            f'{where}: pool must be a mapping from names to members, such as {{"adam": Member(scale_by_adam(), lr=1e-3)}}, got {pool!r}'
        )
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
            raise ValueError(
                f"{where}: member '{name}' needs 'base_lr', and members hear nothing of the chain around the pool; give it its own rate"
            )
        says = "lr" in said
        if says and member.finds_rate:
            raise ValueError(
                f"{where}: member '{name}' says 'lr', so it has its rate, though it does not turn downhill; give the direction alone"
            )
        if says and member.lr is not None:
            raise ValueError(
                f"{where}: member '{name}' says 'lr', so its step has its size already; leave lr= out, or give the direction alone"
            )
        if not says and member.has_size and not member.sized:
            raise ValueError(
                f"{where}: member '{name}' has no lr and says none; give the direction its rate, Member(..., lr=...), "
                "let it be found, Member(..., rate_free=True), or say Member(..., sized=True) if its step has its size already"
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
