"""project: every step ends in a set.

    u = P(p + u) - p

Reference: the loop that optax's documentation writes by hand around optax.projections.
"""

from collections.abc import Callable
from typing import Any

from funcopt.core import EmptyState, GradientTransformation, TensorTree, check, tree

__all__ = ["project"]


def project(projection: Callable[[TensorTree], TensorTree]) -> GradientTransformation[EmptyState]:
    """Bends the step so that it ends at the point of a set that is nearest to where it would have ended. Put it last, after `lr_scale`.

    Args:
        projection: from a tree like params to the nearest tree in the set, for instance
            `fo.projections.projection_simplex`; of some leaves only with `masked`.

    Returns:
        A transformation of steps, in the shapes and dtypes it is given, and no state.

    After a NaN:
        What it is given decides; docs/when-numbers-go-bad.md has each.

    Raises:
        ValueError: at `update`, no params are given.
        TypeError: `projection` is not callable.

    Example:
        >>> tx = fo.chain(fo.sgd(1.0), fo.project(fo.projections.projection_l2_ball))
        >>> params = torch.tensor([0.0, 0.0])
        >>> tx.update(torch.tensor([-3.0, -4.0]), tx.init(params), params)[0]
        tensor([0.6000, 0.8000])
    """
    if not callable(projection):
        raise TypeError(f"project: projection must be a function of a tree, got {projection!r}")

    def update(updates: TensorTree, state: EmptyState, params: TensorTree | None = None, **extra: Any):
        check.params("project", params)
        ends = projection(tree.map(lambda p, u: (p + u).to(u.dtype), params, updates))
        return tree.map(lambda end, p, u: (end - p).to(u.dtype), ends, params, updates), state

    return GradientTransformation(lambda params: EmptyState(), update, name="project", turns=False)
