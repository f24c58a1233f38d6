"""A class for every ready-made optimizer: `fo.torch_optim.adamw(model.parameters(), lr=1e-3)`.

Where torch.optim has the method, the class has its arguments, defaults and formula
(`as_torch.py`); the others have those of the factory of the same name in `funcopt`.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from funcopt.core.protocol import GradientTransformation
from funcopt.optimizers.adabelief import adabelief as _adabelief
from funcopt.optimizers.adahessian import adahessian as _adahessian
from funcopt.optimizers.adamax import adamaxw as _adamaxw
from funcopt.optimizers.adan import adan as _adan
from funcopt.optimizers.ademamix import ademamix as _ademamix, simplified_ademamix as _simplified_ademamix
from funcopt.optimizers.adopt import adopt as _adopt
from funcopt.optimizers.amsgrad import amsgrad as _amsgrad
from funcopt.optimizers.dog import dog as _dog, dowg as _dowg
from funcopt.optimizers.fromage import fromage as _fromage
from funcopt.optimizers.lamb import lamb as _lamb
from funcopt.optimizers.lars import lars as _lars
from funcopt.optimizers.lion import lion as _lion
from funcopt.optimizers.madgrad import madgrad as _madgrad
from funcopt.optimizers.momo import momo as _momo, momo_adam as _momo_adam
from funcopt.optimizers.nadam import nadamw as _nadamw
from funcopt.optimizers.noisy_sgd import noisy_sgd as _noisy_sgd
from funcopt.optimizers.novograd import novograd as _novograd
from funcopt.optimizers.optimistic import optimistic_adam_v2 as _optimistic_adam_v2, optimistic_gradient_descent as _optimistic_gradient_descent
from funcopt.optimizers.prodigy import prodigy as _prodigy
from funcopt.optimizers.schedule_free_adamw import schedule_free_adamw as _schedule_free_adamw
from funcopt.optimizers.schedule_free_sgd import schedule_free_sgd as _schedule_free_sgd
from funcopt.optimizers.sign_sgd import sign_sgd as _sign_sgd
from funcopt.optimizers.signum import signum as _signum
from funcopt.optimizers.sm3 import sm3 as _sm3
from funcopt.optimizers.yogi import yogi as _yogi
from funcopt.torch_optim import as_torch
from funcopt.torch_optim.classes import FromFactory, optimizer_class

DECAY = "weight_decay"


def _of_torch(factory: Callable[..., GradientTransformation], numbers: Sequence[str], check: Callable[[str, Any], None] | None = None) -> type[FromFactory]:
    made = optimizer_class(factory, module=__name__, numbers=numbers)
    if check is not None:
        made.check_params = staticmethod(check)
    return made


def _made(factory: Callable[..., GradientTransformation]) -> type[FromFactory]:
    return optimizer_class(factory, module=__name__)


def _real(where: str, param: Tensor) -> None:
    if param.is_complex():
        raise RuntimeError("Adafactor does not support complex parameters")


def _matrices(where: str, param: Tensor) -> None:
    if param.is_complex():
        raise RuntimeError("Muon does not support complex parameters")
    if param.ndim != 2:
        raise ValueError(f"Muon only supports 2D parameters whereas we found a parameter with size: {param.size()}")


sgd = _of_torch(as_torch.sgd, ("momentum", "dampening", DECAY, "nesterov"))
adam = _of_torch(as_torch.adam, ("betas", "eps", DECAY, "amsgrad", "decoupled_weight_decay"))
adamw = _of_torch(as_torch.adamw, ("betas", "eps", DECAY, "amsgrad"))
nadam = _of_torch(as_torch.nadam, ("betas", "eps", DECAY, "momentum_decay", "decoupled_weight_decay"))
radam = _of_torch(as_torch.radam, ("betas", "eps", DECAY, "decoupled_weight_decay"))
adamax = _of_torch(as_torch.adamax, ("betas", "eps", DECAY))
adagrad = _of_torch(as_torch.adagrad, ("lr_decay", "eps", DECAY))
adadelta = _of_torch(as_torch.adadelta, ("rho", "eps", DECAY))
rmsprop = _of_torch(as_torch.rmsprop, ("momentum", "alpha", "eps", "centered", DECAY))
rprop = _of_torch(as_torch.rprop, ("etas", "step_sizes"))
adafactor = _of_torch(as_torch.adafactor, ("beta2_decay", "eps", "d", DECAY), _real)
muon = _of_torch(as_torch.muon, (DECAY, "momentum"), _matrices)

adabelief = _made(_adabelief)
adahessian = _made(_adahessian)
adamaxw = _made(_adamaxw)
adan = _made(_adan)
ademamix = _made(_ademamix)
adopt = _made(_adopt)
amsgrad = _made(_amsgrad)
dog = _made(_dog)
dowg = _made(_dowg)
fromage = _made(_fromage)
lamb = _made(_lamb)
lars = _made(_lars)
lion = _made(_lion)
madgrad = _made(_madgrad)
momo = _made(_momo)
momo_adam = _made(_momo_adam)
nadamw = _made(_nadamw)
noisy_sgd = _made(_noisy_sgd)
novograd = _made(_novograd)
optimistic_adam_v2 = _made(_optimistic_adam_v2)
optimistic_gradient_descent = _made(_optimistic_gradient_descent)
prodigy = _made(_prodigy)
schedule_free_adamw = _made(_schedule_free_adamw)
schedule_free_sgd = _made(_schedule_free_sgd)
sign_sgd = _made(_sign_sgd)
signum = _made(_signum)
simplified_ademamix = _made(_simplified_ademamix)
sm3 = _made(_sm3)
yogi = _made(_yogi)
