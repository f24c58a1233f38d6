"""Nero: every neuron turns by the same angle, on the sphere where its weights have mean zero and length one.

    neuron: what belongs to one index of the first axis; of a vector, each entry; N(x): its length
    v_t = beta * v_{t-1} + (1 - beta) * N(g_t)^2
    p_{t+1} = C(p_t - lr * s * g_t / (sqrt(v_t / (1 - beta^t)) + eps))
    C(x) = y / (N(y) + eps),   y = x less its mean, neuron by neuron of a leaf with more than one axis; vectors are free
    s = mean of N(p_0) over the leaf, 0.01 where that is zero;   p_0 is put on the sphere before the first step

The first step moves params onto the sphere whatever the gradient: what they computed before is not what they compute then. Normalise in
the network, or train with it from the start. Decay is coupled: on the sphere it has nothing to shorten.

Source: Liu et al., "Learning by Turning: Neural Architecture Aware Optimisation", 2021. Reference: pytorch_optimizer's Nero (4.1), which
sets a NaN to zero.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, moments, rates, tree
from funcopt.core.math import entrywise
from funcopt.core.math.lengths import length
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["NeroState", "nero", "scale_by_nero"]

SMALL = 0.01  # the scale of a leaf of zeros


class NeroState(NamedTuple):
    count: Tensor  # steps taken
    v: TensorTree  # running mean of the squared length of each neuron's gradient
    s: TensorTree  # the scale of each leaf; 0-dim
    lr: Tensor  # rate of the step just taken

    def signals(self) -> dict[str, Tensor]:
        return {"lr": self.lr}


def neuron_lengths(x: Tensor) -> Tensor:
    """The length of each neuron, in the dtype of `x`, with axes of length 1 in place of those it extends over."""
    return x.abs() if x.dim() < 2 else length(x, tuple(range(1, x.dim())), keepdim=True).to(x.dtype)


def scale_by_nero(
    lr: ScalarOrSchedule | None, beta: Scalar = 0.999, eps: Scalar = 1e-8, *, constraints: bool = True
) -> GradientTransformation[NeroState]:
    """Turns each neuron against its gradient.

    Args:
        lr: the angle of a step, >= 0; a number, a 0-dim tensor or a schedule; None: the `base_lr` it hears.
        beta: share of the past in the mean of squared lengths, in [0, 1).
        eps: added to what is divided by, > 0.
        constraints: whether neurons are kept on the sphere; else their scale is that of their leaf at the start.

    Returns:
        A transform from gradients to updates, downhill and in units of the params. Holds one number per neuron.

    After a NaN:
        Its leaf of this and every later step is NaN; guard with `apply_if_finite`. After an infinity or 1e30 its leaf stays at 0; clip.

    Signals:
        hears `base_lr` (with `lr=None`) and, if anyone says them, `lr_multiplier` and `rate_multiplier`; says `lr`.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Example:
        >>> nero = fo.scale_by_nero(0.1)
        >>> params = torch.tensor([[3.0, 1.0]])
        >>> step, _ = nero.update(torch.zeros(1, 2), nero.init(params), params)
        >>> params + step  # less the mean, and of length one
        tensor([[ 0.7071, -0.7071]])
    """
    where = "scale_by_nero"
    if lr is not None:
        check.schedule_or(check.nonnegative, where, "lr", lr)
    check.half_open(where, "beta", beta, 0, 1)
    check.positive(where, "eps", eps)

    def on_the_sphere(p: Tensor) -> Tensor:
        if not constraints or p.dim() < 2 or p.numel() == 0:
            return p
        y = p - p.mean(tuple(range(1, p.dim())), keepdim=True)
        return y / (neuron_lengths(y) + eps)

    def scale(p: Tensor) -> Tensor:
        found = neuron_lengths(on_the_sphere(p)).mean() if p.numel() else torch.ones((), dtype=p.dtype, device=p.device)
        return torch.where(found == 0, SMALL, found).to(p.dtype)

    def init(params: TensorTree) -> NeroState:
        v = tree.map_plain(lambda p: torch.zeros_like(neuron_lengths(p), requires_grad=False), params)
        s = tree.map_plain(lambda p: scale(p).detach().clone(), params)
        return NeroState(count=moments.zero_count(params), v=v, s=s, lr=rates.first(where, lr, params))

    def update(updates: TensorTree, state: NeroState, params: TensorTree | None = None, *, signals: Any = None, **extra: Any):
        check.params(where, params)
        rate = rates.now(where, lr, state.count, state.lr, signals)
        count, first = moments.increment(state.count), state.count == 0
        v = moments.update_moment(tree.map_plain(neuron_lengths, updates), state.v, beta, order=2)
        (f,) = moments.bias_factors(count, beta)
        root, size = entrywise.once(updates, f.sqrt(), rate)

        def moved(g: Tensor, p: Tensor, v: Tensor, s: Tensor) -> Tensor:
            turn = size * s * entrywise.over_root(g, v, eps, scale=root)
            if p.dim() < 2:
                return -turn.to(g.dtype)
            begun = torch.where(first, on_the_sphere(p), p)
            return (on_the_sphere(begun - turn) - p).to(g.dtype)

        return tree.map(moved, updates, params, v, state.s), NeroState(count=count, v=v, s=state.s, lr=rate)

    return GradientTransformation(init, update, name=where, hears=rates.heard(lr), per_leaf=True, turns=True)


def nero(
    lr: ScalarOrSchedule | None,
    beta: Scalar = 0.999,
    eps: Scalar = 1e-8,
    *,
    constraints: bool = True,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """Nero: coupled decay, then `scale_by_nero`, whose steps are sized (`lr` None: by the `base_lr` it hears) and downhill.

    Args:
        lr: the angle of a step, >= 0; a number, a 0-dim tensor or a schedule; 0.01 to begin with.
        beta, eps, constraints: as in `scale_by_nero`.
        weight_decay: coupled, >= 0.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A ready-made optimizer, whose state says `lr`. Holds one number per neuron.

    After a NaN:
        Its leaf of this and every later step is NaN; guard with `apply_if_finite`. After an infinity or 1e30 its leaf stays at 0; clip.

    Signals:
        hears `base_lr` (with `lr=None`) and, if anyone says them, `lr_multiplier` and `rate_multiplier`; says `lr`.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Example:
        >>> tx = fo.nero(0.1)
        >>> params = torch.tensor([2.0, -4.0])  # of a vector, each entry moves by the rate times the mean size of entries
        >>> tx.update(torch.tensor([3.0, -0.5]), tx.init(params), params)[0]
        tensor([-0.3000,  0.3000])
    """
    return chain(add_decayed_weights(weight_decay, weight_decay_mask), scale_by_nero(lr, beta, eps, constraints=constraints))
