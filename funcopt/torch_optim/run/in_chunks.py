"""Eager steps in pieces: some parameters through all links, then the next.

    (u, state)[piece] = tx.update(g[piece], state[piece], p[piece]),   p[piece] += u,   piece after piece

A tree that no cache holds is read from memory once for every link, and every link makes
another one. A piece that fits stays in the cache from its first link to its last, and
its temporaries are those of the piece before. It takes a transformation that works every
parameter out by itself, but for what is counted; that is the same in all pieces.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from funcopt.core import Signals, tree
from funcopt.core.masking import MaskedNode
from funcopt.execute import policy
from funcopt.torch_optim.storage import Place

__all__ = ["InPieces", "Piece", "advance", "cut"]

PIECE_BYTES = 2**20  # of parameters that are worked out together


class Piece(NamedTuple):
    """Some parameters of a unit, and their part of its state."""

    members: slice
    leaves: list[int]  # of the unit: those that belong to these parameters, and those that belong to all
    structure: Any  # of a state with these leaves alone


class InPieces(Protocol):
    """What parameters that step together tell and do, to be worked out in pieces."""

    tx: Any
    params: list[Tensor]
    keys: list[str]
    groups: list[int]
    per_leaf: bool
    fixed: bool
    complex: bool
    tree: Any  # the state
    leaves: list[Tensor]  # of the state
    places: list[Place]  # of these
    pieces: list[Piece]

    def views(self, members: slice = slice(None)) -> list[Tensor]: ...
    def heard(self, words: dict[str, Tensor]) -> Signals: ...
    def moves(self, members: slice, grads: list[Tensor], state: Any, heard: Signals, extra: dict, sized: Callable) -> tuple[Any, Any]: ...
    def apply(self, moves: Any, missing: set[str]) -> None: ...
    def store(self, index: int, leaf: Tensor) -> None: ...


def cut(unit: InPieces) -> list[Piece]:
    """The pieces in which a unit works; none where all of it fits a cache, or cannot be worked out apart."""
    sizes = [p.numel() * p.element_size() for p in unit.params]
    if not unit.per_leaf or unit.fixed or len(unit.groups) > 1 or policy.sizes(unit.params).cached or has_gaps(unit.tree):
        return []
    bounds, filled = [0], 0
    for index, size in enumerate(sizes):
        if filled and filled + size > PIECE_BYTES:
            bounds.append(index)
            filled = 0
        filled += size
    pieces = []
    for start, stop in zip(bounds, [*bounds[1:], len(sizes)], strict=True):
        keys = set(unit.keys[start:stop])
        leaves = [index for index, place in enumerate(unit.places) if place.owner is None or place.owner in keys]
        pieces.append(Piece(slice(start, stop), leaves, tree.structure(part_of(unit.tree, unit.keys, keys))))
    return pieces


def advance(
    unit: InPieces, grads: list[Tensor], words: dict[str, Tensor], extra: dict, missing: set[str], sized: Callable
) -> Callable[[], None]:
    """Works out the first piece, with which goes wrong what is wrong with the step. What it returns works out the others as it writes them.

    Where memory runs out, or somebody interrupts, between two pieces, the first ones have moved and the counts have not.
    """
    for key, g, p in zip(unit.keys, grads, unit.views() if unit.complex else unit.params, strict=True):
        if g.shape != p.shape:  # of the later pieces it would be found with the first ones written
            raise ValueError(
                f"{unit.tx.name}: the gradient of '{key}' must have the shape of its parameter, {tuple(p.shape)}, got {tuple(g.shape)}"
            )
    heard = unit.heard(words)

    def worked_out(piece: Piece) -> tuple[Any, list[Tensor]]:
        held = piece.structure.unflatten([unit.leaves[index] for index in piece.leaves])
        moves, new = unit.moves(piece.members, grads, held, heard, extra, sized)
        return moves, tree.leaves(new)

    first = worked_out(unit.pieces[0])

    def commit() -> None:
        nonlocal first
        structure, shared = tree.structure(unit.tree), {}
        unit.tree = None  # holds no leaf that is no longer needed
        try:
            for piece in unit.pieces:
                moves, new = first or worked_out(piece)
                unit.apply(moves, missing)
                for index, leaf in zip(piece.leaves, new, strict=True):
                    owner = unit.places[index].owner
                    if owner is None:
                        shared[index] = leaf
                    elif owner not in missing:
                        unit.store(index, leaf)
                first = moves = new = leaf = None
            for index, leaf in shared.items():
                unit.store(index, leaf)
        finally:
            unit.tree = structure.unflatten(unit.leaves)

    return commit


def has_gaps(state: Any) -> bool:
    """Whether parameters are masked out inside (Muon hands some to Adam): what stands for them depends on all."""
    gaps: list[bool] = []
    tree.map_until(MaskedNode, lambda node: gaps.append(isinstance(node, MaskedNode)), state)
    return any(gaps)


def part_of(state: Any, keys: Sequence[str], kept: set[str]) -> Any:
    """A state with some of the parameters: what `storage.places` gives to the others is left out."""
    if type(state) is dict and set(state) == set(keys):
        return {key: state[key] for key in keys if key in kept}
    if hasattr(state, "_fields"):
        return type(state)(*(part_of(child, keys, kept) for child in state))
    if type(state) is dict:
        return {name: part_of(child, keys, kept) for name, child in state.items()}
    if isinstance(state, (tuple, list)):
        return type(state)(part_of(child, keys, kept) for child in state)
    return state
