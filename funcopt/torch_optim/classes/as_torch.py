"""Factories with the arguments, defaults and formulas of torch.optim, for the methods that torch has.

Weight decay is coupled (added to the gradient) where torch couples it. Arguments are
refused in torch's words. Tensors are taken on trust.

Reference: torch.optim of torch 2.13.
"""

import math
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, chain, identity, moments, named_chain, signals as words, tree
from funcopt.core.math import entrywise
from funcopt.optimizers.adadelta import scale_by_adadelta
from funcopt.optimizers.adafactor import scale_by_factored_rms
from funcopt.optimizers.adagrad import scale_by_rss
from funcopt.optimizers.adam import scale_by_adam
from funcopt.optimizers.adamax import scale_by_adamax
from funcopt.optimizers.amsgrad import scale_by_amsgrad
from funcopt.optimizers.muon import muon as muon_or_adam
from funcopt.optimizers.nadam import scale_by_nadam
from funcopt.optimizers.radam import scale_by_radam
from funcopt.optimizers.rmsprop import scale_by_rms, scale_by_stddev
from funcopt.optimizers.rprop import scale_by_rprop
from funcopt.torch_optim.groups import is_zero
from funcopt.transforms.clip import clip_by_block_rms
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.param_block import scale_by_param_block_rms
from funcopt.transforms.trace import trace
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["adadelta", "adafactor", "adagrad", "adam", "adamax", "adamw", "muon", "nadam", "radam", "rmsprop", "rprop", "sgd"]

Pair = tuple[Scalar, Scalar]


def _number(value: Any, sentence: str) -> bool:
    """Whether the range of a value can be checked: it is no tensor; raises for what is no number."""
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(
                f"{sentence.format(f'a tensor of shape {tuple(value.shape)}')}; it must be a number or a tensor of one element"
            )
        return False
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{sentence.format(repr(value))}; it must be a number or a tensor")
    return True


def _at_least_zero(value: Any, sentence: str) -> None:
    if _number(value, sentence) and not 0.0 <= value < math.inf:
        raise ValueError(sentence.format(value))


def _flag(name: str, value: Any) -> None:
    if value is not True and value is not False:
        raise TypeError(f"Invalid {name} value: {value!r}; it must be True or False")


def _pair(name: str, value: Any) -> None:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"Invalid {name}: {value!r}; it must be a pair of numbers")


NOT_ASKED = object()


def _known(betas: Any = NOT_ASKED, **numbers: Any) -> None:
    """The checks that most classes of torch share."""
    names = {"eps": "epsilon"}
    for name, value in numbers.items():
        _at_least_zero(value, f"Invalid {names.get(name, name)} value: {{}}")
    if betas is NOT_ASKED:
        return
    _pair("betas", betas)
    for index, beta in enumerate(betas):
        if _number(beta, f"Invalid beta parameter at index {index}: {{}}") and not 0.0 <= beta < 1.0:
            raise ValueError(f"Invalid beta parameter at index {index}: {beta}")
    if isinstance(betas[0], Tensor) != isinstance(betas[1], Tensor) and not any(is_zero(beta) for beta in betas):
        raise ValueError("betas must be either both floats or both Tensors")  # a 0 stays a number where the others become tensors


def _decayed(weight_decay: Any, mask: Any, decoupled: bool, **links: GradientTransformation) -> GradientTransformation:
    """Links by name, so that one that comes later, as a momentum does that was 0, does not move the state of the others."""
    decay, size = ("decay", add_decayed_weights(weight_decay, mask)), ("size", lr_scale())
    return named_chain(*links.items(), decay, size) if decoupled else named_chain(decay, *links.items(), size)


def _numbers(betas: Pair) -> tuple[Scalar, Scalar]:
    """Tensors of one element as 0-dim ones."""
    first, second = (beta.reshape(()) if isinstance(beta, Tensor) else beta for beta in betas)
    return first, second


class DampedTraceState(NamedTuple):
    trace: Any  # decayed sum of what has passed; like params
    count: Tensor  # steps that the sum has taken


