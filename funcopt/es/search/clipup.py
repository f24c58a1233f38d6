"""ClipUp: momentum on gradients of length one, and a limit to the speed.

    v_t = m v_{t-1} - lr g_t / |g_t|
    v_t <- v_t min(1, v_max / |v_t|)
    u_t = v_t

The norms are those of the whole tree. Only the direction of the gradient counts, so
that `lr` and `v_max` are lengths in the space of params: for estimates whose size says
little, such as those of evolution strategies with ranked fitness.

Source: Toklu et al., "ClipUp: a simple and powerful optimizer for distribution-based
policy evolution", PPSN 2020, arXiv 2008.02387. Reference: EvoTorch's clipup.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, check, moments, numerics, tree

__all__ = ["ClipUpState", "clipup"]


class ClipUpState(NamedTuple):
    velocity: TensorTree  # the last update, in the dtypes of params
    count: Tensor  # steps taken


def clipup(lr: ScalarOrSchedule, momentum: Scalar = 0.9, max_speed: Scalar | None = None) -> GradientTransformation:
    """ClipUp: steps of bounded length in the direction of normalised, averaged gradients.

    Args:
        lr: length that one gradient adds to the velocity, > 0; a number, a 0-dim
            tensor or a schedule.
        momentum: m, in [0, 1).
        max_speed: v_max, the length of the longest step, > 0; None: 2 lr; inf: any.

    Returns:
        A ready-made optimizer: updates with the shapes and dtypes of the gradients,
        no longer than `max_speed`. A gradient of zero adds nothing. Holds one tree.

    After a NaN:
        This and every later step is NaN; guard with `apply_if_finite`.

    Raises:
        ValueError: an argument out of range.

    Example:
        >>> clip = fo.es.clipup(lr=0.5, max_speed=0.75)
        >>> state = clip.init(torch.zeros(2))
        >>> for _ in range(2):
        ...     updates, state = clip.update(torch.tensor([30.0, -40.0]), state)
        ...     print(updates)
        tensor([-0.3000,  0.4000])
        tensor([-0.4500,  0.6000])
    """
    check.schedule_or(check.positive, "es.clipup", "lr", lr)
    check.half_open("es.clipup", "momentum", momentum, 0, 1)
    if max_speed is not None:
        check.limit("es.clipup", "max_speed", max_speed)

    def init(params: TensorTree) -> ClipUpState:
        return ClipUpState(velocity=tree.zeros_like(params), count=torch.zeros((), dtype=torch.int64, device=tree.device(params)))

    def update(updates: TensorTree, state: ClipUpState, params: TensorTree | None = None, **extra: Any):
        size = check.value_at("es.clipup", "lr", lr, state.count)
        limit = 2 * size if max_speed is None else max_speed
        step = size / positive(numerics.wide_norm(updates))
        velocity = tree.map(lambda v, g: momentum * v - step * g, state.velocity, updates)
        slower = (limit / positive(numerics.wide_norm(velocity))).clamp(max=1.0)
        velocity = tree.map(lambda v: v * slower, velocity)
        kept = tree.cast_like(velocity, state.velocity)
        return tree.cast_like(velocity, updates), ClipUpState(velocity=kept, count=moments.increment(state.count))

    return GradientTransformation(init, update, name="es.clipup", flattenable=True, turns=True)


def positive(norm: Tensor) -> Tensor:
    return torch.where(norm == 0, 1.0, norm)
