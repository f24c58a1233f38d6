"""Mean, spread, and paired differences between optimizers that ran the same seeds.

Seed s gives every optimizer the same initial parameters and the same order of
data, so two optimizers are compared seed by seed: with

    d_s = a_s - b_s,   mean d,   interval  d +- t(1 - alpha / 2, n - 1) * sd(d) / sqrt(n)

and the paired t-test of the hypothesis that d is zero on average. The variation
that both share, lucky initialisations above all, drops out.

Source: Student, "The probable error of a mean", Biometrika 6, 1908; by
scipy.stats.ttest_rel.
"""

from typing import NamedTuple

import numpy as np

from funcopt.race.extras import need

__all__ = ["Paired", "Spread", "paired", "spread"]


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
