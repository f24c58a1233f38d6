"""sep-CMA-ES: covariance matrix adaptation with a diagonal, linear in the number of elements.

The recurrence is that of `cma_es.py`, on the diagonal of C alone:

    C <- (1 + c_1 (1 - h) c_c (2 - c_c) - c_1 - c_mu sum w) C + c_1 p_c^2 + c_mu sum_i w°_i y_i^2,    A = sqrt(C)

c_1 and c_mu are those of the full matrix; `accelerate` multiplies them by (D + 2) / 3,
as the authors do, since a diagonal has D numbers to learn and not D^2 / 2; negative weights are then
bounded by the larger c_mu, so that C stays positive. "pycma" has separable constants of its own and takes the sum of w°
from C where w stands above (as EvoTorch does; with negative weights it matters).

Source: Ros and Hansen, "A simple modification in CMA-ES achieving linear time and
space complexity", PPSN 2008. Reference: evosax Sep_CMA_ES; EvoTorch CMAES(separable=True).
"""

from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from funcopt.core import TensorTree, check
from funcopt.es.search.cma_es import Variant, at_least_tiny, paths, ranked_weights
from funcopt.es.search.population import Generation, dimension, ravel, unravel, work_dtype
from funcopt.es.search.protocol import Common, Search, make_search, positive_sigma, sigma_of
from funcopt.es.shaping.recombination import recombination

__all__ = ["SepCMAESState", "sep_cma_es"]


class SepCMAESState(NamedTuple):
    mean: TensorTree  # like params
    sigma: Tensor  # 0-dim, in the dtype of the arithmetic, like all below
    covariance: Tensor  # [D], the diagonal of C
    p_sigma: Tensor  # [D]
    p_c: Tensor  # [D]
    common: Common  # what every search keeps: key, generation, best member


def sep_cma_es(
    popsize: int | None = None,
    sigma: Any = 1.0,
    *,
    variant: Variant = "tutorial",
    active: bool | None = None,
    accelerate: bool | None = None,
    maximize: bool = False,
    process_group: Any = None,
) -> Search[SepCMAESState]:
    """sep-CMA-ES: learns the scale of every element, for up to a million of them.

    Args:
        popsize: members, >= 2; None: 4 + floor(3 ln D).
        sigma: first scale, > 0: a number or a 0-dim tensor; or a tree like params (or
            its beginning) of scales, whose geometric mean becomes sigma and the rest
            the first C.
        variant: "tutorial", "pycma" or "evosax"; see `cma_es`.
        active: members of the worse half shrink C along their directions; None: with "tutorial".
        accelerate: c_1 and c_mu times (D + 2) / 3, as far as they leave a share of the
            past; not with "pycma". None: with "tutorial". Without both, the ellipsoid of 20 dimensions takes three times
            as many evaluations, and that of 60 does not end (`python benchmarks/es_evaluations.py`).
        maximize: bigger fitness is better.
        process_group: ranks that share the evaluation.

    Returns:
        A `Search`. Its state is a tree like params, three vectors [D], and what all searches keep.

    Raises:
        ValueError: an argument is out of its range; at `init`, params hold nothing or lie on
            several devices; at `tell`, there is not one fitness for each member.
        TypeError: at `init`, params are not floating point tensors; at `tell`, fitness is complex.

    Example:
        >>> search = fo.es.sep_cma_es(sigma=0.5)
        >>> state = search.init(torch.zeros(3), fo.random.key(0))
        >>> for _ in range(150):
        ...     population, state = search.ask(state)
        ...     x = population.stacked() - 1
        ...     state = search.tell(state, (x * torch.tensor([1.0, 10.0, 100.0])).square().sum(1))
        >>> (search.center(state) - 1).abs().max() < 0.01
        tensor(True)
    """
    where = "es.sep_cma_es"
    check.choice(where, "variant", variant, get_args(Variant))
    positive_sigma(where, sigma)
    if accelerate and variant == "pycma":
        raise ValueError(f"{where}: accelerate is not for variant='pycma', which has separable constants of its own")
    recorded = variant != "tutorial"  # those of others stay as they are
    negative = not recorded if active is None else active
    fast = not recorded if accelerate is None else accelerate

    def start(params: TensorTree, common: Common) -> SepCMAESState:
        dtype = work_dtype(params)
        scales = ravel(sigma_of(where, sigma, params), dtype)
        scale = (
            scales[0].clone()
            if isinstance(sigma, (int, float)) or (isinstance(sigma, Tensor) and sigma.dim() == 0)
            else scales.log().mean().exp()
        )
        zero = torch.zeros(dimension(params), dtype=dtype, device=scales.device)
        return SepCMAESState(mean=params, sigma=scale, covariance=(scales / scale).square(), p_sigma=zero, p_c=zero.clone(), common=common)

    def learn(state: SepCMAESState, fitness: Tensor, generation: Generation) -> SepCMAESState:
        form: dict[str, Any] = {"variant": variant, "active": negative, "separable": True, "accelerate": fast}
        constants = recombination(fitness.shape[0], generation.dim, **form)
        weights = ranked_weights(fitness, constants, state.sigma.dtype)
        root = state.covariance.sqrt()
        z_w = generation.first(weights.clamp(min=0))
        y_w = root * z_w
        p_sigma, sigma, p_c, kept = paths(state, constants, z_w, y_w, variant)
        if negative:
            outward = torch.where(weights < 0, weights * generation.dim / at_least_tiny(generation.squared_norms()), weights)
            # EvoTorch takes from C what it adds, the sum of w° in place of that of w.
            kept = kept + constants.c_mu * (weights.sum() - outward.sum()) if variant == "pycma" else kept
            weights = outward
        moment = state.covariance * generation.second(weights)
        covariance = at_least_tiny(kept * state.covariance + constants.c_1 * p_c.square() + constants.c_mu * moment)
        mean = ravel(state.mean, y_w.dtype) + state.sigma * y_w
        return state._replace(mean=unravel(mean, state.mean), sigma=sigma, covariance=covariance, p_sigma=p_sigma, p_c=p_c)

    def spread(state: SepCMAESState) -> Tensor:
        return state.sigma * state.covariance.sqrt()

    return make_search("sep_cma_es", start, spread, learn, popsize=popsize, maximize=maximize, process_group=process_group)
