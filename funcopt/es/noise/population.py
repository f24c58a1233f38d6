"""The perturbations of one call: which leaves, by what law, how far, and every member from the key alone.

member i = theta + s_i sigma eps_j,    j = i mod H, s = +1 for i < H and -1 for the rest (pairs); else j = i, s = +1
the noise of leaf l starts from fold_in(key, l), that of member j in it 2^40 j counters further on
"""

import functools
import hashlib
from collections.abc import Hashable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import random, tree
from funcopt.core.autocast import in_full_precision
from funcopt.es.noise.distributions import Law, law_of
from funcopt.es.noise.sources import Source
from funcopt.es.options import Settings, _check_fits, mask_entries

__all__ = ["Field", "Perturbations"]


class Field(NamedTuple):
    """One leaf that is perturbed."""

    place: int  # among the leaves of params
    path: str
    leaf: Tensor  # at the center, detached
    law: Law
    sigma: Tensor  # 0-dim, or broadcasts to the leaf
    mask: Tensor | None  # 0 and 1; None: all of it
    key: Tensor  # folded with the number of the leaf

    @property
    def scale(self) -> Tensor:
        return self.sigma if self.mask is None else self.sigma * self.mask


class Joint(NamedTuple):
    """Leaves that are one vector to their law."""

    law: Law
    key: Tensor
    members: tuple[int, ...]  # places among the fields
    like: Tensor  # 1-d stand-in of all their elements


