"""ARS: augmented random search. Steps along the best directions, in units of the spread of their rewards.

    x_j = mean + sigma z_j,   x_{j + H} = mean - sigma z_j
    kept: pairs whose better fitness reaches the percentile 100 (1 - b / H)
    g   = 1 / (kept sigma_R) sum_kept (f_j - f_{j + H}) z_j        sigma_R the spread of the 2 kept rewards
    mean <- mean + lr g                                            or any optimizer on -g

The percentile lies between two sorted values and pairs that tie with it are kept, as
in the authors' code; `exact=True` keeps b pairs exactly (evosax, which also holds
sigma_R above 1e-8).

Source: Mania, Guy and Recht, "Simple random search provides a competitive approach to
reinforcement learning", arXiv 1803.07055 (V1, and V1-t with directions < H; V2 adds
normalised observations, which are the business of the rollout).
"""

from typing import Any, NamedTuple

from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, TensorTree, check
from funcopt.es.search.openai_es import estimate, fixed_spread
from funcopt.es.search.population import Generation
from funcopt.es.search.protocol import Common, Search, descend, make_search, mover, positive_sigma, step_center
from funcopt.es.shaping.shaping import shaping as shaping_of

__all__ = ["ARSState", "ars"]


class ARSState(NamedTuple):
    mean: TensorTree  # like params
    optimizer: Any  # of the center
    common: Common  # what every search keeps: key, generation, best member


def ars(
    popsize: int | None = None,
    sigma: Any = 0.03,
    *,
    directions: int | None = None,
    lr: Scalar = 0.02,
    optimizer: GradientTransformation | None = None,
    exact: bool = False,
    maximize: bool = False,
    process_group: Any = None,
) -> Search[ARSState]:
    """ARS: random search for policies, linear ones above all.

    Args:
        popsize: members, >= 2 and even; None: 4 + floor(3 ln D), even.
        sigma: scale of the noise, > 0: a number, a 0-dim tensor, a tree like params
            (or its beginning), or a schedule of the generation.
        directions: b, how many pairs count, 1 to popsize / 2; None: all.
        lr: size of plain steps where no `optimizer` is given.
        optimizer: any transformation, for the negated estimate.
        exact: keep b pairs even where more tie.
        maximize: bigger fitness is better.
        process_group: ranks that share the evaluation.

    Returns:
        A `Search`. Its state is the mean, the optimizer's state, and what all searches keep.

    Raises:
        ValueError: an argument is out of its range; at `init`, params hold nothing or lie on
            several devices; at `tell`, there is not one fitness for each member.
        TypeError: at `init`, params are not floating point tensors; at `tell`, fitness is complex.

    Example:
        >>> search = fo.es.ars(popsize=16, sigma=0.1, directions=4, lr=0.1)
        >>> state = search.init(torch.zeros(2), fo.random.key(0))
        >>> for _ in range(60):
        ...     population, state = search.ask(state)
        ...     state = search.tell(state, (population.stacked() - 1).square().sum(1))
        >>> (search.center(state) - 1).abs().max() < 0.3
        tensor(True)
    """
    where = "es.ars"
    if not callable(sigma):
        positive_sigma(where, sigma)
    if directions is not None:
        check.integer(where, "directions", directions, 1)
        if popsize is not None and directions > popsize // 2:
            raise ValueError(f"{where}: directions must be <= {popsize // 2}, half the popsize, got {directions}")
    shape = shaping_of("ars", directions=directions, exact=exact, eps=1e-8 if exact else 0.0)
    check.nonnegative(where, "lr", lr)
    optimizer = mover(where, optimizer) or descend(lr)

    def start(params: TensorTree, common: Common) -> ARSState:
        return ARSState(mean=params, optimizer=optimizer.init(params), common=common)

    def learn(state: ARSState, fitness: Tensor, generation: Generation) -> ARSState:
        mean, optimizer_state = step_center(optimizer, estimate(shape(fitness), generation, "openai"), state, fitness)
        return state._replace(mean=mean, optimizer=optimizer_state)

    return make_search(
        "ars", start, fixed_spread(where, sigma), learn, popsize=popsize, mirrored=True, maximize=maximize, process_group=process_group
    )
