"""What counts as fitness, and arithmetic on fitness of any size.

A fitness is a real number. Whole numbers and truth values are taken as float64, which
tells all of them apart up to 2^53 (float32 up to 2^24). Squares, sums and differences are
worked out on numbers that a power of two has brought near one: that changes no bit where
nothing overflows, and what was 1e300 neither becomes infinite nor loses its order.
"""

from typing import Any

import torch
from torch import Tensor

from funcopt.core import tree

__all__ = ["has_unit", "magnitude", "mean_of", "real", "times"]

FAR = 40  # numbers beyond 2^40 or below 2^-40 are brought near one; sums of the squares of 10^12 fit float32


def real(where: str, what: str, x: Tensor) -> Tensor:
    """The fitness as floating numbers.

    Raises:
        TypeError: it is complex, or no dense tensor that holds numbers.
    """
    if x.layout != torch.strided or x.is_quantized or x.is_meta:
        kind = "a quantized" if x.is_quantized else "a meta" if x.is_meta else "a sparse"
        raise TypeError(f"{where}: {what} must be numbers in a dense tensor, got {kind} one")
    if x.is_complex():
        name = str(x.dtype).removeprefix("torch.")
        raise TypeError(
            f"{where}: {what} must be a real number, since members are compared by it, got {name}; take its absolute value or its real part"
        )
    if x.is_floating_point():
        return x.to(torch.float32) if x.element_size() == 1 else x  # float8 has no arithmetic
    return x.to(tree.scalar_dtype(x.device))


def has_unit(shaping: Any) -> bool:
    """Whether utilities are in units of fitness, as nothing but the shaping "none", or one of the caller's own, leaves them."""
    return shaping == "none" or callable(shaping)


def magnitude(x: Tensor) -> Tensor:
    """A power of two near the largest finite entry along the first axis where that is far from one; else 1. (Of zeros a tiny one.)"""
    largest = x.abs().nan_to_num(0.0, 0.0, 0.0).amax(0)
    limit = 1000 if x.dtype == torch.float64 else 120  # not quite up to the ends, so that powers and their inverses fit
    return torch.nn.functional.hardshrink(largest.log2(), FAR).floor().clamp(-limit, limit).exp2()


def mean_of(x: Tensor) -> Tensor:
    """The mean of numbers [P] whose sum may overflow."""
    mean = x.mean()
    return torch.where(mean.isfinite(), mean, (x / x.shape[0]).sum())


def times(x: Tensor, size: Tensor) -> Tensor:
    """x times a magnitude that the dtype of x may not hold: infinite where the product does not fit, and zero where x is."""
    return (x.to(torch.promote_types(x.dtype, size.dtype)) * size).to(x.dtype)
