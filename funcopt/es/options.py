"""The options of `es.grad` as two frozen objects: what is estimated, and how members are evaluated; and what a mask means for a tree.

The keywords of `es.grad` and of what stands on it make these two, once, by `settings_of`. What shapes fitness is told in
`es/shaping/utilities.py`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from funcopt.core import check, tree
from funcopt.core.door.callers import warn
from funcopt.core.versions import compiler_too_old
from funcopt.es.noise.distributions import law_of
from funcopt.es.noise.sources import Generator, Philox, Source
from funcopt.es.shaping.shaping import Baseline, Shaping, ShapingName, Tie, shaping

__all__ = ["Estimand", "Execution", "Settings", "mask_entries", "settings_of"]

Combine = Literal["shape_then_sum", "sum_then_shape"]
Scale = Literal["inverse_sigma", "openai", "sigma"]
Memory = Literal["auto", "store", "regenerate"]
OnFailure = Literal["worst", "drop", "raise"]
Rng = Literal["philox", "generator"]
Summed = Literal["sharded", "replicated"]
Vectorize = Literal["auto", "vmap", "loop", "processes", "external"]
Randomness = Literal["keyed", "same", "different", "error"]
Pairs = Literal["pairs"]
Buffers = Literal["frozen", "per_member", "center"]
Auto = Literal["auto"]

CHOICES_OF_ESTIMAND = {
    "combine": get_args(Combine),
    "baseline": get_args(Baseline),
    "scale": get_args(Scale),
    "memory": get_args(Memory),
    "on_failure": get_args(OnFailure),
    "rng": get_args(Rng),
    "gradient": get_args(Summed),
}
CHOICES_OF_EXECUTION = {
    "vectorize": get_args(Vectorize),
    "randomness": get_args(Randomness),
    "common_random_numbers": (True, *get_args(Pairs), False),
    "buffers": get_args(Buffers),
}


@dataclass(frozen=True)
class Estimand:
    """What is estimated: from which perturbations, from which utilities, and how they are summed. `es.grad` tells of each."""

    popsize: int
    sigma: Any
    antithetic: bool = True
    noise: Any = "normal"
    mask: Any = None
    rng: Rng = "philox"
    stable_by_path: bool = False
    noise_dtype: torch.dtype | None = None
    memory: Memory = "auto"
    memory_budget: int | None = None
    maximize: bool = False
    shaping: ShapingName | Shaping = "centered_rank"
    tie: Tie = "average"
    weights: Any = None
    combine: Combine = "shape_then_sum"
    baseline: Baseline = "none"
    on_failure: OnFailure = "worst"
    scale: Scale = "inverse_sigma"
    accum_dtype: torch.dtype = torch.float32
    gradient: Summed = "sharded"

    @property
    def pairs(self) -> int:
        """Directions: half the population with pairs, else all of it."""
        return self.popsize // 2 if self.antithetic else self.popsize

    @property
    def signs(self) -> int:
        return 2 if self.antithetic else 1

    def objective_weights(self, like: Tensor) -> Tensor | None:
        if self.weights is None:
            return None
        if isinstance(self.weights, Tensor):
            return self.weights.to(device=like.device, dtype=like.dtype).reshape(-1)
        return torch.tensor(
            list(self.weights) if isinstance(self.weights, Sequence) else [self.weights], dtype=like.dtype, device=like.device
        )


@dataclass(frozen=True)
class Execution:
    """How the objective is called for the members: together or one by one, where, with which random numbers. `es.grad` tells of each."""

    has_aux: bool = False
    chunk_size: int | Auto | None = "auto"
    vectorize: Vectorize = "auto"
    workers: int | None = None
    devices: Sequence[torch.device | str | int] | None = None
    compile: bool | dict[str, Any] = False
    dtype: torch.dtype | None = None
    randomness: Randomness = "keyed"
    common_random_numbers: bool | Pairs = True
    buffers: Buffers = "frozen"
    buffers_argnum: int = 1
    process_group: Any = None


@dataclass(frozen=True)
class Settings:
    """Both, checked."""

    where: str  # who speaks in errors
    estimand: Estimand
    execution: Execution = Execution()

    def __post_init__(self):
        _check_estimand(self.where, self.estimand)
        _check_execution(self.where, self.execution)
        if self.execution.compile and (missing := compiler_too_old()):
            warn(f"{self.where}: runs eagerly, since there is no compiler here ({missing})")
            object.__setattr__(self, "execution", replace(self.execution, compile=False))

    def source(self) -> Source:
        """What makes the numbers: compiled tiles where the chunks are compiled."""
        return Generator() if self.estimand.rng == "generator" else Philox(compile=bool(self.execution.compile))


def settings_of(where: str, **options: Any) -> Settings:
    """The settings that keywords say.

    Raises:
        TypeError: a keyword is none of the options, or of a wrong kind.
        ValueError: one is out of range.
    """
    names = [field.name for kind in (Estimand, Execution) for field in fields(kind)]
    unknown = sorted(set(options) - set(names))
    if unknown:
        raise TypeError(f"{where}: unknown option {unknown[0]!r}; the options are {', '.join(names)}")
    how = {field.name: options.pop(field.name) for field in fields(Execution) if field.name in options}
    return Settings(where, Estimand(**options), Execution(**how))


def _check_estimand(where: str, what: Estimand) -> None:
    check.integer(where, "popsize", what.popsize, 1)
    if what.antithetic and what.popsize % 2:
        raise ValueError(
            f"{where}: popsize must be even with antithetic=True, whose members are pairs, got {what.popsize}; "
            f"use {what.popsize + 1} or antithetic=False"
        )
    for name, options in CHOICES_OF_ESTIMAND.items():
        check.choice(where, name, getattr(what, name), options)
    for value in tree.leaves(what.sigma):
        if isinstance(value, Tensor):
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{where}: sigma must be a number, a tensor or a tree of these, got {value!r}")
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{where}: sigma must be > 0, got {value}; it is the standard deviation of the perturbations")
    for value in tree.leaves(what.noise):
        law_of(value, where)
    for value in what.weights if isinstance(what.weights, Sequence) else [what.weights]:
        if value is not None and not isinstance(value, Tensor):
            check.finite(where, "weights", value)
    if what.memory_budget is not None:
        check.integer(where, "memory_budget", what.memory_budget, 0)
    _check_dtype(where, "noise_dtype", what.noise_dtype)
    _check_dtype(where, "accum_dtype", what.accum_dtype)
    if not (callable(what.shaping) or isinstance(what.shaping, str)):
        raise TypeError(f"{where}: shaping must be a name or a function from fitness [P] to utilities [P], got {what.shaping!r}")
    if what.shaping == "sign" and not what.antithetic:
        raise ValueError(f"{where}: shaping='sign' compares the members of a pair; it needs antithetic=True")
    shaping(what.shaping, tie=what.tie)


def _check_execution(where: str, how: Execution) -> None:
    for name, options in CHOICES_OF_EXECUTION.items():
        check.choice(where, name, getattr(how, name), options)
    if isinstance(how.chunk_size, str):
        check.choice(where, "chunk_size", how.chunk_size, ("auto",))
    elif how.chunk_size is not None:
        check.integer(where, "chunk_size", how.chunk_size, 1)
    if how.workers is not None:
        check.integer(where, "workers", how.workers, 1)
    check.integer(where, "buffers_argnum", how.buffers_argnum, 0)
    if not isinstance(how.compile, (bool, dict)):
        raise TypeError(f"{where}: compile must be True, False or a dict of options for torch.compile, got {how.compile!r}")
    _check_dtype(where, "dtype", how.dtype)
    if how.devices is not None and not how.devices:
        raise ValueError(f"{where}: devices must name at least one device; None evaluates where the params are")
    if how.vectorize == "external" and how.randomness == "same":
        raise ValueError(
            f"{where}: with vectorize='external' the objective draws for all members at once, and nobody can make that the same for each, "
            "as randomness='same' says; give it an argument `key`, or say 'different'"
        )


def _check_dtype(where: str, name: str, value: torch.dtype | None) -> None:
    if value is not None and not (isinstance(value, torch.dtype) and value.is_floating_point):
        raise TypeError(f"{where}: {name} must be a floating dtype, got {value!r}")


def mask_entries(mask: Any, params: Any, where: str) -> list[Any]:
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
