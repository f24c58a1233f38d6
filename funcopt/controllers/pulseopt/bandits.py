"""Discounted UCB: bandits with several rows of statistics, as pure functions on small tensors.

    select:  arms below `warmup` visits: those of them that were visited least
             else n_a = max(N_a, floor),  score_a = S_a / n_a + c sqrt(ln(1 + sum N) / n_a),
             and the arms within 1e-12 of the best
    update:  N <- d N, S <- d S (all arms);  N_a += 1, S_a += reward, visits_a += 1

Among equals a priority decides. `C` bandits of at most `K` arms stand side by side
in one tensor. With contexts each has `R = 1 + contexts` rows: row 0, the global one,
learns from everything and is never chosen from; a context's row begins as a copy of
the global row when it is first chosen from, and is discounted only when it learns.

Source: Garivier and Moulines, "On Upper-Confidence Bound Policies for Switching
Bandit Problems", 2011. Reference: the controllers of pulseopt 0.3.0.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import Scalar, check, tree
from funcopt.core.versions import compiling

WEIGHT, SUM, WARMED, VISITS, EARNED = range(5)
MARGIN = 1e-12  # scores this close are equal


class Ucb(NamedTuple):
    """What a bandit is told.

    exploration: the factor c of the bonus, >= 0, in units of reward.
    discount: share of the past kept at an update, in (0, 1]; the memory is about
        1 / (1 - discount) updates.
    warmup: visits that every arm is given first.
    floor: least weight in a denominator, > 0.
    prior: whether a context's row begins as a copy of the global one, else at zero.
    """

    exploration: Scalar = 1.0
    discount: Scalar = 0.95
    warmup: int = 1
    floor: float = 1e-12
    prior: bool = True


class Bandits(NamedTuple):
    statistics: Tensor  # [5, C, R, K]: discounted weights and reward sums, visits that count for the warm-up, own visits, own rewards
    created: Tensor  # bool [C, R]; whether a row has begun


class Choice(NamedTuple):
    scores: Tensor  # [C, K]; -inf for arms that a bandit does not have
    warming: Tensor  # bool [C]; the choice is of the warm-up
    best: Tensor  # bool [C, K]; the arms among which a priority decides


def check_settings(where: str, settings: Ucb) -> None:
    check.nonnegative(where, "exploration", settings.exploration)
    if check.number(where, "discount", settings.discount) and not 0 < settings.discount <= 1:
        raise ValueError(f"{where}: discount must be in (0, 1], got {settings.discount}")
    check.integer(where, "warmup", settings.warmup, 0)
    check.positive(where, "floor", settings.floor)


def vector(values: Sequence[float], device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Numbers of the configuration on the device, without waiting for it."""
    return torch.tensor(values, dtype=dtype or tree.scalar_dtype(device), device="cpu").to(device, non_blocking=True)


def one_hot(index: Tensor, size: int) -> Tensor:
    """Bools [..., size], true at `index` (integers [...])."""
    return torch.arange(size, device=index.device) == index.unsqueeze(-1)


def is_deep(bandits: Any) -> bool:
    """Whether choices hang on choices: several rows, or more than a bandit for each axis."""
    return isinstance(bandits, Bandits) and (bandits.created.shape[-1] > 1 or bandits.created.shape[-2] > 2)


