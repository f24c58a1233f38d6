"""The losses of an episode, what they earn, and the trend from one episode to the next.

    e_1 = x_1,  e_k = alpha x_k + (1 - alpha) e_{k-1}                     (alpha weighs the new loss)
    base        = ln(e_1 + eps) - ln(e_n + eps)                           ("log")
                = (e_1 - e_n) / (|e_1| + eps)                             ("relative", for losses of any sign)
                = -b / se(b),  x_k = a + b k + noise by least squares     ("slope": the fall in units of its noise, for losses of any sign)
    instability = var(x) / (mean(x)^2 + eps)
    reward      = base - lambda instability, clipped

The running sums are those of Welford: sums of squares would cancel. A loss that is
not finite changes nothing.

Reference: pulseopt 0.3.0, which knows "log" alone, whose start is the loss of a single batch, and stops the run where it is undefined.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from funcopt.core import check, tree

Base = Literal["log", "relative", "slope"]
SUMS = ("n", "first", "last", "ema", "mean", "m2", "start")  # and, for "slope", the sum of (k - mean k) (x_k - mean x)
LEAST_NOISE = 1e-12  # share of the variance that counts as noise about the line, at least
IMPROVING, STABLE, WORSENING = range(3)
BUCKETS = ("improving", "stable", "worsening")


class EpisodeLosses(NamedTuple):
    """What a reward is made of, all 0-dim, in units of the loss: the `n` finite losses of an episode.

    `start` is the mean of the first losses (of the first alone, unless asked otherwise),
    `ema` the running mean at the end, `variance` that of the population.
    """

    n: Tensor
    first: Tensor
    last: Tensor
    start: Tensor
    ema: Tensor
    mean: Tensor
    variance: Tensor
    together: Tensor  # sum of (k - mean k) (x_k - mean x) over the k-th losses; 0 unless the reward is "slope"


class Wages(NamedTuple):
    """How an episode is paid; the arguments of `ucb_episodes`."""

    reward: "Base | Reward"
    instability: float
    eps: float
    clip: tuple[float, ...]
    alpha: float
    start_losses: int


class Paid(NamedTuple):
    """What an episode earned, and of what; all 0-dim."""

    reward: Tensor  # clipped; 0 where it is not defined
    base: Tensor
    instability: Tensor
    penalty: Tensor
    unclipped: Tensor
    defined: Tensor  # bool


Reward = Callable[[EpisodeLosses], Tensor]


def check_wages(where: str, wages: Wages) -> None:
    if not callable(wages.reward):
        check.choice(where, "reward", wages.reward, tuple(BASES))
    check.nonnegative(where, "instability", wages.instability)
    check.positive(where, "reward_epsilon", wages.eps)
    for bound in wages.clip:
        check.finite(where, "reward_clip", bound)
    if len(wages.clip) != 2 or wages.clip[0] > wages.clip[1]:
        raise ValueError(f"{where}: reward_clip must be (least, greatest), got {wages.clip}")
    check.finite(where, "ema_alpha", wages.alpha)
    if not 0 < wages.alpha <= 1:
        raise ValueError(f"{where}: ema_alpha must be in (0, 1], got {wages.alpha}")
    check.integer(where, "start_losses", wages.start_losses, 1)


def how_many_sums(wages: Wages) -> int:
    return len(SUMS) + (wages.reward == "slope")


def observe(sums: Tensor, loss: Tensor, wages: Wages) -> Tensor:
    """The running sums with one more loss (0-dim, of their dtype)."""
    n, first, _, ema, mean, m2, start, *together = sums.unbind()
    empty = n == 0
    n = n + 1
    deviation = loss - mean
    mean = mean + deviation / n
    # n less the mean n / 2 before, times the deviation from the mean after
    together = [total + 0.5 * (n - 1) * deviation for total in together]
    first = torch.where(empty, loss, first)
    ema = torch.where(empty, loss, wages.alpha * loss + (1 - wages.alpha) * ema)
    start = first if wages.start_losses == 1 else torch.where(n <= wages.start_losses, mean, start)
    return torch.where(
        torch.isfinite(loss), torch.stack([n, first, loss, ema, mean, m2 + deviation * (loss - mean), start, *together]), sums
    )


def summary(sums: Tensor) -> EpisodeLosses:
    n, first, last, ema, mean, m2, start, *together = sums.unbind()
    total = together[0] if together else torch.zeros_like(n)
    return EpisodeLosses(n=n, first=first, last=last, start=start, ema=ema, mean=mean, variance=m2 / n.clamp(min=1), together=total)


def log_improvement(losses: EpisodeLosses, eps: float) -> Tensor:
    """`ln(start + eps) - ln(ema + eps)`; NaN where one of them has no logarithm."""
    start, end = losses.start + eps, losses.ema + eps
    valid = (start > 0) & (end > 0)
    base = torch.where(valid, start, 1).log() - torch.where(valid, end, 1).log()
    return torch.where(valid, base, torch.nan)


def relative_improvement(losses: EpisodeLosses, eps: float) -> Tensor:
    """`(start - ema) / (|start| + eps)`."""
    return (losses.start - losses.ema) / (losses.start.abs() + eps)


def fall_in_noise(losses: EpisodeLosses, eps: float) -> Tensor:
    """`-b / se(b)` of the line through the losses; 0 where they are all equal, beyond any clip where all lie on the line."""
    n, m2 = losses.n, losses.variance * losses.n
    spread = n * (n * n - 1) / 12  # of 1 ... n about their mean
    wide = torch.where(spread > 0, spread, 1)
    noise = torch.maximum(m2 - losses.together.square() / wide, LEAST_NOISE * m2)
    varies = noise > 0
    fall = -losses.together * ((n - 2).clamp(min=1) / (torch.where(varies, noise, 1) * wide)).sqrt()
    return torch.where(varies, fall, 0)


BASES: dict[Base, Callable[[EpisodeLosses, float], Tensor]] = {
    "log": log_improvement,
    "relative": relative_improvement,
    "slope": fall_in_noise,
}


def pay(losses: EpisodeLosses, wages: Wages, scale: Tensor | None = None) -> tuple[Paid, Tensor | None]:
    """The reward of an episode.

    Args:
        scale: number, mean and squared deviations of the rewards so far, [3], to count
            this one in standard deviations from their mean; None: as it is.

    Returns:
        The reward, and the new `scale`.
    """
    if callable(wages.reward):
        base = tree.scalar(wages.reward(losses), losses.n).to(losses.n)
    else:
        base = BASES[wages.reward](losses, wages.eps)
    instability = losses.variance / (losses.mean.square() + wages.eps)
    penalty = wages.instability * instability
    unclipped = base - penalty
    defined = (losses.n > 0) & torch.isfinite(unclipped)
    counted = torch.where(defined, unclipped, 0)
    if scale is not None:
        counted, scale = _standardized(counted, defined, scale)
    reward = torch.where(defined, counted.clamp(*wages.clip), 0)
    return Paid(reward=reward, base=base, instability=instability, penalty=penalty, unclipped=unclipped, defined=defined), scale


def _standardized(reward: Tensor, defined: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    n, mean, m2 = scale.unbind()
    n = n + 1
    deviation = reward - mean
    mean = mean + deviation / n
    m2 = m2 + deviation * (reward - mean)
    std = (m2 / n).sqrt()
    standard = torch.where(std > 0, (reward - mean) / torch.where(std > 0, std, 1), 0)
    return standard, torch.where(defined, torch.stack([n, mean, m2]), scale)


def push(ends: Tensor, value: Tensor, ok: Tensor) -> Tensor:
    """The last values of episodes [W], then how many there were, with one more where `ok`."""
    pushed = torch.cat([ends[1:-1], value.unsqueeze(0), ends[-1:] + 1])
    return torch.where(ok, pushed, ends)


def trend(ends: Tensor, eps: float, relative: bool) -> Tensor:
    """The bucket of the slope over the last episodes: 0 improving, 1 stable, 2 worsening; 0-dim int64."""
    window = ends.shape[-1] - 1
    known = ends[-1].clamp(max=window)
    oldest = torch.arange(window, device=ends.device) == window - known
    first, last = torch.where(oldest, ends[:-1], 0).sum(-1), ends[-2]
    slope = (last - first) / (known - 1).clamp(min=1)
    if relative:
        scale = torch.where(oldest, ends[:-1].abs(), 0).sum(-1)
        slope = slope / torch.where(scale > 0, scale, 1)
    moved = (slope > eps).to(torch.int64) - (slope < -eps).to(torch.int64)
    return torch.where(known < 2, 0, moved) + STABLE
