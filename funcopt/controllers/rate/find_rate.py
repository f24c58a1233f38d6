"""find_rate: lengthen the steps until they stop going downhill for data they have not seen, then hold.

    u_t    = p_t - b_{t-1}                                 the last steps, as applied
    c_t    = -<g_t, u_t> / (|g_t| |u_t|)                    over the whole tree
    b_t    = b_{t-1} + (q + (1 - q) / lag) (p_t - b_{t-1})   behind: one step where c is sure (q = 1), some `lag` where it is noise
    ln s_t = ln s_{t-1} + b_t c_t                           while searching; holding: `walk.py`
    says s_t as `rate_multiplier`, by which whoever sizes the step stretches it, and `decay_share` = clamp(1 + 5 m, 0, 1) times
    1 - max(0, 1 - 2 q) / 2, by which weights decay less where m, the mean of c over some ten steps, is below 0: steps turn the
    gradient round, without noise; and half as much where c is noise: small batches take more steps to see as many rows; `sureness` q;
    and `average_share` = 8^-clamp((-m - 0.2) / 0.2, 0, 1), since the turns of steps cancel in a few of them

For a quadratic with curvature h along u and a step of size r the gradient after it is
(1 - r h) g, so that c changes its sign at r = 1 / h. At batches of one or two a single step says
almost nothing beside the noise of its gradient, five of them say more; how sure c is: `walk.py`.

Source: ours. The product of successive gradients steers step sizes in Almeida et al. 1998 and
Baydin et al. 2018, exponentiated and normalised in Amid et al. 2022; PILOT's agreement is
a relative. The hold by a cumulative sum (Page 1954) is what was not found there.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from funcopt.controllers.rate import walk as walks
from funcopt.core import GradientTransformation, TensorTree, check, moments, scoped, tree
from funcopt.core.dtypes import at_least_float32
from funcopt.core.math import entrywise
from funcopt.core.sent import sent

__all__ = ["FindRateState", "find_rate"]

After = Literal["hold", "walk", "cosine"]


DECAY_RELAXES = 5.0  # no decay where the mean cosine is -1/5
DECAY_OF_NOISE = 0.5  # by how much less where cosines are noise
TURNING = 0.2  # minus the mean cosine at which there is no noise to average
SHORTEST = 1 / 8  # share of its reach that is left to the average at twice that
NUMBERS = ("log", "evidence", "opposite", "back")  # of the walk, that others are worked out from


class FindRateState(NamedTuple):
    count: Tensor  # steps taken
    behind: TensorTree  # b, where the params have been; like params, half precision in float32
    walk: walks.Walk  # the search for the rate
    rate_multiplier: Tensor  # s
    since: Tensor  # the step at which it was held; for the cosine afterwards
    proven: Tensor  # ln s of the last step after which the loss was finite
    steepest: Tensor  # the longest gradient while searching
    setbacks: Tensor  # losses that were not finite while searching

    def signals(self) -> dict[str, Tensor]:
        sureness = walks.sure(self.walk.power, self.walk.noise)
        noise = (1 - sureness / walks.SURE).clamp(min=0)
        return {
            "rate_multiplier": self.rate_multiplier,
            "alignment": self.walk.alignment,
            "evidence": self.walk.evidence,
            "held": self.walk.held,
            "setbacks": self.setbacks,
            "sureness": sureness,
            "average_share": SHORTEST ** (-self.walk.alignment / TURNING - 1).clamp(0, 1),
            "decay_share": (1 + DECAY_RELAXES * self.walk.alignment).clamp(0, 1) * (1 - DECAY_OF_NOISE * noise),
        }


def find_rate(
    *,
    slow: float = 0.3,
    fast: float = 1.0,
    evidence: float = 8.0,
    patience: int = 10,
    reopen: float | None = 24.0,
    lag: int = 5,
    stretch: float = 0.8,
    hurry: float = 0.0,
    keep: float = 1.0,
    after: After = "hold",
    horizon: int | None = None,
    bounds: Sequence[float] = (1e-4, 1e12),
    name: str | None = None,
) -> GradientTransformation:
    """Finds by how much the steps of what stands to its right have to be stretched.

    It belongs to the left of an optimizer whose own rate is far too small, 1e-6 say, and passes
    gradients on as they are. Every step it compares the new gradient with the last step:
    where they agree the step was too short and the multiplier grows, by up to a factor of e
    a step; where there is evidence that steps are too long it goes back to where the evidence
    began and holds.

    Args:
        slow, fast: strides of ln s per unit of cosine, > 0; `fast` is taken while cosines are above 1/2.
        evidence: holds at that much evidence, > 0, in units of the noise of a cosine.
        patience: steps with a cosine before it may hold, >= 1.
        reopen: evidence of the opposite, while held, at which the search opens again where cosines are
            mostly noise, > 0; None: never.
        lag: how many of the last steps are compared with the gradient where cosines are noise, as at
            batches of one, >= 1; where they are not it is the last step.
        stretch: by what share of what was found it holds more where cosines are no noise, >= 0; where
            they are, it holds what was found.
        hurry: by what share the slow stride is longer where cosines are noise, and together say that steps are too
            short, >= 0; `rate_free` takes 2, with which the search takes half the steps at batches of one.
        keep: share of the found rate with which it goes on, in (0, 1].
        after: "hold" the found rate; "walk" on for ever, without holding; or let it sink by a
            "cosine" from the step at which it was found to `horizon`.
        horizon: steps of the run; for "cosine" alone.
        bounds: least and greatest multiplier, 0 < least <= 1 <= greatest.
        name: prefix of the words.

    Returns:
        A transform that passes updates on as they are and holds one tree like `params`. A step
        without gradient, without a move of the params, or whose cosine is not finite
        leaves the multiplier where it is.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 that entry stays at 0; clip. A NaN loss
        passes.

    Signals:
        says `rate_multiplier` (somebody to the right must hear it), `alignment` (mean cosine of some ten steps), `sureness` (q: how
        sure cosines are, in [0, 1]; `scale_by_sure_adam` hears it), `evidence` (N), `held`, `decay_share` (1, down to 0 where the
        alignment is below 0, and half of that where cosines are noise; `add_decayed_weights` hears it), `average_share` (1, down to
        1/8 where the alignment falls from -0.2 to -0.4; `average_params` hears it), and `setbacks`: told `loss=`, how many were not
        finite while it was searching. After each the multiplier is half of the last one whose step led to a finite loss.

    Raises:
        TypeError, ValueError: an argument is out of its range; `after="cosine"` without a
            `horizon`; in a chain, what stands to its right takes steps of one length (`one_length`) or finds its own
            rate (`own_rate`); at `init`, nobody hears the multiplier; at `update`, no params.

    Example:
        >>> tx = fo.chain(fo.find_rate(), fo.sgd(1e-6))
        >>> params = torch.tensor([1.0, -2.0])
        >>> state = tx.init(params)
        >>> for step in range(60):
        ...     updates, state = tx.update(4.0 * params, state, params)  # curvature 4: the rate of a quadratic is 1 / 4
        ...     params = fo.apply_updates(params, updates)
        >>> 1 / 8 < fo.read_signals(state)["lr"] < 1 / 2
        tensor(True)
    """
    where = "find_rate"
    for argument, value in (("slow", slow), ("fast", fast), ("evidence", evidence), ("keep", keep)):
        check.positive(where, argument, value)
    check.within(where, "keep", keep, 0, 1)
    check.integer(where, "patience", patience, 1)
    check.nonnegative(where, "stretch", stretch)
    check.nonnegative(where, "hurry", hurry)
    check.integer(where, "lag", lag, 1)
    if reopen is not None:
        check.positive(where, "reopen", reopen)
    check.choice(where, "after", after, get_args(After))
    if after == "cosine" and horizon is None:
        raise ValueError(f"{where}: after='cosine' needs horizon=, the number of steps of the run; after='hold' needs none")
    if horizon is not None:
        check.integer(where, "horizon", horizon, 1)
        if after != "cosine":
            raise ValueError(f"{where}: horizon is for after='cosine' alone, got {horizon} with after={after!r}; leave it out")
    low, high = _bounds(where, bounds)
    settings = walks.Settings(slow, fast, evidence, patience, reopen, after != "walk", low, high, stretch, hurry)

    def init(params: TensorTree) -> FindRateState:
        zero = tree.scalar(0.0, params)
        walk = walks.first(zero)
        return FindRateState(
            count=moments.zero_count(params),
            behind=tree.clone(tree.map_plain(at_least_float32, params)),
            walk=walk,
            rate_multiplier=torch.ones_like(zero),
            since=moments.zero_count(params),
            proven=torch.zeros_like(zero),
            steepest=torch.zeros_like(zero),
            setbacks=moments.zero_count(params),
        )

    def update(updates: TensorTree, state: FindRateState, params: TensorTree | None = None, *, loss: Any = None, **extra: Any):
        check.params(where, params)
        before = state.walk
        length = tree.norm(updates)
        c, seen = cosine(updates, length, tree.map_plain(moved, params, state.behind))
        length = length.to(before.log.dtype)
        stays, moves, proven, setbacks = before, seen, state.proven, state.setbacks
        if loss is not None:
            good = sent(tree.scalar(check.told(where, "loss", loss), before.held).isfinite(), before.held.device)
            back = ~good & ~before.held
            stays, moves, setbacks = walks.restart(before, proven - math.log(2), back, settings), seen & ~back, setbacks + back
            proven = torch.where(good, before.log, torch.where(back, stays.log, proven))
        walk = _choose(moves, walks.step(before, c.to(before.log.dtype), length > state.steepest, settings), stays)
        steepest = torch.where(seen & ~before.held, torch.maximum(length, state.steepest), state.steepest)
        walk = walk._replace(**dict(zip(NUMBERS, entrywise.stacked(*[getattr(walk, name) for name in NUMBERS]), strict=True)))
        since = torch.where(walk.held & ~before.held, state.count, state.since)
        s = walk.log.exp()
        if keep != 1:
            s = torch.where(walk.held, keep * s, s)
        if horizon is not None:  # after="cosine" alone
            s = torch.where(walk.held, s * _sunk(state.count, since, horizon).to(s.dtype), s)
        (s,) = entrywise.stacked(s)
        return updates, FindRateState(
            count=moments.increment(state.count),
            behind=followed(params, state.behind, walk, lag),
            walk=walk,
            rate_multiplier=s,
            since=since,
            proven=proven,
            steepest=steepest,
            setbacks=setbacks,
        )

    link = GradientTransformation(
        init, update, name=where, must_be_heard=("rate_multiplier",), flattenable=True, turns=False, own_rate=True
    )
    return link if name is None else scoped(name, link)


def cosine(gradient: TensorTree, length: Tensor, moved: TensorTree) -> tuple[Tensor, Tensor]:
    """-<g, u> / (|g| |u|), 0-dim, from the gradient and its length, and whether there is one; 0 where a norm vanishes or is not finite."""
    product, lengths = tree.vdot(gradient, moved), length * tree.norm(moved)
    product = product.real if product.is_complex() else product
    seen = (lengths > 0) & lengths.isfinite() & product.isfinite()
    return torch.where(seen, -product / torch.where(seen, lengths, 1.0), 0.0), seen


def moved(now: Tensor, before: Tensor) -> Tensor:
    """By how much, in float32 where params are shorter."""
    return at_least_float32(now) - at_least_float32(before)


def followed(params: TensorTree, behind: TensorTree, walk: walks.Walk, lag: int) -> TensorTree:
    """Where the params have been for `lag` steps, or for one where cosines are sure; a state keeps nothing of its arguments."""
    if lag == 1:
        return tree.clone(tree.map_plain(at_least_float32, params))
    sure = walks.sure(walk.power, walk.noise)
    (w,) = entrywise.once(behind, 1 / (1 + (lag - 1) * (1 - sure)))

    def follow(b: Tensor, p: Tensor) -> Tensor:
        new = (b + w * (p - b)).to(b.dtype)
        return torch.where(new.isfinite(), new, p.to(b.dtype))  # whoever puts params back after a NaN is searched for again

    return tree.map_plain(follow, behind, params)


def _choose(condition: Tensor, new: walks.Walk, old: walks.Walk) -> walks.Walk:
    return walks.Walk(*[torch.where(condition, x, y) for x, y in zip(new, old, strict=True)])


def _sunk(count: Tensor, since: Tensor, horizon: int) -> Tensor:
    """The share of the rate that is left of a cosine from `since` to the horizon."""
    whole = (horizon - since).clamp(min=1)
    return 0.5 * (1 + torch.cos(math.pi * ((count - since) / whole).clamp(0, 1)))


def _bounds(where: str, bounds: Sequence[float]) -> tuple[float, float]:
    try:
        low, high = bounds
    except (TypeError, ValueError):
        raise TypeError(f"{where}: bounds must be a pair of multipliers, least and greatest, got {bounds!r}") from None
    check.positive(where, "bounds[0]", low)
    check.positive(where, "bounds[1]", high)
    if not low <= 1 <= high:
        raise ValueError(f"{where}: bounds must enclose 1, where the search begins, got {tuple(bounds)}")
    return math.log(low), math.log(high)
