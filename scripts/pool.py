"""The pairs of `make parity` for the 34 members of OptiRoulette's default profile, beside the classes that their names stand for.

Members have the profile's hyperparameters and their classes' quirks (`fo.optiroulette_profile(quirks=True)`), and run alone, as a pool
runs them: their direction times their rate, or their step. Gradients for SPlus are stirred: along directions in
which there never is one (pixels that are always black, the sum of all logits) its class takes the signs of what rounding leaves.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

import funcopt as fo
from funcopt.controllers.roulette.profile_members import MEMBERS

__all__ = ["pairs"]

MODULE = "pytorch_optimizer"
OF_TORCH = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD", "nadam": "NAdam", "Adagrad": "Adagrad", "amsgrad": "Adam", "rmsprop": "RMSprop"}
MORE = {"amsgrad": {"amsgrad": True}}  # what its name says
Params = dict[str, Tensor]


def library_class(name: str) -> type[torch.optim.Optimizer]:
    """The class that a name of the profile stands for: of equal names in small letters that of pytorch_optimizer."""
    if name in OF_TORCH:
        return getattr(torch.optim, OF_TORCH[name])
    library = importlib.import_module(MODULE)
    return {key.lower(): value for key, value in vars(library).items() if isinstance(value, type)}[name.lower()]


def stirred(gradients: Any) -> Any:
    """Gradients with something in every direction, the same for the same gradients."""

    def noise(g: Tensor) -> Tensor:
        return torch.randn(g.shape, generator=torch.Generator().manual_seed(g.numel()), dtype=g.dtype)

    return fo.tree.map(lambda g: g + 1e-3 * noise(g) * (1 + 1e3 * g.square().mean()), gradients)


def curvature(gradients: Any) -> Any:
    """What stands in for the diagonal of the Hessian, the same on both sides."""
    return fo.tree.map(lambda g: 0.1 + g.abs(), gradients)


def pairs(reference: Any, ours: Callable[..., Iterator[Params]]) -> list[tuple[str, str, Callable[..., Any]]]:
    """(name, module, run) of each; `reference` and `ours` are those of scripts/parity.py."""

    def theirs(name: str, params: Params, data: Any, first: Params | None) -> Iterator[Params]:
        side, given = reference(params), dict(MEMBERS[name].given)
        optimizer: Any = library_class(name)(side.groups(), **given, **MORE.get(name, {}))
        for step, (images, labels) in enumerate(data):
            side.set_gradients(images, labels)
            if first is not None and step == 0:  # the generators are others: both begin with one velocity
                optimizer.init_group(optimizer.param_groups[0])
                for key, p in side.parameters.items():
                    optimizer.state[p]["v"].copy_(first[key] * given["alpha"] / given["lr"])
            if name == "SPlus":
                for p in side.groups():
                    p.grad = stirred(p.grad)
                torch.set_default_dtype(torch.float32)  # of what its class adds before it looks for eigenvectors
            if name == "AdaHessian":
                optimizer.step(hessian=[curvature(p.grad) for p in side.groups()])
            else:
                optimizer.step()
            torch.set_default_dtype(torch.float64)
            yield side.values()

    def alone(name: str) -> fo.GradientTransformation:
        member = fo.optiroulette_profile(quirks=True).pool[name]
        tx = member.transformation if member.has_size else fo.chain(member.transformation, fo.lr_scale(member.lr))

        def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
            if name == "SPlus":
                return tx.update(stirred(updates), state, params, **extra)
            return tx.update(updates, state, params, **extra, hessian=curvature(updates))

        return fo.GradientTransformation(tx.init, update, name=name) if name in ("SPlus", "AdaHessian") else tx

    def beside(name: str) -> Callable[..., Any]:
        def run(params: Params, data: Any) -> tuple[Iterator[Params], Iterator[Params]]:
            tx = alone(name)
            first = tx.init(params).V if name == "gravity" else None
            return theirs(name, params, data, first), ours(tx, params, data)

        return run

    return [(f"{name} of the pool", "torch" if name in OF_TORCH else MODULE, beside(name)) for name in MEMBERS]
