"""Mean, spread, and paired differences between optimizers that ran the same seeds.

Seed s gives every optimizer the same initial parameters and the same order of
data, so two optimizers are compared seed by seed: with

    d_s = a_s - b_s,   mean d,   interval  d +- t(1 - alpha / 2, n - 1) * sd(d) / sqrt(n)

and the paired t-test of the hypothesis that d is zero on average. The variation
that both share, lucky initialisations above all, drops out. Relative to the baseline

    r = mean a / mean b,   e_s = (a_s - r b_s) / mean b,   interval  100 (r - 1 +- t(1 - alpha / 2, n - 1) * sd(e) / sqrt(n))  per cent

(the delta method for a ratio of means: the baseline's own noise is in e).

Source: Student, "The probable error of a mean", Biometrika 6, 1908; by
scipy.stats.ttest_rel.
"""

from typing import NamedTuple

import numpy as np

from funcopt.race.extras import need

__all__ = ["Paired", "Spread", "excess", "paired", "spread", "steps_to"]


class Spread(NamedTuple):
    """Where the seeds are, and how far apart."""

    mean: float
    std: float  # sample deviation (divisor n - 1); nan for fewer than two
    n: int  # seeds that counted


class Paired(NamedTuple):
    """The difference of two optimizers over the seeds that both finished."""

    mean: float
    low: float  # end of the confidence interval; nan for fewer than two pairs
    high: float
    p: float  # two-sided; of the paired t-test, not corrected for the number of comparisons
    n: int  # pairs that counted


def spread(values) -> Spread:
    """Mean and sample deviation of the finite ones among `values` (1-d).

    Example:
        >>> fo.race.statistics.spread([1.0, 3.0, float("nan")])
        Spread(mean=2.0, std=1.4142135623730951, n=2)
    """
    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values)]
    n = len(values)
    return Spread(mean=float(values.mean()) if n else float("nan"), std=float(values.std(ddof=1)) if n > 1 else float("nan"), n=n)


def paired(values, baseline, *, confidence: float = 0.95) -> Paired:
    """How much `values` differ from `baseline`, seed by seed.

    Args:
        values, baseline: 1-d, equally long, one number per seed. A pair counts
            if both numbers are finite.
        confidence: share of intervals that cover the true difference, in (0, 1).

    Raises:
        ValueError: `confidence` is out of range, or the lengths differ.
        ImportError: scipy is not installed.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"paired: confidence must be in (0, 1), got {confidence}")
    values, baseline = np.asarray(values, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    if values.shape != baseline.shape:
        raise ValueError(f"paired: needs one value per seed on both sides, got {len(values)} and {len(baseline)}")
    both = np.isfinite(values) & np.isfinite(baseline)
    values, baseline = values[both], baseline[both]
    n, nan = len(values), float("nan")
    if n == 0:
        return Paired(mean=nan, low=nan, high=nan, p=nan, n=0)
    mean = float((values - baseline).mean())
    if n == 1:
        return Paired(mean=mean, low=nan, high=nan, p=nan, n=1)
    if np.ptp(values - baseline) == 0:  # no variance: t is 0 / 0 or infinite, and the interval is a point
        return Paired(mean=mean, low=mean, high=mean, p=1.0 if mean == 0 else 0.0, n=n)
    test = need("scipy.stats").ttest_rel(values, baseline)
    interval = test.confidence_interval(confidence)
    return Paired(mean=mean, low=float(interval.low), high=float(interval.high), p=float(test.pvalue), n=n)


def excess(values, baseline, *, confidence: float = 0.95) -> Paired:
    """By how many per cent the mean of `values` is above that of `baseline`, seeds paired; infinite where a seed of `values` is not finite.

    Args:
        values, baseline: 1-d, equally long, one positive number per seed; of the baseline all must be finite.
        confidence: as for `paired`.

    Raises:
        ValueError: the baseline is not finite or its mean not positive; as `paired`.
        ImportError: scipy is not installed.

    Example:
        >>> found = fo.race.statistics.excess([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])  # half of it, seed by seed
        >>> found.mean, found.low, found.high
        (-50.0, -50.0, -50.0)
    """
    values, baseline = np.asarray(values, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    mean = float(baseline.mean()) if len(baseline) else float("nan")
    if not (np.isfinite(baseline).all() and mean > 0):
        raise ValueError(f"excess: baseline must be finite and positive in the mean, got {baseline.tolist()}")
    if values.shape == baseline.shape and not np.isfinite(values).all():
        infinite = float("inf")
        return Paired(mean=infinite, low=infinite, high=infinite, p=float("nan"), n=int(np.isfinite(values).sum()))
    ratio = float(values.mean()) / mean if len(values) else float("nan")
    found = paired(values / mean, ratio * baseline / mean, confidence=confidence)  # e_s, whose mean is 0
    shift = 100 * (ratio - 1)
    low, high = shift + 100 * found.low, shift + 100 * found.high
    if not low < high:  # no spread, or one seed
        return Paired(mean=shift, low=low, high=high, p=found.p if found.n < 2 else float(shift == 0), n=found.n)
    # The p of t = (r - 1) / its standard error.
    distribution = need("scipy.stats").t
    error = (high - low) / 2 / distribution.ppf(0.5 + confidence / 2, found.n - 1)
    return Paired(mean=shift, low=low, high=high, p=float(2 * distribution.sf(abs(shift) / error, found.n - 1)), n=found.n)


def steps_to(target: float, at, curve) -> float:
    """The first of the steps `at` at which `curve` is `target` or below; NaN where it never is.

    Example:
        >>> fo.race.statistics.steps_to(0.5, [0, 10, 20, 30], [2.0, 0.7, 0.5, 0.6])
        20.0
    """
    there = np.flatnonzero(np.asarray(curve, dtype=np.float64) <= target)  # a NaN is no number below
    return float(at[there[0]]) if len(there) else float("nan")
