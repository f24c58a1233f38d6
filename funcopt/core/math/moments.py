"""Running means of gradients and of their powers, and what corrects their start at zero.

m_t = (1 - decay) * g_t^order + decay * m_{t-1}
m^_t = m_t / (1 - decay^t)

and what the family of Adam does with a pair of them: m^ / (sqrt(v^ + eps_root) + eps).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from funcopt.core import check, tree
from funcopt.core.dtypes import at_least_float32, kept_as
from funcopt.core.math.lengths import safe_sqrt
from funcopt.core.protocol import Scalar, TensorTree
from funcopt.core.versions import compiling, differentiating

__all__ = [
    "add_scaled",
    "at_least",
    "bias_correction",
    "bias_factors",
    "corrected",
    "corrected_ratio",
    "increment",
    "once",
    "over_root",
    "safe_sqrt",
    "sign",
    "square",
    "stacked",
    "update_infinity_moment",
    "update_moment",
    "update_moment_per_elem_norm",
    "zero_count",
]

Value = TypeVar("Value", bound=float | Tensor)

LAST = torch.iinfo(torch.int64).max
PLAIN = (torch.float32, torch.float64)


def update_moment(updates: TensorTree, moments: TensorTree, decay: Scalar, order: int = 1) -> TensorTree:
    """The running mean of `|updates|^order` (of `updates` for order 1), in the dtypes of `moments`.

    Args:
        updates: tree of tensors.
        moments: the running mean so far, like `updates` in structure and shapes.
        decay: share of the past, in [0, 1).
        order: 1 or 2. For 2 the mean stays finite up to gradients of `sqrt(largest / (1 - decay))`.

    Returns:
        A tree like `moments`.

    Example:
        >>> fo.moments.update_moment(torch.tensor([4.0]), torch.tensor([2.0]), 0.5)
        tensor([3.])
    """

    fresh, kept = once(moments, 1 - decay, decay)
    mean = _mean_of_squares(fresh, kept) if order == 2 else _mean(fresh, kept)
    return tree.map(mean, updates, moments)


def _mean(fresh: Scalar, kept: Scalar) -> Callable[[Tensor, Tensor], Tensor]:
    """`(g, m) -> fresh g + kept m`, in every form the arithmetic of `torch.lerp`, also where something is infinite."""
    number = not isinstance(fresh, Tensor)
    eager = number and not compiling()

    def mean(g: Tensor, m: Tensor) -> Tensor:
        if g.dtype != m.dtype:
            kept_as("moments.update_moment", g, m.dtype)
            g = at_least(g, m)
        if eager and g.dtype == m.dtype:
            return torch.lerp(m, g, fresh)  # the same in one operation in place of three
        g, old = at_least_float32(g), at_least_float32(m)  # a sum is rounded once
        if not number:
            return (fresh * g + kept * old).to(m.dtype)
        return (old + fresh * (g - old) if fresh < 0.5 else g - kept * (g - old)).to(m.dtype)

    return mean


def _mean_of_squares(fresh: Scalar, kept: Scalar) -> Callable[[Tensor, Tensor], Tensor]:
    """`(g, m) -> fresh |g|^2 + kept m`, where `(fresh g) g` stays finite longer than `fresh (g g)`; torch.optim too multiplies so."""
    share: Any = fresh  # a number, where eager
    rest: Any = kept
    eager = not isinstance(fresh, Tensor) and not compiling()

    def mean(g: Tensor, m: Tensor) -> Tensor:
        if eager and type(g) is type(m) is Tensor and g.dtype == m.dtype in PLAIN and not (differentiating(g) or differentiating(m)):
            if g.is_cpu:
                return torch.mul(m, rest).addcmul_(g, g, value=share)  # one new tensor
            return torch.mul(g, share).mul_(g).add_(m, alpha=rest)  # elsewhere addcmul multiplies in another order
        g = at_least(at_least_float32(g), m)
        g = g.abs() if g.is_complex() else g
        return (kept * at_least_float32(m) + (fresh * g) * g).to(m.dtype)

    return mean


def update_moment_per_elem_norm(updates: TensorTree, moments: TensorTree, decay: Scalar, order: float) -> TensorTree:
    """The running mean of `|updates|^order` for any order, in the dtypes of `moments`; `update_moment` has the common ones.

    Args:
        updates: tree of tensors.
        moments: the running mean so far, like `updates` in structure and shapes.
        decay: share of the past, in [0, 1).
        order: power of the magnitudes, > 0.

    Returns:
        A tree like `moments`.

    Example:
        >>> fo.moments.update_moment_per_elem_norm(torch.tensor([-2.0]), torch.tensor([0.0]), 0.5, 3)
        tensor([4.])
    """
    if order == 2:
        return update_moment(updates, moments, decay, 2)
    return update_moment(tree.map_plain(lambda g, m: at_least(g, m).abs() ** order, updates, moments), moments, decay)


def update_infinity_moment(updates: TensorTree, moments: TensorTree, decay: Scalar, eps: Scalar) -> TensorTree:
    """The decaying maximum `max(|updates| + eps, decay * moments)`, in the dtypes of `moments`.

    Args:
        updates: tree of tensors.
        moments: the maximum so far, like `updates` in structure and shapes.
        decay: what is left of the maximum after a step, in [0, 1).
        eps: added to the magnitude, >= 0.

    Returns:
        A tree like `moments`.

    Example:
        >>> fo.moments.update_infinity_moment(torch.tensor([-2.0, 0.5]), torch.tensor([1.0, 4.0]), 0.5, 0.0)
        tensor([2., 2.])
    """
    return tree.map(lambda g, m: torch.maximum((at_least(g, m).abs() + eps).to(m.dtype), (decay * m).to(m.dtype)), updates, moments)


def at_least(g: Tensor, m: Tensor) -> Tensor:
    """`g` in the wider dtype of `g` and of what is kept of it, before anything is worked out: the square of a float16 1e-4 is zero.

    Args:
        g: a tensor.
        m: a tensor, of which only the dtype counts.

    Returns:
        `g`, in another dtype if that of `m` is wider.

    Example:
        >>> fo.moments.at_least(torch.tensor(1e-4, dtype=torch.float16), torch.zeros(())).square() > 0
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
        >>> fo.moments.square(torch.tensor(3 + 4j), torch.zeros(()))
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
        >>> fo.moments.once(torch.zeros(2), torch.tensor(0.1, dtype=torch.float64), 0.5)
        (tensor(0.1000), 0.5)
    """
    if not any(isinstance(value, Tensor) for value in values):
        return values
    if not compiling():
        for leaf in tree.leaves(leaves):
            if leaf.dtype != torch.float32:
                return values
        return cast(tuple[Value, ...], tuple([value.float() if isinstance(value, Tensor) else value for value in values]))
    wide = any(leaf.dtype in (torch.float64, torch.complex128) for leaf in tree.leaves(leaves))
    dtype = torch.float64 if wide else torch.float32  # the arithmetic on half precision is done in float32
    tensors = [
        value.to(dtype) if isinstance(value, Tensor) else torch.full((), value, dtype=dtype, device=tree.device(leaves)) for value in values
    ]
    return cast(tuple[Value, ...], stacked(*tensors))


def stacked(*values: Tensor) -> tuple[Tensor, ...]:
    """0-dim tensors that are about to meet every entry, in a form in which a compiler works them out once; eagerly as they are.

    Args:
        values: at least one, of one dtype.

    Returns:
        The same numbers, in that order.

    Example:
        >>> fo.moments.stacked(torch.tensor(1.0), torch.tensor(2.0))
        (tensor(1.), tensor(2.))
    """
    # A stack of one is only a view of it, which the compiler sees through.
    return torch.stack([*values, values[0]]).unbind()[: len(values)] if compiling() else values


def bias_correction(count: Tensor, *decays: Scalar) -> Tensor:
    """`1 - decay^count` for each decay, accurate at the first step and at the millionth.

    Args:
        count: steps taken, this one included; 0-dim int64, >= 1.
        decays: in [0, 1); numbers or 0-dim tensors.

    Returns:
        A tensor of shape (number of decays,), float64 where the device has it; index it
        with Python ints. It is stacked from 0-dim results because the compiler then
        computes it once; as loose scalars it would be worked out again for every entry
        of every leaf.

    Example:
        >>> fo.moments.bias_correction(torch.tensor(2), 0.9, 0.5)
        tensor([0.1900, 0.7500], dtype=torch.float64)
    """
    return torch.stack(_corrections(count, decays))


def _corrections(count: Tensor, decays: Sequence[Scalar]) -> list[Tensor]:
    t = count.to(tree.scalar_dtype(count.device))
    return [-torch.expm1(t * _log(decay)) for decay in decays]


def _log(decay: Scalar) -> Scalar:
    if isinstance(decay, Tensor):
        return decay.to(tree.scalar_dtype(decay.device)).log()
    return math.log(decay) if decay > 0 else -math.inf


def bias_factors(count: Tensor, *decays: Scalar) -> tuple[Tensor, ...]:
    """`1 / bias_correction` as one 0-dim tensor for each decay: every entry is multiplied, which takes less time than to divide it.

    Args:
        count, decays: as in `bias_correction`.

    Returns:
        As many 0-dim tensors as there are decays.

    Example:
        >>> [round(float(f), 4) for f in fo.moments.bias_factors(torch.tensor(2), 0.9, 0.5)]
        [5.2632, 1.3333]
    """
    return stacked(*[correction.reciprocal() for correction in _corrections(count, decays)])


def corrected(count: Tensor, b1: Scalar, b2: Scalar, nesterov: bool = False) -> tuple[Callable[[Tensor, Tensor], Tensor], Tensor]:
    """What corrects the two means of Adam: a function of `(g, mu)` that gives m^, and the factor that gives v^ from nu.

        m^ = mu / (1 - b1^t),   with Nesterov   b1 * mu / (1 - b1^(t+1)) + (1 - b1) * g / (1 - b1^t)
        v^ = nu / (1 - b2^t)

    Args:
        count: steps taken, this one included; 0-dim int64, >= 1.
        b1, b2: share of the past in the mean of the gradient and of its square.
        nesterov: look one step ahead.

    Returns:
        The function and the factor, a 0-dim tensor.

    Raises:
        TypeError: `nesterov` is neither True nor False.

    Example:
        >>> mean, factor = fo.moments.corrected(torch.tensor(1), 0.9, 0.75)
        >>> mean(torch.tensor(3.0), torch.tensor(0.3)), factor
        (tensor(3.0000, dtype=torch.float64), tensor(4.0000, dtype=torch.float64))
    """
    check.flag("moments.corrected", "nesterov", nesterov)
    f1, f2 = bias_factors(count, b1, b2)
    if not nesterov:
        return lambda g, mu: mu * f1, f2
    (ahead,) = bias_factors(count + 1, b1)
    return lambda g, mu: b1 * ahead * mu + (1 - b1) * f1 * g, f2


def corrected_ratio(
    leaves: TensorTree,
    count: Tensor,
    b1: Scalar,
    b2: Scalar,
    eps: Scalar,
    eps_root: Scalar = 0.0,
    nesterov: bool = False,
    *,
    correct_eps: bool = False,
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """`m^ / (sqrt(v^ + eps_root) + eps)` as a function of `(g, mu, nu)`, in the dtype of g, with the m^ and v^ of `corrected`.

    With c1 = 1 - b1^t and c2 = 1 - b2^t it is worked out as

        c1 m^ / (a sqrt(nu + c) + b),   a = c1 / sqrt(c2),   b = c1 eps,   c = c2 eps_root

    with one division and one root for every entry (Kingma & Ba 2015, the end of section 2). With `correct_eps` it is
    m^ sqrt(c2) / (sqrt(nu + eps_root) + eps), so that b = a eps and c = eps_root.

    Args:
        leaves: the tree that the function is for; only its dtypes count.
        count, b1, b2, nesterov: as in `corrected`.
        eps: added to the root, >= 0.
        eps_root: added under the root, >= 0.
        correct_eps: divide `eps` by sqrt(1 - b2^t) as the RMS is, so that it counts more in early steps.

    Returns:
        The function, for one leaf at a time.

    Raises:
        TypeError: `nesterov` is neither True nor False.

    Example:
        >>> adam = fo.moments.corrected_ratio(torch.zeros(1), torch.tensor(1), 0.9, 0.99, eps=0.5)
        >>> adam(torch.tensor([2.0]), torch.tensor([0.2]), torch.tensor([0.04]))  # 2 / (2 + 0.5)
        tensor([0.8000])
    """
    check.flag("moments.corrected_ratio", "nesterov", nesterov)
    check.flag("moments.corrected_ratio", "correct_eps", correct_eps)
    c1, c2 = _corrections(count, (b1, b2))
    rooted = isinstance(eps_root, Tensor) or eps_root != 0
    wanted = [c1 / c2.sqrt(), c1 / c2.sqrt() * eps if correct_eps else c1 * eps]
    if rooted:
        wanted.append(c2 * eps_root if not correct_eps else torch.ones_like(c2) * eps_root)
    if nesterov:
        wanted.append(b1 * c1 / _corrections(count + 1, (b1,))[0])
    a, b, *more = once(leaves, *wanted)
    recorded = a.requires_grad or b.requires_grad

    def ratio(g: Tensor, mu: Tensor, nu: Tensor) -> Tensor:
        m = more[-1] * mu + (1 - b1) * g if nesterov else mu
        v = nu + more[0] if rooted else nu
        if recorded or differentiating(v) or m.requires_grad:
            return (m / (a * safe_sqrt(v) + b)).to(g.dtype)
        root = v.sqrt().mul_(a).add_(b)
        if type(m) is type(root) is Tensor and m.dtype == root.dtype == g.dtype:
            return torch.div(m, root, out=root)
        return (m / root).to(g.dtype)

    return ratio


def add_scaled(g: Tensor, factor: Scalar, x: Tensor) -> Tensor:
    """`g + factor * x` in the dtype of `g`; eagerly in one operation where it can be.

    Args:
        g: a tensor.
        factor: a number or a 0-dim tensor.
        x: a tensor of the shape of `g`.

    Returns:
        A tensor like `g`.

    Example:
        >>> fo.moments.add_scaled(torch.tensor([1.0]), 0.5, torch.tensor([4.0]))
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
        >>> fo.moments.over_root(torch.tensor([3.0]), torch.tensor([4.0]), eps=2.0, scale=torch.tensor(0.5))  # 3 / (0.5 * 2 + 2)
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


def zero_count(params: TensorTree) -> Tensor:
    """The count of steps before the first: 0-dim int64 on the device of `params`.

    Args:
        params: tree of tensors; only its device counts.

    Returns:
        0-dim int64.

    Example:
        >>> fo.moments.zero_count({"w": torch.zeros(2)})
        tensor(0)
    """
    return torch.zeros((), dtype=torch.int64, device=tree.device(params))


def increment(count: Tensor) -> Tensor:
    """`count + 1`, held at the largest int64.

    Args:
        count: steps taken so far, 0-dim int64.

    Returns:
        0-dim int64.

    Example:
        >>> fo.moments.increment(torch.tensor(3))
        tensor(4)
    """
    return count + (count < LAST)


def sign(x: Tensor) -> Tensor:
    """The sign of every entry; NaN stays NaN (`torch.sign` makes it 0 and so hides it).

    Args:
        x: a real tensor.

    Returns:
        A tensor like `x`.

    Example:
        >>> fo.moments.sign(torch.tensor([-2.0, 0.0, torch.nan]))
        tensor([-1., 0., nan])
    """
    return torch.where(x.isnan(), x, x.sign())
