"""SNES: natural evolution strategies with a scale of their own for every element.

    x_i   = mean + sigma z_i
    mean  <- mean + lr sigma sum_i u_i z_i                       or any optimizer on the negated sum
    sigma <- sigma exp(sigma_lr / 2 sum_i u_i (z_i^2 - 1))

Source: Wierstra et al., "Natural evolution strategies", JMLR 15, 2014. Reference:
evosax SNES; EvoTorch's ExpSeparableGaussian, which divides utilities that are not
"nes" by the sum of their magnitudes, and so do we.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, TensorTree, check
from funcopt.es.search.openai_es import tree_spread
from funcopt.es.search.population import Generation, unravel
from funcopt.es.search.protocol import Common, Search, descend, make_search, mover, positive_sigma, sigma_of, step_center
from funcopt.es.shaping.fitness import magnitude
from funcopt.es.shaping.shaping import Shaping, ShapingName, bounded, shaping as shaping_of

__all__ = ["SNESState", "snes"]


class SNESState(NamedTuple):
    mean: TensorTree  # like params
    sigma: TensorTree  # like params, in the dtype of the arithmetic
    optimizer: Any  # of the center
    common: Common  # what every search keeps: key, generation, best member


def snes(
    popsize: int | None = None,
    sigma: Any = 1.0,
    *,
    lr: Scalar = 1.0,
    sigma_lr: Scalar | None = None,
    optimizer: GradientTransformation | None = None,
    shaping: ShapingName | Shaping = "nes",
    maximize: bool = False,
    process_group: Any = None,
) -> Search[SNESState]:
    """SNES, separable natural evolution strategies: nothing to tune but the first sigma.

    Args:
        popsize: members, >= 2; None: 4 + floor(3 ln D).
        sigma: first scale, > 0: a number, a 0-dim tensor, or a tree like params (or its
            beginning).
        lr: size of the step of the mean where no `optimizer` is given; 1 is the natural one.
        sigma_lr: rate of sigma, >= 0; None: (3 + ln D) / (5 sqrt(D)).
        optimizer: any transformation, for the negated natural gradient.
        shaping: a name of `es.shaping` or a function; utilities other than "nes" are
            divided by the sum of their magnitudes.
        maximize: bigger fitness is better.
        process_group: ranks that share the evaluation.

    Returns:
        A `Search`. Its state is two trees like params, and what all searches keep.

    Raises:
        ValueError: an argument is out of its range; at `init`, params hold nothing or lie on
            several devices; at `tell`, there is not one fitness for each member.
        TypeError: at `init`, params are not floating point tensors; at `tell`, fitness is complex.

    Example:
        >>> search = fo.es.snes(sigma=0.5)
        >>> state = search.init({"w": torch.zeros(3)}, fo.random.key(0))
        >>> for _ in range(100):
        ...     population, state = search.ask(state)
        ...     state = search.tell(state, (population.stacked()["w"] - 1).square().sum(1))
        >>> (search.center(state)["w"] - 1).abs().max() < 0.01
        tensor(True)
    """
    where = "es.snes"
    positive_sigma(where, sigma)
    if sigma_lr is not None:
        check.nonnegative(where, "sigma_lr", sigma_lr)
    shape = shaping_of(shaping)
    check.nonnegative(where, "lr", lr)
    optimizer = mover(where, optimizer) or descend(lr)

    def start(params: TensorTree, common: Common) -> SNESState:
        return SNESState(mean=params, sigma=sigma_of(where, sigma, params), optimizer=optimizer.init(params), common=common)

    def learn(state: SNESState, fitness: Tensor, generation: Generation) -> SNESState:
        rate = (3 + math.log(generation.dim)) / (5 * math.sqrt(generation.dim)) if sigma_lr is None else sigma_lr
        utilities = bounded(shape(fitness))
        if shaping != "nes":
            utilities = utilities / magnitude(utilities)
            total = utilities.abs().sum()
            utilities = utilities / torch.where(total == 0, 1.0, total)
        old = tree_spread(state)
        mean, optimizer_state = step_center(optimizer, old * generation.first(utilities), state, fitness)
        grown = old * (0.5 * rate * (generation.second(utilities) - utilities.sum())).exp()
        return state._replace(mean=mean, sigma=unravel(grown, state.sigma), optimizer=optimizer_state)

    return make_search("snes", start, tree_spread, learn, popsize=popsize, maximize=maximize, process_group=process_group)
