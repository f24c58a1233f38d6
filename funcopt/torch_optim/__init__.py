"""In and out of torch.optim: `fo.torch_optim`.

`Optimizer` is any transformation as a `torch.optim.Optimizer`, `from_torch` any torch optimizer as a transformation.
`adamw`, `sgd`, ..., `rate_free`, `pilot`, `optiroulette`, `aees` and `adaptive` are classes of optimizers.
"""

from funcopt.core.door.namespaces import open_up
from funcopt.core.door.renamed import moved
from funcopt.torch_optim.classes.controllers import adaptive as adaptive, aees as aees, pilot as pilot
from funcopt.torch_optim.classes.make import optimizer_class as optimizer_class
from funcopt.torch_optim.classes.optiroulette import optiroulette as optiroulette
from funcopt.torch_optim.classes.ready_made import (
    accsgd as accsgd,
    acprop as acprop,
    adabelief as adabelief,
    adadelta as adadelta,
    adafactor as adafactor,
    adagrad as adagrad,
    adahessian as adahessian,
    adai as adai,
    adam as adam,
    adam_mini as adam_mini,
    adamax as adamax,
    adamaxw as adamaxw,
    adamp as adamp,
    adamuon as adamuon,
    adamw as adamw,
    adan as adan,
    adanorm as adanorm,
    ademamix as ademamix,
    adgd as adgd,
    adopt as adopt,
    aggmo as aggmo,
    amsgrad as amsgrad,
    apollo as apollo,
    apollo_dqn as apollo_dqn,
    came as came,
    cocob as cocob,
    dadapt_adamw as dadapt_adamw,
    dog as dog,
    dowg as dowg,
    fira as fira,
    fromage as fromage,
    galore as galore,
    gravity as gravity,
    lamb as lamb,
    laprop as laprop,
    lars as lars,
    lion as lion,
    madgrad as madgrad,
    momo as momo,
    momo_adam as momo_adam,
    muon as muon,
    muon_with_adam as muon_with_adam,
    nadam as nadam,
    nadamw as nadamw,
    nero as nero,
    noisy_sgd as noisy_sgd,
    normuon as normuon,
    novograd as novograd,
    optimistic_adam_v2 as optimistic_adam_v2,
    optimistic_gradient_descent as optimistic_gradient_descent,
    polyak_sgd as polyak_sgd,
    prodigy as prodigy,
    psgd as psgd,
    qhadam as qhadam,
    radam as radam,
    ranger as ranger,
    ranger21 as ranger21,
    rmsprop as rmsprop,
    rprop as rprop,
    schedule_free_adamw as schedule_free_adamw,
    schedule_free_sgd as schedule_free_sgd,
    scion as scion,
    sgd as sgd,
    shampoo as shampoo,
    sign_sgd as sign_sgd,
    signum as signum,
    simplified_ademamix as simplified_ademamix,
    sm3 as sm3,
    soap as soap,
    sophia as sophia,
    splus as splus,
    stable_adamw as stable_adamw,
    tam as tam,
    yogi as yogi,
)
from funcopt.torch_optim.classes.without_rate import rate_free as rate_free
from funcopt.torch_optim.foreign.from_torch import FromTorch as FromTorch, FromTorchState as FromTorchState, from_torch as from_torch
from funcopt.torch_optim.foreign.profile_members import member_from_profile as member_from_profile
from funcopt.torch_optim.from_module import param_groups as param_groups
from funcopt.torch_optim.optimizer import Optimizer as Optimizer

open_up(__name__, "torch_optim.", classes=("Optimizer", "rate_free"))
moved(
    {
        "funcopt.torch_optim.as_torch": "funcopt.torch_optim.classes.as_torch",
        "funcopt.torch_optim.controllers": "funcopt.torch_optim.classes.controllers",
        "funcopt.torch_optim.kept": "funcopt.torch_optim.foreign.memory",
        "funcopt.torch_optim.optiroulette": "funcopt.torch_optim.classes.optiroulette",
        "funcopt.torch_optim.profile_members": "funcopt.torch_optim.foreign.profile_members",
        "funcopt.torch_optim.ready_made": "funcopt.torch_optim.classes.ready_made",
        "funcopt.torch_optim.recipes": "funcopt.torch_optim.hyperparameters",
        "funcopt.torch_optim.without_rate": "funcopt.torch_optim.classes.without_rate",
    }
)
del moved, open_up