def _damped_trace(momentum: Scalar, dampening: Scalar) -> GradientTransformation:
    """A decayed sum, whose first term is whole and whose later terms count 1 - dampening."""

    def init(params: Any) -> DampedTraceState:
        return DampedTraceState(trace=tree.zeros_like(params), count=moments.zero_count(params))

    def update(updates: Any, state: DampedTraceState, params=None, **extra):
        share = tree.scalar(1 - dampening * (state.count > 0).double(), state.count)
        (share,) = entrywise.once(updates, share)
        total = tree.map(lambda g, tr: share * g + momentum * tr, updates, state.trace)
        return tree.cast_like(total, updates), DampedTraceState(
            trace=tree.cast_like(total, state.trace), count=moments.increment(state.count)
        )

    return GradientTransformation(init, update, name="damped_trace", flattenable=True, per_leaf=True, turns=False, leaves="complex")


def sgd(
    lr: Scalar | None = 1e-3,
    momentum: Scalar = 0.0,
    dampening: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
    nesterov: bool = False,
    *,
    weight_decay_mask: Any = None,
) -> GradientTransformation:
    """`torch.optim.SGD`: the first gradient is not dampened."""
    _known(momentum=momentum, weight_decay=weight_decay)
    if _number(dampening, "Invalid dampening value: {}") and not -math.inf < dampening < math.inf:
        raise ValueError(f"Invalid dampening value: {dampening}")
    _flag("nesterov", nesterov)
    still, damped = is_zero(momentum), not is_zero(dampening)
    if nesterov and (still or damped):
        raise ValueError("Nesterov momentum requires a momentum and zero dampening")
    if still:
        return _decayed(weight_decay, weight_decay_mask, False, direction=identity())
    return _decayed(
        weight_decay, weight_decay_mask, False, momentum=_damped_trace(momentum, dampening) if damped else trace(momentum, nesterov)
    )


def adam(
    lr: Scalar | None = 1e-3,
    betas: Pair = (0.9, 0.999),
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    amsgrad: bool = False,
    *,
    decoupled_weight_decay: bool = False,
    weight_decay_mask: Any = None,
) -> GradientTransformation:
    """`torch.optim.Adam`."""
    _known(betas, eps=eps, weight_decay=weight_decay)
    _flag("amsgrad", amsgrad)
    _flag("decoupled_weight_decay", decoupled_weight_decay)
    b1, b2 = _numbers(betas)
    direction = scale_by_amsgrad(b1, b2, eps, correct_before_max=False) if amsgrad else scale_by_adam(b1, b2, eps)
    return _decayed(weight_decay, weight_decay_mask, decoupled_weight_decay, direction=direction)


def adamw(
    lr: Scalar | None = 1e-3,
    betas: Pair = (0.9, 0.999),
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 1e-2,
    amsgrad: bool = False,
    *,
    weight_decay_mask: Any = None,
) -> GradientTransformation:
    """`torch.optim.AdamW`."""
    return adam(lr, betas, eps, weight_decay, amsgrad, decoupled_weight_decay=True, weight_decay_mask=weight_decay_mask)


def nadam(
    lr: Scalar | None = 2e-3,
    betas: Pair = (0.9, 0.999),
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    momentum_decay: Scalar = 4e-3,
    decoupled_weight_decay: bool = False,
    *,
    weight_decay_mask: Any = None,
) -> GradientTransformation:
    """`torch.optim.NAdam`; torch keeps the product of momenta in float32."""
    _known(betas, eps=eps, weight_decay=weight_decay, momentum_decay=momentum_decay)
    _flag("decoupled_weight_decay", decoupled_weight_decay)
    return _decayed(
        weight_decay, weight_decay_mask, decoupled_weight_decay, direction=scale_by_nadam(*_numbers(betas), eps, momentum_decay)
    )


