"""sign: every entry becomes -1, 0 or 1.

    u = sign(g)

NaN stays NaN (torch.sign would make it 0 and so hide it). Reference: optax.scale_by_sign (0.2.8).
"""

from typing import Any

from funcopt.core import EmptyState, GradientTransformation, TensorTree, moments, tree

__all__ = ["sign"]


def sign() -> GradientTransformation[EmptyState]:
    """Replaces every entry by its sign.

    Returns:
        A transformation to -1, 0 and 1 in the dtype it is given, and no state.

    After a NaN:
        That entry of this step is NaN, the next is clean.

    Example:
        >>> tx = fo.sign()
        >>> tx.update(torch.tensor([3.0, -0.1, 0.0]), tx.init(torch.zeros(3)))[0]
        tensor([ 1., -1.,  0.])
    """

    def update(updates: TensorTree, state: EmptyState, params: TensorTree | None = None, **extra: Any):
        return tree.map(moments.sign, updates), state

    return GradientTransformation(
        lambda params: EmptyState(), update, name="sign", flattenable=True, per_leaf=True, turns=False, one_length=True
    )
