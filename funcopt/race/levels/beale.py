"""Beale's function: steep corners around a flat valley.

    f(x, y) = sum_c (1.5 - x + x y)^2 + (2.25 - x + x y^2)^2 + (2.625 - x + x y^3)^2       minimum (3, 1/2)
    four pairs from (-d, -d / 2): f = 14 at d = 0 and 1.8e3 at d = 4

LightBench: beale.py. Source: Beale 1958.
"""

from functools import reduce

import torch

from funcopt.race.levels.kind import Kind, with_noise

__all__ = ["BEALE"]


def init(z, d):
    return {"x": -d * torch.tensor([1.0, 0.5]) + 0.05 * z}


def value(params, d):
    x, y = params["x"].unbind(1)
    return reduce(torch.add, [(c - x + x * y**power).square().sum() for power, c in ((1, 1.5), (2, 2.25), (3, 2.625))])


BEALE = Kind(
    "beale",
    "steep corners around a flat valley",
    "distance of the start",
    (0, 1, 2, 4),
    0.04,
    (4, 2),
    (4, 2),
    init,
    with_noise(value, 0.0),
    value,
)
