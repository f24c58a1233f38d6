"""A class for every ready-made optimizer: `fo.torch_optim.adamw(model.parameters(), lr=1e-3)`.

Where torch.optim has the method, the class has its arguments, defaults and formula
(`as_torch.py`); the others have those of the factory of the same name in `funcopt`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from funcopt.core.protocol import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree
from funcopt.optimizers.accsgd import accsgd as _accsgd
from funcopt.optimizers.acprop import acprop as _acprop
from funcopt.optimizers.adabelief import adabelief as _adabelief
from funcopt.optimizers.adahessian import adahessian as _adahessian
from funcopt.optimizers.adai import adai as _adai
from funcopt.optimizers.adam_mini import adam_mini as _adam_mini
from funcopt.optimizers.adamax import adamaxw as _adamaxw
from funcopt.optimizers.adamp import adamp as _adamp
from funcopt.optimizers.adamuon import adamuon as _adamuon
from funcopt.optimizers.adan import adan as _adan
from funcopt.optimizers.adanorm import adanorm as _adanorm
from funcopt.optimizers.ademamix import ademamix as _ademamix, simplified_ademamix as _simplified_ademamix
from funcopt.optimizers.adgd import adgd as _adgd
from funcopt.optimizers.adopt import adopt as _adopt
from funcopt.optimizers.aggmo import aggmo as _aggmo
from funcopt.optimizers.amsgrad import amsgrad as _amsgrad
from funcopt.optimizers.apollo import apollo as _apollo
from funcopt.optimizers.apollo_dqn import apollo_dqn as _apollo_dqn
from funcopt.optimizers.came import came as _came
from funcopt.optimizers.cocob import cocob as _cocob
from funcopt.optimizers.dadapt_adamw import dadapt_adamw as _dadapt_adamw
from funcopt.optimizers.dog import dog as _dog, dowg as _dowg
from funcopt.optimizers.fira import fira as _fira
from funcopt.optimizers.fromage import fromage as _fromage
from funcopt.optimizers.galore import galore as _galore
from funcopt.optimizers.gravity import gravity as _gravity
from funcopt.optimizers.lamb import lamb as _lamb
from funcopt.optimizers.laprop import laprop as _laprop
from funcopt.optimizers.lars import lars as _lars
from funcopt.optimizers.lion import lion as _lion
from funcopt.optimizers.madgrad import madgrad as _madgrad
from funcopt.optimizers.momo import momo as _momo, momo_adam as _momo_adam
from funcopt.optimizers.muon_with_adam import muon_with_adam as _muon_with_adam
from funcopt.optimizers.nadam import nadamw as _nadamw
from funcopt.optimizers.nero import nero as _nero
from funcopt.optimizers.noisy_sgd import noisy_sgd as _noisy_sgd
from funcopt.optimizers.normuon import normuon as _normuon
from funcopt.optimizers.novograd import novograd as _novograd
from funcopt.optimizers.optimistic import (
    optimistic_adam_v2 as _optimistic_adam_v2,
    optimistic_gradient_descent as _optimistic_gradient_descent,
)
from funcopt.optimizers.polyak_sgd import polyak_sgd as _polyak_sgd
from funcopt.optimizers.prodigy import prodigy as _prodigy
from funcopt.optimizers.psgd import psgd as _psgd
from funcopt.optimizers.qhadam import qhadam as _qhadam
from funcopt.optimizers.ranger import ranger as _ranger
from funcopt.optimizers.ranger21 import ranger21 as _ranger21
from funcopt.optimizers.schedule_free_adamw import schedule_free_adamw as _schedule_free_adamw
from funcopt.optimizers.schedule_free_sgd import schedule_free_sgd as _schedule_free_sgd
from funcopt.optimizers.scion import scion as _scion
from funcopt.optimizers.shampoo import shampoo as _shampoo
from funcopt.optimizers.sign_sgd import sign_sgd as _sign_sgd
from funcopt.optimizers.signum import signum as _signum
from funcopt.optimizers.sm3 import sm3 as _sm3
from funcopt.optimizers.soap import soap as _soap
from funcopt.optimizers.sophia import sophia as _sophia
from funcopt.optimizers.splus import splus as _splus
from funcopt.optimizers.stable_adamw import stable_adamw as _stable_adamw
from funcopt.optimizers.tam import tam as _tam
from funcopt.optimizers.yogi import yogi as _yogi
from funcopt.torch_optim.classes import as_torch
from funcopt.torch_optim.classes.make import FromFactory, optimizer_class

DECAY = "weight_decay"
SECTIONS = """

    Args:
        params: as in torch.
        lr, ...: as in torch's class, whose `foreach`, `fused` and `differentiable` must not be True.

    Raises:
        TypeError, ValueError: as torch's class; where a group has changed since, at the next step.

    Example:
        >>> w = torch.nn.Parameter(torch.tensor({before}))
        >>> opt = fo.torch_optim.{name}([w], lr=0.5)
        >>> w.grad = torch.full_like(w, 3.0)
        >>> opt.step()
        >>> w.data
        tensor({after})
