"""Eight bits an entry: blocks of 256, each in units of its largest magnitude, on a map that is dense near zero.

    s_b   = max |x_i| over the block
    c_i   = the place in the map m that is nearest to x_i / s_b
    y_i   = s_b m[c_i]

    m:      0, 1 and the middles of 2^k equal parts of [0.1, 1] 10^(k-6),  k = 0, ..., 6, with both signs
    m+:     0, 1 and the middles of 2^(k+1) such parts, for blocks without a negative entry

A block's map is chosen by its entries (a second moment gets m+), and told by the sign of its scale: minus s_b for m.
What is not zero never becomes zero, and so keeps its sign: a second moment that vanished would leave a step without
a divisor. Else the nearest is taken, so that |y_i - x_i| is at most half the gap of the map at x_i / s_b, times s_b;
the widest gaps are 0.9 / 64 and 0.9 / 128.

Source: Dettmers, "8-Bit Approximations for Parallelism in Deep Learning", 2016, and Dettmers et al., "8-bit Optimizers
via Block-wise Quantization", 2022. The maps are those of bitsandbytes and torchao, whose rounding to zero is not
taken over; they choose a map by the name of the moment.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["BLOCK", "codes", "decoded", "dynamic_map"]

BLOCK = 256
DECADES = 7


def dynamic_map(signed: bool) -> tuple[float, ...]:
    """The 256 numbers in [-1, 1], or in [0, 1], that a code stands for, in their order.

    Example:
        >>> from funcopt.core.compression.blocks import dynamic_map
        >>> whole, half = dynamic_map(True), dynamic_map(False)
        >>> len(whole), len(half), whole[127], half[0], half[1], whole[-1]
        (256, 256, 0.0, 0.0, 3.25e-07, 1.0)
    """
    found = [0.0, 1.0]
    for decade in range(DECADES):
        parts = 2 ** (decade if signed else decade + 1)
        middles = [(0.1 + 0.9 * (part + 0.5) / parts) * 10.0 ** (decade + 1 - DECADES) for part in range(parts)]
        found += middles + [-x for x in middles] * signed
    return tuple(sorted(found))


UNSIGNED, SIGNED = dynamic_map(False), dynamic_map(True)
ZERO = SIGNED.index(0.0)  # in the map of both signs; in the other it is the first


def _changes(m: tuple[float, ...], device: torch.device) -> Tensor:
    """Between its numbers: where the nearest becomes another."""
    return torch.tensor([(low + high) / 2 for low, high in zip(m, m[1:], strict=False)], dtype=torch.float32, device="cpu").to(
        device, non_blocking=True
    )


def codes(x: Tensor) -> tuple[Tensor, Tensor]:
    """`(codes, scales)` of a tensor of floats: uint8 of its shape, and one of its dtype for each block."""
    b = _in_blocks(x.reshape(-1))
    s = b.abs().amax(dim=1)
    both = (b < 0).any(dim=1)
    share = (b / torch.where(s > 0, s, torch.ones_like(s)).unsqueeze(1)).float()
    c = torch.where(
        both.unsqueeze(1), torch.bucketize(share, _changes(SIGNED, x.device)), torch.bucketize(share, _changes(UNSIGNED, x.device))
    )
    zero = torch.where(both, ZERO, 0).unsqueeze(1)
    c = torch.where(b > 0, torch.maximum(c, zero + 1), torch.where(b < 0, torch.minimum(c, zero - 1), c))
    c = c.clamp(0, BLOCK - 1).to(torch.uint8).reshape(-1)
    if x.numel() < c.numel():
        c = c[: x.numel()].clone()  # a part of it would keep the whole, and its strides where leaves lie together
    return c.reshape(x.shape), torch.where(both, -s, s)


def decoded(c: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor of these codes."""
    table = torch.tensor(UNSIGNED + SIGNED, dtype=torch.float32, device="cpu").to(c.device, non_blocking=True)
    places = _in_blocks(c.reshape(-1)).to(torch.int64) + torch.where(scales < 0, BLOCK, 0).unsqueeze(1)
    y = table[places] * scales.abs().unsqueeze(1)
    return y.reshape(-1)[: math.prod(c.shape)].reshape(c.shape).to(dtype)


def _in_blocks(x: Tensor) -> Tensor:
    return pad(x, (0, -x.shape[0] % BLOCK)).view(-1, BLOCK)
