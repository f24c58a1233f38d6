"""The options of `es.grad`, checked once, and what they mean for a given tree."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from funcopt.core import check, tree
from funcopt.core.autocast import in_full_precision
from funcopt.es.noise.distributions import law_of
from funcopt.es.noise.sources import Generator, Philox, Source
from funcopt.es.shaping.fitness import real
from funcopt.es.shaping.shaping import baseline, bounded, shaping
from funcopt.es.shaping.shared_ties import centered_rank_shared_ties

__all__ = ["Settings", "mask_entries"]

CHOICES = {
    "combine": ("shape_then_sum", "sum_then_shape"),
    "baseline": ("none", "mean", "loo", "center"),
    "scale": ("inverse_sigma", "openai", "sigma"),
    "memory": ("auto", "store", "regenerate"),
    "vectorize": ("auto", "vmap", "loop", "processes", "external"),
    "randomness": ("keyed", "same", "different", "error"),
    "common_random_numbers": (True, "pairs", False),
    "buffers": ("frozen", "per_member", "center"),
    "on_failure": ("worst", "drop", "raise"),
    "rng": ("philox", "generator"),
    "gradient": ("sharded", "replicated"),
}


@dataclass(frozen=True)
class Settings:
    """See `es.grad` for every field."""

    where: str
    popsize: int
    sigma: Any
    has_aux: bool = False
    maximize: bool = False
    antithetic: bool = True
    shaping: str | Callable[[Tensor], Tensor] = "centered_rank"
    tie: str = "average"
    weights: Any = None
    combine: str = "shape_then_sum"
    baseline: str = "none"
    scale: str = "inverse_sigma"
    noise: Any = "normal"
    mask: Any = None
    chunk_size: int | str | None = "auto"
    memory: str = "auto"
    memory_budget: int | None = None
    noise_dtype: torch.dtype | None = None
    vectorize: str = "auto"
    workers: int | None = None
    devices: Sequence | None = None
    randomness: str = "keyed"
    common_random_numbers: bool | str = True
    dtype: torch.dtype | None = None
    accum_dtype: torch.dtype = torch.float32
    compile: bool | dict = False
    buffers: str = "frozen"
    buffers_argnum: int = 1
    on_failure: str = "worst"
    rng: str = "philox"
    stable_by_path: bool = False
    process_group: Any = None
    gradient: str = "sharded"

    def __post_init__(self):
        where = self.where
        check.integer(where, "popsize", self.popsize, 1)
        if self.antithetic and self.popsize % 2:
            raise ValueError(
                f"{where}: popsize must be even with antithetic=True, whose members are pairs, got {self.popsize}; "
                f"use {self.popsize + 1} or antithetic=False"
            )
        for name, options in CHOICES.items():
            check.choice(where, name, getattr(self, name), options)
        for value in tree.leaves(self.sigma):
            if isinstance(value, Tensor):
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{where}: sigma must be a number, a tensor or a tree of these, got {value!r}")
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{where}: sigma must be > 0, got {value}; it is the standard deviation of the perturbations")
        for value in tree.leaves(self.noise):
            law_of(value, where)
        for value in self.weights if isinstance(self.weights, Sequence) else [self.weights]:
            if value is not None and not isinstance(value, Tensor):
                check.finite(where, "weights", value)
        if isinstance(self.chunk_size, str):
            check.choice(where, "chunk_size", self.chunk_size, ("auto",))
        elif self.chunk_size is not None:
            check.integer(where, "chunk_size", self.chunk_size, 1)
        if self.workers is not None:
            check.integer(where, "workers", self.workers, 1)
        if self.memory_budget is not None:
            check.integer(where, "memory_budget", self.memory_budget, 0)
        check.integer(where, "buffers_argnum", self.buffers_argnum, 0)
        if not isinstance(self.compile, (bool, dict)):
            raise TypeError(f"{where}: compile must be True, False or a dict of options for torch.compile, got {self.compile!r}")
        for name in ("dtype", "noise_dtype", "accum_dtype"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, torch.dtype) and value.is_floating_point):
                raise TypeError(f"{where}: {name} must be a floating dtype, got {value!r}")
        if self.devices is not None and not self.devices:
            raise ValueError(f"{where}: devices must name at least one device; None evaluates where the params are")
        if self.vectorize == "external" and self.randomness == "same":
            raise ValueError(
                f"{where}: with vectorize='external' the objective draws for all members at once, "
                "and nobody can make that the same for each, "
                "as randomness='same' says; give it an argument `key`, or say 'different'"
            )
        if isinstance(self.baseline, str) and self.shaping == "sign" and not self.antithetic:
            raise ValueError(f"{where}: shaping='sign' compares the members of a pair; it needs antithetic=True")
        shaping(self.shaping, tie=self.tie) if isinstance(self.shaping, str) else self._check_callable()

    def _check_callable(self) -> None:
        if not callable(self.shaping):
            raise TypeError(f"{self.where}: shaping must be a name or a function from fitness [P] to utilities [P], got {self.shaping!r}")

    @property
    def pairs(self) -> int:
        """Directions: half the population with pairs, else all of it."""
        return self.popsize // 2 if self.antithetic else self.popsize

    @property
    def signs(self) -> int:
        return 2 if self.antithetic else 1

    def source(self) -> Source:
        """What makes the numbers: compiled tiles where the chunks are compiled."""
        return Generator() if self.rng == "generator" else Philox(compile=bool(self.compile))

    def objective_weights(self, like: Tensor) -> Tensor | None:
        if self.weights is None:
            return None
        if isinstance(self.weights, Tensor):
            return self.weights.to(device=like.device, dtype=like.dtype).reshape(-1)
        return torch.tensor(
            list(self.weights) if isinstance(self.weights, Sequence) else [self.weights], dtype=like.dtype, device=like.device
        )

    @in_full_precision
    def utilities(self, fitness: Tensor, center: Tensor | None) -> Tensor:
        """[P] from fitness [P] or [P, K]: bigger is better in what comes out, whichever way the objective counts."""
        fitness = fitness if self.maximize else -fitness
        center = None if center is None else (center if self.maximize else -center)
        weights = self.objective_weights(fitness)
        if weights is not None and self.combine == "sum_then_shape":
            fitness = fitness @ weights
            center = None if center is None else center @ weights
        if fitness.dim() == 1:
            return self._shaped(fitness, center)
        assert weights is not None
        columns = [self._shaped(f, None if center is None else center[k]) for k, f in enumerate(fitness.unbind(1))]
        return (torch.stack(columns, dim=1) * weights).sum(1)

    def _shaped(self, fitness: Tensor, center: Tensor | None) -> Tensor:
        shape = shaping(self.shaping, tie=self.tie) if isinstance(self.shaping, str) else self.shaping
        if self.shaping == "centered_rank" and self.tie == "last":
            shape = _shared_ties
        if self.shaping == "none" or getattr(shape, "__module__", "") not in (shaping.__module__, __name__):
            fitness = bounded(fitness)  # no named shaping will settle what is not finite
        fitness = baseline(self.baseline)(fitness, center)
        utilities = shape(fitness)
        if not isinstance(utilities, Tensor) or utilities.shape != fitness.shape:
            got = tuple(utilities.shape) if isinstance(utilities, Tensor) else type(utilities).__name__
            raise ValueError(f"{self.where}: shaping must return one utility for each of the {fitness.shape[0]} members, got {got}")
        return real(self.where, "the utility that shaping returns", utilities)


def _shared_ties(fitness: Tensor) -> Tensor:
    """The ranks of pytorch-optimize, but NaN is the worst."""
    return centered_rank_shared_ties(torch.where(fitness.isnan(), -torch.inf, fitness))


def mask_entries(mask: Any, params: Any, where: str) -> list:
    """True, False or a tensor of 0 and 1 for every leaf of params.

    `mask` is None (all), a tree of these or a prefix of it, a function from params to such a tree, or patterns of paths such as "*.weight".
    """
    if mask is None:
        return [True] * len(tree.leaves(params))
    if isinstance(mask, str) or (isinstance(mask, (list, tuple)) and mask and all(isinstance(pattern, str) for pattern in mask)):
        patterns = [mask] if isinstance(mask, str) else list(mask)
        paths = tree.paths(params)
        for pattern in patterns:
            if not any(fnmatchcase(path, pattern) for path in paths):
                raise ValueError(f"{where}: mask {pattern!r} matches none of the paths {', '.join(paths)}")
        return [any(fnmatchcase(path, pattern) for pattern in patterns) for path in paths]
    entries = tree.broadcast_prefix(mask(params) if callable(mask) else mask, params, where, "mask")
    for path, leaf, entry in zip(tree.paths(params), tree.leaves(params), entries, strict=True):
        if isinstance(entry, Tensor):
            _check_fits(where, "mask", path, entry, leaf)
        elif not isinstance(entry, bool):
            raise TypeError(f"{where}: mask must hold bools or tensors of 0 and 1, got {entry!r} at '{path}'")
    return entries


def _check_fits(where: str, name: str, path: str, entry: Tensor, leaf: Tensor) -> None:
    """0-dim, or something that broadcasts to the leaf."""
    sizes = tuple(entry.shape)
    fits = len(sizes) <= leaf.dim() and all(size in (1, n) for size, n in zip(reversed(sizes), reversed(leaf.shape), strict=False))
    if not fits:
        raise ValueError(
            f"{where}: {name} must be 0-dim or broadcast to the leaf at '{path}' of shape {tuple(leaf.shape)}, got shape {sizes}"
        )
