"""What is compared. Every entry makes a transformation from the length of the run, a rate (or where a search for one starts) and a seed.

With a rate of their own to be tuned: AdamW and the four controllers as published. As their authors set them: Prodigy, DoG, D-adaptation,
Mechanic, schedule-free AdamW. Without any: `rate_free`, from each start, and around other directions; the controllers with
`find_rate` and averaging around them.
"""

from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import NamedTuple

import funcopt as fo
from funcopt.race import defaults
from funcopt.race.evidence.protocol import LOW, STARTS, TUNED, WARM_UP
from funcopt.race.free import FREE, found

__all__ = ["BAR", "METHODS", "Entry", "OURS_DECAYS", "RIVALS", "START", "chosen"]

START = signature(fo.rate_free).parameters["start"].default
BAR = ("adamw", "adamw, cosine")
OURS_DECAYS = "adamw, cosine, decay 0.2"  # that of `rate_free`, twenty times the bar's
RIVALS = ("prodigy", "dog", "d-adaptation", "mechanic", "schedule-free")


class Entry(NamedTuple):
    """One method.

    make: `(steps) -> (rate, seed) -> transformation`.
    rates: that are tried; one, None, where there is none.
    tuned: whether the best of the rates that are in `TUNED` is picked; else the one of `START`, or the only one.
    curve: whether test seeds run at every rate also in the short form.
    """

    make: Callable[[int], Callable]
    rates: tuple[float | None, ...] = (None,)
    tuned: bool = False
    curve: bool = False
    long: bool = False  # in the long form alone


def _fixed(make: Callable[[], fo.GradientTransformation], **settings) -> Entry:
    return Entry(lambda steps: lambda rate, seed: make(), **settings)


def _searching(make: Callable[..., fo.GradientTransformation], **settings) -> Entry:
    """From each start, in the place of a rate: `make(start, seed)`."""
    return Entry(lambda steps: lambda rate, seed: make(rate, seed), rates=STARTS, **settings)


def _tuned(make: Callable[..., fo.GradientTransformation], **settings) -> Entry:
    return Entry(lambda steps: make, rates=TUNED, tuned=True, **settings)


def _cosine(steps: int, decay: float = defaults.WEIGHT_DECAY) -> Callable:
    warm_up = max(1, round(WARM_UP * steps))

    def make(rate, seed):
        return fo.adamw(fo.schedules.warmup_cosine_decay_schedule(0.0, rate, warm_up, steps), weight_decay=decay)

    return make


def _adamw(rate, seed):
    return fo.adamw(rate, weight_decay=defaults.WEIGHT_DECAY)


def _adaptive(start, seed):
    inner = partial(fo.adamw, weight_decay=defaults.WEIGHT_DECAY)
    return found(fo.adaptive(inner, lr=fo.rules.trend(start) * fo.rules.variance()))


def _around_adamw(start, seed):
    return fo.rate_free(fo.adamw, start=start, weight_decay=defaults.WEIGHT_DECAY, find={"hurry": 0.0})


METHODS: dict[str, Entry] = {
    "adamw": Entry(lambda steps: _adamw, rates=(*LOW, *TUNED), tuned=True, curve=True),
    "adamw, cosine": Entry(_cosine, rates=TUNED, tuned=True),
    "rate_free": _searching(FREE["rate_free"].make, curve=True),
    "rate_free(adamw)": _searching(_around_adamw),
    "prodigy": _fixed(lambda: fo.prodigy()),
    "dog": _fixed(lambda: fo.average_params(fo.dog())),  # its authors look at the average
    "d-adaptation": _fixed(lambda: fo.dadapt_adamw()),
    "mechanic": _fixed(lambda: fo.mechanize(fo.adamw(1.0, weight_decay=defaults.WEIGHT_DECAY))),
    "schedule-free": _fixed(lambda: fo.schedule_free_adamw()),
    "sentence+find": _searching(FREE["sentence+find"].make),
    "pilot+find": _searching(FREE["pilot+find"].make),
    "aees+find": _searching(FREE["aees+find"].make),
    "roulette+find": _searching(FREE["roulette+find"].make),
    "adaptive+find": _searching(_adaptive),
    OURS_DECAYS: Entry(lambda steps: _cosine(steps, 0.2), rates=TUNED, tuned=True),
    "adamw, averaged": _tuned(lambda rate, seed: fo.average_params(_adamw(rate, seed)), long=True),
    "schedule-free, tuned": _tuned(lambda rate, seed: fo.schedule_free_adamw(rate), long=True),
    **{name: _tuned(defaults.METHODS[name].make, long=True) for name in ("pilot", "aees", "roulette", "adaptive", "sentence")},
}


def chosen(form: str, only: list[str] | None = None) -> dict[str, Entry]:
    """The methods of a form, or those of them that are named; where nobody looks at a curve, at the rate that counts.

    Raises:
        ValueError: a name is unknown.
    """
    for name in only or ():
        if name not in METHODS:
            raise ValueError(f"evidence: no method {name!r}; there are {', '.join(METHODS)}")
    picked = {name: entry for name, entry in METHODS.items() if (name in only if only else form == "long" or not entry.long)}
    if form == "long":
        return {name: entry._replace(curve=True) for name, entry in picked.items()}
    return {
        name: entry if entry.tuned or entry.curve or entry.rates == (None,) else entry._replace(rates=(START,))
        for name, entry in picked.items()
    }
