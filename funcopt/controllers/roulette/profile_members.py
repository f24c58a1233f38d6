"""The 34 members of OptiRoulette's default profile: how each is made, and from what.

A factory takes the hyperparameters of the class that the profile's name resolves to in OptiRoulette 0.1.0 (torch.optim and
pytorch_optimizer 4.1, the later one of equal names), under its names and with its defaults; `given` is what the profile sets.

Where the class walks wrong the member walks right, unless a quirk is asked for:

    ranger   uphill      up the mean of the gradient while the mean square is not trusted
    TAM      entrywise   products of entries in place of a cosine
    ASGD     apart       differences of norms in place of norms of differences, which are often not positive
    SPlus    single      eigenvectors in float32, whatever the params are
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.controllers.roulette.members import Member
from funcopt.controllers.roulette.transfer import Roles
from funcopt.core import GradientTransformation, TensorTree, chain, identity, moments, tree
from funcopt.optimizers.accsgd import scale_by_accsgd
from funcopt.optimizers.adabelief import scale_by_belief
from funcopt.optimizers.adagrad import scale_by_rss
from funcopt.optimizers.adahessian import scale_by_adahessian
from funcopt.optimizers.adai import scale_by_adai
from funcopt.optimizers.adam import scale_by_adam
from funcopt.optimizers.adamp import scale_by_adamp
from funcopt.optimizers.adan import scale_by_adan
from funcopt.optimizers.adanorm import scale_by_adanorm
from funcopt.optimizers.adgd import adgd
from funcopt.optimizers.adopt import scale_by_adopt
from funcopt.optimizers.aggmo import scale_by_aggmo
from funcopt.optimizers.amsgrad import scale_by_amsgrad
from funcopt.optimizers.fromage import fromage
from funcopt.optimizers.gravity import scale_by_gravity
from funcopt.optimizers.lion import scale_by_lion
from funcopt.optimizers.nadam import scale_by_nadam
from funcopt.optimizers.nero import scale_by_nero
from funcopt.optimizers.novograd import scale_by_novograd
from funcopt.optimizers.qhadam import scale_by_qhadam
from funcopt.optimizers.radam import rectified, scale_by_radam
from funcopt.optimizers.ranger import ranger
from funcopt.optimizers.ranger21 import ranger21
from funcopt.optimizers.rmsprop import scale_by_rms, scale_by_stddev
from funcopt.optimizers.sized_decay import decay_sized
from funcopt.optimizers.splus import splus
from funcopt.optimizers.tam import scale_by_tam
from funcopt.optimizers.yogi import scale_by_yogi
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.trace import trace
from funcopt.transforms.weight_decay import add_decayed_weights

Pair = tuple[float, float]
Factory = Callable[..., Member]
NOTHING = Roles()  # to hand over or to take


class ProfileMember(NamedTuple):
    """How a member is made, and from what."""

    make: Factory
    given: Mapping[str, Any]  # what the profile sets; the rest are the defaults of `make`
    quirks: Mapping[str, Any] = {}  # noqa: RUF012 - what makes it walk as its class does


# --- shapes of members ----------------------------------------------------------------------------------------------------------


def coupled(direction: GradientTransformation, weight_decay: float, lr: float, roles: Roles | None = None) -> Member:
    """Decay is part of the gradient."""
    return Member(chain(add_decayed_weights(weight_decay), direction), lr=lr, roles=roles)


def decoupled(direction: GradientTransformation, weight_decay: Any, lr: float, roles: Roles | None = None) -> Member:
    """Decay is part of the direction, and multiplied by the rate."""
    return Member(chain(direction, add_decayed_weights(weight_decay)), lr=lr, roles=roles)


def decayed_after(
    direction: GradientTransformation, weight_decay: float, lr: float, factor: Callable[[Tensor], Tensor] | None = None
) -> Member:
    """Decay of where the step leads; a ready-made optimizer, unless there is none."""
    if not weight_decay:
        return Member(direction, lr=lr, roles=NOTHING)
    return Member(
        chain(direction, lr_scale(lr), decay_sized("optiroulette_profile", weight_decay, after=True, factor=factor)), roles=NOTHING
    )


def of_adam(betas: Pair) -> Roles:
    return Roles("mu", "nu", "count", decay=betas[0])


def begun_again(**fields: Callable[[Any, TensorTree], Any]) -> Callable[[Any, TensorTree], Any]:
    """Anchors: fields of a state that are made anew, of the field and the params, where they stand."""

    def anchored(state: Any, params: TensorTree) -> Any:
        if hasattr(state, "_fields"):
            if set(fields) <= set(state._fields):
                return state._replace(**{name: renew(getattr(state, name), params) for name, renew in fields.items()})
            return type(state)(*[anchored(part, params) for part in state])
        return type(state)([anchored(part, params) for part in state]) if type(state) in (tuple, list) else state

    return anchored


def here(old: TensorTree, params: TensorTree) -> TensorTree:
    """What stands in the space of the params begins where they are."""
    return tree.cast_like(tree.clone(params), old)


def none_yet(old: Tensor, params: TensorTree) -> Tensor:
    return torch.zeros_like(old)


# --- in the order of the profile ------------------------------------------------------------------------------------------------


def adam(lr: float = 1e-3, betas: Pair = (0.9, 0.999), weight_decay: float = 0.0, eps: float = 1e-8) -> Member:
    return coupled(scale_by_adam(*betas, eps=eps), weight_decay, lr, of_adam(betas))


def adamw(lr: float = 1e-3, betas: Pair = (0.9, 0.999), weight_decay: float = 0.0, eps: float = 1e-8) -> Member:
    return decoupled(scale_by_adam(*betas, eps=eps), weight_decay, lr, of_adam(betas))


def sgd(lr: float = 1e-3, momentum: float = 0.0, weight_decay: float = 0.0, nesterov: bool = False) -> Member:
    direction = trace(momentum, nesterov=nesterov) if momentum else identity()
    return coupled(direction, weight_decay, lr, Roles(velocity="trace") if momentum else NOTHING)


def nadam(lr: float = 2e-3, betas: Pair = (0.9, 0.999), weight_decay: float = 0.0, eps: float = 1e-8) -> Member:
    return coupled(scale_by_nadam(*betas, eps=eps), weight_decay, lr, of_adam(betas))


def adagrad(lr: float = 1e-2, eps: float = 1e-10) -> Member:
    return Member(scale_by_rss(0.0, eps, eps_in_sqrt=False), lr=lr)


def amsgrad(lr: float = 1e-3, betas: Pair = (0.9, 0.999), weight_decay: float = 0.0, eps: float = 1e-8) -> Member:
    return coupled(scale_by_amsgrad(*betas, eps=eps, correct_before_max=False), weight_decay, lr, of_adam(betas))


def adabelief(lr: float = 1e-3, betas: Pair = (0.9, 0.999), weight_decay: float = 0.0, eps: float = 1e-16) -> Member:
    return decoupled(scale_by_belief(*betas, eps=eps, eps_root=eps), weight_decay, lr, Roles("mu", decay=betas[0]))


def yogi(lr: float = 1e-2, betas: Pair = (0.9, 0.999), weight_decay: float = 0.0, eps: float = 1e-3) -> Member:
    return decoupled(scale_by_yogi(*betas, eps=eps), weight_decay, lr, of_adam(betas))


def qhadam(lr: float = 1e-3, betas: Pair = (0.9, 0.999), nus: Pair = (1.0, 1.0), weight_decay: float = 0.0, eps: float = 1e-8) -> Member:
    return coupled(scale_by_qhadam(*betas, *nus, eps=eps), weight_decay, lr, of_adam(betas))


def adamp(
    lr: float = 1e-3,
    betas: Pair = (0.9, 0.999),
    weight_decay: float = 0.0,
    delta: float = 0.1,
    wd_ratio: float = 0.1,
    nesterov: bool = False,
    eps: float = 1e-8,
) -> Member:
    direction = scale_by_adamp(*betas, eps, delta, wd_ratio, weight_decay, nesterov=nesterov, correct_eps=True)
    return Member(direction, lr=lr, roles=of_adam(betas))


def novograd(lr: float = 1e-3, betas: Pair = (0.95, 0.98), weight_decay: float = 0.0, eps: float = 1e-8) -> Member:
    return Member(scale_by_novograd(*betas, eps=eps, weight_decay=weight_decay), lr=lr, roles=NOTHING)


def lion(lr: float = 1e-4, betas: Pair = (0.9, 0.99), weight_decay: float = 0.0) -> Member:
    return decoupled(scale_by_lion(*betas), weight_decay, lr, Roles("mu", decay=betas[1]))


def ranger_member(
    lr: float = 1e-3,
    betas: Pair = (0.95, 0.999),
    weight_decay: float = 0.0,
    alpha: float = 0.5,
    k: int = 6,
    eps: float = 1e-5,
    uphill: bool = False,
) -> Member:
    tx = ranger(lr, *betas, eps, k, alpha, uphill=uphill, weight_decay=weight_decay)
    return Member(tx, roles=of_adam(betas), anchors=begun_again(slow=here, steps_since_sync=none_yet))


def ranger21_member(
    lr: float = 1e-3,
    num_iterations: int | None = None,
    betas: Pair = (0.9, 0.999),
    weight_decay: float = 1e-4,
    beta0: float = 0.9,
    eps: float = 1e-8,
) -> Member:
    return Member(
        ranger21(lr, num_iterations, beta0, *betas, eps, weight_decay=weight_decay), roles=NOTHING, anchors=begun_again(slow=here)
    )


def adan(lr: float = 1e-3, betas: tuple[float, float, float] = (0.98, 0.92, 0.99), weight_decay: float = 0.0, eps: float = 1e-8) -> Member:
    if weight_decay:
        raise ValueError("optiroulette_profile: the decay of 'adan' divides, and a direction cannot; keep weight_decay=0")
    return Member(scale_by_adan(*betas, eps=eps), lr=lr, roles=Roles("m", "n", decay=betas[0]))


def adahessian(
    lr: float = 0.1, betas: Pair = (0.9, 0.999), weight_decay: float = 0.0, eps: float = 1e-16, hessian_power: float = 1.0
) -> Member:
    return decoupled(scale_by_adahessian(*betas, eps=eps, hessian_power=hessian_power), weight_decay, lr, NOTHING)


def rmsprop(
    lr: float = 1e-2, alpha: float = 0.99, momentum: float = 0.0, weight_decay: float = 0.0, centered: bool = False, eps: float = 1e-8
) -> Member:
    scale = (scale_by_stddev if centered else scale_by_rms)(alpha, eps, eps_in_sqrt=False)
    return coupled(chain(scale, trace(momentum)), weight_decay, lr, Roles(normalised_velocity="trace"))


def radam(lr: float = 1e-3, betas: Pair = (0.9, 0.999), weight_decay: float = 0.0, eps: float = 1e-8) -> Member:
    scale = scale_by_radam(*betas, eps=eps, degenerated_to_sgd=False, correct_eps=True)

    def decay(count: Tensor) -> Tensor:  # where nothing moves nothing decays
        trusted, factor = rectified(count + 1, betas[1], 5.0)
        return torch.where(trusted, weight_decay, torch.zeros_like(factor))

    return decoupled(scale, decay if weight_decay else 0.0, lr, of_adam(betas))


def adai(lr: float = 1e-3, betas: Pair = (0.1, 0.99), weight_decay: float = 0.0, eps: float = 1e-3) -> Member:
    return coupled(scale_by_adai(*betas, eps), weight_decay, lr, Roles("m", "v"))


def gravity(lr: float = 1e-2, alpha: float = 0.01, beta: float = 0.9, key: int | Tensor | None = 42) -> Member:
    """Its first velocity is always the same one, so that runs of one seed are equal."""
    return Member(scale_by_gravity(lr, alpha, beta, key), roles=NOTHING)


def tam(
    lr: float = 1e-3, momentum: float = 0.9, decay_rate: float = 0.9, weight_decay: float = 0.0, eps: float = 1e-8, entrywise: bool = False
) -> Member:
    return decoupled(scale_by_tam(momentum, decay_rate, eps, entrywise=entrywise), weight_decay, lr, NOTHING)


def splus_member(
    lr: float = 0.1, betas: Pair = (0.9, 0.999), weight_decay: float = 1e-2, inverse_steps: int = 100, single: bool = False
) -> Member:
    tx = splus(lr, *betas, inverse_steps, ema=None, eigh_dtype=torch.float32 if single else None, weight_decay=weight_decay)
    return Member(tx, roles=NOTHING)  # the average changes no step


def aggmo(lr: float = 1e-3, betas: tuple[float, float, float] = (0.0, 0.9, 0.99), weight_decay: float = 0.0) -> Member:
    return coupled(scale_by_aggmo(betas), weight_decay, lr, NOTHING)


def galore(lr: float = 1e-3, betas: Pair = (0.9, 0.999), weight_decay: float = 0.0, eps: float = 1e-6) -> Member:
    """GaLore and Fira without a rank, as the profile has them: Adam, with eps beside the uncorrected root."""
    return decayed_after(scale_by_adam(*betas, eps, correct_eps=True), weight_decay, lr)


def adopt(lr: float = 1e-3, betas: Pair = (0.9, 0.9999), weight_decay: float = 0.0, eps: float = 1e-6) -> Member:
    return coupled(scale_by_adopt(*betas, eps, clip_value_fn=lambda count: (count + 1) ** 0.25), weight_decay, lr, NOTHING)


def apollo(lr: float = 1e-2, betas: Pair = (0.9, 0.999), weight_decay: float = 0.0, eps: float = 1e-6) -> Member:
    """The low-rank APOLLO without a rank: as GaLore, and the decay has the corrected rate."""

    def corrected(count: Tensor) -> Tensor:
        f1, f2 = moments.bias_factors(count, *betas)
        return f1 * f2.rsqrt()

    return decayed_after(scale_by_adam(*betas, eps, correct_eps=True), weight_decay, lr, corrected)


def accsgd(lr: float = 1e-3, kappa: float = 1000.0, xi: float = 10.0, constant: float = 0.7, weight_decay: float = 0.0) -> Member:
    tx = chain(add_decayed_weights(weight_decay), scale_by_accsgd(lr, kappa, xi, constant))
    return Member(tx, roles=NOTHING, anchors=begun_again(b=here))


def pid(lr: float = 1e-3, weight_decay: float = 0.0) -> Member:
    """The profile leaves its momentum 0, and with it its other two terms out."""
    return coupled(identity(), weight_decay, lr)


def asgd(
    lr: float = 1e-2, amplifier: float = 0.02, weight_decay: float = 0.0, dampening: float = 1.0, eps: float = 1e-5, apart: bool = False
) -> Member:
    tx = adgd(lr, amplifier, dampening, eps, norms="apart" if apart else "of differences", weight_decay=weight_decay)
    return Member(tx, roles=NOTHING, anchors=begun_again(count=none_yet, theta=lambda old, params: torch.ones_like(old)))


def sgdw(lr: float = 1e-4, weight_decay: float = 0.0) -> Member:
    return decoupled(identity(), weight_decay, lr)


def adanorm(lr: float = 1e-3, betas: Pair = (0.9, 0.99), r: float = 0.95, weight_decay: float = 0.0, eps: float = 1e-8) -> Member:
    return decoupled(scale_by_adanorm(*betas, eps, 1e-15, r, correct_eps=True), weight_decay, lr, of_adam(betas))


def nero(lr: float = 1e-2, beta: float = 0.999, constraints: bool = True, eps: float = 1e-8) -> Member:
    return Member(scale_by_nero(lr, beta, eps, constraints=constraints), roles=NOTHING)


def fromage_member(lr: float = 1e-2) -> Member:
    return Member(fromage(lr, min_norm=0.0))


MEMBERS: dict[str, ProfileMember] = {
    "adam": ProfileMember(adam, {"lr": 1e-3, "betas": (0.9, 0.999), "weight_decay": 1e-4}),
    "adamw": ProfileMember(adamw, {"lr": 1e-3, "betas": (0.9, 0.999), "weight_decay": 0.06}),
    "sgd": ProfileMember(sgd, {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": True}),
    "nadam": ProfileMember(nadam, {"lr": 1e-3, "betas": (0.9, 0.999), "weight_decay": 1e-4}),
    "Adagrad": ProfileMember(adagrad, {"lr": 1e-5}),
    "amsgrad": ProfileMember(amsgrad, {"lr": 1e-5, "betas": (0.9, 0.999), "weight_decay": 0.0}),
    "adabelief": ProfileMember(adabelief, {"lr": 1e-5, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 1e-4}),
    "yogi": ProfileMember(yogi, {"lr": 1e-5, "betas": (0.9, 0.999), "weight_decay": 0.0}),
    "qhadam": ProfileMember(qhadam, {"lr": 1e-5, "betas": (0.9, 0.999), "nus": (0.7, 1.0), "weight_decay": 0.0}),
    "adamp": ProfileMember(adamp, {"lr": 1e-5, "betas": (0.9, 0.999), "weight_decay": 0.0}),
    "novograd": ProfileMember(novograd, {"lr": 1e-5, "betas": (0.95, 0.98), "weight_decay": 0.0}),
    "lion": ProfileMember(lion, {"lr": 1e-5, "betas": (0.9, 0.99), "weight_decay": 0.0}),
    "ranger": ProfileMember(
        ranger_member, {"lr": 7e-4, "betas": (0.95, 0.999), "weight_decay": 0.0, "alpha": 0.5, "k": 5, "eps": 1e-5}, {"uphill": True}
    ),
    "ranger21": ProfileMember(
        ranger21_member, {"lr": 1e-3, "betas": (0.9, 0.999), "weight_decay": 1e-4, "beta0": 0.9, "eps": 1e-8, "num_iterations": 400}
    ),
    "adan": ProfileMember(adan, {"lr": 1.2e-4, "betas": (0.98, 0.92, 0.99), "weight_decay": 0.0}),
    "AdaHessian": ProfileMember(adahessian, {"lr": 0.15, "betas": (0.9, 0.999), "weight_decay": 0.0, "eps": 1e-4, "hessian_power": 0.5}),
    "rmsprop": ProfileMember(rmsprop, {"lr": 1e-5, "alpha": 0.9, "momentum": 0.9, "weight_decay": 1e-4, "centered": True}),
    "radam": ProfileMember(radam, {"lr": 1e-3, "betas": (0.9, 0.999), "weight_decay": 1e-4}),
    "adai": ProfileMember(adai, {"lr": 0.1, "betas": (0.9, 0.99), "weight_decay": 4e-4, "eps": 1e-3}),
    "gravity": ProfileMember(gravity, {"lr": 1e-5, "beta": 0.9, "alpha": 0.01}),
    "TAM": ProfileMember(tam, {"lr": 0.2}, {"entrywise": True}),
    "SPlus": ProfileMember(splus_member, {"lr": 0.2}, {"single": True}),
    "Fromage": ProfileMember(fromage_member, {"lr": 0.01}),
    "AggMo": ProfileMember(aggmo, {"lr": 0.1}),
    "GaLore": ProfileMember(galore, {"lr": 0.01}),
    "ADOPT": ProfileMember(adopt, {"lr": 1e-4}),
    "fira": ProfileMember(galore, {"lr": 0.01}),
    "Apollo": ProfileMember(apollo, {"lr": 0.01, "weight_decay": 1e-4, "eps": 1e-4}),
    "AccSGD": ProfileMember(accsgd, {"lr": 1e-5, "kappa": 10000, "xi": 10.0}),
    "PID": ProfileMember(pid, {"lr": 0.085}),
    "ASGD": ProfileMember(asgd, {"lr": 1e-5}, {"apart": True}),
    "SGDW": ProfileMember(sgdw, {"lr": 1e-5}),
    "AdaNorm": ProfileMember(adanorm, {"lr": 1e-5}),
    "Nero": ProfileMember(nero, {"lr": 0.01}),
}


BY_CLASS = {name.lower(): name for name in MEMBERS}  # OptiRoulette finds classes by their names in small letters


def member_of(name: str, hyperparameters: Mapping[str, Any]) -> Member:
    """A member by the name that it has in the profile.

    Raises:
        ValueError: there is no such name, or its class takes no such hyperparameter.
    """
    if name not in MEMBERS:
        raise ValueError(f"optiroulette_profile: there is no member {name!r}; there are {', '.join(MEMBERS)}")
    make = MEMBERS[name].make
    known = inspect.signature(make).parameters
    unknown = [key for key in hyperparameters if key not in known]
    if unknown:
        raise ValueError(f"optiroulette_profile: '{name}' takes {', '.join(known)}, got {', '.join(unknown)}")
    return make(**hyperparameters)
