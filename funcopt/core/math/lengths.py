"""Lengths that are finite and not zero where the entries are: squares are added in a dtype that holds them.

A float32 of 1e20 has a square that float32 does not hold, and so has a float16 of 300; of 1e-30 it
is zero. float64 holds the squares of every narrower entry. Where entries are float64 themselves,
or the device has no float64, what is too large or too small is first multiplied by a power of two
    |x| = |f x| / f,   f = 2^-k, 2^k or 1 by the largest entry,
so that ordinary numbers stay what they are to the last bit.
"""

import torch
from torch import Tensor

from funcopt.core.dtypes import steering
from funcopt.core.versions import compiling, differentiating

__all__ = ["added_squares", "length", "magnitudes", "range_factor", "safe_sqrt", "shrinking", "squarable", "taken_apart", "wide_enough"]

NARROW = (torch.float32, torch.float16, torch.bfloat16, torch.complex64)
HUGE = 2.0**64  # from this length on entries are made smaller before they are divided by it
ROOT = 2.0**32
# The exponents above and below which entries are multiplied, and by which: sums of 2^40 squares stay in range.
EXPONENTS = {torch.float64: (480, -400, 600), torch.float32: (40, -40, 90)}


def wide_enough(x: Tensor) -> bool:
    """Whether the squares of all entries that `x` may have are in range of the dtype they are added in."""
    return x.dtype in NARROW and x.device.type != "mps"


def magnitudes(x: Tensor) -> Tensor:
    """The entries in the dtype in which their squares are added; of complex ones real and imaginary parts, along a new axis in front."""
    if x.is_complex():
        x = torch.stack([x.real, x.imag])
    return x.to(steering(x.device))


def range_factor(largest: Tensor) -> Tensor:
    """The power of two by which to multiply entries, the largest of which (in magnitude) is given; 1 for NaN."""
    high, low, by = EXPONENTS[largest.dtype]
    down = torch.where(largest > 2.0**high, torch.full_like(largest, 2.0**-by), torch.ones_like(largest))
    return torch.where(largest < 2.0**low, torch.full_like(largest, 2.0**by), down)


def added_squares(x: Tensor) -> Tensor:
    """The sum of the squared magnitudes of all entries, 0-dim, where they are in range."""
    x = magnitudes(x)
    if type(x) is Tensor and x.is_cpu and not (compiling() or differentiating(x)):
        x = x.reshape(-1)
        return torch.dot(x, x)  # in one pass
    return x.square().sum()


def length(x: Tensor, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> Tensor:
    """The l2 norm over `dim` (all axes), in `steering` dtype; its slope at 0 is 0.

    Example:
        >>> length(torch.tensor([3e30, 4e30])), length(torch.tensor([3e-300, 4e-300], dtype=torch.float64))
        (tensor(5.0000e+30, dtype=torch.float64), tensor(5.0000e-300, dtype=torch.float64))
    """
    axes = tuple(range(x.dim())) if dim is None else tuple(axis % x.dim() for axis in ((dim,) if isinstance(dim, int) else dim))
    if wide_enough(x) and dim is None and not keepdim:
        return safe_sqrt(added_squares(x))
    entries = magnitudes(x)
    if x.is_complex():
        axes = (0, *(axis + 1 for axis in axes))
    factor = None
    if not (wide_enough(x) or 0 in x.shape):
        factor = range_factor(entries.detach().abs().amax(axes, keepdim=True) if axes else entries.detach().abs())
        entries = entries * factor
    found = safe_sqrt(entries.square().sum(axes, keepdim=True) if axes else entries.square())
    if factor is not None:
        found = found / factor
    if x.is_complex():
        found, axes = found.squeeze(0), tuple(axis - 1 for axis in axes[1:])
    return found if keepdim or not axes else found.squeeze(axes)


def shrinking(length: Tensor) -> Tensor:
    """A power of two to multiply entries and their length by before the division: below 1 where float32 may not hold the length."""
    return torch.where(length > HUGE, torch.full_like(length, 1 / HUGE), torch.ones_like(length))


def taken_apart(size: Tensor) -> tuple[Tensor, Tensor]:
    """A power of two and the rest, to multiply by one after the other: of a length above HUGE float32 may hold no other factors.

    Example:
        >>> power, rest = taken_apart(torch.tensor(6e38, dtype=torch.float64))
        >>> torch.tensor(1e-3) * power * rest
        tensor(6.0000e+35, dtype=torch.float64)
    """
    power = torch.where(size > HUGE, torch.full_like(size, ROOT), torch.ones_like(size))
    return power, size / power


def safe_sqrt(x: Tensor) -> Tensor:
    """The square root of `x >= 0`, with slope 0 in place of infinity at 0 for whoever differentiates through it.

    Args:
        x: a real tensor, >= 0.

    Returns:
        A tensor like `x`.

    Example:
        >>> fo.moments.safe_sqrt(torch.tensor([0.0, 4.0]))
        tensor([0., 2.])
    """
    if not differentiating(x):
        return x.sqrt()
    zero = x == 0
    return torch.where(zero, 0, torch.where(zero, 1, x).sqrt())


def squarable(g: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Finite entries held where the sum of 2^24 of their squares is a number in `dtype` (None: their own).

    An infinite row would have no share in the mean of rows.
    """
    bound = (torch.finfo(dtype or g.dtype).max * 2.0**-24) ** 0.5
    return torch.where(g.isinf(), g, g.clamp(-bound, bound))
