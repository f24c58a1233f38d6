"""Fitness shaping: from the fitness of a population (bigger is better) to the utility of each member.

    none           f                                       NaN becomes the worst finite value
    centered_rank  rank / (P - 1) - 1/2                    rank 0 is the worst
    linear_rank    rank / (P - 1)
    zscore         (f - mean) / (std + eps)                or / sqrt(var + eps); ddof 0 or 1
    minmax         -1 + 2 (f - min) / (max - min)
    nes            max(0, ln(P/2 + 1) - ln k) / sum - 1/P  k = 1 is the best
    cma            the weights of `recombination.py`       k = 1 is the best
    top_k          1 / k on the best k = max(1, floor(rho P))
    sign           sign(f+ - f-) / 2 for the first member of a pair, minus that for the second
    group_zscore   (f - mean of its group of g) / (std of all + eps)
    ars            H (f+ - f-) / (kept sigma_R) for the first of a pair, minus that for the second

Pairs are members i and i + H, H = P / 2. NaN is worse than every number, -inf
included; affine shapings (zscore, minmax, group_zscore, ars) put the worst finite
value for NaN and -inf, the best for inf. Members that tie share the mean of the
utilities of their places ("average"), stand in their order ("ordinal": the later
the better), or all take the best of the places ("last"). If all fail, all
utilities are zero.

Source: Salimans et al., arXiv 1703.03864 (centered ranks); Wierstra et al., JMLR
2014 (nes); Mania et al., arXiv 1803.07055 (ars). Reference: EvoTorch, evosax and
pytorch-optimize. EvoTorch's `normalized` divides by zero where all are equal, and
gives a NaN the best rank; ours gives zeros, and the worst.
"""

import inspect
import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from funcopt.core import check, tree
from funcopt.es.shaping.fitness import magnitude, mean_of, real
from funcopt.es.shaping.recombination import log_weights, recombination

__all__ = ["Baseline", "Shaping", "ShapingName", "Tie", "baseline", "bounded", "shaping"]

Shaping = Callable[[Tensor], Tensor]
ShapingName = Literal["none", "centered_rank", "linear_rank", "zscore", "minmax", "nes", "cma", "top_k", "sign", "group_zscore", "ars"]
Tie = Literal["average", "ordinal", "last"]
Baseline = Literal["none", "mean", "loo", "center"]


def shaping(how: ShapingName | Shaping = "centered_rank", *, tie: Tie = "average", **options: Any) -> Shaping:
    """A fitness shaping by name.

    Args:
        how: a name of the table at the head of this file, or a function from
            fitness [P] (bigger is better) to utilities [P], which is handed back.
        tie: what members of equal fitness get, where ranks count: "average",
            "ordinal" or "last".
        **options: of zscore: `ddof=0`, `eps=1e-8`, `eps_in_sqrt=False`; of top_k:
            `rho=0.5`, the share of parents in (0, 1]; of group_zscore: `group_size`,
            `eps`, `eps_in_sqrt`; of ars: `directions`, how many pairs count (more
            where pairs tie; exactly that many with `exact=True`); of cma: `dim`, which
            brings the negative weights.

    Returns:
        A function from fitness [P] to utilities [P], of the dtype of fitness if that
        is float32 or float64; else float32, of integers and bools float64. It runs under vmap and in a graph and
        does not look at a value. For P = 1 it gives zero, except "none".

    Raises:
        ValueError: an unknown name or option, or a value out of range.
        TypeError: fitness is complex (when called).

    Example:
        >>> fo.es.shaping("centered_rank")(torch.tensor([1.0, 5.0, 5.0, float("nan"), 2.0]))
        tensor([-0.2500,  0.3750,  0.3750, -0.5000,  0.0000])
        >>> fo.es.shaping("top_k", rho=0.5)(torch.tensor([1.0, 5.0, 3.0, 2.0]))
        tensor([0.0000, 0.5000, 0.5000, 0.0000])
    """
    if callable(how):
        if options:
            raise ValueError(f"es.shaping: {sorted(options)[0]} is an option of a named shaping; give it to the function yourself")
        return how
    check.choice("es.shaping", "how", how, SHAPINGS)
    check.choice("es.shaping", "tie", tie, get_args(Tie))
    make = SHAPINGS[how]
    names = [name for name in inspect.signature(make).parameters if name != "tie"]
    unknown = sorted(set(options) - set(names))
    if unknown:
        raise ValueError(f"es.shaping: {how!r} has {'the options ' + ', '.join(names) if names else 'no options'}, got {unknown[0]}")
    law = make(tie=tie, **options)

    def shape(fitness: Tensor) -> Tensor:
        fitness = _floating(fitness)
        if fitness.shape[0] == 1 and how != "none":
            return torch.zeros_like(fitness)
        return torch.where(fitness.isnan().all(), 0.0, law(fitness)).to(fitness.dtype)

    return shape


