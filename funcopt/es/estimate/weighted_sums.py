"""From utilities to a gradient: weighted sums of the noise, in an order that nothing but the size of a leaf decides.

    w_j = u+_j - u-_j  (pairs)  or  u_j
    g   = 1/P sum_j w_j eps_j / sigma         inverse_sigma
    g   = 1/P sum_j w_j eps_j                 openai
    g   = 1/P sum_j w_j eps_j sigma           sigma

and -g is handed out: the gradient of what is minimised. The sum over j runs block by
block (`Law.block`), and within a block over 8192 elements at a time. So the result is
the same bit for bit whether the noise was stored or is drawn again, and whoever sums
which elements. Drawn again, no more than a block of noise is ever held.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import tree
from funcopt.core.autocast import in_full_precision
from funcopt.es.noise.distributions import weighted_sum
from funcopt.es.noise.population import Perturbations

__all__ = ["Piece", "assemble", "gradient", "pieces", "summed", "weights_of"]


class Piece(NamedTuple):
    """What is summed in one go: elements `start` to `stop` of a field, a whole field (start None), or the fields of a joint law."""

    field: int
    start: int | None = None
    stop: int | None = None
    joint: int | None = None


def weights_of(perturbations: Perturbations, utilities: Tensor, alive: Tensor) -> Tensor:
    """[H] weights of the directions in the descent, -1 / P included.

    Args:
        utilities: [P].
        alive: [P] bools, the members that are not to be left out.
    """
    what = perturbations.settings.estimand
    half = what.pairs
    if what.antithetic:
        alive = alive[:half] & alive[half:]
        weights = utilities[:half] - utilities[half:]
    else:
        weights = utilities
    count = (alive.sum() * what.signs).clamp(min=1) if what.on_failure == "drop" else what.popsize
    if what.on_failure == "drop":
        weights = torch.where(alive, weights, 0.0)
    return -weights / count


def pieces(perturbations: Perturbations, elements: bool) -> list[Piece]:
    """The sums that make the gradient; `elements`: cut into tiles of elements where the law allows it."""
    found = []
    for index, field in enumerate(perturbations.fields):
        if field.law.joint:
            continue
        if elements and (width := field.law.tile(field.leaf)) is not None:
            size = field.leaf.numel()
            found += [Piece(index, start, min(start + width, size)) for start in range(0, size, width)]
        else:
            found.append(Piece(index))
    return found + [Piece(joint.members[0], joint=number) for number, joint in enumerate(perturbations.joints)]


@in_full_precision
def summed(perturbations: Perturbations, weights: Tensor, stored: list[Any] | None, piece: Piece) -> list[Tensor]:
    """sum_j w_j eps_j of one piece: a flat tensor for each of its fields, in at least float32."""
    if piece.joint is not None:
        joint = perturbations.joints[piece.joint]
        totals = [torch.zeros((), device=joint.like.device)] * len(joint.members)
        for pairs in _blocks(perturbations, joint.law.block(joint.like)):
            noise = perturbations.draw_joint(joint, pairs) if stored is None else [_cut(stored[index], pairs) for index in joint.members]
            for number, (index, eps) in enumerate(zip(joint.members, noise, strict=True)):
                field = perturbations.fields[index]
                totals[number] = totals[number] + field.law.combine(_part(perturbations, weights, field, pairs), eps, field.leaf)
        return [total.reshape(-1) for total in totals]
    field = perturbations.fields[piece.field]
    total = torch.zeros((), device=field.leaf.device)
    for pairs in _blocks(perturbations, field.law.block(field.leaf)):
        part = _part(perturbations, weights, field, pairs)
        if piece.start is not None and piece.stop is not None and not field.law.separable:
            eps = perturbations.finish(field.law.draw(field.key, field.leaf, pairs, perturbations.source))
            total = total + field.law.combine_tile(part, eps, field.leaf, piece.start, piece.stop)
        elif piece.start is not None and piece.stop is not None and stored is None:
            eps = field.law.draw_elements(field.key, field.leaf, pairs, perturbations.source, piece.start, piece.stop)
            total = total + weighted_sum(part, perturbations.finish(eps))
        elif piece.start is not None:
            assert stored is not None
            total = total + weighted_sum(part, _cut(stored[piece.field], pairs).reshape(len(pairs), -1)[:, piece.start : piece.stop])
        else:
            eps = (
                perturbations.finish(field.law.draw(field.key, field.leaf, pairs, perturbations.source))
                if stored is None
                else _cut(stored[piece.field], pairs)
            )
            total = total + field.law.combine(part, eps, field.leaf).reshape(-1)
    return [total]


@in_full_precision
def assemble(perturbations: Perturbations, sums: Iterable[tuple[Piece, list[Tensor]]], size: Tensor | None) -> Any:
    """The gradient tree of the sums of all pieces, in the order of `pieces`, times `size` (None: 1)."""
    scale = perturbations.settings.estimand.scale
    flat: dict[int, list[Tensor]] = {}
    for piece, tensors in sums:
        places = [piece.field] if piece.joint is None else list(perturbations.joints[piece.joint].members)
        for index, tensor in zip(places, tensors, strict=True):
            flat.setdefault(index, []).append(tensor)
    perturbed = {field.place for field in perturbations.fields}
    leaves: list[Any] = [None if place in perturbed else torch.zeros_like(leaf) for place, leaf in enumerate(perturbations.leaves)]
    for index, field in enumerate(perturbations.fields):
        parts = flat.pop(index)  # so that no more than one leaf is held twice
        descent = (parts[0] if len(parts) == 1 else torch.cat(parts)).reshape(field.leaf.shape)
        del parts
        if scale == "inverse_sigma":
            descent = descent / _divisor(field.sigma, size, descent.dtype)
        else:
            descent = descent * field.sigma.to(descent.dtype) if scale == "sigma" else descent
            descent = descent if size is None else descent / _divisor(torch.ones_like(size), size, descent.dtype)
        if field.mask is not None:
            descent = descent * field.mask.to(descent.dtype)
        leaves[field.place] = descent.to(field.leaf.dtype)
    return tree.unflatten(perturbations.params, leaves)


def _divisor(sigma: Tensor, size: Tensor | None, dtype: torch.dtype) -> Tensor:
    """sigma / size in a sum's dtype; where that does not hold it infinite, for a quotient of 0, or the least number: zero stays zero."""
    if size is None:
        return sigma.to(dtype)
    smallest = 2.0**-1074 if dtype == torch.float64 else 2.0**-149
    return (sigma.to(device=size.device, dtype=size.dtype) / size).clamp(min=smallest).to(device=sigma.device, dtype=dtype)


def gradient(perturbations: Perturbations, weights: Tensor, stored: list[Any] | None, size: Tensor | None) -> Any:
    """The gradient tree, from noise that was stored or (None) is drawn again."""
    cut = pieces(perturbations, elements=stored is None)
    return assemble(perturbations, ((piece, summed(perturbations, weights, stored, piece)) for piece in cut), size)


def _blocks(perturbations: Perturbations, size: int) -> Iterator[range]:
    pairs = perturbations.settings.estimand.pairs
    return (range(start, min(start + size, pairs)) for start in range(0, pairs, size))


def _cut(noise: Any, pairs: range) -> Any:
    return tree.map_plain(lambda x: x[pairs.start : pairs.stop], noise)


def _part(perturbations: Perturbations, weights: Tensor, field: Any, pairs: range) -> Tensor:
    """The weights of a block, where the leaf is and in the dtype in which its gradient is summed."""
    return weights[pairs.start : pairs.stop].to(device=field.leaf.device, dtype=perturbations.sum_dtype(field.leaf))
