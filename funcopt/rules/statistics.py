"""What is remembered of a stream of losses or rewards, and its verdict: better, worse or neither.

    pair       e = l - m', held to +-clip * S' where S' > 0;   y = m' + e
               m    = ema * m' + (1 - ema) * y                        fast mean
               slow = w * slow' + (1 - w) * y,   w = min(1 - 1/n, slow)
               S    = u * S' + (1 - u) * |e|,    u = min(1 - 1/(n-1), slow)     mean surprise
               better if slow - m > band * S, worse if slow - m < -band * S
    else       m = ema * m' + (1 - ema) * l,   d = m' - m
               relative  d / (|m'| + e),   deviation  d over its running size,   absolute  d
               better if that exceeds tol, else worse (with a deadband only below -tol)

For rewards better and worse change places. Means start at the first value. What is not
finite enters no mean: it counts as bad, and as worse where something came before it
(`nonfinite="ignore"`, and always for rewards: as nothing at all).

Source: the pair is ours (it measures where the loss is against where it was, in units of
its own noise); relative is the published rule of AdaptiveScheduler's theory, deviation
after AdaptiveRL, absolute ours.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import check, tree

__all__ = ["Statistics", "Watch", "loss_watch", "reward_watch"]

TINY = 1e-12
LARGEST = 1e300  # of a signal: differences stay finite
LARGEST_VARIANCE = 1e30  # of a raw variance: products of factors stay finite
NUMBERS = ("mean", "previous", "first", "last", "slow", "spread", "deviation", "raw_variance")


class Statistics(NamedTuple):
    seen: Tensor  # finite values so far
    bad: Tensor  # values that were not finite
    verdict: Tensor  # 1 better, -1 worse, 0 neither
    variance: Tensor  # of the window, over its mean square; in [0, 2]
    numbers: Tensor  # [8], NUMBERS
    window: Tensor  # [window], the last values, newest last, zeros before the first

    def number(self, name: str) -> Tensor:
        """One of NUMBERS; of a vmapped state one per lane."""
        return self.numbers[..., NUMBERS.index(name)]


class Watch(NamedTuple):
    """Settings of the statistics; see `loss_stats` of `adaptive`."""

    ema: float = 0.9
    window: int = 20
    scale: str = "pair"
    slow: float = 0.99
    band: float = 0.5
    clip: float = 5.0
    tol: float = 1e-4
    deadband: bool = False
    nonfinite: str = "worse"
    rewards: bool = False  # more is better, and the window keeps the smoothed values

    def init(self, like: Any) -> Statistics:
        """Nothing seen yet; on the device of `like`."""
        device = tree.device(like)
        dtype = tree.scalar_dtype(device)
        return Statistics(
            seen=torch.zeros((), dtype=torch.int64, device=device),
            bad=torch.zeros((), dtype=torch.int64, device=device),
            verdict=torch.zeros((), dtype=dtype, device=device),
            variance=torch.zeros((), dtype=dtype, device=device),
            numbers=torch.zeros(len(NUMBERS), dtype=dtype, device=device),
            window=torch.zeros(self.window, dtype=dtype, device=device),
        )

    def observe(self, state: Statistics, value: Tensor) -> tuple[Statistics, Tensor]:
        """The statistics with one more value, 0-dim, and the verdict by which integrators move."""
        finite = value.isfinite()
        seen = state.seen + finite
        n = seen.to(state.numbers.dtype)
        m, _previous, first, last, slow, spread, deviation, _ = state.numbers.unbind(-1)
        x = torch.where(finite, value, last).clamp(-LARGEST, LARGEST)
        fresh = state.seen == 0
        m, first = torch.where(fresh, x, m), torch.where(fresh, x, first)
        if self.scale == "pair":
            mean, slow, spread, verdict = self._pair(x, n, m, torch.where(fresh, x, slow), spread)
        else:
            mean = self.ema * m + (1 - self.ema) * x
            deviation, verdict = self._step(m, mean, deviation, state.seen == 1)
            verdict = verdict * ~fresh
        if self.rewards:
            verdict = -verdict if self.scale == "pair" else verdict
        window, variance, raw = self._spread(state.window, mean if self.rewards else x, n)
        numbers = torch.stack([mean, m, first, x, slow, spread, deviation, raw])
        if self.nonfinite == "worse":
            verdict = move = torch.where(finite, verdict, -(~fresh).to(verdict.dtype))
        else:
            move = verdict * finite
            verdict = torch.where(finite, verdict, state.verdict)
        kept = Statistics(
            seen=seen,
            bad=state.bad + ~finite,
            verdict=verdict,
            variance=torch.where(finite, variance, state.variance),
            numbers=torch.where(finite, numbers, state.numbers),
            window=torch.where(finite, window, state.window),
        )
        return kept, move

    def _pair(self, x: Tensor, n: Tensor, m: Tensor, slow: Tensor, spread: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        limit = torch.where(spread > 0, self.clip * spread, torch.inf)
        e = torch.clamp(x - m, -limit, limit)
        mean = m + (1 - self.ema) * e
        slow = slow + (m + e - slow) * n.reciprocal().clamp(min=1 - self.slow)
        spread = spread + (e.abs() - spread) * (n - 1).clamp(min=1).reciprocal().clamp(min=1 - self.slow)
        gap = slow - mean
        return mean, slow, spread, gap.sign() * (gap.abs() > self.band * spread)

    def _step(self, m: Tensor, mean: Tensor, deviation: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        d = mean - m if self.rewards else m - mean
        if self.scale == "deviation":
            size = d.abs()
            deviation = torch.where(second, size, self.ema * deviation + (1 - self.ema) * size)
            gain = (d / (deviation + TINY)).clamp(-1, 1)
        else:
            gain = d / (m.abs() + TINY) if self.scale == "relative" else d
        better = (gain > self.tol).to(d.dtype)
        return deviation, better - (gain < -self.tol).to(d.dtype) if self.deadband else 2 * better - 1

    def _spread(self, window: Tensor, value: Tensor, n: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        window = torch.cat([window[1:], value.reshape(1)])
        k = n.clamp(max=self.window)
        filled = torch.arange(self.window, 0, -1, device=window.device) <= k
        largest = window.abs().amax()
        largest = largest + (largest == 0)
        x = window / largest  # squares of large values would overflow
        apart = (x - x.sum() / k) * filled
        variance = apart.dot(apart) / (k - 1).clamp(min=1)
        normalized = variance / (x.dot(x) / k + (TINY / largest).square())
        return window, normalized, (variance * largest * largest).clamp(max=LARGEST_VARIANCE)


def loss_watch(settings: Mapping[str, Any] | None = None) -> Watch:
    """The statistics of the loss."""
    return _watch("adaptive: loss_stats", Watch(), settings, ("pair", "relative", "deviation", "absolute"), ())


def reward_watch(settings: Mapping[str, Any] | None = None) -> Watch:
    """The statistics of the reward."""
    default = Watch(tol=0.0, nonfinite="ignore", rewards=True)
    return _watch("adaptive: reward_stats", default, settings, ("pair", "relative"), ("deadband", "nonfinite"))


def _watch(where: str, default: Watch, settings: Mapping[str, Any] | None, scales: tuple[str, ...], without: tuple[str, ...]) -> Watch:
    known = [name for name in Watch._fields if name not in ("rewards", *without)]
    for name in settings or ():
        if name not in known:
            raise ValueError(f"{where}: the settings are {', '.join(known)}, got {name!r}")
    watch = default._replace(**dict(settings or {}))
    check.choice(where, "scale", watch.scale, scales)
    check.choice(where, "nonfinite", watch.nonfinite, ("worse", "ignore"))
    check.integer(where, "window", watch.window, 1)
    for name in ("ema", "slow", "band", "clip", "tol"):
        if isinstance(getattr(watch, name), Tensor):
            raise TypeError(f"{where}: {name} must be a number, got a tensor")
    check.half_open(where, "ema", watch.ema, 0, 1)
    check.half_open(where, "slow", watch.slow, 0, 1)
    check.nonnegative(where, "band", watch.band)
    check.positive(where, "clip", watch.clip)
    check.nonnegative(where, "tol", watch.tol)
    if not isinstance(watch.deadband, bool):
        raise TypeError(f"{where}: deadband must be True or False, got {watch.deadband!r}")
    return watch
