"""Flat: a tree held as one contiguous vector per dtype and device, and the way back.

Elementwise mathematics does not care how its entries are cut into leaves. On one vector
a thousand small leaves cost what one large leaf costs, and compile as fast. Leaves that
are worked out otherwise than others (their label is another) have a vector of their own.
Within a vector leaves of one shape may lie side by side, and are then one tensor, stacked.
(`funcopt.flatten` is something else: the link that makes per-leaf methods whole-model ones.)
"""

import builtins
import copy
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import tree
from funcopt.core.masking import HIDDEN, hide
from funcopt.core.protocol import TensorTree

__all__ = ["Flat", "Layout", "Stacked"]

STACK_BYTES = 2**20  # leaves that are worked out together must fit a cache: what is written by one operation is read by the next


class Flat(NamedTuple):
    """A tree as vectors; itself a tree, on which transformations run as on any other."""

    vectors: dict[str, Any]  # "float32 cpu" -> [entries of that dtype and device]


class Stacked(NamedTuple):
    """What a state keeps for each leaf, leaves of one shape together."""

    stacks: dict[str, Any]  # "float32 cpu [16, 32]" -> what is kept for these leaves: [leaves, ...]


class Layout:
    """Where each leaf of a tree lies in its vectors.

    Args:
        params: the tree whose structure, shapes, dtypes and devices are laid out.
        labels: one for each leaf; leaves with different ones lie in different vectors, and
            leaves of one shape side by side. None: one vector, in the order of the tree.

    Example:
        >>> params = {"b": torch.tensor([5.0]), "w": torch.tensor([[1.0, 2.0], [3.0, 4.0]])}
        >>> layout = fo.Layout(params)
        >>> flat = layout.ravel(params)
        >>> flat.vectors["float32 cpu"]
        tensor([5., 1., 2., 3., 4.])
        >>> layout.unravel(flat)["w"]
        tensor([[1., 2.],
                [3., 4.]])
        >>> fo.Layout(params, labels=["slow", "fast"])
        Layout(2 leaves, 5 entries, in float32 cpu slow, float32 cpu fast)
    """

    def __init__(self, params: TensorTree, labels: Sequence[Hashable] | None = None):
        leaves = tree.leaves(params)
        for index, x in enumerate(leaves):
            if not isinstance(x, Tensor):
                path = tree.paths(params)[index]
                raise TypeError(f"Layout: params must be a tree of tensors, got {type(x).__name__} at '{path}'")
        if labels is not None and len(labels) != len(leaves):
            raise ValueError(f"Layout: labels must be a sequence of one for each of {len(leaves)} leaves, got {len(labels)}")
        self.shapes = [tuple(x.shape) for x in leaves]
        self.groups: dict[str, list[int]] = {}  # vector -> its leaves, in order
        self.stacks: dict[str, list[int]] = {}  # leaves of one shape in one vector, in order
        self.names: dict[Hashable, str] = {}  # label -> what it adds to the names of its vectors
        for index, x in enumerate(leaves):
            label = self._named(labels[index]) if labels is not None else ""
            self.groups.setdefault(f"{str(x.dtype).removeprefix('torch.')} {x.device}{label}", []).append(index)
        if labels is not None:
            for key, members in self.groups.items():
                of_shape: dict[tuple[int, ...], list[int]] = {}
                for index in members:
                    of_shape.setdefault(self.shapes[index], []).append(index)
                self.groups[key] = [index for alike in of_shape.values() for index in alike]
                for shape, alike in of_shape.items():
                    first = leaves[alike[0]]
                    most = max(1, STACK_BYTES // max(1, first.numel() * first.element_size()))
                    for start in range(0, len(alike), most):
                        self.stacks[f"{key} {list(shape)}" + (f" from {start}" if start else "")] = alike[start : start + most]
        # Structure is kept as a tree of numbers: a captured tree spec does not trace.
        self.numbers = tree.unflatten(params, list(range(len(leaves))))
        self.visible = list(range(len(leaves)))
        self.hidden: list[str] = []  # vectors of leaves that are masked out
        self.sizes = [x.numel() for x in leaves]
        self.structure = tree.structure(params)
        self.parts: dict[tuple[str, ...], Layout] = {}  # by what they see

    def _named(self, label: Hashable) -> str:
        if label not in self.names:
            name = "".join(f" {word}" for word in (label if isinstance(label, tuple) else (label,)))
            while name in self.names.values() and name:
                name += "'"
            self.names[label] = name
        return self.names[label]

    def __repr__(self) -> str:
        entries = builtins.sum(self.sizes[index] for index in self.visible)
        return f"Layout({len(self.visible)} leaves, {entries} entries, in {', '.join(self.groups) or 'nothing'})"

    def ravel(self, values: TensorTree) -> Flat:
        """A tree like params as vectors (copies)."""
        leaves = tree.leaves(values)
        if len(leaves) != len(self.visible):
            raise ValueError(f"Layout.ravel: the tree must have {len(self.visible)} leaves, got {len(leaves)}")
        at = dict(zip(self.visible, leaves, strict=True))
        vectors = {key: torch.cat([at[index].reshape(-1) for index in members]) for key, members in self.groups.items()}
        return Flat(vectors={**vectors, **dict.fromkeys(self.hidden, HIDDEN)})

    def unravel(self, flat: Flat) -> TensorTree:
        """The tree, each leaf a view of its vector."""
        if not isinstance(flat, Flat):
            raise TypeError(f"Layout.unravel: flat must be a Flat, as ravel gives it, got {type(flat).__name__}")
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
        """A state with every `Flat` and every `Stacked` in it turned into a tree like params."""
        return tree.map_until((Flat, Stacked), lambda part: self._shown(part)._apart(part), state)

    def ravel_state(self, state: Any, like: Any) -> Any:
        """A leafwise state in the form of `like`, which holds a `Flat` or a `Stacked` wherever trees like params stand."""
        return tree.map_until((Flat, Stacked), lambda part, given: self._shown(part)._together(part, given), like, state)

    def _apart(self, part: Any) -> Any:
        return self.unravel(part) if isinstance(part, Flat) else self.unstack(part) if isinstance(part, Stacked) else part

    def _together(self, part: Any, given: Any) -> Any:
        return self.ravel(given) if isinstance(part, Flat) else self.stack(given) if isinstance(part, Stacked) else given

    # --- leaves of one shape together ---

    def stack(self, values: Any) -> Stacked:
        """What is kept for each leaf, which may be several tensors, leaves of one shape together (copies)."""
        parts = dict(zip(self.visible, tree.subtrees(values, self.numbers), strict=True))
        stacked = {
            name: tree.map_plain(lambda *xs: torch.stack(xs), *[parts[index] for index in members]) for name, members in self.stacks.items()
        }
        return Stacked(stacked)

    def unstack(self, stacked: Stacked) -> Any:
        """The tree again, with views of what was stacked."""
        if not isinstance(stacked, Stacked):
            raise TypeError(f"Layout.unstack: stacked must be a Stacked, as stack gives it, got {type(stacked).__name__}")
        views = {}
        for name, members in self.stacks.items():
            for place, index in enumerate(members):
                views[index] = tree.map_plain(lambda x, place=place: x[place], stacked.stacks[name])
        return tree.substitute(self.numbers, views)

    def stacked(self, values: Any) -> Stacked:
        """A tree like params, in whatever form, with leaves of one shape as one tensor `[leaves, *shape]`, a view of their vector."""
        if isinstance(values, Stacked):
            return values
        flat, views = self.vectors(values), {}
        for key, members in self.groups.items():
            names = [name for name, stack in self.stacks.items() if stack[0] in members]
            sizes = [len(self.stacks[name]) * self.sizes[self.stacks[name][0]] for name in names]
            for name, part in zip(names, torch.split(flat.vectors[key], sizes), strict=True):
                views[name] = part.view(len(self.stacks[name]), *self.shapes[self.stacks[name][0]])
        return Stacked(views)

    def vectors(self, values: Any) -> Flat:
        """A tree like params, in whatever form, as vectors."""
        if isinstance(values, Flat):
            return values
        if not isinstance(values, Stacked):
            return self.ravel(values)
        parts = {key: [name for name, stack in self.stacks.items() if stack[0] in members] for key, members in self.groups.items()}
        vectors = {key: torch.cat([values.stacks[name].reshape(-1) for name in names]) for key, names in parts.items()}
        return Flat(vectors={**vectors, **dict.fromkeys(self.hidden, HIDDEN)})

    # --- parts, of which the other leaves are masked out ---

    def part(self, kept: list[bool]) -> "Layout":
        """The layout for those who see some of the leaves alone: all leaves of a vector, or none.

        Raises:
            ValueError: part of a vector is kept, or `kept` has not one bool for each leaf.
        """
        self._one_each("part", "kept", kept)
        seen = {index for index, keep in zip(self.visible, kept, strict=True) if keep}
        for key, members in self.groups.items():
            if 0 < len(seen.intersection(members)) < len(members):
                raise ValueError(
                    f"Layout.part: all leaves of a vector must be kept, or none, got part of '{key}'; give them labels of their own"
                )
        part = copy.copy(self)
        part.visible = [index for index in self.visible if index in seen]
        part.groups = {key: members for key, members in self.groups.items() if members[0] in seen}
        part.stacks = {name: members for name, members in self.stacks.items() if members[0] in seen}
        part.hidden = [*self.hidden, *(key for key in self.groups if key not in part.groups)]
        part.numbers = hide(kept, self.numbers)
        self.parts[tuple(part.groups)] = part
        self.parts[tuple(part.stacks)] = part
        return part

    def labelled(self, labels: Sequence[Hashable]) -> list[Hashable]:
        """From one label for each leaf one for each vector, in the order in which a `Flat` has its leaves."""
        self._one_each("labelled", "labels", labels)
        of = dict(zip(self.visible, labels, strict=True))
        return [of[self.groups[key][0]] for key in sorted(self.groups)]

    def _one_each(self, where: str, name: str, given: Any) -> None:
        if not isinstance(given, (list, tuple)) or len(given) != len(self.visible):
            got = f"{len(given)}" if isinstance(given, (list, tuple)) else type(given).__name__
            raise ValueError(f"Layout.{where}: {name} must be a list of one for each of {len(self.visible)} leaves, got {got}")

    def _shown(self, held: Any) -> "Layout":
        """The part that sees what is not hidden in a `Flat` or a `Stacked`."""
        if isinstance(held, Flat):
            keys = tuple(key for key in self.groups if isinstance(held.vectors[key], Tensor))
        elif isinstance(held, Stacked):
            keys = tuple(name for name in self.stacks if name in held.stacks)
        else:
            return self
        return self if keys in (tuple(self.groups), tuple(self.stacks)) else self.parts[keys]
