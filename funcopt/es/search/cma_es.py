"""CMA-ES: covariance matrix adaptation.

    x_i     = mean + sigma y_i,  y_i = A z_i,  C = A A^T       weights w by rank, best first
    y_w     = sum_{w > 0} w_i y_i,  z_w likewise
    mean    <- mean + sigma y_w
    p_sigma <- (1 - c_sigma) p_sigma + sqrt(c_sigma (2 - c_sigma) mu_eff) z_w
    sigma   <- sigma exp(c_sigma / d_sigma (|p_sigma| / chi - 1))
    h       = 1 if |p_sigma| / sqrt(1 - (1 - c_sigma)^{2 t}) < (1.4 + 2 / (D + 1)) chi else 0
    p_c     <- (1 - c_c) p_c + h sqrt(c_c (2 - c_c) mu_eff) y_w
    C       <- (1 + c_1 (1 - h) c_c (2 - c_c) - c_1 - c_mu sum w) C + c_1 p_c p_c^T + c_mu sum_i w°_i y_i y_i^T
    w°      = w where w >= 0, else w D / |z|^2

t is 1 in the first generation; the constants are in `es/shaping/recombination.py`. variant
"tutorial" takes for A the symmetric square root of C, for which z = C^{-1/2} y;
"pycma" the Cholesky factor, h = [|p_sigma|^2 / (D (1 - (1 - c_sigma)^{2 t - 1})) < 2 + 4 / (D + 1)],
and decomposes C every max(1, floor(1 / (10 D (c_1 + c_mu)))) generations; "evosax" is
"tutorial" with t + 1 in h. The sum over members is one matrix product (P x D^2): a
tensor [P, D, D], which EvoTorch makes, runs out of memory first.

Source: Hansen, "The CMA evolution strategy: a tutorial", arXiv 1604.00772. Reference:
evosax CMA_ES; EvoTorch CMAES, after pycma.
"""

import math
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from funcopt.core import TensorTree, check, random, tree
from funcopt.es.search.population import Generation, dimension, ravel, unravel
from funcopt.es.search.protocol import Common, Search, make_search, positive_sigma
from funcopt.es.search.xnes import first_factor
from funcopt.es.shaping.recombination import Recombination, recombination
from funcopt.es.shaping.shaping import by_places

__all__ = ["Variant", "CMAESState", "cma_es", "first_scale", "paths", "ranked_weights"]

LARGEST = 10_000  # numbers: two matrices of 0.4 to 0.8 GB, and a decomposition of a minute
Variant = Literal["tutorial", "pycma", "evosax"]


class CMAESState(NamedTuple):
    mean: TensorTree  # like params
    sigma: Tensor  # 0-dim, float64 where the device has it, like all below
    covariance: Tensor  # C [D, D]
    factor: Tensor  # A [D, D], A A^T = C (of some generations ago, if C is decomposed now and then)
    p_sigma: Tensor  # [D], the path of the mean in the coordinates of z
    p_c: Tensor  # [D], its path in those of y
    common: Common  # what every search keeps: key, generation, best member


def cma_es(
    popsize: int | None = None,
    sigma: Any = 1.0,
    *,
    variant: Variant = "tutorial",
    active: bool = True,
    decompose_every: int | None = None,
    maximize: bool = False,
    process_group: Any = None,
) -> Search[CMAESState]:
    """CMA-ES: the search to try first on up to a thousand parameters, ill-conditioned and rugged problems included.

    It depends on the order of the fitness alone, and not on how the space is turned.

    Args:
        popsize: members, >= 2; None: 4 + floor(3 ln D). Larger ones search more widely.
        sigma: first scale, > 0: a number or a 0-dim tensor; or a tree like params (or
            its beginning) of scales, whose geometric mean becomes sigma and the rest
            the first covariance.
        variant: "tutorial", "pycma" or "evosax"; see the head of the file.
        active: members of the worse half shrink the covariance along their directions.
        decompose_every: generations between decompositions of C (a third power of D); None: 1, with
            "pycma" as above. Between them nothing is worked out where state lies on
            the CPU and no graph is traced; elsewhere it is worked out and dropped.
        maximize: bigger fitness is better.
        process_group: ranks that share the evaluation.

    Returns:
        A `Search`. Its state is a tree like params, two matrices [D, D], two vectors [D],
        and what all searches keep.

    Raises:
        ValueError: an argument is out of its range; at `init`, params hold nothing or lie on
            several devices, or hold more than
            10,000 numbers; at `tell`, there is not one fitness for each member.
        TypeError: at `init`, params are not floating point tensors; at `tell`, fitness is complex.

    Example:
        >>> search = fo.es.cma_es(sigma=0.5)
        >>> state = search.init(torch.zeros(2), fo.random.key(0))
        >>> for _ in range(120):
        ...     population, state = search.ask(state)
        ...     x, y = population.stacked().double().unbind(1)
        ...     state = search.tell(state, 100 * (y - x * x).square() + (1 - x).square())
        >>> (search.center(state) - 1).abs().max() < 1e-3
        tensor(True)
    """
    where = "es.cma_es"
    check.choice(where, "variant", variant, get_args(Variant))
    positive_sigma(where, sigma)
    if decompose_every is not None:
        check.integer(where, "decompose_every", decompose_every, 1)

    def start(params: TensorTree, common: Common) -> CMAESState:
        dim = dimension(params)
        if dim > LARGEST:
            size = 2 * dim**2 * (8 if tree.dtype(params, "promote") == torch.float64 else 4) / 2**30
            raise ValueError(
                f"{where}: params must hold at most {LARGEST} numbers, got {dim}, for which it would keep {size:.1f} GiB of matrices and "
                "decompose one of them "
                "again and again; use es.sep_cma_es, which keeps a vector, or es.snes"
            )
        scale, factor = first_scale(where, sigma, params)
        zero = torch.zeros(dim, dtype=factor.dtype, device=factor.device)
        return CMAESState(
            mean=params, sigma=scale, covariance=factor @ factor.mT, factor=factor, p_sigma=zero, p_c=zero.clone(), common=common
        )

    def learn(state: CMAESState, fitness: Tensor, generation: Generation) -> CMAESState:
        constants = recombination(fitness.shape[0], generation.dim, variant=variant, active=active)
        weights = ranked_weights(fitness, constants, state.sigma.dtype)
        z_w = generation.first(weights.clamp(min=0))
        y_w = state.factor @ z_w
        p_sigma, sigma, p_c, kept = paths(state, constants, z_w, y_w, variant)
        outward = torch.where(weights < 0, weights * generation.dim / at_least_tiny(generation.squared_norms()), weights)
        covariance = (
            kept * state.covariance + constants.c_1 * torch.outer(p_c, p_c) + constants.c_mu * generation.outer(outward, state.factor)
        )
        covariance = (covariance + covariance.mT) / 2
        mean = ravel(state.mean, y_w.dtype) + state.sigma * y_w
        every = decompose_every or (lazy(constants, generation.dim) if variant == "pycma" else 1)
        factor = decomposed(covariance, state.factor, state.common.count, every, cholesky=variant == "pycma")
        return state._replace(mean=unravel(mean, state.mean), sigma=sigma, covariance=covariance, factor=factor, p_sigma=p_sigma, p_c=p_c)

    def spread(state: CMAESState) -> Tensor:
        return state.sigma * state.factor

    return make_search("cma_es", start, spread, learn, popsize=popsize, maximize=maximize, process_group=process_group)


