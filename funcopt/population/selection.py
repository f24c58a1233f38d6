"""Choosing between the copies of a population: the best one, and population-based training.

    order by loss;  the worst fraction of the copies <- copies drawn from the best fraction   (exploit)
    hyper of a replaced copy <- hyper of the other, times a factor drawn from `factors`      (explore)

Source: Jaderberg et al., "Population based training of neural networks", 2017, with
truncation selection and perturbation, their fraction of 20 % and factors 0.8 and 1.2
(here 1.25, so that the way up and the way down cancel).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from funcopt.core import TensorTree, check, random, tree
from funcopt.population.copies import count, member
from funcopt.population.step import PopulationState

__all__ = ["best", "exploit_explore"]


def best(population: TensorTree, losses: Tensor) -> TensorTree:
    """The copy with the lowest loss.

    Args:
        population: a tree of tensors with a leading axis of copies, such as
            `(params, state.hyper)`.
        losses: [copies], lower is better; NaN is worst. Pass `-accuracy` for what
            should be high.

    Returns:
        The tree of that copy; the choice is made on the device.

    Raises:
        ValueError: `losses` is no vector with a number for each copy.

    Example:
        >>> params = {"w": torch.tensor([[1.0], [2.0], [3.0]])}
        >>> fo.population.best(params, torch.tensor([0.5, 0.25, torch.nan]))
        {'w': tensor([2.])}
    """
    _check_losses("population.best", losses)
    count("population.best", "population", population, len(losses))
    return member(population, _settled(losses).argmin())


def exploit_explore(
    key: Tensor,
    params: TensorTree,
    state: PopulationState,
    losses: Tensor,
    *,
    fraction: float = 0.2,
    factors: Sequence[float] = (0.8, 1.25),
    explore: Sequence[str] | None = None,
    bounds: Mapping[str, tuple[float, float]] | None = None,
) -> tuple[TensorTree, PopulationState, Tensor]:
    """One round of population-based training: the worst copies go on from the best, with hyperparameters a little off.

    A pure function: equal keys, equal results, and nothing is read from the device.

    Args:
        key: int64 [2]; a new one for each round, as by `fo.random.fold_in(key, round)`.
        params, state: of the population's step.
        losses: [copies], lower is better, NaN is worst; of held-out data, or a mean of
            recent training losses.
        fraction: share of the copies that are replaced, in (0, 0.5], and of those that
            they may be replaced by; at least one copy.
        factors: a replaced copy's hyperparameters are each multiplied by one of them.
        explore: names of the hyperparameters to multiply; None: all of floating point.
        bounds: name -> (lowest, highest), where a multiplied hyperparameter stops:
            `{"b1": (0.5, 0.99)}`.

    Returns:
        params, state, and `source`, int64 [copies]: the copy whose params, state and
        hyperparameters copy i now has, itself for most. All else in `hyper`, such as
        seeds, is copied as it is.

    Raises:
        ValueError: there are fewer than two copies, `fraction` is out of range, there
            are no factors or one is not positive, or a name is none of a hyperparameter.

    Example:
        >>> pop = fo.population.make_step(lambda w: w * w, fo.sgd, hyper={"lr": [0.25, 0.5]})
        >>> w, state = pop.init(torch.tensor([4.0, 1.0]))
        >>> w, state, source = fo.population.exploit_explore(fo.random.key(0), w, state, losses=w * w, factors=(2.0,))
        >>> w, state.hyper["lr"], source
        (tensor([1., 1.]), tensor([1.0000, 0.5000], dtype=torch.float64), tensor([1, 1]))
    """
    where = "population.exploit_explore"
    _check_losses(where, losses)
    copies = len(losses)
    if copies < 2:
        raise ValueError(f"{where}: needs at least two copies, got {copies}")
    if not 0 < fraction <= 0.5:
        raise ValueError(f"{where}: fraction must be in (0, 0.5], got {fraction}")
    if not factors:
        raise ValueError(f"{where}: factors must hold at least one, got none")
    for factor in factors:
        check.positive(where, "each of factors", factor)
    count(where, "params", params, copies)
    names = sorted(name for name, value in state.hyper.items() if value.is_floating_point()) if explore is None else list(explore)
    for name in [*names, *(bounds or {})]:
        if name not in state.hyper:
            raise ValueError(f"{where}: {name!r} is none of the hyperparameters, which are {', '.join(state.hyper)}")

    few = max(1, int(fraction * copies))
    order = _settled(losses).argsort(stable=True)
    donors = order[:few].index_select(0, random.randint(random.fold_in(key, 0), few, 0, few, device=losses.device))
    source = torch.arange(copies, device=losses.device).scatter(0, order[-few:], donors)
    replaced = torch.zeros(copies, dtype=torch.bool, device=losses.device).scatter(0, order[-few:], True)

    params, state = tree.map_plain(lambda x: x.index_select(0, source.to(x.device)), (params, state))
    hyper = dict(state.hyper)
    for stream, name in enumerate(names, 1):
        value = hyper[name]
        drawn = random.randint(random.fold_in(key, stream), copies, 0, len(factors), device=value.device)
        other = value * _per_copy(torch.tensor(factors, dtype=value.dtype, device=value.device)[drawn], value)
        if bounds and name in bounds:
            other = other.clamp(*bounds[name])
        hyper[name] = torch.where(_per_copy(replaced.to(value.device), value), other, value)
    return params, state._replace(hyper=hyper), source


def _settled(losses: Tensor) -> Tensor:
    return torch.where(losses.isnan(), torch.inf, losses)


def _per_copy(x: Tensor, like: Tensor) -> Tensor:
    return x.reshape(-1, *[1] * (like.dim() - 1))


def _check_losses(where: str, losses: Tensor) -> None:
    if not isinstance(losses, Tensor) or losses.dim() != 1:
        got = f"shape {tuple(losses.shape)}" if isinstance(losses, Tensor) else type(losses).__name__
        raise ValueError(f"{where}: losses must be a tensor with one number per copy, got {got}")
