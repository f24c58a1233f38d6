"""Kinks and stairs: the slope jumps at the minimum, and the loss jumps where no gradient tells of it.

    f(x) = sum_i (x_i^2 where x_i < 0, else d x_i) + floor(4 |x_i|) / 10

Beside the minimum the slope is 0 on the left and d on the right. LightBench: discontinuous_gradient.py.
"""

import torch

from funcopt.race.levels.kind import Kind, with_noise

__all__ = ["KINK"]


def init(z, d):
    return {"x": z.clone()}


def value(params, d):
    x = params["x"]
    return (torch.where(x < 0, x.square(), d * x) + (4 * x.abs()).floor() / 10).sum()


KINK = Kind(
    "kink",
    "slope and loss that jump",
    "slope right of the minimum",
    (1, 4, 16, 64),
    0.32,
    (4, 4),
    (4, 4),
    init,
    with_noise(value, 0.0),
    value,
)
