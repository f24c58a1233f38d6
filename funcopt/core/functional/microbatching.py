"""Microbatches of any function: a batch that does not fit at once, part by part, in memory that does not grow with it.

    carry = init(x_0);   carry = update(carry, x_i, i)  for x_i = fun(part i);   finalize(carry)

`microbatch` cuts the batch of any function, `micro_vmap` maps a function of one example over a batch, `micro_grad` takes
the gradient of each example, which may be clipped or squared before they are added up. Part i of n has the
rows i, n + i, 2 n + i, ...; results with a batch axis come back in the order of the batch.

Reference: optax.microbatching (0.2.8). For a training step on a batch in parts see `make_step(accumulate=)`.
"""

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import check, tree
from funcopt.core.unfit import leaf

__all__ = ["AccumulationType", "Accumulator", "IndividualOutputs", "micro_grad", "micro_vmap", "microbatch", "reshape_batch_axis"]

Function = Callable[..., Any]


@dataclass(frozen=True)
class Accumulator:
    """How the results of parts become one; each function is of one tensor.

    Args:
        init: from the result of the first part, of which it may use the shape and dtype alone, to the first carry.
        update: `(carry, result, index) -> carry`.
        finalize: from the last carry to the result.
        aggregate: from results stacked along axis 0 to one, for what `micro_vmap` has of a part.
    """

    init: Callable[[Tensor], Any]
    update: Callable[[Any, Tensor, int], Any]
    finalize: Callable[[Any], Tensor]
    aggregate: Callable[[Tensor], Tensor]


class AccumulationType(enum.Enum):
    """How the results of parts become one."""

    MEAN = enum.auto()  # of all parts, also where fewer are run
    SUM = enum.auto()
    RUNNING_MEAN = enum.auto()  # of the parts that are run
    CONCAT = enum.auto()  # along axis 0, in the order of the batch; zeros for parts that are not run


class IndividualOutputs(NamedTuple):
    """What `micro_grad` gives of every example, along axis 0."""

    values: Any  # the losses
    metrics: Any  # what `metrics_fn` gives
    aux: Any  # what the loss gives beside; None where it gives nothing


def _accumulator(where: str, kind: Any, count: int) -> Accumulator:
    if isinstance(kind, Accumulator):
        return kind
    if kind is AccumulationType.SUM:
        return Accumulator(torch.zeros_like, lambda carry, x, i: carry + x, lambda carry: carry, lambda xs: xs.sum(0))
    if kind is AccumulationType.MEAN:
        return Accumulator(_floating(where), lambda carry, x, i: carry + x, lambda carry: carry / count, lambda xs: xs.mean(0))
    if kind is AccumulationType.RUNNING_MEAN:

        def running(carry: Tensor, x: Tensor, i: int) -> Tensor:
            return carry * (i / (i + 1)) + x / (i + 1)

        return Accumulator(_floating(where), running, lambda carry: carry, lambda xs: xs.mean(0))
    if kind is AccumulationType.CONCAT:
        # The parts themselves: to write each into one tensor would be a copy of all a part.
        return Accumulator(lambda x: (), lambda carry, x, i: (*carry, x), lambda carry: _concatenated(carry, count), lambda xs: xs)
    raise TypeError(f"{where}: accumulator must hold an Accumulator or an AccumulationType, such as AccumulationType.SUM, got {kind!r}")


def _floating(where: str) -> Callable[[Tensor], Tensor]:
    def init(x: Tensor) -> Tensor:
        if not (x.is_floating_point() or x.is_complex()):
            got = str(x.dtype).removeprefix("torch.")
            raise TypeError(f"{where}: a mean must be of floating point numbers, got {got}; use AccumulationType.SUM")
        return torch.zeros_like(x)

    return init


def _concatenated(parts: tuple[Tensor, ...], count: int) -> Tensor:
    if not parts[0].dim():
        raise ValueError("microbatch: CONCAT needs results with a batch axis, got a number from each part; use SUM or MEAN")
    parts = parts + (torch.zeros_like(parts[0]),) * (count - len(parts))
    return torch.stack(parts, 1).reshape(-1, *parts[0].shape[1:])


