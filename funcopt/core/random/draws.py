"""Random numbers as pure functions of a key: the same integers on every device, under vmap and in a graph.

    word i of a key's stream = word i mod 4 of its counter floor(i / 4)           (`keys.py`)
    uniform = w 2^-24 of the low 24 bits w of a word
    normal  = sqrt(-2 ln u0) (cos 2 pi u1, sin 2 pi u1),  u = word 2^-32 + 2^-33

A draw starts at word 0 of its key and never changes it: two draws from one key
are the same numbers. `fold_in(key, i)` gives independent keys, one for each thing
that needs randomness; where a key is asked for, the int `seed` stands for
`key(seed)`. `start=` draws any later range of the elements alone. `member(key, j)`
is the stream of member j of a population: the same one, 2^40 counters further on.
Keys have no batch axis; `torch.func.vmap` adds one.

Words are exact everywhere, and with them `bits`, `uniform`, `rademacher` and
`randint`. Normals take the logarithm and the cosine of the device: float32 ones
agree to 1e-6 between eager, compiled and other devices.

Draws from a key on the CPU do not wait for a device: its two numbers are read, the
values are made where `device` says.

Source: Salmon et al., SC 2011 (`philox.py`); Box and Muller, 1958. The uniforms
are those of PyTorch's stateless generator (`torch.func._random`).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from funcopt.core import versions
from funcopt.core.door.shown import shown
from funcopt.core.dtypes import kind
from funcopt.core.random import philox
from funcopt.core.random.keys import check_int, check_key

__all__ = ["bits", "host_int", "normal", "rademacher", "randint", "readable", "uniform"]

FLOATS = {torch.float64: 53, torch.float32: 24, torch.float16: 11, torch.bfloat16: 8}  # bits of the significand

Device = torch.device | str | None
Shape = int | Sequence[int]


def bits(key: int | Tensor, shape: Shape = (), *, start: int = 0, device: Device = None) -> Tensor:
    """Random 32-bit words.

    Args:
        key: int64 [2].
        shape: of the result.
        start: the number of the first word in the stream, >= 0.
        device: of the result; None: the key's.

    Returns:
        int64, each in [0, 2**32). Element i, counted row by row, is word
        `start + i` of the stream.

    Raises:
        ValueError: `key` is a tensor but no key, or a number is out of range.
        TypeError: an argument is of another kind.

    Example:
        >>> fo.random.bits(fo.random.key(42), 4)
        tensor([2632642643, 2012563771,  314527917, 1463989207])
    """
    return _integers("random.bits", key, shape, start, device, 1, lambda word: word)


def uniform(key: int | Tensor, shape: Shape = (), dtype: torch.dtype = torch.float32, device: Device = None, *, start: int = 0) -> Tensor:
    """Uniform numbers in [0, 1): multiples of 2**-24 in float32, of 2**-53 in float64; never 1.

    Args:
        key: int64 [2].
        shape: of the result.
        dtype: a floating dtype. float64 takes two words an element, the others one.
        device: of the result; None: the key's.
        start: the number of the first element, >= 0.

    Returns:
        A tensor of that shape and dtype, in [0, 1).

    Raises:
        TypeError: `dtype` is no floating dtype.

    Example:
        >>> fo.random.uniform(fo.random.key(42), 3)
        tensor([0.9177, 0.9581, 0.7473])
    """
    _check_float("random.uniform", dtype)
    digits = FLOATS[dtype]
    mask, scale = 2 ** (digits % 32) - 1, 2.0**-digits  # 53 digits are 21 of one word and all of the next
    if dtype == torch.float64:
        return _integers(
            "random.uniform", key, shape, start, device, 2, lambda hi, lo: (hi & mask) * 2**32 + lo, lambda m: m.to(dtype) * scale
        )
    return _integers("random.uniform", key, shape, start, device, 1, lambda word: word & mask, lambda m: m.to(dtype) * scale)


def normal(key: int | Tensor, shape: Shape = (), dtype: torch.dtype = torch.float32, device: Device = None, *, start: int = 0) -> Tensor:
    """Standard normal numbers, by Box and Muller; at most 6.8 in float32 and 8.6 in float64.

    Args:
        key: int64 [2].
        shape: of the result.
        dtype: a floating dtype. float64 takes two words an element, float32 one;
            the shorter ones are float32 draws, rounded.
        device: of the result; None: the key's.
        start: the number of the first element, >= 0.

    Returns:
        A tensor of that shape and dtype.

    Raises:
        TypeError: `dtype` is no floating dtype.

    Example:
        >>> fo.random.normal(fo.random.key(42), 4)
        tensor([-0.9702,  0.1940, -1.2356,  1.9239])
    """
    _check_float("random.normal", dtype)
    if dtype == torch.float64:
        return _elements("random.normal", key, shape, start, device, 2, _normal_double)
    return _elements("random.normal", key, shape, start, device, 4, lambda words: _normal_float(words).to(dtype))


def rademacher(
    key: int | Tensor, shape: Shape = (), dtype: torch.dtype = torch.float32, device: Device = None, *, start: int = 0
) -> Tensor:
    """Signs: +1 or -1 with probability 1/2 each. Element e is bit e mod 32 of word floor(e / 32), set for +1.

    Args:
        key: int64 [2].
        shape: of the result.
        dtype: any real dtype with a sign.
        device: of the result; None: the key's.
        start: the number of the first element, >= 0.

    Returns:
        A tensor of that shape and dtype.

    Raises:
        TypeError: `dtype` is complex or has no sign.

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


