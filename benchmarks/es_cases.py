"""The cases of benchmarks/es.py, and how each contestant makes one generation of them.

    i    policy        MLP 4-64-64-2, tanh, cross-entropy                              32 rows a member    D 4,610       P 1024
    ii   classifier    MLP 64-128-10, relu, cross-entropy                              256 rows            D 9,610       P 512
    iii  transformer   5 blocks, width 128, 4 heads, vocabulary 128, length 32         8 sequences         D 1,028,608   P 128
    iv   rollout       MLP 128-512-512-16, tanh, 10 times on one state                 1 row               D 336,912     P 512

One generation: draw the noise, evaluate P members (pairs, sigma 0.05), centred ranks, gradient, SGD. A model is written once,
in the operations that torch and jax have in common.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

import funcopt as fo

sys.path.append(str(Path(__file__).resolve().parents[1]))
from scripts import references

SIGMA, LR = 0.05, 1e-2
Step = Callable[[], object]
Shapes = dict[str, tuple[int, ...]]


class Case(NamedTuple):
    title: str
    shapes: Shapes
    loss: Callable  # (operations, params, x, y) -> a number, one member
    inputs: Callable[[torch.Generator], tuple[torch.Tensor, torch.Tensor]]
    popsize: int

    def params(self) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        return {name: torch.randn(shape, generator=generator) / math.sqrt(shape[-1]) for name, shape in self.shapes.items()}

    def rows(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.inputs(torch.Generator().manual_seed(1))

    def objective(self, params: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """One member, in the dtype of its params."""
        dtype = next(iter(params.values())).dtype
        return self.loss(TORCH, params, x.to(dtype) if x.is_floating_point() else x, y)

    @property
    def size(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes.values())


# --- models ---------------------------------------------------------------------------------------------------------------------

TORCH = SimpleNamespace(
    linear=F.linear,
    embedding=F.embedding,
    tanh=torch.tanh,
    relu=torch.relu,
    gelu=lambda x: F.gelu(x, approximate="tanh"),
    norm=lambda x, weight, bias: F.layer_norm(x, (x.shape[-1],), weight, bias),
    softmax=lambda x: torch.softmax(x, dim=-1),
    cat=lambda xs: torch.cat(xs, dim=-1),
    heads=lambda x: x.unflatten(-1, (4, -1)).transpose(-2, -3),
    joined=lambda x: x.transpose(-2, -3).flatten(-2),
    cross_entropy=lambda logits, y: F.cross_entropy(logits.flatten(0, -2).float(), y.flatten()),
)


def jax_operations() -> SimpleNamespace:
    import jax
    from jax import numpy as jnp

    def norm(x, weight, bias):
        return jax.nn.standardize(x, epsilon=1e-5) * weight + bias

    def cross_entropy(logits, y):
        chances = jax.nn.log_softmax(logits)
        return -jnp.take_along_axis(chances, y[..., None], axis=-1).mean()

    return SimpleNamespace(
        linear=lambda x, weight, bias=None: x @ weight.T if bias is None else x @ weight.T + bias,
        embedding=lambda index, weight: weight[index],
        tanh=jnp.tanh,
        relu=jax.nn.relu,
        gelu=lambda x: jax.nn.gelu(x, approximate=True),
        norm=norm,
        softmax=lambda x: jax.nn.softmax(x, axis=-1),
        cat=lambda xs: jnp.concatenate(xs, axis=-1),
        heads=lambda x: jnp.swapaxes(x.reshape(*x.shape[:-1], 4, -1), -2, -3),
        joined=lambda x: jnp.swapaxes(x, -2, -3).reshape(*x.shape[:-3], x.shape[-2], -1),
        cross_entropy=cross_entropy,
    )


def perceptron(widths: tuple[int, ...]) -> Shapes:
    layers = enumerate(zip(widths, widths[1:], strict=False))
    return {name: shape for i, (n, m) in layers for name, shape in ((f"weight{i}", (m, n)), (f"bias{i}", (m,)))}


def forward(op: Any, activation: Callable, params: Any, x: Any) -> Any:
    layers = len(params) // 2
    for i in range(layers):
        x = op.linear(x, params[f"weight{i}"], params[f"bias{i}"])
        x = activation(x) if i + 1 < layers else x
    return x


def policy(op: Any, params: Any, x: Any, y: Any) -> Any:
    return op.cross_entropy(forward(op, op.tanh, params, x), y)


def classifier(op: Any, params: Any, x: Any, y: Any) -> Any:
    return op.cross_entropy(forward(op, op.relu, params, x), y)


def rollout(op: Any, params: Any, x: Any, y: Any) -> Any:
    """The action goes into the state, of which it pushes out the oldest part."""
    for _ in range(10):
        action = op.tanh(forward(op, op.tanh, params, x))
        x = op.cat([action, x[..., : -action.shape[-1]]])
    return ((action - y) ** 2).mean()


BLOCKS, WIDTH, WORDS, LENGTH = 5, 128, 128, 32


def transformer_shapes() -> Shapes:
    shapes: Shapes = {"words": (WORDS, WIDTH), "places": (LENGTH, WIDTH)}
    for b in range(BLOCKS):
        for name, m, n in (("qkv", 3 * WIDTH, WIDTH), ("out", WIDTH, WIDTH), ("up", 4 * WIDTH, WIDTH), ("down", WIDTH, 4 * WIDTH)):
            shapes |= {f"{name}{b}": (m, n), f"{name}_bias{b}": (m,)}
        shapes |= {f"norm{b}{which}": (WIDTH,) for which in ("a", "b", "c", "d")}
    return shapes | {"norm_weight": (WIDTH,), "norm_bias": (WIDTH,), "head": (WORDS, WIDTH), "head_bias": (WORDS,)}


def transformer(op: Any, p: Any, x: Any, y: Any) -> Any:
    h = op.embedding(x, p["words"]) + p["places"]
    for b in range(BLOCKS):
        z = op.norm(h, p[f"norm{b}a"], p[f"norm{b}b"])
        qkv = op.linear(z, p[f"qkv{b}"], p[f"qkv_bias{b}"])
        q, k, v = (op.heads(qkv[..., s : s + WIDTH]) for s in range(0, 3 * WIDTH, WIDTH))
        attention = op.softmax(q @ k.mT / math.sqrt(WIDTH // 4))
        h = h + op.linear(op.joined(attention @ v), p[f"out{b}"], p[f"out_bias{b}"])
        z = op.gelu(op.linear(op.norm(h, p[f"norm{b}c"], p[f"norm{b}d"]), p[f"up{b}"], p[f"up_bias{b}"]))
        h = h + op.linear(z, p[f"down{b}"], p[f"down_bias{b}"])
    h = op.norm(h, p["norm_weight"], p["norm_bias"])
    return op.cross_entropy(op.linear(h, p["head"], p["head_bias"]), y)


def labelled(rows: int, columns: int, classes: int) -> Callable:
    return lambda g: (torch.randn(rows, columns, generator=g), torch.randint(classes, (rows,), generator=g))


CASES: dict[str, Case] = {
    "i": Case("policy, MLP 4-64-64-2, 32 rows", perceptron((4, 64, 64, 2)), policy, labelled(32, 4, 2), 1024),
    "ii": Case("classifier, MLP 64-128-10, 256 rows", perceptron((64, 128, 10)), classifier, labelled(256, 64, 10), 512),
    "iii": Case(
        "transformer, 5 blocks of width 128, 256 tokens",
        transformer_shapes(),
        transformer,
        lambda g: (torch.randint(WORDS, (8, LENGTH), generator=g), torch.randint(WORDS, (8, LENGTH), generator=g)),
        128,
    ),
    "iv": Case(
        "rollout, MLP 128-512-512-16, 10 steps of 1 row",
        perceptron((128, 512, 512, 16)),
        rollout,
        lambda g: (torch.randn(1, 128, generator=g), torch.randn(1, 16, generator=g)),
        512,
    ),
}

# --- contestants: each makes a step, one generation -----------------------------------------------------------------------------


def ours(case: Case, device: str = "cpu", **options: Any) -> Step:
    grad_fn = fo.es.grad(case.objective, popsize=case.popsize, sigma=SIGMA, **options)
    tx, key, count = fo.sgd(LR), fo.random.key(0), itertools.count()
    params, (x, y) = {name: p.to(device) for name, p in case.params().items()}, (part.to(device) for part in case.rows())
    state = tx.init(params)

    def run() -> None:
        nonlocal params, state
        grads, _ = grad_fn(params, x, y, key=fo.random.fold_in(key, next(count)))
        updates, state = tx.update(grads, state, params)
        params = fo.apply_updates(params, updates)

    return run


def inference(case: Case, device: str = "cpu", engine: bool = True) -> Step:
    """The unperturbed network on the rows of all members, in one batch."""
    params, (x, y) = {name: p.to(device) for name, p in case.params().items()}, (part.to(device) for part in case.rows())
    x, y = (part.repeat(case.popsize, *(1 for _ in part.shape[1:])) for part in (x, y))
    function = torch.compile(case.objective, dynamic=False) if engine else case.objective

    def run() -> None:
        with torch.no_grad():
            function(params, x, y)

    return run


def of_flat(case: Case) -> Callable[[torch.Tensor], torch.Tensor]:
    """The objective of one member as a vector."""
    x, y = case.rows()
    sizes = [math.prod(shape) for shape in case.shapes.values()]

    def objective(vector: torch.Tensor) -> torch.Tensor:
        parts = zip(case.shapes.items(), vector.split(sizes), strict=True)
        return case.objective({name: part.reshape(shape) for (name, shape), part in parts}, x, y)

    return objective


def flat(case: Case) -> torch.Tensor:
    return torch.cat([p.reshape(-1) for p in case.params().values()])


def evotorch_functional(case: Case) -> Step:
    from evotorch.algorithms.functional import pgpe, pgpe_ask, pgpe_tell

    evaluate = torch.func.vmap(of_flat(case))
    state = pgpe(
        center_init=flat(case), center_learning_rate=LR, stdev_learning_rate=0.0, objective_sense="min", stdev_init=SIGMA, optimizer="sgd"
    )

    def run() -> None:
        nonlocal state
        with torch.no_grad():
            population = pgpe_ask(state, popsize=case.popsize)
            state = pgpe_tell(state, population, evaluate(population))

    return run


def evotorch_class(case: Case) -> Step:
    import logging

    from evotorch import Problem
    from evotorch.algorithms import PGPE

    logging.getLogger("evotorch").setLevel(logging.ERROR)
    evaluate = torch.func.vmap(of_flat(case))
    problem = Problem("min", evaluate, solution_length=case.size, initial_bounds=(-1, 1), vectorized=True, dtype=torch.float32)
    searcher = PGPE(
        problem,
        popsize=case.popsize,
        center_init=flat(case),
        center_learning_rate=LR,
        stdev_learning_rate=0.0,
        stdev_init=SIGMA,
        optimizer="sgd",
    )

    def run() -> None:
        with torch.no_grad():
            searcher.step()

    return run


def evosax(case: Case) -> Step:
    import jax
    import optax
    from evosax.algorithms import Open_ES

    op = jax_operations()
    x, y = (jax.numpy.asarray(part.numpy()) for part in case.rows())
    center = {name: jax.numpy.asarray(p.numpy()) for name, p in case.params().items()}
    strategy = Open_ES(
        case.popsize, center, optimizer=optax.sgd(LR), std_schedule=optax.constant_schedule(SIGMA), metrics_fn=lambda *given: {}
    )
    settings, key = strategy.default_params, jax.random.key(0)
    state = strategy.init(key, center, settings)

    def generation(key, state):
        key, ask, tell = jax.random.split(key, 3)
        population, state = strategy.ask(ask, state, settings)
        fitness = jax.vmap(lambda params: case.loss(op, params, x, y))(population)
        return key, strategy.tell(tell, population, fitness, state, settings)[0]

    graph = jax.jit(generation, donate_argnums=(0, 1))

    def run() -> None:
        nonlocal key, state
        key, state = graph(key, state)
        jax.block_until_ready(state)

    return run


class InThisProcess:
    """In place of the pool, whose processes the clock would not see: it saves them the pickling."""

    def starmap(self, function: Callable, tasks: Any) -> list:
        return list(itertools.starmap(function, tasks))


def pytorch_optimize(case: Case) -> Step:
    from unittest import mock

    references.available("pytorch_optimize")
    from pytorch_optimize import optimizer as theirs
    from pytorch_optimize.model import Model, SamplingStrategy

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = torch.nn.ParameterDict(case.params())

        def forward(self, x, y):
            return case.objective(self.body, x, y)

    net, rows = Net(), case.rows()
    with mock.patch.object(theirs, "Pool", lambda processes: InThisProcess()):
        es = theirs.ESOptimizer(
            model=Model(net=net, strategy=SamplingStrategy.ALL),
            sgd_optimizer=torch.optim.SGD(net.parameters(), lr=LR),
            objective_fn=lambda model, samples, device: [-float(model.forward(*samples))],
            obj_weights=[1.0],
            sigma=SIGMA,
            n_samples=case.popsize,
            devices=["cpu"],
        )
    return lambda: es.gradient_step(rows)


LOW = fo.es.low_rank(1)
OURS: dict[str, dict[str, Any]] = {
    "dense": {"compile": True},
    "dense, regenerate": {"compile": True, "memory": "regenerate"},
    "rank 1": {"compile": True, "noise": LOW},
    "rank 1, bf16": {"compile": True, "noise": LOW, "dtype": torch.bfloat16},
    "dense, eager": {},
    "rank 1, eager": {"noise": LOW},
}
PEERS: dict[str, tuple[str, Callable[[Case], Step]]] = {  # name -> package, what makes it
    "EvoTorch functional": ("evotorch", evotorch_functional),
    "EvoTorch PGPE": ("evotorch", evotorch_class),
    "evosax Open_ES, jit": ("evosax", evosax),
    "pytorch-optimize": ("pytorch_optimize", pytorch_optimize),
}


def installed(package: str) -> bool:
    return references.available(package) if package in references.PACKAGES else importlib.util.find_spec(package) is not None


def contestant(case: Case, name: str) -> Step:
    if name == "inference":
        return inference(case)
    return ours(case, **OURS[name]) if name in OURS else PEERS[name][1](case)
