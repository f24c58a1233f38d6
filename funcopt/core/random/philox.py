"""Philox4x32-10: four random 32-bit words from a 64-bit key and a 128-bit counter.

    p0 = M0 * c0,  p1 = M1 * c2                                  (64-bit products, ten times)
    c0, c1, c2, c3 = hi(p1) ^ c1 ^ k0, lo(p1), hi(p0) ^ c3 ^ k1, lo(p0)
    k0, k1 = k0 + W0, k1 + W1                                    (mod 2^32)

Source: Salmon, Moraes, Dror and Shaw, "Parallel Random Numbers: As Easy as
1, 2, 3", SC 2011. Reference: the known answers of their Random123 library.

Integers only, so every device, vmap and the compiler give the same words. They
live in int64, and nothing overflows: the multipliers exceed 2^31, so with
M' = M - 2^32 in (-2^30, 0) the product c * M' stays above -2^62, and

    lo(c * M) = c * M' mod 2^32,    hi(c * M) = floor(c * M' / 2^32) + c.

`rounds` is that formula, and takes tensors, Python numbers or both. Three ways
lead through it: Python numbers for a few words (5 us a counter, where tensors
take 250 us a call), cache-sized blocks in place for many words on the CPU, and
plain tensor expressions for everything else: other devices, vmap, graphs.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from funcopt.core import versions

__all__ = ["MASK", "add", "block", "draw", "few_words", "halves", "host_value", "pack", "words_on_host"]

MASK = 0xFFFFFFFF
M0, M1 = 0xD2511F53, 0xCD9E8D57  # the multipliers
W0, W1 = 0x9E3779B9, 0xBB67AE85  # the steps of the key: golden ratio and sqrt(3) - 1
SMALL = 32  # counters; up to here Python numbers beat tensor operations
BLOCK = 16384  # counters; 3 buffers of 2 * BLOCK words are 768 kB
CHUNK = 1 << 22  # counters of one plain tensor expression: its temporaries take about 300 MB

Number = Any  # an int or an int64 tensor: one formula serves both
Law = Callable[[Tensor], Tensor]  # words [2, 2, m], word 2 p + i of m counters at [p, i] -> values [..., m]


def key_schedule(k0: Number, k1: Number) -> list[tuple[Number, Number]]:
    """The ten round keys."""
    return [((k0 + r * W0) & MASK, (k1 + r * W1) & MASK) for r in range(10)]


def rounds(c0: Number, c1: Number, c2: Number, c3: Number, keys: Sequence[tuple[Number, Number]]) -> tuple[Number, Number, Number, Number]:
    """As many rounds as there are `keys`. All numbers in [0, 2**32)."""
    plain = {type(c0), type(c1), type(c2), type(c3), type(keys[0][0])} == {int}
    for r, (k0, k1) in enumerate(keys):
        if r % 2 == 0 and r > 0 and versions.compiling():
            # The compiler would write every round out twice inside the next: 4^10 operations. What is stacked it works out once.
            c0, c1, c2, c3 = torch.stack([c0, c1, c2, c3]).unbind()
        p0, p1 = c0 * (M0 - 2**32), c2 * (M1 - 2**32)
        hi0, hi1 = (p0 >> 32) + c0, (p1 >> 32) + c2
        if plain:
            c0, c1, c2, c3 = hi1 ^ c1 ^ k0, p1 & MASK, hi0 ^ c3 ^ k1, p0 & MASK
        else:
            c0, c1, c2, c3 = xor(xor(hi1, c1), k0), p1 & MASK, xor(xor(hi0, c3), k1), p0 & MASK
    return c0, c1, c2, c3


def xor(x: Number, y: Number) -> Number:
    """`x ^ y`, a tensor first: a number first has no batching rule in torch 2.1."""
    return y ^ x if isinstance(y, Tensor) else x ^ y


def halves(x: Number) -> tuple[Number, Number]:
    """The low and the high 32 bits of a 64-bit number."""
    return x & MASK, (x >> 32) & MASK


def pack(lo: Number, hi: Number) -> Number:
    """The int64 with these 32-bit halves; the upper half of the range wraps to the negative numbers."""
    return ((hi ^ 0x80000000) - 0x80000000) * 2**32 + lo


def add(x: Number, n: Number) -> tuple[Number, Number]:
    """The halves of x + n mod 2**64."""
    (x_lo, x_hi), (n_lo, n_hi) = halves(x), halves(n)
    lo = x_lo + n_lo
    return lo & MASK, (x_hi + n_hi + (lo >> 32)) & MASK


def host_value(x: Tensor) -> Any:
    """The numbers of an integer tensor if reading them costs nothing and hides nothing, else None.

    That is a plain CPU tensor, outside graphs, of which no functorch transform holds a batch.
    """
    if versions.compiling() or type(x) not in (Tensor, torch.nn.Parameter) or not x.is_cpu:
        return None
    if versions.wrapped(x) or not versions.watched_only():
        return None
    try:
        return x.tolist()
    except RuntimeError:  # torch 2.1 has stand-ins that it does not call wrapped, and that hold no numbers
        if versions.TORCH < (2, 2):
            return None
        raise


def few_words(key: Tensor, first: int, m: int, device: torch.device) -> list[tuple[int, int, int, int]] | None:
    """`words_on_host` where that is the fastest way, else None."""
    if m > SMALL or device.type == "meta" or (host := host_value(key)) is None:
        return None
    seed, offset = host
    return words_on_host(seed, offset, first, m)


def words_on_host(seed: int, offset: int, first: int, m: int) -> list[tuple[int, int, int, int]]:
    """The words of counters `offset + first` and the `m - 1` after it, in Python numbers."""
    keys = key_schedule(*halves(seed))
    return [rounds(*add(offset, first + i), 0, 0, keys) for i in range(m)]


def draw(key: Tensor, law: Law, first: int, m: int, device: torch.device) -> Tensor:
    """The values that `law` makes of counters `first` to `first + m - 1` of the key's stream.

    Returns:
        [m, values per counter].
    """
    if (words := few_words(key, first, m, device)) is not None:
        sent = torch.tensor(words, dtype=torch.int64, device="cpu").to(device, non_blocking=True)  # a copy that blocks waits for the device
        return _by_counter(law(sent.reshape(m, 2, 2).permute(1, 2, 0).contiguous()))
    host = host_value(key)
    if host is not None and device.type == "cpu":
        return _in_blocks(host, law, first, m)
    seed, offset = (key[0].to(device), key[1].to(device)) if host is None else host
    if m <= CHUNK or versions.compiling() or versions.wrapped(key):
        return _by_counter(law(_words(seed, offset, first, m, device)))
    return torch.cat([_by_counter(law(_words(seed, offset, s, min(CHUNK, first + m - s), device))) for s in range(first, first + m, CHUNK)])


def _by_counter(values: Tensor) -> Tensor:
    return values.flatten(0, -2).t()


def _words(seed: Number, offset: Number, first: int, m: int, device: torch.device) -> Tensor:
    lo, hi = add(offset, first)
    c0 = lo + torch.arange(m, dtype=torch.int64, device=device)
    c1 = (hi + (c0 >> 32)) & MASK
    return torch.stack(rounds(c0 & MASK, c1, 0, 0, key_schedule(*halves(seed)))).view(2, 2, m)


def _in_blocks(key: list[int], law: Law, first: int, m: int) -> Tensor:
    """CPU only. Nothing leaves the cache but the result."""
    seed, offset = key
    schedule = key_schedule(*halves(seed))
    size = min(m, BLOCK)
    buffers = torch.empty(3, 2, size, dtype=torch.int64, device="cpu")
    constants = torch.tensor([M0, M1, M1, M0, MASK, 32], dtype=torch.int64, device="cpu")
    multipliers, mask, shift = constants[:4].view(2, 2, 1), constants[4], constants[5]
    keys = torch.tensor(schedule, dtype=torch.int64, device="cpu").view(10, 2, 1)
    keys[1::2] = keys[1::2].flip(1)
    out, done = torch.empty(0), 0
    while done < m:
        lo, hi = add(offset, first + done)
        n = min(size, m - done, 2**32 - lo)  # the high half of the counter is one number in a block
        low = torch.arange(lo, lo + n, dtype=torch.int64, device="cpu")
        values = law(block(low, hi, schedule, keys, multipliers, mask, shift, buffers[:, :, :n])).flatten(0, -2)
        if done == 0:
            out = values.new_empty(m, values.shape[0])
        out[done : done + n].copy_(values.t())
        done += n
    return out


def block(
    low: Tensor, high: int | Tensor, schedule: Any, keys: Tensor, multipliers: Tensor, mask: Tensor, shift: Tensor, buffers: Tensor
) -> Tensor:
    """Words [2, 2, n] of the counters `low + 2^32 high`, low [n], valid until the next block.

    The counter words stand in rows, x = (c0, c2) and y = (c1, c3), and change
    places in every round instead of being copied; in odd rounds the rows mean
    (c2, c0) and (c3, c1). Products wrap here, and one mask a round clears what the
    shift and the unmasked low halves left in the high bits.
    """
    x, y, p = buffers
    (x0, x1), (y0, y1), (p0, p1) = x, y, p
    # two rounds in which most words are still plain numbers
    x[0], y[0], x[1], y[1] = rounds(low, high, 0, 0, schedule[:2])
    for r in range(2, 10):
        torch.mul(x, multipliers[r % 2], out=p)
        torch.bitwise_right_shift(p, shift, out=x)
        y.bitwise_xor_(keys[r])
        x0.bitwise_xor_(y1)
        x1.bitwise_xor_(y0)
        x.bitwise_and_(mask)
        y, y0, y1, p, p0, p1 = p, p0, p1, y, y0, y1
    y.bitwise_and_(mask)
    return buffers[:2].transpose(0, 1)
