"""Simple ES: the mean of the best, and a slowly moving scale.

    w      = 1 / k on the best k = max(1, floor(rho P)), rho = 1/2
    mean'  = mean + sum_i w_i (x_i - mean)
    sigma' = (1 - c) sigma + c sqrt(sum_i w_i (x_i - mean)^2)          with the old mean

Source: Beyer and Schwefel, "Evolution strategies: a comprehensive introduction", 2002.
Reference: evosax SimpleES.
"""

from typing import Any, NamedTuple

from torch import Tensor

from funcopt.core import Scalar, TensorTree, check
from funcopt.es.search.openai_es import tree_spread
from funcopt.es.search.population import Generation, ravel, unravel
from funcopt.es.search.protocol import Common, Search, make_search, positive_sigma, sigma_of
from funcopt.es.shaping.shaping import shaping as shaping_of

__all__ = ["SimpleESState", "simple_es"]


class SimpleESState(NamedTuple):
    mean: TensorTree  # like params
    sigma: TensorTree  # like params, in the dtype of the arithmetic
    common: Common  # what every search keeps: key, generation, best member


def simple_es(
    popsize: int | None = None,
    sigma: Any = 1.0,
    *,
    rho: float = 0.5,
    sigma_lr: Scalar = 0.1,
    maximize: bool = False,
    process_group: Any = None,
) -> Search[SimpleESState]:
    """Simple ES: the plainest strategy that adapts its scale, to compare others with.

    Args:
        popsize: members, >= 2; None: 4 + floor(3 ln D).
        sigma: first scale, > 0: a number, a 0-dim tensor, or a tree like params (or its
            beginning).
        rho: share of parents, in (0, 1].
        sigma_lr: c, share of the new scale, in [0, 1].
        maximize: bigger fitness is better.
        process_group: ranks that share the evaluation.

    Returns:
        A `Search`. Its state is two trees like params, and what all searches keep.

    Raises:
        ValueError: an argument is out of its range; at `init`, params hold nothing or lie on
            several devices; at `tell`, there is not one fitness for each member.
        TypeError: at `init`, params are not floating point tensors; at `tell`, fitness is complex.

    Example:
        >>> search = fo.es.simple_es(popsize=20, sigma=0.5)
        >>> state = search.init(torch.zeros(2), fo.random.key(0))
        >>> for _ in range(60):
        ...     population, state = search.ask(state)
        ...     state = search.tell(state, (population.stacked() - 1).square().sum(1))
        >>> (search.center(state) - 1).abs().max() < 0.1
        tensor(True)
    """
    where = "es.simple_es"
    positive_sigma(where, sigma)
    check.within(where, "sigma_lr", sigma_lr, 0, 1)
    shape = shaping_of("top_k", rho=rho)

    def start(params: TensorTree, common: Common) -> SimpleESState:
        return SimpleESState(mean=params, sigma=sigma_of(where, sigma, params), common=common)

    def learn(state: SimpleESState, fitness: Tensor, generation: Generation) -> SimpleESState:
        weights = shape(fitness)
        old = tree_spread(state)
        mean = ravel(state.mean, old.dtype) + old * generation.first(weights)
        new = (1 - sigma_lr) * old + sigma_lr * old * generation.second(weights).sqrt()
        return state._replace(mean=unravel(mean, state.mean), sigma=unravel(new, state.sigma))

    return make_search("simple_es", start, tree_spread, learn, popsize=popsize, maximize=maximize, process_group=process_group)
