"""Units: parameters that are one tree for the transformation, with the state they share.

A transformation that looks at each parameter by itself has one unit for each group, and
one more for parameters that came later or paused (each with counters of its own, as in
torch); any other has a single unit for all groups. A unit runs leaf by leaf, or on one
flat vector; what it stores looks the same.

Compiled steps are the runner's (`run/compiled.py`). Eager ones add in place, and new states take the place of old ones; the
runner's donated form would make a tree of sums, and copy that and the states back.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import Signals, read_signals, sharded, tree
from funcopt.core.dtypes import HALF
from funcopt.core.protocol import GradientTransformation
from funcopt.execute.donation import write, write_leaves
from funcopt.execute.layouts.layout import Flat, Layout
from funcopt.torch_optim.run import in_chunks
from funcopt.torch_optim.run.scratch import Scratch, flattened, spread, unflattened
from funcopt.torch_optim.storage import Place, detached, memory, places, rename

__all__ = ["Member", "Moves", "Unit"]


class Member(NamedTuple):
    key: str  # in the tree
    param: Tensor
    group: int  # index of its group


class Moves(NamedTuple):
    """How parameters move: what is added to them, and where it is written."""

    keys: list[str]
    updates: list[Tensor]
    views: list[Tensor]  # of the parameters
    inputs: list[Tensor]  # the parameters as the transformation has seen them


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
        number: of the group that keeps it, whoever of the members has a gradient first.
        label: prefix of the paths there; "" but for parameters that came later.
        wide: keep the state of half precision parameters in float32 and add there, unless the transformation rounds them itself.
        flat: run on one vector.
        per_leaf: every parameter is worked out by itself, but for what is counted.
    """

    def __init__(
        self,
        tx: GradientTransformation,
        members: Sequence[Member],
        home: dict,
        number: int,
        label: str,
        *,
        wide: bool,
        flat: bool,
        fixed: bool,
        per_leaf: bool,
    ):
        self.tx, self.home, self.number, self.label, self.fixed = tx, home, number, label, fixed
        self.members = sorted(members)
        self.keys = [member.key for member in self.members]
        self.params = [member.param for member in self.members]
        self.groups = sorted({member.group for member in self.members})
        self.group_of = [member.group for member in self.members]
        self.dtypes = [torch.float32 if wide and not tx.rounds and p.dtype in HALF else p.dtype for p in self.views()]
        self.casts = any(dtype != p.dtype for dtype, p in zip(self.dtypes, self.views(), strict=True))
        self.plain = all(type(p) in (Tensor, torch.nn.Parameter) for p in self.params)
        self.layout = Layout(dict(zip(self.keys, self.wide(self.views()), strict=True))) if flat else None
        self.vector = next(iter(self.layout.groups)) if self.layout else ""
        self.scratch: Any = None  # the vector of gradients, and its parts
        self.owned: Tensor | None = None  # the vector of which the parameters are views
        self.alone = True  # no other parameter sees their memory
        self.addresses: list[int] | None = None  # where they lie; None for those that are not plain tensors
        self.look()
        self.compiled: Any = None
        self.complex = any(p.is_complex() for p in self.params)
        self.factors: list[Any] = [1.0] * len(self.groups)
        self.stale = False  # leaves have changed by ways that have left the tree behind
        self.values: Any = None  # hyperparameters, of which tx was made
        self.seen = -1  # changes of hyperparameters up to which `values` are known to hold
        self.outdated = False  # they have changed so that links come or go
        self.per_leaf = per_leaf and self.plain and not flat
        self.pieces: list[in_chunks.Piece] = []  # in which an eager step works, one after the other

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

    def begin(self, before: "Unit | None" = None) -> None:
        """Makes the state, and gives what a unit `before` of other members has stored the names that it has here."""
        self.tree = self.first()
        self.keep(self.tree)
        if before is not None:
            self.follow(before)

    def settle(self, state: dict, given: Any = None) -> None:
        """Takes over what is stored already, and stores the rest of the state that was begun, or is given."""
        self.state = state
        if given is not None:
            self.tree = given
            self.keep(given)
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
            self.pieces = in_chunks.cut(self)
        else:
            self.take_scalars()

    def lasting(self) -> list[Place]:
        """The places of the leaves in a form that does not depend on who the members are."""
        return places(self.leafwise(), self.keys, every=True)

    def follow(self, before: "Unit") -> None:
        """Renames what a unit of other members stored: with the first parameter that a link keeps anything for, later links move on."""
        known = {place.path: old.path for place, old in zip(before.lasting(), before.places, strict=True)}
        shown = self.tree if self.layout is None else self.layout.unravel_state(self.tree)
        moved = {
            known[place.path]: new.path
            for place, new in zip(places(shown, self.keys, every=True), self.places, strict=True)
            if place.path in known
        }
        if all(old == new for old, new in moved.items()):
            return
        homes = [self.home if place.owner is None else home for place, home in zip(before.places, before.dicts, strict=True)]
        new = [
            before.names[index].removesuffix(place.path) + moved.get(place.path, place.path) for index, place in enumerate(before.places)
        ]
        rename(homes, before.names, new)

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
        self.held, self.structure = tree.flatten(self.tree)
        for index, shown in self.scalars:
            self.held[index] = self.leaves[shown]
        self.tree = self.structure.unflatten(self.held)

    def intact(self, state: dict) -> bool:
        """Whether what is stored is what was stored last."""
        try:
            stored = all(map(operator.is_, map(operator.getitem, self.dicts, self.names), self.leaves))
        except KeyError:
            return False
        return stored and all(map(operator.is_, map(state.get, self.owning), self.homes))

    def stands_for(self, members: Sequence[Member], state: dict) -> bool:
        """Whether it is the unit of these members, as it would be made."""
        members = sorted(members)
        alike = [(member.key, member.group) for member in members] == [(member.key, member.group) for member in self.members]
        return alike and all(member.param is param for member, param in zip(members, self.params, strict=True)) and self.intact(state)

    def own(self) -> None:
        """Makes the parameters views of one vector: in place if they are, of a new one if nobody sees what they leave, else not at all."""
        self.owned, self.scratch = lying_together(self.params) if self.alone else None, None
        if (
            self.owned is None
            and self.alone
            and all(param.untyped_storage().nbytes() == param.numel() * param.element_size() for param in self.params)
        ):
            self.owned = flattened(self.params).detach()
            for param, part in zip(self.params, unflattened(self.owned, self.params), strict=True):
                param.data = part
        self.look()

    def look(self) -> None:
        """Notes where the parameters lie."""
        self.addresses = list(map(Tensor.data_ptr, self.params)) if self.plain else None

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
        given = zip(self.leaves, tree.leaves(state), strict=True)
        write_leaves(self.leaves, [new.detach().to(device=old.device, dtype=old.dtype) for old, new in given], where="torch_optim")
        self.stale = True

    def signals(self) -> dict[str, Tensor]:
        return read_signals(self.fresh())

    def shaped(self, name: str, value: Any, groups: Sequence[dict]) -> Any:
        """An extra with a tensor for each parameter (a Hessian's diagonal) as a tree of this unit: by name, or in the groups' order."""
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
            return in_chunks.advance(self, grads, words, extra, missing, sized)
        moves, new = self.moves(slice(None), grads, self.leafwise(), self.heard(words), extra, sized)
        return lambda: self._commit(moves, missing, new)

    def moves(self, members: slice, grads: list[Tensor], state: Any, heard: Signals, extra: dict, sized: Callable) -> tuple[Moves, Any]:
        """How some parameters move, leaf by leaf, and their new state; nothing is written."""
        keys, views = self.keys[members], self.views(members)
        inputs, given = views, grads[members]
        if self.casts:
            inputs, given = ([x.to(dtype) for x, dtype in zip(leaves, self.dtypes[members], strict=True)] for leaves in (views, given))
        held = dict(zip(keys, inputs, strict=True))
        updates, new = self.tx.update(dict(zip(keys, given, strict=True)), state, held, signals=heard, **extra)
        updates = sized([updates[key] for key in keys])
        for update, view in zip(updates, views, strict=True):
            if update.shape != view.shape:
                raise ValueError(
                    f"{self.tx.name}: an update must have the shape of its parameter, {tuple(view.shape)}, got {tuple(update.shape)}"
                )
        return Moves(keys, updates, views, inputs), new

    def store(self, index: int, leaf: Tensor) -> None:
        self.leaves[index] = self.dicts[index][self.names[index]] = leaf

    def _commit(self, moves: Moves, missing: set[str], new: Any) -> None:
        new_leaves = tree.flatten(new)[0]
        self.apply(moves, missing)
        if len(new_leaves) != len(self.leaves):  # it fills at the first update, as from_torch may
            for home, name in zip(self.dicts, self.names, strict=True):
                home.pop(name, None)
            self.settle(self.state, detached(new, moves.views))
            return
        if not self.plain:
            new_leaves = [sharded.laid_out(leaf, old) for old, leaf in zip(self.leaves, new_leaves, strict=True)]
            new = tree.unflatten(new, new_leaves)
        if missing:
            new_leaves = [
                old if place.owner in missing else leaf for place, old, leaf in zip(self.places, self.leaves, new_leaves, strict=True)
            ]
        if self.layout is not None or self.fixed:
            write_leaves(self.leaves, new_leaves, where="torch_optim")
            return
        self.leaves = new_leaves
        for home, name, leaf in zip(self.dicts, self.names, new_leaves, strict=True):
            home[name] = leaf
        self.tree = tree.unflatten(new, new_leaves) if missing else new

    def apply(self, moves: Moves, missing: set[str]) -> None:
        """Adds the updates to the parameters, all but those that have no gradient."""
        keys, updates, views, inputs = moves
        if (
            self.plain
            and not self.casts
            and not missing
            and all(update.dtype == view.dtype for update, view in zip(updates, views, strict=True))
        ):
            write(views, updates, add=True)
            return
        for key, view, x, update in zip(keys, views, inputs, updates, strict=True):
            if key not in missing:
                write([view], [sharded.laid_out(x + update, view)])

    def _advance_flat(self, grads: list[Tensor], words: dict[str, Tensor], extra: dict, sized: Callable) -> Callable:
        params, gradient = self.gathered(grads)
        vector = self.vector
        updates, new = self.tx.update(Flat({vector: gradient}), self.fresh(), Flat({vector: params}), signals=self.heard(words), **extra)
        (update,) = sized([updates.vectors[vector]])

        def commit() -> None:
            self.store_flat(tree.flatten(new)[0])  # first: a leaf may be the parameters of before
            self.scatter(params, update)

        return commit

    def gathered(self, grads: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Parameters and gradients as vectors; both are overwritten by the next step, the first (unless it is cast) by `scatter`."""
        if self.scratch is None:
            dtype = self.dtypes[0] if self.casts else grads[0].dtype
            self.scratch = Scratch(self.params, dtype), Scratch(self.params, self.params[0].dtype) if self.owned is None else None
        gradient, params = self.scratch
        params: Any = self.owned if params is None else params.filled(self.params)
        return (params.to(self.dtypes[0]) if self.casts else params), gradient.filled(grads)

    def scatter(self, params: Tensor, update: Tensor) -> None:
        """Adds the vector of updates to the parameters."""
        if update.dtype == params.dtype:
            write([params], [update], add=True)
        else:
            params = params + update
        if self.owned is None:
            self.scratch[1].emptied(params, self.params)
        elif params is not self.owned:
            write([self.owned], [params])

    def store_flat(self, leaves: list[Tensor]) -> None:
        """Vectors into their places, of which what is stored are views; numbers anew."""
        write_leaves([self.held[index] for index in self.vectors], [leaves[index] for index in self.vectors], where="torch_optim")
        if self.fixed:
            write_leaves([self.held[index] for index, _ in self.scalars], [leaves[index] for index, _ in self.scalars], where="torch_optim")
            return
        for index, shown in self.scalars:
            leaf = leaves[index]
            self.held[index] = self.leaves[shown] = leaf
            self.dicts[shown][self.names[shown]] = leaf
        self.tree = self.structure.unflatten(self.held)


def lying_together(params: list[Tensor]) -> Tensor | None:
    """The vector of which the parameters are the parts, one after the other, if they are."""
    begin, place = params[0], params[0].storage_offset()
    memory = begin.untyped_storage().data_ptr()
    for param in params:
        if not param.is_contiguous() or param.untyped_storage().data_ptr() != memory or (param.storage_offset() != place and param.numel()):
            return None
        place += param.numel()
    return begin.detach().as_strided((place - begin.storage_offset(),), (1,)) if len(params) > 1 else None