def randint(
    key: int | Tensor, shape: Shape = (), low: int | Tensor = 0, high: int | Tensor = 2, device: Device = None, *, start: int = 0
) -> Tensor:
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

    Raises:
        ValueError: `high - low` is out of range.

    Example:
        >>> fo.random.randint(fo.random.key(42), 5, 0, 10)
        tensor([4, 3, 3, 4, 6])
    """
    for name, bound in (("low", low), ("high", high)):
        if not isinstance(bound, (int, torch.SymInt)) and not (isinstance(bound, Tensor) and kind(bound.dtype) == "int"):
            raise TypeError(f"random.randint: {name} must be an int or an integer tensor, got {shown(bound)}")
    span = high - low

    def scaled(w0: Any, w1: Any) -> Any:
        return low + ((w1 * span + ((w0 * span) >> 32)) >> 32)  # at most (2**32 - 1) 2**31 + 2**31 - 1 < 2**63

    if isinstance(span, Tensor):
        return scaled(*philox.halves(_integers("random.randint", key, shape, start, device, 2, philox.pack)))
    check_int("random.randint", "high - low", span, 1, 2**31 + 1)
    return _integers("random.randint", key, shape, start, device, 2, scaled)


def readable(tensor: Tensor) -> bool:
    """Whether `host_int` may read it: a CPU tensor, outside functorch transforms and graphs.

    Args:
        tensor: any tensor.

    Returns:
        True or False.

    Example:
        >>> fo.random.readable(torch.tensor(3))
        True
    """
    return _read(tensor) is not None


def _read(tensor: Tensor) -> int | list[Any] | None:
    return None if versions.compiling() or versions.transforming() else philox.host_value(tensor)


def host_int(tensor: Tensor, where: str = "random.host_int") -> int:
    """Reads a 0-dim integer tensor of the CPU: the one place where the library looks at a value of a state.

    Args:
        tensor: 0-dim, of an integer dtype or bool, on the CPU.
        where: who asks, for the errors.

    Returns:
        An int.

    Raises:
        ValueError: it lies on another device, or it is read inside a functorch
            transform or while a graph is traced.
        TypeError: it is not 0-dim, or of a floating or complex dtype.

    Example:
        >>> fo.random.host_int(torch.tensor(3))
        3
    """
    if tensor.dim() != 0 or tensor.is_floating_point() or tensor.is_complex():
        raise TypeError(f"{where}: needs a 0-dim integer tensor to read, got {tensor.dtype} of shape {tuple(tensor.shape)}")
    if not tensor.is_cpu:
        raise ValueError(
            f"{where}: needs a tensor on the CPU to read, got one on {tensor.device}, where reading waits for the device; "
            "use dispatch='select'"
        )
    value = _read(tensor)
    if not isinstance(value, int):
        raise ValueError(
            f"{where}: a value cannot be read inside vmap, grad or a traced graph, where it has no number yet; use dispatch='select'"
        )
    return int(value)


def _elements(
    where: str,
    key: int | Tensor,
    shape: Shape,
    start: int,
    device: Device,
    per_counter: int,
    law: philox.Law,
    few: Callable[..., Any] | None = None,
) -> Tensor:
    """Elements `start`, `start + 1`, ... of the stream that `law` makes of the key's words; `few` makes a few from a list of words."""
    key = check_key(where, key)
    check_int(where, "start", start)
    device = key.device if device is None else torch.device(device)
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    count = math.prod(shape)
    first, skip = start // per_counter, start % per_counter
    counters = (skip + count + per_counter - 1) // per_counter
    if few is not None and (words := philox.few_words(key, first, counters, device)) is not None:
        return few([word for four in words for word in four], skip, count).reshape(shape)
    values = philox.draw(key, law, first, counters, device)
    return values.reshape(-1)[skip : skip + count].reshape(shape)


def _integers(
    where: str,
    key: int | Tensor,
    shape: Shape,
    start: int,
    device: Device,
    words_each: int,
    f: Callable[..., Any],
    finish: Callable[..., Any] = lambda x: x,
) -> Tensor:
    """`finish` of the int64 tensor of `f` of the one or two words of each element; `f` takes tensors and Python numbers."""

    def law(words: Tensor) -> Any:
        return finish(f(words) if words_each == 1 else f(words[:, 0], words[:, 1]))

    def few(words: list[int], skip: int, count: int) -> Any:
        elements = range(skip * words_each, (skip + count) * words_each, words_each)
        return finish(
            torch.tensor([f(*words[e : e + words_each]) for e in elements], dtype=torch.int64, device="cpu").to(
                device or (key.device if isinstance(key, Tensor) else "cpu"), non_blocking=True
            )
        )

    return _elements(where, key, shape, start, device, 4 // words_each, law, few)


# The laws: words [2, 2, m], word 2 p + i of a counter at [p, i], become values [..., m].


def _normal_float(words: Tensor) -> Tensor:
    u = words.to(torch.float32).mul_(2.0**-32).add_(2.0**-33)  # in (0, 1]
    return _box_muller(u[:, 0], u[:, 1])


def _normal_double(words: Tensor) -> Tensor:
    u = ((words[:, 0] & (2**20 - 1)) * 2**32 + words[:, 1]).to(torch.float64) * 2.0**-52 + 2.0**-53  # exact, in (0, 1)
    return _box_muller(u[0], u[1])


def _box_muller(u: Tensor, v: Tensor) -> Tensor:
    """Normals [..., 2, m] of uniforms [..., m]."""
    radius, angle = u.log().mul_(-2).sqrt_(), v * (2 * math.pi)
    return torch.stack([angle.cos().mul_(radius), angle.sin().mul_(radius)], dim=-2)


def _check_float(where: str, dtype: torch.dtype) -> None:
    if dtype not in FLOATS:
        raise TypeError(f"{where}: dtype must be one of {', '.join(map(str, FLOATS))}, got {dtype}")
