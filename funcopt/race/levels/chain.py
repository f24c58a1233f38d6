"""Products of many factors: gradients that vanish or explode with depth.

    f(x) = sum_c (prod_{i <= d} x_{c i} - 1)^2      four chains; factors beyond the depth d count as 1
    d f / d x_{c i} = 2 (P_c - 1) P_c / x_{c i}      P = x^d: 2e-5 from factors of 1/2 at depth 16, 660 from factors of 3/2

A deep linear network of width one. LightBench: vanishing_gradient.py, exploding_gradient.py.
"""

import torch

from funcopt.race.levels.kind import Kind, with_noise

__all__ = ["EXPLODING", "VANISHING"]

DEPTHS = (2, 4, 8, 16)


def value(params, d):
    factors = torch.where(torch.arange(max(DEPTHS)) < d, params["x"], 1.0)
    return (factors.prod(1) - 1).square().sum()


def small(z, d):
    return {"x": 0.5 + 0.02 * z}


def large(z, d):
    return {"x": 1.5 + 0.02 * z}


SHAPE = (4, max(DEPTHS))
VANISHING = Kind(
    "vanishing", "product of factors that begin at 1/2", "factors", DEPTHS, 0.04, SHAPE, SHAPE, small, with_noise(value, 0.0), value
)
EXPLODING = Kind(
    "exploding", "product of factors that begin at 3/2", "factors", DEPTHS, 0.04, SHAPE, SHAPE, large, with_noise(value, 0.0), value
)
