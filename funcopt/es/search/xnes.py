"""xNES: natural evolution strategies with a full covariance, moved along the exponential map.

    x_i  = mean + A z_i
    mean <- mean + lr A sum_i u_i z_i
    A    <- A expm(1/2 (scale_lr s I + A_lr (M - s I))),   M = sum_i u_i (z_i z_i^T - I),   s = tr M / D

M is one matrix product, and expm the exponential of a matrix. s is how the size of A
grows and M - s I how its shape turns; with scale_lr = A_lr it is the published
A expm(A_lr / 2 M). That one rate falls as D^(-3/2), as a shape of D^2 numbers needs it,
and holds the one number of the size back with it: on a sphere of 20 dimensions the
size shrinks by a half per cent a generation, whatever is seen. So by default the size has the
geometric mean of A_lr and of the rate of `snes`, (3 + ln D) / (5 sqrt(D)); at that of
`snes` itself the size shrinks before the shape is learned (`python benchmarks/es_evaluations.py`). (evosax 0.3.2 takes the
exponential of each element and starts with sigma twice: a recorded defect that a test
shows, not followed here.)

Source: Glasmachers et al., "Exponential natural evolution strategies", GECCO 2010.
Reference: EvoTorch's ExpGaussian.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import Scalar, TensorTree, check, tree
from funcopt.es.search.population import Generation, dimension, ravel, unravel
from funcopt.es.search.protocol import Common, Search, make_search, positive_sigma, sigma_of
from funcopt.es.shaping.shaping import Shaping, ShapingName, bounded, shaping as shaping_of

__all__ = ["XNESState", "xnes"]


class XNESState(NamedTuple):
    mean: TensorTree  # like params
    factor: Tensor  # A [D, D], float64 where the device has it; the covariance is A A^T
    common: Common  # what every search keeps: key, generation, best member


def xnes(
    popsize: int | None = None,
    sigma: Any = 1.0,
    *,
    lr: Scalar = 1.0,
    factor_lr: Scalar | None = None,
    scale_lr: Scalar | None = None,
    shaping: ShapingName | Shaping = "nes",
    maximize: bool = False,
    process_group: Any = None,
) -> Search[XNESState]:
    """xNES: learns scales and directions, for up to about a thousand elements.

    Args:
        popsize: members, >= 2; None: 4 + floor(3 ln D).
        sigma: first scale, > 0: a number, a 0-dim tensor, a tree like params (or its
            beginning), or the first A, a matrix [D, D].
        lr: of the mean.
        factor_lr: rate of the shape of A, >= 0; None: (9 + 3 ln D) / (5 D sqrt(D)).
        scale_lr: rate of its size, >= 0; None: sqrt(3) (3 + ln D) / (5 D), or `factor_lr` where that is given.
        shaping: a name of `es.shaping` or a function.
        maximize: bigger fitness is better.
        process_group: ranks that share the evaluation.

    Returns:
        A `Search`. Its state is a tree like params, a matrix [D, D], and what all searches keep.

    Raises:
        ValueError: an argument is out of its range; at `init`, params hold nothing or lie on
            several devices; at `tell`, there is not one fitness for each member.
        TypeError: at `init`, params are not floating point tensors; at `tell`, fitness is complex.

    Example:
        >>> search = fo.es.xnes(sigma=0.5)
        >>> state = search.init(torch.zeros(3), fo.random.key(0))
        >>> for _ in range(100):
        ...     population, state = search.ask(state)
        ...     x = population.stacked() - 1
        ...     state = search.tell(state, (x * torch.tensor([1.0, 10.0, 100.0])).square().sum(1))
        >>> (search.center(state) - 1).abs().max() < 0.1
        tensor(True)
    """
    where = "es.xnes"
    positive_sigma(where, sigma)
    if factor_lr is not None:
        check.nonnegative(where, "factor_lr", factor_lr)
    if scale_lr is not None:
        check.nonnegative(where, "scale_lr", scale_lr)
    check.nonnegative(where, "lr", lr)
    shape = shaping_of(shaping)

    def start(params: TensorTree, common: Common) -> XNESState:
        return XNESState(mean=params, factor=first_factor(where, sigma, params), common=common)

    def learn(state: XNESState, fitness: Tensor, generation: Generation) -> XNESState:
        dim = generation.dim
        rate = (9 + 3 * math.log(dim)) / (5 * dim * math.sqrt(dim)) if factor_lr is None else factor_lr
        size_rate = scale_lr
        if size_rate is None:
            size_rate = math.sqrt(3) * (3 + math.log(dim)) / (5 * dim) if factor_lr is None else factor_lr
        utilities = bounded(shape(fitness))
        dtype = state.factor.dtype
        mean = ravel(state.mean, dtype) + lr * (state.factor @ generation.first(utilities))
        eye = torch.eye(dim, dtype=dtype, device=state.factor.device)
        moment = generation.outer(utilities) - utilities.sum() * eye
        exponent = 0.5 * rate * moment + 0.5 * (size_rate - rate) * moment.diagonal().mean() * eye
        return state._replace(mean=unravel(mean, state.mean), factor=state.factor @ torch.linalg.matrix_exp(exponent))

    return make_search("xnes", start, lambda state: state.factor, learn, popsize=popsize, maximize=maximize, process_group=process_group)


def first_factor(where: str, sigma: Any, params: TensorTree) -> Tensor:
    """The first A: a diagonal, or the matrix that is given."""
    dim, device = dimension(params), tree.device(params)
    dtype = tree.scalar_dtype(device)
    if isinstance(sigma, Tensor) and sigma.dim() == 2 and sigma.shape == (dim, dim):
        return sigma.to(device=device, dtype=dtype).clone()
    return torch.diag(ravel(sigma_of(where, sigma, params), dtype))
