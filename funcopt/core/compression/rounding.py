"""Stochastic rounding to bfloat16: up or down by chance, so that it is right on the average.

    bits(y) = (bits(x) + r) with the last 16 bits cleared,   r uniform in {0, ..., 2^16 - 1}
    P(up)   = (x - down) / (up - down),                      so E y = x

bfloat16 is the first half of the bits of a float32; their order is that of the magnitudes, so that adding r to the
second half carries with just that probability. What is not finite, and what bfloat16 holds, stays; what is finite stays so, at its
largest number. A step that is smaller than half a unit in the last place, and would be lost at every rounding to the nearest, is taken in
its share of the steps.

Source: Croci et al., "Stochastic rounding: implementation, error analysis and applications", 2022, eq. 2;
for bfloat16 Zamirai et al., "Revisiting BFloat16 Training", 2020.
"""

import torch
from torch import Tensor

from funcopt.core import random
from funcopt.core.versions import bits_as, compiling, transforming

__all__ = ["chances", "in_range", "stochastically_rounded", "with_slope"]

KEPT = -(1 << 16)  # the mask of the first 16 bits
LARGEST = torch.finfo(torch.bfloat16).max


def chances(key: Tensor, like: list[Tensor]) -> list[Tensor]:
    """Uniform integers in [0, 2^16), int32, for every entry of these tensors: entry e of all of them is half e mod 2 of word e // 2.

    So vectors of several leaves, one after the other, draw what the leaves draw.
    """
    drawn: list[Tensor] = list(like)
    for device in dict.fromkeys(x.device for x in like):
        here = [i for i, x in enumerate(like) if x.device == device]
        sizes = [like[i].numel() for i in here]
        words = random.bits(key, (sum(sizes) + 1) // 2, device=device)
        halves = torch.stack([words & 0xFFFF, words >> 16], dim=-1).to(torch.int32).reshape(-1)
        for i, part in zip(here, halves[: sum(sizes)].split(sizes), strict=True):
            drawn[i] = part.reshape(like[i].shape)
    return drawn


def stochastically_rounded(x: Tensor, r: Tensor) -> Tensor:
    """`x` in bfloat16, rounded up or down as `r` of `chances` says. Its derivative is that of `x`.

    Example:
        >>> from funcopt.core.compression.rounding import stochastically_rounded
        >>> third = torch.full((3,), 1 / 3)  # lies 2/3 of the way from 0.332 to 0.334
        >>> stochastically_rounded(third, torch.tensor([0, 2**16 // 3, 2**15], dtype=torch.int32)).float()
        tensor([0.3320, 0.3340, 0.3340])
    """
    held = in_range(x.detach(), LARGEST)
    y = bits_as((bits_as(held, torch.int32) + r) & KEPT, torch.float32)
    return with_slope(torch.where(held.isfinite(), y, held), x.float()).to(torch.bfloat16)


def in_range(x: Tensor, largest: float) -> Tensor:
    """`x` in float32, finite numbers (of float64 too) between plus and minus the largest that is held."""
    return torch.where(x.isinf(), x, x.clamp(-largest, largest)).float()


def with_slope(value: Tensor, x: Tensor) -> Tensor:
    """`value`, with the derivative of `x`: what rounding is on the average."""
    if not (x.requires_grad or (transforming() and not compiling())):
        return value
    nothing = x - x.detach()
    return value + torch.where(nothing.isnan(), torch.zeros_like(nothing), nothing)
