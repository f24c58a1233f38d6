"""MNIST-1D: ten shapes of 12 points, each padded, stretched, scaled, moved, put into noise, sheared and sampled at 40 points.

    x  <- resampled to 72 points of [template, zeros of a random length in 36 ... 60]
    x  <- (1 + 0.4 (u - 1/2)) x, rolled to the right by 0 ... 47
    x  <- smoothed noise 0.25 n * Gaussian(2) where x is exactly 0, x elsewhere;  + 0.02 n
    x  <- x - 0.75 (u - 1/2) linspace(-1/2, 1/2);  resampled to 40 points;  all rows standardised together

4,000 rows to train on, of which 800 are held out for validation, and 1,000 to test on, in the order in which the recipe
draws them from numpy's generator of seed 42: the numbers are those of the package `mnist1d` 0.0.2.

Source: S. Greydanus, "Scaling down deep learning", 2020 (arXiv 2011.14439), and the package's `data.py`, `transform.py`.
"""

import functools

import numpy as np
import torch
from torch import Tensor

from funcopt.race.extras import need
from funcopt.race.tasks.parts import Task, classification, initial, linear

__all__ = ["mnist1d_mlp"]

TEMPLATES = np.array(
    [
        [5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5],
        [5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5],
        [5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5],
        [5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5],
        [5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5],
        [5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5],
        [5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5],
        [5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5],
        [5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5],
        [5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5],
    ]
)
ROWS, TRAIN, VALIDATION = 5000, 4000, 800
PADDING = (36, 60)
WIDE, LENGTH = 12 + PADDING[1], 40
SHIFTS = 48
SCALE, SMOOTH_NOISE, NOISE, SHEAR = 0.4, 0.25, 2e-2, 0.75
SEED = 42


def mnist1d_mlp(hidden: int = 100) -> Task:
    """MNIST-1D, and a perceptron 40 - `hidden` - `hidden` - 10 with ReLU.

    Args:
        hidden: units of each hidden layer, >= 1.

    Raises:
        ValueError: `hidden` is below 1.
        ImportError: scipy is not installed.
    """
    if hidden < 1:
        raise ValueError(f"mnist1d_mlp: hidden must be >= 1, got {hidden}")
    inputs, labels = rows()
    x, y = torch.tensor(inputs, dtype=torch.float32), torch.tensor(labels)
    cut = TRAIN - VALIDATION
    data = {"train": (x[:cut], y[:cut]), "validation": (x[cut:TRAIN], y[cut:TRAIN]), "test": (x[TRAIN:], y[TRAIN:])}
    shapes = {"hidden1": (hidden, LENGTH), "hidden2": (hidden, hidden), "out": (10, hidden)}

    def logits(params: dict[str, Tensor], inputs: Tensor) -> Tensor:
        h = torch.relu(linear(params, "hidden1", inputs))
        return linear(params, "out", torch.relu(linear(params, "hidden2", h)))

    return classification("mnist1d", lambda key: initial(key, shapes), logits, data, steps=1000, batch_size=50, measure="error")


@functools.cache
def rows() -> tuple[np.ndarray, np.ndarray]:
    """All 5,000: float64 [5000, 40] and labels [5000]."""
    draw = np.random.RandomState(SEED)
    smooth = need("scipy.ndimage").gaussian_filter
    shapes = TEMPLATES - TEMPLATES.mean(1, keepdims=True)
    shapes /= shapes.std(1, keepdims=True)
    shapes = (shapes - shapes[:, :1]) / 6.0
    ramp = np.linspace(-0.5, 0.5, WIDE)
    made = [_example(shapes[label], draw, smooth, ramp) for label in range(10) for _ in range(ROWS // 10)]
    order = draw.permutation(ROWS)
    inputs, labels = np.stack(made)[order], np.repeat(np.arange(10), ROWS // 10)[order]
    return (inputs - inputs.mean()) / inputs.std(), labels


def _example(shape: np.ndarray, draw: np.random.RandomState, smooth, ramp: np.ndarray) -> np.ndarray:
    low, high = PADDING
    # the small number tells the shape's zeros from padding
    x = np.concatenate([shape + 1e-8, np.zeros(low + int(draw.rand() * (high - low + 1)))])
    x = _resampled(x, WIDE) * (1 + SCALE * (draw.rand() - 0.5))
    x = np.roll(x, draw.choice(SHIFTS))
    x = np.where(x != 0, x, smooth(SMOOTH_NOISE * draw.randn(WIDE), 2)) + NOISE * draw.randn(WIDE)
    return _resampled(x - SHEAR * (draw.rand() - 0.5) * ramp, LENGTH)


def _resampled(x: np.ndarray, n: int) -> np.ndarray:
    return np.interp(np.linspace(0, 1, n), np.linspace(0, 1, len(x)), x)
