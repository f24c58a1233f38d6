"""Where noise comes from: rows of a population's streams, drawn in tiles, the same numbers however they are cut.

    element e of member j = element e of the stream of `fo.random.member(key, j)`
    normal       4 elements a counter (2 in float64), Box and Muller as in `fo.random.normal`
    binomial32   (popcount(word e) - 16) / sqrt(8): integers only, the same bits on every device
    rademacher   bit e mod 32 of word floor(e / 32), set for +1

Words are exact everywhere. Logarithms and cosines are not: code compiled for another
shape may differ in the last bit. So values are made by kernels whose shape depends on
nothing but the size of the leaf: on the CPU in blocks that stay in the cache, of at
most 2048 counters (8192 normals) of a member at a time; compiled (`Philox(compile=True)`)
in tiles of 65,536 values, of small leaves 16,384, and float32 normals by a loop of C++ that
makes 64 at a time (`kernel.py`).

Source: Salmon et al., SC 2011 (`core/random/philox.py`); the tiles are our own.
"""

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from funcopt.core import random, tree, versions
from funcopt.core.random import draws, philox
from funcopt.es.noise import kernel
from funcopt.es.noise.pages import fresh
from funcopt.execute.engines import ahead
from funcopt.execute.engines.dynamo import by_dynamo

__all__ = ["EAGER", "Generator", "Philox", "Source"]

WIDTH = 2048  # counters of one member in a tile: 8192 normals
BLOCK = 16384  # counters worked out at once on the CPU: 768 kB of buffers
CHUNK = 1 << 21  # counters of one plain tensor expression
FEW, MANY = 256, 1024  # numbers of a small leaf, and pairs up to which small leaves are drawn together
LONG, SHORT = 1 << 16, 1 << 14  # values of a compiled tile, 64 times as many on an accelerator
NARROW = 1 << 10  # values of a member up to which tiles are short
MEMBERS = 1 << 24  # members that one key has room for

Law = Callable[[Tensor], Tensor]  # words [2, 2, m], word 2 p + i of m counters at [p, i] -> values [..., m]


class Source:
    """Draws [len(pairs), n] numbers, row j of them from the stream of member `pairs[j]` of `key`, elements `start` to `start + n - 1`."""

    def normal(
        self, key: Tensor, n: int, pairs: range, dtype: torch.dtype = torch.float32, device: torch.device | None = None, start: int = 0
    ) -> Tensor:
        """Standard normal numbers."""
        double = dtype == torch.float64
        law = draws._normal_double if double else draws._normal_float
        return self.rows(key, law, 2 if double else 4, n, pairs, dtype, device, start)

    def normals(self, keys: Sequence[Tensor], sizes: Sequence[int], pairs: range, dtype: torch.dtype, device: torch.device) -> list[Tensor]:
        """`normal` of several keys, each with its own n."""
        return [self.normal(key, n, pairs, dtype, device) for key, n in zip(keys, sizes, strict=True)]

    def rademacher(
        self, key: Tensor, n: int, pairs: range, dtype: torch.dtype = torch.float32, device: torch.device | None = None, start: int = 0
    ) -> Tensor:
        """Signs, +1 or -1."""
        return self.rows(key, _signs, 128, n, pairs, dtype, device, start)

    def binomial32(
        self, key: Tensor, n: int, pairs: range, dtype: torch.dtype = torch.float32, device: torch.device | None = None, start: int = 0
    ) -> Tensor:
        """Numbers of bits set among 32, less 16, over sqrt(8)."""
        return self.rows(key, _popcounts, 4, n, pairs, dtype, device, start)

    def words(self, key: Tensor, n: int, pairs: range, device: torch.device | None = None, start: int = 0) -> Tensor:
        """Words in [0, 2**32), int64."""
        return self.rows(key, _plain, 4, n, pairs, torch.int64, device, start)

    def rows(
        self, key: Tensor, law: Law, per_counter: int, n: int, pairs: range, dtype: torch.dtype, device: torch.device | None, start: int
    ) -> Tensor:
        """The values that `law` makes of the words, `per_counter` of them a counter."""
        device = key.device if device is None else torch.device(device)
        if len(pairs) == 0 or n == 0:
            return torch.empty(len(pairs), n, dtype=dtype, device=device)
        low, high = pairs.start % MEMBERS, pairs.start - pairs.start % MEMBERS
        if low + len(pairs) > MEMBERS:  # the high part of a member's number goes into the key: one key a call
            cut = high + MEMBERS
            halves = (range(pairs.start, cut), range(cut, pairs.stop))
            return torch.cat([self.rows(key, law, per_counter, n, half, dtype, device, start) for half in halves])
        base = random.fold_in(key, high) if high else key
        return self._rows(base, law, per_counter, n, range(low, low + len(pairs)), dtype, device, start)

    def _rows(
        self, key: Tensor, law: Law, per_counter: int, n: int, pairs: range, dtype: torch.dtype, device: torch.device, start: int
    ) -> Tensor:
        raise TypeError(f"{type(self).__name__}: has no numbers of its own; use Philox() or Generator()")


