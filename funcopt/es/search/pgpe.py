"""PGPE: the gradient with respect to the parameters of the distribution that parameters are drawn from.

    n_i       = x_i - mean = sigma z_i;  pairs n_{j + H} = -n_j,  b the mean of u
    grad_mean = 1/H sum_j (u_j - u_{j+H}) / 2 n_j
    grad_sd   = 1/H sum_j ((u_j + u_{j+H}) / 2 - b) (n_j^2 - sigma^2) / sigma
    without pairs 1/P sum_i (u_i - b) n_i  and  1/P sum_i (u_i - b) (n_i^2 - sigma^2) / sigma
    mean  <- optimizer (ClipUp if none is given)
    sigma <- clip(sigma + sigma_lr grad_sd, sigma (1 - c), sigma (1 + c))

Source: Sehnke et al., "Parameter-exploring policy gradients", 2010; Toklu et al.,
"ClipUp", arXiv 2008.02387. Reference: EvoTorch's functional PGPE (whose pairs are
interleaved; ours are blocks), evosax PGPE.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, TensorTree, check
from funcopt.es.search.clipup import clipup
from funcopt.es.search.openai_es import tree_spread
from funcopt.es.search.population import Generation, unravel
from funcopt.es.search.protocol import Common, Search, make_search, mover, positive_sigma, sigma_of, step_center
from funcopt.es.shaping.fitness import has_unit, magnitude, mean_of, times
from funcopt.es.shaping.shaping import Shaping, ShapingName, bounded, shaping as shaping_of

__all__ = ["PGPEState", "pgpe"]


class PGPEState(NamedTuple):
    mean: TensorTree  # like params
    sigma: TensorTree  # like params, in the dtype of the arithmetic
    optimizer: Any  # of the center
    common: Common  # what every search keeps: key, generation, best member


def pgpe(
    popsize: int | None = None,
    sigma: Any = 0.1,
    *,
    lr: Scalar = 0.1,
    sigma_lr: Scalar = 0.1,
    sigma_max_change: Scalar | None = 0.2,
    optimizer: GradientTransformation | None = None,
    antithetic: bool = True,
    shaping: ShapingName | Shaping = "centered_rank",
    maximize: bool = False,
    process_group: Any = None,
) -> Search[PGPEState]:
    """PGPE: follows the gradient and learns the scale of every element; strong for policies.

    Args:
        popsize: members, >= 2, even if `antithetic`; None: 4 + floor(3 ln D), even.
            Policies want hundreds.
        sigma: first scale, > 0: a number, a 0-dim tensor, or a tree like params (or its
            beginning).
        lr: of ClipUp, where no `optimizer` is given: the length that one gradient
            adds to the velocity of the mean.
        sigma_lr: rate of sigma, >= 0.
        sigma_max_change: c, the largest relative change of sigma in a generation, in
            (0, 1]; None: any.
        optimizer: any transformation, for the negated gradient of the mean.
        antithetic: draw pairs (z, -z).
        shaping: a name of `es.shaping` or a function.
        maximize: bigger fitness is better.
        process_group: ranks that share the evaluation.

    Returns:
        A `Search`. Its state is two trees like params, the optimizer's state (one tree
        for ClipUp), and what all searches keep.

    Raises:
        ValueError: an argument is out of its range; at `init`, params hold nothing or lie on
            several devices; at `tell`, there is not one fitness for each member.
        TypeError: at `init`, params are not floating point tensors; at `tell`, fitness is complex.

    Example:
        >>> search = fo.es.pgpe(popsize=40, sigma=0.3, lr=0.05)
        >>> state = search.init(torch.zeros(3), fo.random.key(0))
        >>> for _ in range(100):
        ...     population, state = search.ask(state)
        ...     state = search.tell(state, (population.stacked() - 1).square().sum(1))
        >>> (search.center(state) - 1).abs().max() < 0.2
        tensor(True)
    """
    where = "es.pgpe"
    positive_sigma(where, sigma)
    check.nonnegative(where, "sigma_lr", sigma_lr)
    if sigma_max_change is not None:
        check.positive(where, "sigma_max_change", sigma_max_change)
        check.within(where, "sigma_max_change", sigma_max_change, 0, 1)
    shape = shaping_of(shaping)
    unit = has_unit(shaping)
    optimizer = mover(where, optimizer) or clipup(lr)

    def start(params: TensorTree, common: Common) -> PGPEState:
        return PGPEState(mean=params, sigma=sigma_of(where, sigma, params), optimizer=optimizer.init(params), common=common)

    def learn(state: PGPEState, fitness: Tensor, generation: Generation) -> PGPEState:
        popsize = fitness.shape[0]
        utilities = bounded(shape(fitness))
        old = tree_spread(state)
        size = magnitude(utilities) if unit else None
        utilities = utilities if size is None else utilities / size
        centered = utilities - mean_of(utilities)
        # Of pairs, half the difference over H pairs is the sum over all P members by P.
        gradient = old * generation.first(utilities if antithetic else centered) / popsize
        gradient = gradient if size is None else times(gradient, size)
        mean, optimizer_state = step_center(optimizer, gradient, state, fitness)
        # (n^2 - sigma^2) / sigma = sigma (z^2 - 1)
        grown = sigma_lr * old * (generation.second(centered) - centered.sum()) / popsize
        moved = old + (grown if size is None else times(grown, size))
        return state._replace(mean=mean, sigma=unravel(limited(moved, old, sigma_max_change), state.sigma), optimizer=optimizer_state)

    return make_search(
        "pgpe", start, tree_spread, learn, popsize=popsize, mirrored=antithetic, maximize=maximize, process_group=process_group
    )


def limited(new: Tensor, old: Tensor, max_change: Scalar | None) -> Tensor:
    """`new`, at most `max_change` away from `old`, relatively; always positive if that is below 1."""
    return new if max_change is None else torch.minimum(torch.maximum(new, old * (1 - max_change)), old * (1 + max_change))
