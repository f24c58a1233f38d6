"""centralize: what reaches one output sums to zero.

    u_i = g_i - mean(g_i)        for every index i of the first axis, if there is a second

Source: Yong et al., "Gradient Centralization", 2020. Reference: optax.centralize (0.2.8).
"""

from typing import Any

from torch import Tensor

from funcopt.core import EmptyState, GradientTransformation, TensorTree, tree

__all__ = ["centralize"]


def centralize() -> GradientTransformation[EmptyState]:
    """Subtracts the mean over all axes but the first from leaves that have more than one axis.

    Returns:
        A transform under which the weights of one output keep their sum. torch keeps
        outputs first, so this is right for Linear and for convolutions as it stands.

    After a NaN:
        Its leaf of this step is NaN, the next is clean.

    Example:
        >>> tx = fo.centralize()
        >>> tx.update(torch.tensor([[1.0, 3.0], [5.0, 5.0]]), fo.EmptyState())[0]
        tensor([[-1.,  1.],
                [ 0.,  0.]])
    """

    def centred(g: Tensor) -> Tensor:
        return g - g.mean(tuple(range(1, g.ndim)), keepdim=True) if g.ndim > 1 else g

    def update(updates: TensorTree, state: EmptyState, params: TensorTree | None = None, **extra: Any):
        return tree.map(centred, updates), state

    return GradientTransformation(lambda params: EmptyState(), update, name="centralize", leaves="complex", per_leaf=True, turns=False)
