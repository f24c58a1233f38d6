"""Centered ranks as pytorch-optimize makes them: equal members share one rank, that of the last of them in the population.

    u_i = rank / (P - 1) - 1/2,   rank = place of the last member equal to i, after sorting

Which place that is depends on how the sort orders equal members. Theirs is numpy's
default, which does not keep their order, and orders them as the processor's vector
instructions go. On the CPU numpy is asked, as they do; on other devices, under vmap and in a
graph the sort is stable, so that the last member has the highest place.

Source: pytorch-optimize, `utils.rank_transformation`.
"""

import numpy as np
import torch
from torch import Tensor

from funcopt.core import versions
from funcopt.es.shaping.fitness import real

__all__ = ["centered_rank_shared_ties"]


def centered_rank_shared_ties(fitness: Tensor) -> Tensor:
    """Ranks from -1/2 (worst) to 1/2 (best); equal members share the rank of the last of them, and NaN has the best ranks.

    Args:
        fitness: [P], bigger is better.

    Returns:
        [P], in the dtype of fitness. With ties they do not add up to zero.

    Example:
        >>> fo.es.compat.centered_rank_shared_ties(torch.tensor([3.0, 1.0, 1.0, 2.0, 0.0]))
        tensor([ 0.5000,  0.0000,  0.0000,  0.2500, -0.5000])
    """
    fitness = real("es.compat.centered_rank_shared_ties", "fitness", fitness)
    count = fitness.shape[0]
    if fitness.is_cpu and not versions.transforming() and not versions.compiling():
        rank = _as_numpy_sorts(fitness)
    else:
        order = torch.sort(fitness, stable=True)
        places = torch.arange(count, device=fitness.device)
        last = torch.cat([order.values[1:] != order.values[:-1], torch.ones(1, dtype=torch.bool, device=fitness.device)])
        end = torch.where(last, places, count - 1).flip(0).cummin(0).values.flip(0)
        rank = torch.zeros_like(end).scatter(0, order.indices, end)
    wide = torch.promote_types(fitness.dtype, torch.float32)
    return (rank.to(wide) / max(count - 1, 1) - 0.5).to(fitness.dtype)


def _as_numpy_sorts(fitness: Tensor) -> Tensor:
    values = fitness.detach().double().numpy()
    places = np.arange(len(values))
    rank = np.empty(len(values), dtype=np.int64)
    rank[np.argsort(values)] = places
    kinds, kind = np.unique(values, return_inverse=True, equal_nan=False)
    last = np.zeros(len(kinds), dtype=np.int64)
    np.maximum.at(last, kind, places)
    return torch.from_numpy(rank[last[kind]])
