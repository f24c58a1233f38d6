"""average_params: the average of where an optimizer has been, beside where it is.

    p_t = p_{t-1} + u_t
    a_t = a_{t-1} + w_t (p_t - a_{t-1})
    w_t = P / (t + P - 1),   P = (power + 1) / r_t      polynomial: step t counts with about t^(P - 1); needs no horizon
    w_t = (1 - decay) / (1 - decay^t)                   ema, without the bias of its start

r_t is the word `average_share` where what is wrapped says it, else 1: by which share of the usual the average reaches back.

Source: Polyak and Juditsky 1992; the polynomial decay is that of Shamir and Zhang 2013 ("Stochastic
gradient descent for non-smooth optimization"), eq. 5, with eta = power. torch.optim.swa_utils averages
equally (`power=0`) or by an ema.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, TensorTree, apply_updates, check, moments, read_signals, tree
from funcopt.core.compression.held import decompress_state
from funcopt.core.dtypes import at_least_float32
from funcopt.core.masking import HIDDEN, MaskedNode, map_shown
from funcopt.core.math import entrywise
from funcopt.core.states.find import find_all
from funcopt.core.wrap import field, wrapped
from funcopt.transforms.schedule_free import ScheduleFreeState, schedule_free_eval_params

__all__ = ["AverageParamsState", "average_params", "averaged_params"]

Weighting = Literal["polynomial", "ema"]


class AverageParamsState(NamedTuple):
    count: Tensor  # steps averaged
    average: TensorTree  # like params, half precision in float32
    inner: Any  # of what is wrapped

    def signals(self) -> dict[str, Tensor]:
        return read_signals(self.inner)


def average_params(
    tx: GradientTransformation,
    weighting: Weighting = "polynomial",
    *,
    power: Scalar = 8.0,
    decay: Scalar = 0.999,
    average_dtype: torch.dtype | None = None,
) -> GradientTransformation:
    """Keeps the average of the params that an optimizer goes through; its steps stay what they are.

    The average is what to evaluate and to keep: `averaged_params`. Statistics of batch norm belong to the params
    that ran: before an evaluation run some batches through the averaged model in training mode, as
    `torch.optim.swa_utils.update_bn` does.

    Args:
        tx: a ready-made optimizer, outermost: its updates are what is added to the params.
        weighting: "polynomial", which follows at a distance that grows with the run, or "ema",
            at a fixed one.
        power: for "polynomial": step t counts with about t^power, >= 0. The average reaches back
            over t / (power + 1) steps, or the share of them that `tx` says; 0 counts all steps alike.
        decay: for "ema": share of the past, in [0, 1).
        average_dtype: of the average; None: that of the params, at least float32.

    Returns:
        A transformation with the updates of `tx`. Holds one tree like `params` more.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 that entry stays at 0; clip.

    Signals:
        those of `tx`; for "polynomial" hears `average_share`, in (0, 1], where `tx` says it, as `find_rate` does.

    Raises:
        TypeError, ValueError: an argument is out of its range; at `update`, no params.

    Example:
        >>> tx = fo.average_params(fo.sgd(1.0), power=1.0)
        >>> params = torch.tensor([0.0])
        >>> state = tx.init(params)
        >>> for step in range(2):  # to 1, then to 3; step 2 weighs (1 + 1) / (2 + 1)
        ...     updates, state = tx.update(torch.tensor([-1.0 - step]), state, params)
        ...     params = fo.apply_updates(params, updates)
        >>> fo.averaged_params(state, params)
        tensor([2.3333])
    """
    where = "average_params"
    check.choice(where, "weighting", weighting, get_args(Weighting))
    check.nonnegative(where, "power", power)
    check.half_open(where, "decay", decay, 0, 1)
    check.dtype(where, "average_dtype", average_dtype)

    def weight(count: Tensor, inner: Any) -> Tensor:
        if weighting == "ema":
            return (1 - decay) * moments.bias_factors(count, decay)[0]
        t = count.to(tree.scalar_dtype(count.device))
        share = read_signals(inner).get("average_share")
        P = power + 1 if share is None else (power + 1) / share.to(t.dtype)
        return P / (t + P - 1)

    def init(params: TensorTree) -> AverageParamsState:
        wide = tree.map_plain(at_least_float32, params) if average_dtype is None else tree.cast(params, average_dtype)
        return AverageParamsState(count=moments.zero_count(params), average=tree.clone(wide), inner=tx.init(params))

    def update(updates: TensorTree, state: AverageParamsState, params: TensorTree | None = None, **extra: Any):
        check.params(where, params)
        updates, inner = tx.update(updates, state.inner, params, **extra)
        count = moments.increment(state.count)
        (w,) = entrywise.once(state.average, weight(count, inner))
        moved = apply_updates(params, updates)
        average = tree.map(lambda a, p: (a + w * (p.to(a.dtype) - a)).to(a.dtype), state.average, moved)
        return updates, AverageParamsState(count=count, average=average, inner=inner)

    def again(inner: GradientTransformation) -> GradientTransformation:
        return average_params(inner, weighting, power=power, decay=decay, average_dtype=average_dtype)

    return wrapped(init, update, tx, field("inner"), name=f"{where} {tx.name}", again=again)


def averaged_params(state: Any, params: TensorTree) -> TensorTree:
    """The params to evaluate and to keep: the average of those leaves of which somebody in the state keeps one, else `params` themselves.

    The groups of a `partition` have each their own or none, and what is masked out has none; of averages inside an average the outer one
    counts.

    Args:
        state: of any transformation; `average_params` and `schedule_free` keep averages.
        params: as they are now.

    Returns:
        A tree like `params`, in its dtypes.

    Raises:
        KeyError: several averages of one leaf are kept, none inside the other.

    Example:
        >>> params = {"w": torch.tensor([1.0])}
        >>> fo.averaged_params(fo.adam(0.1).init(params), params) is params
        True
    """
    for part in one_for_each_leaf("averaged_params", averages(state), _shown, params):
        if isinstance(part, ScheduleFreeState):
            params = schedule_free_eval_params(part, params)
        else:
            params = tree.cast_like(map_shown("averaged_params", lambda a, _: a, part.average, params), params)
    return params


def averages(state: Any) -> list[tuple[str, Any]]:
    """Whatever in a state keeps an average of the params, as (path, part)."""
    state = decompress_state(state)
    return find_all(state, AverageParamsState) + find_all(state, ScheduleFreeState)


def one_for_each_leaf(where: str, found: list[tuple[str, Any]], shown: Callable[[Any], TensorTree], params: TensorTree) -> list[Any]:
    """Those parts of a state that are not inside of others, as each group of a `partition` has one.

    Args:
        found: path and part.
        shown: which leaves of `params` a part is about, as a tree that hides the others.

    Raises:
        KeyError: two are about the same leaf.
    """
    kept = [(path, part) for path, part in found if not any([path != outer and _inside(path, outer) for outer, _ in found])]
    left = params

    def taken(x: Tensor, p: Any) -> MaskedNode:
        if isinstance(p, MaskedNode):
            places = ", ".join([path for path, _ in kept])
            raise KeyError(f"{where}: the state must hold one for each leaf, got {places}; wrap the whole in one")
        return HIDDEN

    for _, part in kept:
        left = map_shown(where, taken, shown(part), left)
    return [part for _, part in kept]


def _shown(part: Any) -> TensorTree:
    return part.z if isinstance(part, ScheduleFreeState) else part.average


def _inside(path: str, outer: str) -> bool:
    return not outer or path == outer or path.startswith(f"{outer}.")
