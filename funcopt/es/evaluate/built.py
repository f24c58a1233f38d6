"""Members of an eager chunk as stacked weights, written into memory that all chunks of a call share.

    chunk of c pairs: noise [c, ...] and signs [s] -> leaves [s c, ...], those with the first sign first

One vmap maps over them where two, over pairs and signs, would ask for every operation twice. Fresh memory costs more
than the sums that are written into it, so up to KEPT bytes of it wait for the next call.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from funcopt.core import versions
from funcopt.es.noise.distributions import Law
from funcopt.es.noise.population import Field, Perturbations

__all__ = ["Room", "Rooms", "built"]


KEPT = 16 << 20  # bytes; an automatic chunk takes half of them


class Room:
    """The memory of the members of one call: a block for each leaf, as large as the largest chunk so far."""

    def __init__(self) -> None:
        self.blocks: dict[tuple[int, torch.device], Tensor] = {}

    @property
    def bytes(self) -> int:
        return sum(block.numel() * block.element_size() for block in self.blocks.values())

    def take(self, place: int, leaf: Tensor, members: int) -> Tensor:
        """[members, *leaf.shape] like the leaf, with anything in it."""
        block = self.blocks.get((place, leaf.device))
        if block is not None and block.is_inference() and not torch.is_inference_mode_enabled():
            block = None  # which nobody may write into
        if block is None or len(block) < members or block.shape[1:] != leaf.shape or block.dtype != leaf.dtype:
            block = self.blocks[place, leaf.device] = leaf.new_empty(members, *leaf.shape)
        return block[:members]


class Rooms:
    """Those that wait for a call, on the CPU: each is taken by one call at a time, for threads may call at once.

    On an accelerator the call before may still read, on another stream, when the next one writes; its allocator keeps memory as well.
    """

    def __init__(self) -> None:
        self.free: list[Room] = []

    @contextlib.contextmanager
    def one(self) -> Iterator[Room]:
        try:
            room = self.free.pop()
        except IndexError:
            room = Room()
        yield room
        if room.bytes <= KEPT and not self.free and all(device.type == "cpu" for _, device in room.blocks):
            self.free.append(room)


def built(
    perturbations: Perturbations, leaves: list[Tensor], scales: list[Tensor], noise: list, directions: Tensor, room: Room
) -> list[Tensor] | None:
    """The leaves of all members of a chunk, stacked where they are perturbed; None: members are to be placed one by one, inside vmap.

    That is where something else than an elementwise sum makes them (`Law.perturb` of another kind, another dtype), and
    where a transform or a compiler looks on, inside which nothing is written in place.
    """
    if versions.transforming() or versions.compiling() or perturbations.settings.execution.dtype is not None:
        return None
    if not all(_elementwise(field, leaves[field.place], eps) for field, eps in zip(perturbations.fields, noise, strict=True)):
        return None
    stacked, signs = list(leaves), len(directions)
    for field, scale, eps in zip(perturbations.fields, scales, noise, strict=True):
        leaf = leaves[field.place]
        step = directions.to(scale.dtype).reshape(signs, *(1 for _ in eps.shape)) * scale
        out = room.take(field.place, leaf, signs * len(eps))
        field.law.perturb(leaf, eps, step, out=out.view(signs, *eps.shape))
        stacked[field.place] = out
    return stacked


def _elementwise(field: Field, leaf: Tensor, noise: Any) -> bool:
    kind = type(field.law)
    plain = type(noise) is Tensor and type(leaf) is Tensor and torch.promote_types(leaf.dtype, noise.dtype) == leaf.dtype
    return plain and kind.perturb is Law.perturb and kind.dense is Law.dense