def reshape_batch_axis(values: Any, microbatch_size: int, axis: int = 0) -> Any:
    """Every leaf with its batch axis cut in two, (parts, microbatch_size). Row i of part j is row i parts + j of the batch.

    Args:
        values: a tree of batches.
        microbatch_size: rows of a part, >= 1, a divisor of the batch's.
        axis: the batch axis.

    Returns:
        The tree with one axis more; views.

    Raises:
        ValueError: `microbatch_size` is less than 1, or does not divide a batch; a batch has no such axis.

    Example:
        >>> fo.microbatching.reshape_batch_axis(torch.arange(6), 2)
        tensor([[0, 3],
                [1, 4],
                [2, 5]])
    """
    check.integer("reshape_batch_axis", "microbatch_size", microbatch_size, 1)
    size = _size("reshape_batch_axis", [("the tree", values, axis)])
    if size % microbatch_size:
        raise ValueError(f"reshape_batch_axis: microbatch_size must divide the batch, got {microbatch_size} and a batch of {size}")
    return tree.map_plain(lambda x: x.unflatten(axis, (microbatch_size, -1)).transpose(axis % x.dim(), axis % x.dim() + 1), values)


def _numbers(where: str, name: str, given: Any, kind: type) -> tuple[Any, ...]:
    found = (given,) if isinstance(given, kind) else tuple(given)
    if any(isinstance(x, bool) or not isinstance(x, kind) for x in found):
        raise TypeError(f"{where}: {name} must be {kind.__name__} or a sequence of them, got {given!r}")
    return found


def _size(where: str, batches: Sequence[tuple[str, Any, int]]) -> int:
    """The length of the batch axes, which must be one."""
    sizes: dict[str, int] = {}
    for name, values, axis in batches:
        for path, x in zip(tree.paths(values), tree.leaves(values), strict=True):
            place = f"{name}.{path}" if path else name
            if not isinstance(x, Tensor):
                raise TypeError(f"{where}: {name} must be a tree of tensors, {leaf(x, path)}")
            if not -x.dim() <= axis < x.dim():
                raise ValueError(f"{where}: every batch must have the axis {axis}, but {place} has shape {tuple(x.shape)}")
            sizes[place] = x.shape[axis]
    if len(set(sizes.values())) != 1:
        listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise ValueError(f"{where}: batch axes must be of one length, got {listed or 'no batch'}")
    return next(iter(sizes.values()))


