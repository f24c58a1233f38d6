"""sign: every entry becomes -1, 0 or 1.

    u = sign(g)

NaN stays NaN (torch.sign would make it 0 and so hide it). Reference: optax.scale_by_sign (0.2.8).
"""

from funcopt.core import EmptyState, GradientTransformation, TensorTree, moments, tree

__all__ = ["sign"]


def sign() -> GradientTransformation:
    """Replaces every entry by its sign.

    Example:
        >>> tx = fo.sign()
        >>> tx.update(torch.tensor([3.0, -0.1, 0.0]), tx.init(torch.zeros(3)))[0]
        tensor([ 1., -1.,  0.])
    """

    def update(updates: TensorTree, state: EmptyState, params=None, **extra):
        return tree.map(moments.sign, updates), state

    return GradientTransformation(lambda params: EmptyState(), update, name="sign", leafwise=True)
