"""rate_free: any ready-made optimizer without a rate and without a horizon.

find_rate()          stretches the step until it is right, and holds
clip_by_mean_norm    no gradient much longer than those of late: where Adam's second moment has faded, one throws a run back
factory(start)       the direction, at a rate that is far too small
average_params       what to evaluate: `averaged_params(state, params)`

per_leaf: the first two for every leaf by itself.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from funcopt.controllers.rate.find_rate import find_rate
from funcopt.core import GradientTransformation, chain, check
from funcopt.core.searched import unfindable
from funcopt.optimizers.nadam import nadamw
from funcopt.transforms.average_params import average_params
from funcopt.transforms.clip_by_mean_norm import clip_by_mean_norm
from funcopt.transforms.partition import partition

__all__ = ["rate_free"]

START = 1e-6


class Defaults(NamedTuple):
    """Of a direction, where others are not given: what its factory takes, settings for the search, and the bound of gradients."""

    factory: Mapping[str, Any]
    find: Mapping[str, Any]
    clip: float


# A second moment of some 200 steps, or 10 where gradients are sure; the decay is times the rate that is found. Adam's steps bear twice
# the greedy rate.
NADAMW = Defaults({"b2": 0.995, "b2_sure": 0.9, "weight_decay": 0.2}, {"hurry": 3.0, "stretch": 1.2}, clip=3.0)
OTHERS = Defaults({}, {"hurry": 3.0}, clip=math.inf)
SAID_BY = {"b2": ("betas",), "b2_sure": ("b2", "betas", "momentum_decay")}  # with one of these nothing is left to say by default


def rate_free(
    factory: Callable[..., GradientTransformation] = nadamw,
    *,
    start: float = START,
    average: bool = True,
    power: float = 8.0,
    clip: float | None = None,
    find: Mapping[str, Any] | None = None,
    per_leaf: bool = False,
    **settings: Any,
) -> GradientTransformation:
    """An optimizer that finds its rate: the thing to try first.

    Args:
        factory: a ready-made optimizer that takes its rate first, such as `fo.adamw` or `fo.sgd`, with its own defaults;
            `fo.nadamw`, which is taken unless another is given, has `b2=0.995`, `b2_sure=0.9` and `weight_decay=0.2` unless they are
            given (`b2` alone is that of all gradients), and decays by the `decay_share` of that which `find_rate` says.
        start: the rate with which the search begins, > 0, far below what may be right: a rate
            that is too high has to be undone, one that is too low costs some steps.
        average: whether the average of the params is kept, for `averaged_params`.
        power: of the average, as in `average_params`.
        clip: how many times as long as the mean of late a gradient may be, > 1 (`clip_by_mean_norm`); inf: any length. None: 3 for
            `fo.nadamw`, else inf: where steps are as long as gradients, the search needs to see them grow.
        find: settings for `find_rate`, such as `{"keep": 0.5}`; unless given, `hurry` is 3, and for `fo.nadamw` `stretch` 1.2.
        per_leaf: whether each leaf finds its own rate, from its own steps and gradients, and has a direction of its own:
            an experiment, since a small leaf tells little of its rate. Compiling takes longer with every leaf.
        settings: other keywords of the factory.

    Returns:
        A transformation from gradients to updates.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 that entry stays at 0; clip.

    Signals:
        those of `find_rate` and of the factory; with `per_leaf` those of each leaf as "path/rate_multiplier".

    Raises:
        TypeError: `factory` is no function that makes a transformation from a rate.
        ValueError: an argument is out of its range; the factory's steps declare one length (`one_length`, as those of
            `lion` and `signum`), or that they find their own rate (`own_rate`, as those of `prodigy` and `dog`).

    Example:
        >>> tx = fo.rate_free()
        >>> params = {"w": torch.tensor([1.0, -2.0])}
        >>> state = tx.init(params)
        >>> for step in range(200):
        ...     updates, state = tx.update(params, state, params)  # the gradient of half the squared norm
        ...     params = fo.apply_updates(params, updates)
        >>> fo.averaged_params(state, params)["w"].abs().max() < 0.01
        tensor(True)
    """
    where = "rate_free"
    check.positive(where, "start", start)
    check.flag(where, "per_leaf", per_leaf)
    if isinstance(factory, GradientTransformation) or not callable(factory):
        raise TypeError(
            f"{where}: factory must be a function that makes an optimizer from a rate, such as fo.adamw, not yet called, got {factory!r}"
        )
    name = getattr(factory, "__name__", "factory")
    if "lr" not in inspect.signature(factory).parameters:
        raise TypeError(
            f"{where}: factory must take its rate as lr, which {name} does not; use find_rate() and average_params() around what it makes"
        )
    if "lr" in settings:
        raise TypeError(f"{where}: takes no lr, since it finds its own; start= is where the search begins")
    default = NADAMW if inspect.unwrap(factory) is nadamw else OTHERS  # public names are fronts of what is behind them
    inner = factory(start, **with_defaults(default, settings))
    check_direction(where, inner)
    tx = searching(where, inner, default, clip, find or {})
    if per_leaf:
        tx = partition(tx, by="leaf")
    return average_params(tx, power=power) if average else tx


def with_defaults(default: Defaults, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the factory is given; a second moment that is said for all gradients is not another for sure ones."""
    said = {name for name, others in SAID_BY.items() if any([other in settings for other in others])}
    return {**{name: value for name, value in default.factory.items() if name not in said}, **settings}


def searching(
    where: str, inner: GradientTransformation, default: Defaults, clip: float | None, find: Mapping[str, Any]
) -> GradientTransformation:
    """The search to the left of the optimizer, and between them the bound of what it hears."""
    clip = default.clip if clip is None else clip
    check.limit(where, "clip", clip)
    links = [] if clip == math.inf else [clip_by_mean_norm(clip)]
    return chain(find_rate(**{**default.find, **find}), *links, inner)


def check_direction(where: str, inner: GradientTransformation) -> None:
    """Refuses an optimizer whose rate cannot be found, by what it declares."""
    reason = unfindable(inner)
    if reason is not None:
        use = "take one whose steps shrink with the gradient, such as nadamw, or tune its rate" if inner.one_length else "use it as it is"
        raise ValueError(f"{where}: {reason}; {use}")