def baseline(how: Baseline = "none") -> Callable[..., Tensor]:
    """A control variate: `(fitness[P], center=None) -> fitness[P]` less what says nothing about a member.

    "none" changes nothing; "mean" subtracts the mean; "loo" the mean of the other
    members, P / (P - 1) (f - mean); "center" the fitness of the unperturbed
    parameters, `center` (forward differences). None of them changes an antithetic
    estimate. A member that is not finite leaves as the worst (inf: best) finite one.

    Args:
        how: "none", "mean", "loo" or "center".

    Returns:
        The function; its result has the shape and dtype of the fitness.

    Raises:
        ValueError: an unknown name; "center" without `center` (when called).
        TypeError: fitness is complex (when called).

    Example:
        >>> fo.es.baseline("loo")(torch.tensor([1.0, 2.0, 6.0]))
        tensor([-3.0000, -1.5000,  4.5000])
    """
    check.choice("es.baseline", "how", how, get_args(Baseline))

    def subtract(fitness: Tensor, center: Tensor | None = None) -> Tensor:
        if how == "none":
            return fitness
        fitness = bounded(fitness)
        if how == "center":
            if center is None:
                raise ValueError("es.baseline: 'center' needs the fitness of the unperturbed parameters, center=")
            return fitness - center
        popsize = fitness.shape[0]
        return (fitness - mean_of(fitness)) * (popsize / max(popsize - 1, 1) if how == "loo" else 1.0)

    return subtract


def bounded(fitness: Tensor) -> Tensor:
    """The fitness with NaN and -inf replaced by the worst finite value, inf by the best; zeros where none is finite.

    Args:
        fitness: [P], bigger is better.

    Returns:
        [P], in the dtype that `shaping` gives.

    Raises:
        TypeError: fitness is complex.

    Example:
        >>> fo.es.bounded(torch.tensor([1.0, float("nan"), 3.0, float("inf")]))
        tensor([1., 1., 3., 3.])
    """
    fitness = _floating(fitness)
    finite = fitness.isfinite()
    worst = torch.where(finite, fitness, torch.inf).amin()
    best = torch.where(finite, fitness, -torch.inf).amax()
    replaced = torch.where(finite, fitness, torch.where(fitness == torch.inf, best, worst))
    return torch.where(finite.any(), replaced, 0.0)


def _none(tie: Tie) -> Shaping:
    def law(f: Tensor) -> Tensor:
        missing = f.isnan()
        finite = f.isfinite()
        worst = torch.where(finite.any(), torch.where(finite, f, torch.inf).amin(), 0.0)
        return torch.where(missing, worst, f)

    return law


def _centered_rank(tie: Tie) -> Shaping:
    return lambda f: by_rank(f, lambda rank: rank / (len(f) - 1) - 0.5, tie)


def _linear_rank(tie: Tie) -> Shaping:
    return lambda f: by_rank(f, lambda rank: rank / (len(f) - 1), tie)


def _zscore(tie: Tie, ddof: int = 0, eps: float = 1e-8, eps_in_sqrt: bool = False) -> Shaping:
    return _standardized(1, ddof, eps, eps_in_sqrt)


def _group_zscore(tie: Tie, group_size: int = 0, eps: float = 1e-8, eps_in_sqrt: bool = False) -> Shaping:
    check.integer("es.shaping", "group_size", group_size, 1)
    return _standardized(group_size, 0, eps, eps_in_sqrt)


