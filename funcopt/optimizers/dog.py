"""DoG, layer-wise DoG and DoWG: the rate is the distance come so far over the gradients met so far.

    DoG     d = max(d, ||p - p_0||),   G = G + ||g||^2,         u = d / sqrt(G + eps) * g
    LDoG    the same for every leaf by itself
    DoWG    d2 = max(d2, ||p - p_0||^2),   G = G + d2 ||g||^2,  u = d2 / (sqrt(G) + eps) * g

Nothing needs to be tuned; the authors evaluate an average of the params. Weight decay is coupled, as in the
reference: it stands before the method, which measures it.

Source: Ivgi, Hinder and Carmon 2023; Khaled, Mishchenko and Jin 2023. Reference: optax.contrib.dog, dowg and
optax.scale_by_distance_over_gradients (0.2.8), which gives 0-dim leaves the shape (1,); here they keep theirs.
"""

from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, moments, numerics, tree
from funcopt.core.math import entrywise
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = [
    "DoGState",
    "DoWGState",
    "ScaleByDistanceOverGradientsState",
    "dog",
    "dowg",
    "scale_by_distance_over_gradients",
    "scale_by_dog",
    "scale_by_dowg",
]

FirstStep = Literal["distance", "learning_rate", "heuristic"]


class DoGState(NamedTuple):
    is_init_step: Tensor  # bool: no step was taken yet
    init_params: TensorTree  # where the run began; like params
    max_dist: Tensor  # d
    sum_sq_norm_grads: Tensor  # G


class DoWGState(NamedTuple):
    init_params: TensorTree  # where the run began; like params
    weighted_sq_norm_grads: Tensor  # G
    estim_sq_dist: Tensor  # d2


class ScaleByDistanceOverGradientsState(NamedTuple):
    max_dist: TensorTree  # d of every leaf
    grad_sum_of_squares: TensorTree  # G of every leaf
    init_params: TensorTree  # where the run began; like params


def _squared_norm(x: TensorTree) -> Tensor:
    """In the dtype of what steers: float32 holds no square of 1e20."""
    return tree.squared_norm(x, tree.scalar_dtype(tree.device(x)))


def scale_by_dog(init_step: tuple[FirstStep, Scalar] = ("heuristic", 1e-6), eps: Scalar = 1e-8) -> GradientTransformation[DoGState]:
    """Multiplies by the largest distance from the start over the root of the summed squared gradients.

    Args:
        init_step: how the first step is found: ("distance", d_0), ("learning_rate", rate of
            the first step) or ("heuristic", d_0 / (1 + ||p_0||)), 1e-6 or with batch norm 1e-4.
        eps: added under the root, > 0.

    Returns:
        A transform from gradients to directions in units of the params. Holds one tree like `params`.

    After a NaN:
        This and every later step is NaN; guard with `apply_if_finite`. After an infinity or 1e30 everything stays at 0; clip.

    Raises:
        ValueError: a number is out of range, or `init_step` is unknown; at `update`, no params are given.

    Example:
        >>> dog = fo.scale_by_dog(("distance", 0.5))
        >>> params = torch.zeros(2)
        >>> dog.update(torch.tensor([3.0, 4.0]), dog.init(params), params)[0]
        tensor([0.3000, 0.4000])
    """
    kind, value = init_step
    check.choice("scale_by_dog", "init_step[0]", kind, get_args(FirstStep))
    check.positive("scale_by_dog", "init_step[1]", value)
    check.positive("scale_by_dog", "eps", eps)

    def init(params: TensorTree) -> DoGState:
        first = {"distance": 1.0, "learning_rate": 0.0, "heuristic": 1 + numerics.wide_norm(params)}[kind] * value
        return DoGState(
            is_init_step=torch.ones((), dtype=torch.bool, device=tree.device(params)),
            init_params=tree.clone(params),
            max_dist=tree.scalar(first, params).clone(),
            sum_sq_norm_grads=tree.scalar(0.0, params),
        )

    def update(updates: TensorTree, state: DoGState, params: TensorTree | None = None, **extra: Any):
        check.params("scale_by_dog", params)
        distance = numerics.wide_norm(tree.sub(params, state.init_params))
        max_dist = torch.maximum(state.max_dist, distance.to(state.max_dist.dtype))
        total = state.sum_sq_norm_grads + _squared_norm(updates)
        rate = max_dist / (total + eps).sqrt()
        if kind == "learning_rate":
            rate = torch.where(state.is_init_step, value, rate)
        (rate,) = entrywise.once(updates, rate)
        new_state = DoGState(
            is_init_step=torch.zeros_like(state.is_init_step),
            init_params=state.init_params,
            max_dist=max_dist,
            sum_sq_norm_grads=total.to(state.sum_sq_norm_grads.dtype),
        )
        return tree.map(lambda g: (rate * g).to(g.dtype), updates), new_state

    return GradientTransformation(init, update, name="scale_by_dog", flattenable=True, turns=False, own_rate=True)


