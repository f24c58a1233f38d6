"""Rosenbrock's curved valley: steep walls, and a floor that hardly falls.

    f(x, y) = sum_c (1 - x_c)^2 + d (y_c - x_c^2)^2       four pairs from (-1.2, 1); minimum (1, 1)

LightBench: rosenbrock.py. Source: Rosenbrock 1960, with d = 100.
"""

import torch

from funcopt.race.levels.kind import Kind, with_noise

__all__ = ["ROSENBROCK"]


def init(z, d):
    return {"x": torch.tensor([-1.2, 1.0]) + 0.05 * z}


def value(params, d):
    x, y = params["x"].unbind(1)
    return ((1 - x).square() + d * (y - x.square()).square()).sum()


ROSENBROCK = Kind(
    "rosenbrock", "curved valley", "steepness of its walls", (1, 10, 30, 100), 0.04, (4, 2), (4, 2), init, with_noise(value, 0.0), value
)