def microbatch(
    fun: Function,
    argnums: int | Sequence[int],
    microbatch_size: int | None,
    accumulator: Any = AccumulationType.SUM,
    *,
    argnames: str | Sequence[str] = (),
    in_dims: int | Sequence[int] = 0,
    num_real_microbatches: int | None = None,
) -> Function:
    """A function that does what `fun` does, on parts of the batch one after the other.

    Args:
        fun: any function of batches.
        argnums: which arguments have a batch axis, by their place.
        microbatch_size: rows of a part, >= 1, a divisor of the batch's; None: `fun` as it is.
        accumulator: how the results of parts become one: an `AccumulationType`, an `Accumulator`, or a tree
            of these of which the result's structure is a continuation.
        argnames: which arguments have a batch axis, by their names.
        in_dims: the batch axis of each of these, in this order; one for all.
        num_real_microbatches: run only as many parts, >= 1; None: all.

    Returns:
        A function of the same arguments. It holds what one part takes and what is accumulated.

    Raises:
        TypeError, ValueError: an argument is out of its range; at a call, batch axes differ or cannot be cut.

    Example:
        >>> kinds = fo.microbatching.AccumulationType
        >>> both = fo.microbatching.microbatch(lambda x: (x + 1, (3 * x).sum()), 0, 2, (kinds.CONCAT, kinds.SUM))
        >>> both(torch.tensor([1, 2, 3, 4]))
        (tensor([2, 3, 4, 5]), tensor(30))
    """
    where = "microbatch"
    if microbatch_size is None:
        return fun
    check.integer(where, "microbatch_size", microbatch_size, 1)
    if num_real_microbatches is not None:
        check.integer(where, "num_real_microbatches", num_real_microbatches, 1)
    places, names = _numbers(where, "argnums", argnums, int), _numbers(where, "argnames", argnames, str)
    dims = (in_dims,) * len(places + names) if isinstance(in_dims, int) else tuple(in_dims)
    if len(dims) != len(places + names):
        raise ValueError(f"{where}: in_dims must have one entry for each of the {len(places + names)} batch arguments, got {len(dims)}")

    def run(*args: Any, **kwargs: Any) -> Any:
        batches = [(f"argument {i}", args[i], dim) for i, dim in zip(places, dims, strict=False)]
        batches += [(name, kwargs[name], dim) for name, dim in zip(names, dims[len(places) :], strict=True)]
        size = _size(where, batches)
        if not size or size % microbatch_size:
            raise ValueError(f"{where}: microbatch_size must divide the batch, got {microbatch_size} and a batch of {size}")
        count = size // microbatch_size
        if num_real_microbatches is not None and num_real_microbatches > count:
            raise ValueError(f"{where}: num_real_microbatches must be at most the {count} parts of the batch, got {num_real_microbatches}")

        def part(index: int) -> Any:
            def rows(x: Tensor, dim: int) -> Tensor:
                return x.unflatten(dim, (microbatch_size, count)).select(dim % x.dim() + 1, index)

            mine, named = list(args), dict(kwargs)
            for i, dim in zip(places, dims, strict=False):
                mine[i] = tree.map_plain(lambda x, dim=dim: rows(x, dim), args[i])
            for name, dim in zip(names, dims[len(places) :], strict=True):
                named[name] = tree.map_plain(lambda x, dim=dim: rows(x, dim), kwargs[name])
            return fun(*mine, **named)

        first = part(0)
        kinds = [_accumulator(where, kind, count) for kind in tree.broadcast_prefix(accumulator, first, where, "accumulator")]
        carries = [kind.update(kind.init(x), x, 0) for kind, x in zip(kinds, tree.leaves(first), strict=True)]
        for index in range(1, num_real_microbatches or count):
            results = tree.leaves(part(index))
            carries = [kind.update(carry, x, index) for kind, carry, x in zip(kinds, carries, results, strict=True)]
        return tree.unflatten(first, [kind.finalize(carry) for kind, carry in zip(kinds, carries, strict=True)])

    return run


def micro_vmap(
    fun: Function,
    in_dims: int | None | Sequence[int | None] = 0,
    *,
    microbatch_size: int | None = None,
    vmap_fn: Function = torch.func.vmap,
    accumulator: Any = AccumulationType.CONCAT,
    num_real_microbatches: int | None = None,
) -> Function:
    """`torch.func.vmap` on parts of the batch, whose results may be added up on the way.

    Args:
        fun: a function of one example; its result may hold None.
        in_dims: the batch axis of each argument, None for what every example gets; one for all. Keyword arguments have theirs in front.
        microbatch_size: rows of a part, a divisor of the batch's; None: all at once.
        vmap_fn: what maps, with the arguments `(fun, in_dims)`.
        accumulator: CONCAT gives every result a batch axis in front, as `vmap` does; SUM and MEAN take it away, and so hold one.
        num_real_microbatches: as in `microbatch`.

    Returns:
        A function of batches.

    Raises:
        TypeError, ValueError: at a call, `in_dims` does not fit, batch axes differ or cannot be cut, or an accumulator is none.

    Example:
        >>> fo.microbatching.micro_vmap(lambda x: x**2, microbatch_size=2)(torch.arange(6))
        tensor([ 0,  1,  4,  9, 16, 25])
    """
    where = "micro_vmap"

    def batched(dims: tuple[int | None, ...], *args: Any) -> Any:
        *given, kwargs = args
        structure: list[Any] = []

        def one(*mine: Any) -> tuple[Tensor, ...]:
            *plain, named = mine
            result = fun(*plain, **named)
            structure[:] = [tree.structure(result)]
            return tuple(tree.leaves(result))

        leaves = vmap_fn(one, (*dims, 0 if tree.leaves(kwargs) else None))(*given, kwargs)
        result = structure[0].unflatten(list(leaves))
        if not leaves:
            return result
        kinds = [_accumulator(where, kind, 1) for kind in tree.broadcast_prefix(accumulator, result, where, "accumulator")]
        return tree.unflatten(result, [kind.aggregate(x) for kind, x in zip(kinds, leaves, strict=True)])

    def run(*args: Any, **kwargs: Any) -> Any:
        dims = (in_dims,) * len(args) if in_dims is None or isinstance(in_dims, int) else tuple(in_dims)
        if len(dims) != len(args):
            raise ValueError(f"{where}: in_dims must have one entry for each argument, got {len(dims)} for {len(args)}")
        mapped: list[tuple[int, int]] = [(place, dim) for place, dim in enumerate(dims) if dim is not None]
        if kwargs:
            mapped.append((len(args), 0))
        if not mapped:
            raise ValueError(f"{where}: some argument must have a batch axis, got in_dims {in_dims!r}")
        cut = microbatch(
            partial(batched, dims),
            [place for place, _ in mapped],
            microbatch_size,
            accumulator,
            in_dims=[dim for _, dim in mapped],
            num_real_microbatches=num_real_microbatches,
        )
        return cut(*args, kwargs)

    return run


