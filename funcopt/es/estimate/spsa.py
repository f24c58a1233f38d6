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

import contextlib
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from funcopt.core import Scalar, TensorTree, check, random, tree
from funcopt.core.autocast import in_full_precision
from funcopt.es.evaluate.generators import OwnGenerators, seed_generators, settled_generators
from funcopt.es.evaluate.refusals import shared_memory
from funcopt.es.evaluate.unbuilt import Builder
from funcopt.es.evaluate.watch import refuse_sharing, refuse_torchs_generator
from funcopt.es.noise.distributions import Law, law_of
from funcopt.es.noise.lazy_weight import Drawn, mark, settle
from funcopt.es.noise.low_rank import LowRank
from funcopt.es.noise.sources import EAGER
from funcopt.es.options import mask_entries
from funcopt.es.shaping.fitness import mean_of, real
from funcopt.execute.donation import write

__all__ = ["SPSAInfo", "spsa_replay", "spsa_step"]

STREAM = 2**31  # keys of the loss, beside those of the leaves
RANDOM = (
    "es.spsa_step: the loss draws random numbers from torch's generator (dropout in training mode?), others in each evaluation, "
    "whose difference is divided "
    "by 2 sigma; call model.eval(), or pass randomness='same'"
)
Randomness = Literal["keyed", "same"]


class SPSAInfo(NamedTuple):
    """What a step saw, and all that is needed to make it again."""

    loss: Tensor  # mean of the evaluations
    projected: Tensor  # [pairs], p of every direction; zero where an evaluation was not finite
    fitness: Tensor  # [2 * pairs], those of all +eps first
    n_failed: Tensor  # int64, evaluations that were not finite


def spsa_step(
    loss: Callable[..., Any],
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
    randomness: Randomness = "keyed",
) -> Callable[..., Any]:
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
        randomness: "keyed" refuses a loss that draws from torch's generator, as dropout does:
            the difference of two draws would be divided by 2 sigma. "same" seeds
            it from `key`, the same for all evaluations of a step.

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
    check.nonnegative(where, "lr", lr)
    check.nonnegative(where, "weight_decay", weight_decay)
    check.choice(where, "randomness", randomness, get_args(Randomness))
    memory = _Memory()

    def step(params: TensorTree, *batch: Any, key: int | Tensor, **kwargs: Any):
        fields = _fields(where, params, key, mask, noise)
        stream = random.fold_in(random.as_key(key, where), STREAM)

        def evaluate(j: int, sign: float) -> Tensor:
            if randomness == "same":
                seed_generators(where, randomness, stream, 0)
            placed = [_placed(params, fields, j, sign * sigma), *batch]
            value = memory.generators(lambda: memory.builder.call(loss, placed, kwargs, (0,)))
            if not isinstance(value, Tensor) or value.numel() != 1:
                shown = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise ValueError(f"{where}: loss must return one number as a tensor, got {shown}; take a mean or a sum")
            return real(where, "loss", settle(value).reshape(()))

        def watched(j: int, sign: float) -> Tensor:
            if not memory.watching:
                return evaluate(j, sign)
            memory.watching = False
            return refuse_sharing(
                lambda: evaluate(j, sign), lambda: evaluate(j, -sign), lambda value: value, lambda writer: shared_memory(where, writer)
            )

        def evaluated() -> Tensor:
            places = [(j, sign) for sign in (1.0, -1.0) for j in range(pairs)]
            if randomness == "same":
                return torch.stack([watched(*place) for place in places])
            return torch.stack(
                [refuse_torchs_generator(lambda place=place: watched(*place), tree.device(params), RANDOM) for place in places]
            )

        with torch.no_grad(), settled_generators(where, randomness, stream, 0) if randomness == "same" else contextlib.nullcontext():
            fitness = memory.builder.attempt(evaluated)
            fitness = fitness.to(torch.promote_types(fitness.dtype, torch.float32))
            projected = (fitness[:pairs] - fitness[pairs:]) / (2 * sigma) * (-1.0 if maximize else 1.0)
            failed = ~fitness.isfinite()
            projected = torch.where(projected.isfinite(), projected, 0.0)
            info = SPSAInfo(loss=mean_of(fitness), projected=projected, fitness=fitness, n_failed=failed.sum())
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

    A run is kept as two numbers a step, and sent as such.

    Args:
        params: as before the step.
        projected: [pairs], `SPSAInfo.projected` of the step.
        key: of the step.
        lr, weight_decay, weight_decay_mask, mask, noise, donate: as the step was made with.

    Returns:
        The params after the step, bit for bit.

    Raises:
        ValueError: `lr` or `weight_decay` is negative or not finite, or `projected` is no vector.

    Example:
        >>> params = torch.zeros(3)
        >>> moved, info = fo.es.spsa_step(lambda p: p.sum(), lr=0.1)(params, key=7)
        >>> torch.equal(fo.es.spsa_replay(params, info.projected, lr=0.1, key=7), moved)
        True
    """
    where = "es.spsa_replay"
    check.nonnegative(where, "lr", lr)
    check.nonnegative(where, "weight_decay", weight_decay)
    if projected.dim() != 1:
        raise ValueError(f"{where}: projected must be a vector, a number for each pair, got shape {tuple(projected.shape)}")
    with torch.no_grad():
        return _moved(where, params, _fields(where, params, key, mask, noise), projected, lr, weight_decay, weight_decay_mask, donate)


class _Memory:
    """What a step function knows of its loss."""

    def __init__(self):
        self.builder, self.generators = Builder(), OwnGenerators("es.spsa_step", "loss")
        self.watching = True  # whether the next evaluation is the first of all


class Field(NamedTuple):
    """A leaf that moves."""

    leaf: Tensor
    law: Law
    key: Tensor

    @in_full_precision
    def direction(self, j: int) -> Tensor:
        """eps of pair j, of the shape of the leaf."""
        return self.law.dense(self.leaf, self.noise(j))

    @in_full_precision
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


@in_full_precision
def _moved(
    where: str,
    params: TensorTree,
    fields: list[Field | None],
    projected: Tensor,
    lr: Scalar,
    weight_decay: Scalar,
    weight_decay_mask: Any,
    donate: bool,
) -> Any:
    decays = mask_entries(weight_decay_mask, params, where)
    moved = []
    for leaf, field, decayed in zip(tree.leaves(params), fields, decays, strict=True):
        if field is None:
            moved.append(leaf)
            continue
        dtype = torch.promote_types(leaf.dtype, torch.float32)
        p = projected.to(device=leaf.device, dtype=dtype) / projected.numel()
        p = torch.where(p.isfinite(), p, 0.0)  # a slope that does not fit the dtype says no more than one that is not finite
        new = field.leaf.to(dtype)
        if decayed is not False:
            new = new - lr * weight_decay * (new if decayed is True else new * decayed)
        for j in range(projected.numel()):
            new = new - lr * p[j] * field.direction(j).to(dtype)
        if donate:
            write([field.leaf], [new])
        moved.append(field.leaf if donate else new.to(leaf.dtype))
    return tree.unflatten(params, moved)
