"""A weight that stands for W + s E and is multiplied without ever being built.

    linear     x (W + s E)^T       = x W^T + (s x E^T)
    embedding  (W + s E)[idx]      = W[idx] + s E[idx]
    conv       conv(x, W + s E)    = conv(x, W) + conv(x, s E)

`mark` makes a tensor that has the shape of W, knows W, s and E (directions.py), and has no numbers of its own. Linear maps, matrix
products, transposes, embeddings and convolutions of it are taken apart as above: inside `torch.func.vmap` the first term is one product
over all members, since W has no member axis. Every other function is given W + s E, built once. So results are always those of the
perturbed weight; only the speed depends on the function. Shape, dtype and device are those of W.

Some do not ask a tensor what it is before they read it: `torch.jit.script`, an inner `torch.func.grad` or `vmap`, `torch.tensor(w)`,
extensions. Below Python the mark builds W + s E for them too, outside of transforms; inside, where the members of that level are out of
reach, and where a graph is recorded, of which it would be a constant, it raises `UnbuiltError`, and whoever evaluates builds it and
starts again (`Evaluator`). In compiled code W + s E is there from the beginning, and the compiler leaves out what nobody reads.

Products under `torch.autocast` are those of the W + s E that it rounds: taken apart, a small s E would vanish in the last digit of x
W^T, for all members alike.

Source: Sarkar et al., "Evolution Strategies at the Hyperscale", 2025, for the products
of low rank; the marked weight is our own.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from funcopt.core import versions
from funcopt.core.autocast import autocasting, outside_autocast
from funcopt.es.noise.directions import Drawn, Entries, Factors

__all__ = ["Drawn", "Entries", "Factors", "Perturbed", "UnbuiltError", "asked_for", "mark", "settle"]

Level = int | None  # of the transforms of torch.func around: None outside of all


class UnbuiltError(RuntimeError):
    """Somebody reads a weight from where it cannot be built."""


class Marked(Tensor):
    """W + s E, where only W is stored as a tensor of its shape; as it is in compiled code."""

    W: Tensor  # unperturbed
    s: Tensor  # 0-dim
    direction: Any  # Entries, Factors or Drawn
    limit: float  # rows of input up to which products are taken apart
    built: Tensor | None  # W + s E, once somebody needed it
    spare: Tensor | None  # in compiled code W + s E, which the compiler drops if nobody needs it
    origin: "Marked | None"  # of which this is the transpose: built, the two share memory
    level: Level  # where it was made
    asked: bool  # whether somebody read it from where it cannot be built

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in METADATA and args:
            return func(_meta(args[0]), *args[1:], **kwargs)
        if _recording():
            recorded = "in what is recorded to be run again (torch.jit.trace, make_fx, torch.export), where it would be a constant"
            raise _asked(func, (args, kwargs), recorded)
        apart = APART.get(func)
        if apart is not None:
            result = apart(func, *args, **kwargs) if not autocasting() or func in TRANSPOSES else _under_autocast(apart, func, args, kwargs)
            if result is not NotImplemented:
                return result
        if not versions.compiling() and (func in WRITERS or "out" in kwargs or _writes(func)):
            for weight in _marks((args[:1], kwargs.get("out"))):
                _keep(weight)
        given, named = settle(args), settle(kwargs)
        result = func(*given, **named)
        if not versions.compiling():
            _lend((args, tuple(kwargs.values())), (given, tuple(named.values())), result)
        return result


class Perturbed(Marked):
    """A mark outside of compiled code: without memory. Operations that arrive in `__torch_dispatch__` went past `__torch_function__`."""

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        touched = any(argument.alias_info is not None for argument in func._schema.arguments)  # views and writers
        for weight in _marks((args, kwargs)):
            if weight.level is not None or _recording():
                raise _asked(func, (args, kwargs), "past __torch_function__ and inside torch.func, where it cannot be built")
            if touched:
                _keep(weight)
            if weight.built is not None and weight.built.requires_grad and torch.is_grad_enabled():
                raise UnbuiltError(
                    f"es: {func} reads a perturbed weight past __torch_function__, where the derivative for it that is being recorded is "
                    "lost; differentiate a copy of it (w + 0), or say lazy=False to the law of the noise"
                )
        return func(*settle(args), **settle(kwargs))


def mark(W: Tensor, s: Tensor, direction: Any, limit: float = math.inf, origin: Marked | None = None) -> Tensor:
    """The weight W + s E as a tensor that is not built.

    Args:
        W: the unperturbed weight.
        s: 0-dim, scale and sign of the direction.
        direction: `Entries(E)`, `Factors(A, B)` with E = A B^T, or `Drawn(draw)`, which builds
            W + s E anew for every use; cast to the dtype of W where products are taken apart.
        limit: products with at most so many rows of input are taken apart, larger ones
            build W + s E first (in compiled code: never with factors).
        origin: the mark of which this is the transpose.

    Returns:
        A `Perturbed`, to be used inside the function to be evaluated, and to be
        passed through `settle` where it could get out. Inside transforms of
        `torch.func` it raises `UnbuiltError` to whoever takes it for a plain tensor below
        Python.

    Example:
        >>> from funcopt.es.noise.lazy_weight import Factors, mark
        >>> W = torch.zeros(2, 3)
        >>> A, B = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [0.0], [-1.0]])
        >>> weight = mark(W, torch.tensor(0.5), Factors(A, B))
        >>> torch.nn.functional.linear(torch.tensor([4.0, 5.0, 6.0]), weight)
        tensor([-1., -2.])
        >>> weight + 0
        tensor([[ 0.5000,  0.0000, -0.5000],
                [ 1.0000,  0.0000, -1.0000]])
    """
    if versions.compiling():
        spare = _sum(W, s, direction) if origin is None else origin.spare.transpose(-2, -1)  # pyright: ignore[reportOptionalMemberAccess]
        weight, level = spare.as_subclass(Marked), None
    else:
        spare, level = None, _level()
        make: Any = Tensor._make_wrapper_subclass  # pyright: ignore[reportAttributeAccessIssue]
        weight = make(Perturbed, W.shape, W.stride(), dtype=W.dtype, device=W.device)
    weight.W, weight.s, weight.direction, weight.limit = W, s, direction, limit
    weight.built, weight.spare, weight.origin, weight.level, weight.asked = None, spare, origin, level, False
    return weight


def settle(tree: Any) -> Any:
    """The tree with every marked weight replaced by W + s E: lists, tuples and dicts, at any depth."""
    if isinstance(tree, Marked):
        return _build(tree)
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(settle(part) for part in tree))
    if isinstance(tree, (list, tuple)):
        return type(tree)([settle(part) for part in tree])
    if isinstance(tree, dict):
        return {name: settle(part) for name, part in tree.items()}
    return tree


def asked_for(weight: Any) -> bool:
    """Whether this is a mark that somebody read from where it could not be built."""
    return isinstance(weight, Marked) and weight.asked


def _recording() -> bool:
    """Whether somebody writes down what is computed, to run it again with other inputs."""
    if versions.compiling():  # where a weight is built from the beginning
        return False
    return versions.recorded()


def _asked(func: Any, given: Any, where: str) -> UnbuiltError:
    for weight in _marks(given):
        while weight is not None:
            weight.asked, weight = True, weight.origin
    return UnbuiltError(
        f"es: {func} reads a perturbed weight that has not been built, {where}; "
        "build it before (w + 0), or say lazy=False to the law of the noise"
    )


def _build(weight: Marked) -> Tensor:
    known = _known(weight)
    if known is not None:
        return known
    if weight.origin is not None:
        built = _build(weight.origin).transpose(-2, -1)
        keep = weight.origin.built is not None
    elif weight.spare is not None:
        built, keep = weight.spare, True
    else:
        built = outside_autocast(_sum, weight.W, weight.s, weight.direction)
        keep = not isinstance(weight.direction, Drawn)
    if not versions.compiling():
        built = _at(weight.level, built)
    if keep:
        weight.built = built
    return built


def _keep(weight: Marked) -> None:
    """From here on W + s E is a tensor of its own, because somebody writes into it."""
    if weight.origin is not None:
        _keep(weight.origin)
    weight.built = _build(weight)


def _known(weight: Marked) -> Tensor | None:
    """W + s E, if it has been built."""
    if weight.built is None and weight.origin is not None:
        above = _known(weight.origin)
        return None if above is None else above.transpose(-2, -1)
    return weight.built


def _sum(W: Tensor, s: Tensor, direction: Any) -> Tensor:
    """In the dtype of the noise, rounded once."""
    E = direction.whole(W.shape, W.dtype)
    return (W + s.to(torch.promote_types(W.dtype, E.dtype)) * E).to(W.dtype)


def _level() -> Level:
    return versions.level()


def _at(level: Level, x: Tensor) -> Tensor:
    """Without the wrappers of transforms that began after this level: to those a weight is a constant."""
    while versions.wrapped(x) and versions.level_of(x) > (level or 0):
        x = versions.unwrapped(x)
    return x


def _marks(tree: Any) -> Iterator[Marked]:
    if isinstance(tree, Marked):
        yield tree
    elif isinstance(tree, (list, tuple)):
        for part in tree:
            yield from _marks(part)
    elif isinstance(tree, dict):
        for part in tree.values():
            yield from _marks(part)


def _meta(weight: Marked) -> Tensor:
    return weight.W if weight.built is None else weight.built


def _lend(given: Any, settled: Any, result: Any) -> None:
    """A weight that is drawn for every use is kept from here on if a function's result lies in its memory: somebody may write into it."""
    if isinstance(given, (list, tuple)):
        for part, plain in zip(given, settled, strict=True):
            _lend(part, plain, result)
    elif isinstance(given, Marked) and isinstance(_eldest(given).direction, Drawn) and _known(given) is None and _shares(settled, result):
        weight: Marked | None = given
        while weight is not None:
            weight.built, weight, settled = settled, weight.origin, settled.transpose(-2, -1) if weight.origin is not None else settled


