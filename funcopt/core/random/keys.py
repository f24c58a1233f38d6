"""Keys: where a stream of random numbers begins, as an int64 tensor [2].

    key = (seed, offset), the bits of two uint64
    counter n of the key's stream = philox(key = seed, counter = offset + n mod 2^64) = four 32-bit words
    split(key, n)[i] = fold_in(key, i) = counter i, words (0, 1) the new seed and (2, 3) the new offset
    advance(key, n) = (seed, offset + n),    member(key, j) = (seed, offset + 2^40 j)

Keys of the CPU are worked out in Python numbers, 10 us a key.

Source: Salmon et al., SC 2011 (`philox.py`). The layout is that of PyTorch's
stateless generator (`torch.func._random`).
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from funcopt.core.random import operation, philox

__all__ = ["advance", "as_key", "check_int", "check_key", "fold_in", "key", "member", "seeds_drawn", "seeds_repeated", "split"]

MEMBER = 40  # log2 of the counters between two members: room for 2^24 members of 2^42 words


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

    Args:
        seed: an int in [-2**63, 2**64), a 0-dim integer tensor or a key; None draws one from torch's generator.
        where: who asks, at the head of the error.
        device: of the key; None: that of `seed`, of an int the CPU.

    Returns:
        A key, int64 [2].

    Raises:
        TypeError: `seed` is none of these.
        ValueError: `seed` is out of range.

    Example:
        >>> fo.random.as_key(0.5, "roulette")
        Traceback (most recent call last):
        TypeError: roulette: seed must be an int, a 0-dim integer tensor or a key of random.key(), got 0.5
    """
    if seed is None:
        seed = _drawn_seed(where)
    if isinstance(seed, Tensor):
        if seed.is_floating_point() or seed.is_complex() or seed.dtype == torch.bool:
            raise TypeError(f"{where}: seed must be an int, a 0-dim integer tensor or a key of random.key(), got a tensor of {seed.dtype}")
        if seed.dim() == 0:
            seed = seed.to(device=device, dtype=torch.int64)
            return torch.stack([seed, torch.zeros_like(seed)])
        check_key(where, seed)
        return seed if device is None else seed.to(device)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"{where}: seed must be an int, a 0-dim integer tensor or a key of random.key(), got {seed!r}")
    if not -(2**63) <= seed < 2**64:
        raise ValueError(f"{where}: seed must be in [-2**63, 2**64), got {seed}")
    return torch.tensor([_signed(seed), 0], dtype=torch.int64, device="cpu").to(device or "cpu", non_blocking=True)


def fold_in(key: int | Tensor, i: int | Tensor) -> Tensor:
    """The i-th key derived from `key`: independent of it and of the others.

    Args:
        key: int64 [2].
        i: an int in [0, 2**64) or a 0-dim integer tensor (its 64 bits, unsigned).

    Returns:
        int64 [2], equal to `split(key, n)[i]`.

    Raises:
        ValueError: `key` is a tensor but no key, or a number is out of range.
        TypeError: an argument is of another kind.

    Example:
        >>> root = fo.random.key(42)
        >>> fo.random.fold_in(root, 1)
        tensor([6033254488940945703, 8380643633896839790])
    """
    key = check_key("random.fold_in", key)
    check_int("random.fold_in", "i", i)
    base, n = philox.host_value(key), _number(i)
    if base is not None and not isinstance(n, Tensor):
        (words,) = philox.words_on_host(base[0], base[1], n, 1)
        return torch.tensor(_packed(words), dtype=torch.int64, device="cpu")
    if operation.serves(key, n, 1):
        w0, w1, w2, w3 = operation.words(key, n, 1)
        return torch.cat([philox.pack(w0, w1), philox.pack(w2, w3)])
    seed, offset = key[0], key[1]
    c0, c1 = philox.add(offset, n)
    w0, w1, w2, w3 = philox.rounds(c0, c1, 0, 0, philox.key_schedule(*philox.halves(seed)))
    return torch.stack([philox.pack(w0, w1), philox.pack(w2, w3)])


def split(key: int | Tensor, n: int) -> Tensor:
    """`n` keys, independent of each other and of `key`.

    Args:
        key: int64 [2].
        n: how many, >= 0.

    Returns:
        int64 [n, 2]; row i is `fold_in(key, i)`, whatever `n` is.

    Raises:
        ValueError: `key` is a tensor but no key, or a number is out of range.
        TypeError: an argument is of another kind.

    Example:
        >>> first, second = fo.random.split(fo.random.key(42), 2)
        >>> second
        tensor([6033254488940945703, 8380643633896839790])
    """
    key = check_key("random.split", key)
    check_int("random.split", "n", n)
    base = philox.host_value(key)
    if base is not None and n <= philox.SMALL:
        words = philox.words_on_host(base[0], base[1], 0, n)
        return torch.tensor([_packed(w) for w in words], dtype=torch.int64, device="cpu").reshape(n, 2)
    keys = philox.draw(key, lambda words: philox.pack(words[:, 0], words[:, 1]), 0, n, key.device)
    return keys.contiguous()  # a key that a graph returns lies as one does that it was given