def _standardized(group_size: int, ddof: int, eps: float, eps_in_sqrt: bool) -> Shaping:
    check.choice("es.shaping", "ddof", ddof, (0, 1))
    check.nonnegative("es.shaping", "eps", eps)

    def law(f: Tensor) -> Tensor:
        popsize = len(f)
        if popsize % group_size:
            raise ValueError(f"es.shaping: group_size must divide the popsize {popsize}, got {group_size}")
        f = bounded(f)
        size = magnitude(f)
        f = f / size
        centered = f - f.mean()
        variance = centered.square().sum() / (popsize - ddof)
        groups = f.reshape(-1, group_size)
        deviation = centered if group_size == 1 else (groups - groups.mean(1, keepdim=True)).reshape(-1)
        scale = (variance + eps / size / size).sqrt() if eps_in_sqrt else variance.sqrt() + eps / size
        flat = f.amax() == f.amin()  # exactly zero then, and no division by zero
        return torch.where(flat, 0.0, deviation / torch.where(flat, 1.0, scale))

    return law


def _minmax(tie: Tie) -> Shaping:
    def law(f: Tensor) -> Tensor:
        f = bounded(f)
        f = f / magnitude(f)
        low, high = f.amin(), f.amax()
        flat = low == high
        return torch.where(flat, 0.0, 2 * (f - low) / torch.where(flat, 1.0, high - low) - 1)

    return law


def _nes(tie: Tie) -> Shaping:
    def law(f: Tensor) -> Tensor:
        popsize = len(f)

        def utility(rank: Tensor) -> Tensor:
            raw = (math.log(popsize / 2 + 1) - (popsize - rank).log()).clamp(min=0)
            return raw / raw.sum() - 1 / popsize

        return by_places(f, utility, tie)

    return law


def _cma(tie: Tie, dim: int | None = None) -> Shaping:
    if dim is not None:
        check.integer("es.shaping", "dim", dim, 1)

    def law(f: Tensor) -> Tensor:
        popsize = len(f)
        if dim is None:
            raw = [max(w, 0.0) for w in log_weights(popsize)]
            weights = [w / sum(raw) for w in raw]
        else:
            weights = list(recombination(popsize, dim).weights)
        return by_places(
            f, lambda rank: torch.tensor(weights[::-1], dtype=rank.dtype, device="cpu").to(rank.device, non_blocking=True), tie
        )

    return law


def _top_k(tie: Tie, rho: float = 0.5) -> Shaping:
    check.number("es.shaping", "rho", rho)
    if not 0 < rho <= 1:
        raise ValueError(f"es.shaping: rho must be in (0, 1], got {rho}")

    def law(f: Tensor) -> Tensor:
        popsize = len(f)
        k = max(1, math.floor(rho * popsize))
        return by_places(f, lambda rank: (rank >= popsize - k).to(rank.dtype) / k, tie)

    return law


def _sign(tie: Tie) -> Shaping:
    def law(f: Tensor) -> Tensor:
        plus, minus = pairs(torch.where(f.isnan(), -torch.inf, f))
        half = ((plus > minus).to(f.dtype) - (plus < minus).to(f.dtype)) / 2
        return torch.cat([half, -half])

    return law


def _ars(tie: Tie, directions: int | None = None, exact: bool = False, eps: float = 0.0) -> Shaping:
    if directions is not None:
        check.integer("es.shaping", "directions", directions, 1)
    check.nonnegative("es.shaping", "eps", eps)

    def law(f: Tensor) -> Tensor:
        f = bounded(f)
        size = magnitude(f)
        plus, minus = pairs(f / size)
        count = len(plus)
        wanted = count if directions is None else directions
        if wanted > count:
            raise ValueError(f"es.shaping: directions must be <= {count}, half the popsize, got {wanted}")
        best = torch.maximum(plus, minus)
        if exact:
            kept = by_places(best, lambda rank: (rank >= count - wanted).to(rank.dtype), "ordinal") > 0
        else:
            # The percentile 100 (1 - wanted / count), between two of the sorted values.
            place = (count - 1) * (1 - wanted / count)
            low = math.floor(place)
            ascending = best.sort().values
            threshold = ascending[low] + (ascending[min(low + 1, count - 1)] - ascending[low]) * (place - low)
            kept = best >= threshold
        number = kept.sum()
        # Deviations from one of the values: rounding of a mean that is far from zero does not matter.
        mean = torch.where(kept, plus + minus, 0.0).sum() / (2 * number)
        variance = torch.where(kept, (plus - mean).square() + (minus - mean).square(), 0.0).sum() / (2 * number)
        sigma = variance.sqrt()
        flat = (torch.where(kept, (plus - minus).abs(), 0.0) == 0).all()
        sigma = torch.where(flat, 1.0, torch.maximum(sigma, eps / size) if eps else sigma)
        utility = torch.where(kept, plus - minus, 0.0) * (count / (number * sigma))
        return torch.cat([utility, -utility])

    return law


