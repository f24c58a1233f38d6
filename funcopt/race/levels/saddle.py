"""A flat saddle to be crossed: the slope goes to zero on the way to the minimum, and the flatter the longer.

    f(y) = y^(2p+2) / (2p+2) + y^(2p+1) / (2p+1),   f'(y) = y^(2p) (y + 1)
    from about y = 0.7 through the degenerate critical point 0 to the minimum -1

Shown is (2p+1) (2p+2) f + 1, summed over 16 entries: 1 each at the saddle, 0 at the minimum.
Of sums of odd powers made bounded below. LightBench: saddle_point.py.
"""

from funcopt.race.levels.kind import Kind, with_noise

__all__ = ["SADDLE"]


def init(z, d):
    return {"x": 0.7 + 0.1 * z}


def value(params, d):
    y = params["x"]
    flat = y.square() ** d
    return ((2 * d + 1) * y.square() * flat + (2 * d + 2) * y * flat + 1).sum()


SADDLE = Kind(
    "saddle",
    "flat saddle between start and minimum, noise of 0.03",
    "half the order of the saddle",
    (1, 2, 4, 8),
    0.8,
    (4, 4),
    (4, 4),
    init,
    with_noise(value, 0.03),
    value,
)