def radam(
    lr: Scalar | None = 1e-3,
    betas: Pair = (0.9, 0.999),
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    decoupled_weight_decay: bool = False,
    *,
    weight_decay_mask: Any = None,
) -> GradientTransformation:
    """`torch.optim.RAdam`."""
    _known(betas, eps=eps, weight_decay=weight_decay)
    _flag("decoupled_weight_decay", decoupled_weight_decay)
    return _decayed(
        weight_decay, weight_decay_mask, decoupled_weight_decay, direction=scale_by_radam(*_numbers(betas), eps, correct_eps=True)
    )


def adamax(
    lr: Scalar | None = 2e-3,
    betas: Pair = (0.9, 0.999),
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    *,
    weight_decay_mask: Any = None,
) -> GradientTransformation:
    """`torch.optim.Adamax`."""
    _known(betas, eps=eps, weight_decay=weight_decay)
    return _decayed(weight_decay, weight_decay_mask, False, direction=scale_by_adamax(*_numbers(betas), eps))


class FadeState(NamedTuple):
    count: Tensor  # steps taken, also those with a decay of 0: it may come later


def _fade(lr_decay: Scalar) -> GradientTransformation:
    """Multiplies by 1 / (1 + lr_decay * steps taken)."""

    def init(params: Any) -> FadeState:
        return FadeState(count=moments.zero_count(params))

    def update(updates: Any, state: FadeState, params=None, **extra):
        new = FadeState(count=moments.increment(state.count))
        if is_zero(lr_decay):
            return updates, new
        (share,) = entrywise.once(updates, tree.scalar(1 / (1 + state.count.double() * lr_decay), state.count))
        return tree.map(lambda u: share * u, updates), new

    return GradientTransformation(init, update, name="fade", flattenable=True, per_leaf=True, turns=False, leaves="complex")


def adagrad(
    lr: Scalar | None = 1e-2,
    lr_decay: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
    initial_accumulator_value: float = 0.0,
    eps: Scalar = 1e-10,
    *,
    weight_decay_mask: Any = None,
) -> GradientTransformation:
    """`torch.optim.Adagrad`."""
    _known(lr_decay=lr_decay, weight_decay=weight_decay, eps=eps)
    _at_least_zero(initial_accumulator_value, "Invalid initial_accumulator_value value: {}")
    return _decayed(
        weight_decay,
        weight_decay_mask,
        False,
        direction=scale_by_rss(initial_accumulator_value, eps, eps_in_sqrt=False),
        fade=_fade(lr_decay),
    )


def adadelta(
    lr: Scalar | None = 1.0,
    rho: Scalar = 0.9,
    eps: Scalar = 1e-6,
    weight_decay: Scalar = 0.0,
    *,
    weight_decay_mask: Any = None,
) -> GradientTransformation:
    """`torch.optim.Adadelta`."""
    if _number(rho, "Invalid rho value: {}") and not 0.0 <= rho <= 1.0:
        raise ValueError(f"Invalid rho value: {rho}")
    _known(eps=eps, weight_decay=weight_decay)
    return _decayed(weight_decay, weight_decay_mask, False, direction=scale_by_adadelta(rho, eps))


def rmsprop(
    lr: Scalar | None = 1e-2,
    alpha: Scalar = 0.99,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    momentum: Scalar = 0.0,
    centered: bool = False,
    *,
    weight_decay_mask: Any = None,
) -> GradientTransformation:
    """`torch.optim.RMSprop`: the rate multiplies the sum of the momentum."""
    _known(eps=eps, momentum=momentum, weight_decay=weight_decay, alpha=alpha)
    _flag("centered", centered)
    direction = (scale_by_stddev if centered else scale_by_rms)(alpha, eps, eps_in_sqrt=False)
    return _decayed(
        weight_decay, weight_decay_mask, False, direction=direction, momentum=identity() if is_zero(momentum) else trace(momentum)
    )


