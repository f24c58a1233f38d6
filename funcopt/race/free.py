"""Methods that nobody has to tune: each as its source has it, with no rate chosen for the task."""

import funcopt as fo
from funcopt.race import defaults
from funcopt.race.defaults import RATES, WEIGHT_DECAY, Method

__all__ = ["FREE", "SWITCHES", "chosen", "found", "pair", "pool", "sentence", "untuned"]

START = 1e-6  # of what finds its rate, where no other is given in the place of a rate
# short turns, and members that have seen every gradient: with long turns of members that slept it is behind
SWITCHES = {"every": 10, "track": "all"}
SEARCH, DECAY, B2 = {"hurry": 3.0, "stretch": 1.2}, 0.2, 0.995  # those of `rate_free`
GENTLE = (0.9, 1.0, 1.1)  # arms: a full batch feels a factor of 1.4 from episode to episode


def found(*links: fo.GradientTransformation) -> fo.GradientTransformation:
    """The links, with the rate found to their left and the params averaged around them."""
    return fo.average_params(fo.chain(fo.find_rate(), *links))


def pool(start=START) -> dict[str, fo.Member]:
    """Members that one rate suits: their steps are of one size."""
    directions = {"adam": fo.scale_by_adam(), "nadam": fo.scale_by_nadam(), "adabelief": fo.scale_by_belief()}
    return {name: fo.Member(direction, lr=start) for name, direction in directions.items()}


def pair(start=START) -> dict[str, fo.Member]:
    """Members between which a full batch, too, may be handed to and fro; those of `pool` cost it a multiple of its loss."""
    directions = {"nesterov": fo.scale_by_adam(b2=B2, nesterov=True), "adam": fo.scale_by_adam(b1=0.8, b2=B2)}
    return {name: fo.Member(direction, lr=start) for name, direction in directions.items()}


def _begin(start):
    return START if start is None else start


def sentence(start, seed, *, members=pair, arms=GENTLE, decay=DECAY, find=SEARCH) -> fo.GradientTransformation:
    """The sentence, around its four links the search, the decay and the average of `rate_free`."""
    draw, bandit = (fo.random.fold_in(seed, stream) for stream in range(2))
    links = (
        fo.agreement_policy(),
        fo.roulette(members(_begin(start)), seed=draw, **SWITCHES),
        fo.ucb_episodes(arms, seed=bandit),
        fo.add_decayed_weights(decay),
        fo.lr_scale(),
    )
    return fo.average_params(fo.chain(fo.find_rate(**find), fo.clip_by_mean_norm(), *links))


FREE: dict[str, Method] = {
    "rate_free": Method(lambda start, seed: fo.rate_free(start=_begin(start))),
    "schedule_free": Method(lambda rate, seed: fo.schedule_free_adamw()),
    "prodigy": Method(lambda rate, seed: fo.prodigy()),
    "dog": Method(lambda rate, seed: fo.average_params(fo.dog())),  # its authors look at the average
    "pilot+find": Method(lambda start, seed: found(fo.pilot(_begin(start), weight_decay=WEIGHT_DECAY))),
    "roulette+find": Method(
        lambda start, seed: found(fo.roulette(pool(_begin(start)), seed=seed, **SWITCHES), fo.lr_scale()), tuple(pool())
    ),
    "aees+find": Method(lambda start, seed: found(fo.ucb_episodes(seed=seed), fo.nadamw(_begin(start), weight_decay=WEIGHT_DECAY))),
    "sentence+find": Method(sentence, tuple(pair())),
}


def chosen(task: str, only: list[str] | None) -> dict[str, Method]:
    """These methods in the order of the tables; unless some are named, those whose rates are known, or AdamW and those that need none."""
    known = defaults.METHODS | FREE
    for name in only or ():
        if name not in known:
            raise ValueError(f"race: no optimizer {name!r}; there are {', '.join(known)}")
    names = only or (defaults.METHODS if task in RATES else ["adamw", *FREE])
    return {name: known[name] for name in known if name in names}


def untuned(task: str, methods: dict[str, Method]) -> list[str]:
    """Those of them that need a rate for this task and have none."""
    return [name for name in methods if name not in FREE and name not in RATES.get(task, {})]