def first_scale(where: str, sigma: Any, params: TensorTree) -> tuple[Tensor, Tensor]:
    """sigma as one number, and the factor [D, D] of the first covariance, of determinant one."""
    if isinstance(sigma, (int, float)) or (isinstance(sigma, Tensor) and sigma.dim() == 0):
        scale = tree.scalar(sigma, like=params).to(tree.device(params))
        return scale, torch.eye(dimension(params), dtype=scale.dtype, device=scale.device)
    scales = first_factor(where, sigma, params).diagonal()
    scale = scales.log().mean().exp()
    return scale, torch.diag(scales / scale)


def ranked_weights(fitness: Tensor, constants: Recombination, dtype: torch.dtype) -> Tensor:
    """The weight of each member, by its rank; members that tie share the mean of theirs."""
    dtype_of_places = torch.float64 if fitness.device.type != "mps" else torch.float32
    worst_first = torch.tensor(constants.weights[::-1], dtype=dtype_of_places, device="cpu").to(fitness.device, non_blocking=True)
    return by_places(fitness.to(worst_first.dtype), lambda rank: worst_first).to(dtype)


def paths(state: Any, constants: Recombination, z_w: Tensor, y_w: Tensor, variant: Variant) -> tuple[Tensor, ...]:
    """p_sigma, sigma and p_c after this generation, and the share of C that is kept."""
    c_sigma, c_c, c_1 = constants.c_sigma, constants.c_c, constants.c_1
    dim = z_w.shape[0]
    p_sigma = (1 - c_sigma) * state.p_sigma + math.sqrt(c_sigma * (2 - c_sigma) * constants.mu_eff) * z_w
    norm = torch.linalg.vector_norm(p_sigma)
    sigma = state.sigma * (c_sigma / constants.d_sigma * (norm / constants.chi - 1)).exp()
    t = (state.common.count + 1).to(norm.dtype)
    if variant == "pycma":
        h = norm.square() / dim / (1 - (1 - c_sigma) ** (2 * t - 1)) < 2 + 4 / (dim + 1)
    else:
        t = t + 1 if variant == "evosax" else t
        h = norm / (1 - (1 - c_sigma) ** (2 * t)).sqrt() < (1.4 + 2 / (dim + 1)) * constants.chi
    h = h.to(norm.dtype)
    p_c = (1 - c_c) * state.p_c + h * math.sqrt(c_c * (2 - c_c) * constants.mu_eff) * y_w
    kept = 1 + c_1 * (1 - h) * c_c * (2 - c_c) - c_1 - constants.c_mu * sum(constants.weights)
    return p_sigma, sigma, p_c, kept


def lazy(constants: Recombination, dim: int) -> int:
    """Generations between decompositions, so that they cost no more than the rest."""
    return max(1, math.floor(1 / (10 * dim * (constants.c_1 + constants.c_mu))))


def decomposed(covariance: Tensor, old: Tensor, count: Tensor, every: int, cholesky: bool) -> Tensor:
    """The factor of a new covariance; the old one where it is not due, or where C is not positive definite in this precision."""
    if every > 1 and random.readable(count):
        if (random.host_int(count, "es.cma_es") + 1) % every:
            return old
        every = 1
    if cholesky:
        new, info = torch.linalg.cholesky_ex(covariance)
        usable = info == 0
    else:
        values, vectors = torch.linalg.eigh(covariance)
        new = (vectors * values.clamp(min=0).sqrt()) @ vectors.mT
        usable = (values > 0).all()
    if every > 1:
        usable = usable & ((count + 1) % every == 0)
    # One layout, whatever the decomposition returns: a resumed run multiplies in the same order, and a compiled one is compiled once.
    return torch.where(usable, new, old).contiguous()


def at_least_tiny(x: Tensor) -> Tensor:
    return x.clamp(min=torch.finfo(x.dtype).tiny)
