"""Arithmetic that meets every entry, in the forms that cost least: numbers worked out once, sums and roots in one operation.

Eager code is spared an operation, a compiler the work of a loose number for every few entries; what comes out is the same.
"""

from typing import TypeVar

import torch
from torch import Tensor

from funcopt.core import tree
from funcopt.core.math.lengths import safe_sqrt
from funcopt.core.protocol import Scalar, TensorTree
from funcopt.core.versions import compiling, differentiating

__all__ = ["add_scaled", "at_least", "once", "over_root", "square", "stacked", "scalar_of"]

Value = TypeVar("Value", bound=float | Tensor)


def at_least(g: Tensor, m: Tensor) -> Tensor:
    """`g` in the wider dtype of `g` and of what is kept of it, before anything is worked out: the square of a float16 1e-4 is zero.

    Args:
        g: a tensor.
        m: a tensor, of which only the dtype counts.

    Returns:
        `g`, in another dtype if that of `m` is wider.

    Example:
        >>> from funcopt.core.math.entrywise import at_least
        >>> at_least(torch.tensor(1e-4, dtype=torch.float16), torch.zeros(())).square() > 0
        tensor(True)
    """
    return g if g.dtype == m.dtype else g.to(torch.promote_types(g.dtype, m.dtype))


def square(g: Tensor, m: Tensor) -> Tensor:
    """The squared magnitudes of `g`, in the wider dtype of `g` and of what is kept of them.

    Args:
        g: a tensor, real or complex.
        m: what is kept of the squares; only its dtype counts.

    Returns:
        A real tensor of the shape of `g`.

    Example:
        >>> from funcopt.core.math.entrywise import square
        >>> square(torch.tensor(3 + 4j), torch.zeros(()))
        tensor(25.)
    """
    g = at_least(g, m)
    return (g.abs() if g.is_complex() else g).square()


def once(leaves: TensorTree, *values: Value) -> tuple[Value, ...]:
    """Numbers that are about to meet every entry of `leaves`, in a form in which a compiler works them out once.

    Loose 0-dim tensors it would work out, and round to the dtype of the leaves, again
    for every few entries: 1.1 to 1.6 of the time of a step. Stacked from 0-dim results
    and rounded they are only loaded. In eager they are only rounded, where all leaves
    have one dtype: torch would do that again for each leaf.

    Args:
        leaves: the tree whose entries they are about to meet; only its dtypes count.
        values: numbers and 0-dim tensors.

    Returns:
        The same numbers, in that order.

    Example:
        >>> from funcopt.core.math.entrywise import once
        >>> once(torch.zeros(2), torch.tensor(0.1, dtype=torch.float64), 0.5)
        (tensor(0.1000), 0.5)
    """
    if not any([isinstance(value, Tensor) for value in values]):
        return values
    if not compiling():
        for leaf in tree.flatten(leaves)[0]:
            if leaf.dtype != torch.float32:
                return values
        return tuple([value.float() if isinstance(value, Tensor) else value for value in values])  # pyright: ignore[reportReturnType]
    wide = any(leaf.dtype in (torch.float64, torch.complex128) for leaf in tree.leaves(leaves))
    dtype = torch.float64 if wide else torch.float32  # the arithmetic on half precision is done in float32
    tensors = [
        value.to(dtype) if isinstance(value, Tensor) else torch.full((), value, dtype=dtype, device=tree.device(leaves)) for value in values
    ]
    return stacked(*tensors)  # pyright: ignore[reportReturnType]


def stacked(*values: Tensor) -> tuple[Tensor, ...]:
    """0-dim tensors that are about to meet every entry, in a form in which a compiler works them out once; eagerly as they are.

    Args:
        values: at least one, of one dtype.

    Returns:
        The same numbers, in that order.

    Example:
        >>> from funcopt.core.math.entrywise import stacked
        >>> stacked(torch.tensor(1.0), torch.tensor(2.0))
        (tensor(1.), tensor(2.))
    """
    # A stack of one is only a view of it, which the compiler sees through.
    return torch.stack([*values, values[0]]).unbind()[: len(values)] if compiling() else values


def add_scaled(g: Tensor, factor: Scalar, x: Tensor) -> Tensor:
    """`g + factor * x` in the dtype of `g`; eagerly in one operation where it can be.

    Args:
        g: a tensor.
        factor: a number or a 0-dim tensor.
        x: a tensor of the shape of `g`.

    Returns:
        A tensor like `g`.

    Example:
        >>> from funcopt.core.math.entrywise import add_scaled
        >>> add_scaled(torch.tensor([1.0]), 0.5, torch.tensor([4.0]))
        tensor([3.])
    """
    if not isinstance(factor, Tensor) and g.dtype == x.dtype and not compiling():
        return torch.add(g, x, alpha=factor)
    return (g + factor * x).to(g.dtype)


def over_root(m: Tensor, v: Tensor, eps: Scalar, eps_root: Scalar = 0.0, scale: Tensor | None = None) -> Tensor:
    """`m / (scale sqrt(v + eps_root / scale^2) + eps)`, entry by entry; the root is scaled: `scale^2 v` may overflow where `v` does not.

    Args:
        m, v: of one shape; v >= 0.
        eps, eps_root: >= 0.
        scale: 0-dim, > 0; None: 1.

    Returns:
        A tensor like `m`.

    Example:
        >>> from funcopt.core.math.entrywise import over_root
        >>> over_root(torch.tensor([3.0]), torch.tensor([4.0]), eps=2.0, scale=torch.tensor(0.5))  # 3 / (0.5 * 2 + 2)
        tensor([1.])
    """
    if isinstance(eps_root, Tensor) or eps_root != 0:
        v = v + (eps_root if scale is None else eps_root / (scale * scale))
    if differentiating(v) or isinstance(eps, Tensor) or (scale is not None and scale.requires_grad):
        root = safe_sqrt(v)
        return m / ((root if scale is None else scale * root) + eps)
    root = v.sqrt()
    root = root if scale is None else root.mul_(scale)
    return m / (root if eps == 0 else root.add_(eps))


def scalar_of(value: float | Tensor, like: Tensor) -> Tensor:
    """A number or 0-dim tensor in the dtype of `like` and where it lies; a number is filled in, since a copy would wait for the device."""
    return value.to(like) if isinstance(value, Tensor) else torch.full((), value, dtype=like.dtype, device=like.device)
