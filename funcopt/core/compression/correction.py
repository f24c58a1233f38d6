"""bfloat16 with a correction of 8 bits: float32 without its last 8 bits, in two parts.

    v    = bits(x) / 2^8, rounded                  sign, exponent and 15 bits of the fraction
    low  = v mod 2^8, in [-128, 128)               int8
    high = (v - low) / 2^8                         the bits of a bfloat16, the nearest to x
    y    = 2^8 (2^8 high + low)                    as the bits of a float32

Integers throughout, so that y is rounded to the nearest once, and encoding it again gives the same parts:

    |y - x| <= 2^-16 |x|      for 2^-126 <= |x| <= (2 - 2^-15) 2^127, the largest such number, at which larger ones end

Source: the "bf16+8" form of `ecc` of HeavyBall, which keeps the rest beyond bfloat16 in an int8 in units of its last place.
There the rest is a float that is scaled and rounded; here both are read off the bits.
"""

import torch
from torch import Tensor

from funcopt.core.compression.rounding import in_range, with_slope
from funcopt.core.versions import bits_as, xor

__all__ = ["corrected", "parts"]

NAN = 0x7FC00000  # one NaN for all, whose bits survive
LARGEST = (2 - 2.0**-15) * 2.0**127


def parts(x: Tensor) -> tuple[Tensor, Tensor]:
    """`(high, low)`, bfloat16 and int8, of a tensor of floats. The derivative of `high` is that of `x`.

    Example:
        >>> from funcopt.core.compression.correction import corrected, parts
        >>> high, low = parts(torch.tensor([1.0, 1.0 + 2.0**-8, 1.0 + 2.0**-15]))
        >>> high.tolist(), low.tolist()
        ([1.0, 1.0078125, 1.0], [0, -128, 1])
        >>> corrected(high, low, torch.float32)[2] - 1 == 2.0**-15
        tensor(True)
    """
    held = in_range(x.detach(), LARGEST)
    bits = torch.where(held.isnan(), NAN, bits_as(held, torch.int32))
    v = (bits + 0x80) >> 8
    low = xor(v & 0xFF, 0x80) - 0x80
    high = bits_as(((v - low) >> 8).to(torch.int16), torch.bfloat16)
    return with_slope(high, x.to(torch.bfloat16)), low.to(torch.int8)


def corrected(high: Tensor, low: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor of these two parts. Its derivative is that of `high`."""
    v = (bits_as(high.detach(), torch.int16).to(torch.int32) << 8) + low.to(torch.int32)
    return with_slope(bits_as(v << 8, torch.float32), high.float()).to(dtype)