"""


def _of_torch(
    factory: Callable[..., GradientTransformation],
    numbers: Sequence[str],
    after: str,
    check: Callable[[str, Any], None] | None = None,
    upgrade: Callable[[dict[str, Tensor]], None] | None = None,
    waits: Sequence[str] = (),
) -> type[FromFactory]:
    """The class of a factory of `as_torch.py`; `after` is where its first step leads from 2, against a gradient of 3, at a rate of 1/2."""
    made = optimizer_class(factory, module=__name__, numbers=numbers)
    made.__doc__ = (made.__doc__ or "") + SECTIONS.format(
        name=factory.__name__, before="[[2.0]]" if after.startswith("[[") else "[2.0]", after=after
    )
    made.waits = frozenset(waits)
    if check is not None:
        made.check_params = staticmethod(check)
    if upgrade is not None:
        made.upgrade = classmethod(lambda cls, shared, **statics: upgrade(shared))  # pyright: ignore[reportAttributeAccessIssue]
    return made


def _made(factory: Callable[..., GradientTransformation]) -> type[FromFactory]:
    return optimizer_class(factory, module=__name__)


def _told_its_hessian(
    lr: ScalarOrSchedule | None,
    b1: Scalar = 0.965,
    b2: Scalar = 0.99,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 1e-4,
    weight_decay_mask: TensorTree | None = None,
    gamma: Scalar = 0.01,
    clip_threshold: Scalar = 1.0,
    update_interval: int = 10,
) -> GradientTransformation:
    """Sophia, told the diagonal of the Hessian: `step(hessian=[...])`, one tensor for each parameter.

    Args:
        lr, b1, b2, eps, weight_decay, weight_decay_mask, gamma, clip_threshold, update_interval: as in `funcopt.sophia`.

    Returns:
        Sophia, told its Hessian.

    Raises:
        ValueError: a number is out of range; at a step, no `hessian` is given.

    Example:
        >>> w = torch.nn.Parameter(torch.tensor([2.0]))
        >>> opt = fo.torch_optim.sophia([w], lr=0.5, weight_decay=0.0)
        >>> w.grad = torch.tensor([3.0])
        >>> opt.step(hessian=[torch.tensor([1.0])])
        >>> w.data
        tensor([1.5000])
    """
    return _sophia(lr, b1, b2, eps, weight_decay, weight_decay_mask, gamma, clip_threshold, update_interval, "told")


def _real(where: str, param: Tensor) -> None:
    if param.is_complex():
        raise RuntimeError("Adafactor does not support complex parameters")


def _matrices(where: str, param: Tensor) -> None:
    if param.is_complex():
        raise RuntimeError("Muon does not support complex parameters")
    if param.ndim != 2:
        raise ValueError(f"Muon only supports 2D parameters whereas we found a parameter with size: {param.size()}")


def _one_count(shared: dict[str, Tensor]) -> None:
    """Once the dampening was a link of its own, which counted."""
    for name in [name for name in shared if name.endswith("damp/count")]:
        shared[name.removesuffix("damp/count") + "momentum/count"] = shared.pop(name)


def _counted(shared: dict[str, Tensor]) -> None:
    """Once Adagrad counted only where its rate decayed."""
    for name in [name for name in shared if name.endswith("size/lr")]:
        shared.setdefault(name.removesuffix("size/lr") + "fade/count", torch.zeros((), dtype=torch.int64, device="cpu"))


sgd = _of_torch(
    as_torch.sgd, ("momentum", "dampening", DECAY, "nesterov"), "[0.5000]", upgrade=_one_count, waits=("momentum/trace", "momentum/count")
)
# The sum has begun undampened.
first_count: Any = classmethod(lambda cls, path: torch.ones((), dtype=torch.int64, device="cpu") if path == "momentum/count" else None)
sgd.late = first_count  # pyright: ignore[reportAttributeAccessIssue]
adam = _of_torch(as_torch.adam, ("betas", "eps", DECAY, "amsgrad", "decoupled_weight_decay"), "[1.5000]", waits=("direction/nu_max",))
adamw = _of_torch(as_torch.adamw, ("betas", "eps", DECAY, "amsgrad"), "[1.4900]", waits=("direction/nu_max",))
nadam = _of_torch(as_torch.nadam, ("betas", "eps", DECAY, "momentum_decay", "decoupled_weight_decay"), "[1.4718]")
radam = _of_torch(as_torch.radam, ("betas", "eps", DECAY, "decoupled_weight_decay"), "[0.5000]")
adamax = _of_torch(as_torch.adamax, ("betas", "eps", DECAY), "[1.5000]")
adagrad = _of_torch(as_torch.adagrad, ("lr_decay", "eps", DECAY), "[1.5000]", upgrade=_counted)
adadelta = _of_torch(as_torch.adadelta, ("rho", "eps", DECAY), "[1.9984]")
rmsprop = _of_torch(as_torch.rmsprop, ("momentum", "alpha", "eps", "centered", DECAY), "[-3.]", waits=("momentum/trace", "direction/mu"))
rprop = _of_torch(as_torch.rprop, ("etas", "step_sizes"), "[1.5000]")
adafactor = _of_torch(as_torch.adafactor, ("beta2_decay", "eps", "d", DECAY), "[1.]", _real)
muon = _of_torch(as_torch.muon, (DECAY, "momentum"), "[[1.5562]]", _matrices)

accsgd = _made(_accsgd)
acprop = _made(_acprop)
adabelief = _made(_adabelief)
adahessian = _made(_adahessian)
adai = _made(_adai)
adamaxw = _made(_adamaxw)
adamp = _made(_adamp)
adan = _made(_adan)
muon_with_adam = _made(_muon_with_adam)
normuon = _made(_normuon)
adamuon = _made(_adamuon)
soap = _made(_soap)
shampoo = _made(_shampoo)
psgd = _made(_psgd)
laprop = _made(_laprop)
stable_adamw = _made(_stable_adamw)
came = _made(_came)
adam_mini = _made(_adam_mini)
scion = _made(_scion)
adanorm = _made(_adanorm)
ademamix = _made(_ademamix)
adgd = _made(_adgd)
adopt = _made(_adopt)
aggmo = _made(_aggmo)
amsgrad = _made(_amsgrad)
apollo = _made(_apollo)
apollo_dqn = _made(_apollo_dqn)
cocob = _made(_cocob)
dadapt_adamw = _made(_dadapt_adamw)
dog = _made(_dog)
dowg = _made(_dowg)
fira = _made(_fira)
fromage = _made(_fromage)
gravity = _made(_gravity)
galore = _made(_galore)
lamb = _made(_lamb)
lars = _made(_lars)
lion = _made(_lion)
madgrad = _made(_madgrad)
momo = _made(_momo)
momo_adam = _made(_momo_adam)
nadamw = _made(_nadamw)
nero = _made(_nero)
noisy_sgd = _made(_noisy_sgd)
novograd = _made(_novograd)
optimistic_adam_v2 = _made(_optimistic_adam_v2)
optimistic_gradient_descent = _made(_optimistic_gradient_descent)
polyak_sgd = _made(_polyak_sgd)
prodigy = _made(_prodigy)
qhadam = _made(_qhadam)
ranger = _made(_ranger)
ranger21 = _made(_ranger21)
schedule_free_adamw = _made(_schedule_free_adamw)
schedule_free_sgd = _made(_schedule_free_sgd)
sign_sgd = _made(_sign_sgd)
signum = _made(_signum)
simplified_ademamix = _made(_simplified_ademamix)
sm3 = _made(_sm3)
splus = _made(_splus)
tam = _made(_tam)
sophia = optimizer_class(_told_its_hessian, name="sophia", module=__name__)
yogi = _made(_yogi)