def _eldest(weight: Marked) -> Marked:
    return weight if weight.origin is None else _eldest(weight.origin)


def _shares(x: Tensor, result: Any) -> bool:
    if isinstance(result, (list, tuple)):
        return any(_shares(x, part) for part in result)
    if not isinstance(result, Tensor):
        storage = isinstance(result, (torch.UntypedStorage, torch.TypedStorage)) or type(result).__name__ == "PyCapsule"
        return storage or hasattr(result, "__array__")
    try:
        return x.untyped_storage()._cdata == result.untyped_storage()._cdata
    except RuntimeError:  # inside transforms nobody can tell
        return True


def _under_autocast(apart: Callable, func: Callable, args: tuple, kwargs: dict) -> Any:
    """Products that autocast rounds are left to it; rows of an embedding are not rounded."""
    if func is not F.embedding and versions.autocast_on(next(_marks((args, kwargs))).W.device.type):
        return NotImplemented
    return outside_autocast(apart, func, *args, **kwargs)


def _writes(func: Any) -> bool:
    """Whether an operation of torch.ops writes into what it is given; one of the caller's returns nothing that would tell."""
    names = func.overloads() if isinstance(func, versions.OpOverloadPacket) else ()
    schemas = [getattr(func, name)._schema for name in names] or [getattr(func, "_schema", None)]
    return any(given.alias_info is not None and given.alias_info.is_write for schema in schemas if schema for given in schema.arguments)


