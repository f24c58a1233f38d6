"""A box for params by name: objectives see params inside of it, searches and estimators walk outside of it freely.

    inside(x) = low + w - |(x - low) mod 2w - w|,   w = high - low        ("reflect")
    inside(x) = min(max(x, low), high)                                    ("clip")
    inside(x) = low + (x - low) mod w                                     ("wrap")

"reflect" is continuous and covers the box evenly, so that a distribution which crosses a side goes on inside; "clip" makes
all that is outside the same as the side; "wrap" is for angles. With one side open, "reflect" mirrors at the other.

Reference: pycma's BoundTransform and evosax's clip_min and clip_max, by name here.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from funcopt.core import TensorTree, check, random, tree

__all__ = ["Domain", "domain"]

How = Literal["reflect", "clip", "wrap"]
Side = float | None


class Domain:
    """What `es.domain` makes: `domain(params)` are the params inside of the box; `of` and `uniform` are made from it."""

    def __init__(self, bounds: Mapping[str, tuple[Side, Side]], how: How):
        self.bounds, self.how = dict(bounds), how

    def __repr__(self) -> str:
        return f"es.domain({self.bounds!r}, how={self.how!r})"

    def __call__(self, params: TensorTree) -> TensorTree:
        """The params inside; leaves without bounds as they are."""
        return tree.unflatten(params, [self._inside(x, sides) for x, sides in zip(tree.leaves(params), self._sides(params), strict=True)])

    def of(self, objective: Callable[..., Any]) -> Callable[..., Any]:
        """The objective at the params inside, for `es.grad`, `es.run` and all others."""

        def inside(params: TensorTree, *args: Any, **kwargs: Any) -> Any:
            return objective(self(params), *args, **kwargs)

        def with_key(params: TensorTree, *args: Any, key: Any = None, **kwargs: Any) -> Any:
            return objective(self(params), *args, key=key, **kwargs)

        return with_key if "key" in inspect.signature(objective).parameters else inside

    def uniform(self, key: int | Tensor, params: TensorTree) -> TensorTree:
        """A start drawn evenly from the box, like params, which stay where a side is open: `es.restarts(..., start=domain.uniform)`."""
        key, made = random.as_key(key, "es.domain.uniform"), []
        for number, (x, (low, high)) in enumerate(zip(tree.leaves(params), self._sides(params), strict=True)):
            if low is None or high is None:
                made.append(x)
                continue
            u = random.uniform(random.fold_in(key, number), tuple(x.shape), torch.float64, "cpu")
            made.append((low + (high - low) * u).to(x))
        return tree.unflatten(params, made)

    def _sides(self, params: TensorTree) -> list[tuple[Side, Side]]:
        paths = tree.paths(params)
        found = []
        for path in paths:
            name = next((name for name in self.bounds if fnmatchcase(path, name)), None)
            found.append((None, None) if name is None else self.bounds[name])
        for name in self.bounds:
            if not any(fnmatchcase(path, name) for path in paths):
                raise KeyError(f"es.domain: no leaf of params is named {name!r}; there are {', '.join(paths) or 'none'}")
        return found

    def _inside(self, x: Tensor, sides: tuple[Side, Side]) -> Tensor:
        low, high = sides
        if sides == (None, None):
            return x
        if self.how == "clip":
            return x.clamp(low, high)
        if high is None:
            return x if low is None else low + (x - low).abs()
        if low is None:
            return high - (high - x).abs()
        width = high - low
        if self.how == "wrap":
            return low + (x - low).remainder(width)
        return low + width - ((x - low).remainder(2 * width) - width).abs()


def domain(bounds: Mapping[str, tuple[Side, Side]], how: How = "reflect") -> Domain:
    """A box for params by name.

    Args:
        bounds: path or pattern -> (low, high), each a number or None for an open side; the first that matches a
            path counts, and leaves that none matches are free. A bare tensor has the path "".
        how: "reflect", "clip" or "wrap"; see the head of the file.

    Returns:
        A `Domain`: `box(params)` are the params inside, `box.of(objective)` is the objective there, and
        `box.uniform(key, params)` draws a start. Give `box(search.best(state)[0])` to whoever uses the result.

    Raises:
        ValueError: low is not below high, or a side is no finite number; "wrap" with an open side.
        KeyError: when params come, a name matches none of them.

    Example:
        >>> box = fo.es.domain({"angle": (0.0, 1.0)})
        >>> box({"angle": torch.tensor([-0.25, 0.5, 1.25]), "size": torch.tensor(7.0)})
        {'angle': tensor([0.2500, 0.5000, 0.7500]), 'size': tensor(7.)}
    """
    where = "es.domain"
    check.choice(where, "how", how, get_args(How))
    if not isinstance(bounds, Mapping) or not bounds:
        raise TypeError(f"{where}: bounds must be a mapping from names of params to (low, high), got {bounds!r}")
    for name, sides in bounds.items():
        if not isinstance(sides, (tuple, list)) or len(sides) != 2:
            raise ValueError(f"{where}: bounds of {name!r} must be a pair (low, high), got {sides!r}")
        for side in sides:
            if side is not None and (isinstance(side, bool) or not isinstance(side, (int, float)) or not math.isfinite(side)):
                raise ValueError(f"{where}: a side of {name!r} must be a finite number or None, got {side!r}")
        low, high = sides
        if low is not None and high is not None and not low < high:
            raise ValueError(f"{where}: low must be below high for {name!r}, got ({low}, {high})")
        if how == "wrap" and (low is None or high is None):
            raise ValueError(f"{where}: how='wrap' needs both sides of {name!r}, got ({low}, {high})")
    return Domain({name: (sides[0], sides[1]) for name, sides in bounds.items()}, how)
