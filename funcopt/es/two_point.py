"""Two-point steps (SPSA, MeZO): one direction, two evaluations, and the memory of a forward pass.

    p     = (f(theta + c eps) - f(theta - c eps)) / (2 c)
    theta <- theta - lr (p eps + weight_decay theta)

eps is a function of the key. Both evaluations see theta plus a direction that is
drawn again for every leaf at the moment when the leaf is used, and forgotten; theta
itself is never touched, so nothing has to be put back. A step is remembered by its key and its p,
two numbers: `spsa_replay` makes it again.

Source: Malladi et al., "Fine-Tuning Language Models with Just Forward Passes"
(MeZO), NeurIPS 2023; Spall, 1992. MeZO adds c eps in place, then -2 c eps, then c eps,
which leaves rounding behind in theta (in bfloat16 visibly); ours does not.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import check, random, tree
from funcopt.es.laws import Law, law_of
from funcopt.es.low_rank import LowRank
from funcopt.es.perturbed import Drawn, mark
from funcopt.es.settings import mask_entries
from funcopt.es.tiles import EAGER

__all__ = ["SPSAInfo", "spsa_replay", "spsa_step"]


class SPSAInfo(NamedTuple):
    """What a step saw, and all that is needed to make it again."""

    loss: Tensor  # mean of the evaluations
    projected: Tensor  # [pairs], p of every direction; zero where an evaluation was not finite
    fitness: Tensor  # [2 * pairs], those of all +eps first
    n_failed: Tensor  # int64, evaluations that were not finite


def spsa_step(
    loss: Callable,
    *,
    lr: float | Tensor,
    sigma: float | Tensor = 1e-3,
    pairs: int = 1,
    weight_decay: float | Tensor = 0.0,
    weight_decay_mask: Any = None,
    mask: Any = None,
    noise: Any = "normal",
    maximize: bool = False,
    donate: bool = False,
) -> Callable:
    """A training step from two evaluations, for models whose gradient or second copy does not fit.

    Args:
        loss: `loss(params, *batch, **kwargs) -> 0-dim tensor`; nothing is differentiated.
        lr: size of the step.
        sigma: c, distance of the evaluations from params, > 0, in units of params.
        pairs: directions a step, >= 1; their steps are averaged.
        weight_decay: decoupled decay, times `lr`.
        weight_decay_mask: which leaves decay, as `mask`; MeZO leaves out biases and norms:
            `lambda params: fo.tree.map_plain(lambda p: p.dim() > 1, params)`.
        mask: which leaves move: a tree of bools, a function of params to one, or
            patterns of paths.
        noise: a law of `es.grad` that looks at one leaf at a time; `es.low_rank(r)` is
            the cheapest to use.
        maximize: upwards instead.
        donate: the new params take the memory of the old ones.

    Returns:
        `step(params, *batch, key, **kwargs) -> (params, SPSAInfo)`. params are left as they
        are, unless donated. Beside params and the forward pass the evaluations hold the largest
        leaf twice; the new params are made leaf by leaf. Integer leaves stay.

    Raises:
        ValueError: a number out of range, or a law over all leaves together.

    Example:
        >>> params = {"w": torch.ones(3)}
        >>> step = fo.es.spsa_step(lambda p: p["w"].square().sum(), lr=0.1)
        >>> moved, info = step(params, key=0)
        >>> again = fo.es.spsa_replay(params, info.projected, lr=0.1, key=0)
        >>> torch.equal(moved["w"], again["w"]), params["w"]
        (True, tensor([1., 1., 1.]))
    """
    where = "es.spsa_step"
    check.positive(where, "sigma", sigma)
    check.integer(where, "pairs", pairs, 1)
    check.finite(where, "lr", lr)
    check.finite(where, "weight_decay", weight_decay)

    def step(params, *batch, key, **kwargs):
        fields = _fields(where, params, key, mask, noise)
        with torch.no_grad():
            values = []
            for sign in (1.0, -1.0):
                for j in range(pairs):
                    value = loss(_placed(params, fields, j, sign * sigma), *batch, **kwargs)
                    if not isinstance(value, Tensor) or value.numel() != 1:
                        shown = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                        raise ValueError(f"{where}: loss must return one number as a tensor, got {shown}; take a mean or a sum")
                    values.append(value.reshape(()))
            fitness = torch.stack(values)
            fitness = fitness.to(torch.promote_types(fitness.dtype, torch.float32))
            projected = (fitness[:pairs] - fitness[pairs:]) / (2 * sigma) * (-1.0 if maximize else 1.0)
            failed = ~fitness.isfinite()
            projected = torch.where(projected.isfinite(), projected, 0.0)
            info = SPSAInfo(loss=fitness.mean(), projected=projected, fitness=fitness, n_failed=failed.sum())
            return _moved(where, params, fields, projected, lr, weight_decay, weight_decay_mask, donate), info

    return step


def spsa_replay(
    params: Any,
    projected: Tensor,
    *,
    lr: float | Tensor,
    key: int | Tensor,
    weight_decay: float | Tensor = 0.0,
    weight_decay_mask: Any = None,
    mask: Any = None,
    noise: Any = "normal",
    donate: bool = False,
) -> Any:
    """The params after a step of `spsa_step`, from its key and `info.projected`: nothing is evaluated.

    A run is kept as two numbers a step, and sent as such. The options are those that the step was made with.
    """
    where = "es.spsa_replay"
    with torch.no_grad():
        return _moved(where, params, _fields(where, params, key, mask, noise), projected, lr, weight_decay, weight_decay_mask, donate)


class Field(NamedTuple):
    """A leaf that moves."""

    leaf: Tensor
    law: Law
    key: Tensor

    def direction(self, j: int) -> Tensor:
        """eps of pair j, of the shape of the leaf."""
        return self.law.dense(self.leaf, self.noise(j))

    def noise(self, j: int) -> Any:
        return tree.map_plain(lambda x: x[0], self.law.draw(self.key, self.leaf, range(j, j + 1), EAGER))


def _fields(where: str, params: Any, key: Any, mask: Any, noise: Any) -> list[Field | None]:
    """One for every leaf; None for those that stay."""
    key = random.as_key(key, where)
    laws, masks = tree.broadcast_prefix(noise, params, where, "noise"), mask_entries(mask, params, where)
    fields: list[Field | None] = []
    for i, (leaf, law, chosen) in enumerate(zip(tree.leaves(params), laws, masks, strict=True)):
        law = law_of(law, where)
        if law.joint:
            raise ValueError(f"{where}: noise must be a law that looks at one leaf at a time, got {law}")
        if isinstance(chosen, Tensor):
            raise TypeError(f"{where}: mask must hold bools, got a tensor at '{tree.paths(params)[i]}'")
        fields.append(Field(leaf.detach(), law, random.fold_in(key, i)) if chosen and leaf.is_floating_point() and leaf.numel() else None)
    return fields


def _placed(params: Any, fields: list[Field | None], j: int, scale: float | Tensor) -> Any:
    """params + scale eps, whose leaves are built when they are used."""

    def place(leaf: Tensor, field: Field | None) -> Tensor:
        if field is None:
            return leaf
        s = torch.as_tensor(scale, dtype=torch.promote_types(leaf.dtype, torch.float32), device=leaf.device)
        if isinstance(field.law, LowRank):
            return field.law.perturb(field.leaf, field.noise(j), s)
        return mark(field.leaf, s, Drawn(lambda: field.direction(j)))

    return tree.unflatten(params, [place(leaf, field) for leaf, field in zip(tree.leaves(params), fields, strict=True)])


def _moved(where: str, params, fields: list[Field | None], projected: Tensor, lr, weight_decay, weight_decay_mask, donate: bool) -> Any:
    decays = mask_entries(weight_decay_mask, params, where)
    moved = []
    for leaf, field, decayed in zip(tree.leaves(params), fields, decays, strict=True):
        if field is None:
            moved.append(leaf)
            continue
        dtype = torch.promote_types(leaf.dtype, torch.float32)
        p = projected.to(device=leaf.device, dtype=dtype) / projected.numel()
        new = field.leaf.to(dtype)
        if decayed is not False:
            new = new - lr * weight_decay * (new if decayed is True else new * decayed)
        for j in range(projected.numel()):
            new = new - lr * p[j] * field.direction(j).to(dtype)
        moved.append(field.leaf.copy_(new) if donate else new.to(leaf.dtype))
    return tree.unflatten(params, moved)
