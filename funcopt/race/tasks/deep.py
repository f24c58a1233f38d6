"""A deep tanh network that learns what another one computes, from inputs whose scales span three decades.

    x_j ~ N(0, 10^(-3 (j - 1) / 15)),  j = 1 ... 16           standard deviations from 1 to 0.03
    y    = A tanh(2 B x / sd(x)),  A, B with Gaussian entries of variance 1 / columns      4 targets, of unit variance, and noise of 0.1

The narrow inputs are as informative as the wide ones: the first layer is ill-conditioned, and eight layers of tanh
hand little back to it.
"""

import torch
from torch import Tensor

import funcopt as fo
from funcopt.race.tasks.parts import Task, initial, linear, regression

__all__ = ["deep_tanh"]

INPUTS, TARGETS, TEACHER = 16, 4, 32
ROWS = {"train": 4096, "validation": 1024, "test": 1024}
DECADES = 1.5  # from the widest standard deviation to the narrowest: three of the variance
NOISE = 0.1
SEED = 20


def deep_tanh(layers: int = 8, width: int = 32) -> Task:
    """Regression from ill-conditioned inputs by a deep tanh network.

    Args:
        layers: hidden ones, >= 1.
        width: units of each, >= 1.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> task = fo.race.task_named("deep")
        >>> {split: len(x) for split, (x, y) in task.data.items()}
        {'train': 4096, 'validation': 1024, 'test': 1024}
    """
    for name, value in (("layers", layers), ("width", width)):
        if value < 1:
            raise ValueError(f"deep_tanh: {name} must be >= 1, got {value}")
    sizes = [INPUTS] + [width] * layers
    shapes = {f"hidden{i + 1}": (sizes[i + 1], sizes[i]) for i in range(layers)} | {"out": (TARGETS, width)}

    def outputs(params: dict[str, Tensor], inputs: Tensor) -> Tensor:
        h = inputs
        for i in range(layers):
            h = torch.tanh(linear(params, f"hidden{i + 1}", h))
        return linear(params, "out", h)

    return regression("deep", lambda key: initial(key, shapes, 1.0), outputs, _data(), steps=1000, batch_size=50)


def _data() -> dict[str, tuple[Tensor, ...]]:
    keys = fo.random.split(fo.random.key(SEED), 4)
    n = sum(ROWS.values())
    z = fo.random.normal(keys[0], (n, INPUTS))
    B = fo.random.normal(keys[1], (TEACHER, INPUTS)) / INPUTS**0.5
    A = fo.random.normal(keys[2], (TARGETS, TEACHER)) / TEACHER**0.5
    y = torch.tanh(2 * z @ B.T) @ A.T
    y = y / y.std(0) + NOISE * fo.random.normal(keys[3], (n, TARGETS))
    x = z * 10 ** torch.linspace(0, -DECADES, INPUTS)
    sizes = list(ROWS.values())
    return dict(zip(ROWS, zip(x.split(sizes), y.split(sizes), strict=True), strict=True))