class Perturbations:
    """What the noise of a call is made from: the tree, the key and the options.

    Args:
        settings: of `es.grad`.
        params: the tree to be perturbed.
        key: int64 [2].
        mask: in place of that of the settings, if it is not None.
    """

    def __init__(self, settings: Settings, params: Any, key: Tensor, mask: Any = None):
        where, what = settings.where, settings.estimand
        leaves, paths = tree.leaves(params), tree.paths(params)
        for path, leaf in zip(paths, leaves, strict=True):
            if not isinstance(leaf, Tensor):
                raise TypeError(f"{where}: params must be a tree of tensors, got {type(leaf).__name__} at '{path}'")
            if leaf.is_complex():
                raise TypeError(f"{where}: perturbs real leaves, got {leaf.dtype} at '{path}'; hand over real and imaginary parts")
        masks = mask_entries(what.mask if mask is None else mask, params, where)
        sigmas = tree.broadcast_prefix(what.sigma, params, where, "sigma")
        laws = tree.broadcast_prefix(what.noise, params, where, "noise")
        self.settings, self.params, self.key = settings, params, key
        self.mask = tree.unflatten(params, masks)
        self.leaves = [leaf.detach() for leaf in leaves]
        self.source: Source = settings.source()
        self.fields: list[Field] = []
        for place, (path, leaf) in enumerate(zip(paths, self.leaves, strict=True)):
            chosen = masks[place]
            if chosen is False or not leaf.is_floating_point() or leaf.numel() == 0:
                continue
            sigma = sigmas[place]
            if isinstance(sigma, Tensor):
                _check_fits(where, "sigma", path, sigma, leaf)
                sigma = sigma.detach().to(device=leaf.device, dtype=_at_least_float32(leaf.dtype))
            else:
                sigma = torch.full((), sigma, dtype=_at_least_float32(leaf.dtype), device=leaf.device)
            number = int.from_bytes(hashlib.blake2b(path.encode(), digest_size=7).digest(), "little") if what.stable_by_path else place
            chosen = None if chosen is True else chosen.to(device=leaf.device, dtype=sigma.dtype)
            self.fields.append(Field(place, path, leaf, law_of(laws[place], where), sigma, chosen, random.fold_in(key, number)))
        if not self.fields:
            found = "all leaves are masked out" if any(leaf.is_floating_point() for leaf in leaves) else "params has no floating leaf"
            raise ValueError(f"{where}: there is nothing to perturb: {found}")
        self.joints = self._joints()

    def _joints(self) -> list[Joint]:
        together: dict[Hashable, list[int]] = {}
        for index, field in enumerate(self.fields):
            if field.law.joint:
                together.setdefault(field.law if isinstance(field.law, Hashable) else id(field.law), []).append(index)
        joints = []
        for members in together.values():
            first = self.fields[members[0]]
            dtype = torch.float32
            for index in members:
                dtype = torch.promote_types(dtype, self.fields[index].leaf.dtype)
            size = sum(self.fields[index].leaf.numel() for index in members)
            joints.append(Joint(first.law, first.key, tuple(members), torch.empty(1, dtype=dtype, device=first.leaf.device).expand(size)))
        return joints

    @functools.cached_property
    def alike(self) -> list[list[int]]:
        """The fields of each law that is not joint."""
        found: dict[int, list[int]] = {}
        for index, field in enumerate(self.fields):
            if not field.law.joint:
                found.setdefault(id(field.law), []).append(index)
        return list(found.values())

    @functools.cached_property
    def form(self) -> tuple[Any, ...]:
        """What a compiled chunk is compiled for, beside shapes: asked for every chunk."""
        return tree.structure(self.params), tuple((field.place, field.law) for field in self.fields)

    @property
    def bytes_a_pair(self) -> int:
        """Of the noise that is kept for one pair."""
        kept = self.settings.estimand.noise_dtype
        return sum(
            field.law.numbers(field.leaf) * (field.leaf if kept is None else torch.empty(0, dtype=kept)).element_size()
            for field in self.fields
        )

    def sum_dtype(self, leaf: Tensor) -> torch.dtype:
        """In which the gradient of a leaf is summed."""
        return torch.promote_types(torch.promote_types(self.settings.estimand.accum_dtype, torch.float32), leaf.dtype)

    @in_full_precision
    def draw(self, pairs: range, device: torch.device | None = None) -> list[Any]:
        """The noise of these pairs for every field, leading axis len(pairs); made on `device` if it is given."""
        noise: list[Any] = [None] * len(self.fields)
        for members in self.alike:
            fields = [self.fields[index] for index in members]
            drawn = fields[0].law.draw_all([f.key for f in fields], [_on(f.leaf, device) for f in fields], pairs, self.source)
            for index, eps in zip(members, drawn, strict=True):
                noise[index] = self.finish(eps)
        for joint in self.joints:
            for index, piece in zip(joint.members, self.draw_joint(joint, pairs, device), strict=True):
                noise[index] = piece
        return noise

    @in_full_precision
    def draw_joint(self, joint: Joint, pairs: range, device: torch.device | None = None) -> list[Tensor]:
        """The pieces of a vector that several leaves share."""
        vector = joint.law.draw(joint.key, _on(joint.like, device), pairs, self.source)
        leaves = [self.fields[index].leaf for index in joint.members]
        pieces = vector.split([leaf.numel() for leaf in leaves], dim=1)
        return [self.finish(piece.reshape(len(pairs), *leaf.shape).to(leaf.dtype)) for piece, leaf in zip(pieces, leaves, strict=True)]

    def finish(self, noise: Any) -> Any:
        """In the dtype in which noise is kept."""
        return noise if self.settings.estimand.noise_dtype is None else tree.cast(noise, self.settings.estimand.noise_dtype)

    def place(self, leaves: list[Tensor], scales: list[Tensor], noise: list[Any], sign: Tensor) -> Any:
        """ONE member as a tree like params: the leaves of the center (here or on another device), their noise and the sign."""
        dtype = self.settings.execution.dtype
        placed = [leaf if dtype is None or not leaf.is_floating_point() else leaf.to(dtype) for leaf in leaves]
        for field, scale, eps in zip(self.fields, scales, noise, strict=True):
            lazy = getattr(field.law, "lazy", False)
            leaf = placed[field.place] if lazy else leaves[field.place]
            changed = field.law.perturb(leaf, eps, sign.to(scale.dtype) * scale)
            placed[field.place] = changed if lazy or dtype is None else changed.to(dtype)
        return tree.unflatten(self.params, placed)

    @in_full_precision
    def member(self, i: int) -> Any:
        """The parameters of member i, dense, in the dtypes of params: from the key alone."""
        popsize, half = self.settings.estimand.popsize, self.settings.estimand.pairs
        if not -popsize <= i < popsize:
            raise IndexError(f"{self.settings.where}: members are numbered from 0 to {popsize - 1}, got {i}")
        i %= popsize
        sign = -1.0 if i >= half else 1.0
        noise = self.draw(range(i % half, i % half + 1))
        leaves = list(self.leaves)
        for field, eps in zip(self.fields, noise, strict=True):
            one = field.law.dense(field.leaf, tree.map_plain(lambda x: x[0], eps))
            dtype = torch.promote_types(field.leaf.dtype, one.dtype)
            leaves[field.place] = (field.leaf.to(dtype) + sign * field.scale.to(dtype) * one.to(dtype)).to(field.leaf.dtype)
        return tree.unflatten(self.params, leaves)


def _on(leaf: Tensor, device: torch.device | None) -> Tensor:
    """The leaf, or where noise is made elsewhere a stand-in there."""
    return leaf if device is None or device == leaf.device else torch.empty(1, dtype=leaf.dtype, device=device).expand(leaf.shape)


def _at_least_float32(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
