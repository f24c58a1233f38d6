"""In and out of torch.optim: `fo.torch_optim`.

`Optimizer` is any transformation as a `torch.optim.Optimizer`, `from_torch` any torch optimizer as a transformation.
`adamw`, `sgd`, ..., `pilot`, `optiroulette`, `aees` and `adaptive` are classes of optimizers.
"""

from funcopt.torch_optim.classes import optimizer_class as optimizer_class
from funcopt.torch_optim.controllers import adaptive as adaptive, aees as aees, pilot as pilot
from funcopt.torch_optim.foreign import FromTorch as FromTorch, FromTorchState as FromTorchState, from_torch as from_torch
from funcopt.torch_optim.optimizer import Optimizer as Optimizer
from funcopt.torch_optim.optiroulette import optiroulette as optiroulette
from funcopt.torch_optim.profile_members import member_from_profile as member_from_profile
from funcopt.torch_optim.ready_made import (
    adabelief as adabelief,
    adadelta as adadelta,
    adafactor as adafactor,
    adagrad as adagrad,
    adahessian as adahessian,
    adam as adam,
    adamax as adamax,
    adamaxw as adamaxw,
    adamw as adamw,
    adan as adan,
    ademamix as ademamix,
    adopt as adopt,
    amsgrad as amsgrad,
    dog as dog,
    dowg as dowg,
    fromage as fromage,
    lamb as lamb,
    lars as lars,
    lion as lion,
    madgrad as madgrad,
    momo as momo,
    momo_adam as momo_adam,
    muon as muon,
    nadam as nadam,
    nadamw as nadamw,
    noisy_sgd as noisy_sgd,
    novograd as novograd,
    optimistic_adam_v2 as optimistic_adam_v2,
    optimistic_gradient_descent as optimistic_gradient_descent,
    prodigy as prodigy,
    radam as radam,
    rmsprop as rmsprop,
    rprop as rprop,
    schedule_free_adamw as schedule_free_adamw,
    schedule_free_sgd as schedule_free_sgd,
    sgd as sgd,
    sign_sgd as sign_sgd,
    signum as signum,
    simplified_ademamix as simplified_ademamix,
    sm3 as sm3,
    yogi as yogi,
)
