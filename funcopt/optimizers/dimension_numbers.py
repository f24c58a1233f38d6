"""Which axes of a leaf make a matrix: what methods on matrices (Muon, GaLore) are told, and how they read it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from funcopt.core import TensorTree, tree
from funcopt.transforms.groups import Labels, entries_of

Axes = int | Sequence[int]


@dataclass(frozen=True)
class MuonDimensionNumbers:
    """Which axes of a leaf make its matrix; all others are batches of matrices.

    Args:
        reduction_axis: the axis or axes that the layer sums over (its inputs).
        output_axis: the axis or axes of its outputs.
        split: how many matrices of equally many outputs lie one after the other (3 for fused queries, keys and values), or the
            outputs of each, such as (768, 256, 256). Each is orthogonalised, and sized, by itself.

    The default is torch's layout of `nn.Linear`; a convolution, (out, in, height, width),
    is `MuonDimensionNumbers(reduction_axis=(1, 2, 3), output_axis=0)`.
    """

    reduction_axis: Axes = 1
    output_axis: Axes = 0
    split: int | tuple[int, ...] = 1


def axes_of(axes: Axes, rank: int) -> list[int]:
    return [axis % rank for axis in ((axes,) if isinstance(axes, int) else axes)]


def size_along(x: Tensor, axes: list[int]) -> int:
    size = 1
    for axis in axes:
        size *= x.shape[axis]
    return size


def as_matrices(x: Tensor, numbers: MuonDimensionNumbers) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """A leaf as matrices [..., inputs, outputs], and what puts matrices of that shape back into its own."""
    reduction, output = axes_of(numbers.reduction_axis, x.dim()), axes_of(numbers.output_axis, x.dim())
    order = [axis for axis in range(x.dim()) if axis not in (*reduction, *output)]
    batch = [x.shape[axis] for axis in order]
    order += reduction + output
    turned = x.permute(order)

    def back(matrices: Tensor) -> Tensor:
        return matrices.reshape(turned.shape).permute([order.index(axis) for axis in range(x.dim())])

    return turned.reshape([*batch, size_along(x, reduction), size_along(x, output)]), back


def parts_of(numbers: MuonDimensionNumbers, outputs: int) -> list[int]:
    """The outputs of each of the matrices that a leaf is split into."""
    split = numbers.split
    return [outputs // split] * split if isinstance(split, int) else list(split)


def dimensions_of(where: str, name: str, given: Any) -> Callable[[TensorTree], list[Any]]:
    """From what the user says, a function that gives the numbers of every leaf (None: no matrix)."""

    asks = callable(given)

    def entries(values: TensorTree) -> list[Any]:
        if given is None:
            return [MuonDimensionNumbers() if leaf.dim() == 2 else None for leaf in tree.leaves(values)]
        if isinstance(given, Labels):
            return entries_of(given, values, where, name)
        return tree.entries_at(given(values) if asks else given, values, where, name)

    def checked(values: TensorTree) -> list[Any]:
        found = entries(values)
        for index, (numbers, leaf) in enumerate(zip(found, tree.leaves(values), strict=True)):
            if numbers is None:
                continue
            if not isinstance(numbers, MuonDimensionNumbers):
                raise TypeError(f"{where}: {name} must hold MuonDimensionNumbers or None, got {numbers!r} at '{tree.paths(values)[index]}'")
            ours = (numbers.reduction_axis, numbers.output_axis)
            axes = [axis for part in ours for axis in ((part,) if isinstance(part, int) else part)]
            if not all(-leaf.dim() <= axis < leaf.dim() for axis in axes) or len({axis % leaf.dim() for axis in axes}) != len(axes):
                raise ValueError(
                    f"{where}: {name} must name different axes of each leaf, got {ours[0]} and {ours[1]} at "
                    f"'{tree.paths(values)[index]}' of rank {leaf.dim()}"
                )
            _check_split(
                where, numbers, size_along(leaf, axes_of(numbers.output_axis, leaf.dim())), lambda index=index: tree.paths(values)[index]
            )
        return found

    return checked


def _check_split(where: str, numbers: MuonDimensionNumbers, outputs: int, path: Callable[[], str]) -> None:
    split = numbers.split
    if isinstance(split, int):
        if split < 1 or outputs % split:
            raise ValueError(f"{where}: split must divide the outputs of a leaf, got {split} for the {outputs} of '{path()}'")
    elif not split or min(split) < 1 or sum(split) != outputs:
        raise ValueError(
            f"{where}: split must be numbers of outputs that make up those of a leaf, got {split} for the {outputs} of '{path()}'"
        )


def the_same(given: Any) -> bool:
    """Whether all leaves have the same numbers, and so need not be told apart."""
    return given is None or isinstance(given, MuonDimensionNumbers)
