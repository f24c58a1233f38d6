"""Weights by rank and the constants of the CMA family: what a population of P in D dimensions makes of its order.

    w'_k    = ln((P + 1) / 2) - ln k,  k = 1 for the best;  mu = floor(P / 2)
    mu_eff  = (sum_{k <= mu} w'_k)^2 / sum_{k <= mu} w'_k^2
    c_sigma = (mu_eff + 2) / (D + mu_eff + 5)
    d_sigma = 1 + 2 max(0, sqrt((mu_eff - 1) / (D + 1)) - 1) + c_sigma
    c_c     = (4 + mu_eff / D) / (D + 4 + 2 mu_eff / D)
    c_1     = 2 / ((D + 1.3)^2 + mu_eff)
    c_mu    = min(1 - c_1, 2 (mu_eff + 1 / mu_eff - 2) / ((D + 2)^2 + mu_eff))
    chi     = sqrt(D) (1 - 1 / (4 D) + 1 / (21 D^2)),  about E |N(0, I)|

The positive weights sum to 1, the negative ones (`active`) to
-min(1 + c_1 / c_mu, 1 + 2 mu_eff^- / (mu_eff + 2), (1 - c_1 - c_mu) / (D c_mu)).

"pycma" writes + 3 in c_sigma, c_1 times min(1, P / 6), + 1/4 in c_mu, and for a
diagonal covariance constants of its own.

Source: Hansen, "The CMA evolution strategy: a tutorial", arXiv 1604.00772; pycma
as EvoTorch follows it. Reference: evosax CMA_ES, Sep_CMA_ES; evotorch CMAES.
"""

import math
from typing import NamedTuple

__all__ = ["Recombination", "log_weights", "recombination"]


class Recombination(NamedTuple):
    weights: tuple[float, ...]  # P numbers, best first; positive ones sum to 1
    mu_eff: float  # effective number of parents
    c_sigma: float  # rate of the path of sigma
    d_sigma: float  # damping of sigma
    c_c: float  # rate of the path of the covariance
    c_1: float  # share of the rank-one update
    c_mu: float  # share of the rank-mu update
    chi: float  # length that a path of no selection has


def log_weights(popsize: int) -> list[float]:
    """`ln((P + 1) / 2) - ln k` for k = 1 ... P: positive for the better half."""
    return [math.log((popsize + 1) / 2) - math.log(k) for k in range(1, popsize + 1)]


def recombination(
    popsize: int, dim: int, *, variant: str = "tutorial", active: bool = True, separable: bool = False, accelerate: bool = False
) -> Recombination:
    """The constants above; `separable` means a diagonal covariance (other constants with "pycma" only).

    `accelerate` multiplies c_1 and c_mu by (D + 2) / 3, their sum at most one, before the negative weights are bounded by them.
    """
    raw = log_weights(popsize)
    mu = max(popsize // 2, 1)
    best, rest = raw[:mu] if popsize > 1 else [1.0], raw[mu:]
    mu_eff = sum(best) ** 2 / sum(w * w for w in best)
    pycma = variant == "pycma"
    c_sigma = (mu_eff + 2) / (dim + mu_eff + (3 if pycma else 5))
    d_sigma = 1 + 2 * max(0.0, math.sqrt((mu_eff - 1) / (dim + 1)) - 1) + c_sigma
    if pycma and separable:
        root = math.sqrt(dim)
        c_c = (1 + (1 + mu_eff) / dim) / (root + (1 + 2 * mu_eff) / dim)
        c_1 = 1 / (dim + 2 * root + mu_eff / dim)
        c_mu = (0.25 + mu_eff + 1 / mu_eff - 2) / (dim + 4 * root + mu_eff / 2)
    else:
        c_c = (4 + mu_eff / dim) / (dim + 4 + 2 * mu_eff / dim)
        c_1 = (min(1.0, popsize / 6) if pycma else 1.0) * 2 / ((dim + 1.3) ** 2 + mu_eff)
        c_mu = min(1 - c_1, 2 * (mu_eff + 1 / mu_eff - 2 + (0.25 if pycma else 0.0)) / ((dim + 2) ** 2 + mu_eff))
    if accelerate:
        factor = min((dim + 2) / 3, 1 / (c_1 + c_mu))
        c_1, c_mu = c_1 * factor, c_mu * factor
    weights = [w / sum(best) for w in best]
    negative = [min(w, 0.0) for w in rest]
    if active and sum(negative) < 0:
        mu_eff_negative = sum(negative) ** 2 / sum(w * w for w in negative)
        limits = [1 + 2 * mu_eff_negative / (mu_eff + 2)]
        if c_mu > 0:
            limits += [1 + c_1 / c_mu, (1 - c_1 - c_mu) / (dim * c_mu)]
        weights += [w * min(limits) / -sum(negative) for w in negative]
    else:
        weights += [0.0] * len(rest)
    chi = math.sqrt(dim) * (1 - 1 / (4 * dim) + 1 / (21 * dim**2))
    return Recombination(tuple(weights), mu_eff, c_sigma, d_sigma, c_c, c_1, c_mu, chi)
