"""CEM: the cross-entropy method. The mean and the scale of the best become those of the next generation.

    elites = the best max(1, floor(rho P)) members
    mean  <- momentum mean + (1 - momentum) mean(elites)
    sigma <- momentum sigma + (1 - momentum) std(elites)            ddof 1 (or 0)
    sigma <- clip(sigma, old (1 - c), old (1 + c)), at least sigma_min

Source: Rubinstein, "The cross-entropy method for combinatorial and continuous
optimization", 1999. Reference: EvoTorch's functional CEM.
"""

import math
from typing import Any, NamedTuple

from torch import Tensor

from funcopt.core import Scalar, TensorTree, check
from funcopt.es.search.openai_es import tree_spread
from funcopt.es.search.pgpe import limited
from funcopt.es.search.population import Generation, ravel, unravel
from funcopt.es.search.protocol import Common, Search, make_search, positive_sigma, sigma_of
from funcopt.es.shaping.shaping import shaping as shaping_of

__all__ = ["CEMState", "cem"]


class CEMState(NamedTuple):
    mean: TensorTree  # like params
    sigma: TensorTree  # like params, in the dtype of the arithmetic
    common: Common  # what every search keeps: key, generation, best member


def cem(
    popsize: int | None = None,
    sigma: Any = 1.0,
    *,
    rho: float = 0.5,
    momentum: Scalar = 0.0,
    sigma_min: Scalar = 0.0,
    sigma_max_change: Scalar | None = None,
    ddof: int = 1,
    maximize: bool = False,
    process_group: Any = None,
) -> Search[CEMState]:
    """CEM: refits a separable normal distribution to the elites; for planning, with few generations.

    Args:
        popsize: members, >= 2; None: 4 + floor(3 ln D). Planning wants a hundred and more.
        sigma: first scale, > 0: a number, a 0-dim tensor, or a tree like params (or its
            beginning).
        rho: share of elites, in (0, 1]; with ddof=1 at least two of them.
        momentum: share of the old mean and sigma, in [0, 1).
        sigma_min: sigma stays above, >= 0.
        sigma_max_change: c, the largest relative change of sigma in a generation,
            > 0; None: any.
        ddof: 1 divides the squares of the elites by their number less one, 0 by their number.
        maximize: bigger fitness is better.
        process_group: ranks that share the evaluation.

    Returns:
        A `Search`. Its state is two trees like params, and what all searches keep.

    Raises:
        ValueError: an argument is out of its range; at `init`, params hold nothing or lie on
            several devices; at `tell`, there is not one fitness for each member.
        TypeError: at `init`, params are not floating point tensors; at `tell`, fitness is complex.

    Example:
        >>> search = fo.es.cem(popsize=40, sigma=1.0, rho=0.25)
        >>> state = search.init(torch.zeros(2), fo.random.key(0))
        >>> for _ in range(20):
        ...     population, state = search.ask(state)
        ...     state = search.tell(state, (population.stacked() - 1).square().sum(1))
        >>> (search.center(state) - 1).abs().max() < 0.01
        tensor(True)
    """
    where = "es.cem"
    positive_sigma(where, sigma)
    check.half_open(where, "momentum", momentum, 0, 1)
    check.nonnegative(where, "sigma_min", sigma_min)
    check.choice(where, "ddof", ddof, (0, 1))
    if sigma_max_change is not None:
        check.positive(where, "sigma_max_change", sigma_max_change)
    shape = shaping_of("top_k", tie="ordinal", rho=rho)

    def start(params: TensorTree, common: Common) -> CEMState:
        return CEMState(mean=params, sigma=sigma_of(where, sigma, params), common=common)

    def learn(state: CEMState, fitness: Tensor, generation: Generation) -> CEMState:
        elites = max(1, math.floor(rho * fitness.shape[0]))
        if elites <= ddof:
            raise ValueError(
                f"{where}: rho must leave at least {ddof + 1} elites of {fitness.shape[0]} members for a standard deviation, got {rho}"
            )
        weights = shape(fitness)
        old = tree_spread(state)
        shift = generation.first(weights)  # of the mean, in units of sigma
        deviation = (generation.second(weights, shift) * (elites / (elites - ddof))).sqrt()
        mean = ravel(state.mean, old.dtype) + (1 - momentum) * old * shift
        new = limited(momentum * old + (1 - momentum) * old * deviation, old, sigma_max_change).clamp(min=sigma_min)
        return state._replace(mean=unravel(mean, state.mean), sigma=unravel(new, state.sigma))

    return make_search("cem", start, tree_spread, learn, popsize=popsize, maximize=maximize, process_group=process_group)