SHAPINGS = {
    "none": _none,
    "centered_rank": _centered_rank,
    "linear_rank": _linear_rank,
    "zscore": _zscore,
    "minmax": _minmax,
    "nes": _nes,
    "cma": _cma,
    "top_k": _top_k,
    "sign": _sign,
    "group_zscore": _group_zscore,
    "ars": _ars,
}


def pairs(fitness: Tensor) -> tuple[Tensor, Tensor]:
    """The fitness of the first and the second members of the pairs."""
    popsize = fitness.shape[0]
    if popsize % 2:
        raise ValueError(f"es.shaping: this shaping works on pairs and needs an even popsize, got {popsize}")
    return fitness[: popsize // 2], fitness[popsize // 2 :]


class Order:
    """The members from the worst to the best; NaN is the worst, and among equals the later is the better."""

    def __init__(self, fitness: Tensor):
        popsize = fitness.shape[0]
        # Sorting puts NaN last, so the best come first in it; the flip keeps the order among equals.
        best_first = torch.sort(-fitness.flip(0), stable=True)
        self.members = popsize - 1 - best_first.indices.flip(0)
        values = -best_first.values.flip(0)
        same = (values[1:] == values[:-1]) | (values[1:].isnan() & values[:-1].isnan())
        places = torch.arange(popsize, device=fitness.device)
        edge = torch.ones_like(same[:1]) if popsize > 1 else torch.ones(popsize, dtype=torch.bool, device=fitness.device)
        first = torch.cat([edge, ~same])
        last = torch.cat([~same, edge])
        self.start = torch.where(first, places, 0).cummax(0).values  # of the run of equals that the place is in
        self.end = torch.where(last, places, popsize - 1).flip(0).cummin(0).values.flip(0)
        self.places = places

    def hand_out(self, utilities: Tensor) -> Tensor:
        """Utilities by place, worst first, given to the members."""
        return torch.zeros_like(utilities).scatter(0, self.members, utilities)


def by_rank(fitness: Tensor, utility: Callable[[Tensor], Tensor], tie: str = "average") -> Tensor:
    """The utility of each member's rank, 0 for the worst; for utilities linear in the rank (ties get the middle rank)."""
    order = Order(fitness)
    rank = {"average": (order.start + order.end) / 2, "ordinal": order.places, "last": order.end}[tie]
    return order.hand_out(utility(rank.to(tree.scalar_dtype(fitness.device)))).to(fitness.dtype)


def by_places(fitness: Tensor, utility: Callable[[Tensor], Tensor], tie: str = "average") -> Tensor:
    """Utilities of the places, worst first, given to the members; ties share the mean of their places."""
    order = Order(fitness)
    table = utility(order.places.to(tree.scalar_dtype(fitness.device))).to(tree.scalar_dtype(fitness.device))
    if tie == "last":
        table = table.gather(0, order.end)
    elif tie == "average":
        below = torch.cat([torch.zeros_like(table[:1]), table.cumsum(0)])
        shared = (below.gather(0, order.end + 1) - below.gather(0, order.start)) / (order.end + 1 - order.start)
        table = torch.where(order.start == order.end, table, shared)
    return order.hand_out(table).to(fitness.dtype)


def _floating(fitness: Tensor) -> Tensor:
    fitness = real("es.shaping", "fitness", fitness)
    return fitness if fitness.dtype in (torch.float32, torch.float64) else fitness.to(torch.float32)
