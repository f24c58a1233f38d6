"""Zoom line search: a rate at which the loss has fallen enough and is nearly flat (the strong Wolfe conditions).

    f(e) = loss(p + e u),   f' its slope.   A rate e does where both errors are at most tol:

    decrease    max(min(f(e) - f(0) - c1 e f'(0),  max(f'(e) - (2 c1 - 1) f'(0),  f(e) - f(0) - c3 |f(0)|)), 0)
    curvature   max(|f'(e)| - c2 |f'(0)|, 0)

    1. stretch e by increase_factor until an interval must hold such a rate
    2. look inside, at the minimum of a cubic, else of a parabola, else in the middle, and keep the part that must hold one

with c1 = slope_rtol, c2 = curv_rtol, c3 = approx_dec_rtol. If none is found, the best rate is taken at
which the loss fell enough; if none gives a number, 0. After a rate of 0 the next search begins at 1 (optax's stays at 0).

Source: Nocedal and Wright, "Numerical optimization", 1999, algorithms 3.5 and 3.6; Hager and Zhang 2006, equations (23) to (27).
Reference: optax.scale_by_zoom_linesearch (0.2.8), whose `value` is our `loss`.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, TensorTree, check, moments, tree
from funcopt.transforms.line_search import Dispatch, line, stepped, tried

__all__ = ["ScaleByZoomLinesearchState", "ZoomLinesearchInfo", "scale_by_zoom_linesearch"]

Guess = Literal["keep", "one"]
# How near the ends of an interval a cubic and a parabola may point, as shares of its length.
CUBIC, PARABOLA = 0.2, 0.1


class ZoomLinesearchInfo(NamedTuple):
    num_linesearch_steps: Tensor  # trials
    decrease_error: Tensor  # of the last; 0 where it did
    curvature_error: Tensor  # likewise


class ScaleByZoomLinesearchState(NamedTuple):
    learning_rate: Tensor  # e
    value: Tensor  # the loss at p + e u
    grad: TensorTree  # its gradient there; like params
    info: ZoomLinesearchInfo  # of the last search

    def signals(self) -> dict[str, Tensor]:
        return {
            "linesearch_rate": self.learning_rate,
            "linesearch_steps": self.info.num_linesearch_steps,
            "decrease_error": self.info.decrease_error,
            "curvature_error": self.info.curvature_error,
        }


class Point(NamedTuple):
    at: Tensor
    value: Tensor
    slope: Tensor


class Search(NamedTuple):
    here: Point  # the last trial
    grad: TensorTree
    low: Point  # the end of the interval at which the loss is lower
    high: Point  # the other end
    third: Point  # what was an end before; the cubic goes through it too
    safe: Point  # the best at which the loss fell enough; at 0 none
    safe_grad: TensorTree
    decrease: Tensor
    curvature: Tensor
    count: Tensor
    found: Tensor  # bool; whether there is an interval
    done: Tensor
    failed: Tensor


def scale_by_zoom_linesearch(
    max_linesearch_steps: int,
    max_lr: Scalar | None = None,
    tol: Scalar = 0.0,
    increase_factor: Scalar = 2.0,
    slope_rtol: Scalar = 1e-4,
    curv_rtol: Scalar = 0.9,
    approx_dec_rtol: Scalar | None = 1e-6,
    stepsize_precision: Scalar = 1e-5,
    initial_guess_strategy: Guess = "keep",
    *,
    dispatch: Dispatch = "auto",
) -> GradientTransformation[ScaleByZoomLinesearchState]:
    """Multiplies a downhill step by a rate at which the loss has fallen enough and is nearly flat along it.

    Args:
        max_linesearch_steps: trials at most, >= 1; each takes the loss and its gradient.
        max_lr: the largest rate, > 0; None: none.
        tol: what either error may be, >= 0.
        increase_factor: by which a rate that is too short is stretched, > 1.
        slope_rtol: share of the promised decrease that is asked for, in [0, 1).
        curv_rtol: share of the slope that may be left, >= 0; infinite: any.
        approx_dec_rtol: how near the loss at the params, as a share of it, the slopes alone decide
            on the decrease, >= 0: differences of losses are no digits there. None: nowhere.
        stepsize_precision: an interval shorter than that ends the search, if something safe is known, >= 0.
        initial_guess_strategy: begin at the last rate, "keep", as suits gradient descent; or at "one", as suits (quasi-)Newton steps.
        dispatch: "auto" stops as soon as a rate does, for which it looks at one flag a trial; under vmap and
            in a graph, and always with "select", all trials are made and those after the end change nothing.

    Returns:
        A transformation of steps that point downhill, as those of `sgd` and `lbfgs` do: put it last. It is
        told `value_fn`, the loss as a function of the params and of any extra arguments that it names
        (`make_step` tells it by itself), and, to save an evaluation, `loss` and `grad` at the params.
        Holds one tree like `params`, and two more while it searches.

    After a NaN:
        This step is finite, the next is clean.

    Signals:
        says `linesearch_rate`, `linesearch_steps`, `decrease_error` and `curvature_error`: what was found, in how many
        trials, and how far it missed.

    Raises:
        ValueError: a number is out of range; at `update`, no params or no `value_fn` is given.

    Example:
        >>> tx = fo.chain(fo.sgd(1.0), fo.scale_by_zoom_linesearch(10))
        >>> params = torch.tensor([2.0])
        >>> updates, state = tx.update(2 * params, tx.init(params), params, value_fn=lambda p: (p**2).sum())
        >>> updates, fo.read_signals(state)["linesearch_steps"]  # 1 leads to -2; the parabola's minimum is at 1/2
        (tensor([-2.]), tensor(2))
    """
    where = "scale_by_zoom_linesearch"
    check.integer(where, "max_linesearch_steps", max_linesearch_steps, 1)
    if max_lr is not None:
        check.positive(where, "max_lr", max_lr)
    check.nonnegative(where, "tol", tol)
    if check.number(where, "increase_factor", increase_factor) and not increase_factor > 1:
        raise ValueError(f"{where}: increase_factor must be > 1, got {increase_factor}")
    check.half_open(where, "slope_rtol", slope_rtol, 0, 1)
    if check.number(where, "curv_rtol", curv_rtol) and not curv_rtol >= 0:
        raise ValueError(f"{where}: curv_rtol must be >= 0, got {curv_rtol}")
    if approx_dec_rtol is not None:
        check.nonnegative(where, "approx_dec_rtol", approx_dec_rtol)
    check.nonnegative(where, "stepsize_precision", stepsize_precision)
    check.choice(where, "initial_guess_strategy", initial_guess_strategy, get_args(Guess))
    check.choice(where, "dispatch", dispatch, get_args(Dispatch))

    def init(params: TensorTree) -> ScaleByZoomLinesearchState:
        def number(value: float) -> Tensor:
            return tree.scalar(value, params).clone()

        info = ZoomLinesearchInfo(moments.zero_count(params), number(torch.inf), number(torch.inf))
        return ScaleByZoomLinesearchState(number(1.0), number(torch.inf), tree.zeros_like(params), info)

    def errors(start: Point, p: Point) -> tuple[Tensor, Tensor]:
        decrease = p.value - start.value - slope_rtol * p.at * start.slope
        if approx_dec_rtol is not None:
            by_slopes = p.slope - (2 * slope_rtol - 1) * start.slope
            decrease = torch.minimum(torch.maximum(by_slopes, p.value - start.value - approx_dec_rtol * start.value.abs()), decrease)
        curvature = p.slope.abs() - curv_rtol * start.slope.abs()
        return _missed(decrease), _missed(curvature)

    def update(
        updates: TensorTree,
        state: ScaleByZoomLinesearchState,
        params: TensorTree | None = None,
        *,
        loss: Scalar | None = None,
        grad: TensorTree | None = None,
        value_fn: Callable[..., Tensor] | None = None,
        signals: Any = None,
        **extra: Any,
    ):
        on = line(where, state.value, updates, params, loss, grad, value_fn, extra)
        zero, no = torch.zeros_like(on.loss), torch.zeros_like(on.loss, dtype=torch.bool)
        start = Point(zero, on.loss, on.slope)
        last = state.learning_rate.detach()
        guess = torch.ones_like(zero) if initial_guess_strategy == "one" else torch.where(last > 0, last, 1.0)

        def advance(s: Search) -> Search:
            further = torch.where(s.count == 0, guess, increase_factor * s.here.at)
            at_most = no if max_lr is None else further >= max_lr
            further = further if max_lr is None else torch.minimum(further, tree.scalar(max_lr, further))
            at = torch.where(s.found, inside(s.low, s.high, s.third), further)
            value, slope, grad = on.value_slope_grad(at)
            new = Point(at, value, slope)
            decrease, curvature = errors(start, new)
            both = torch.maximum(decrease, curvature) <= tol

            # 1. algorithm 3.5: the new rate ends an interval that begins at the one before, or the other way round
            ends = (decrease > 0) | ((value >= s.here.value) & (s.count > 0))
            turns = (slope >= 0) & ~ends
            stretched_low, stretched_high = _choose(turns, new, s.here), _choose(turns, s.here, new)
            interval = ends | turns | both
            # 2. algorithm 3.6: the new rate takes the place of an end
            worse = (decrease > 0) | (value >= s.low.value)
            beyond = (slope * (s.high.at - s.low.at) >= 0) & ~worse
            inner_high = _choose(worse, new, _choose(beyond, s.low, s.high))
            inner_low = _choose(worse, s.low, new)
            inner_third = _choose(worse | beyond, s.high, s.low)

            safer = (decrease <= tol) & (~s.found | (value < s.safe.value))
            safe = _choose(safer, new, s.safe)
            done = both | (~s.found & at_most & ~interval)
            short = s.found & ((s.high.at - s.low.at).abs() <= stepsize_precision) & (safe.at > 0)
            failed = ((s.count + 1 >= max_linesearch_steps) | short) & ~done
            return Search(
                here=new,
                grad=grad,
                low=_choose(s.found, inner_low, stretched_low),
                high=_choose(s.found, inner_high, stretched_high),
                third=_choose(s.found, inner_third, stretched_low),
                safe=safe,
                safe_grad=tree.where(safer, grad, s.safe_grad),
                decrease=decrease,
                curvature=curvature,
                count=s.count + 1,
                found=s.found | interval,
                done=done,
                failed=failed,
            )

        far = torch.full_like(zero, torch.inf)
        count = torch.zeros_like(state.info.num_linesearch_steps)
        slopes = tree.cast_like(on.grad, state.grad)
        begin = Search(start, slopes, start, start, start, start, slopes, far, far, count, no, no, no)
        end = tried(advance, lambda s: ~(s.done | s.failed), begin, max_linesearch_steps, dispatch)

        retreats = end.failed & ((end.safe.at > 0) | end.decrease.isinf())
        here, kept = _choose(retreats, end.safe, end.here), tree.where(retreats, end.safe_grad, end.grad)
        rate, value, decrease, curvature = (x.detach().to(state.value.dtype) for x in (here.at, here.value, end.decrease, end.curvature))
        info = ZoomLinesearchInfo(end.count, decrease, curvature)
        return stepped(rate, updates), ScaleByZoomLinesearchState(rate, value, tree.cast_like(kept, state.grad), info)

    return GradientTransformation(init, update, name=where, leaves="complex", needs={"value_fn": "always"})


def _missed(error: Tensor) -> Tensor:
    return torch.where(error.isnan(), torch.inf, error.clamp(min=0))


def _choose(condition: Tensor, p: Point, q: Point) -> Point:
    return Point(*(torch.where(condition, x, y) for x, y in zip(p, q, strict=True)))


def inside(low: Point, high: Point, third: Point) -> Tensor:
    """Where to look in an interval: at the minimum of a cubic, else of a parabola, else in the middle.

    Example:
        >>> from funcopt.transforms.zoom import Point, inside
        >>> square = lambda e: Point(torch.tensor(e), torch.tensor((e - 0.5) ** 2), torch.tensor(2 * e - 1.0))
        >>> inside(square(0.0), square(1.5), square(0.0))
        tensor(0.5000)
    """
    left, right = torch.minimum(low.at, high.at), torch.maximum(low.at, high.at)
    length = right - left

    def strictly(at: Tensor, share: float) -> Tensor:
        return (at > left + share * length) & (at < right - share * length)

    cubic, parabola = _least_of_cubic(low, high, third), _least_of_parabola(low, high)
    rest = torch.where(strictly(parabola, PARABOLA), parabola, (low.at + high.at) / 2)
    return torch.where(strictly(cubic, CUBIC), cubic, rest)


def _least_of_cubic(p: Point, q: Point, r: Point) -> Tensor:
    """Where a e^3 + b e^2 + c e + d, e counted from p, with p's value and slope and the values of q and r, is least; else NaN."""
    x, y = q.at - p.at, r.at - p.at
    c = p.slope
    over_x, over_y = q.value - p.value - c * x, r.value - p.value - c * y
    det = (x * y) ** 2 * (x - y)
    a = (y**2 * over_x - x**2 * over_y) / det
    b = (x**3 * over_y - y**3 * over_x) / det
    return p.at + (-b + (b * b - 3 * a * c).sqrt()) / (3 * a)


def _least_of_parabola(p: Point, q: Point) -> Tensor:
    """Where a parabola with p's value and slope and the value of q is least."""
    x = q.at - p.at
    b = (q.value - p.value - p.slope * x) / x**2
    return p.at - p.slope / (2 * b)
