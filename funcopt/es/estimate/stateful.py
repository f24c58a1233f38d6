"""`es.grad` with a memory: keys that are counted, a sigma that follows a schedule, a subspace of past gradients.

    key_t     = fold_in(key, t)
    sigma_t   = sigma(t)
    subspace  = the last k surrogate gradients; the estimator's own where nobody gives one

Everything that changes is in the state, so an estimator may be saved, resumed and vmapped
like a search. Source of the subspace: es/noise/guided.py; of one's own past in it: Choromanski et
al., "From Complexity to Simplicity: Adaptive ES-Active Subspaces", NeurIPS 2019.
"""

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import check, random, tree
from funcopt.core.protocol import ScalarOrSchedule
from funcopt.core.typed import Unpack
from funcopt.es.estimate.grad import Estimate
from funcopt.es.keywords import Estimation
from funcopt.es.noise.guided import guided, push_surrogate, surrogates
from funcopt.es.options import settings_of

__all__ = ["Estimator", "EstimatorState", "estimator"]


class EstimatorState(NamedTuple):
    key: Tensor  # int64 [2]
    count: Tensor  # int64, estimates so far
    subspace: Any  # Surrogates; () without them


class Estimator(NamedTuple):
    """Pure functions of an `EstimatorState`, see `estimator`."""

    init: Callable[..., Any]  # init(params, key) -> state
    estimate: Callable[..., Any]  # estimate(params, state, *args, surrogate=None, **kwargs) -> (grads, state, info)


def estimator(
    objective: Callable[..., Any],
    *,
    popsize: int,
    sigma: ScalarOrSchedule,
    subspace: int = 0,
    alpha: float | Tensor = 0.5,
    beta: float | Tensor = 1.0,
    **options: Unpack[Estimation],
) -> Estimator:
    """An `es.grad` that remembers.

    Args:
        objective: as in `es.grad`, of its first argument.
        popsize: evaluations a call, >= 1; even with `antithetic`.
        sigma: the standard deviation of the perturbations, > 0; or a schedule of the
            estimates so far (`fo.schedules`).
        subspace: k >= 0, past gradients whose span gets 1 - alpha of the variance
            (`es.guided`); 0: none, and plain noise.
        alpha, beta: as in `es.guided`.
        **options: of `es.grad`; not `noise` where there is a subspace.

    Returns:
        `init(params, key)` and `estimate(params, state, *args, **kwargs)`, which gives the
        gradient, the state and an `es.Info`. With a subspace, `estimate` takes `surrogate=`,
        a gradient that is biased but at hand; without it the estimate itself is
        remembered. Until k gradients are known, a part of the variance goes into
        directions that mean nothing.

    Raises:
        ValueError: an option is out of range; `noise` beside a subspace; worker processes
            and a sigma or subspace that changes.
        TypeError: an option that `es.grad` does not know.

    Example:
        >>> falling = fo.schedules.exponential_decay(0.5, transition_steps=20, decay_rate=0.5)
        >>> descent = fo.es.estimator(lambda x: (x - 1).square().sum(), popsize=16, sigma=falling)
        >>> params, tx = torch.zeros(5), fo.adam(0.1)
        >>> memory, state = descent.init(params, key=0), tx.init(params)
        >>> for _ in range(60):
        ...     grads, memory, info = descent.estimate(params, memory)
        ...     updates, state = tx.update(grads, state, params)
        ...     params = fo.apply_updates(params, updates)
        >>> bool((params - 1).abs().max() < 0.1), int(memory.count)
        (True, 60)
    """
    where = "es.estimator"
    check.integer(where, "subspace", subspace, 0)
    check.within(where, "alpha", alpha, 0, 1)
    check.nonnegative(where, "beta", beta)
    if callable(sigma):
        check.schedule_or(check.positive, where, "sigma", sigma)
    if subspace and "noise" in options:
        raise ValueError(f"{where}: subspace={subspace} is a law of perturbations; leave out noise=, or take subspace=0")
    if options.get("vectorize") == "processes" and (subspace or callable(sigma)):
        raise ValueError(
            f"{where}: worker processes know one sigma and one law; take vectorize='loop', or es.grad with a sigma that is a number"
        )
    if subspace:
        guided([torch.zeros(subspace, 1)], alpha=alpha, beta=beta)  # refuses what is out of range
    first = Estimate(objective, 0, settings_of(where, popsize=popsize, sigma=1.0 if callable(sigma) else sigma, **options))

    def init(params: Any, key: int | Tensor) -> EstimatorState:
        device = tree.device(params)
        return EstimatorState(
            key=random.as_key(key, where, device=device),
            count=torch.zeros((), dtype=torch.int64, device=device),
            subspace=surrogates(params, subspace) if subspace else (),
        )

    def estimate(params: Any, state: EstimatorState, *args: Any, surrogate: Any = None, **kwargs: Any) -> tuple[Any, EstimatorState, Any]:
        if surrogate is not None and not subspace:
            raise ValueError(f"{where}: surrogate= needs a subspace to be remembered in; say subspace=1 or more")
        remembered = state.subspace if surrogate is None else push_surrogate(state.subspace, surrogate)
        now, changes = copy(first), {}
        if callable(sigma):
            changes["sigma"] = tree.scalar(sigma(state.count), state.count)
        if subspace:
            changes["noise"] = guided(remembered, alpha=alpha, beta=beta)
        now.settings = replace(first.settings, estimand=replace(first.settings.estimand, **changes))
        grads, info = now((params, *args), kwargs, random.fold_in(state.key, state.count))
        if subspace and surrogate is None:
            remembered = push_surrogate(remembered, grads)
        return grads, EstimatorState(key=state.key, count=state.count + 1, subspace=remembered), info

    return Estimator(init, estimate)
