"""Random numbers as pure functions of a key: the same integers on every device, under vmap and in a graph.

    key = (seed, offset), the bits of two uint64 in an int64 tensor [2]
    counter n of the key's stream = philox(key=seed, counter=offset + n mod 2^64) = four 32-bit words
    word i of the stream = word i mod 4 of counter floor(i / 4)
    split(key, n)[i] = fold_in(key, i) = counter i, words (0, 1) the new seed, (2, 3) the new offset

A draw starts at word 0 of its key and never changes it: two draws from one key
are the same numbers. `fold_in(key, i)` gives independent keys, one for each thing
that needs randomness. `start=` draws any later range of the elements alone.
`member(key, j)` is the stream of member j of a population: the same one, 2^40
counters further on. Keys have no batch axis; `torch.func.vmap` adds one.

Words are exact everywhere, and with them `bits`, `uniform`, `rademacher` and
`randint`. Normals take the logarithm and the cosine of the device: float32 ones
agree to about 5e-7 between eager, compiled and other devices.

Draws from a key on the CPU do not wait for a device: its two numbers are read, the
values are made where `device` says.

Source: Salmon et al., SC 2011 (`philox.py`); Box and Muller, 1958. The key layout
and the uniforms are those of PyTorch's stateless generator (`torch.func._random`).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from funcopt.core import philox

__all__ = ["advance", "as_key", "bits", "fold_in", "host_int", "key", "member", "normal", "rademacher", "randint", "readable", "split", "uniform"]

FLOATS = {torch.float64: 53, torch.float32: 24, torch.float16: 11, torch.bfloat16: 8}  # bits of the significand
MEMBER = 40  # log2 of the counters between two members: room for 2^24 members of 2^42 words

Shape = int | Sequence[int]


def key(seed: int | Tensor | None, *, device: torch.device | str | None = None) -> Tensor:
    """The key (seed, 0); of a key, the key itself.

    Args:
        seed: an int in [-2**63, 2**64), a 0-dim integer tensor, or a key. None
            draws one from torch's default generator, which `torch.manual_seed`
            sets: for factories, never for `init` or `update`.
        device: where the key lives; None: where `seed` does, for a number the CPU.

    Returns:
        int64 [2].

    Raises:
        TypeError: `seed` is a float, a bool or something else that is no integer.
        ValueError: it is out of range or has a shape that no key has.

    Example:
        >>> fo.random.key(42)
        tensor([42,  0])
    """
    return as_key(seed, "random.key", device=device)


def as_key(seed: int | Tensor | None, where: str, *, device: torch.device | str | None = None) -> Tensor:
    """`key(seed)` for the argument of a factory: errors say `where`.

    Example:
        >>> fo.random.as_key(0.5, "roulette")
        Traceback (most recent call last):
        TypeError: roulette: seed must be an int, a 0-dim integer tensor or a key of random.key(), got 0.5
    """
    if seed is None:
        seed = torch.randint(-(2**63), 2**63 - 1, (), dtype=torch.int64, device="cpu")
    if isinstance(seed, Tensor):
        if seed.is_floating_point() or seed.is_complex() or seed.dtype == torch.bool:
            raise TypeError(f"{where}: seed must be an int, a 0-dim integer tensor or a key of random.key(), got a tensor of {seed.dtype}")
        if seed.dim() == 0:
            seed = seed.to(device=device, dtype=torch.int64)
            return torch.stack([seed, torch.zeros_like(seed)])
        _check_key(where, seed)
        return seed if device is None else seed.to(device)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"{where}: seed must be an int, a 0-dim integer tensor or a key of random.key(), got {seed!r}")
    if not -(2**63) <= seed < 2**64:
        raise ValueError(f"{where}: seed must be in [-2**63, 2**64), got {seed}")
    return torch.tensor([_signed(seed), 0], dtype=torch.int64, device=device or "cpu")


def fold_in(key: Tensor, i: int | Tensor) -> Tensor:
    """The i-th key derived from `key`: independent of it and of the others.

    Args:
        key: int64 [2].
        i: an int in [0, 2**64) or a 0-dim integer tensor (its 64 bits, unsigned).

    Returns:
        int64 [2], equal to `split(key, n)[i]`.

    Example:
        >>> root = fo.random.key(42)
        >>> fo.random.fold_in(root, 1)
        tensor([6033254488940945703, 8380643633896839790])
    """
    _check_key("random.fold_in", key)
    _check_index("random.fold_in", "i", i)
    base, n = philox.host_value(key), philox.host_value(i) if isinstance(i, Tensor) else i
    if base is not None and n is not None:
        (words,) = philox.words_on_host(base[0], base[1], n, 1)
        return torch.tensor(_as_key_numbers(words), dtype=torch.int64)
    seed, offset = key[0], key[1]
    c0, c1 = philox.add(offset, n if n is not None else i.to(torch.int64))
    w0, w1, w2, w3 = philox.rounds(c0, c1, 0, 0, philox.key_schedule(*philox.halves(seed)))
    return torch.stack([philox.pack(w0, w1), philox.pack(w2, w3)])


def split(key: Tensor, n: int) -> Tensor:
    """`n` keys, independent of each other and of `key`.

    Returns:
        int64 [n, 2]; row i is `fold_in(key, i)`, whatever `n` is.

    Example:
        >>> first, second = fo.random.split(fo.random.key(42), 2)
        >>> second
        tensor([6033254488940945703, 8380643633896839790])
    """
    _check_key("random.split", key)
    _check_count("random.split", "n", n)
    base = philox.host_value(key)
    if base is not None and n <= philox.SMALL:
        words = philox.words_on_host(base[0], base[1], 0, n)
        return torch.tensor([_as_key_numbers(w) for w in words], dtype=torch.int64).reshape(n, 2)
    words = philox.draw(key, _bits, 0, n, key.device)
    return philox.pack(words[:, 0::2], words[:, 1::2])


def advance(key: Tensor, n: int | Tensor) -> Tensor:
    """The key whose stream begins `n` counters (`4 n` words) further on in this one.

    Args:
        key: int64 [2].
        n: an int in [0, 2**64) or a 0-dim integer tensor.

    Example:
        >>> key = fo.random.key(42)
        >>> torch.equal(fo.random.bits(fo.random.advance(key, 25), 3), fo.random.bits(key, 3, start=100))
        True
    """
    _check_key("random.advance", key)
    _check_index("random.advance", "n", n)
    base, steps = philox.host_value(key), philox.host_value(n) if isinstance(n, Tensor) else n
    if base is not None and steps is not None:
        return torch.tensor([base[0], _signed(base[1] + steps)], dtype=torch.int64)
    return torch.stack([key[0], philox.pack(*philox.add(key[1], steps if steps is not None else n.to(torch.int64)))])


def member(key: Tensor, j: int | Tensor) -> Tensor:
    """The key of member j of a population: 2**40 counters lie between two members.

    Args:
        key: int64 [2].
        j: an int in [0, 2**63) or a 0-dim integer tensor. From 2**24 on the high
            part of j is folded into the key first.

    Example:
        >>> fo.random.member(fo.random.key(42), 3)
        tensor([           42, 3298534883328])
    """
    _check_key("random.member", key)
    _check_index("random.member", "j", j)
    low, high = j & 0xFFFFFF, j >> 24
    if isinstance(high, Tensor):
        key = torch.where(high > 0, fold_in(key, high), key)
        return torch.stack([key[0], philox.pack(*_add_to_high(key[1], low << (MEMBER - 32)))])
    return advance(fold_in(key, high) if high else key, low << MEMBER)


def bits(key: Tensor, shape: Shape = (), *, start: int = 0, device: torch.device | str | None = None) -> Tensor:
    """Random 32-bit words.

    Args:
        key: int64 [2].
        shape: of the result.
        start: the number of the first word in the stream, >= 0.
        device: of the result; None: the key's.

    Returns:
        int64, each in [0, 2**32). Element i, counted row by row, is word
        `start + i` of the stream.

    Example:
        >>> fo.random.bits(fo.random.key(42), 4)
        tensor([2632642643, 2012563771,  314527917, 1463989207])
    """
    return _elements("random.bits", key, shape, start, device, 4, _bits)


def uniform(key: Tensor, shape: Shape = (), dtype: torch.dtype = torch.float32, device: torch.device | str | None = None, *, start: int = 0) -> Tensor:
    """Uniform numbers in [0, 1): multiples of 2**-24 in float32, of 2**-53 in float64; never 1.

    Args:
        key: int64 [2].
        shape: of the result.
        dtype: a floating dtype. float64 takes two words an element, the others one.
        device: of the result; None: the key's.
        start: the number of the first element, >= 0.

    Example:
        >>> fo.random.uniform(fo.random.key(42), 3)
        tensor([0.9177, 0.9581, 0.7473])
    """
    _check_float("random.uniform", dtype)
    if dtype == torch.float64:
        return _elements("random.uniform", key, shape, start, device, 2, _uniform_double)
    scale = 2.0 ** -FLOATS[dtype]
    return _elements("random.uniform", key, shape, start, device, 4, lambda words: (words & (2 ** FLOATS[dtype] - 1)).to(dtype) * scale)


def normal(key: Tensor, shape: Shape = (), dtype: torch.dtype = torch.float32, device: torch.device | str | None = None, *, start: int = 0) -> Tensor:
    """Standard normal numbers, by Box and Muller; below 6.7 in float32 and below 8.7 in float64.

    Args:
        key: int64 [2].
        shape: of the result.
        dtype: a floating dtype. float64 takes two words an element, float32 one;
            the shorter ones are float32 draws, rounded.
        device: of the result; None: the key's.
        start: the number of the first element, >= 0.

    Example:
        >>> fo.random.normal(fo.random.key(42), 4)
        tensor([-0.9702,  0.1940, -1.2356,  1.9239])
    """
    _check_float("random.normal", dtype)
    if dtype == torch.float64:
        return _elements("random.normal", key, shape, start, device, 2, _normal_double)
    return _elements("random.normal", key, shape, start, device, 4, lambda words: _normal_float(words).to(dtype))


def rademacher(key: Tensor, shape: Shape = (), dtype: torch.dtype = torch.float32, device: torch.device | str | None = None, *, start: int = 0) -> Tensor:
    """Signs: +1 or -1 with probability 1/2 each. Element e is bit e mod 32 of word floor(e / 32), set for +1.

    Args:
        key: int64 [2].
        shape: of the result.
        dtype: any real dtype with a sign.
        device: of the result; None: the key's.
        start: the number of the first element, >= 0.

    Example:
        >>> fo.random.rademacher(fo.random.key(42), 4)
        tensor([ 1.,  1., -1., -1.])
    """
    if dtype.is_complex or dtype in (torch.bool, torch.uint8):
        raise TypeError(f"random.rademacher: dtype must be real and signed, got {dtype}")

    def law(words: Tensor) -> Tensor:
        places = torch.arange(32, device=words.device).view(32, 1)
        return (((words.unsqueeze(-2) >> places) & 1) * 2 - 1).to(dtype)

    return _elements("random.rademacher", key, shape, start, device, 128, law)


def randint(key: Tensor, shape: Shape = (), low: int | Tensor = 0, high: int | Tensor = 2, device: torch.device | str | None = None, *, start: int = 0) -> Tensor:
    """Integers in [low, high), each with the same probability to within 2**-33.

    Args:
        key: int64 [2].
        shape: of the result.
        low: the least value, an int or an integer tensor that broadcasts to `shape`.
        high: the first value that is not drawn, likewise; 1 <= high - low <= 2**31.
        device: of the result; None: the key's.
        start: the number of the first element, >= 0.

    Returns:
        int64. Element e is `low + floor(u (high - low))`, where u is the number
        `0.w1 w0` in base 2**32 of words 2 e and 2 e + 1.

    Example:
        >>> fo.random.randint(fo.random.key(42), 5, 0, 10)
        tensor([4, 3, 4, 6, 6])
    """
    if not isinstance(low, Tensor) and not isinstance(high, Tensor):
        _check_count("random.randint", "high - low", high - low, 1, 2**31)
    both = _elements("random.randint", key, shape, start, device, 2, lambda words: words.transpose(0, 1), packed=False)
    span = high - low
    return low + ((both[1] * span + ((both[0] * span) >> 32)) >> 32)


def readable(tensor: Tensor) -> bool:
    """Whether `host_int` may read it: a CPU tensor, outside functorch transforms and graphs."""
    return torch._C._functorch.peek_interpreter_stack() is None and philox.host_value(tensor) is not None


def host_int(tensor: Tensor, where: str = "random.host_int") -> int:
    """Reads a 0-dim integer tensor of the CPU: the one place where the library looks at a value of a state.

    Args:
        tensor: 0-dim, of an integer dtype or bool, on the CPU.
        where: who asks, for the errors.

    Raises:
        ValueError: it lies on another device, or it is read inside a functorch
            transform or while a graph is traced.

    Example:
        >>> fo.random.host_int(torch.tensor(3))
        3
    """
    if tensor.dim() != 0 or tensor.is_floating_point() or tensor.is_complex():
        raise TypeError(f"{where}: needs a 0-dim integer tensor to read, got {tensor.dtype} of shape {tuple(tensor.shape)}")
    if not tensor.is_cpu:
        raise ValueError(f"{where}: needs a tensor on the CPU to read, got one on {tensor.device}, where reading waits for the device; use dispatch='select'")
    if not readable(tensor):
        raise ValueError(f"{where}: a value cannot be read inside vmap, grad or a traced graph, where it has no number yet; use dispatch='select'")
    return int(philox.host_value(tensor))
