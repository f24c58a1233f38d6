"""The keywords that `es.grad` and what stands on it hand on, so that an editor shows them and tells one that is not there.

Each is a field of `Estimand` or `Execution` (`es/options.py`), which have the defaults, and `es.grad` says what each means.
"""

from collections.abc import Sequence
from typing import Any

import torch

from funcopt.core.typed import TypedDict
from funcopt.es.options import Auto, Buffers, Combine, Memory, OnFailure, Pairs, Randomness, Rng, Scale, Summed, Vectorize
from funcopt.es.shaping.shaping import Baseline, Shaping, ShapingName, Tie

__all__ = ["Differentiation", "Estimation", "Evaluation", "LayerEstimation"]


class _Calls(TypedDict, total=False):
    chunk_size: int | Auto | None
    vectorize: Vectorize
    workers: int | None
    devices: Sequence[torch.device | str | int] | None
    compile: bool | dict[str, Any]
    dtype: torch.dtype | None
    randomness: Randomness
    common_random_numbers: bool | Pairs
    buffers: Buffers
    buffers_argnum: int


class Evaluation(_Calls, total=False):
    """Of `es.evaluator` and `es.run`: how members are evaluated."""

    has_aux: bool


class Differentiation(_Calls, total=False):
    """Of `es.differentiable`."""

    process_group: Any
    antithetic: bool
    noise: Any
    mask: Any
    rng: Rng
    stable_by_path: bool
    noise_dtype: torch.dtype | None
    memory: Memory
    memory_budget: int | None
    tie: Tie
    combine: Combine
    baseline: Baseline
    on_failure: OnFailure
    scale: Scale
    accum_dtype: torch.dtype
    gradient: Summed


class LayerEstimation(Differentiation, total=False):
    """Of `es.layerwise`, which says `maximize` itself."""

    shaping: ShapingName | Shaping
    weights: Any
    has_aux: bool


class Estimation(LayerEstimation, total=False):
    """Of `es.grad_and_value` and `es.estimator`: all but `popsize` and `sigma`."""

    maximize: bool
