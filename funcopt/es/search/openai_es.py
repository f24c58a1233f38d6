"""OpenAI-ES: one fixed scale of noise, mirrored pairs, and any optimizer on the estimated gradient.

    x_i = mean + sigma z_i,   z_{i + P/2} = -z_i
    g   = 1 / (P sigma) sum_i u_i z_i                      (scale="inverse_sigma")
    g   = 1 / P sum_i u_i z_i                              (scale="openai")
    g   = sigma / P sum_i u_i z_i                          (scale="sigma")
    mean <- mean + optimizer(-(g - weight_decay mean))

Source: Salimans et al., "Evolution strategies as a scalable alternative to
reinforcement learning", arXiv 1703.03864. Reference: evosax Open_ES.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, TensorTree, check, tree
from funcopt.es.options import Scale
from funcopt.es.search.population import Generation, ravel, work_dtype
from funcopt.es.search.protocol import Common, Search, descend, make_search, mover, positive_sigma, sigma_of, step_center
from funcopt.es.shaping.fitness import has_unit, magnitude, times
from funcopt.es.shaping.shaping import Shaping, ShapingName, bounded, shaping as shaping_of

__all__ = ["OpenAIESState", "estimate", "fixed_spread", "openai_es"]


class OpenAIESState(NamedTuple):
    mean: TensorTree  # like params
    optimizer: Any  # of the center
    common: Common  # what every search keeps: key, generation, best member


def openai_es(
    popsize: int | None = None,
    sigma: Any = 0.1,
    *,
    lr: Scalar = 0.01,
    optimizer: GradientTransformation | None = None,
    antithetic: bool = True,
    shaping: ShapingName | Shaping = "centered_rank",
    scale: Scale = "inverse_sigma",
    weight_decay: Scalar = 0.0,
    maximize: bool = False,
    process_group: Any = None,
) -> Search[OpenAIESState]:
    """OpenAI-ES: gradient steps on the smoothed objective.

    Args:
        popsize: members, >= 2, even if `antithetic`; None: 4 + floor(3 ln D), even. Networks
            want hundreds.
        sigma: scale of the noise, > 0: a number, a 0-dim tensor, a tree like params
            (or its beginning), or a schedule of the generation.
        lr: size of plain steps where no `optimizer` is given.
        optimizer: any transformation, for the descent gradient.
        antithetic: draw pairs (z, -z).
        shaping: a name of `es.shaping` or a function.
        scale: how the estimate is normalised, as above.
        weight_decay: >= 0, times the mean, joins the gradient before the optimizer.
        maximize: bigger fitness is better.
        process_group: ranks that share the evaluation.

    Returns:
        A `Search`. Its state is the mean, the optimizer's state, and what all searches keep.

    Raises:
        ValueError: an argument is out of its range; at `init`, params hold nothing or lie on
            several devices; at `tell`, there is not one fitness for each member.
        TypeError: at `init`, params are not floating point tensors; at `tell`, fitness is complex.

    Example:
        >>> search = fo.es.openai_es(popsize=64, sigma=0.1, lr=0.03)
        >>> state = search.init(torch.zeros(2), fo.random.key(0))
        >>> for _ in range(40):
        ...     population, state = search.ask(state)
        ...     state = search.tell(state, (population.stacked() - 1).square().sum(1))
        >>> (search.center(state) - 1).abs().max() < 0.2
        tensor(True)
    """
    where = "es.openai_es"
    if not callable(sigma):
        positive_sigma(where, sigma)
    check.nonnegative(where, "weight_decay", weight_decay)
    check.choice(where, "scale", scale, get_args(Scale))
    shape = shaping_of(shaping)
    check.nonnegative(where, "lr", lr)
    optimizer = mover(where, optimizer) or descend(lr)
    spread, unit = fixed_spread(where, sigma), has_unit(shaping)

    def start(params: TensorTree, common: Common) -> OpenAIESState:
        return OpenAIESState(mean=params, optimizer=optimizer.init(params), common=common)

    def learn(state: OpenAIESState, fitness: Tensor, generation: Generation) -> OpenAIESState:
        utilities = bounded(shape(fitness))
        if unit:
            size = magnitude(utilities)
            gradient = times(estimate(utilities / size, generation, scale), size)
        else:
            gradient = estimate(utilities, generation, scale)
        gradient = gradient - weight_decay * ravel(state.mean, gradient.dtype)
        mean, optimizer_state = step_center(optimizer, gradient, state, fitness)
        return state._replace(mean=mean, optimizer=optimizer_state)

    return make_search(
        "openai_es", start, spread, learn, popsize=popsize, mirrored=antithetic, maximize=maximize, process_group=process_group
    )


def estimate(utilities: Tensor, generation: Generation, scale: Scale) -> Tensor:
    """The ascent estimate [D] of the smoothed objective."""
    spread = generation.population.spread
    total = generation.first(utilities) / utilities.shape[0]
    return {"inverse_sigma": lambda: total / spread, "openai": lambda: total, "sigma": lambda: total * spread}[scale]()


def fixed_spread(where: str, sigma: Any) -> Callable[[Any], Tensor]:
    """The spread of a search whose sigma is a number, a schedule of the generation, or a tree that does not change."""

    def spread(state: Any) -> Tensor:
        value, dtype, device = sigma, work_dtype(state.mean), state.common.key.device
        if callable(value):
            value = value(state.common.count)
        if isinstance(value, (int, float)):
            return torch.full((), value, dtype=dtype, device=device)
        if isinstance(value, Tensor) and value.dim() == 0:
            return value.to(device=device, dtype=dtype)
        return ravel(sigma_of(where, value, state.mean), dtype)

    return spread


def tree_spread(state: Any) -> Tensor:
    """The spread of a search that keeps a tree `sigma`."""
    return ravel(state.sigma, tree.leaves(state.sigma)[0].dtype)
