"""cast_params: params in bfloat16 without a second copy of them in float32.

    u  = tx.update(float32(g), s, float32(p))
    q  = round(float32(p) + u)             to bfloat16, up or down by chance: E q = p + u
    u' = q - p                             in float32, so that p + u' is q

A step of less than half a unit in the last place of p (a share of 2^-9 of it) would be lost at every rounding to the nearest,
which is why master weights are kept. By chance it is taken in its share of the steps, and on the average the params walk with those of
float32.

Source: Zamirai et al., "Revisiting BFloat16 Training", 2020; `bf16_stochastic_round` of torchao's optimizers does the same.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, TensorTree, check, random, read_signals, tree
from funcopt.core.compression.rounding import chances, stochastically_rounded
from funcopt.core.wrap import field, wrapped

__all__ = ["CastParamsState", "cast_params"]


class CastParamsState(NamedTuple):
    inner_state: Any  # of params in float32
    key: Tensor  # of the next roundings; int64 [2]

    def signals(self) -> dict[str, Tensor]:
        return read_signals(self.inner_state)


def _wide(values: TensorTree) -> TensorTree:
    return tree.map_plain(lambda x: x.float() if x.dtype == torch.bfloat16 else x, values)


def cast_params(tx: GradientTransformation, *, key: int | Tensor | None = None) -> GradientTransformation[CastParamsState]:
    """Trains params in bfloat16 as if they were float32: every step is worked out in float32, and rounded by chance.

    Put it outermost, where the step is whole. Only bfloat16 leaves are rounded so; others take the step of `tx` as it is (float16 ones
    are widened before they arrive, and rounded to the nearest). In the torch optimizers such parameters arrive as they are, and the state
    is that of `tx` on float32; `compress_state` inside makes it small. There the rate comes from the loop, `cast_params(adamw(None))`, and
    is one for all groups: a rounded step cannot be multiplied.

    Args:
        tx: a ready-made optimizer: its updates are what is added to the params.
        key: where the chances come from: an int, a 0-dim integer tensor or a key; None draws one from torch's generator, now.

    Returns:
        A transformation whose updates of bfloat16 leaves are float32 differences between bfloat16 numbers: `apply_updates` lands on these.

    After a NaN:
        What it is given decides; docs/when-numbers-go-bad.md has each.

    Signals:
        forwards those of `tx`.

    Raises:
        ValueError: at `update`, no params are given.

    Example:
        >>> tx = fo.cast_params(fo.sgd(2.0**-10), key=1)  # an eighth of the distance to the next bfloat16
        >>> params = torch.ones(1000, dtype=torch.bfloat16)
        >>> updates, _ = tx.update(-torch.ones_like(params), tx.init(params), params)
        >>> moved = fo.apply_updates(params, updates)
        >>> sorted(set(moved.tolist())), 100 < (moved > 1).sum() < 150
        ([1.0, 1.0078125], tensor(True))
    """
    where = "cast_params"
    root = random.as_key(key, where)

    def init(params: TensorTree) -> CastParamsState:
        return CastParamsState(inner_state=tx.init(_wide(params)), key=root.clone())

    def update(updates: TensorTree, state: CastParamsState, params: TensorTree | None = None, *, signals: Any = None, **extra: Any):
        check.params(where, params)
        wide = _wide(params)
        found, inner = tx.update(_wide(updates), state.inner_state, wide, signals=signals, **extra)
        key, used = random.split(state.key, 2).unbind()
        narrow = [p.dtype == torch.bfloat16 for p in tree.leaves(params)]
        p = [x for x, rounded in zip(tree.leaves(wide), narrow, strict=True) if rounded]
        u = tree.leaves(found)
        moved = iter(zip(p, chances(used, p), strict=True))

        def step(u: Tensor) -> Tensor:
            p, r = next(moved)
            return stochastically_rounded(p + u, r).float() - p

        u = [step(x) if rounded else x for x, rounded in zip(u, narrow, strict=True)]
        return tree.unflatten(found, u), CastParamsState(inner_state=inner, key=key)

    # Chances are drawn for all leaves, in their order.
    return wrapped(init, update, tx, field("inner_state"), name=f"{where} {tx.name}", per_leaf=False, rounds=True)