def advance(key: int | Tensor, n: int | Tensor) -> Tensor:
    """The key whose stream begins `n` counters (`4 n` words) further on in this one.

    Args:
        key: int64 [2].
        n: an int in [0, 2**64) or a 0-dim integer tensor.

    Returns:
        A key, int64 [2].

    Raises:
        ValueError: `key` is a tensor but no key, or a number is out of range.
        TypeError: an argument is of another kind.

    Example:
        >>> key = fo.random.key(42)
        >>> torch.equal(fo.random.bits(fo.random.advance(key, 25), 3), fo.random.bits(key, 3, start=100))
        True
    """
    key = check_key("random.advance", key)
    check_int("random.advance", "n", n)
    base, steps = philox.host_value(key), _number(n)
    if base is not None and not isinstance(steps, Tensor):
        return torch.tensor([base[0], _signed(base[1] + steps)], dtype=torch.int64, device="cpu")
    return torch.stack([key[0], philox.pack(*philox.add(key[1], steps))])


def member(key: int | Tensor, j: int | Tensor) -> Tensor:
    """The key of member j of a population: 2**40 counters lie between two members.

    Args:
        key: int64 [2].
        j: an int in [0, 2**63) or a 0-dim integer tensor. From 2**24 on the part
            of j above its low 24 bits is folded into the key first.

    Returns:
        A key, int64 [2].

    Raises:
        ValueError: `key` is a tensor but no key, or a number is out of range.
        TypeError: an argument is of another kind.

    Example:
        >>> fo.random.member(fo.random.key(42), 3)
        tensor([           42, 3298534883328])
    """
    key = check_key("random.member", key)
    check_int("random.member", "j", j)
    j = _number(j)
    low = j & (2 ** (64 - MEMBER) - 1)
    high = j - low
    if isinstance(high, Tensor):
        key = torch.where(high > 0, fold_in(key, high), key)
    elif high:
        key = fold_in(key, high)
    return advance(key, low << MEMBER)


def check_key(where: str, key: int | Tensor) -> Tensor:
    """The key itself; that of a seed, where an int stands for it."""
    if isinstance(key, int) and not isinstance(key, bool):
        return as_key(key, where)
    if not isinstance(key, Tensor) or key.dtype != torch.int64 or key.dim() != 1 or key.shape[0] != 2:
        got = f"{key.dtype} of shape {tuple(key.shape)}" if isinstance(key, Tensor) else repr(key)
        raise (ValueError if isinstance(key, Tensor) else TypeError)(
            f"{where}: key must be an int64 tensor of shape (2,), as random.key(seed) makes them, or an int, got {got}"
        )
    return key


def check_int(where: str, name: str, value: int | Tensor, low: int = 0, high: int = 2**64) -> None:
    """An int in [low, high), or an integer tensor, whose value is taken on trust."""
    if isinstance(value, Tensor):
        if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
            raise TypeError(f"{where}: {name} must be an int or an integer tensor, got a tensor of {value.dtype}")
        if value.dim():
            raise ValueError(f"{where}: {name} must be an int or a 0-dim integer tensor, got a tensor of shape {tuple(value.shape)}")
    elif isinstance(value, bool) or not isinstance(value, (int, torch.SymInt)):
        raise TypeError(f"{where}: {name} must be an int or an integer tensor, got {value!r}")
    elif not low <= value < high:
        raise ValueError(f"{where}: {name} must be in [{_power(low)}, {_power(high)}), got {value}")


def _number(i: int | Tensor) -> int | Tensor:
    if not isinstance(i, Tensor):
        return i
    value = philox.host_value(i)
    return i.to(torch.int64) if value is None else value


def _power(n: int) -> str:
    return f"2**{n.bit_length() - 1}" if n > 10**6 and n & (n - 1) == 0 else str(n)


def _signed(x: int) -> int:
    """The int64 with the bits of x mod 2**64."""
    return (x + 2**63) % 2**64 - 2**63


def _packed(words: tuple[int, int, int, int]) -> list[int]:
    return [philox.pack(words[0], words[1]), philox.pack(words[2], words[3])]


# --- factories that are called again ---------------------------------------------------------------------------------------------


class _Seeds(threading.local):
    books: tuple[list[Any], ...] = ()  # where seeds are written down as they are drawn
    again: Iterator[Any] | None = None  # seeds to hand out once more, in place of new ones


_seeds = _Seeds()


def _drawn_seed(where: str) -> Tensor:
    seed = next(_seeds.again, None) if _seeds.again is not None else None
    if seed is None:
        try:
            seed = torch.randint(-(2**63), 2**63 - 1, (), dtype=torch.int64, device="cpu")
        except RuntimeError as error:
            if "randomness" not in str(error):
                raise
            remedy = "pass one with the key or seed argument, as fo.random.split(fo.random.key(0), copies) makes one for each copy"
            raise ValueError(f"{where}: needs a key, since none can be drawn within torch.func.vmap; {remedy}") from error
    for book in _seeds.books:
        book.append(seed)
    return seed


@contextmanager
def seeds_drawn() -> Iterator[list[Any]]:
    """The seeds that factories called in here draw for themselves, in their order."""
    outer, book = _seeds.books, []
    _seeds.books = (*outer, book)
    try:
        yield book
    finally:
        _seeds.books = outer


@contextmanager
def seeds_repeated(seeds: list[Any]) -> Iterator[None]:
    """Factories called in here draw these seeds once more: what makes a transformation anew at every step gets the same one."""
    outer, _seeds.again = _seeds.again, iter(seeds)
    try:
        yield
    finally:
        _seeds.again = outer