def micro_grad(
    fun: Function,
    has_aux: bool = False,
    argnums: int | Sequence[int] = 0,
    *,
    batch_argnums: int | Sequence[int] = 1,
    keep_batch_dim: bool = True,
    microbatch_size: int | None = None,
    accumulator: Any = AccumulationType.SUM,
    transform_fn: Callable[[Any], Any] = lambda gradient: gradient,
    metrics_fn: Callable[[Any], Any] = lambda gradient: None,
    num_real_microbatches: int | None = None,
) -> Callable[..., tuple[Any, IndividualOutputs]]:
    """The gradients of single examples, changed one by one and then added up, without ever holding those of the whole batch.

    Args:
        fun: a loss, `(params, batch, ...) -> loss` (or `(loss, aux)` with `has_aux`).
        has_aux: whether it returns a pair.
        argnums: by which arguments it is differentiated.
        batch_argnums: which arguments have a batch axis in front.
        keep_batch_dim: hand an example over as a batch of one; else without that axis.
        microbatch_size: examples of a part, a divisor of the batch's; None: all at once.
        accumulator: how the gradients become one, as in `microbatch`.
        transform_fn: of the gradient of an example; its result is what is added up.
        metrics_fn: of that gradient, too; its result, small, comes back of every example.
        num_real_microbatches: as in `microbatch`.

    Returns:
        A function of the arguments of `fun` that gives what was added up, and `IndividualOutputs(values, metrics, aux)` of every example.

    Example:
        >>> squares = fo.microbatching.micro_grad(
        ...     lambda w, x, y: 0.5 * (x @ w - y).square().mean(),
        ...     batch_argnums=(1, 2),
        ...     microbatch_size=2,
        ...     accumulator=fo.microbatching.AccumulationType.MEAN,
        ...     transform_fn=lambda g: (g, g**2),
        ...     metrics_fn=torch.linalg.vector_norm,
        ... )
        >>> (mean, second), each = squares(torch.zeros(1), torch.ones(4, 1), torch.tensor([0.0, 2.0, 4.0, 6.0]))
        >>> mean, second, each.metrics
        (tensor([-3.]), tensor([14.]), tensor([0., 2., 4., 6.]))
    """
    where = "micro_grad"
    batch_places = _numbers(where, "batch_argnums", batch_argnums, int)
    wanted = argnums if isinstance(argnums, int) else tuple(argnums)

    def of_one(*args: Any, **kwargs: Any) -> Any:
        if keep_batch_dim:
            args = tuple(tree.map_plain(lambda x: x.unsqueeze(0), a) if i in batch_places else a for i, a in enumerate(args))

        def paired(*mine: Any) -> tuple[Tensor, Any]:
            found = fun(*mine, **kwargs)
            return found if has_aux else (found, ())

        gradient, (value, aux) = torch.func.grad_and_value(paired, wanted, has_aux=True)(*args)
        return transform_fn(gradient), IndividualOutputs(value, metrics_fn(gradient), aux if has_aux else None)

    def run(*args: Any, **kwargs: Any) -> tuple[Any, IndividualOutputs]:
        dims = [0 if place in batch_places else None for place in range(len(args))]
        added = micro_vmap(
            of_one,
            dims,
            microbatch_size=microbatch_size,
            accumulator=(accumulator, AccumulationType.CONCAT),
            num_real_microbatches=num_real_microbatches,
        )
        return added(*args, **kwargs)

    return run
