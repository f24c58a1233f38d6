"""What `ucb_episodes` remembers, and what it draws.

The state is made of few tensors: one for the statistics of all bandits, one for the
sums of the open episode, one for the report on the last. Step, start, episode and
key live on the CPU unless all is to be selected on the device.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.controllers.pulseopt.bandits import Bandits
from funcopt.core import GradientTransformation, TensorTree, random
from funcopt.core.sent import sent
from funcopt.transforms.noise import normal_like

__all__ = ["UcbEpisodesState"]

REPORT = (
    *("reward", "base", "instability", "penalty", "unclipped", "start", "ema", "first", "last"),
    *("lr_arm", "noise_arm", "bucket", "first_step", "steps", "episode", "lr_multiplier", "noise_std"),
)


class UcbEpisodesState(NamedTuple):
    step: Tensor  # steps taken, int64; with key, start and episode on the CPU unless dispatch="select"
    start: Tensor  # the step at which the open episode began; `step` where none is open
    episode: Tensor  # episodes closed
    key: Tensor  # int64 [2], or the state of `draw`
    bandits: Any  # Bandits; EmptyState with random control or a single pair
    arms: Tensor  # int64 [3]: LR arm, noise arm, bucket of the episode
    lr_multiplier: Tensor  # of the last step
    noise_std: Tensor  # of the last step
    episode_reward: Tensor  # the last one paid
    losses: Tensor  # [7], with the slope as reward [8], running sums of the open episode
    ends: Any  # [window + 1], last losses of the last episodes and how many there were; EmptyState without contexts
    scale: Any  # [3], number, mean and squared deviations of the rewards; EmptyState unless they are standardized
    report: Tensor  # [17], what the last closed episode was and earned
    ignored_losses: Tensor  # int64; losses that were not finite
    discarded_episodes: Tensor  # int64; episodes without a reward

    def signals(self) -> dict[str, Tensor]:
        return {"lr_multiplier": self.lr_multiplier, "noise_std": self.noise_std, "episode_reward": self.episode_reward}


class UcbEpisodes(GradientTransformation):
    """A transformation with episodes: `finalize(state) -> state` closes the open one."""

    finalize: Callable[[Any], Any]  # a hook


class KeyedDraws:
    """The draws of a run, as functions of its key: what `draw=` takes has these three."""

    def __init__(self, key: Tensor):
        self.key = key

    def init(self) -> Tensor:
        return self.key.clone()

    def priorities(self, key: Tensor, episode: Tensor, shape: tuple[int, int]) -> Tensor:
        """Which of equal arms goes first: [C, K], >= 0, the highest wins."""
        return random.bits(random.fold_in(random.fold_in(key, 0), episode), shape)

    def noise(self, key: Tensor, step: Tensor, updates: TensorTree) -> TensorTree:
        """Standard normal noise like `updates`."""
        return normal_like(random.fold_in(random.fold_in(key, 1), step), updates)


def when(condition: bool | Tensor, change: Callable[[UcbEpisodesState], UcbEpisodesState], state: UcbEpisodesState) -> UcbEpisodesState:
    """`change(state)` where the condition holds. A bool branches; a tensor chooses, field by field, where something changes."""
    if isinstance(condition, bool):
        return change(state) if condition else state
    changed = change(state)
    conditions = {condition.device: condition}

    def choose(new: Any, old: Any) -> Any:
        if new is old or not isinstance(new, (Tensor, Bandits)):
            return new
        if isinstance(new, Bandits):
            return Bandits(*map(choose, new, old))
        if new.device not in conditions:
            conditions[new.device] = sent(condition, new.device)
        return torch.where(conditions[new.device], new, old)

    return UcbEpisodesState(*map(choose, changed, state))
