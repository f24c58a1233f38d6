"""The nearest point of a set: `fo.projections`. Every function takes a tree, seen as one vector x, and gives a tree.

    box, ball in linf      clamp, entry by entry
    simplex                max(x - tau, 0), where tau makes the entries sum to scale
    l1 sphere              sign(x) * simplex(|x|)
    l2 sphere              scale * x / ||x||
    balls                  x where it is inside, else the sphere
    line, plane            a <x, a> / <a, a>,    x - a (<a, x> - b) / <a, a>
    half space             x - a max(<a, x> - b, 0) / <a, a>

All are pure, vmap, trace and can be differentiated. To keep params in a set during
training: the link `fo.project`.

Source: for the simplex, Held, Wolfe and Crowder 1974, and Duchi et al. 2008.
Reference: optax.projections (0.2.8), whose hypercube takes a bare array only.
"""

import torch
from torch import Tensor

from funcopt.core import check, sharded, tree
from funcopt.core.math import numerics
from funcopt.core.protocol import Scalar, TensorTree

__all__ = [
    "projection_box",
    "projection_halfspace",
    "projection_hypercube",
    "projection_hyperplane",
    "projection_l1_ball",
    "projection_l1_sphere",
    "projection_l2_ball",
    "projection_l2_sphere",
    "projection_linf_ball",
    "projection_non_negative",
    "projection_simplex",
    "projection_vector",
]


def projection_non_negative(x: TensorTree) -> TensorTree:
    """Negative entries become 0.

    Args:
        x: tree of tensors.

    Returns:
        The nearest tree without negative entries, like `x`.

    Example:
        >>> fo.projections.projection_non_negative(torch.tensor([-1.0, 2.0]))
        tensor([0., 2.])
    """
    return tree.map(lambda v: v.clamp(min=0), x)


def projection_box(x: TensorTree, lower: Scalar | TensorTree, upper: Scalar | TensorTree) -> TensorTree:
    """Every entry between `lower` and `upper`: numbers, or trees like `x`.

    Args:
        x: tree of tensors.
        lower: lowest value of every entry, a number, or a tree like `x`.
        upper: highest value of every entry, likewise.

    Returns:
        The nearest tree in the box, like `x`.

    Example:
        >>> fo.projections.projection_box(torch.tensor([-3.0, 0.5, 3.0]), -1.0, 2.0)
        tensor([-1.0000,  0.5000,  2.0000])
    """

    def like(bound: Scalar | TensorTree) -> TensorTree:
        if isinstance(bound, (int, float)) or (isinstance(bound, Tensor) and bound.dim() == 0):
            return tree.map_plain(lambda v: torch.as_tensor(bound, dtype=v.dtype, device=v.device), x)
        return bound

    return tree.map(lambda v, low, high: torch.minimum(torch.maximum(v, low.to(v.dtype)), high.to(v.dtype)), x, like(lower), like(upper))


def projection_hypercube(x: TensorTree, scale: Scalar = 1.0) -> TensorTree:
    """Every entry between 0 and `scale`.

    Args:
        x: tree of tensors.
        scale: edge of the cube, > 0.

    Returns:
        The nearest tree in the cube, like `x`.

    Raises:
        ValueError: `scale` is not positive.

    Example:
        >>> fo.projections.projection_hypercube(torch.tensor([-3.0, 0.5, 3.0]))
        tensor([0.0000, 0.5000, 1.0000])
    """
    check.positive("projection_hypercube", "scale", scale)
    return projection_box(x, 0.0, scale)


def projection_linf_ball(x: TensorTree, scale: Scalar = 1.0) -> TensorTree:
    """Every entry between `-scale` and `scale`.

    Args:
        x: tree of tensors.
        scale: largest magnitude, > 0.

    Returns:
        The nearest tree in the ball, like `x`.

    Raises:
        ValueError: `scale` is not positive.

    Example:
        >>> fo.projections.projection_linf_ball(torch.tensor([-3.0, 0.5]))
        tensor([-1.0000,  0.5000])
    """
    check.positive("projection_linf_ball", "scale", scale)
    return projection_box(x, -scale, scale)


def projection_simplex(x: TensorTree, scale: Scalar = 1.0) -> TensorTree:
    """No entry negative, all entries together `scale`.

    Args:
        x: tree of tensors.
        scale: sum of all entries, > 0.

    Returns:
        The nearest tree in the simplex, like `x`.

    Raises:
        ValueError: `scale` is not positive.

    Example:
        >>> fo.projections.projection_simplex(torch.tensor([2.0, 1.5, -1.0]))
        tensor([0.7500, 0.2500, 0.0000])
    """
    check.positive("projection_simplex", "scale", scale)
    if not tree.size(x):
        return x
    excess = _excess(_vector(x), scale)
    return tree.map(lambda v: (v - excess.to(v.dtype)).clamp(min=0), x)


def _vector(x: TensorTree) -> Tensor:
    dtype = tree.scalar_dtype(tree.device(x))  # ranks and sums of many entries: half precision counts to 256, float32 to 16 millions
    return torch.cat([sharded.whole(v).reshape(-1).to(dtype) for v in tree.leaves(x)])


