"""Units: parameters that are one tree for the transformation, with the state they share.

A transformation that looks at each parameter by itself has one unit for each group, and
one more for parameters that came later or paused (each with counters of its own, as in
torch); any other has a single unit for all groups. A unit runs leaf by leaf, or on one
flat vector; what it stores looks the same.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import Signals, read_signals, sharded, tree
from funcopt.core.flat import Flat, Layout
from funcopt.core.protocol import GradientTransformation
from funcopt.torch_optim import piecewise
from funcopt.torch_optim.scratch import Scratch, flattened, spread, unflattened
from funcopt.torch_optim.storage import Place, detached, memory, places

__all__ = ["Member", "Unit"]

HALF = (torch.float16, torch.bfloat16)


class Member(NamedTuple):
    key: str  # in the tree
    param: Tensor
    group: int  # index of its group


def viewed(x: Tensor) -> Tensor:
    """Outside of the graph of derivatives, and complex numbers as pairs of real ones."""
    x = x.detach()
    return torch.view_as_real(x) if x.is_complex() else x


class Unit:
    """One tree of parameters and its state.

    Args:
        tx: the transformation.
        members: the parameters; kept in the order of their keys, which is that of the tree.
        home: the dict for the leaves that all share.
        label: prefix of the paths there; "" but for parameters that came later.
        wide: keep the state of half precision parameters in float32 and add there.
        flat: run on one vector.
        apart: every parameter is worked out by itself, but for what is counted.
    """

    def __init__(self, tx: GradientTransformation, members: Sequence[Member], home: dict, label: str, *, wide: bool, flat: bool, fixed: bool, apart: bool):
        self.tx, self.home, self.label, self.fixed = tx, home, label, fixed
        self.members = sorted(members)
        self.keys = [member.key for member in self.members]
        self.params = [member.param for member in self.members]
        self.groups = sorted({member.group for member in self.members})
        self.group_of = [member.group for member in self.members]
        self.dtypes = [torch.float32 if wide and p.dtype in HALF else p.dtype for p in self.views()]
        self.casts = any(dtype != p.dtype for dtype, p in zip(self.dtypes, self.views(), strict=True))
        self.plain = all(type(p) in (Tensor, torch.nn.Parameter) for p in self.params)
        self.layout = Layout(dict(zip(self.keys, self.wide(self.views()), strict=True))) if flat else None
        self.vector = next(iter(self.layout.groups)) if self.layout else ""
        self.scratch: Any = None  # the vector of gradients, and its parts
        self.owned: Tensor | None = None  # the vector of which the parameters are views
        self.compiled: Any = None
        self.complex = any(p.is_complex() for p in self.params)
        self.factors: list[Any] = [1.0] * len(self.groups)
        self.stale = False  # leaves have changed by ways that have left the tree behind
        self.values: Any = None  # hyperparameters, of which tx was made
        self.apart = apart and self.plain and not flat
        self.pieces: list[piecewise.Piece] = []  # in which an eager step works, one after the other

    def views(self, members: slice = slice(None)) -> list[Tensor]:
        return [viewed(p) for p in self.params[members]]

    def wide(self, views: Sequence[Tensor]) -> list[Tensor]:
        return [x.to(dtype) for x, dtype in zip(views, self.dtypes, strict=True)] if self.casts else list(views)

    def arguments(self, leaves: Sequence[Tensor]) -> Any:
        """Leaves in the order of keys as the tree on which the transformation runs."""
        if self.layout is None:
            return dict(zip(self.keys, leaves, strict=True))
        return Flat({self.vector: flattened([x.contiguous() for x in leaves])})

    # --- state ---

    def first(self) -> Any:
        """The state before the first step, on which the unit runs."""
        views = self.views()
        inputs = self.arguments(self.wide(views))
        return detached(self.tx.init(inputs), [*views, *tree.leaves(inputs)])

    def settle(self, state: dict, given: Any = None) -> None:
        """Makes the state, takes over what is stored already, and stores the rest."""
        self.state = state
        self.tree = self.first() if given is None else given
        self.keep(self.tree)
        self.dicts, self.names = [], []
        by_key = dict(zip(self.keys, self.params, strict=True))
        taken = {memory(x) for x in self.params}
        for index, (place, leaf) in enumerate(zip(self.places, self.leaves, strict=True)):
            home = self.home if place.owner is None else state[by_key[place.owner]]
            name = self.label + place.path if place.owner is None else place.path
            found = home.get(name)
            if isinstance(found, Tensor) and found.shape == leaf.shape:
                if self.layout is not None and place.owner is not None:
                    leaf.copy_(found)
                else:
                    leaf = found.detach().to(device=leaf.device, dtype=leaf.dtype)
                    if memory(leaf) in taken:
                        leaf = leaf.clone()  # what is written in place lies apart
                    taken.add(memory(leaf))
            home[name] = self.leaves[index] = leaf
            self.dicts.append(home)
            self.names.append(name)
        self.owners = [(by_key[key], state[by_key[key]]) for key in dict.fromkeys(p.owner for p in self.places if p.owner is not None)]
        self.owning, self.homes = [param for param, _ in self.owners], [home for _, home in self.owners]
        if self.layout is None:
            self.tree = tree.unflatten(self.tree, self.leaves)
            self.pieces = piecewise.cut(self)
        else:
            self.take_scalars()

    def resettle(self) -> None:
        """Makes the state of another transformation, and takes over what has the same path."""
        old = list(zip(self.dicts, self.names, strict=True))
        self.settle(self.state)
        kept = {(id(home), name) for home, name in zip(self.dicts, self.names, strict=True)}
        for home, name in old:
            if (id(home), name) not in kept:
                home.pop(name, None)

    def keep(self, state: Any) -> None:
        """Notes the leaves of a state and their places."""
        shown = state if self.layout is None else self.layout.unravel_state(state)
        self.places: list[Place] = places(shown, self.keys)
        self.leaves: list[Tensor] = tree.leaves(shown)
        if self.layout is not None:
            inner = places(state, ())
            shared = {place.path: index for index, place in enumerate(self.places) if place.owner is None}
            self.vectors = [index for index, place in enumerate(inner) if place.owner == "*"]
            self.scalars = [(index, shared[place.path]) for index, place in enumerate(inner) if place.owner is None]
            self.shown = dict(self.scalars)

    def take_scalars(self) -> None:
        held = tree.leaves(self.tree)
        for index, shown in self.scalars:
            held[index] = self.leaves[shown]
        self.held = held
        self.tree = tree.unflatten(self.tree, held)

    def intact(self, state: dict) -> bool:
        """Whether what is stored is what was stored last."""
        try:
            stored = all(map(operator.is_, map(operator.getitem, self.dicts, self.names), self.leaves))
        except KeyError:
            return False
        return stored and all(map(operator.is_, map(state.get, self.owning), self.homes))

    def own(self) -> None:
        """Makes the parameters views of one vector."""
        self.owned = flattened(self.params).detach()
        for param, part in zip(self.params, unflattened(self.owned, self.params), strict=True):
            param.data = part
        self.addresses = list(map(Tensor.data_ptr, self.params))

    def spread(self) -> None:
        """Lays the leaves of a state that a graph writes in place where they do not stand in each other's way."""
        for index, leaf in enumerate(self.leaves):
            self.leaves[index] = self.dicts[index][self.names[index]] = spread(leaf, index)
        self.stale = True

    def fresh(self) -> Any:
        """The state on which the unit runs, of the leaves as they are."""
        if self.stale:
            self.tree = tree.unflatten(self.tree, self.leaves if self.layout is None else self.held)
            self.stale = False
        return self.tree

    def leafwise(self) -> Any:
        """The state with a tree wherever the unit keeps a vector."""
        self.fresh()
        return self.tree if self.layout is None else self.layout.unravel_state(self.tree)

    def take(self, state: Any) -> None:
        """Takes over a leafwise state of the same structure; copies."""
        overwrite(
            self.leaves, [given.detach().to(device=old.device, dtype=old.dtype) for old, given in zip(self.leaves, tree.leaves(state), strict=True)], False
        )
        self.stale = True

    def signals(self) -> dict[str, Tensor]:
        return read_signals(self.fresh())

    def shaped(self, name: str, value: Any, groups: Sequence[dict]) -> Any:
        """An extra with a tensor for each parameter (a Hessian's diagonal) as a tree of this unit: given by name, or in the order of the groups."""
        if not isinstance(value, dict):
            everybody = [p for group in groups for p in group["params"]]
            if len(value) != len(everybody):
                raise ValueError(f"torch_optim: {name} must have a tensor for each of {len(everybody)} parameters, got {len(value)}")
            by_id = dict(zip(map(id, everybody), value, strict=True))
            leaves = [by_id[id(p)] for p in self.params]
        elif all(key in value for key in self.keys):
            leaves = [value[key] for key in self.keys]
        else:
            return value
        return self.arguments(self.wide([viewed(x) for x in leaves]))

    # --- a step ---

    def heard(self, words: dict[str, Tensor]) -> Signals:
        return Signals(words, read_signals(self.fresh()))  # as a chain opens them, without looking at the trees once more

    def advance(self, grads: list[Tensor], words: dict[str, Tensor], extra: dict, missing: set[str], sized: Callable) -> Callable:
        """One eager step: all is worked out here, and written by what comes back."""
        if self.layout is not None and not missing:
            return self._advance_flat(grads, words, extra, sized)
        if self.pieces and not any(isinstance(value, dict) for value in extra.values()):
            return piecewise.advance(self, grads, words, extra, missing, sized)
        views = self.views()
        inputs = self.wide(views)
        grads = [g.to(dtype) for g, dtype in zip(grads, self.dtypes, strict=True)] if self.casts else grads
        state, params = self.leafwise(), dict(zip(self.keys, inputs, strict=True))
        updates, new = self.tx.update(dict(zip(self.keys, grads, strict=True)), state, params, signals=self.heard(words), **extra)
        updates = sized([updates[key] for key in self.keys])
        self.check(updates, views)
        return lambda: self._commit(updates, views, inputs, missing, new)

    def store(self, index: int, leaf: Tensor) -> None:
        self.leaves[index] = self.dicts[index][self.names[index]] = leaf

    def _commit(self, updates: list[Tensor], views: list[Tensor], inputs: list[Tensor], missing: set[str], new: Any) -> None:
        new_leaves = tree.leaves(new)
        self.apply(self.keys, updates, views, inputs, missing)
        if len(new_leaves) != len(self.leaves):  # it fills at the first update, as from_torch may
            for home, name in zip(self.dicts, self.names, strict=True):
                home.pop(name, None)
            self.settle(self.state, detached(new, views))
            return
        if not self.plain:
            new_leaves = [sharded.laid_out(leaf, old) for old, leaf in zip(self.leaves, new_leaves, strict=True)]
            new = tree.unflatten(new, new_leaves)
        if missing:
            new_leaves = [old if place.owner in missing else leaf for place, old, leaf in zip(self.places, self.leaves, new_leaves, strict=True)]
        if self.layout is not None or self.fixed:
            overwrite(self.leaves, new_leaves, self.plain)
            return
        self.leaves = new_leaves
        for home, name, leaf in zip(self.dicts, self.names, new_leaves, strict=True):
            home[name] = leaf
        self.tree = tree.unflatten(new, new_leaves) if missing else new

    def check(self, updates: list[Tensor], views: list[Tensor]) -> None:
        for update, view in zip(updates, views, strict=True):
            if update.shape != view.shape:
                raise ValueError(f"{self.tx.name}: an update must have the shape of its parameter, {tuple(view.shape)}, got {tuple(update.shape)}")

    def apply(self, keys: list[str], updates: list[Tensor], views: list[Tensor], inputs: list[Tensor], missing: set[str]) -> None:
        if self.plain and not self.casts and not missing and all(update.dtype == view.dtype for update, view in zip(updates, views, strict=True)):
            torch._foreach_add_(views, updates)
            return
        for key, view, x, update in zip(keys, views, inputs, updates, strict=True):
            if key not in missing:
                view.copy_(sharded.laid_out(x + update, view))

    def _advance_flat(self, grads: list[Tensor], words: dict[str, Tensor], extra: dict, sized: Callable) -> Callable:
        params, gradient = self.gathered(grads)
        vector = self.vector
        updates, new = self.tx.update(Flat({vector: gradient}), self.fresh(), Flat({vector: params}), signals=self.heard(words), **extra)
        (update,) = sized([updates.vectors[vector]])

        def commit() -> None:
            self.store_flat(tree.leaves(new))  # first: a leaf may be the parameters of before
            self.scatter(params, update)

        return commit

    def gathered(self, grads: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Parameters and gradients as vectors; both are overwritten by the next step, the first (unless it is cast) by `scatter`."""
        if self.scratch is None:
            dtype = self.dtypes[0] if self.casts else grads[0].dtype
            self.scratch = Scratch(self.params, dtype), Scratch(self.params, self.params[0].dtype) if self.owned is None else None
        if self.owned is not None and list(map(Tensor.data_ptr, self.params)) != self.addresses:
            self.own()  # somebody has given a parameter other memory (vector_to_parameters, a swap of averages)
        gradient, params = self.scratch
        params = self.owned if params is None else params.filled(self.params)
        return (params.to(self.dtypes[0]) if self.casts else params), gradient.filled(grads)

    def scatter(self, params: Tensor, update: Tensor) -> None:
        """Adds the vector of updates to the parameters."""
        moved = params.add_(update) if update.dtype == params.dtype else params + update
        if self.owned is None:
            self.scratch[1].emptied(moved, self.params)
        elif moved is not self.owned:
            self.owned.copy_(moved)

    def store_flat(self, leaves: list[Tensor]) -> None:
        """Vectors into their places, of which what is stored are views; numbers anew."""
        overwrite([self.held[index] for index in self.vectors], [leaves[index] for index in self.vectors], True)
        if self.fixed:
            overwrite([self.held[index] for index, _ in self.scalars], [leaves[index] for index, _ in self.scalars], True)
            return
        for index, shown in self.scalars:
            leaf = leaves[index]
            self.held[index] = self.leaves[shown] = leaf
            self.dicts[shown][self.names[shown]] = leaf
        self.tree = tree.unflatten(self.tree, self.held)


def overwrite(old: list[Tensor], new: list[Tensor], plain: bool) -> None:
    """Copies results into the tensors that hold the old ones, also where one of them is another's old one."""
    held = {id(x) for x in old}
    new = [y.clone() if id(y) in held and y is not x else y for x, y in zip(old, new, strict=True)]
    moved = [(x, y) for x, y in zip(old, new, strict=True) if x is not y]
    if plain and moved:
        torch._foreach_copy_([x for x, _ in moved], [y for _, y in moved])
    else:
        for x, y in moved:
            x.copy_(y)
