"""mechanize: Mechanic, which learns by how much the steps of any optimizer have to be stretched, as a bet on what comes.

    D = (x_0 - x) / (S + eps)                                        S = s_1 + ... + s_n
    g' = g + weight_decay S |g| / (|x| + eps) x
    h = <g', D>;   h_i = h clipped to +- m_i
    m_i = max(beta_i m_i, |h| + eps)                                 beta_i = 1 - 10^-i,  i = 1 ... n
    v_i = beta_i^2 v_i + h^2
    r_i = beta_i r_i + h_i s_i
    s_i = ((s_init / n) m_i + max(0, r_i)) / (sqrt(v_i) + eps)
    x'  = x_0 - S' (D - u),   u the update of the base optimizer     so the step is x' - x

Source: Cutkosky, Defazio and Mehta, "Mechanic: a learning rate tuner", 2023. Reference: optax.contrib.mechanize (0.2.8).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, TensorTree, check, moments, read_signals, tree
from funcopt.core.math import entrywise
from funcopt.core.wrap import field, wrapped

__all__ = ["MechanicState", "mechanize"]


class MechanicState(NamedTuple):
    base_optimizer_state: Any  # of what it wraps
    count: Tensor  # steps taken
    r: Tensor  # what the bets have won; [num_betas], as are m, v and s
    m: Tensor  # the largest |h| of late
    v: Tensor  # its squares
    s: Tensor  # scales, whose sum stretches the step
    x0: TensorTree  # where the run began; like params

    def signals(self) -> dict[str, Tensor]:
        return {**read_signals(self.base_optimizer_state), "mechanic_scale": self.s.sum(-1)}


def mechanize(
    base_optimizer: GradientTransformation, weight_decay: Scalar = 1e-2, eps: Scalar = 1e-8, s_init: Scalar = 1e-6, num_betas: int = 6
) -> GradientTransformation:
    """Learns the scale of an optimizer's steps; give that a rate of 1, or the shape of a schedule.

    Args:
        base_optimizer: any first-order one whose steps are not normalised by layers.
        weight_decay: of the learner, in units of the gradient, >= 0; not that of the base.
        eps: added where it divides, > 0.
        s_init: scale with which it begins, > 0.
        num_betas: over how many memories, of 10, 100, ... steps, it bets, >= 1.

    Returns:
        A transformation whose steps are those of the base, stretched. Holds one tree like `params` beside what the base holds.

    After a NaN:
        This and every later step is NaN; guard with `apply_if_finite`. After 1e30 that entry stays at 0; clip.

    Signals:
        those of the base, and `mechanic_scale`, by which its steps are stretched.

    Raises:
        TypeError, ValueError: an argument is out of its range; at `update`, no params.

    Example:
        >>> tx = fo.mechanize(fo.sgd(1.0), s_init=0.5, num_betas=1)
        >>> params = torch.tensor([2.0])
        >>> tx.update(torch.tensor([2.0]), tx.init(params), params)[0]  # at first h = 0, m = eps and s = s_init eps / eps
        tensor([-1.])
    """
    where = "mechanize"
    check.nonnegative(where, "weight_decay", weight_decay)
    check.positive(where, "eps", eps)
    check.positive(where, "s_init", s_init)
    check.integer(where, "num_betas", num_betas, 1)

    def init(params: TensorTree) -> MechanicState:
        like = tree.scalar(0.0, params)

        def each(value: Scalar) -> Tensor:
            return torch.zeros_like(like).expand(num_betas).clone() + value

        base = base_optimizer.init(params)
        return MechanicState(base, moments.zero_count(params), each(0.0), each(0.0), each(0.0), each(s_init), tree.clone(params))

    def update(updates: TensorTree, state: MechanicState, params: TensorTree | None = None, **extra: Any):
        check.params(where, params)
        steps, base = base_optimizer.update(updates, state.base_optimizer_state, params, **extra)
        dtype = state.s.dtype
        first = state.count == 0  # params may have been replaced since `init`
        x0 = tree.map(lambda p, x0: torch.where(first, p, x0), params, state.x0)
        S = state.s.sum(-1)
        pull = weight_decay * S * tree.norm(updates, dtype=dtype) / (tree.norm(params, dtype=dtype) + eps)
        (pull, span) = entrywise.once(params, pull, S + eps)
        decayed = tree.map(lambda g, p: g + pull * p, updates, params)
        D = tree.map(lambda p, x0: (x0 - p) / span, params, x0)

        h = tree.vdot(decayed, D, dtype)
        betas = torch.tensor([1 - 0.1**i for i in range(1, num_betas + 1)], dtype=dtype, device="cpu").to(h.device, non_blocking=True)
        won = torch.maximum(torch.minimum(h, state.m), -state.m)
        m = torch.maximum(betas * state.m, h.abs() + eps)
        v = betas**2 * state.v + h**2
        r = betas * state.r + won * state.s
        s = ((s_init / num_betas) * m + r.clamp(min=0)) / (moments.safe_sqrt(v) + eps)

        (scale,) = entrywise.once(params, s.sum(-1))
        moves = tree.map(lambda p, x0, D, u: x0 - scale * (D - u) - p, params, x0, D, steps)
        return tree.cast_like(moves, updates), MechanicState(base, moments.increment(state.count), r, m, v, s, x0)

    return wrapped(
        init,
        update,
        base_optimizer,
        field("base_optimizer_state"),
        name=f"{where} {base_optimizer.name}",
        alike=True,
        per_leaf=False,
        own_rate=True,
    )