class Philox(Source):
    """Counter-based numbers: of every (member, element) alone, on any device, under vmap.

    Args:
        compile: make the values in compiled code, 1.2 ns a float32 normal on a CPU
            core where eager arithmetic takes 9; costs some seconds once. Normals
            differ from the eager ones by at most 1e-6.
    """

    def __init__(self, compile: bool = False):
        self.compile = compile and not versions.compiler_too_old()

    def normals(self, keys: Sequence[Tensor], sizes: Sequence[int], pairs: range, dtype: torch.dtype, device: torch.device) -> list[Tensor]:
        """Eagerly those of small leaves as one, for a call costs as much as some thousand numbers."""
        hosts = [] if self.compile or dtype == torch.float64 or device.type != "cpu" else [philox.host_value(key) for key in keys]
        small = [i for i, host in enumerate(hosts) if host is not None and 0 < sizes[i] <= FEW] if 0 < len(pairs) <= MANY else []
        if len(small) < 2 or pairs.stop > MEMBERS:
            return super().normals(keys, sizes, pairs, dtype, device)
        others = [i for i in range(len(keys)) if i not in small]
        apart = super().normals([keys[i] for i in others], [sizes[i] for i in others], pairs, dtype, device)
        made = _together([hosts[i] for i in small], [sizes[i] for i in small], pairs, dtype)
        values = dict(zip([*others, *small], [*apart, *made], strict=True))
        return [values[i] for i in range(len(keys))]

    def _rows(
        self, key: Tensor, law: Law, per_counter: int, n: int, pairs: range, dtype: torch.dtype, device: torch.device, start: int
    ) -> Tensor:
        if self.compile and start % per_counter == 0 and not versions.compiling() and not versions.wrapped(key):
            return _compiled(key, law, per_counter, n, pairs, dtype, device, start)
        first, skip = start // per_counter, start % per_counter
        counters = -(-(skip + n) // per_counter)
        host = philox.host_value(key)
        if host is not None and device.type == "cpu":
            values = _in_blocks(host, law, per_counter, counters, pairs, first, dtype)
        else:
            seed, offset = (key[0].to(device), key[1].to(device)) if host is None else host
            whole = max(1, CHUNK // counters)
            parts = [range(s, min(s + whole, pairs.stop)) for s in range(pairs.start, pairs.stop, whole)]
            values = torch.cat([_plainly(seed, offset, law, per_counter, counters, part, first, dtype, device) for part in parts])
        return values if values.shape[1] == n else values[:, skip : skip + n].contiguous()


class Generator(Source):
    """torch's own generators, one seeded for every member: the fastest without a compiler.

    Reproducible for one kind of device and one version of torch only, and not under
    vmap over keys. Draws of an element range alone start over from the beginning.
    """

    def normal(
        self, key: Tensor, n: int, pairs: range, dtype: torch.dtype = torch.float32, device: torch.device | None = None, start: int = 0
    ) -> Tensor:
        return self._from(key, n, pairs, dtype, device, start, lambda size, **where: torch.randn(size, **where))

    def rademacher(
        self, key: Tensor, n: int, pairs: range, dtype: torch.dtype = torch.float32, device: torch.device | None = None, start: int = 0
    ) -> Tensor:
        return self._from(key, n, pairs, dtype, device, start, lambda size, **where: torch.randint(0, 2, (size,), **where) * 2 - 1)

    def binomial32(
        self, key: Tensor, n: int, pairs: range, dtype: torch.dtype = torch.float32, device: torch.device | None = None, start: int = 0
    ) -> Tensor:
        words = self.words(key, n, pairs, device, start)
        return _popcounts(words).to(dtype)

    def words(self, key: Tensor, n: int, pairs: range, device: torch.device | None = None, start: int = 0) -> Tensor:
        return self._from(key, n, pairs, torch.int64, device, start, lambda size, **where: torch.randint(0, 2**32, (size,), **where))

    def _from(
        self,
        key: Tensor,
        n: int,
        pairs: range,
        dtype: torch.dtype,
        device: torch.device | None,
        start: int,
        sample: Callable[..., Tensor],
    ) -> Tensor:
        device = key.device if device is None else torch.device(device)
        out = torch.empty(len(pairs), n, dtype=dtype, device=device)
        for row, j in zip(out, pairs, strict=True):
            host = philox.host_value(random.fold_in(key, j))
            if host is None:
                raise ValueError(
                    "es: rng='generator' seeds torch's generators from keys on the CPU, outside vmap and graphs; use rng='philox'"
                )
            generator = torch.Generator(device).manual_seed(host[0])
            row.copy_(sample(start + n, generator=generator, device=device, dtype=dtype)[start:])
        return out


EAGER = Philox()


def _in_blocks(key: list[int], law: Law, per_counter: int, counters: int, pairs: range, first: int, dtype: torch.dtype) -> Tensor:
    """On the CPU, in buffers that stay in the cache; nothing else is allocated but the result."""
    seed, offset = key
    width = min(counters, WIDTH)
    height = max(1, min(len(pairs), BLOCK // width))
    cipher = philox.Cipher([seed], height * width)
    out = fresh((len(pairs), counters, per_counter), dtype, torch.device("cpu"))
    for top in range(0, len(pairs), height):
        rows = pairs[top : top + height]
        for left in range(0, counters, width):
            wide = min(width, counters - left)
            values = law(cipher.words(offset, first + left, wide, rows)).flatten(0, -2)
            _interleave(values.view(per_counter, len(rows), wide), out[top : top + len(rows), left : left + wide])
    return out.view(len(pairs), counters * per_counter)


def _interleave(planes: Tensor, out: Tensor) -> None:
    """Writes planes [per_counter, ...] as [..., per_counter]; plane by plane, which numpy does in half the time of a copy of all."""
    if len(planes) > 4 or out.dtype not in (torch.float32, torch.float64) or type(planes) is not Tensor or type(out) is not Tensor:
        out.copy_(planes.movedim(0, -1))
        return
    places = out.numpy()
    for i, plane in enumerate(planes.numpy()):
        places[..., i] = plane


def _together(keys: list[list[int]], sizes: list[int], pairs: range, dtype: torch.dtype) -> list[Tensor]:
    """Normals [len(pairs), n] of several keys from one block, whose words are ciphered with the key of each."""
    counters = [-(-n // 4) for n in sizes]
    cipher = philox.Cipher([seed for seed, _ in keys], len(pairs) * sum(counters))
    values = draws._normal_float(cipher.words_together([offset for _, offset in keys], 0, counters, pairs)).flatten(0, -2)
    made = []
    for part, count, n in zip(values.split([len(pairs) * count for count in counters], dim=1), counters, sizes, strict=True):
        out = torch.empty(len(pairs), count, 4, dtype=dtype, device="cpu")
        _interleave(part.view(4, len(pairs), count), out)
        made.append(out.view(len(pairs), 4 * count)[:, :n].contiguous())
    return made


def _plainly(
    seed: int | Tensor,
    offset: int | Tensor,
    law: Law,
    per_counter: int,
    counters: int,
    pairs: range,
    first: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """One tensor expression: for other devices, under vmap and in graphs."""
    rows = torch.arange(pairs.start, pairs.stop, dtype=torch.int64, device=device) << 40  # below 2^64: the high bit may be set
    lo, hi = philox.add(offset, rows)
    c0 = lo.unsqueeze(-1) + torch.arange(first, first + counters, dtype=torch.int64, device=device)
    c1 = (hi.unsqueeze(-1) + (c0 >> 32)) & philox.MASK
    words = philox.rounds((c0 & philox.MASK).reshape(-1), c1.reshape(-1), 0, 0, philox.key_schedule(*philox.halves(seed)))
    values = law(torch.stack(words).view(2, 2, len(pairs) * counters)).flatten(0, -2)
    return values.view(per_counter, len(pairs), counters).permute(1, 2, 0).reshape(len(pairs), counters * per_counter).to(dtype)


def _compiled(
    key: Tensor, law: Law, per_counter: int, n: int, pairs: range, dtype: torch.dtype, device: torch.device, start: int
) -> Tensor:
    """Tiles over the counters of all members in a row, written where the result lies: fresh memory costs more than numbers."""
    host = philox.host_value(key)
    if law is draws._normal_float and dtype == torch.float32 and device.type == "cpu" and host is not None:
        out = fresh((len(pairs), n), dtype, device)
        if kernel.normals(out, host[0], host[1] + (pairs.start << 40) + start // per_counter):
            return out
    counters = -(-n // per_counter)
    m = (LONG if n > NARROW else SHORT) * (1 if device.type == "cpu" else 64) // per_counter
    tiles = -(-len(pairs) * counters // m)
    starts = torch.arange(0, tiles * m, m, dtype=torch.int64)
    places = torch.stack([starts, *(torch.full_like(starts, x) for x in (counters, start // per_counter, pairs.start))], dim=1).to(device)
    out = fresh((tiles, m * per_counter), dtype, device)
    make, key = _kernel(law, m, per_counter, dtype, device.type), key.to(device)
    for place, tile in zip(places.unbind(), out.unbind(), strict=True):
        make(key, place, tile)
    values = out.view(-1)[: len(pairs) * counters * per_counter].view(len(pairs), counters * per_counter)
    return values if values.shape[1] == n else values[:, :n].contiguous()


_kernels: dict[tuple[Any, ...], Callable[[Tensor, Tensor, Tensor], object]] = {}


def _kernel(law: Law, m: int, per_counter: int, dtype: torch.dtype, device: str) -> Callable[[Tensor, Tensor, Tensor], object]:
    """The tile kernel for a law: compiled once in a process for every shape, whatever the model."""
    name = (law, m, dtype, device)
    if name not in _kernels:

        def tile(key: Tensor, place: Tensor) -> Tensor:
            begin, counters, first, member = place.unbind()
            index = begin + torch.arange(m, dtype=torch.int64, device=key.device)
            row = ((index.to(torch.float64) + 0.5) / counters).to(torch.int64)  # exact below 2^50, and integers do not divide in vectors
            o0, o1 = philox.halves(key[1])
            lo = o0 + first + (index - row * counters)
            hi = o1 + ((member + row) << 8) + (lo >> 32)  # a member further on is 2^40 counters further on
            words = philox.rounds(lo & philox.MASK, hi & philox.MASK, 0, 0, philox.key_schedule(*philox.halves(key[0])))
            values = law(torch.stack(words).view(2, 2, m)).flatten(0, -2)
            return values.t().reshape(-1).to(dtype)

        _kernels[name] = _engine(tile, torch.empty(m * per_counter, dtype=dtype, device=device))
    return _kernels[name]


def _engine(tile: Callable[[Tensor, Tensor], Tensor], out: Tensor) -> Callable[[Tensor, Tensor, Tensor], object]:
    """The tile compiled: on the CPU ahead of time, for guards at each call take a sixth of the time of a tile."""
    if out.device.type == "cpu":
        example = ((out,), (torch.zeros(2, dtype=torch.int64), torch.tensor([0, 1, 0, 0])))
        with contextlib.suppress(ahead.Unavailable), torch.no_grad():
            call = ahead.checked(lambda kept, given: ((tile(*given),), ()), example, donate=True).call
            return lambda key, place, out: call([out, key, place])

    def into(key: Tensor, place: Tensor, out: Tensor) -> None:
        out.copy_(tile(key, place))

    return by_dynamo(into, fullgraph=True, dynamic=False)


def _signs(words: Tensor) -> Tensor:
    """Eight signs for each byte of the words, looked up."""
    octets = torch.arange(256, device=words.device)
    table = ((octets.unsqueeze(1) >> torch.arange(8, device=words.device)) & 1).to(torch.float32) * 2 - 1
    words = words.permute(2, 0, 1).unsqueeze(-1)  # of one counter after the other
    octets = (words >> torch.arange(0, 32, 8, device=words.device)) & 255
    return table.index_select(0, octets.reshape(-1)).view(words.shape[0], 128).t()


def _popcounts(words: Tensor) -> Tensor:
    """(popcount - 16) / sqrt(8): bits added in pairs, nibbles, bytes and halves; values looked up, so that all devices round them alike."""
    x = words.to(torch.int32)  # the same bits
    x = (x & 0x55555555) + ((x >> 1) & 0x55555555)
    x = (x & 0x33333333) + ((x >> 2) & 0x33333333)
    x = (x & 0x0F0F0F0F) + ((x >> 4) & 0x0F0F0F0F)
    x = (x & 0x00FF00FF) + ((x >> 8) & 0x00FF00FF)
    x = (x & 0xFFFF) + (x >> 16)
    values = [(count - 16) / math.sqrt(8) for count in range(33)]
    table = torch.tensor(values, dtype=tree.scalar_dtype(words.device), device="cpu").to(words.device, non_blocking=True)
    index = x.reshape(-1)
    return table.index_select(0, index if versions.TORCH >= (2, 10) else index.long()).view(x.shape)  # an old vmap wants it so


def _plain(words: Tensor) -> Tensor:
    return words