def settled(deep: bool, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors, of one shape and dtype, worked out here if they are `deep`.

    The compiler works out once what is stacked and taken apart again; else it writes small tensors out in
    every place that uses them, and chains of choices grow until they never finish compiling. Shallow ones
    are better off with that.
    """
    return torch.stack([*tensors, tensors[0]]).unbind()[:-1] if deep and compiling() else tensors


def init(arms: Sequence[int], rows: int = 1, *, device: torch.device | str = "cpu") -> Bandits:
    """Bandits that have seen nothing.

    Args:
        arms: how many arms each has, >= 1.
        rows: 1, or 1 + the number of contexts.
    """
    for count in arms:
        check.integer("bandits", "arms", count, 1)
    check.integer("bandits", "rows", rows, 1)
    device = torch.device(device)
    created = torch.zeros(len(arms), rows, dtype=torch.bool, device=device)
    created[:, 0] = True
    return Bandits(statistics=torch.zeros(5, len(arms), rows, max(arms), dtype=tree.scalar_dtype(device), device=device), created=created)


def existing(arms: Sequence[int], device: torch.device) -> Tensor | None:
    """Bools [C, K], which arms exist; None where all do."""
    if len(set(arms)) == 1:
        return None
    return torch.arange(max(arms), device=device) < vector(arms, device, torch.int64).unsqueeze(-1)


def in_use(bandits: Bandits, row: Tensor | None, settings: Ucb) -> Tensor:
    """The statistics [5, C, K] to choose from: those of a row, or of the global row where it has not begun."""
    if row is None:
        return bandits.statistics[:, :, 0]
    here = one_hot(row, bandits.created.shape[-1])
    begun = (bandits.created & here).any(-1).unsqueeze(-1)
    start = bandits.statistics[:, :, 0] if settings.prior else 0.0
    return torch.where(begun, (bandits.statistics * here.unsqueeze(-1)).sum(-2), start)


def choices(bandits: Bandits, row: Tensor | None, settings: Ucb, exists: Tensor | None = None) -> Choice:
    """Which arms are best in each bandit.

    Args:
        row: 0-dim int64, the row to choose from; None where there is but one.
        exists: what `existing` gives.
    """
    deep = is_deep(bandits)
    weights, sums, warmed = settled(deep, *in_use(bandits, row, settings)[:3].unbind())
    n = weights.clamp(min=settings.floor)
    scores = sums / n + settings.exploration * (torch.log1p(weights.sum(-1, keepdim=True)) / n).sqrt()
    (scores,) = settled(deep, scores.to(weights.dtype))
    pending = warmed < settings.warmup
    if exists is not None:
        scores, pending = torch.where(exists, scores, -torch.inf), pending & exists
    warming = pending.any(-1)
    visits = torch.where(pending, warmed, torch.inf)
    least = pending & (visits == visits.amin(-1, keepdim=True))
    best = scores.amax(-1, keepdim=True) - scores <= MARGIN
    (best,) = settled(deep, torch.where(warming.unsqueeze(-1), least, best))
    return Choice(scores=scores, warming=warming, best=best)


def pick(best: Tensor, priorities: Tensor) -> Tensor:
    """The arm of the highest priority (>= 0) among the best, the first of equals; int64 [C]."""
    return torch.where(best, priorities, -1).argmax(-1)


def begin_rows(bandits: Bandits, row: Tensor | None, chooses: Tensor, settings: Ucb) -> Bandits:
    """Lets the row begin in the bandits that choose from it; nothing happens where it has begun.

    Args:
        chooses: bool [C].
    """
    if row is None:
        return bandits
    here = one_hot(row, bandits.created.shape[-1]) & chooses.unsqueeze(-1)
    fresh = (here & ~bandits.created).unsqueeze(-1)
    statistics = bandits.statistics
    # A row inherits what it is to know, not the visits and rewards of its own.
    start = torch.cat([statistics[:VISITS, :, :1], torch.zeros_like(statistics[VISITS:, :, :1])]) if settings.prior else 0.0
    return Bandits(statistics=settled(True, torch.where(fresh, start, statistics))[0], created=bandits.created | here)


def update(bandits: Bandits, row: Tensor | None, arms: Tensor, learns: Tensor, reward: Tensor, weight: Tensor, settings: Ucb) -> Bandits:
    """Pays the arms that earned: the global row and the active one of every bandit that learns.

    Args:
        row: 0-dim int64, the active row; None where there is but one.
        arms: int64 [C].
        learns: bool [C].
        reward: 0-dim, finite.
        weight: 0-dim, >= 0, what the observation counts; 0 leaves everything as it is.
    """
    rows, arm_count = bandits.statistics.shape[-2:]
    touched = one_hot(torch.zeros_like(arms[0]), rows)
    if row is not None:
        touched = touched | one_hot(row, rows)
    touched = (touched & learns.unsqueeze(-1) & (weight > 0)).unsqueeze(-1)  # [C, R, 1]
    paid = touched & one_hot(arms, arm_count).unsqueeze(-2)  # [C, R, K]
    weights, sums, warmed, visits, earned = bandits.statistics.unbind()
    weights, sums = (torch.where(touched, settings.discount * x, x).to(x.dtype) for x in (weights, sums))
    once = paid.to(weights.dtype)
    statistics = [weights + once * weight, sums + once * (weight * reward), warmed + once, visits + once, earned + once * reward]
    return Bandits(statistics=torch.stack(statistics), created=bandits.created)
