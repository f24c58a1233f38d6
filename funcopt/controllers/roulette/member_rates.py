"""Members of a pool that find their own rates: a walk for each, moved after the steps that it made and by nothing else.

    u_{t-1} = p_t - p_{t-1}                                the last step, made by member i
    c_t     = -<g_t, u_{t-1}> / (|g_t| |u_{t-1}|)           over the whole tree
    ln s_i  = ln s_i + b c_t, or held: `rate/walk.py`;      ln s_j stays for all j != i
    rate of member j = start_j s_j                          of a member with a rate of its own lr_j s_j, s_j = 1 to begin with
    s_j = |u| / (start_j |d_j|)                             where j joins, u the step before by another, d_j its direction; at least 1

Told the loss l_t of p_t, with the largest of late H_t = max(l_t, 0.99 H_{t-1}), and B = H of when i took over (the first loss, who begins):

    l_t not finite, or l_t > 10 B > 0:                      ln s_i = ln s_i after whose step all was well - ln 2,  whoever i is;  B = l_t

B stands still while i is at it: a loss that grows by less than tenfold a step, but at every one, ruins a run no less.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.controllers import select
from funcopt.controllers.rate import walk as walks
from funcopt.controllers.rate.find_rate import cosine, moved
from funcopt.core import TensorTree, check, tree
from funcopt.core.math import entrywise
from funcopt.core.sent import sent

START = 1e-6  # of a member that is told nothing: far below what may be right
WALK = walks.Settings(slow=0.3, fast=1.0, evidence=8.0, patience=10, reopen=24.0, holds=True, low=math.log(1e-4), high=math.log(1e12))
BLOWN_UP = 10.0  # times the largest loss of late
FADING = 0.99  # of the largest loss, a step


class MemberRates(NamedTuple):
    last: TensorTree  # params of the step before; like params, one tree for the whole pool
    mover: Tensor  # who made the last step, -1 before the first; on the device of params, as all that follows
    walk: walks.Walk  # [n] each
    multiplier: Tensor  # [n]; s
    proven: Tensor  # [n]; ln s of its last step after which the loss was well
    steepest: Tensor  # [n]; the longest gradient that met it while searching
    setbacks: Tensor  # [n]; how often it was cut
    highest: Tensor  # largest loss of late; 0 before the first
    bound: Tensor  # what it was when the one at work took over, or was last cut; 0 before the first
    stride: Tensor  # length of the last step, as it left the pool; 0 before the first

    def said(self, names: list[str]) -> dict[str, Tensor]:
        """What each member says; one with a rate of its own does not search, and so holds."""
        words = {"rate_multiplier": self.multiplier, "held": self.walk.held, "setbacks": self.setbacks}
        values = {word: value.unbind(-1) for word, value in words.items()}
        return {f"{name}/{word}": values[word][i] for i, name in enumerate(names) for word in values}


def searching(settings: Any, like: Tensor) -> Tensor:
    """Which members find their rates; bool [n]."""
    return torch.tensor([member.finds_rate for member in settings.members.values()], device="cpu").to(like.device, non_blocking=True)


def first(settings: Any, params: TensorTree) -> MemberRates:
    zero = tree.scalar(0.0, params)
    zeros = zero.new_zeros(len(settings.members))
    walk = walks.first(zeros)
    return MemberRates(
        last=tree.clone(params),
        mover=torch.full_like(zero, -1, dtype=torch.int64),
        walk=walk._replace(held=~searching(settings, zeros)),
        multiplier=torch.ones_like(zeros),
        proven=torch.zeros_like(zeros),
        steepest=torch.zeros_like(zeros),
        setbacks=torch.zeros_like(walk.seen),
        highest=zero,
        bound=zero.clone(),
        stride=zero.clone(),
    )


def after_last_step(settings: Any, rates: MemberRates, updates: TensorTree, params: TensorTree | None, loss: Any) -> MemberRates:
    """What the new gradient, and the loss if it is told, say of the member that made the last step."""
    check.params("roulette: a member that finds its rate", params)
    before, made = rates.walk, select.places(rates.multiplier) == rates.mover
    finds = made if settings.all_find else made & searching(settings, made)
    length = tree.norm(updates)
    c, seen = cosine(updates, length, tree.map_plain(moved, params, rates.last))
    length, c = length.to(before.log.dtype), c.to(before.log.dtype).expand_as(before.log)
    walk = select.choose(finds & seen, walks.step(before, c, length > rates.steepest, WALK), before)
    steepest = torch.where(finds & seen & ~before.held, torch.maximum(length, rates.steepest), rates.steepest)
    proven, setbacks, highest, bound = rates.proven, rates.setbacks, rates.highest, rates.bound
    if loss is not None:
        loss = sent(loss.detach(), highest.device) if isinstance(loss, Tensor) else torch.full_like(highest, loss)
        finite = loss.isfinite()
        loss = torch.where(finite, loss, torch.zeros_like(loss)).to(highest.dtype)
        well = finite & ~((bound > 0) & (loss > BLOWN_UP * bound))
        walk = select.choose(made & ~well, walks.restart(before, proven - math.log(2), made & ~well, WALK), walk)
        proven = torch.where(made, torch.where(well, before.log, walk.log), proven)
        setbacks = setbacks + (made & ~well)
        bound = torch.where((bound > 0) & (well | ~finite), bound, loss)
        highest = torch.maximum(loss, FADING * highest)
    found = {
        "walk": walk,
        "multiplier": walk.log.exp(),
        "proven": proven,
        "steepest": steepest,
        "setbacks": setbacks,
        "highest": highest,
        "bound": bound,
    }
    return rates._replace(last=tree.clone(params), **found)


def stretched(rates: MemberRates, factor: Tensor, i: int | Tensor) -> Tensor:
    """The rate of a member, multiplied by what it has found."""
    (s,) = entrywise.stacked(rates.multiplier[i] if isinstance(i, int) else select.at(rates.multiplier, i))
    return factor * s.to(factor.dtype)


def after_this_step(settings: Any, rates: MemberRates, i: int | Tensor, direction: TensorTree, rate: Tensor) -> tuple[MemberRates, Tensor]:
    """Who makes this step, and its rate: who joins takes steps as long as the last: beside long ones noise of short ones says little."""
    length, everybody = tree.norm(direction).to(rates.stride.dtype), select.places(rates.multiplier)
    longer = rates.stride / (rate * length)
    joins = (everybody == i) & (rates.walk.seen == 0) & (rates.mover >= 0) & (rates.mover != i) & (longer > 1) & longer.isfinite()
    joins = joins if settings.all_find else joins & searching(settings, joins)
    walk = walks.restart(rates.walk, rates.walk.log + torch.where(joins, longer, 1.0).log(), joins, WALK)
    s = walk.log.exp()
    rate = torch.where(joins.any(), rate * (s / rates.multiplier * joins).sum(), rate)
    stride = rate * length
    mover = torch.full_like(rates.mover, i) if isinstance(i, int) else i.clone()
    proven = torch.where(joins, walk.log, rates.proven)
    stride = torch.where(stride.isfinite(), stride, rates.stride)
    bound = torch.where(mover == rates.mover, rates.bound, rates.highest)
    return rates._replace(mover=mover, walk=walk, multiplier=s, proven=proven, stride=stride, bound=bound), rate
