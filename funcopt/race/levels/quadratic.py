"""A noisy quadratic whose axes are turned: methods that scale entries one by one get no help from the axes.

    f(x) = 1/2 sum_i h_i (Q x)_i^2,   h_i = d^(-i / 15), i = 0 .. 15,   Q orthogonal, the same for all
    Q x_0 = z / sqrt(h): every direction begins with the same share of f (8 in all), so each has to be gone down

The condition number is d. LightBench: ill_conditioned.py, quadratic_coupled.py.
"""

import torch

from funcopt.race.levels.kind import Kind, with_noise

__all__ = ["QUADRATIC"]

N = 16
Q = torch.linalg.qr(torch.randn(N, N, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0].float()


def curvatures(d):
    return d ** -torch.linspace(0, 1, N)


def init(z, d):
    return {"x": (Q.T @ (z / curvatures(d).sqrt())).reshape(4, 4)}


def value(params, d):
    return 0.5 * (curvatures(d) * (Q @ params["x"].reshape(N)).square()).sum()


QUADRATIC = Kind(
    "quadratic",
    "rotated quadratic, noise of 0.1 on the gradient",
    "condition",
    (1, 10, 100, 1000),
    0.08,
    (N,),
    (4, 4),
    init,
    with_noise(value, 0.1),
    value,
)
