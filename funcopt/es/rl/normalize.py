"""Observations with mean 0 and variance 1, by statistics that merge exactly in any grouping.

    push    n <- n + 1,  d = x - mean,  mean <- mean + d / n,  M2 <- M2 + d (x - mean)           (Welford)
    merge   n = sum n_i,  mean = sum n_i mean_i / n,  M2 = sum M2_i + sum n_i (mean_i - mean)^2   (Chan)
    apply   clip((x - mean) / sqrt(M2 / n), +-bound)

During a generation the statistics are frozen: every member sees the same network
input for the same observation. What the members saw comes back beside the fitness
and is merged afterwards.

Source: Welford, Technometrics 1962; Chan, Golub and LeVeque, 1979; their use in
random search: Mania, Guy and Recht, NeurIPS 2018 (ARS V2).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from funcopt.core import tree

__all__ = ["ObservationStats", "merge_observations", "normalize_observation", "observation_stats", "push_observation"]

LEAST_STD = 1e-6  # an input that never moves is divided by this, after its mean is taken off: it stays 0


class ObservationStats(NamedTuple):
    """Count, mean and summed squared deviation of what was observed; float64 where the device has it."""

    count: Tensor  # 0-dim, of observations
    mean: Tensor  # shape of an observation
    m2: Tensor  # sum of squared deviations from the mean


def observation_stats(example: Tensor) -> ObservationStats:
    """Statistics of nothing yet, for observations of the shape of `example`.

    Args:
        example: a tensor of the shape, device and dtype of an observation; its numbers do not count.

    Returns:
        Statistics with a count of 0.

    Example:
        >>> fo.es.observation_stats(torch.zeros(2)).mean
        tensor([0., 0.], dtype=torch.float64)
    """
    dtype = tree.scalar_dtype(example.device)
    zeros = torch.zeros(example.shape, dtype=dtype, device=example.device)
    return ObservationStats(count=torch.zeros((), dtype=dtype, device=example.device), mean=zeros, m2=zeros.clone())


def push_observation(stats: ObservationStats, obs: Tensor, live: Tensor | bool = True) -> ObservationStats:
    """The statistics with one more observation, where `live`.

    Args:
        stats: what was seen so far; it is left as it is.
        obs: one observation, in the shape of `stats.mean`.
        live: whether it counts, a bool or a 0-dim tensor of one; False once an episode is done.

    Returns:
        The new statistics.

    Example:
        >>> stats = fo.es.observation_stats(torch.zeros(1))
        >>> for x in (1.0, 5.0):
        ...     stats = fo.es.push_observation(stats, torch.tensor([x]))
        >>> stats.mean, stats.m2  # 2^2 + 2^2
        (tensor([3.], dtype=torch.float64), tensor([8.], dtype=torch.float64))
    """
    live, obs = torch.as_tensor(live, device=stats.count.device), obs.detach()  # numbers: a graph would grow with every observation
    count = stats.count + live
    # Where an episode is over the environment may hold anything, infinity included: chosen, not multiplied by zero.
    before = torch.where(live, obs.to(stats.mean.dtype) - stats.mean, 0.0)
    mean = stats.mean + before / count.clamp(min=1)
    after = torch.where(live, obs.to(stats.mean.dtype) - mean, 0.0)
    return ObservationStats(count=count, mean=mean, m2=stats.m2 + before * after)


def merge_observations(*stats: ObservationStats) -> ObservationStats:
    """The statistics of everything that any of them saw; entries may be stacked along leading axes, as by `vmap`.

    Args:
        stats: at least one; each plain, or stacked over members, episodes, ranks.

    Returns:
        Unstacked statistics. Order and grouping change the last bits alone.

    Raises:
        ValueError: there is none.

    Example:
        >>> def seen(*values):
        ...     stats = fo.es.observation_stats(torch.zeros(1))
        ...     for x in values:
        ...         stats = fo.es.push_observation(stats, torch.tensor([x]))
        ...     return stats
        >>> merged = fo.es.merge_observations(seen(1.0), seen(3.0, 8.0))
        >>> merged.count, merged.mean, merged.m2  # 3^2 + 1^2 + 4^2
        (tensor(3., dtype=torch.float64), tensor([4.], dtype=torch.float64), tensor([26.], dtype=torch.float64))
    """
    if not stats:
        raise ValueError("merge_observations: needs at least one ObservationStats")
    flat = [(s.count.reshape(-1), *(x.reshape(-1, *x.shape[s.count.dim() :]) for x in (s.mean, s.m2))) for s in stats]
    counts, means, m2s = (torch.cat(parts) for parts in zip(*flat, strict=True))
    weights = counts.reshape(-1, *(1,) * (means.dim() - 1))
    count = counts.sum()
    mean = (weights * means).sum(0) / count.clamp(min=1)
    return ObservationStats(count=count, mean=mean, m2=m2s.sum(0) + (weights * (means - mean).square()).sum(0))


def normalize_observation(stats: ObservationStats, obs: Tensor, bound: float = 10.0) -> Tensor:
    """The observation in standard deviations from its mean, clipped to `bound`; before two were seen, as it is.

    Args:
        stats: what was seen so far.
        obs: one observation, in the shape of `stats.mean`.
        bound: largest result in magnitude, in standard deviations, > 0.

    Returns:
        Shape and dtype of `obs`.

    Example:
        >>> stats = fo.es.ObservationStats(torch.tensor(4.0), torch.tensor([1.0]), torch.tensor([16.0]))
        >>> fo.es.normalize_observation(stats, torch.tensor([5.0]))  # (5 - 1) / sqrt(16 / 4)
        tensor([2.])
    """
    std = (stats.m2 / stats.count.clamp(min=1)).sqrt().clamp(min=LEAST_STD)
    scaled = ((obs - stats.mean) / std).clamp(-bound, bound).to(obs.dtype)
    return torch.where(stats.count < 2, obs, scaled)
