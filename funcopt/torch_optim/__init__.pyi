"""What `fo.torch_optim` shows, as `python scripts/stubs.py --write` prints it: its classes are made from factories."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from torch import Tensor, dtype
from torch.nn.modules.module import Module

from funcopt.controllers.pulseopt.episodes import EpisodeLosses
from funcopt.controllers.roulette.compatibility import Compatibility
from funcopt.controllers.roulette.pool import Failures, Recovery
from funcopt.controllers.roulette.switch_rules import SwitchRules
from funcopt.controllers.roulette.warmup import Warmup
from funcopt.core.protocol import GradientTransformation, Schedule
from funcopt.optimizers.dimension_numbers import MuonDimensionNumbers
from funcopt.rules.rule import Absolute, Product, Rule
from funcopt.torch_optim.classes.controllers import adaptive as _adaptive, aees as _aees
from funcopt.torch_optim.classes.make import FromFactory, optimizer_class as optimizer_class
from funcopt.torch_optim.classes.optiroulette import optiroulette as _optiroulette
from funcopt.torch_optim.classes.without_rate import rate_free as _rate_free
from funcopt.torch_optim.foreign.from_torch import FromTorch as FromTorch, FromTorchState as FromTorchState, from_torch as from_torch
from funcopt.torch_optim.foreign.profile_members import member_from_profile as member_from_profile
from funcopt.torch_optim.from_module import param_groups as param_groups
from funcopt.torch_optim.groups import Params
from funcopt.torch_optim.optimizer import Optimizer as Optimizer

Inner = Literal[
    "accsgd",
    "acprop",
    "adabelief",
    "adadelta",
    "adafactor",
    "adagrad",
    "adahessian",
    "adai",
    "adam",
    "adam_mini",
    "adamax",
    "adamaxw",
    "adamp",
    "adamuon",
    "adamw",
    "adan",
    "adanorm",
    "ademamix",
    "adgd",
    "adopt",
    "aggmo",
    "amsgrad",
    "apollo",
    "apollo_dqn",
    "came",
    "cocob",
    "dadapt_adamw",
    "dog",
    "dowg",
    "fira",
    "fromage",
    "galore",
    "gravity",
    "lamb",
    "laprop",
    "lars",
    "lion",
    "madgrad",
    "momo",
    "momo_adam",
    "muon",
    "muon_with_adam",
    "nadam",
    "nadamw",
    "nero",
    "noisy_sgd",
    "normuon",
    "novograd",
    "optimistic_adam_v2",
    "optimistic_gradient_descent",
    "pilot",
    "polyak_sgd",
    "prodigy",
    "psgd",
    "qhadam",
    "radam",
    "ranger",
    "ranger21",
    "rmsprop",
    "rprop",
    "schedule_free_adamw",
    "schedule_free_sgd",
    "scion",
    "sgd",
    "shampoo",
    "sign_sgd",
    "signum",
    "simplified_ademamix",
    "sm3",
    "soap",
    "sophia",
    "splus",
    "stable_adamw",
    "tam",
    "yogi",
]
InnerWithRate = Literal[
    "accsgd",
    "acprop",
    "adabelief",
    "adadelta",
    "adafactor",
    "adagrad",
    "adahessian",
    "adai",
    "adam",
    "adam_mini",
    "adamax",
    "adamaxw",
    "adamp",
    "adamuon",
    "adamw",
    "adan",
    "adanorm",
    "ademamix",
    "adopt",
    "aggmo",
    "amsgrad",
    "apollo",
    "apollo_dqn",
    "came",
    "fira",
    "fromage",
    "galore",
    "gravity",
    "lamb",
    "laprop",
    "lars",
    "madgrad",
    "muon",
    "muon_with_adam",
    "nadam",
    "nadamw",
    "nero",
    "noisy_sgd",
    "normuon",
    "novograd",
    "optimistic_adam_v2",
    "optimistic_gradient_descent",
    "pilot",
    "psgd",
    "qhadam",
    "radam",
    "ranger",
    "ranger21",
    "rmsprop",
    "schedule_free_adamw",
    "schedule_free_sgd",
    "scion",
    "sgd",
    "shampoo",
    "simplified_ademamix",
    "sm3",
    "soap",
    "sophia",
    "splus",
    "stable_adamw",
    "tam",
    "yogi",
]

class accsgd(FromFactory):
    """AccSGD: coupled decay, then `scale_by_accsgd`, whose steps are sized (`lr` None: by the `base_lr` it hears) and downhill.

    Args:
        lr: the rate of the short steps, >= 0; a number, a 0-dim tensor or a schedule.
        kappa, xi, c: as in `scale_by_accsgd`.
        weight_decay: coupled, >= 0.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Signals:
        hears `base_lr` (with `lr=None`) and, if anyone says them, `lr_multiplier` and `rate_multiplier`; says `lr`.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        kappa: float | Tensor = 1000.0,
        xi: float | Tensor = 10.0,
        c: float | Tensor = 0.7,
        *,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class acprop(FromFactory):
    """ACProp: `scale_by_acprop`, decoupled decay, then a step of size `lr` downhill.

    Args:
        lr: the rate, >= 0: a number, a 0-dim tensor or a schedule; None: the `base_lr` it hears.
        b1, b2, eps, eps_root: as in `scale_by_acprop`.
        weight_decay: decoupled, multiplied by the rate, >= 0, or a schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Signals:
        as `lr_scale`.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given and there is decay.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float | Tensor = 1e-16,
        eps_root: float | Tensor = 1e-16,
        weight_decay: float | Tensor | Schedule = 0.0,
        *,
        weight_decay_mask: Any | None = None,
        b1: float | Tensor | None = None,
        b2: float | Tensor | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class adabelief(FromFactory):
    """AdaBelief: `scale_by_belief`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: size of a step in units of params per unit of direction, >= 0: a number, a 0-dim tensor or a schedule of the
            count of steps; None: the `base_lr` it hears.
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: share of the past in the mean of the squared surprise, in [0, 1).
        eps: added to the root, >= 0.
        eps_root: added to the stored mean at every step, >= 0; one of the two > 0, else a gradient that never changes is
            divided by zero.
        nesterov: look one step ahead.
        weight_decay: decoupled: each step also takes away `lr * weight_decay` of the params, >= 0; a number, a 0-dim
            tensor or a schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Raises:
        ValueError: a number is out of range; at `update`, weights decay and no params are given.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float | Tensor = 1e-16,
        eps_root: float | Tensor = 1e-16,
        *,
        nesterov: bool = False,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | None = None,
        b1: float | Tensor | None = None,
        b2: float | Tensor | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class adadelta(FromFactory):
    """`torch.optim.Adadelta`.

    Args:
        params: as in torch.
        lr, ...: as in torch's class, whose `foreach`, `fused` and `differentiable` must not be True.

    Raises:
        TypeError, ValueError: as torch's class; where a group has changed since, at the next step.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1.0,
        rho: float | Tensor = 0.9,
        eps: float | Tensor = 1e-06,
        weight_decay: float | Tensor = 0.0,
        *,
        weight_decay_mask: Any = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class adafactor(FromFactory):
    """`torch.optim.Adafactor`.

    Args:
        params: as in torch.
        lr, ...: as in torch's class, whose `foreach`, `fused` and `differentiable` must not be True.

    Raises:
        TypeError, ValueError: as torch's class; where a group has changed since, at the next step.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.01,
        beta2_decay: float | Tensor = -0.8,
        eps: tuple[float | None, float] = (None, 0.001),
        d: float | Tensor = 1.0,
        weight_decay: float | Tensor = 0.0,
        *,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class adagrad(FromFactory):
    """`torch.optim.Adagrad`.

    Args:
        params: as in torch.
        lr, ...: as in torch's class, whose `foreach`, `fused` and `differentiable` must not be True.

    Raises:
        TypeError, ValueError: as torch's class; where a group has changed since, at the next step.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.01,
        lr_decay: float | Tensor = 0.0,
        weight_decay: float | Tensor = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float | Tensor = 1e-10,
        *,
        weight_decay_mask: Any = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class adahessian(FromFactory):
    """AdaHessian: `scale_by_adahessian`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: size of a step in units of params per unit of direction, >= 0: a number, a 0-dim tensor or a schedule of the
            count of steps; None: the `base_lr` it hears.
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: share of the past in the mean of the squared diagonal, in [0, 1).
        eps: added to the denominator, >= 0.
        hessian_power: how much of the curvature counts, in [0, 1].
        weight_decay: decoupled: each step also takes away `lr * weight_decay` of the params, >= 0; a number, a 0-dim
            tensor or a schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Raises:
        ValueError: a number is out of range; at `update`, `hessian` is not given, or weights decay and no params are
            given.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float | Tensor = 0.0001,
        *,
        hessian_power: float | Tensor = 1.0,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | None = None,
        b1: float | Tensor | None = None,
        b2: float | Tensor | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class adai(FromFactory):
    """Adai: `scale_by_adai`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Its rates are those of gradient descent, near 1 with normalised layers.

    Args:
        lr: the rate, >= 0; a number, a 0-dim tensor or a schedule.
        b1, b2, eps: as in `scale_by_adai`.
        weight_decay: decoupled, >= 0.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Raises:
        ValueError: a number is out of range.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        betas: tuple[float | Tensor, float | Tensor] = (0.1, 0.99),
        eps: float | Tensor = 0.001,
        *,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | None = None,
        b1: float | Tensor | None = None,
        b2: float | Tensor | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class adam(FromFactory):
    """`torch.optim.Adam`.

    Args:
        params: as in torch.
        lr, ...: as in torch's class, whose `foreach`, `fused` and `differentiable` must not be True.

    Raises:
        TypeError, ValueError: as torch's class; where a group has changed since, at the next step.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float | Tensor = 1e-08,
        weight_decay: float | Tensor = 0.0,
        amsgrad: bool = False,
        *,
        decoupled_weight_decay: bool = False,
        weight_decay_mask: Any = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class adam_mini(FromFactory):
    """Adam-mini: `scale_by_adam_mini`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: the rate, >= 0, as Adam's: a number, a 0-dim tensor or a schedule.
        b1, b2, eps, blocks: as in `scale_by_adam_mini`.
        weight_decay: share of the params that a step takes away, times `lr`; >= 0.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given where they decay.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float | Tensor = 1e-08,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | None = None,
        *,
        blocks: Any | Callable[..., Any] | str | int = "auto",
        b1: float | Tensor | None = None,
        b2: float | Tensor | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class adamax(FromFactory):
    """`torch.optim.Adamax`.

    Args:
        params: as in torch.
        lr, ...: as in torch's class, whose `foreach`, `fused` and `differentiable` must not be True.

    Raises:
        TypeError, ValueError: as torch's class; where a group has changed since, at the next step.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.002,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float | Tensor = 1e-08,
        weight_decay: float | Tensor = 0.0,
        *,
        weight_decay_mask: Any = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class adamaxw(FromFactory):
    """Adamax with decay of the weights outside of its moments, 1e-4 unless given.

    Args:
        lr: size of a step in units of params per unit of direction, >= 0: a number, a 0-dim tensor or a schedule of the
            count of steps; None: the `base_lr` it hears.
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: what is left of the largest magnitude after a step, in [0, 1).
        eps: added to the magnitude, > 0.
        weight_decay: decoupled: each step also takes away `lr * weight_decay` of the params, >= 0; a number, a 0-dim
            tensor or a schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Raises:
        ValueError: a number is out of range; at `update`, weights decay and no params are given.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float | Tensor = 1e-08,
        weight_decay: float | Tensor | Schedule = 0.0001,
        weight_decay_mask: Any | None = None,
        *,
        b1: float | Tensor | None = None,
        b2: float | Tensor | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class adamp(FromFactory):
    """AdamP: `scale_by_adamp`, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: the rate, >= 0; a number, a 0-dim tensor or a schedule.
        b1, b2, eps, delta, wd_ratio, nesterov, correct_eps: as in `scale_by_adamp`.
        weight_decay: decoupled, >= 0; a leaf that is turned decays by `wd_ratio` of it.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float | Tensor = 1e-08,
        delta: float | Tensor = 0.1,
        wd_ratio: float | Tensor = 0.1,
        *,
        nesterov: bool = False,
        correct_eps: bool = False,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | None = None,
        b1: float | Tensor | None = None,
        b2: float | Tensor | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class adamuon(FromFactory):
    """AdaMuon on matrices (`scale_by_muon`, `scale_by_entry_rms`, decoupled decay, a step of size `lr` downhill), AdamW on the rest.

    Args:
        lr: the rate, >= 0, as AdamW's: a number, a 0-dim tensor or a schedule; None: the `base_lr` it hears.
        b1: share of the past in the mean, in [0, 1).
        b2: share of the past in the mean squares of entries, in [0, 1).
        eps: keeps divisions finite, > 0; AdamW's too.
        weight_decay: of the matrices, times `lr`; >= 0.
        weight_decay_mask: which of the matrices decay, as `masked` takes it; None: all.
        nesterov: look one step ahead.
        signs: orthogonalise the signs of the mean, as the paper's last version does.
        ns_steps: iterations of Newton-Schulz, >= 1.
        consistent_rms: as in `scale_by_entry_rms`.
        adam_b1: share of the past in Adam's mean, in [0, 1).
        adam_b2: share of the past in Adam's mean square, in [0, 1).
        adam_weight_decay: of the rest, times its rate; >= 0.
        adam_lr: the rate of the rest; None: `lr`.
        muon_weight_dimension_numbers: which leaves are matrices, and which of their axes, as in `muon`.
        ns_dtype: dtype of the iterations; None: that of the gradient.

    Signals:
        says the rate of the matrices as `lr`, and each part's as `muon/lr` and `adam/lr`.

    Raises:
        ValueError: a number is out of range; the dimension numbers do not fit.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        betas: tuple[float | Tensor, float | Tensor] = (0.95, 0.95),
        eps: float | Tensor = 1e-08,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | Callable[..., Any] | None = None,
        *,
        nesterov: bool = False,
        signs: bool = False,
        ns_steps: int = 5,
        consistent_rms: float | Tensor | None = 0.2,
        adam_b1: float | Tensor = 0.9,
        adam_b2: float | Tensor = 0.999,
        adam_weight_decay: float | Tensor | Schedule = 0.0,
        adam_lr: float | Tensor | Schedule | None = None,
        muon_weight_dimension_numbers: Any | Callable[..., Any] | MuonDimensionNumbers | None = None,
        ns_dtype: dtype | None = None,
        b1: float | Tensor | None = None,
        b2: float | Tensor | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class adamw(FromFactory):
    """`torch.optim.AdamW`.

    Args:
        params: as in torch.
        lr, ...: as in torch's class, whose `foreach`, `fused` and `differentiable` must not be True.

    Raises:
        TypeError, ValueError: as torch's class; where a group has changed since, at the next step.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float | Tensor = 1e-08,
        weight_decay: float | Tensor = 0.01,
        amsgrad: bool = False,
        *,
        weight_decay_mask: Any = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class adan(FromFactory):
    """Adan: `scale_by_adan`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Its rates are larger than Adam's, by a factor of five to ten.

    Args:
        lr: size of a step in units of params per unit of direction, >= 0: a number, a 0-dim tensor or a schedule of the
            count of steps; None: the `base_lr` it hears.
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: share of the past in the mean of its change, in [0, 1), and the weight of that.
        b3: share of the past in the mean square, in [0, 1).
        eps: added to the root, >= 0.
        eps_root: added under the root, >= 0.
        weight_decay: decoupled: each step also takes away `lr * weight_decay` of the params, >= 0; a number, a 0-dim
            tensor or a schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Raises:
        ValueError: a number is out of range; at `update`, weights decay and no params are given.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        betas: tuple[float | Tensor, float | Tensor, float | Tensor] = (0.98, 0.92, 0.99),
        eps: float | Tensor = 1e-08,
        eps_root: float | Tensor = 1e-08,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | None = None,
        *,
        b1: float | Tensor | None = None,
        b2: float | Tensor | None = None,
        b3: float | Tensor | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class adanorm(FromFactory):
    """AdaNorm: `scale_by_adanorm`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: the rate, >= 0; a number, a 0-dim tensor or a schedule.
        b1, b2, eps, eps_root, r, correct_eps: as in `scale_by_adanorm`.
        weight_decay: decoupled, >= 0.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Raises:
        ValueError: a number is out of range.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.99),
        eps: float | Tensor = 1e-08,
        eps_root: float | Tensor = 0.0,
        r: float | Tensor = 0.95,
        *,
        correct_eps: bool = False,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | None = None,
        b1: float | Tensor | None = None,
        b2: float | Tensor | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class adaptive(_adaptive):
    """AdaptiveOptimizer around a ready-made optimizer: its hyperparameters follow the loss and the reward by rules.

    Args:
        params: as in torch.
        lr: the base rate. A scheduler that halves it in the groups halves every step.
        inner: the name of a ready-made optimizer; its hyperparameters pass through, and are
            the bases of the rules.
        lr_rule, betas_rule, momentum_rule, alpha_rule, wd_rule: names of rules ("trend+variance"),
            or rules of `fo.rules`, for the rate, the pair of betas, and so on.
        reward_rule: what follows the reward.
        cycle_length, cycle_mult: of the cosine with restarts, if a rule is one.
        given: `bounds`, `loss_stats`, `reward_stats`, `compensate`, `strict` of `fo.adaptive`,
            hyperparameters of `inner`, options of `Optimizer`.

    Signals:
        hears `loss` and `reward` where there are any. The source's `step_loss(loss)` and
        `step_reward(reward)` are `observe(loss=loss)` and `observe(reward=reward)`.

    Raises:
        TypeError: `params` is an optimizer that is built, `inner` names no class, or an argument is unknown.
        ValueError: an argument is out of its range, or a rule stands where it has no meaning.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        *,
        inner: Inner = "adamw",
        lr_rule: str | Rule | Product | None = None,
        betas_rule: str | Rule | Product | tuple[str | Rule | Product | None, str | Rule | Product | None] | None = None,
        momentum_rule: str | Rule | Product | None = None,
        alpha_rule: str | Rule | Product | None = None,
        wd_rule: str | Rule | Product | None = None,
        reward_rule: str | Rule | Product | None = None,
        cycle_length: int | None = None,
        cycle_mult: float = 1.0,
        bounds: Mapping[str, tuple[float, float] | Absolute] | None = None,
        loss_stats: Mapping[str, Any] | None = None,
        reward_stats: Mapping[str, Any] | None = None,
        compensate: bool = True,
        strict: bool = False,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
        **given: Any,
    ) -> None: ...

class ademamix(FromFactory):
    """AdEMAMix: `scale_by_ademamix`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    For long runs; schedule `b3` and `alpha` up from `b1` and 0 over the whole of it.

    Args:
        lr: size of a step in units of params per unit of direction, >= 0: a number, a 0-dim tensor or a schedule of the
            count of steps; None: the `base_lr` it hears.
        b1: share of the past in the fast mean, in [0, 1).
        b2: share of the past in the mean of the square, in [0, 1).
        b3: share of the past in the slow mean, in [0, 1), or a schedule of it.
        alpha: weight of the slow mean, >= 0, or a schedule of it.
        eps: added to the root, >= 0.
        eps_root: added under the root, >= 0.
        mu_dtype: dtype of both means of the gradient; None: that of the params.
        weight_decay: decoupled: each step also takes away `lr * weight_decay` of the params, >= 0; a number, a 0-dim
            tensor or a schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Raises:
        ValueError: a number is out of range; at `update`, weights decay and no params are given.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        betas: tuple[float | Tensor, float | Tensor, float | Tensor] = (0.9, 0.999, 0.9999),
        alpha: float | Tensor | Schedule = 5.0,
        eps: float | Tensor = 1e-08,
        eps_root: float | Tensor = 0.0,
        mu_dtype: dtype | None = None,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | None = None,
        *,
        b1: float | Tensor | None = None,
        b2: float | Tensor | None = None,
        b3: float | Tensor | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class adgd(FromFactory):
    """AdGD: `scale_by_adgd`, whose steps are sized (`lr` None: by the `base_lr` it hears) and downhill, and decoupled decay.

    Args:
        lr: the rate of the first step, >= 0; a number, a 0-dim tensor or a schedule, which the factor found stretches.
        amplifier, damping, eps, norms: as in `scale_by_adgd`.
        weight_decay: decoupled, >= 0; multiplied by the rate found.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Signals:
        hears `base_lr` (with `lr=None`) and, if anyone says them, `lr_multiplier` and `rate_multiplier`; says `lr`, the size of the step
        just taken.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        amplifier: float | Tensor = 0.02,
        damping: float | Tensor = 1.0,
        eps: float | Tensor = 1e-05,
        *,
        norms: Literal["of differences", "apart"] = "of differences",
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class adopt(FromFactory):
    """ADOPT: `scale_by_adopt`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: size of a step in units of params per unit of direction, >= 0: a number, a 0-dim tensor or a schedule of the
            count of steps; None: the `base_lr` it hears.
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: share of the past in the mean of its square, in [0, 1).
        eps: floor of the root, > 0.
        mu_dtype: dtype of the stored mean; None: that of the params.
        nesterov: look one step ahead.
        use_clipping: bound the divided gradients.
        clip_value_fn: the bound, from the count of completed steps as a 0-dim float64.
        weight_decay: decoupled: each step also takes away `lr * weight_decay` of the params, >= 0; a number, a 0-dim
            tensor or a schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Raises:
        ValueError: a number is out of range; at `update`, weights decay and no params are given.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.9999),
        eps: float | Tensor = 1e-06,
        mu_dtype: dtype | None = None,
        *,
        nesterov: bool = False,
        use_clipping: bool = True,
        clip_value_fn: Schedule = ...,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | None = None,
        b1: float | Tensor | None = None,
        b2: float | Tensor | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class aees(_aees):
    """AEES (PulseOpt) around a ready-made optimizer: bandits choose the factor of the step and gradient noise by the fall of the loss.

    Its defaults are the source's: one arm each, with which nothing changes, which is warned of.

    Args:
        params: as in torch.
        lr: the base rate, which schedulers may move; the bandit multiplies it.
        inner: the name of a ready-made optimizer; its hyperparameters pass through.
        lr_candidates, noise_candidates, episode_length: as in `fo.aees`.
        structured_control_mode, context_mode, reward_instability_lambda: the source's words
            for `control`, `context` ("none" for None) and `instability` of `fo.ucb_episodes`.
        given: other arguments of `fo.ucb_episodes`, hyperparameters of `inner`, options of `Optimizer`.

    Signals:
        needs the loss: `step(loss=loss)`, a closure, or `observe(loss=loss)`. The
        source's `step_end(loss)` is `step(loss=loss)`.

    Raises:
        TypeError: `params` is an optimizer that is built, `inner` names no class, an argument
            is unknown, or an `lr_scheduler` is given.
        ValueError: an argument is out of its range; at a step, there is no loss.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        *,
        inner: Inner = "adamw",
        lr_candidates: Sequence[float] = (1.0,),
        noise_candidates: Sequence[float] = (0.0,),
        episode_length: int = 100,
        structured_control_mode: Literal["independent", "conditional", "joint", "random"] | None = None,
        context_mode: Literal["none", "trend"] | None = None,
        reward_instability_lambda: float | None = None,
        lr_scheduler: None = None,
        control: Literal["independent", "conditional", "joint", "random"] = "independent",
        context: Literal["trend"] | None = None,
        exploration: float | Tensor = 1.0,
        discount: float | Tensor = 0.95,
        warmup: int = 1,
        reward: Literal["log", "relative", "slope"] | Callable[[EpisodeLosses], Tensor] = "log",
        instability: float = 0.0,
        reward_epsilon: float = 1e-08,
        reward_clip: tuple[float, float] | None = None,
        ema_alpha: float = 0.1,
        start_losses: int = 1,
        standardize: bool = False,
        shift_credit: bool = False,
        trend_window: int = 3,
        trend_epsilon: float = 0.001,
        relative_trend: bool = False,
        partial: Literal["keep", "weigh", "discard"] = "keep",
        check_losses: bool = False,
        dispatch: Literal["auto", "branch", "select"] = "auto",
        draw: Any = None,
        seed: int | Tensor | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
        **given: Any,
    ) -> None: ...

class aggmo(FromFactory):
    """Aggregated momentum: `scale_by_aggmo`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: the rate, >= 0; a number, a 0-dim tensor or a schedule.
        betas: as in `scale_by_aggmo`.
        weight_decay: decoupled, >= 0.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Raises:
        TypeError, ValueError: an argument is out of its range.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        betas: Sequence[float | Tensor] = (0.0, 0.9, 0.99),
        *,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class amsgrad(FromFactory):
    """AMSGrad: `scale_by_amsgrad`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: size of a step in units of params per unit of direction, >= 0: a number, a 0-dim tensor or a schedule of the
            count of steps; None: the `base_lr` it hears.
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: share of the past in the mean of its square, in [0, 1).
        eps: added to the root, >= 0.
        eps_root: added under the root, >= 0.
        mu_dtype: dtype of the stored mean; None: that of the params.
        bias_correction_mu: divide the mean of the gradient by 1 - b1^t.
        bias_correction_nu: divide the mean of the square by 1 - b2^t.
        correct_before_max: take the largest of the corrected means; else (torch) correct the largest. Early corrected
            means weigh few gradients, so one large early gradient stays longer.
        weight_decay: decoupled: each step also takes away `lr * weight_decay` of the params, >= 0; a number, a 0-dim
            tensor or a schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Raises:
        ValueError: a number is out of range; at `update`, weights decay and no params are given.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float | Tensor = 1e-08,
        eps_root: float | Tensor = 0.0,
        mu_dtype: dtype | None = None,
        *,
        bias_correction_mu: bool = True,
        bias_correction_nu: bool = True,
        correct_before_max: bool = True,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | None = None,
        b1: float | Tensor | None = None,
        b2: float | Tensor | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class apollo(FromFactory):
    """APOLLO: `scale_by_apollo`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: the rate, >= 0; a number, a 0-dim tensor or a schedule; 0.01 to begin with.
        rank, b1, b2, eps, every, scale, by, key: as in `scale_by_apollo`.
        weight_decay: decoupled, >= 0.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Raises:
        TypeError, ValueError: an argument is out of its range.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        rank: int | None = 128,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float | Tensor = 1e-06,
        every: int = 200,
        scale: float | Tensor = 1.0,
        *,
        by: Literal["channel", "leaf"] = "channel",
        key: int | Tensor | None = None,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | None = None,
        b1: float | Tensor | None = None,
        b2: float | Tensor | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class apollo_dqn(FromFactory):
    """The quasi-Newton Apollo: `scale_by_apollo_dqn`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: the rate, >= 0; a number, a 0-dim tensor or a schedule, which is to rise from near zero.
        beta, eps, rebound: as in `scale_by_apollo_dqn`.
        weight_decay: decoupled, >= 0.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Raises:
        ValueError: a number is out of range.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        beta: float | Tensor = 0.9,
        eps: float | Tensor = 0.01,
        rebound: float | Tensor = 0.01,
        *,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class came(FromFactory):
    """CAME: `scale_by_came`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: the rate, >= 0: a number, a 0-dim tensor or a schedule.
        b1, b2, b3, eps1, eps2, clipping_threshold: as in `scale_by_came`.
        weight_decay: share of the params that a step takes away, times `lr`; >= 0.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given where they decay.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        betas: tuple[float | Tensor, float | Tensor, float | Tensor] = (0.9, 0.999, 0.9999),
        eps1: float | Tensor = 1e-30,
        eps2: float | Tensor = 1e-16,
        clipping_threshold: float | Tensor = 1.0,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | None = None,
        *,
        b1: float | Tensor | None = None,
        b2: float | Tensor | None = None,
        b3: float | Tensor | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class cocob(FromFactory):
    """COCOB: decay as part of the gradient, a factor of the gradient, then `scale_by_cocob`.

    Args:
        lr: multiplies the gradients, >= 0, or a schedule; None: the `base_lr` it hears. A number
            changes nothing, since steps do not depend on the scale of gradients; a schedule weighs
            some steps more than others.
        alpha, eps: as in `scale_by_cocob`.
        weight_decay: added to the gradient, times the params, >= 0, or a schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Signals:
        as `lr_scale`.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1.0,
        alpha: float | Tensor = 100.0,
        eps: float | Tensor = 1e-08,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | None = None,
        *,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class dadapt_adamw(FromFactory):
    """AdamW at a rate of its own.

    Args:
        lr: a factor of the estimated rate, >= 0; leave it at 1, or give it the shape of a schedule.
            None: the `base_lr` it hears.
        betas: shares of the past in the mean of the gradient and of its square, in [0, 1).
        eps: added to the root, in units of the gradient, > 0.
        estim_lr0: first estimate, > 0; too small rather than too large.
        weight_decay: decoupled, times the rate, >= 0, or a schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Signals:
        hears `base_lr` (with `lr=None`) and, if anyone says them, `lr_multiplier` and `rate_multiplier`; says `lr`.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1.0,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float | Tensor = 1e-08,
        estim_lr0: float | Tensor = 1e-06,
        weight_decay: float | Tensor | Schedule = 0.0,
        *,
        weight_decay_mask: Any | Callable[..., Any] | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class dog(FromFactory):
    """DoG: coupled decay, `scale_by_dog`, then a step of size `lr`, a factor near 1 (None: the `base_lr` it hears), downhill.

    Args:
        lr: factor of the rate that the method finds itself, >= 0, near 1: a number, a 0-dim tensor or a schedule of the
            count of steps; None: the `base_lr` it hears.
        init_step: how the first step is found: ("distance", d_0), ("learning_rate", rate of the first step) or
            ("heuristic", d_0 / (1 + ||p_0||)), 1e-6 or with batch norm 1e-4.
        eps: added under the root, > 0.
        weight_decay: coupled: this share of the params is added to the gradient, >= 0; a number, a 0-dim tensor or a
            schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1.0,
        init_step: tuple[Literal["distance", "learning_rate", "heuristic"], float | Tensor] = ("heuristic", 1e-06),
        eps: float | Tensor = 1e-08,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | None = None,
        *,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class dowg(FromFactory):
    """DoWG: coupled decay, `scale_by_dowg`, then a step of size `lr`, a factor near 1 (None: the `base_lr` it hears), downhill.

    Args:
        lr: factor of the rate that the method finds itself, >= 0, near 1: a number, a 0-dim tensor or a schedule of the
            count of steps; None: the `base_lr` it hears.
        init_estim_sq_dist: first squared distance, > 0; None: `eps`.
        eps: added to the root, > 0.
        weight_decay: coupled: this share of the params is added to the gradient, >= 0; a number, a 0-dim tensor or a
            schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1.0,
        init_estim_sq_dist: float | Tensor | None = None,
        eps: float | Tensor = 0.0001,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | None = None,
        *,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class fira(FromFactory):
    """Fira: `scale_by_fira`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: the rate, >= 0; a number, a 0-dim tensor or a schedule.
        rank, b1, b2, eps, every, scale, residual: as in `scale_by_fira`.
        weight_decay: decoupled, >= 0.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Raises:
        TypeError, ValueError: an argument is out of its range.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        rank: int | None = 128,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float | Tensor = 1e-06,
        every: int = 200,
        scale: float | Tensor = 1.0,
        *,
        residual: bool = True,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | None = None,
        b1: float | Tensor | None = None,
        b2: float | Tensor | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class fromage(FromFactory):
    """Fromage: `scale_by_trust_ratio`, a step of size `lr` (None: the `base_lr` it hears) downhill, then back to where no leaf has grown.

    Args:
        lr: the angle of a step, in radians where it is small, >= 0; a number, a 0-dim tensor or a schedule.
        min_norm: floor of both norms, >= 0.
        weight_decay: decoupled, >= 0; the method itself keeps weights from growing.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        min_norm: float | Tensor = 1e-06,
        *,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class galore(FromFactory):
    """GaLore: `scale_by_galore`, decoupled decay, then a step of size `lr` downhill.

    Args:
        lr: the rate, >= 0: a number, a 0-dim tensor or a schedule; None: the `base_lr` it hears.
        rank, update_proj_gap, scale, base_optimizer, weight_dimension_numbers, dispatch: as in `scale_by_galore`.
        weight_decay: decoupled, multiplied by the rate, >= 0, or a schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Signals:
        as `lr_scale`.

    Raises:
        TypeError, ValueError: an argument is out of its range.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        rank: int = 128,
        update_proj_gap: int = 200,
        scale: float | Tensor = 1.0,
        base_optimizer: GradientTransformation | None = None,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | None = None,
        weight_dimension_numbers: Any | Callable[..., Any] | MuonDimensionNumbers | None = None,
        *,
        dispatch: Literal["auto", "select"] = "auto",
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class gravity(FromFactory):
    """Gravity: `scale_by_gravity`, whose steps are sized (`lr` None: by the `base_lr` it hears) and downhill, and decoupled decay.

    Args:
        lr: the rate, >= 0; a number, a 0-dim tensor or a schedule.
        alpha, beta, key: as in `scale_by_gravity`.
        weight_decay: decoupled, >= 0.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Signals:
        hears `base_lr` (with `lr=None`) and, if anyone says them, `lr_multiplier` and `rate_multiplier`; says `lr`.

    Raises:
        ValueError: a number is out of range.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        alpha: float | Tensor = 0.01,
        beta: float | Tensor = 0.9,
        key: int | Tensor | None = None,
        *,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class lamb(FromFactory):
    """LAMB: `scale_by_adam`, decay, `scale_by_trust_ratio`, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: the rate, >= 0, as a share of the length of each leaf; a number, a 0-dim tensor or a schedule.
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: share of the past in the mean of its square, in [0, 1).
        eps: added to the root, >= 0.
        eps_root: added under the root, >= 0; > 0 where somebody differentiates through it.
        weight_decay: >= 0; it enters before the ratio is taken.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float | Tensor = 1e-06,
        eps_root: float | Tensor = 0.0,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | None = None,
        *,
        b1: float | Tensor | None = None,
        b2: float | Tensor | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class laprop(FromFactory):
    """LaProp: `scale_by_laprop`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: the rate, >= 0: a number, a 0-dim tensor or a schedule.
        b1, b2, eps: as in `scale_by_laprop`.
        weight_decay: share of the params that a step takes away, times `lr`; >= 0.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given where they decay.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float | Tensor = 1e-15,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | None = None,
        *,
        b1: float | Tensor | None = None,
        b2: float | Tensor | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class lars(FromFactory):
    """LARS: decay, `scale_by_trust_ratio`, a step of size `lr` (None: the `base_lr` it hears) downhill, then momentum.

    Args:
        lr: the rate, >= 0; a number, a 0-dim tensor or a schedule.
        weight_decay: >= 0; it enters before the ratio is taken.
        weight_decay_mask: which leaves decay, as `masked` takes it; True or None: all.
        trust_coefficient: length of a step as a share of the leaf's, at lr 1; > 0.
        eps: added to the norm of the update, >= 0.
        trust_ratio_mask: which leaves are scaled; the others are left to SGD.
        momentum: in [0, 1).
        nesterov: look one step ahead.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | Callable[..., Any] | bool | None = True,
        trust_coefficient: float | Tensor = 0.001,
        eps: float | Tensor = 0.0,
        trust_ratio_mask: Any | Callable[..., Any] | bool | None = True,
        momentum: float | Tensor = 0.9,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class lion(FromFactory):
    """Lion: `scale_by_lion`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Its entries are all of size `lr`: use a tenth to a third of Adam's rate.

    Args:
        lr: size of a step in units of params per unit of direction, >= 0: a number, a 0-dim tensor or a schedule of the
            count of steps; None: the `base_lr` it hears.
        b1: share of the mean in the mixture, in [0, 1).
        b2: share of the past in the mean, in [0, 1).
        mu_dtype: dtype of the stored mean; None: that of the params.
        weight_decay: decoupled: each step also takes away `lr * weight_decay` of the params, >= 0; a number, a 0-dim
            tensor or a schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.
        mode: "hard" for the sign, "smooth" for tanh(smooth_beta * x), "refined" for x where |x| < 1.
        smooth_beta: steepness of "smooth", > 0.

    Raises:
        ValueError: a number is out of range, or `mode` is unknown; at `update`, weights decay and no params are given.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.99),
        mu_dtype: dtype | None = None,
        weight_decay: float | Tensor | Schedule = 0.001,
        weight_decay_mask: Any | None = None,
        *,
        mode: Literal["hard", "smooth", "refined"] = "hard",
        smooth_beta: float | Tensor = 1.0,
        b1: float | Tensor | None = None,
        b2: float | Tensor | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class madgrad(FromFactory):
    """MADGRAD: coupled decay, then `scale_by_madgrad`, whose steps are sized (`lr` None: by the `base_lr` it hears) and downhill.

    Args:
        lr: the rate, >= 0: a number, a 0-dim tensor or a schedule, which is called with the count of completed steps;
            None: the `base_lr` it hears.
        momentum: share of the present place in the next, in [0, 1).
        weight_decay: coupled: this share of the params is added to the gradient, >= 0; a number, a 0-dim tensor or a
            schedule.
        eps: added to the rate and to the cube root, > 0.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        momentum: float | Tensor = 0.9,
        weight_decay: float | Tensor | Schedule = 0.0,
        eps: float | Tensor = 1e-06,
        *,
        weight_decay_mask: Any | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class momo(FromFactory):
    """SGD with momentum and a Polyak-type rate, at most `lr`.

    Args:
        lr: the largest rate, >= 0, rather too large than too small; None: the `base_lr` it hears.
        beta: share of the past in all running means, in [0, 1).
        lower_bound: of the loss; 0 is good for most.
        weight_decay: decoupled, implicit: a step divides the params by 1 + lr * weight_decay; >= 0.
        adapt_lower_bound: estimate the bound on the way.
        weight_decay_mask: which leaves are divided, as `masked` takes it; None: all. The rate is
            found as if all were.

    Signals:
        hears `base_lr` (with `lr=None`) and, if anyone says them, `lr_multiplier` and `rate_multiplier`; says `lr`, the rate of the step
        just taken.

    Raises:
        ValueError: a number is out of range; at `update`, no params or no loss is given.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1.0,
        beta: float | Tensor = 0.9,
        lower_bound: float | Tensor = 0.0,
        weight_decay: float | Tensor | Schedule = 0.0,
        adapt_lower_bound: bool = False,
        *,
        weight_decay_mask: Any | Callable[..., Any] | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class momo_adam(FromFactory):
    """Adam with a Polyak-type rate, at most `lr`.

    Args:
        lr: the largest rate, >= 0; None: the `base_lr` it hears.
        b1: share of the past in the means of gradient and loss, in [0, 1).
        b2: share of the past in the mean square, in [0, 1).
        eps: added to the root, > 0.
        lower_bound, weight_decay, adapt_lower_bound, weight_decay_mask: as in `momo`.

    Signals:
        as `momo`.

    Raises:
        ValueError: a number is out of range; at `update`, no params or no loss is given.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.01,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float | Tensor = 1e-08,
        lower_bound: float | Tensor = 0.0,
        weight_decay: float | Tensor | Schedule = 0.0,
        adapt_lower_bound: bool = False,
        *,
        weight_decay_mask: Any | Callable[..., Any] | None = None,
        b1: float | Tensor | None = None,
        b2: float | Tensor | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class muon(FromFactory):
    """`torch.optim.Muon`, for matrices; it takes no others, `fo.muon` hands those to AdamW.

    Args:
        params: as in torch.
        lr, ...: as in torch's class, whose `foreach`, `fused` and `differentiable` must not be True.

    Raises:
        TypeError, ValueError: as torch's class; where a group has changed since, at the next step.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        weight_decay: float | Tensor = 0.1,
        momentum: float | Tensor = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
        eps: float = 1e-07,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
        *,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class muon_with_adam(FromFactory):
    """Muon on a model's hidden matrices, AdamW on its embeddings, heads, gains and biases.

    Args:
        lr: the rate of both, >= 0, as AdamW's: a number, a 0-dim tensor or a schedule.
        labels: which leaf is whose, "muon" or "adam": the model (`muon_labels(model)`), a mapping from patterns
            (`{"head.*": "adam", "*.weight": "muon", "*": "adam"}`), or a tree of labels or a function that gives one; None:
            `muon_labels()`. `print(fo.describe_groups(labels, params))` shows the choice.
        weight_decay: of the matrices, times `lr`; >= 0.
        weight_decay_mask: which of the matrices decay, as `masked` takes it; None: all.
        split: of fused weights by pattern, the number of matrices that lie one after the other by rows, or the rows of each:
            `{"*.qkv.weight": 3}`, `{"*.qkv.weight": (768, 256, 256)}`. Each is orthogonalised by itself.
        beta: share of the past in Muon's mean, in [0, 1).
        nesterov: whether Muon looks a step ahead.
        ns_steps: iterations of Newton-Schulz, >= 1.
        consistent_rms: RMS of Muon's steps beside Adam's of about 0.2; None: sqrt(max(1, out / in)) times the orthogonal
            matrix, which wants rates of its own (`adam_lr`).
        eps: keeps divisions finite, >= 0.
        adam_b1: share of the past in Adam's mean, in [0, 1).
        adam_b2: share of the past in Adam's mean square, in [0, 1).
        adam_weight_decay: of the rest, times its rate; >= 0.
        adam_lr: the rate of the rest; None: `lr`.
        ns_dtype: dtype of the iterations; None: that of the gradient; torch's class takes bfloat16.

    Signals:
        says the rate of the matrices as `lr`, and each part's as `muon/lr` and `adam/lr`.

    Raises:
        ValueError: a number is out of range; a label is neither "muon" nor "adam", or "muon" for a leaf with fewer than two
            axes; `split` does not make up the rows of a leaf.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        labels: Any | Callable[..., Any] | Mapping[str, Any] | Module | None = None,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | Callable[..., Any] | None = None,
        *,
        split: Mapping[str, int | tuple[int, ...]] | None = None,
        beta: float | Tensor = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        consistent_rms: float | Tensor | None = 0.2,
        eps: float | Tensor = 1e-08,
        adam_b1: float | Tensor = 0.9,
        adam_b2: float | Tensor = 0.999,
        adam_weight_decay: float | Tensor | Schedule = 0.0,
        adam_lr: float | Tensor | Schedule | None = None,
        ns_dtype: dtype | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class nadam(FromFactory):
    """`torch.optim.NAdam`; torch keeps the product of momenta in float32.

    Args:
        params: as in torch.
        lr, ...: as in torch's class, whose `foreach`, `fused` and `differentiable` must not be True.

    Raises:
        TypeError, ValueError: as torch's class; where a group has changed since, at the next step.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.002,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float | Tensor = 1e-08,
        weight_decay: float | Tensor = 0.0,
        momentum_decay: float | Tensor = 0.004,
        decoupled_weight_decay: bool = False,
        *,
        weight_decay_mask: Any = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class nadamw(FromFactory):
    """NAdamW: `nadam` with decay of the weights outside of its moments, 1e-4 unless given.

    Args:
        lr: size of a step in units of params per unit of direction, >= 0: a number, a 0-dim tensor or a schedule of the
            count of steps; None: the `base_lr` it hears.
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: share of the past in the mean of its square, in [0, 1).
        eps: added to the root, >= 0.
        eps_root: added under the root, >= 0; > 0 where somebody differentiates through it.
        mu_dtype: dtype of the stored mean; None: that of the params.
        weight_decay: decoupled: each step also takes away `lr * weight_decay` of the params, >= 0; a number, a 0-dim
            tensor or a schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.
        momentum_decay: None for a constant momentum; a number for `scale_by_nadam` (torch: 0.004), which has neither
            `eps_root` nor `mu_dtype`.
        b2_sure: behind `find_rate`, the `b2` where gradients are sure, in [0, 1) (`scale_by_sure_adam`), so that `b2` is that of
            noise; None: the same everywhere.

    Raises:
        ValueError: a number is out of range; `momentum_decay` comes with `eps_root`, `mu_dtype` or `b2_sure`; at `init`, `b2_sure`
            is given and no `find_rate` stands to the left; at `update`, weights decay and no params are given.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float | Tensor = 1e-08,
        eps_root: float | Tensor = 0.0,
        mu_dtype: dtype | None = None,
        weight_decay: float | Tensor | Schedule = 0.0001,
        weight_decay_mask: Any | None = None,
        *,
        momentum_decay: float | Tensor | None = None,
        b2_sure: float | Tensor | None = None,
        b1: float | Tensor | None = None,
        b2: float | Tensor | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class nero(FromFactory):
    """Nero: coupled decay, then `scale_by_nero`, whose steps are sized (`lr` None: by the `base_lr` it hears) and downhill.

    Args:
        lr: the angle of a step, >= 0; a number, a 0-dim tensor or a schedule; 0.01 to begin with.
        beta, eps, constraints: as in `scale_by_nero`.
        weight_decay: coupled, >= 0.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Signals:
        hears `base_lr` (with `lr=None`) and, if anyone says them, `lr_multiplier` and `rate_multiplier`; says `lr`.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        beta: float | Tensor = 0.999,
        eps: float | Tensor = 1e-08,
        *,
        constraints: bool = True,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class noisy_sgd(FromFactory):
    """Noisy SGD: `add_noise`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: the rate, >= 0; a number, a 0-dim tensor or a schedule.
        eta: variance of the noise at the first step, before the rate, >= 0.
        gamma: how fast it fades, >= 0.
        key: where the noise comes from: an int, a 0-dim integer tensor or a key; None draws
            one from torch's generator, now.
        weight_decay: decoupled, >= 0.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Raises:
        ValueError: a number is out of range; at `update`, weights decay and no params are given.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        eta: float | Tensor = 0.01,
        gamma: float | Tensor = 0.55,
        key: int | Tensor | None = None,
        *,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class normuon(FromFactory):
    """NorMuon on matrices (`scale_by_muon`, `scale_by_neuron_rms`, decoupled decay, a step of size `lr` downhill), AdamW on the rest.

    Args:
        lr: the rate, >= 0, as AdamW's: a number, a 0-dim tensor or a schedule; None: the `base_lr` it hears.
        b1: share of the past in the mean, in [0, 1).
        b2: share of the past in the mean squares of outputs, in [0, 1).
        eps: keeps divisions finite, > 0; AdamW's too.
        weight_decay: of the matrices, times `lr`; >= 0.
        weight_decay_mask: which of the matrices decay, as `masked` takes it; None: all.
        nesterov: look one step ahead.
        ns_steps: iterations of Newton-Schulz, >= 1.
        consistent_rms: as in `scale_by_neuron_rms`.
        adam_b1: share of the past in Adam's mean, in [0, 1).
        adam_b2: share of the past in Adam's mean square, in [0, 1).
        adam_weight_decay: of the rest, times its rate; >= 0.
        adam_lr: the rate of the rest; None: `lr`.
        muon_weight_dimension_numbers: which leaves are matrices, and which of their axes, as in `muon`.
        ns_dtype: dtype of the iterations; None: that of the gradient.

    Signals:
        says the rate of the matrices as `lr`, and each part's as `muon/lr` and `adam/lr`.

    Raises:
        ValueError: a number is out of range; the dimension numbers do not fit.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        betas: tuple[float | Tensor, float | Tensor] = (0.95, 0.95),
        eps: float | Tensor = 1e-08,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | Callable[..., Any] | None = None,
        *,
        nesterov: bool = True,
        ns_steps: int = 5,
        consistent_rms: float | Tensor | None = 0.2,
        adam_b1: float | Tensor = 0.9,
        adam_b2: float | Tensor = 0.999,
        adam_weight_decay: float | Tensor | Schedule = 0.0,
        adam_lr: float | Tensor | Schedule | None = None,
        muon_weight_dimension_numbers: Any | Callable[..., Any] | MuonDimensionNumbers | None = None,
        ns_dtype: dtype | None = None,
        b1: float | Tensor | None = None,
        b2: float | Tensor | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class novograd(FromFactory):
    """NovoGrad: `scale_by_novograd`, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: size of a step in units of params per unit of direction, >= 0: a number, a 0-dim tensor or a schedule of the
            count of steps; None: the `base_lr` it hears.
        b1: what is left of the sum after a step, in [0, 1).
        b2: share of the past in the mean of the squared norm, in [0, 1).
        eps: added to the root, >= 0.
        eps_root: added under the root, >= 0.
        weight_decay: share of the params that enters the sum, >= 0; a schedule is called with the count of completed
            steps.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Raises:
        ValueError: a number is out of range; at `update`, weights decay and no params are given.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.25),
        eps: float | Tensor = 1e-06,
        eps_root: float | Tensor = 0.0,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | None = None,
        *,
        b1: float | Tensor | None = None,
        b2: float | Tensor | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class optimistic_adam_v2(FromFactory):
    """Optimistic Adam: Adam's direction and its change, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: the rate, >= 0; a number, a 0-dim tensor or a schedule.
        alpha, beta: as in `scale_by_optimistic_gradient`.
        b1, b2, eps, eps_root, mu_dtype, nesterov: as in `scale_by_adam`.
        weight_decay: decoupled, >= 0.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Raises:
        ValueError: a number is out of range; at `update`, weights decay and no params are given.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        alpha: float | Tensor = 1.0,
        beta: float | Tensor = 1.0,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float | Tensor = 1e-08,
        eps_root: float | Tensor = 0.0,
        mu_dtype: dtype | None = None,
        *,
        nesterov: bool = True,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | None = None,
        b1: float | Tensor | None = None,
        b2: float | Tensor | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class optimistic_gradient_descent(FromFactory):
    """Optimistic gradient descent: `scale_by_optimistic_gradient`, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    It converges on min-max problems such as x * y, which gradient descent spirals away from.

    Args:
        lr: size of a step in units of params per unit of direction, >= 0: a number, a 0-dim tensor or a schedule of the
            count of steps; None: the `base_lr` it hears.
        alpha: weight of what passes.
        beta: weight of its change since the last step.
        weight_decay: decoupled: each step also takes away `lr * weight_decay` of the params, >= 0; a number, a 0-dim
            tensor or a schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Raises:
        ValueError: a number is out of range; at `update`, weights decay and no params are given.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        alpha: float | Tensor = 1.0,
        beta: float | Tensor = 1.0,
        *,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class optiroulette(_optiroulette):
    """OptiRoulette: a pool of optimizers, one of which, drawn at random in each epoch, makes the steps.

    Args:
        params: as in torch.
        optimizer_specs: names and settings, `{"adam": {"lr": 1e-3}}`, with the names of the
            default profile (other classes come from pytorch_optimizer, where that is installed),
            or names and `fo.Member`s. None: the default profile, its 34 members and its settings.
        active_names, backup_names: who may be drawn, and who replaces failed ones.
        pool_config: `num_active`, `num_backup`, `failure_threshold`, `consecutive_failure_limit`.
        quirks: whether members of the default profile walk wrong where the classes of the source do (`fo.optiroulette_profile`).
        seed: of the draws.
        given: other arguments of `fo.roulette` (`warmup=fo.fixed_warmup(2)`), options of `Optimizer`.

    Rates belong to the members; `lr` of the groups, 1.0, multiplies them. It must be told the epoch:
    `on_epoch_start(epoch)`, or `step(epoch=epoch)`. `on_epoch_end(val_acc=0.6)` is `observe(metric=0.6)`.

    Raises:
        TypeError: `params` is an optimizer that is built, the settings of a member are no dict,
            or `pool_config` has an unknown key.
        ValueError: as `fo.roulette`; at a step, there is no epoch.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        optimizer_specs: Mapping[str, Any] | None = None,
        *,
        active_names: Sequence[str] | None = None,
        backup_names: Sequence[str] | None = None,
        pool_config: Mapping[str, Any] | None = None,
        quirks: bool = False,
        seed: int | None = 42,
        switch: Literal["step", "epoch"] = "epoch",
        every: int = 100,
        probability: float = 1.0,
        avoid_repeat: bool = True,
        warmup: Warmup | None = None,
        active: Sequence[str] | None = None,
        backup: Sequence[str] | None = None,
        reserve: Sequence[str] | None = None,
        failures: Failures | Mapping[str, Any] | None = None,
        recovery: Recovery | Mapping[str, Any] | None = None,
        compatible: Compatibility | None = None,
        rules: SwitchRules | Sequence[SwitchRules | None] | None = None,
        compounding: bool = False,
        track: Literal["current", "all"] = "current",
        on_activate: Literal["keep", "resync", "reset"] = "keep",
        dispatch: Literal["auto", "branch", "select"] = "auto",
        draw: Any = None,
        name: str | None = None,
        parity: bool = True,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class pilot(FromFactory):
    """PILOT: `agreement_policy`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: the rate, >= 0; a number, a 0-dim tensor or a schedule. Rates of Adam do not
            carry over one to one: the step grows as gradients shrink.
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: share of the past in the mean of its square, in [0, 1).
        eps: added to the power of the mean square, >= 0.
        weight_decay: >= 0, per unit of `lr`.
        gamma: share of the past in the smoothed agreement, in [0, 1); 0.85 to 0.99 are useful.
        lr_phi: rate of the policy, >= 0; 5e-4 to 5e-2 are useful, 0 holds the policy.
        degree: of the policy's polynomials in the agreement, an int >= 1.
        pin: holds knobs at values: "pm" (momentum trust, in [0, 1]), "pv" (variance power, in [0, 1/2]), "ps" (sign
            compression, in [0, 1]). All three at 1, 1/2, 0 make Adam, "pv" and "ps" at 0, 1 the sign of the blend.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.
        lr_of: "this step", as the reference has it, or "last step", whose effect is what is measured; they differ where
            the rate moves.
        meta_eps: in place of `eps` in the meta-gradient, > 0.
        meta_clip: longest step of the policy in units of `lr_phi`, > 0; `math.inf`: no limit.
        meta_step: "clipped", as published: lr_phi * min(1, meta_clip / |M|) * M; or "normalized": lr_phi * M / |M|, of
            one length however small M is. M is in units of the loss and is mostly far below 1, so that the published
            policy hardly moves.
        bias: where the polynomials of p_m, p_v and p_s start, finite.
        eps_root: added to the mean square, >= 0; > 0 where somebody differentiates through it.
        mu_dtype, nu_dtype, last_grad_dtype: of the mean, of the mean square and of the last gradient; None: that of the
            params, for float16 params float32.

    Raises:
        ValueError: a number is out of range, a choice is unknown; at `update`, weights decay and no params are given.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float | Tensor = 1e-08,
        weight_decay: float | Tensor | Schedule = 0.01,
        gamma: float | Tensor = 0.95,
        lr_phi: float | Tensor = 0.01,
        degree: int = 2,
        *,
        pin: Mapping[str, float | Tensor] | None = None,
        weight_decay_mask: Any | None = None,
        lr_of: Literal["this step", "last step"] = "this step",
        meta_eps: float | Tensor = 1e-08,
        meta_clip: float | Tensor = 1.0,
        meta_step: Literal["clipped", "normalized"] = "clipped",
        bias: Sequence[float] = (1.4, 3.0, -2.0),
        eps_root: float | Tensor = 0.0,
        mu_dtype: dtype | None = None,
        nu_dtype: dtype | None = None,
        last_grad_dtype: dtype | None = None,
        b1: float | Tensor | None = None,
        b2: float | Tensor | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class polyak_sgd(FromFactory):
    """Gradient descent with Polyak's step: `scale_by_polyak`, decoupled decay, then a factor `lr` downhill.

    Args:
        lr: a factor of Polyak's step, >= 0, or a schedule; None: the `base_lr` it hears.
        max_lr, f_min, eps, variant: as in `scale_by_polyak`.
        weight_decay: decoupled, multiplied by `lr` alone, >= 0, or a schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Signals:
        as `lr_scale`; says `polyak_step`.

    Raises:
        ValueError: a number is out of range; at `update`, no loss is given.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1.0,
        max_lr: float | Tensor = 1.0,
        f_min: float | Tensor = 0.0,
        eps: float | Tensor = 0.0,
        variant: Literal["sps", "sps+"] = "sps",
        *,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class prodigy(FromFactory):
    """Prodigy: `scale_by_prodigy`, then a step of size `lr` downhill.

    Args:
        lr: factor of the estimated rate, >= 0; leave it at 1, or give it the shape of a schedule; None: the `base_lr` it
            hears.
        betas: shares of the past in the mean of the gradient and of its square, in [0, 1).
        beta3: share of the past in the estimate's sums, in [0, 1); None: the root of the second beta.
        eps: added to the root, in units of the gradient, > 0.
        estim_lr0: first estimate, > 0; too small rather than too large.
        estim_lr_coef: factor of the estimate, > 0.
        weight_decay: decoupled, times the estimated rate, >= 0.
        safeguard_warmup: leave `lr` out of the denominator of the estimate, for long warm-ups.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.
        bias_correction: correct the means of Adam.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1.0,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        beta3: float | Tensor | None = None,
        eps: float | Tensor = 1e-08,
        estim_lr0: float | Tensor = 1e-06,
        estim_lr_coef: float | Tensor = 1.0,
        weight_decay: float | Tensor | Schedule = 0.0,
        safeguard_warmup: bool = False,
        *,
        weight_decay_mask: Any | Callable[..., Any] | None = None,
        bias_correction: bool = True,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class psgd(FromFactory):
    """PSGD (Kron): `scale_by_psgd`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: the rate, >= 0, a third of Adam's or so: a number, a 0-dim tensor or a schedule.
        b1: share of the past in the mean, in [0, 1).
        weight_decay: share of the params that a step takes away, times `lr`; >= 0.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.
        every: how many steps factors are kept, >= 1; None: first one, then more and more.
        lr_q: share of its relative error that a fit takes out of a factor, in (0, 1].
        max_dim: longest axis that has a matrix, and not a diagonal.
        scale: of the first preconditioner, > 0.
        key: an int, a 0-dim integer tensor or a key; None draws one from torch's generator when this is called. The noise only probes.
        dispatch: "auto" or "select", as in `scale_by_psgd`.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given where they decay.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        b1: float | Tensor = 0.9,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | None = None,
        *,
        every: int | None = None,
        lr_q: float | Tensor = 0.1,
        max_dim: int = 8192,
        scale: float | Tensor = 1.0,
        key: int | Tensor | None = 0,
        dispatch: Literal["auto", "select"] = "auto",
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class qhadam(FromFactory):
    """QHAdam: `scale_by_qhadam`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: the rate, >= 0; a number, a 0-dim tensor or a schedule.
        b1, b2, nu1, nu2, eps: as in `scale_by_qhadam`; the defaults are those that the authors advise.
        weight_decay: decoupled, >= 0.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Raises:
        ValueError: a number is out of range.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        betas: tuple[float | Tensor, float | Tensor] = (0.995, 0.999),
        nu1: float | Tensor = 0.7,
        nu2: float | Tensor = 1.0,
        eps: float | Tensor = 1e-08,
        *,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | None = None,
        b1: float | Tensor | None = None,
        b2: float | Tensor | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class radam(FromFactory):
    """`torch.optim.RAdam`.

    Args:
        params: as in torch.
        lr, ...: as in torch's class, whose `foreach`, `fused` and `differentiable` must not be True.

    Raises:
        TypeError, ValueError: as torch's class; where a group has changed since, at the next step.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float | Tensor = 1e-08,
        weight_decay: float | Tensor = 0.0,
        decoupled_weight_decay: bool = False,
        *,
        weight_decay_mask: Any = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class ranger(FromFactory):
    """Ranger: `centralize`, `scale_by_radam`, decoupled decay, a step of size `lr` (None: the `base_lr` it hears), in a `lookahead`.

    Args:
        lr: the rate, >= 0; a number, a 0-dim tensor or a schedule.
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: share of the past in the mean of its square, in [0, 1).
        eps: added to the uncorrected root, >= 0.
        sync_period: steps from one pull to the next, >= 1.
        slow_step_size: how far the slow weights move towards the params, in [0, 1].
        threshold: from which length of the average on the mean square is trusted, >= 4.
        uphill: as in pytorch_optimizer, which walks *up* the mean of the gradient in the first steps (five with b2 = 0.999).
        weight_decay: decoupled, >= 0.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        betas: tuple[float | Tensor, float | Tensor] = (0.95, 0.999),
        eps: float | Tensor = 1e-05,
        sync_period: int = 6,
        slow_step_size: float | Tensor = 0.5,
        threshold: float | Tensor = 5.0,
        *,
        uphill: bool = False,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | None = None,
        b1: float | Tensor | None = None,
        b2: float | Tensor | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class ranger21(FromFactory):
    """Ranger21, whose steps are sized (`lr` None: by the `base_lr` it hears) and downhill.

    Args:
        lr: the rate, >= 0; a number, a 0-dim tensor or a schedule.
        num_iterations: steps of the run, >= 2, over which the rate warms up and falls; None: the rate is as you give it.
        b0: how much of the last mean but one is taken away, in [0, 1).
        b1: its square is the share of the past in the means of the gradient, in [0, 1).
        b2: share of the past in the mean of the square, in [0, 1).
        eps: added to the root and to lengths of units, > 0.
        clipping: how long the gradient of a unit may be beside the unit, > 0.
        norm_loss: how strongly units are drawn to length 1, >= 0.
        sync_period: steps from one pull to the slow weights to the next, >= 1.
        slow_step_size: how far the slow weights move towards the params, in [0, 1].
        min_lr: where the rate falls to, >= 0.
        weight_decay: >= 0; a number, a 0-dim tensor or a schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Signals:
        hears `base_lr` (with `lr=None`) and, if anyone says them, `lr_multiplier` and `rate_multiplier`; says `lr`, after warm-up and fall.

    Raises:
        TypeError, ValueError: an argument is out of its range; at `update`, no params are given.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        num_iterations: int | None = None,
        b0: float | Tensor = 0.9,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float | Tensor = 1e-08,
        *,
        clipping: float | Tensor = 0.01,
        norm_loss: float | Tensor = 0.0001,
        sync_period: int = 5,
        slow_step_size: float | Tensor = 0.5,
        min_lr: float | Tensor = 3e-05,
        weight_decay: float | Tensor | Schedule = 0.0001,
        weight_decay_mask: Any | None = None,
        b1: float | Tensor | None = None,
        b2: float | Tensor | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class rate_free(_rate_free):
    """A ready-made optimizer that finds its rate, and averages the parameters.

    Args:
        params: as in torch.
        start: the rate with which the search begins, > 0: the `lr` of the groups, which
            schedulers may move and the search multiplies. Far below what may be right.
        inner: the name of a ready-made optimizer, whose hyperparameters pass through; "nadamw" has a second
            beta of 0.995, a `b2_sure` of 0.9 and a decay of 0.2 unless they are given, and decays by the share of it that the search says.
        average: whether `eval()` puts the average of the parameters in their place, until `train()`.
        power: of the average, as in `fo.average_params`.
        clip: how many times as long as the mean of late the gradient may be, > 1 (`fo.clip_by_mean_norm`); inf: any length. None: 3
            for "nadamw", else inf.
        find: settings for `fo.find_rate`, such as `{"keep": 0.5}`; unless given, `hurry` is 3, and for "nadamw" `stretch` 1.2.
        per_group: whether each group finds its own rate, and has its own direction and average, as if it were
            trained alone; else all share one multiplier. A group of one parameter finds that of the parameter.
        given: hyperparameters of `inner`, options of `Optimizer`.

    Signals:
        those of `fo.find_rate`, with `per_group` those of further groups as "group1/rate_multiplier"; `effective_lrs()`
        is the size of the step taken.

    Raises:
        TypeError, ValueError: an argument is unknown or out of its range; `inner` declares steps of one length, or a rate of its own.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        start: float | Tensor = 1e-06,
        *,
        inner: InnerWithRate = "nadamw",
        average: bool = True,
        power: float = 8.0,
        clip: float | None = None,
        find: Mapping[str, Any] | None = None,
        per_group: bool = False,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
        **given: Any,
    ) -> None: ...

class rmsprop(FromFactory):
    """`torch.optim.RMSprop`: the rate multiplies the sum of the momentum.

    Args:
        params: as in torch.
        lr, ...: as in torch's class, whose `foreach`, `fused` and `differentiable` must not be True.

    Raises:
        TypeError, ValueError: as torch's class; where a group has changed since, at the next step.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.01,
        alpha: float | Tensor = 0.99,
        eps: float | Tensor = 1e-08,
        weight_decay: float | Tensor = 0.0,
        momentum: float | Tensor = 0.0,
        centered: bool = False,
        *,
        weight_decay_mask: Any = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class rprop(FromFactory):
    """`torch.optim.Rprop`: the rate is the first step size; later rates change nothing.

    Args:
        params: as in torch.
        lr, ...: as in torch's class, whose `foreach`, `fused` and `differentiable` must not be True.

    Raises:
        TypeError, ValueError: as torch's class; where a group has changed since, at the next step.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.01,
        etas: tuple[float | Tensor, float | Tensor] = (0.5, 1.2),
        step_sizes: tuple[float | Tensor, float | Tensor] = (1e-06, 50),
        *,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class schedule_free_adamw(FromFactory):
    """Schedule-free AdamW.

    Args:
        lr: the rate, held, >= 0; about ten times what AdamW takes with a schedule. None: the `base_lr` it hears.
        warmup_steps: of a linear warm-up; None or 0: none.
        b1: where the gradient is taken, as in `schedule_free`.
        b2, eps: of the running mean square.
        weight_decay: decoupled, at the place where the gradient is taken, >= 0.
        weight_lr_power, state_dtype: as in `schedule_free`.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.0025,
        warmup_steps: int | None = None,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float | Tensor = 1e-08,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_lr_power: float | Tensor = 2.0,
        state_dtype: dtype | None = None,
        *,
        weight_decay_mask: Any | None = None,
        b1: float | Tensor | None = None,
        b2: float | Tensor | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class schedule_free_sgd(FromFactory):
    """Schedule-free SGD.

    Args:
        lr: the rate, held, in units of params per unit of gradient, >= 0; None: the `base_lr` it hears.
        warmup_steps: of a linear warm-up; None or 0: none.
        b1: where the gradient is taken, as in `schedule_free`.
        weight_decay: decoupled, at the place where the gradient is taken, >= 0.
        weight_lr_power: steps count in the average with this power of the rate, >= 0.
        state_dtype: dtype of z; None: that of the params.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1.0,
        warmup_steps: int | None = None,
        b1: float | Tensor = 0.9,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_lr_power: float | Tensor = 2.0,
        state_dtype: dtype | None = None,
        *,
        weight_decay_mask: Any | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class scion(FromFactory):
    """Scion: `scale_by_scion`, the pull of the constraint, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: the rate, in [0, 1] where constrained: the share of the way to the edge of the ball that a step goes.
        alpha, norms, rho, ns_steps, eps, ns_dtype: as in `scale_by_scion`.
        weight_decay: 1 keeps params within `rho`; 0: they are free. >= 0.
        weight_decay_mask: which leaves are kept, as `masked` takes it; None: all.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given where they decay.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        alpha: float | Tensor = 0.1,
        norms: Any | Callable[..., Any] | str = "auto",
        rho: float | Tensor = 1.0,
        weight_decay: float | Tensor | Schedule = 1.0,
        weight_decay_mask: Any | None = None,
        *,
        ns_steps: int = 5,
        eps: float | Tensor = 1e-08,
        ns_dtype: dtype | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class sgd(FromFactory):
    """`torch.optim.SGD`: the first gradient is not dampened.

    Args:
        params: as in torch.
        lr, ...: as in torch's class, whose `foreach`, `fused` and `differentiable` must not be True.

    Raises:
        TypeError, ValueError: as torch's class; where a group has changed since, at the next step.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        momentum: float | Tensor = 0.0,
        dampening: float | Tensor = 0.0,
        weight_decay: float | Tensor = 0.0,
        nesterov: bool = False,
        *,
        weight_decay_mask: Any = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class shampoo(FromFactory):
    """Shampoo: `scale_by_shampoo`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: the rate, >= 0, of the method that is grafted: a number, a 0-dim tensor or a schedule.
        b1: share of the past in the mean, in [0, 1).
        b2: share of the past in the factors and in the mean square, in [0, 1]; 1: they are sums.
        eps: added to the eigenvalues, >= 0.
        ridge: added besides, as a share of their sum, >= 0: below 1e-7 or so float32 does not tell eigenvalues from zero.
        weight_decay: share of the params that a step takes away, times `lr`; >= 0.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.
        every: how many steps roots are kept, >= 1.
        start: the step from which on they are used, >= 1; None: `every`, and the first where nothing is grafted.
        block_size: longest side of a block, >= 1.
        graft: whose length a leaf's step has, "adam" or "sgd"; None: its own.
        graft_eps: added to the root of "adam", >= 0.
        root: "eigh" or "newton", as in `scale_by_shampoo`.
        dispatch: "auto" or "select", as in `scale_by_shampoo`.

    Cannot:
        hypergradient: a derivative that reaches the factors is refused.

    Raises:
        ValueError: a number is out of range; at `update`, a derivative reaches the factors, or no params are given where they decay.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float | Tensor = 1e-12,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | None = None,
        *,
        ridge: float = 1e-06,
        every: int = 10,
        start: int | None = None,
        block_size: int = 1024,
        graft: Literal["adam", "sgd"] | None = "adam",
        graft_eps: float | Tensor = 1e-08,
        root: Literal["eigh", "newton"] = "eigh",
        dispatch: Literal["auto", "select"] = "auto",
        b1: float | Tensor | None = None,
        b2: float | Tensor | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class sign_sgd(FromFactory):
    """Sign SGD: `sign`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Its entries are all of size `lr`, so that it ends in a box of that width around a minimum unless the rate falls.

    Args:
        lr: size of a step in units of params per unit of direction, >= 0: a number, a 0-dim tensor or a schedule of the
            count of steps; None: the `base_lr` it hears.
        weight_decay: decoupled: each step also takes away `lr * weight_decay` of the params, >= 0; a number, a 0-dim
            tensor or a schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Raises:
        ValueError: a number is out of range; at `update`, weights decay and no params are given.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        *,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class signum(FromFactory):
    """Signum: the sign of a running mean, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: the rate, >= 0; a number, a 0-dim tensor or a schedule.
        beta: share of the past in the running mean, in [0, 1).
        weight_decay: decoupled, >= 0.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Raises:
        ValueError: a number is out of range; at `update`, weights decay and no params are given.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        beta: float | Tensor = 0.9,
        *,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class simplified_ademamix(FromFactory):
    """Simplified AdEMAMix: its direction, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: size of a step in units of params per unit of direction, >= 0: a number, a 0-dim tensor or a schedule of the
            count of steps; None: the `base_lr` it hears.
        b1: what is left of the sum after a step, in [0, 1).
        b2: share of the past in the mean of the square, in [0, 1).
        alpha: additional weight of the last gradient, >= 0, or a schedule of it.
        eps: added to the root, >= 0.
        eps_root: added under the root, >= 0.
        weight_decay: decoupled: each step also takes away `lr * weight_decay` of the params, >= 0; a number, a 0-dim
            tensor or a schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Raises:
        ValueError: a number is out of range; at `update`, weights decay and no params are given.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        betas: tuple[float | Tensor, float | Tensor] = (0.99, 0.95),
        alpha: float | Tensor | Schedule = 0.0,
        eps: float | Tensor = 1e-08,
        eps_root: float | Tensor = 0.0,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | None = None,
        *,
        b1: float | Tensor | None = None,
        b2: float | Tensor | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class sm3(FromFactory):
    """SM3: `scale_by_sm3(momentum)`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: size of a step in units of params per unit of direction, >= 0: a number, a 0-dim tensor or a schedule of the
            count of steps; None: the `base_lr` it hears.
        momentum: share of the past in a running mean of the directions, in [0, 1).
        weight_decay: decoupled: each step also takes away `lr * weight_decay` of the params, >= 0; a number, a 0-dim
            tensor or a schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Raises:
        ValueError: a number is out of range; at `update`, weights decay and no params are given.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        momentum: float | Tensor = 0.9,
        *,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class soap(FromFactory):
    """SOAP: `scale_by_soap`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: the rate, >= 0, as Adam's: a number, a 0-dim tensor or a schedule.
        b1: share of the past in the mean, in [0, 1).
        b2: share of the past in the mean square, in [0, 1).
        eps: added to the root, >= 0.
        weight_decay: share of the params that a step takes away, times `lr`; >= 0.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.
        shampoo_beta: share of the past in the factors, in [0, 1).
        every: how many steps a basis is kept, >= 1.
        max_dim: longest axis that has a factor.
        precondition_1d: whether vectors have one.
        dispatch: "auto" or "select", as in `scale_by_soap`.

    Cannot:
        hypergradient: a derivative that reaches the factors is refused.

    Raises:
        ValueError: a number is out of range; at `update`, a derivative reaches the factors, or no params are given where they decay.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        betas: tuple[float | Tensor, float | Tensor] = (0.95, 0.95),
        eps: float | Tensor = 1e-08,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | None = None,
        *,
        shampoo_beta: float = 0.95,
        every: int = 10,
        max_dim: int = 10000,
        precondition_1d: bool = False,
        dispatch: Literal["auto", "select"] = "auto",
        b1: float | Tensor | None = None,
        b2: float | Tensor | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class sophia(FromFactory):
    """Sophia, told the diagonal of the Hessian: `step(hessian=[...])`, one tensor for each parameter.

    Args:
        lr, b1, b2, eps, weight_decay, weight_decay_mask, gamma, clip_threshold, update_interval: as in `funcopt.sophia`.

    Raises:
        ValueError: a number is out of range; at a step, no `hessian` is given.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        betas: tuple[float | Tensor, float | Tensor] = (0.965, 0.99),
        eps: float | Tensor = 1e-08,
        weight_decay: float | Tensor | Schedule = 0.0001,
        weight_decay_mask: Any | None = None,
        gamma: float | Tensor = 0.01,
        clip_threshold: float | Tensor = 1.0,
        update_interval: int = 10,
        *,
        b1: float | Tensor | None = None,
        b2: float | Tensor | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class splus(FromFactory):
    """SPlus: `scale_by_splus`, a step of size `lr` (None: the `base_lr` it hears) downhill, decay of where it leads, and an average.

    Args:
        lr: the rate, >= 0; a number, a 0-dim tensor or a schedule; 0.1 to 0.2 to begin with, for any width.
        b1, b2, every, max_dim, eigh_dtype: as in `scale_by_splus`.
        other_scale: of what is no matrix, a number >= 0.
        ema: share of the past in the average of the params, which `averaged_params(state, params)` gives and which does not change the
            steps, in [0, 1); None: no average.
        weight_decay: decoupled, >= 0; multiplied by the rate and by the scale of the leaf.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Raises:
        TypeError, ValueError: an argument is out of its range; at `update`, no params are given.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        every: int = 100,
        max_dim: int = 10000,
        other_scale: float = 0.001,
        *,
        ema: float | Tensor | None = 0.999,
        eigh_dtype: dtype | None = None,
        weight_decay: float | Tensor | Schedule = 0.01,
        weight_decay_mask: Any | None = None,
        b1: float | Tensor | None = None,
        b2: float | Tensor | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class stable_adamw(FromFactory):
    """StableAdamW: `scale_by_stable_adam`, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: the rate, >= 0: a number, a 0-dim tensor or a schedule.
        b1, b2, eps, weight_decay: as in `scale_by_stable_adam`.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given where they decay.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.99),
        eps: float | Tensor = 1e-08,
        weight_decay: float | Tensor | Schedule = 0.01,
        weight_decay_mask: Any | None = None,
        *,
        b1: float | Tensor | None = None,
        b2: float | Tensor | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class tam(FromFactory):
    """Torque-aware momentum: `scale_by_tam`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: the rate, >= 0; a number, a 0-dim tensor or a schedule.
        beta, gamma, eps, entrywise: as in `scale_by_tam`.
        weight_decay: decoupled, >= 0.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Raises:
        ValueError: a number is out of range.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        beta: float | Tensor = 0.9,
        gamma: float | Tensor = 0.9,
        eps: float | Tensor = 1e-08,
        *,
        entrywise: bool = False,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...

class yogi(FromFactory):
    """Yogi: `scale_by_yogi`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: size of a step in units of params per unit of direction, >= 0: a number, a 0-dim tensor or a schedule of the
            count of steps; None: the `base_lr` it hears.
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: 1 - b2 is the share of the squared gradient by which the mean square moves, in [0, 1).
        eps: added to the root, >= 0.
        eps_root: added under the root, >= 0.
        initial_accumulator_value: what both means start from, >= 0.
        weight_decay: decoupled: each step also takes away `lr * weight_decay` of the params, >= 0; a number, a 0-dim
            tensor or a schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Raises:
        ValueError: a number is out of range; at `update`, weights decay and no params are given.

    Numbers live in the groups; the options are those of `Optimizer`.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.001,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float | Tensor = 0.001,
        *,
        eps_root: float | Tensor = 0.0,
        initial_accumulator_value: float = 1e-06,
        weight_decay: float | Tensor | Schedule = 0.0,
        weight_decay_mask: Any | None = None,
        b1: float | Tensor | None = None,
        b2: float | Tensor | None = None,
        maximize: bool = False,
        compile: bool = False,
        flat: bool | Literal["auto"] = "auto",
        capturable: bool = False,
        process_group: Any = None,
        on_missing: Literal["raise", "hold"] = "raise",
        state_dtype: Literal["auto"] | None = "auto",
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None: ...
