"""COCOB: training as betting on a coin, without a rate: what a parameter has won says how much it may move.

    L = max(L, |g|)                       the largest gradient so far (begins at eps)
    G = G + |g|                           all of them
    R = max(R - g (p - p_0), 0)           what has been won
    C = C - g                             heads minus tails
    p' = p_0 + C / L * (1 + R / L) / max(1 + G / L, alpha)         so the step is p' - p

The last line is Algorithm 2's C / (L max(G + L, alpha L)) * (L + R) with every L divided out,
so that no square of a gradient overflows. All of it entry by entry.

Source: Orabona and Tommasi, "Training deep networks without learning rates through coin betting", 2017.
Reference: optax.contrib.cocob (0.2.8).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, tree
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.scale import scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["COCOBState", "cocob", "scale_by_cocob"]


class COCOBState(NamedTuple):
    init_particles: TensorTree  # p_0; like params, as are all
    cumulative_gradients: TensorTree  # C
    scale: TensorTree  # L
    subgradients: TensorTree  # G
    reward: TensorTree  # R


def scale_by_cocob(alpha: Scalar = 100.0, eps: Scalar = 1e-8) -> GradientTransformation[COCOBState]:
    """Turns gradients into the steps of a bettor: sized already and downhill, so that no `lr_scale` follows.

    Args:
        alpha: how small the first bets are, > 0: a parameter moves by about 1 / alpha at first.
        eps: the largest gradient before the first, > 0.

    Returns:
        A transform from gradients to updates. They do not depend on the scale of the
        gradients, once these are larger than `eps`. Holds five trees like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Example:
        >>> tx = fo.scale_by_cocob(alpha=100.0)
        >>> params = torch.tensor([2.0])
        >>> tx.update(torch.tensor([5.0]), tx.init(params), params)[0]
        tensor([-0.0100])
    """
    where = "scale_by_cocob"
    check.positive(where, "alpha", alpha)
    check.positive(where, "eps", eps)

    def init(params: TensorTree) -> COCOBState:
        return COCOBState(
            init_particles=tree.clone(params),
            cumulative_gradients=tree.zeros_like(params),
            scale=tree.map(lambda p: (torch.zeros_like(p) + eps).to(p.dtype), params),
            subgradients=tree.zeros_like(params),
            reward=tree.zeros_like(params),
        )

    def update(updates: TensorTree, state: COCOBState, params: TensorTree | None = None, **extra: Any):
        check.params(where, params)
        p0 = state.init_particles
        L = tree.map(lambda g, L: torch.maximum(L, g.abs().to(L.dtype)), updates, state.scale)
        G = tree.map(lambda g, G: (G + g.abs()).to(G.dtype), updates, state.subgradients)
        R = tree.map(lambda g, R, p, p0: (R - g * (p - p0)).clamp(min=0).to(R.dtype), updates, state.reward, params, p0)
        C = tree.map(lambda g, C: (C - g).to(C.dtype), updates, state.cumulative_gradients)

        def step(p: Tensor, p0: Tensor, C: Tensor, L: Tensor, G: Tensor, R: Tensor) -> Tensor:
            bet = 1 + G / L
            bet = torch.maximum(bet, alpha.to(bet.dtype)) if isinstance(alpha, Tensor) else bet.clamp(min=alpha)
            return p0 + C / L * ((1 + R / L) / bet) - p

        moves = tree.map(step, params, p0, C, L, G, R)
        return tree.cast_like(moves, updates), COCOBState(p0, C, L, G, R)

    return GradientTransformation(init, update, name=where, flattenable=True, per_leaf=True, turns=True, own_rate=True)


def cocob(
    lr: ScalarOrSchedule | None = 1.0,
    alpha: Scalar = 100.0,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """COCOB: decay as part of the gradient, a factor of the gradient, then `scale_by_cocob`.

    Args:
        lr: multiplies the gradients, >= 0, or a schedule; None: the `base_lr` it hears. A number
            changes nothing, since steps do not depend on the scale of gradients; a schedule weighs
            some steps more than others.
        alpha, eps: as in `scale_by_cocob`.
        weight_decay: added to the gradient, times the params, >= 0, or a schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A ready-made optimizer. Holds five trees like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`.

    Signals:
        as `lr_scale`.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Example:
        >>> tx = fo.cocob()
        >>> params = torch.tensor([2.0])
        >>> tx.update(torch.tensor([5.0]), tx.init(params), params)[0]
        tensor([-0.0100])
    """
    # A bettor takes gradients and gives steps: what `lr_scale` turned downhill is turned back.
    return chain(add_decayed_weights(weight_decay, weight_decay_mask), lr_scale(lr), scale(-1.0), scale_by_cocob(alpha, eps))
