"""Who is put to the levels: every ready-made optimizer of ours, and the classes of torch.optim.

Each with its own defaults, without weight decay (which moves the minimum; the race's methods keep theirs), at every rate of one
grid; what finds its rate itself runs as it is.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

import funcopt as fo
from funcopt.race import defaults

__all__ = ["FIRST", "LEFT_OUT", "METHODS", "RATES", "Method"]

RATES = tuple(float(f"{10 ** (exponent / 2):.2g}") for exponent in range(-8, 3))  # 1e-4, 3.2e-4, ... 10


class Method(NamedTuple):
    """One row of the table."""

    make: Callable[..., Any]  # ours: (rate, seed) -> transformation; theirs: (groups with rates) -> torch.optim.Optimizer
    rates: tuple[float, ...] = RATES  # one that is nan: it finds its own
    theirs: bool = False  # whether it is a class that steps parameters in place
    torch: str | None = None  # the row of the class of torch.optim of the same name


def _ready(name: str, **settings: Any) -> Callable:
    """A factory of ours at a rate, without weight decay."""
    factory = getattr(fo, name) if "." not in name else getattr(fo.es, name.partition(".")[2])
    parameters = inspect.signature(factory).parameters
    settings = {**({"weight_decay": 0.0} if "weight_decay" in parameters else {}), **settings}
    return lambda rate, seed: factory(rate, **settings)


def _finding(name: str) -> Method:
    settings = {"weight_decay": 0.0}
    return Method(lambda rate, seed: getattr(fo, name)(**settings), (float("nan"),))


def _class(name: str, **settings: Any) -> Callable:
    made = getattr(torch.optim, name)
    if "weight_decay" in inspect.signature(made).parameters:
        settings = {"weight_decay": 0.0, **settings}
    return lambda groups: made(groups, **settings)


def _keyed(name: str) -> Method:
    """A method that draws, with the seed for its key."""
    return Method(lambda rate, seed: _ready(name, key=seed)(rate, seed))


def _optiroulette(rate, seed):
    pool = {
        "adam": fo.Member(fo.scale_by_adam(), lr=rate),
        "momentum": fo.Member(fo.trace(0.9), lr=rate),
        "lion": fo.Member(fo.scale_by_lion(), lr=0.3 * rate),
    }
    return fo.optiroulette(pool, seed=seed)


# fo.name -> torch.optim.Name
OF_TORCH = {
    "sgd": "SGD",
    "adam": "Adam",
    "adamw": "AdamW",
    "nadam": "NAdam",
    "radam": "RAdam",
    "adamax": "Adamax",
    "adagrad": "Adagrad",
    "adadelta": "Adadelta",
    "rmsprop": "RMSprop",
    "rprop": "Rprop",
    "adafactor": "Adafactor",
    "muon": "Muon",
}
ALONE = """nadamw amsgrad adamaxw adabelief yogi adan adopt ademamix simplified_ademamix optimistic_adam_v2 momo_adam schedule_free_adamw
lamb novograd
sm3 madgrad lion signum sign_sgd momo schedule_free_sgd optimistic_gradient_descent lars fromage es.clipup""".split()

METHODS: dict[str, Method] = {"rate_free": _finding("rate_free")}
for _name, _theirs in OF_TORCH.items():
    METHODS[_name] = Method(_ready(_name), torch=f"torch.optim.{_theirs}")
    METHODS[f"torch.optim.{_theirs}"] = Method(_class(_theirs), theirs=True)
    if _name == "sgd":
        METHODS["sgd, momentum 0.9"] = Method(_ready("sgd", momentum=0.9), torch="torch.optim.SGD, momentum 0.9")
        METHODS["torch.optim.SGD, momentum 0.9"] = Method(_class("SGD", momentum=0.9), theirs=True)
METHODS["torch.optim.ASGD"] = Method(_class("ASGD"), theirs=True)
METHODS |= {name: Method(_ready(name)) for name in ALONE}
METHODS["noisy_sgd"] = _keyed("noisy_sgd")
METHODS |= {name: _finding(name) for name in ("prodigy", "dadapt_adamw", "dog", "dowg")}
METHODS |= {name: Method(defaults.METHODS[name].make) for name in ("pilot", "aees", "adaptive", "roulette", "sentence")}
METHODS["optiroulette"] = Method(_optiroulette)

NEWER = """accsgd acprop adai adam_mini adamp adamuon adanorm adgd aggmo apollo_dqn came galore laprop muon_with_adam nero normuon
psgd qhadam ranger ranger21 scion shampoo soap splus stable_adamw tam gravity cocob polyak_sgd""".split()
METHODS |= {
    name: _finding(name) if name in ("cocob", "polyak_sgd") else _keyed(name) if name in ("gravity", "psgd") else Method(_ready(name))
    for name in NEWER
}

# Ready-made, and not here: why.
LEFT_OUT = {
    "adahessian": "needs the diagonal of the Hessian",
    "sophia": "needs the diagonal of the Hessian",
    **dict.fromkeys(("apollo", "fira"), "sees matrices as small as these whole, as Adam does"),
    "dpsgd": "needs the gradient of every example",
    "es.only_selected": "is for layers that were not perturbed",
    "LBFGS": "calls the loss as often as it likes",
    "SparseAdam": "is for sparse gradients",
}
# the short form
FIRST = ("rate_free", "adamw", "torch.optim.AdamW", "sgd", "torch.optim.SGD", "lion", "muon", "prodigy", "schedule_free_adamw", "pilot")
