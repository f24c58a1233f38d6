"""Noise that is as large as the signal: gradients of batches of b rows of a problem where every row is noise.

    f(x) = 1/2 |x|^2,   g = x + rms(x) z / sqrt(b)

The noise falls with the gradient, so that a constant rate can get to the minimum, if the method lets it.
Levels are b = 256, 16, 4, 1. LightBench: batch_size_scaling.py.
"""

from funcopt.race.levels.kind import Kind

__all__ = ["BATCH"]


def init(z, d):
    return {"x": z.clone()}


def value(params, d):
    return 0.5 * params["x"].square().sum()


def objective(params, z, d):
    noise = z * (params["x"].detach().square().mean() / d).sqrt()
    return value(params, d) + (noise * params["x"]).sum()


BATCH = Kind(
    "batch", "noise in proportion to the gradient", "rows of a batch", (256, 16, 4, 1), 0.008, (4, 4), (4, 4), init, objective, value
)
