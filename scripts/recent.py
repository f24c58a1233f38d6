"""The pairs of `make parity` for what the field uses now, beside the classes of pytorch_optimizer.

Where a reference works in fewer digits whatever it is given (iterations in bfloat16, decompositions in float32), the
names of these dtypes stand for float64 while it steps, so that formulas are compared and not roundings.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor

import funcopt as fo
from funcopt.transforms.noise import normal_like

__all__ = ["pairs"]

MODULE = "pytorch_optimizer"
Params = dict[str, Tensor]
NARROW = ("float32", "bfloat16", "float16")


class Wide:
    """torch, in which the names of narrow dtypes mean float64, and noise is that of `scale_by_psgd(key=0)`."""

    def __init__(self, noise: Iterator[Callable[[Tensor], Tensor]]):
        self.noise = noise

    def __getattr__(self, name: str) -> Any:
        return torch.float64 if name in NARROW else getattr(torch, name)

    def randn_like(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        return next(self.noise)(x)


def noise_of_leaves(params: Params) -> Iterator[Callable[[Tensor], Tensor]]:
    """The draws of `scale_by_psgd(key=0)`, step by step and leaf by leaf."""
    for count in itertools.count():
        for leaf in fo.tree.leaves(normal_like(fo.random.fold_in(fo.random.key(0), count), params)):
            yield lambda x, leaf=leaf: leaf


@contextlib.contextmanager
def wide(noise: Any, *names: str) -> Iterator[None]:
    """Within it modules of the reference work in float64; names, as in "optimizer.scion"."""
    with contextlib.ExitStack() as stack:
        base = importlib.import_module(f"{MODULE}.base.optimizer").BaseOptimizer
        for function in ("apply_ams_bound", "apply_ams_bound_foreach"):  # add 1e-15 under the root, of which no formula tells
            plain = functools.partial(getattr(base, function), exp_avg_sq_eps=0.0)
            stack.enter_context(mock.patch.object(base, function, staticmethod(plain)))
        for name in names:
            module = importlib.import_module(f"{MODULE}.{name}")
            stack.enter_context(mock.patch.object(module, "torch", Wide(noise)))
            for function in ("zero_power_via_newton_schulz_5",):
                if hasattr(module, function):
                    stack.enter_context(
                        mock.patch.object(module, function, functools.partial(getattr(module, function), dtype=torch.float64))
                    )
        yield


def shifted(run: Callable[..., Any]) -> Callable[..., Any]:
    """Lets both sides find the first bases of a matrix nearby.

    The first factor of the longer side of a leaf has no full rank, and of what is left no two roundings make the same basis.
    """
    eigh = torch.linalg.eigh

    def of_one_nearby(matrix: Tensor) -> Any:
        return eigh(matrix + 1e-3 * matrix.trace() * torch.linspace(0, 1, len(matrix), dtype=matrix.dtype).diag())

    def stepping(side: Iterator[Params]) -> Iterator[Params]:
        while True:
            with mock.patch.object(torch.linalg, "eigh", of_one_nearby):
                params = next(side, None)
            if params is None:
                return
            yield params

    return lambda params, data: tuple(map(stepping, run(params, data)))


def pairs(reference: Any, ours: Callable[..., Iterator[Params]]) -> list[tuple[str, str, Callable[..., Any]]]:
    """(name, module, run) of each; `reference` and `ours` are those of scripts/parity.py."""

    def beside(make: Callable[[Any, Any], Any], tx: Callable[[], fo.GradientTransformation], *modules: str) -> Callable[..., Any]:
        def theirs(params: Params, data: Any) -> Iterator[Params]:
            library = importlib.import_module(MODULE)
            side, noise = reference(params), noise_of_leaves(params)
            with wide(noise, *modules):
                optimizer = make(library, side)
            for images, labels in data:
                side.set_gradients(images, labels)
                with wide(noise, *modules):
                    optimizer.step()
                yield side.values()

        return lambda params, data: (theirs(params, data), ours(tx(), params, data))

    def model(side: Any) -> torch.nn.Module:
        return torch.nn.ParameterDict(side.parameters)

    adam = (0.95, 0.99)
    normuon = {"lr": 2e-3, "update_scale": "match_rms", "eps": 1e-30, "adamw_lr": 1e-3, "adamw_betas": (0.9, 0.99), "adamw_eps": 1e-30}
    found = {
        "laprop": beside(lambda po, side: po.LaProp(side.groups(), lr=2e-3, eps=1e-18), lambda: fo.laprop(2e-3, eps=1e-18)),
        "cautious laprop": beside(
            lambda po, side: po.LaProp(side.groups(), lr=2e-3, cautious=True),
            lambda: fo.chain(fo.cautious(fo.scale_by_laprop()), fo.lr_scale(2e-3)),
        ),
        "mars, then adamw": beside(
            lambda po, side: po.MARS(side.groups(), lr=2e-3, betas=adam, gamma=0.1, weight_decay=0.1, optimize_1d=True, eps=1e-16),
            lambda: fo.chain(fo.mars(0.1), fo.adamw(2e-3, *adam, eps=1e-16, weight_decay=0.1)),
        ),
        "grokfast, then adamw": beside(
            lambda po, side: po.GrokFastAdamW(
                side.groups(), lr=2e-3, normalize_lr=False, grokfast_after_step=0, weight_decay=0.1, eps=1e-16
            ),
            lambda: fo.chain(fo.grokfast(), fo.adamw(2e-3, 0.9, 0.99, eps=1e-16, weight_decay=0.1)),
        ),
        "orthograd, then sgd": beside(
            lambda po, side: po.OrthoGrad(torch.optim.SGD(side.groups(), lr=0.1, momentum=0.9)),
            lambda: fo.chain(fo.orthograd(), fo.sgd(0.1, momentum=0.9)),
        ),
        "stable_adamw": beside(
            lambda po, side: po.StableAdamW(side.groups(), lr=2e-3, weight_decay=0.1, weight_decouple=True),
            lambda: fo.stable_adamw(2e-3, weight_decay=0.1),
        ),
        "came": beside(
            lambda po, side: po.CAME(side.groups(), lr=2e-3, weight_decay=0.1, weight_decouple=True),
            lambda: fo.came(2e-3, weight_decay=0.1),
        ),
        "adam_mini, a block a leaf": beside(
            lambda po, side: po.AdamMini(model(side), lr=2e-3, weight_decay=0.1),
            lambda: fo.adam_mini(2e-3, weight_decay=0.1, blocks="leaf"),
            "optimizer.adam_mini",
        ),
        "scion": beside(
            lambda po, side: po.SCION(side.groups(), lr=2e-3, scale=20.0, constraint=True),
            lambda: fo.scion(2e-3, rho=20.0),
            "optimizer.scion",
        ),
    }
    found |= {
        "soap": shifted(
            beside(
                lambda po, side: po.SOAP(side.groups(), lr=2e-3, precondition_frequency=7, weight_decay=0.0),
                lambda: fo.soap(2e-3, every=7),
                "optimizer.soap",
            )
        ),
        "shampoo": beside(
            lambda po, side: po.Shampoo(side.groups(), lr=0.02, momentum=0.0, preconditioning_compute_steps=1),
            lambda: fo.shampoo(0.02, b1=0.0, b2=1.0, eps=1e-6, ridge=0.0, every=1, graft=None),
        ),
        "psgd": beside(
            lambda po, side: po.Kron(side.groups(), lr=1e-3, balance_prob=0.0, precondition_dtype=torch.float64),
            lambda: fo.psgd(1e-3, key=0),
            "optimizer.psgd",
            "optimizer.utils.psgd",
        ),
    }
    found["normuon"] = beside(
        lambda po, side: po.NorMuon(
            [{"params": side.groups()[2:], "use_muon": True}, {"params": side.groups()[:2], "use_muon": False}], **normuon
        ),
        lambda: fo.normuon(2e-3, eps=1e-30, adam_b2=0.99, adam_lr=1e-3),
        "optimizer.muon.normuon",
        "optimizer.muon.base",
    )
    adamuon = {"lr": 2e-3, "eps": 1e-30, "adamw_lr": 1e-3, "adamw_betas": (0.9, 0.99)}
    found["adamuon"] = beside(
        lambda po, side: po.AdaMuon(
            [{"params": side.groups()[2:], "use_muon": True}, {"params": side.groups()[:2], "use_muon": False}], **adamuon
        ),
        lambda: fo.adamuon(2e-3, b1=0.9, eps=1e-30, adam_b2=0.99, adam_lr=1e-3),
        "optimizer.muon.adamuon",
        "optimizer.muon.base",
    )
    return [(name, MODULE, run) for name, run in found.items()]
