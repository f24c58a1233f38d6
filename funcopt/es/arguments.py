"""Which arguments of an objective are perturbed, as in `torch.func`: one, by an int, or several, by a tuple of ints."""

from collections.abc import Sequence
from typing import Any

__all__ = ["numbers_of", "perturbed_of", "placed_among"]

Argnums = int | tuple[int, ...]


def numbers_of(argnums: Argnums) -> tuple[int, ...]:
    return (argnums,) if isinstance(argnums, int) else tuple(argnums)


def perturbed_of(args: Sequence, argnums: Argnums) -> Any:
    """The argument, or the tuple of arguments, that is perturbed."""
    return args[argnums] if isinstance(argnums, int) else tuple(args[number] for number in argnums)


def placed_among(args: Sequence, argnums: Argnums, value: Any) -> list:
    """The arguments with `value` in the place of what is perturbed."""
    whole = list(args)
    for number, part in zip(numbers_of(argnums), (value,) if isinstance(argnums, int) else value, strict=True):
        whole[number] = part
    return whole