def _taken_apart(weight: Any, rows: int) -> bool:
    """Whether a product of so many rows with this argument leaves W + s E unbuilt."""
    return isinstance(weight, Marked) and _known(weight) is None and weight.direction.matrix and _few(weight, rows)


def _few(weight: Marked, rows: int) -> bool:
    factor = weight.direction.when_compiled if versions.compiling() else 1.0
    return factor == math.inf or rows <= weight.limit * factor


def _parts(weight: Marked) -> tuple[Tensor, Tensor, Any]:
    return weight.W, weight.s, weight.direction.to(weight.W.dtype)


def _rows(x: Tensor, columns: int) -> int:
    return x.numel() // max(1, columns)


def _linear(func, input, weight, bias=None):
    if not isinstance(weight, Marked) or not _taken_apart(weight, _rows(input, weight.W.shape[-1])):
        return NotImplemented
    input, bias = settle((input, bias))
    W, s, direction = _parts(weight)
    y = func(input, W)
    y = y + direction.mT.times(input, s).to(y.dtype)
    return y if bias is None else y + bias


def _matmul(func, left, right, **out):
    if out:
        return NotImplemented
    if isinstance(right, Marked):
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
    if max_norm is not None or not isinstance(weight, Marked):  # max_norm writes into the weight
        return NotImplemented
    # Rows are fetched, not multiplied: building pays only where more are fetched than there are.
    if not _taken_apart(weight, 0 if input.numel() <= weight.W.shape[0] else input.numel()):
        return NotImplemented
    W, s, direction = _parts(weight)
    return func(input, W, padding_idx, max_norm, *settings, **named) + direction.rows(input, s)