def dog(
    lr: ScalarOrSchedule | None = 1.0,
    init_step: tuple[FirstStep, Scalar] = ("heuristic", 1e-6),
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """DoG: coupled decay, `scale_by_dog`, then a step of size `lr`, a factor near 1 (None: the `base_lr` it hears), downhill.

    Args:
        lr: factor of the rate that the method finds itself, >= 0, near 1: a number, a 0-dim tensor or a schedule of the
            count of steps; None: the `base_lr` it hears.
        init_step: how the first step is found: ("distance", d_0), ("learning_rate", rate of the first step) or
            ("heuristic", d_0 / (1 + ||p_0||)), 1e-6 or with batch norm 1e-4.
        eps: added under the root, > 0.
        weight_decay: coupled: this share of the params is added to the gradient, >= 0; a number, a 0-dim tensor or a
            schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A transformation from gradients to the updates that `apply_updates` adds, in their shapes and dtypes. Holds one
        tree like `params`.

    After a NaN:
        This and every later step is NaN; guard with `apply_if_finite`. After an infinity or 1e30 everything stays at 0; clip.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Example:
        >>> tx = fo.dog(init_step=("distance", 0.5))
        >>> params = torch.zeros(2)
        >>> tx.update(torch.tensor([3.0, 4.0]), tx.init(params), params)[0]
        tensor([-0.3000, -0.4000])
    """
    return chain(add_decayed_weights(weight_decay, weight_decay_mask), scale_by_dog(init_step, eps), lr_scale(lr))


def scale_by_dowg(init_estim_sq_dist: Scalar | None = None, eps: Scalar = 1e-4) -> GradientTransformation[DoWGState]:
    """Multiplies by the largest squared distance from the start over the root of squared gradients weighted by it.

    Args:
        init_estim_sq_dist: first squared distance, > 0; None: `eps`.
        eps: added to the root, > 0.

    Returns:
        A transform from gradients to directions in units of the params. Holds one tree like `params`.

    After a NaN:
        This and every later step is NaN; guard with `apply_if_finite`. After an infinity or 1e30 everything stays at 0; clip.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Example:
        >>> dowg = fo.scale_by_dowg(0.25, eps=1e-8)
        >>> params = torch.zeros(2)
        >>> dowg.update(torch.tensor([3.0, 4.0]), dowg.init(params), params)[0]
        tensor([0.3000, 0.4000])
    """
    first = eps if init_estim_sq_dist is None else init_estim_sq_dist
    check.positive("scale_by_dowg", "init_estim_sq_dist", first)
    check.positive("scale_by_dowg", "eps", eps)

    def init(params: TensorTree) -> DoWGState:
        return DoWGState(
            init_params=tree.clone(params),
            weighted_sq_norm_grads=tree.scalar(0.0, params),
            estim_sq_dist=tree.scalar(first, params).clone(),
        )

    def update(updates: TensorTree, state: DoWGState, params: TensorTree | None = None, **extra: Any):
        check.params("scale_by_dowg", params)
        distance = torch.maximum(state.estim_sq_dist, _squared_norm(tree.sub(params, state.init_params)).to(state.estim_sq_dist.dtype))
        total = (state.weighted_sq_norm_grads + distance * _squared_norm(updates)).to(state.weighted_sq_norm_grads.dtype)
        (rate,) = entrywise.once(updates, distance / (moments.safe_sqrt(total) + eps))
        new_state = DoWGState(init_params=state.init_params, weighted_sq_norm_grads=total, estim_sq_dist=distance)
        return tree.map(lambda g: (rate * g).to(g.dtype), updates), new_state

    return GradientTransformation(init, update, name="scale_by_dowg", flattenable=True, turns=False, own_rate=True)


def dowg(
    lr: ScalarOrSchedule | None = 1.0,
    init_estim_sq_dist: Scalar | None = None,
    eps: Scalar = 1e-4,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """DoWG: coupled decay, `scale_by_dowg`, then a step of size `lr`, a factor near 1 (None: the `base_lr` it hears), downhill.

    Args:
        lr: factor of the rate that the method finds itself, >= 0, near 1: a number, a 0-dim tensor or a schedule of the
            count of steps; None: the `base_lr` it hears.
        init_estim_sq_dist: first squared distance, > 0; None: `eps`.
        eps: added to the root, > 0.
        weight_decay: coupled: this share of the params is added to the gradient, >= 0; a number, a 0-dim tensor or a
            schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A transformation from gradients to the updates that `apply_updates` adds, in their shapes and dtypes. Holds one
        tree like `params`.

    After a NaN:
        This and every later step is NaN; guard with `apply_if_finite`. After an infinity or 1e30 everything stays at 0; clip.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Example:
        >>> tx = fo.dowg(init_estim_sq_dist=0.25, eps=1e-8)
        >>> params = torch.zeros(2)
        >>> tx.update(torch.tensor([3.0, 4.0]), tx.init(params), params)[0]
        tensor([-0.3000, -0.4000])
    """
    return chain(add_decayed_weights(weight_decay, weight_decay_mask), scale_by_dowg(init_estim_sq_dist, eps), lr_scale(lr))


def scale_by_distance_over_gradients(
    reps_rel: Scalar = 1e-6, eps: Scalar = 1e-8, param_dtype: torch.dtype | None = torch.float32, global_scale: Scalar = 1.0
) -> GradientTransformation[ScaleByDistanceOverGradientsState]:
    """Layer-wise DoG: every leaf has its own distance and its own sum.

    Args:
        reps_rel: first distance over 1 + ||p_0||, > 0.
        eps: added under the root, > 0.
        param_dtype: dtype of what is kept; None: that of the params.
        global_scale: factor of all directions.

    Returns:
        A transform from gradients to directions in units of the params. Holds one tree like `params`.

    After a NaN:
        Its leaf of this and every later step is NaN; guard with `apply_if_finite`. After an infinity or 1e30 its leaf stays at 0; clip.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Example:
        >>> ldog = fo.scale_by_distance_over_gradients(reps_rel=0.5)
        >>> params = torch.zeros(2)
        >>> ldog.update(torch.tensor([3.0, 4.0]), ldog.init(params), params)[0]
        tensor([0.3000, 0.4000])
    """
    where = "scale_by_distance_over_gradients"
    check.positive(where, "reps_rel", reps_rel)
    check.positive(where, "eps", eps)
    check.finite(where, "global_scale", global_scale)
    check.dtype(where, "param_dtype", param_dtype)

    def init(params: TensorTree) -> ScaleByDistanceOverGradientsState:
        kept = tree.clone(tree.cast(params, param_dtype))
        return ScaleByDistanceOverGradientsState(
            max_dist=tree.map_plain(lambda p: (reps_rel * (1 + numerics.wide_norm(p))).to(p.dtype), kept),
            grad_sum_of_squares=tree.map_plain(lambda p: tree.scalar(0.0, p), kept),
            init_params=kept,
        )

    def update(updates: TensorTree, state: ScaleByDistanceOverGradientsState, params: TensorTree | None = None, **extra: Any):
        check.params(where, params)

        def further(d: Tensor, p: Tensor, start: Tensor) -> Tensor:
            return torch.maximum(d, numerics.wide_norm(tree.sub(p, start)).to(d.dtype))

        distances = tree.map_plain(further, state.max_dist, params, state.init_params)
        totals = tree.map_plain(lambda total, g: (total + _squared_norm(g)).to(total.dtype), state.grad_sum_of_squares, updates)
        direction = tree.map_plain(
            lambda g, d, total: (global_scale * (d / (total + eps).sqrt()) * g).to(g.dtype), updates, distances, totals
        )
        return direction, ScaleByDistanceOverGradientsState(max_dist=distances, grad_sum_of_squares=totals, init_params=state.init_params)

    return GradientTransformation(init, update, name=where, per_leaf=True, turns=False, own_rate=True)
