"""The walk of a rate towards its size, in numbers alone: what `find_rate` does with the cosine of each step.

    f = 0.7 f + 0.3 c,   b = fast where f and c are above 0.5, the gradient is no longer than any before and w = 0;
                             else slow (1 - 0.7 q w) (1 + hurry max(0, 1 - 2 q) min(1, P / 8))
    ln s += b c                                             while searching
    m, r: mean and root mean square of c (moments 0.9, bias corrected);  M: largest m from the fifth step on
    unit = max(r, 0.05 M)
    N = max(0, N - c / unit),   ln s_0 = ln s before this stride, wherever N is 0
    S = S + c^2,   D = D + (|c| - |c_before|)^2 / 2          while searching
    q = max(0, 1 - D / (S (1 - 2 / pi)))                    how sure c is
    w = 1 from where q N > 2, or where it holds and q > 1/2: wary for good
    held as soon as N > evidence and t >= patience:  ln s = ln s_0 + ln(1 + stretch q)
    P = max(0, P + c / unit)                                 while searching 0 where N > 2; while held, as soon as P > reopen
                                                            and q < 1/2: searching again, N = P = 0
    ln s += fast c                                          while held, where f and c are below -0.5 and the gradient is longer than
                                                            any while searching: every step turns it round, and longer

s_0 is the rate of the last step that was seen not to be too long. Where cosines are sure a run
that was too long once is not hurried again: momentum turns the sign of c some steps late; and what was
held is not noise that reached the threshold, so that the search does not open again.

c > 0 says that the last step still goes downhill for data it has not seen: it was too
short. N is a cumulative sum, and where it was last 0 its change point: it counts evidence
that steps are too long in units of the noise of c itself, so that one number serves batches
of one and of thousands. s_0 is the rate of the greedy step; where gradients are not noisy the
best constant one is longer (the short-horizon bias of Wu et al. 2018), and q tells where. D is a
variance that does not see the slow fall of c (von Neumann 1941), of its size alone, since a step
that is too long turns c round without any noise; 1 - 2 / pi is what it is where c is normal about 0.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from funcopt.core import moments
from funcopt.core.math import entrywise

SMOOTH = 0.3  # share of the new cosine in f
FAST_FROM = 0.5  # f and c above it: the rate is orders of magnitude too small; below minus it: the run diverges
SURE = 0.5  # q above it: what was found is not noise, and is not looked for again
WARY = 2.0  # q N above it: the rate has been too long once
HURRIED_FROM = 8.0  # P: that much evidence that steps are too short
WARY_SLOWER = 0.7  # by how much of it the slow stride is shorter then, where c is sure
MOMENT = 0.9  # of m and r: some ten steps
PEAK_FROM = 5  # steps before M is taken
OF_NOISE = 1 - 2 / math.pi  # variance of |c| per c^2, where c is normal about 0
LEAST_NOISE = 0.05  # of M: the least unit, for a c without noise


class Settings(NamedTuple):
    slow: float
    fast: float
    evidence: float
    patience: int
    reopen: float | None
    holds: bool
    low: float  # of ln s
    high: float
    stretch: float = 0.0  # of what was found, where c has no noise
    hurry: float = 0.0  # of the slow stride, where c is noise


class Walk(NamedTuple):
    seen: Tensor  # cosines seen, int64
    log: Tensor  # ln s
    smooth: Tensor  # f
    mean: Tensor  # of c, not yet corrected
    square: Tensor  # of c^2, likewise
    alignment: Tensor  # m
    peak: Tensor  # M
    evidence: Tensor  # N
    opposite: Tensor  # P
    back: Tensor  # ln s where N was last 0
    held: Tensor  # bool
    before: Tensor  # c of the step before
    power: Tensor  # S
    noise: Tensor  # D
    wary: Tensor  # w, bool


def first(like: Tensor) -> Walk:
    """Before the first cosine; `like` says dtype, device and shape of the numbers: one walk, or several side by side."""

    def zero() -> Tensor:
        return torch.zeros_like(like)

    def no() -> Tensor:  # a tensor each: a graph would take one that is two words of the state for a rule
        return torch.zeros_like(like, dtype=torch.bool)

    none = torch.zeros_like(like, dtype=torch.int64)
    return Walk(
        none, zero(), torch.ones_like(like), zero(), zero(), zero(), zero(), zero(), zero(), zero(), no(), zero(), zero(), zero(), no()
    )


def step(walk: Walk, c: Tensor, steep: Tensor, settings: Settings) -> Walk:
    """After one more cosine; `steep`: whether the gradient is longer than any while searching."""
    seen = walk.seen + 1
    f = (1 - SMOOTH) * walk.smooth + SMOOTH * c
    # Stacked here and there: a compiler would work every number out anew for each of its uses, and those again for theirs.
    f, c = entrywise.stacked(f, c)
    far = (f > FAST_FROM) & (c > FAST_FROM) & ~(steep & (walk.seen > 0)) & ~walk.wary
    q = sure(walk.power, walk.noise)
    slow = settings.slow * torch.where(walk.wary, 1 - WARY_SLOWER * q, 1.0)
    if settings.hurry:
        slow = slow * (1 + settings.hurry * (1 - q / SURE).clamp(min=0) * (walk.opposite / HURRIED_FROM).clamp(max=1))
    moved = (walk.log + torch.where(far, settings.fast * c, slow * c)).clamp(settings.low, settings.high)

    mean, square = MOMENT * walk.mean + (1 - MOMENT) * c, MOMENT * walk.square + (1 - MOMENT) * c * c
    moved, mean, square = entrywise.stacked(moved, mean, square)
    correction = -torch.expm1(seen.to(c.dtype) * math.log(MOMENT))
    m, r = mean / correction, moments.safe_sqrt(square / correction)
    M = torch.where(seen >= PEAK_FROM, torch.maximum(walk.peak, m), walk.peak)
    unit = torch.maximum(r, LEAST_NOISE * M).clamp(min=torch.finfo(c.dtype).tiny)

    m, M, unit = entrywise.stacked(m, M, unit)
    N = torch.where(walk.held, walk.evidence, (walk.evidence - c / unit).clamp(min=0))
    P = torch.where(~walk.held & (N > WARY), 0.0, (walk.opposite + c / unit).clamp(min=0))
    diverging = steep & (f < -FAST_FROM) & (c < -FAST_FROM)
    fallen = torch.where(diverging, (walk.log + settings.fast * c).clamp(settings.low, settings.high), walk.log)
    log = torch.where(walk.held, fallen, moved)
    N, P, log = entrywise.stacked(N, P, log)
    back = torch.where(walk.held, log, torch.where(N == 0, walk.log, walk.back))
    hold = ~walk.held & (N > settings.evidence) & (seen >= settings.patience) if settings.holds else torch.zeros_like(walk.held)
    counts = ~walk.held & (walk.seen > 0)  # the first has no neighbour
    S = walk.power + torch.where(counts, c * c, 0.0)
    D = walk.noise + torch.where(counts, (c.abs() - walk.before.abs()).square() / 2, 0.0)
    q = sure(S, D)
    found = back
    if settings.stretch:
        found = (back + torch.log1p(settings.stretch * q)).clamp(settings.low, settings.high)
    log = torch.where(hold, found, log)
    opened = walk.held & (P > settings.reopen) & (q < SURE) if settings.reopen is not None else torch.zeros_like(walk.held)
    return Walk(
        seen=seen,
        log=log,
        smooth=f,
        mean=mean,
        square=square,
        alignment=m,
        peak=M,
        evidence=torch.where(opened, 0.0, N),
        opposite=torch.where(opened | hold, 0.0, P),
        back=back,
        held=(walk.held | hold) & ~opened,
        before=c,
        power=S,
        noise=D,
        wary=walk.wary | (q * N > WARY) | (hold & (q > SURE)),
    )


def sure(power: Tensor, noise: Tensor) -> Tensor:
    """How sure cosines are, in [0, 1]: 0 where they are noise about 0, 1 where their size stays what it was, and before there are any."""
    return (1 - noise / (OF_NOISE * power).clamp(min=torch.finfo(power.dtype).tiny)).clamp(0, 1)


def restart(walk: Walk, log: Tensor, where: Tensor, settings: Settings) -> Walk:
    """Searching on from another rate, with no evidence against it yet, wherever it is asked for."""
    log = log.clamp(settings.low, settings.high)
    fresh = {"log": log, "back": log, "evidence": torch.zeros_like(log), "opposite": torch.zeros_like(log)}
    return walk._replace(**{name: torch.where(where, value, getattr(walk, name)) for name, value in fresh.items()})
