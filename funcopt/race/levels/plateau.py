"""A well in a plain: far from the minimum there is almost no slope.

    f(x) = sum_i 1 - exp(-d x_i^2)        from x = 2, where the slope is 4 d exp(-4 d): 4e-1, 7e-2, 3e-3, 2e-6

LightBench: plateau_navigation.py.
"""

import torch

from funcopt.race.levels.kind import Kind, with_noise

__all__ = ["PLATEAU"]


def init(z, d):
    return {"x": 2 + 0.02 * z}


def value(params, d):
    return -torch.expm1(-d * params["x"].square()).sum()


PLATEAU = Kind(
    "plateau",
    "well in a plain without slope",
    "sharpness of the well",
    (0.25, 1, 2, 4),
    0.16,
    (4, 4),
    (4, 4),
    init,
    with_noise(value, 0.0),
    value,
)
