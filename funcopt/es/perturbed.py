"""A weight that stands for W + s E and is multiplied without ever being built.

    linear     x (W + s E)^T       = x W^T + (s x E^T)
    embedding  (W + s E)[idx]      = W[idx] + s E[idx]
    conv       conv(x, W + s E)    = conv(x, W) + conv(x, s E)
    low rank   E = A B^T:   x E^T  = (x B) A^T,    E[idx] = A[idx] B^T,    conv(x, E) = A conv(x, B as r filters)

`mark` makes the weight into a subclass of itself that carries s and E. Linear maps,
matrix products, transposes, embeddings and convolutions of such a weight are taken
apart as above: inside `torch.func.vmap` the first term is one product over all members, since
W has no member axis. Every other function is given W + s E, built once. So results
are always those of the perturbed weight; only the speed depends on the function.
Shape, dtype and device are those of W.

Source: Sarkar et al., "Evolution Strategies at the Hyperscale", 2025, for the products
of low rank; the marked weight is our own.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from funcopt.core import versions

__all__ = ["Drawn", "Entries", "Factors", "Perturbed", "mark", "settle"]


class Entries(NamedTuple):
    """A direction E as it is."""

    E: Tensor  # like the weight
    when_compiled = 3.0  # times as many rows are taken apart; measured

    @property
    def matrix(self) -> bool:
        return True

    def times(self, x: Tensor, s: Tensor) -> Tensor:
        """s x E."""
        return _scaled(s, x @ self.E)

    def after(self, x: Tensor, s: Tensor) -> Tensor:
        """s E x."""
        return _scaled(s, self.E @ x)

    def rows(self, idx: Tensor, s: Tensor) -> Tensor:
        return _scaled(s, F.embedding(idx, self.E))

    def filtered(self, convolve: Callable[[Tensor], Tensor], spatial: tuple[int, ...], s: Tensor) -> Tensor:
        return _scaled(s, convolve(self.E))

    def whole(self, shape: torch.Size, dtype: torch.dtype | None = None) -> Tensor:
        return self.E

    @property
    def mT(self) -> "Entries":
        return Entries(self.E.mT)

    def to(self, dtype: torch.dtype) -> "Entries":
        return Entries(self.E.to(dtype))


class Factors(NamedTuple):
    """A direction E = A B^T of a weight that is a matrix, or is seen as one."""

    A: Tensor  # [..., m, r]
    B: Tensor  # [..., n, r]
    matrix: bool = True  # False: the weight has more axes than the matrix, those past the first are taken together
    when_compiled = math.inf

    def times(self, x: Tensor, s: Tensor) -> Tensor:
        """s x E."""
        return _product(_scaled(s, x @ self.A), self.B.mT)

    def after(self, x: Tensor, s: Tensor) -> Tensor:
        """s E x."""
        return _product(self.A, _scaled(s, self.B.mT @ x))

    def rows(self, idx: Tensor, s: Tensor) -> Tensor:
        return _product(_scaled(s, F.embedding(idx, self.A)), self.B.mT)

    def filtered(self, convolve: Callable[[Tensor], Tensor], spatial: tuple[int, ...], s: Tensor) -> Tensor:
        """s conv(x, E), where `convolve` takes filters [r, in, *spatial]."""
        rank = self.B.shape[-1]
        y = convolve(self.B.mT.reshape(rank, -1, *spatial))  # [batch, r, *places]
        axes = len(spatial)
        flat = y.flatten(-axes)
        return _product(self.A, _scaled(s, flat)).reshape(*y.shape[: -axes - 1], self.A.shape[0], *y.shape[-axes:])

    def whole(self, shape: torch.Size, dtype: torch.dtype | None = None) -> Tensor:
        """E, worked out in the wider of `dtype` and that of the factors."""
        dtype = self.A.dtype if dtype is None else torch.promote_types(dtype, self.A.dtype)
        return (self.A.to(dtype) @ self.B.to(dtype).mT).reshape(shape)

    @property
    def mT(self) -> "Factors":
        return Factors(self.B, self.A, self.matrix)

    def to(self, dtype: torch.dtype) -> "Factors":
        return Factors(self.A.to(dtype), self.B.to(dtype), self.matrix)


class Drawn(NamedTuple):
    """A direction that is drawn whenever it is needed, and kept by nobody."""

    draw: Callable[[], Tensor]
    matrix: bool = False
    when_compiled = 1.0

    def whole(self, shape: torch.Size, dtype: torch.dtype | None = None) -> Tensor:
        return self.draw().reshape(shape)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """left @ right; of one column and one row elementwise, which is faster and fuses with what follows."""
    return left * right if right.shape[-2] == 1 and left.dim() > 1 else left @ right


def _scaled(s: Tensor, x: Tensor) -> Tensor:
    """s x in the dtype of x; s itself is not rounded to half precision, which would change the scale of all members alike."""
    if x.dtype in (torch.bfloat16, torch.float16):
        return (s.float() * x.float()).to(x.dtype)
    return s.to(x.dtype) * x


class Perturbed(Tensor):
    """W + s E, where only W is stored as a tensor of its shape. Made by `mark`."""

    W: Tensor  # unperturbed
    s: Tensor  # 0-dim
    direction: Any  # Entries, Factors or Drawn
    limit: float  # rows of input up to which products are taken apart
    built: Tensor | None  # W + s E, once somebody needed it

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in METADATA and args:
            return func(args[0].W, *args[1:], **kwargs)
        apart = APART.get(func)
        if apart is not None:
            result = apart(func, *args, **kwargs)
            if result is not NotImplemented:
                return result
        if not versions.compiling() and func in WRITERS:
            _keep(args[0])
        return func(*settle(args), **settle(kwargs))


def mark(W: Tensor, s: Tensor, direction: Any, limit: float = math.inf) -> Tensor:
    """The weight W + s E as a tensor that is not built.

    Args:
        W: the unperturbed weight.
        s: 0-dim, scale and sign of the direction.
        direction: `Entries(E)`, `Factors(A, B)` with E = A B^T, or `Drawn(draw)`, which builds
            W + s E anew for every use; cast to the dtype of W where products are taken apart.
        limit: products with at most so many rows of input are taken apart, larger ones
            build W + s E first (in compiled code: never with factors).

    Returns:
        A `Perturbed`, to be used inside the function to be evaluated, and to be
        passed through `settle` where it could get out: whoever takes it for
        a plain tensor below Python sees W.

    Example:
        >>> from funcopt.es.perturbed import Factors, mark
        >>> W = torch.zeros(2, 3)
        >>> A, B = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [0.0], [-1.0]])
        >>> weight = mark(W, torch.tensor(0.5), Factors(A, B))
        >>> torch.nn.functional.linear(torch.tensor([4.0, 5.0, 6.0]), weight)
        tensor([-1., -2.])
        >>> weight + 0
        tensor([[ 0.5000,  0.0000, -0.5000],
                [ 1.0000,  0.0000, -1.0000]])
    """
    weight = W.as_subclass(Perturbed)
    weight.W, weight.s, weight.direction, weight.limit, weight.built = W, s, direction, limit, None
    return weight


def settle(tree: Any) -> Any:
    """The tree with every marked weight replaced by W + s E: lists, tuples and dicts, at any depth."""
    if isinstance(tree, Perturbed):
        return _build(tree)
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(settle(part) for part in tree))
    if isinstance(tree, (list, tuple)):
        return type(tree)([settle(part) for part in tree])
    if isinstance(tree, dict):
        return {name: settle(part) for name, part in tree.items()}
    return tree


def _build(weight: Perturbed) -> Tensor:
    if weight.built is not None:
        return weight.built
    W, E = weight.W, weight.direction.whole(weight.W.shape, weight.W.dtype)
    built = (W + weight.s.to(torch.promote_types(W.dtype, E.dtype)) * E).to(W.dtype)  # the sum in the dtype of the noise, rounded once
    if not isinstance(weight.direction, Drawn):
        weight.built = built
    return built


def _keep(weight: Any) -> None:
    """From here on W + s E is a tensor of its own, because somebody writes into it."""
    if isinstance(weight, Perturbed):
        weight.built = _build(weight)


def _taken_apart(weight: Any, rows: int) -> bool:
    """Whether a product of so many rows with this argument leaves W + s E unbuilt."""
    return isinstance(weight, Perturbed) and weight.built is None and weight.direction.matrix and _few(weight, rows)


def _few(weight: Perturbed, rows: int) -> bool:
    return rows <= weight.limit * (weight.direction.when_compiled if versions.compiling() else 1.0)


def _parts(weight: Perturbed) -> tuple[Tensor, Tensor, Any]:
    return weight.W, weight.s, weight.direction.to(weight.W.dtype)


def _rows(x: Tensor, columns: int) -> int:
    return x.numel() // max(1, columns)


def _linear(func, input, weight, bias=None):
    if not isinstance(weight, Perturbed) or not _taken_apart(weight, _rows(input, weight.W.shape[-1])):
        return NotImplemented
    input, bias = settle((input, bias))
    W, s, direction = _parts(weight)
    y = func(input, W)
    y = y + direction.mT.times(input, s).to(y.dtype)
    return y if bias is None else y + bias


def _matmul(func, left, right, **out):
    if out:
        return NotImplemented
    if isinstance(right, Perturbed):
        if left.dim() == 0 or right.W.dim() < 2 or not _taken_apart(right, _rows(left, left.shape[-1])):
            return NotImplemented
        left = settle(left)
        W, s, direction = _parts(right)
        y = func(left, W)
        return y + direction.times(left, s).to(y.dtype)
    if left.W.dim() < 2 or not _taken_apart(left, _rows(right, right.shape[-1] if right.dim() == 1 else right.shape[-2])):
        return NotImplemented
    W, s, direction = _parts(left)
    y = func(W, right)
    if right.dim() == 1:  # E x of a vector is the product with one column
        return y + direction.after(right.unsqueeze(-1), s).squeeze(-1).to(y.dtype)
    return y + direction.after(right, s).to(y.dtype)


def _embedding(func, input, weight, padding_idx=None, max_norm=None, *settings, **named):
    if max_norm is not None or not isinstance(weight, Perturbed):  # max_norm writes into the weight
        return NotImplemented
    # Rows are fetched, not multiplied: building pays only where more are fetched than there are.
    if not _taken_apart(weight, 0 if input.numel() <= weight.W.shape[0] else input.numel()):
        return NotImplemented
    W, s, direction = _parts(weight)
    return func(input, W, padding_idx, max_norm, *settings, **named) + direction.rows(input, s)


def _conv(func, input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    if groups != 1 or not isinstance(weight, Perturbed) or weight.built is not None:
        return NotImplemented
    spatial = weight.W.shape[2:]
    places = _rows(input, weight.W.shape[1])
    whole = weight.W.dim() == 3 and weight.direction.matrix and isinstance(weight.direction, Factors)  # a stack of matrices, not filters
    if whole or not _few(weight, places):
        return NotImplemented
    input, bias = settle((input, bias))
    W, s, direction = _parts(weight)
    y = func(input, W, None, stride, padding, dilation) + direction.filtered(
        lambda filters: func(input, filters, None, stride, padding, dilation), tuple(spatial), s
    )
    return y if bias is None else y + bias.reshape(-1, *(1 for _ in spatial))


def _transposed(func, weight, *axes, **named):
    """t, T, mT, and the transposes of the last two axes: again a marked weight."""
    if weight.built is not None or not weight.direction.matrix:
        return NotImplemented
    dims = weight.W.dim()
    if func in SWAPS:
        if named or len(axes) != 2 or {axis % dims for axis in axes} != {dims - 2, dims - 1}:
            return NotImplemented
    elif dims != 2 and func != mT:
        return NotImplemented
    return mark(weight.W.transpose(-2, -1), weight.s, weight.direction.mT, weight.limit)


SWAPS = {torch.transpose, torch.Tensor.transpose, torch.swapaxes, torch.Tensor.swapaxes}
T, mT = (getattr(Tensor, name).__get__ for name in ("T", "mT"))
TRANSPOSES = {torch.t, torch.Tensor.t, T, mT, *SWAPS}
MATMULS = {torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.mm, torch.Tensor.mm, torch.bmm, torch.Tensor.bmm, torch.mv, torch.Tensor.mv}

APART: dict[Callable, Callable] = {
    F.linear: _linear,
    F.embedding: _embedding,
    torch.Tensor.__rmatmul__: lambda func, right, left: _matmul(torch.matmul, left, right),
    **dict.fromkeys((F.conv1d, F.conv2d, F.conv3d), _conv),
    **dict.fromkeys(TRANSPOSES, _transposed),
    **dict.fromkeys(MATMULS, _matmul),
}

OPERATORS = {f"__i{name}__" for name in "add sub mul truediv floordiv mod pow and or xor lshift rshift".split()}
WRITERS = {
    getattr(home, name)
    for home in (Tensor, torch, F)
    for name in dir(home)
    if name in OPERATORS or name == "__setitem__" or (name.endswith("_") and not name.endswith("__") and callable(getattr(home, name)))
}
PROPERTIES = "shape dtype device ndim layout itemsize nbytes requires_grad is_leaf is_cuda is_sparse is_meta is_quantized is_mkldnn is_nested"
METHODS = "size dim ndimension numel nelement element_size get_device stride is_contiguous is_floating_point is_complex is_signed __len__"
METADATA = {
    *(getattr(Tensor, name).__get__ for name in PROPERTIES.split() if hasattr(Tensor, name)),
    *(getattr(Tensor, name) for name in METHODS.split()),
    *(torch.numel, torch.is_floating_point, torch.is_complex),
}