def _conv(func, input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    if groups != 1 or not isinstance(weight, Marked) or _known(weight) is not None:
        return NotImplemented
    spatial = weight.W.shape[2:]
    places = _rows(input, weight.W.shape[1])
    whole = weight.W.dim() == 3 and weight.direction.matrix and isinstance(weight.direction, Factors)  # a stack of matrices, not filters
    if whole or isinstance(weight.direction, Drawn) or not _few(weight, places):
        return NotImplemented
    input, bias = settle((input, bias))
    W, s, direction = _parts(weight)
    y = func(input, W, None, stride, padding, dilation) + direction.filtered(
        lambda filters: func(input, filters, None, stride, padding, dilation), tuple(spatial), s
    )
    return y if bias is None else y + bias.reshape(-1, *(1 for _ in spatial))


def _transposed(func, weight, *axes, **named):
    """t, T, mT, and the transposes of the last two axes: again a marked weight."""
    if _known(weight) is not None or not (weight.direction.matrix or isinstance(weight.direction, Drawn)):
        return NotImplemented
    dims = weight.W.dim()
    if func in SWAPS:
        if named or len(axes) != 2 or {axis % dims for axis in axes} != {dims - 2, dims - 1}:
            return NotImplemented
    elif dims != 2 and func != mT:
        return NotImplemented
    return mark(weight.W.transpose(-2, -1), weight.s, weight.direction.mT, weight.limit, weight)


SWAPS = {torch.transpose, torch.Tensor.transpose, torch.swapaxes, torch.Tensor.swapaxes}
T, mT = (getattr(Tensor, name).__get__ for name in ("T", "mT"))
TRANSPOSES = {torch.t, torch.Tensor.t, T, mT, *SWAPS}
MATMULS = {Tensor.__matmul__, *(getattr(home, name) for home in (torch, Tensor) for name in ("matmul", "mm", "bmm", "mv"))}

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
WRITERS.add(Tensor.data.__set__)  # pyright: ignore[reportAttributeAccessIssue]
FIELDS = "shape dtype device ndim layout itemsize nbytes requires_grad is_leaf is_cuda is_sparse is_meta is_quantized is_mkldnn is_nested"
METHODS = "size dim ndimension numel nelement element_size get_device stride is_contiguous is_floating_point is_complex is_signed __len__"
METADATA = {
    *(getattr(Tensor, name).__get__ for name in FIELDS.split() if hasattr(Tensor, name)),
    *(getattr(Tensor, name) for name in METHODS.split()),
    *(torch.numel, torch.is_floating_point, torch.is_complex),
}
