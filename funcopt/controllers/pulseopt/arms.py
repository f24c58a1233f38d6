"""The two axes of `ucb_episodes`, and which bandits steer them.

    independent: one bandit for the LR arm, one for the noise arm
    conditional: one for the LR arm, one for the noise arm under each LR arm; only the one that chose learns
    joint:       one for all pairs, pair = lr_arm * (number of noise arms) + noise_arm
    random:      drawn, nothing learns

An axis with one candidate has no bandit.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from funcopt.controllers.pulseopt import bandits
from funcopt.controllers.pulseopt.bandits import Ucb, one_hot
from funcopt.core import check

Control = Literal["independent", "conditional", "joint", "random"]
CONTROLS = get_args(Control)


class Axes(NamedTuple):
    """Numbers of arms, and where the bandits of an axis begin: LR first."""

    lr_arms: int
    noise_arms: int
    control: Control

    @property
    def conditional(self) -> bool:
        return self.control == "conditional" and self.lr_arms > 1

    @property
    def lr_bandits(self) -> int:
        return int(self.lr_arms > 1)

    @property
    def bandits(self) -> tuple[int, ...]:
        """How many arms each bandit has."""
        if self.control == "joint":
            return (self.lr_arms * self.noise_arms,) if self.lr_arms * self.noise_arms > 1 else ()
        noise = (self.noise_arms,) * (self.lr_arms if self.conditional else 1) if self.noise_arms > 1 else ()
        return (self.lr_arms,) * self.lr_bandits + noise

    @property
    def learns(self) -> bool:
        return self.control != "random" and bool(self.bandits)

    @property
    def in_lock_step(self) -> bool:
        """Two bandits with equally many arms and the same rewards become permutations of each other."""
        return self.control == "independent" and self.lr_arms == self.noise_arms > 1


def candidates(where: str, name: str, values: Sequence[float], positive: bool) -> tuple[float, ...]:
    """A list of arms: numbers, finite, in range and all different."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Sequence):
        raise TypeError(f"{where}: {name} must be a sequence of numbers, got {values!r}")
    if not values:
        raise ValueError(f"{where}: {name} must not be empty")
    for index, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{where}: {name}[{index}] must be a number, got {value!r}")
        (check.positive if positive else check.nonnegative)(where, f"{name}[{index}]", value)
        if value in values[:index]:
            raise ValueError(f"{where}: {name} must differ from each other, got {value} twice")
    return tuple(float(value) for value in values)


def choose(axes: Axes, state: Any, row: Tensor | None, settings: Ucb, priorities: Tensor) -> tuple[Tensor, Tensor, Any]:
    """LR arm and noise arm of the next episode, and the bandits, in which the row has begun.

    Args:
        state: the bandits; anything where nothing learns.
        row: 0-dim int64, the active row; None where there is but one.
        priorities: [C, K], which of equals goes first.
    """
    exists = bandits.existing(axes.bandits, priorities.device)
    if not axes.learns:
        every = torch.ones_like(priorities, dtype=torch.bool) if exists is None else exists
        return *_split(axes, bandits.pick(every, priorities)), state
    deep = bandits.is_deep(state)
    (picked,) = bandits.settled(deep, bandits.pick(bandits.choices(state, row, settings, exists).best, priorities))
    lr_arm, noise_arm = bandits.settled(deep, *_split(axes, picked))
    _, at_work = chosen(axes, lr_arm, noise_arm)
    return lr_arm, noise_arm, bandits.begin_rows(state, row, at_work, settings)


def _split(axes: Axes, arms: Tensor) -> tuple[Tensor, Tensor]:
    """The arms that the bandits picked, [C], as LR arm and noise arm."""
    if axes.control == "joint":
        return arms[0] // axes.noise_arms, arms[0] % axes.noise_arms
    none = torch.zeros_like(arms[0])
    lr_arm = arms[0] if axes.lr_bandits else none
    noise = arms[axes.lr_bandits :]
    if axes.noise_arms == 1:
        return lr_arm, none
    if axes.conditional:
        return lr_arm, (noise * one_hot(lr_arm, axes.lr_arms)).sum(-1)
    return lr_arm, noise[0]


def chosen(axes: Axes, lr_arm: Tensor, noise_arm: Tensor) -> tuple[Tensor, Tensor]:
    """In terms of the bandits: their arms, int64 [C], and which of them chose, bool [C]."""
    if axes.control == "joint":
        return (lr_arm * axes.noise_arms + noise_arm).unsqueeze(0), torch.ones_like(lr_arm, dtype=torch.bool).unsqueeze(0)
    arms, chose = [], []
    yes = torch.ones_like(lr_arm, dtype=torch.bool)
    if axes.lr_bandits:
        arms.append(lr_arm)
        chose.append(yes)
    if axes.noise_arms > 1 and axes.conditional:
        arms += [noise_arm] * axes.lr_arms
        chose += [lr_arm == j for j in range(axes.lr_arms)]
    elif axes.noise_arms > 1:
        arms.append(noise_arm)
        chose.append(yes)
    return torch.stack(arms), torch.stack(chose)
