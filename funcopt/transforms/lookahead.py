"""lookahead: slow weights that follow the fast ones halfway, every few steps.

    u_t = fast(g_t)
    in every sync_period-th step, with d = fast + u_t - slow:     slow, fast = slow + slow_step_size * d

Params are either a pair `LookaheadParams(fast, slow)`, as in optax, and then so are the
updates; or any tree: then that is the fast tree and the slow one lives in the state.

Source: Zhang et al., "Lookahead Optimizer: k steps forward, 1 step back", 2019.
Reference: optax.lookahead (0.2.8), which knows pairs alone, and whose reset of the fast
state lets NaN leak through (0 * NaN).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import EmptyState, GradientTransformation, Scalar, TensorTree, check, moments, read_signals, tree
from funcopt.core.wrap import field, wrapped
from funcopt.transforms.guard import choose_state

__all__ = ["LookaheadParams", "LookaheadState", "lookahead"]


class LookaheadParams(NamedTuple):
    """Fast weights, on which gradients are taken, and slow ones, which are the result."""

    fast: TensorTree  # tree of tensors
    slow: TensorTree  # like the fast

    @classmethod
    def init_synced(cls, params: TensorTree) -> "LookaheadParams":
        """Both trees equal to `params`."""
        return cls(fast=params, slow=tree.clone(params))


class LookaheadState(NamedTuple):
    fast_state: Any  # of the fast optimizer
    steps_since_sync: Tensor  # 0-dim int64
    slow: TensorTree  # the slow weights; nothing where they are among the params

    def signals(self) -> dict[str, Tensor]:
        return read_signals(self.fast_state)


def lookahead(
    fast_optimizer: GradientTransformation, sync_period: int, slow_step_size: Scalar, reset_state: bool = False
) -> GradientTransformation:
    """Steps with `fast_optimizer` and pulls the params back to a slow average of them.

    Args:
        fast_optimizer: a ready-made optimizer.
        sync_period: steps from one pull to the next, >= 1.
        slow_step_size: how far the slow weights move towards the fast ones, in [0, 1].
        reset_state: begin the state of the fast optimizer anew at each pull.

    Returns:
        A transformation of gradients of the fast tree. Holds one more tree like params
        unless they are a pair; `find(state, "slow")` gives it, for evaluation.

    After a NaN:
        What it is given decides; docs/when-numbers-go-bad.md has each.

    Signals:
        forwards those of `fast_optimizer`.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Example:
        >>> tx = fo.lookahead(fo.sgd(1.0), sync_period=1, slow_step_size=0.5)
        >>> params = torch.tensor([10.0])
        >>> updates, state = tx.update(torch.tensor([4.0]), tx.init(params), params)
        >>> updates, state.slow
        (tensor([-2.]), tensor([8.]))
    """
    check.integer("lookahead", "sync_period", sync_period, 1)
    check.within("lookahead", "slow_step_size", slow_step_size, 0, 1)

    def init(params: TensorTree) -> LookaheadState:
        paired = isinstance(params, LookaheadParams)
        return LookaheadState(
            fast_state=fast_optimizer.init(params.fast if paired else params),
            steps_since_sync=torch.zeros((), dtype=torch.int64, device=tree.device(params)),
            slow=EmptyState() if paired else tree.clone(params),
        )

    def update(updates: TensorTree, state: LookaheadState, params: TensorTree | None = None, *, signals: Any = None, **extra: Any):
        check.params("lookahead", params)
        paired = isinstance(params, LookaheadParams)
        fast, slow = params if paired else (params, state.slow)
        updates, fast_state = fast_optimizer.update(updates, state.fast_state, fast, signals=signals, **extra)
        steps = moments.increment(state.steps_since_sync)
        syncs = steps == sync_period
        ahead = tree.map(lambda p, u, s: p + u - s, fast, updates, slow)
        slow_updates = tree.map(lambda d: torch.where(syncs, slow_step_size * d, torch.zeros_like(d)).to(d.dtype), ahead)
        fast_updates = tree.map(lambda u, d: torch.where(syncs, u - (1 - slow_step_size) * d, u).to(u.dtype), updates, ahead)
        if reset_state:
            fast_state = choose_state(syncs, fast_optimizer.init(fast), fast_state)
        steps = torch.where(syncs, 0, steps)
        if paired:
            return LookaheadParams(fast_updates, slow_updates), LookaheadState(fast_state, steps, state.slow)
        return fast_updates, LookaheadState(fast_state, steps, tree.map(lambda s, d: (s + d).to(s.dtype), slow, slow_updates))

    changed: dict[str, Any] = {"leaves": fast_optimizer.leaves, "alike": False}
    return wrapped(init, update, fast_optimizer, field("fast_state"), name=f"lookahead {fast_optimizer.name}", **changed)