def rprop(lr: Scalar | None = 1e-2, etas: Pair = (0.5, 1.2), step_sizes: Pair = (1e-6, 50)) -> GradientTransformation:
    """`torch.optim.Rprop`: the rate is the first step size; later rates change nothing."""
    _pair("etas", etas)
    _pair("step_sizes", step_sizes)
    if all([_number(eta, "Invalid eta value: {}") for eta in etas]) and not 0.0 < etas[0] < 1.0 < etas[1]:
        raise ValueError(f"Invalid eta values: {etas[0]}, {etas[1]}")
    return chain(scale_by_rprop(None, *etas, *step_sizes), lr_scale(1.0))


class FadingRateState(NamedTuple):
    count: Tensor  # steps taken


def _at_most_inverse_root() -> GradientTransformation:
    """Multiplies by min(lr, 1 / sqrt(t)) / lr, of the `base_lr` it hears."""

    def init(params: Any) -> FadingRateState:
        return FadingRateState(count=moments.zero_count(params))

    def update(updates: Any, state: FadingRateState, params=None, *, signals=None, **extra):
        base = words.need(signals, "adafactor", "base_lr", "pass lr=")
        count = moments.increment(state.count)
        root = tree.scalar(count, count).rsqrt()
        share = torch.where(base > root, root / torch.where(base > 0, base, 1.0), 1.0)
        (share,) = entrywise.once(updates, share)
        return tree.map(lambda u: share * u, updates), FadingRateState(count=count)

    return GradientTransformation(
        init, update, name="at_most_inverse_root", hears={"base_lr": "needed"}, flattenable=True, per_leaf=True, turns=False
    )


def adafactor(
    lr: Scalar | None = 1e-2,
    beta2_decay: Scalar = -0.8,
    eps: tuple[float | None, float] = (None, 1e-3),
    d: Scalar = 1.0,
    weight_decay: Scalar = 0.0,
) -> GradientTransformation:
    """`torch.optim.Adafactor`."""
    if _number(beta2_decay, "Invalid beta2_decay value: {}") and not beta2_decay <= 0.0:
        raise ValueError(f"beta2_decay should be <= 0 but is: {beta2_decay}")
    _pair("eps", eps)
    for index, value in enumerate(eps):
        if value is not None:
            _at_least_zero(value, f"epsilon{index + 1} should be >= 0 but is: {{}}")
    if _number(d, "Invalid d value: {}") and not d >= 1.0:
        raise ValueError(f"Clipping threshold d should be >= 1 but is: {d}")
    _at_least_zero(weight_decay, "weight_decay should be >= 0 but is: {}")
    return chain(
        scale_by_factored_rms(
            decay_rate=-beta2_decay, min_dim_size_to_factor=0, factored_axes="last", floor="dtype" if eps[0] is None else eps[0]
        ),
        clip_by_block_rms(d),
        scale_by_param_block_rms(eps[1]),
        _at_most_inverse_root(),
        add_decayed_weights(weight_decay),
        lr_scale(),
    )


def muon(
    lr: Scalar | None = 1e-3,
    weight_decay: Scalar = 0.1,
    momentum: Scalar = 0.95,
    nesterov: bool = True,
    ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
    eps: float = 1e-7,
    ns_steps: int = 5,
    adjust_lr_fn: str | None = None,
) -> GradientTransformation:
    """`torch.optim.Muon`, for matrices; it takes no others, `fo.muon` hands those to AdamW."""
    _at_least_zero(momentum, "momentum should be >= 0 but is: {}")
    _at_least_zero(weight_decay, "weight decay should be >= 0 but is: {}")
    _flag("nesterov", nesterov)
    if adjust_lr_fn not in (None, "original", "match_rms_adamw", "spectral_unclamped"):
        raise ValueError(f"Adjust learning rate function {adjust_lr_fn} is not supported")
    rms = 0.2 if adjust_lr_fn == "match_rms_adamw" else None
    given = {"nesterov": nesterov, "bias_correction": False, "ns_dtype": torch.bfloat16, "consistent_rms": rms}
    given["clamped"] = adjust_lr_fn != "spectral_unclamped"
    return muon_or_adam(lr, ns_coefficients, ns_steps, momentum, eps, weight_decay, **given)
