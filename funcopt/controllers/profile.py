"""The default profile of OptiRoulette: 34 members, their groups, preferences and rules, as settings of `roulette`.

Source: OptiRoulette 0.1.0. Members are those of the libraries that its names resolve to (torch.optim,
pytorch_optimizer). What the installed libraries accept and ignore is left out: `N_sma_threshold` of
ranger and `decoupled` of adai, whose decay is coupled. Two deviations: our radam decays its weights in
its five idle steps, too, and fromage has a floor under its norms.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from funcopt.controllers.compatibility import Compatibility, Group
from funcopt.controllers.members import Member
from funcopt.controllers.pool import Failures, Recovery
from funcopt.controllers.switch_rules import switch_rules
from funcopt.controllers.transfer import Roles
from funcopt.controllers.warmup import fixed_warmup
from funcopt.core import chain, identity
from funcopt.optimizers.adabelief import scale_by_belief
from funcopt.optimizers.adagrad import scale_by_rss
from funcopt.optimizers.adahessian import scale_by_adahessian
from funcopt.optimizers.adam import scale_by_adam
from funcopt.optimizers.adan import scale_by_adan
from funcopt.optimizers.amsgrad import scale_by_amsgrad
from funcopt.optimizers.fromage import fromage
from funcopt.optimizers.lion import scale_by_lion
from funcopt.optimizers.nadam import scale_by_nadam
from funcopt.optimizers.novograd import scale_by_novograd
from funcopt.optimizers.radam import scale_by_radam
from funcopt.optimizers.rmsprop import scale_by_rms, scale_by_stddev
from funcopt.optimizers.yogi import scale_by_yogi
from funcopt.transforms.trace import trace
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["Profile", "optiroulette_profile"]


class Profile(NamedTuple):
    """A pool and the settings around it: `optiroulette(profile)`, or `roulette(profile.pool, **profile.settings)`."""

    pool: dict[str, Member]
    settings: dict[str, Any]


# --- members ------------------------------------------------------------------------------------------------------------------

HYPERPARAMETERS: dict[str, dict[str, Any]] = {
    "adam": {"lr": 1e-3, "betas": (0.9, 0.999), "weight_decay": 1e-4},
    "adamw": {"lr": 1e-3, "betas": (0.9, 0.999), "weight_decay": 0.06},
    "sgd": {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": True},
    "nadam": {"lr": 1e-3, "betas": (0.9, 0.999), "weight_decay": 1e-4},
    "Adagrad": {"lr": 1e-5},
    "amsgrad": {"lr": 1e-5, "betas": (0.9, 0.999), "weight_decay": 0.0},
    "adabelief": {"lr": 1e-5, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 1e-4},
    "yogi": {"lr": 1e-5, "betas": (0.9, 0.999), "weight_decay": 0.0},
    "qhadam": {"lr": 1e-5, "betas": (0.9, 0.999), "nus": (0.7, 1.0), "weight_decay": 0.0},
    "adamp": {"lr": 1e-5, "betas": (0.9, 0.999), "weight_decay": 0.0},
    "novograd": {"lr": 1e-5, "betas": (0.95, 0.98), "weight_decay": 0.0},
    "lion": {"lr": 1e-5, "betas": (0.9, 0.99), "weight_decay": 0.0},
    "ranger": {"lr": 7e-4, "betas": (0.95, 0.999), "weight_decay": 0.0, "alpha": 0.5, "k": 5, "eps": 1e-5},
    "ranger21": {"lr": 1e-3, "betas": (0.9, 0.999), "weight_decay": 1e-4, "beta0": 0.9, "eps": 1e-8, "num_iterations": 400},
    "adan": {"lr": 1.2e-4, "betas": (0.98, 0.92, 0.99), "weight_decay": 0.0},
    "AdaHessian": {"lr": 0.15, "betas": (0.9, 0.999), "weight_decay": 0.0, "eps": 1e-4, "hessian_power": 0.5},
    "rmsprop": {"lr": 1e-5, "alpha": 0.9, "momentum": 0.9, "weight_decay": 1e-4, "centered": True},
    "radam": {"lr": 1e-3, "betas": (0.9, 0.999), "weight_decay": 1e-4},
    "adai": {"lr": 0.1, "betas": (0.9, 0.99), "weight_decay": 4e-4, "eps": 1e-3},
    "gravity": {"lr": 1e-5, "beta": 0.9, "alpha": 0.01},
    "TAM": {"lr": 0.2},
    "SPlus": {"lr": 0.2},
    "Fromage": {"lr": 0.01},
    "AggMo": {"lr": 0.1},
    "GaLore": {"lr": 0.01},
    "ADOPT": {"lr": 1e-4},
    "fira": {"lr": 0.01},
    "Apollo": {"lr": 0.01, "weight_decay": 1e-4, "eps": 1e-4},
    "AccSGD": {"lr": 1e-5, "kappa": 10000, "xi": 10.0},
    "PID": {"lr": 0.085},
    "ASGD": {"lr": 1e-5},
    "SGDW": {"lr": 1e-5},
    "AdaNorm": {"lr": 1e-5},
    "Nero": {"lr": 0.01},
}


def _coupled(direction: Any, weight_decay: float, lr: float, roles: Roles | None = None) -> Member:
    return Member(chain(add_decayed_weights(weight_decay), direction), lr=lr, roles=roles)


def _decoupled(direction: Any, weight_decay: float, lr: float, roles: Roles | None = None) -> Member:
    return Member(chain(direction, add_decayed_weights(weight_decay)), lr=lr, roles=roles)


def _adam_like(scale: Callable, join: Callable) -> Callable:
    def make(lr, betas: Any = (0.9, 0.999), weight_decay=0.0, eps=1e-8):
        return join(scale(*betas, eps=eps), weight_decay, lr, Roles("mu", "nu", "count", decay=betas[0]))

    return make


def _sgd(lr, momentum=0.0, weight_decay=0.0, nesterov=False):
    return _coupled(trace(momentum, nesterov=nesterov) if momentum else identity(), weight_decay, lr, Roles(velocity="trace") if momentum else Roles())


def _rmsprop(lr, alpha=0.99, momentum=0.0, weight_decay=0.0, centered=False, eps=1e-8):
    scale = (scale_by_stddev if centered else scale_by_rms)(alpha, eps, eps_in_sqrt=False)
    return _coupled(chain(scale, trace(momentum)), weight_decay, lr, Roles(normalised_velocity="trace"))


def _adabelief(lr, betas: Any = (0.9, 0.999), weight_decay=0.0, eps=1e-16):
    return _decoupled(scale_by_belief(*betas, eps=eps, eps_root=eps), weight_decay, lr, Roles("mu", decay=betas[0]))


def _amsgrad(lr, betas: Any = (0.9, 0.999), weight_decay=0.0, eps=1e-8):
    return _coupled(scale_by_amsgrad(*betas, eps=eps, correct_before_max=False), weight_decay, lr, Roles("mu", "nu", "count", decay=betas[0]))


def _yogi(lr, betas: Any = (0.9, 0.999), weight_decay=0.0, eps=1e-3):
    return _decoupled(scale_by_yogi(*betas, eps=eps), weight_decay, lr, Roles("mu", "nu", "count", decay=betas[0]))


def _novograd(lr, betas: Any = (0.95, 0.98), weight_decay=0.0, eps=1e-8):
    return Member(scale_by_novograd(*betas, eps=eps, weight_decay=weight_decay), lr=lr, roles=Roles())


def _adan(lr, betas: Any = (0.98, 0.92, 0.99), weight_decay=0.0, eps=1e-8):
    if weight_decay:
        raise ValueError("optiroulette_profile: the decay of 'adan' divides, and a direction cannot; keep weight_decay=0")
    return Member(scale_by_adan(*betas, eps=eps), lr=lr, roles=Roles("m", "n", decay=betas[0]))


def _adahessian(lr, betas: Any = (0.9, 0.999), weight_decay=0.0, eps=1e-4, hessian_power=0.5):
    return _decoupled(scale_by_adahessian(*betas, eps=eps, hessian_power=hessian_power), weight_decay, lr, Roles())


def _lion(lr, betas: Any = (0.9, 0.99), weight_decay=0.0):
    return _decoupled(scale_by_lion(*betas), weight_decay, lr, Roles("mu", decay=betas[1]))


def _radam(lr, betas: Any = (0.9, 0.999), weight_decay=0.0, eps=1e-8):
    scale = scale_by_radam(*betas, eps=eps, degenerated_to_sgd=False, correct_eps=True)
    return _decoupled(scale, weight_decay, lr, Roles("mu", "nu", "count", decay=betas[0]))


NATIVE: dict[str, Callable[..., Member]] = {
    "adam": _adam_like(scale_by_adam, _coupled),
    "adamw": _adam_like(scale_by_adam, _decoupled),
    "sgd": _sgd,
    "nadam": _adam_like(scale_by_nadam, _coupled),
    "Adagrad": lambda lr, eps=1e-10: Member(scale_by_rss(0.0, eps, eps_in_sqrt=False), lr=lr),
    "amsgrad": _amsgrad,
    "adabelief": _adabelief,
    "yogi": _yogi,
    "novograd": _novograd,
    "lion": _lion,
    "adan": _adan,
    "AdaHessian": _adahessian,
    "Fromage": lambda lr: Member(fromage(lr)),
    "rmsprop": _rmsprop,
    "radam": _radam,
    "PID": lambda lr, weight_decay=0.0: _coupled(identity(), weight_decay, lr),  # the profile leaves its momentum 0, and with it I and D out
    "SGDW": lambda lr, weight_decay=0.0: _decoupled(identity(), weight_decay, lr),
}

# --- the pool -----------------------------------------------------------------------------------------------------------------

ACTIVE = ["sgd", "nadam", "adam", "adamw", "ranger", "adan", "lion"]
BACKUP = ["Adagrad", "amsgrad", "adabelief"]

INTERACTIONS = {
    "momentum_based": ("adam_family adam_advanced", "experimental"),
    "adam_family": ("adam_advanced adaptive_family hybrid_family", ""),
    "adam_advanced": ("adam_family hybrid_family adaptive_family", "momentum_based"),
    "adaptive_family": ("adam_family adam_advanced hybrid_family", "momentum_based"),
    "hybrid_family": ("adam_family adam_advanced adaptive_family", "momentum_based experimental"),
    "experimental": ("experimental", "momentum_based hybrid_family"),
}
GROUPS = {
    "momentum_based": ("sgd rmsprop novograd", 2),
    "adam_family": ("adam adamw nadam amsgrad", 1),
    "adam_advanced": ("radam adan", 1),
    "adaptive_family": ("adabelief yogi adamp", 2),
    "hybrid_family": ("ranger ranger21 qhadam", 3),
    "experimental": ("lion gravity adai AdaHessian", 4),
}
TRANSFER = {
    "sgd": "rmsprop novograd adam nadam",
    "rmsprop": "sgd adam amsgrad",
    "novograd": "sgd adam adamw",
    "adam": "adamw nadam amsgrad radam adan",
    "adamw": "adam nadam amsgrad radam adan",
    "nadam": "adam adamw amsgrad radam",
    "amsgrad": "adam adamw nadam radam",
    "radam": "adam adamw nadam ranger ranger21",
    "adan": "adam adamw radam",
    "adabelief": "yogi adamp adam adamw",
    "yogi": "adabelief adamp adam",
    "adamp": "adabelief yogi qhadam",
    "ranger": "ranger21 radam adam",
    "ranger21": "ranger radam adam",
    "qhadam": "adamp adam nadam",
    "lion": "adamw adam",
    "adai": "adam sgd",
}
PREFERRED = {  # three tiers, and who never follows
    "sgd": ("radam adamw adam", "nadam adai", "rmsprop novograd", "lion gravity AdaHessian"),
    "rmsprop": ("sgd adam", "amsgrad adamw", "novograd", "experimental"),
    "novograd": ("adam adamw", "sgd rmsprop", "radam", "lion gravity"),
    "adam": ("adamw nadam amsgrad", "radam adan", "adabelief ranger", "sgd gravity AdaHessian"),
    "adamw": ("adam nadam amsgrad", "radam adan", "ranger lion", "sgd gravity"),
    "nadam": ("adam adamw amsgrad", "radam qhadam", "ranger", "sgd experimental"),
    "amsgrad": ("adam adamw nadam", "radam", "rmsprop", "experimental"),
    "radam": ("ranger ranger21 adam", "adamw nadam adan", "amsgrad", "sgd gravity"),
    "adan": ("radam adam adamw", "nadam", "ranger", "sgd rmsprop"),
    "adabelief": ("yogi adamp", "adam adamw amsgrad", "ranger radam", "sgd lion"),
    "yogi": ("adabelief adamp", "adam adamw", "ranger", "sgd novograd"),
    "adamp": ("adabelief yogi qhadam", "adam adamw", "nadam", "sgd experimental"),
    "ranger": ("ranger21 radam", "adam adamw nadam", "adabelief", "sgd gravity"),
    "ranger21": ("ranger radam", "adam adamw adan", "adabelief", "sgd novograd"),
    "qhadam": ("adamp nadam", "adam adamw", "ranger", "sgd rmsprop"),
    "lion": ("adamw adam", "gravity adai", "radam adan", "sgd rmsprop AdaHessian"),
    "gravity": ("adai lion", "AdaHessian", "", "adam_family momentum_based"),
    "adai": ("gravity lion", "adam sgd", "adamw radam", "AdaHessian"),
    "AdaHessian": ("gravity", "lion adai", "", "momentum_based adam_family"),
}
HIGH, LOW = ["sgd", "gravity", "adai"], ["adam_family", "adam_advanced"]


def _settings() -> dict[str, Any]:
    groups = {}
    for name, (members, priority) in GROUPS.items():
        compatible, incompatible = (names.split() for names in INTERACTIONS[name])
        internal = name == "experimental"
        groups[name] = Group(members.split(), priority=priority, internal=internal, compatible=compatible, incompatible=incompatible)
    rules = switch_rules(
        high_to_low=(0.01, [(HIGH, [*LOW, "adaptive_family"])]),
        low_to_high=(10.0, [(LOW, HIGH)]),
        special={"AdaHessian": {"lr": 0.15, "scale": False}, "lion": {"max_lr": 3e-4}},
    )
    return {
        "switch": "epoch",
        "warmup": fixed_warmup(17, "sgd", drop=True),
        "active": ACTIVE,
        "backup": BACKUP,
        "reserve": [name for name in HYPERPARAMETERS if name not in ACTIVE and name not in BACKUP],
        "failures": Failures(threshold=-0.15, in_a_row=3, drop=0.3, drops_in_a_row=2, blacklist=2, swaps=False),
        "recovery": Recovery(grace=5, relax=1.5, transfer="all", scale=0.5, instability_factor=0.5, instability_min_lr=1e-6, instability_limit=2),
        "compatible": Compatibility(
            groups,
            across=True,
            preferred={name: [tier.split() for tier in row[:3]] for name, row in PREFERRED.items()},
            avoid={name: row[3].split() for name, row in PREFERRED.items()},
            transfer={name: takers.split() for name, takers in TRANSFER.items()},
        ),
        "rules": (rules, rules),  # at switches and at swaps
        "parity": True,
        "seed": 42,
    }


def optiroulette_profile(
    missing: Callable[[str, dict[str, Any]], Member] | None = None, hyperparameters: Mapping[str, Mapping[str, Any]] | None = None
) -> Profile:
    """The default profile of OptiRoulette: 34 members, 17 epochs of warm-up on sgd, then a draw in each epoch.

    Args:
        missing: makes the members that are not built here, from a name and its
            hyperparameters under their torch names; None: they are named in an error.
        hyperparameters: for single members, in place of those of the profile.

    Returns:
        A pool and settings, for `optiroulette(profile, ...)`.

    Raises:
        ValueError: there are members that are not built here and no `missing`, or
            `hyperparameters` holds an unknown name.

    Example:
        >>> profile = fo.optiroulette_profile(missing=lambda name, given: fo.Member(fo.identity(), lr=given["lr"]))
        >>> len(profile.pool), profile.settings["active"][:3]
        (34, ['sgd', 'nadam', 'adam'])
    """
    given = {name: dict(defaults) for name, defaults in HYPERPARAMETERS.items()}
    for name, changes in (hyperparameters or {}).items():
        if name not in given:
            raise ValueError(f"optiroulette_profile: there is no member {name!r}; there are {', '.join(given)}")
        given[name] |= changes
    absent = [name for name in given if name not in NATIVE]
    if absent and missing is None:
        raise ValueError(
            f"optiroulette_profile: not built here: {', '.join(absent)}; pass missing=, a function (name, hyperparameters) -> Member that makes them, "
            "or take what there is: roulette(pool) with members of your own"
        )
    pool = {}
    for name, hyper in given.items():
        if name not in NATIVE:
            assert missing is not None
            pool[name] = missing(name, hyper)
            continue
        known = inspect.signature(NATIVE[name]).parameters
        unknown = [key for key in hyper if key not in known]
        if unknown:
            raise ValueError(f"optiroulette_profile: '{name}' takes {', '.join(known)}, got {', '.join(unknown)}")
        pool[name] = NATIVE[name](**hyper)
    return Profile(pool, _settings())
