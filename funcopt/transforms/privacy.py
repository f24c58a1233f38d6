"""Per-example clipping, and the noisy mean of DP-SGD.

    global:   w_i = min(C / ||g_i||, 1),                      s = sum_i w_i g_i         (||g_i|| over all leaves)
    layer:    the same leaf by leaf, with C sqrt(1 / L), or C sqrt(size / total size) where not uniform
    private:  u = (s + C noise_multiplier z) / batch,   z standard normal

What comes in has a leading batch axis (torch.func.vmap of torch.func.grad gives that),
what goes out has none.

Source: Abadi et al., "Deep Learning with Differential Privacy", 2016. Reference: optax
and optax.contrib, same names (0.2.8), whose generator is another.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, TensorTree, check, moments, random, tree
from funcopt.core.math.lengths import length
from funcopt.core.unfit import dense

__all__ = [
    "DifferentiallyPrivateAggregateState",
    "differentially_private_aggregate",
    "per_example_global_norm_clip",
    "per_example_layer_norm_clip",
]


def _batch(where: str, grads: TensorTree) -> int:
    sizes: dict[int, str] = {}
    dense(where, "grads", tree.leaves(grads), lambda: tree.paths(grads))
    for path, g in zip(tree.paths(grads), tree.leaves(grads), strict=True):
        if g.dim() == 0:
            raise ValueError(f"{where}: every leaf must have a leading batch axis, got a 0-dim one at '{path}'")
        sizes.setdefault(g.shape[0], path)
    if len(sizes) > 1:
        listing = ", ".join(f"{size} at '{path}'" for size, path in sizes.items())
        raise ValueError(f"{where}: all leaves must have a leading batch axis of one length, got {listing}")
    return next(iter(sizes), 1)


def _lengths(g: Tensor) -> Tensor:
    """Of the gradient of every example."""
    return length(g, tuple(range(1, g.dim())))


def _weights(lengths: Tensor, clip: Scalar) -> Tensor:
    return (clip / lengths).nan_to_num(nan=1.0, posinf=torch.inf).clamp(max=1)


def _weighted(g: Tensor, weights: Tensor) -> Tensor:
    return (weights.to(g.dtype).reshape(-1, *(1,) * (g.dim() - 1)) * g).sum(0)


def per_example_global_norm_clip(grads: TensorTree, l2_norm_clip: Scalar) -> tuple[TensorTree, Tensor]:
    """Shortens the gradient of every example to at most `l2_norm_clip` and adds them up.

    Args:
        grads: a tree of leaves [batch, ...].
        l2_norm_clip: > 0.

    Returns:
        The sum, without the batch axis, and how many were shortened, 0-dim int64.

    Raises:
        ValueError: the leading axes differ.

    Example:
        >>> fo.per_example_global_norm_clip(torch.tensor([[3.0, 4.0], [0.0, 0.5]]), 1.0)
        (tensor([0.6000, 1.3000]), tensor(1))
    """
    check.positive("per_example_global_norm_clip", "l2_norm_clip", l2_norm_clip)
    _batch("per_example_global_norm_clip", grads)
    lengths = [_lengths(g) for g in tree.leaves(grads)]
    if not lengths:
        return grads, torch.zeros((), dtype=torch.int64)
    weights = _weights(length(torch.stack(lengths), 0), l2_norm_clip)
    return tree.map_plain(lambda g: _weighted(g, weights), grads), (weights < 1).sum()


def per_example_layer_norm_clip(grads: TensorTree, global_l2_norm_clip: Scalar, uniform: bool = True) -> tuple[TensorTree, TensorTree]:
    """Shortens the gradient of every example leaf by leaf, so that the whole is at most `global_l2_norm_clip`, and adds them up.

    Args:
        grads: a tree of leaves [batch, ...].
        global_l2_norm_clip: > 0.
        uniform: every leaf has the same share; else as many shares as it has entries.

    Returns:
        The sum, without the batch axis, and for each leaf how many were shortened.

    Raises:
        ValueError: the leading axes differ.

    Example:
        >>> fo.per_example_layer_norm_clip({"w": torch.tensor([[3.0], [0.5]])}, 1.0)
        ({'w': tensor([1.5000])}, {'w': tensor(1)})
    """
    check.positive("per_example_layer_norm_clip", "global_l2_norm_clip", global_l2_norm_clip)
    batch = _batch("per_example_layer_norm_clip", grads)
    count = max(1, len(tree.leaves(grads)))
    total = max(1, tree.size(grads) // max(1, batch))

    def weights(g: Tensor) -> Tensor:
        share = 1 / count if uniform else g[0].numel() / total if g.shape[0] else 0.0
        return _weights(_lengths(g), global_l2_norm_clip * math.sqrt(share))

    found = tree.map_plain(weights, grads)
    return tree.map_plain(_weighted, grads, found), tree.map_plain(lambda w: (w < 1).sum(), found)


class DifferentiallyPrivateAggregateState(NamedTuple):
    count: Tensor  # steps taken; on the device of `key`
    key: Tensor  # where the noise comes from; int64 [2]


def differentially_private_aggregate(
    l2_norm_clip: Scalar, noise_multiplier: Scalar, key: int | Tensor | None = None
) -> GradientTransformation[DifferentiallyPrivateAggregateState]:
    """From the gradients of single examples, the noisy mean of DP-SGD.

    Args:
        l2_norm_clip: longest gradient of an example, > 0.
        noise_multiplier: standard deviation of the noise on the sum, in units of
            `l2_norm_clip`, >= 0.
        key: an int, a 0-dim integer tensor or a key; None draws one now.

    Returns:
        A transformation from leaves [batch, ...] to leaves [...]; put it first.

    Raises:
        ValueError: a number is out of range; at `update`, the leading axes differ or are empty.

    Example:
        >>> tx = fo.differentially_private_aggregate(1.0, 0.0, key=0)
        >>> tx.update(torch.tensor([[3.0, 4.0], [0.0, 0.5]]), tx.init(torch.zeros(2)))[0]
        tensor([0.3000, 0.6500])
    """
    where = "differentially_private_aggregate"
    check.positive(where, "l2_norm_clip", l2_norm_clip)
    check.nonnegative(where, "noise_multiplier", noise_multiplier)
    root = random.as_key(key, where)

    def init(params: TensorTree) -> DifferentiallyPrivateAggregateState:
        return DifferentiallyPrivateAggregateState(count=torch.zeros((), dtype=torch.int64, device=root.device), key=root.clone())

    def update(updates: TensorTree, state: DifferentiallyPrivateAggregateState, params: TensorTree | None = None, **extra: Any):
        batch = _batch(where, updates)
        if batch == 0:
            raise ValueError(f"{where}: the batch must have an example, got none; make no step where sampling drew nobody")
        total, _ = per_example_global_norm_clip(updates, l2_norm_clip)
        here = random.fold_in(state.key, state.count)
        std = l2_norm_clip * noise_multiplier

        def noisy(s: Tensor, i: int) -> Tensor:
            if isinstance(std, (int, float)) and std == 0:
                return s / batch
            return (s + std * random.normal(random.fold_in(here, i), s.shape, dtype=s.dtype, device=s.device)) / batch

        result = tree.unflatten(total, [noisy(s, i) for i, s in enumerate(tree.leaves(total))])
        return result, DifferentiallyPrivateAggregateState(count=moments.increment(state.count), key=state.key)

    return GradientTransformation(init, update, name=where, alike=False, turns=False)
