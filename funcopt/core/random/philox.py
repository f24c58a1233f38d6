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

`rounds` is that formula, and takes tensors or Python numbers: Python numbers for a few
words (5 us a counter, where tensors take 250 us a call), plain tensor expressions for other
devices, vmap and graphs. Many words on the CPU are made in place, in unsigned numbers
whose product is exact as it is (`Cipher`).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from funcopt.core import versions
from funcopt.core.random import operation

__all__ = ["MASK", "Cipher", "add", "draw", "few_words", "halves", "host_value", "pack", "words_on_host"]

MASK = 0xFFFFFFFF
M0, M1 = 0xD2511F53, 0xCD9E8D57  # the multipliers
W0, W1 = 0x9E3779B9, 0xBB67AE85  # the steps of the key: golden ratio and sqrt(3) - 1
SMALL = 32  # counters; up to here Python numbers beat tensor operations
BLOCK = 16384  # counters; 3 buffers of 2 * BLOCK words are 768 kB
NARROW = 64  # counters of a row, below which all rows are taken as one
HALF, WORD = np.uint64(32), np.uint64(MASK)
MULTIPLIERS = np.array([M0, M1], np.uint64)
TURNED = MULTIPLIERS.reshape(2, 1, 1), MULTIPLIERS[::-1].reshape(2, 1, 1)  # in even and in odd rounds
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
        if r in (4, 7) and isinstance(c0, Tensor) and versions.compiling():
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
    x, y = (y, x) if isinstance(y, Tensor) else (x, y)
    return versions.xor(x, y) if isinstance(x, Tensor) else x ^ y


def halves(x: Number) -> tuple[Number, Number]:
    """The low and the high 32 bits of a 64-bit number."""
    return x & MASK, (x >> 32) & MASK


def pack(lo: Number, hi: Number) -> Number:
    """The int64 with these 32-bit halves; the upper half of the range wraps to the negative numbers."""
    return (xor(hi, 0x80000000) - 0x80000000) * 2**32 + lo


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
    except RuntimeError:  # old torches have stand-ins that they do not call wrapped, and that hold no numbers
        if versions.TORCH < (2, 6):
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
    if key.device == device and operation.serves(key, first, m):
        return _by_counter(law(torch.stack(operation.words(key, first, m)).view(2, 2, m)))
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


def _written_out(key: Tensor, by: Tensor, m: int) -> Any:
    """The four words of counters, each [m]: what stands behind `funcopt::philox` where it is called and not compiled."""
    counters = by + torch.arange(m, dtype=torch.int64, device=key.device)
    return rounds(*add(key[1], counters), 0, 0, key_schedule(*halves(key[0])))


LIBRARY = operation.defined(_written_out)  # for as long as it is held


def _in_blocks(key: list[int], law: Law, first: int, m: int) -> Tensor:
    """CPU only. Nothing leaves the cache but the result."""
    seed, offset = key
    size = min(m, BLOCK)
    cipher = Cipher([seed], size)
    out, done = torch.empty(0), 0
    while done < m:
        n = min(size, m - done)
        values = law(cipher.words(offset, first + done, n)).flatten(0, -2)
        if done == 0:
            out = values.new_empty(m, values.shape[0])
        out[done : done + n].copy_(values.t())
        done += n
    return out


class Cipher:
    """Words of many counters on the CPU, in place in buffers that stay in the cache.

    Arrays of numpy, which multiplies 64 bits at a time where torch does it one by one. The words x = (c0, c2) and
    y = (c1, c3) stand in rows and change places in every round instead of being copied; in odd rounds the rows mean
    (c2, c0) and (c3, c1). Low halves of products stay unmasked; one mask a round clears what they leave above a word.

    Args:
        seeds: of the keys.
        size: counters of a block at most.
    """

    def __init__(self, seeds: list[int], size: int):
        self.keys = np.array([key_schedule(*halves(seed)) for seed in seeds], np.uint64).transpose(1, 2, 0)  # [10, 2, keys]
        self.buffers = np.empty((3, 2, size), np.uint64)

    def words(self, offset: int, first: int, width: int, rows: range = range(1)) -> Tensor:
        """Words [2, 2, len(rows) * width], word 2 p + i at [p, i], valid until the next block, of the one key that there is.

        Args:
            offset: of the key.
            first: the counter after it that a row begins with.
            width: counters of a row.
            rows: numbers of the rows; each begins 2^40 counters after the one before.
        """
        low, high = _counters(offset, first, width, rows)
        if width < NARROW:  # loops of numpy go along the rows
            low, high = (x.reshape(1, -1) for x in np.broadcast_arrays(low, high))
        return self._encrypted(low, high, self.keys[..., None], len(rows) * width)

    def words_together(self, offsets: list[int], first: int, widths: list[int], rows: range) -> Tensor:
        """Those of all keys, one after the other along the last axis: `widths` counters of a row for each."""
        places = [np.broadcast_arrays(*_counters(o, first, w, rows)) for o, w in zip(offsets, widths, strict=True)]
        low, high = (np.concatenate([place[i].reshape(-1) for place in places]).reshape(1, -1) for i in (0, 1))
        keys = np.repeat(self.keys, [len(rows) * width for width in widths], axis=-1)
        return self._encrypted(low, high, keys[:, :, None], low.size)

    def _encrypted(self, low: np.ndarray, high: np.ndarray, keys: np.ndarray, m: int) -> Tensor:
        """The words of the counters low + 2^32 high under `keys` [10, 2, 1, 1 or m], for arrays that are broadcast to all m of them."""
        shape = np.broadcast_shapes(low.shape, high.shape)
        x, y, p = (buffer[:, :m].reshape(2, *shape) for buffer in self.buffers)
        # Two rounds in which the words are those of a column or of a row: c = low, high, 0, 0.
        (k0, k1), (l0, l1) = keys[:2]
        column, row = low * MULTIPLIERS[0], (high ^ k0) * MULTIPLIERS[0]
        second = ((column >> HALF) ^ k1) * MULTIPLIERS[1]
        x[0], y[0] = (second >> HALF) ^ l0, second
        np.bitwise_xor(column & WORD, (row >> HALF) ^ l1, out=x[1])
        y[1] = row
        for r in range(2, 10):
            np.multiply(x, TURNED[r % 2], out=p)
            np.right_shift(p, HALF, out=x)
            np.bitwise_xor(y, keys[r, ::-1] if r % 2 else keys[r], out=y)
            np.bitwise_xor(x, y[::-1], out=x)
            np.bitwise_and(x, WORD, out=x)
            y, p = p, y
        np.bitwise_and(y, WORD, out=y)
        return torch.from_numpy(self.buffers[:2, :, :m].view(np.int64)).transpose(0, 1)


def _counters(offset: int, first: int, width: int, rows: range) -> tuple[np.ndarray, np.ndarray]:
    """Low words [1, width] and high words [len(rows), 1], or [len(rows), width] where the low ones run over."""
    lo, hi = add(offset, first)
    low = np.arange(lo, lo + width, dtype=np.uint64).reshape(1, width)
    high = (np.arange(rows.start, rows.stop, dtype=np.uint64).reshape(-1, 1) << np.uint64(8)) + np.uint64(hi)
    if lo + width > 2**32:
        low, high = low & WORD, high + (low >> HALF)
    return low, high & WORD
