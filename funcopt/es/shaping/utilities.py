"""From fitness to utilities: what each member counts, as the options of an estimate say.

f   = fitness, bigger is better            -fitness where it is minimised
u   = shape(f - baseline)                  of one objective
u   = sum_k w_k shape(f_k - baseline_k)    shape_then_sum, K objectives
u   = shape(sum_k w_k f_k - baseline)      sum_then_shape
"""

import torch
from torch import Tensor

from funcopt.core.autocast import in_full_precision
from funcopt.es.options import Estimand
from funcopt.es.shaping.fitness import real
from funcopt.es.shaping.shaping import baseline, bounded, shaping
from funcopt.es.shaping.shared_ties import centered_rank_shared_ties

__all__ = ["utilities_of"]


@in_full_precision
def utilities_of(where: str, what: Estimand, fitness: Tensor, center: Tensor | None) -> Tensor:
    """[P] from fitness [P] or [P, K]: bigger is better in what comes out, whichever way the objective counts."""
    fitness = fitness if what.maximize else -fitness
    center = None if center is None else (center if what.maximize else -center)
    weights = what.objective_weights(fitness)
    if weights is not None and what.combine == "sum_then_shape":
        fitness = fitness @ weights
        center = None if center is None else center @ weights
    if fitness.dim() == 1:
        return _shaped(where, what, fitness, center)
    assert weights is not None
    columns = [_shaped(where, what, f, None if center is None else center[k]) for k, f in enumerate(fitness.unbind(1))]
    return (torch.stack(columns, dim=1) * weights).sum(1)


def _shaped(where: str, what: Estimand, fitness: Tensor, center: Tensor | None) -> Tensor:
    shape = shaping(what.shaping, tie=what.tie)
    if what.shaping == "centered_rank" and what.tie == "last":
        shape = _shared_ties
    if what.shaping == "none" or getattr(shape, "__module__", "") not in (shaping.__module__, __name__):
        fitness = bounded(fitness)  # no named shaping will settle what is not finite
    fitness = baseline(what.baseline)(fitness, center)
    utilities = shape(fitness)
    if not isinstance(utilities, Tensor) or utilities.shape != fitness.shape:
        got = tuple(utilities.shape) if isinstance(utilities, Tensor) else type(utilities).__name__
        raise ValueError(f"{where}: shaping must return one utility for each of the {fitness.shape[0]} members, got {got}")
    return real(where, "the utility that shaping returns", utilities)


def _shared_ties(fitness: Tensor) -> Tensor:
    """The ranks of pytorch-optimize, but NaN is the worst."""
    return centered_rank_shared_ties(torch.where(fitness.isnan(), -torch.inf, fitness))
