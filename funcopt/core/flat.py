"""Flat: a tree held as one contiguous vector per dtype and device, and the way back.

Elementwise mathematics does not care how its entries are cut into leaves. On one vector
a thousand small leaves cost what one large leaf costs, and compile as fast.
(`funcopt.flatten` is something else: the link that makes per-leaf methods whole-model ones.)
"""

import builtins
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import tree
from funcopt.core.protocol import TensorTree

__all__ = ["Flat", "Layout"]


class Flat(NamedTuple):
    """A tree as vectors; itself a tree, on which transformations run as on any other."""

    vectors: dict[str, Tensor]  # "float32 cpu" -> [entries of that dtype and device]


class Layout:
    """Where each leaf of a tree lies in its vectors.

    Args:
        params: the tree whose structure, shapes, dtypes and devices are laid out.

    Example:
        >>> params = {"b": torch.tensor([5.0]), "w": torch.tensor([[1.0, 2.0], [3.0, 4.0]])}
        >>> layout = fo.Layout(params)
        >>> flat = layout.ravel(params)
        >>> flat.vectors["float32 cpu"]
        tensor([5., 1., 2., 3., 4.])
        >>> layout.unravel(flat)["w"]
        tensor([[1., 2.],
                [3., 4.]])
    """

    def __init__(self, params: TensorTree):
        leaves = tree.leaves(params)
        self.shapes = [tuple(x.shape) for x in leaves]
        self.groups: dict[str, list[int]] = {}  # vector -> its leaves, in order
        for index, x in enumerate(leaves):
            self.groups.setdefault(f"{str(x.dtype).removeprefix('torch.')} {x.device}", []).append(index)
        # Structure is kept as a tree of numbers: a captured tree spec does not trace.
        self.numbers = tree.unflatten(params, list(range(len(leaves))))
        self.sizes = [x.numel() for x in leaves]
        self.structure = tree.structure(params)

    def __repr__(self) -> str:
        return f"Layout({len(self.shapes)} leaves, {builtins.sum(self.sizes)} entries, in {', '.join(self.groups) or 'nothing'})"

    def ravel(self, values: TensorTree) -> Flat:
        """A tree like params as vectors (copies)."""
        leaves = tree.leaves(values)
        if len(leaves) != len(self.shapes):
            raise ValueError(f"Layout.ravel: the tree must have {len(self.shapes)} leaves, got {len(leaves)}")
        return Flat(vectors={key: torch.cat([leaves[index].reshape(-1) for index in members]) for key, members in self.groups.items()})

    def unravel(self, flat: Flat) -> TensorTree:
        """The tree, each leaf a view of its vector."""
        views: dict[int, Tensor] = {}
        for key, members in self.groups.items():
            # One split, not many slices: the gradient through slices costs 8 times as much.
            parts = torch.split(flat.vectors[key], [self.sizes[index] for index in members])
            for index, part in zip(members, parts, strict=True):
                views[index] = part.view(self.shapes[index])
        return tree.substitute(self.numbers, views)

    def raveled(self, value: Any) -> Any:
        """An extra argument: a tree like params as vectors, anything else as it is."""
        if not isinstance(value, (dict, list, tuple)) or tree.structure(value) != self.structure:
            return value
        alike = all(getattr(x, "shape", None) == shape for x, shape in zip(tree.leaves(value), self.shapes, strict=True))
        return self.ravel(value) if alike else value

    def unravel_state(self, state: Any) -> Any:
        """A state with every `Flat` in it turned into a tree like params."""
        return tree.map_until(Flat, lambda part: self.unravel(part) if isinstance(part, Flat) else part, state)

    def ravel_state(self, state: Any, like: Any) -> Any:
        """A leafwise state in the form of `like`, which holds a `Flat` wherever trees like params stand."""
        return tree.map_until(Flat, lambda part, given: self.ravel(given) if isinstance(part, Flat) else given, like, state)
