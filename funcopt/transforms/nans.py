"""zero_nans: NaN becomes 0, and the state tells where.

    u = 0 where g is NaN, else g          (infinities pass)

Reference: optax.zero_nans (0.2.8). To skip the whole step instead: `apply_if_finite`.
"""

from typing import Any, NamedTuple

import torch

from funcopt.core import GradientTransformation, TensorTree, tree

__all__ = ["ZeroNansState", "zero_nans"]


class ZeroNansState(NamedTuple):
    found_nan: TensorTree  # one 0-dim bool for each leaf: whether the last update held a NaN


def zero_nans() -> GradientTransformation[ZeroNansState]:
    """Replaces NaN by 0.

    Returns:
        A transformation that keeps shapes and dtypes. Holds a bool for every leaf.

    After a NaN:
        This step is finite, the next is clean.

    Example:
        >>> tx = fo.zero_nans()
        >>> tx.update({"w": torch.tensor([torch.nan, 1.0])}, tx.init({"w": torch.zeros(2)}))
        ({'w': tensor([0., 1.])}, ZeroNansState(found_nan={'w': tensor(True)}))
    """

    def init(params: TensorTree) -> ZeroNansState:
        return ZeroNansState(found_nan=tree.map_plain(lambda p: torch.zeros((), dtype=torch.bool, device=p.device), params))

    def update(updates: TensorTree, state: ZeroNansState, params: TensorTree | None = None, **extra: Any):
        found = tree.map_plain(lambda g: g.isnan().any(), updates)
        return tree.map(lambda g: torch.where(g.isnan(), torch.zeros_like(g), g), updates), ZeroNansState(found_nan=found)

    return GradientTransformation(init, update, name="zero_nans", leaves="complex", per_leaf=True, turns=False)