def _excess(vector: Tensor, scale: Scalar) -> Tensor:
    """tau such that max(x - tau, 0) sums to `scale`: the mean excess of the k largest entries, for the largest k that they all exceed."""
    ordered = vector.sort(descending=True).values
    ranks = torch.arange(1, vector.numel() + 1, dtype=vector.dtype, device=vector.device)
    candidates = (ordered.cumsum(0) - scale) / ranks
    last = (ordered > candidates).sum().clamp(min=1)  # they form a prefix
    return (candidates * (ranks == last)).sum()  # a one-hot sum: an index would be read


def projection_l1_sphere(x: TensorTree, scale: Scalar = 1.0) -> TensorTree:
    """The absolute values of all entries together `scale`.

    Args:
        x: tree of tensors.
        scale: radius, > 0.

    Returns:
        The nearest tree on the sphere, like `x`.

    Raises:
        ValueError: `scale` is not positive.

    Example:
        >>> fo.projections.projection_l1_sphere(torch.tensor([2.0, -1.5, 1.0]))
        tensor([ 0.7500, -0.2500,  0.0000])
    """
    check.positive("projection_l1_sphere", "scale", scale)
    magnitudes = projection_simplex(tree.map(torch.abs, x), scale)
    return tree.map(lambda v, m: torch.where(v < 0, -m, m), x, magnitudes)


def projection_l1_ball(x: TensorTree, scale: Scalar = 1.0) -> TensorTree:
    """The absolute values of all entries together at most `scale`.

    Args:
        x: tree of tensors.
        scale: radius, > 0.

    Returns:
        The nearest tree in the ball, like `x`.

    Raises:
        ValueError: `scale` is not positive.

    Example:
        >>> fo.projections.projection_l1_ball(torch.tensor([0.5, -0.25]))
        tensor([ 0.5000, -0.2500])
    """
    check.positive("projection_l1_ball", "scale", scale)
    return tree.where(tree.norm(x, 1) <= scale, x, projection_l1_sphere(x, scale))


def projection_l2_sphere(x: TensorTree, scale: Scalar = 1.0) -> TensorTree:
    """Length `scale`. Zero, which has no nearest point, stays zero.

    Args:
        x: tree of tensors.
        scale: radius, > 0.

    Returns:
        The nearest tree on the sphere, like `x`.

    Raises:
        ValueError: `scale` is not positive.

    Example:
        >>> fo.projections.projection_l2_sphere(torch.tensor([3.0, 4.0]))
        tensor([0.6000, 0.8000])
    """
    check.positive("projection_l2_sphere", "scale", scale)
    length = numerics.wide_norm(x)
    return numerics.divide(x, torch.where(length == 0, 1, length), scale)


def projection_l2_ball(x: TensorTree, scale: Scalar = 1.0) -> TensorTree:
    """Length at most `scale`.

    Args:
        x: tree of tensors.
        scale: radius, > 0.

    Returns:
        The nearest tree in the ball, like `x`.

    Raises:
        ValueError: `scale` is not positive.

    Example:
        >>> fo.projections.projection_l2_ball(torch.tensor([3.0, 4.0]), 10.0)
        tensor([3., 4.])
    """
    check.positive("projection_l2_ball", "scale", scale)
    return tree.where(numerics.wide_norm(x) <= scale, x, projection_l2_sphere(x, scale))


def projection_vector(x: TensorTree, a: TensorTree) -> TensorTree:
    """On the line through 0 and `a`.

    Args:
        x: tree of tensors.
        a: a tree like `x` that is not zero.

    Returns:
        The nearest tree on the line, like `x`.

    Example:
        >>> fo.projections.projection_vector(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 0.0]))
        tensor([1., 0.])
    """
    return tree.scale(tree.vdot(x, a) / tree.squared_norm(a), a)


def projection_hyperplane(x: TensorTree, a: TensorTree, b: Scalar) -> TensorTree:
    """Where `<a, x> = b`.

    Args:
        x: tree of tensors.
        a: normal vector, a tree like `x` that is not zero.
        b: a number or a 0-dim tensor.

    Returns:
        The nearest tree in the plane, like `x`.

    Example:
        >>> fo.projections.projection_hyperplane(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 0.0]), 4.0)
        tensor([2., 2.])
    """
    return tree.add_scale(x, (b - tree.vdot(a, x)) / tree.squared_norm(a), a)


def projection_halfspace(x: TensorTree, a: TensorTree, b: Scalar) -> TensorTree:
    """Where `<a, x> <= b`.

    Args:
        x: tree of tensors.
        a: normal vector, a tree like `x` that is not zero.
        b: a number or a 0-dim tensor.

    Returns:
        The nearest tree in the halfspace, like `x`.

    Example:
        >>> fo.projections.projection_halfspace(torch.tensor([3.0, 2.0]), torch.tensor([2.0, 0.0]), 4.0)
        tensor([2., 2.])
    """
    return tree.add_scale(x, -(tree.vdot(a, x) - b).clamp(min=0) / tree.squared_norm(a), a)
