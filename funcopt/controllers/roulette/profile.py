"""The default profile of OptiRoulette: 34 members, their groups, preferences and rules, as settings of `roulette`.

Source: OptiRoulette 0.1.0; the members are in `profile_members.py`. What the libraries of its classes accept and ignore is left out:
`N_sma_threshold` of ranger and `decoupled` of adai, whose decay is coupled.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from funcopt.controllers.roulette.compatibility import Compatibility, Group
from funcopt.controllers.roulette.members import Member
from funcopt.controllers.roulette.pool import Failures, Recovery
from funcopt.controllers.roulette.profile_members import MEMBERS, member_of
from funcopt.controllers.roulette.switch_rules import switch_rules
from funcopt.controllers.roulette.warmup import fixed_warmup
from funcopt.core import check

__all__ = ["Profile", "optiroulette_profile"]


class Profile(NamedTuple):
    """A pool and the settings around it: `optiroulette(profile)`, or `roulette(profile.pool, **profile.settings)`."""

    pool: dict[str, Member]  # names and members
    settings: dict[str, Any]  # keywords of `roulette`


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
        "reserve": [name for name in MEMBERS if name not in ACTIVE and name not in BACKUP],
        "failures": Failures(threshold=-0.15, in_a_row=3, drop=0.3, drops_in_a_row=2, blacklist=2, swaps=False),
        "recovery": Recovery(
            grace=5, relax=1.5, transfer="all", scale=0.5, instability_factor=0.5, instability_min_lr=1e-6, instability_limit=2
        ),
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


def optiroulette_profile(hyperparameters: Mapping[str, Mapping[str, Any]] | None = None, *, quirks: bool = False) -> Profile:
    """The default profile of OptiRoulette: 34 members, 17 epochs of warm-up on sgd, then a draw in each epoch.

    Args:
        hyperparameters: for single members, in place of those of the profile, under the names of the classes that these stand
            for in torch.optim and pytorch_optimizer: `{"sgd": {"lr": 0.05}}`.
        quirks: whether members walk wrong where those classes do: `ranger` up the mean of the gradient in its first five steps ("uphill"),
            `TAM` by products of entries in place of a cosine ("entrywise"), `ASGD` by differences of norms in place of norms of
            differences ("apart"), `SPlus` by eigenvectors in float32 ("single"). One alone: `hyperparameters={"ranger": {"uphill": True}}`.

    Returns:
        A pool and settings, for `optiroulette(profile, ...)`.

    Raises:
        ValueError: `hyperparameters` holds an unknown name, of a member or of what it takes.

    Example:
        >>> profile = fo.optiroulette_profile({"sgd": {"lr": 0.05}})
        >>> len(profile.pool), profile.settings["active"][:3], profile.pool["sgd"].lr
        (34, ['sgd', 'nadam', 'adam'], 0.05)
    """
    check.flag("optiroulette_profile", "quirks", quirks)
    changes = dict(hyperparameters or {})
    for name in changes:
        member_of(name, {})
    given = {name: {**member.given, **(member.quirks if quirks else {}), **changes.get(name, {})} for name, member in MEMBERS.items()}
    return Profile({name: member_of(name, values) for name, values in given.items()}, _settings())
