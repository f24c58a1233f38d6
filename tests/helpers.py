"""What many tests share: small trees, gradients that need no model, and comparisons of trees."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import funcopt as fo
from funcopt.core.versions import TORCH, compiler_missing

needs_compiler = pytest.mark.skipif(TORCH < (2, 10) or bool(compiler_missing(torch.device("cpu"))), reason="no compiler for this torch")
needs_scaler = pytest.mark.skipif(TORCH < (2, 3), reason="the scaler works on CPUs from torch 2.3 on")

TREE_SHAPES = {"w": (3, 4), "b": (4,), "deep": {"k": (2, 3, 3), "s": ()}, "parts": [(2,), (2, 2)]}


def small_params(dtype: torch.dtype = torch.float64, shift: float = 0.0) -> dict:
    """A tree with a matrix, a vector, a rank-3 leaf, a 0-dim leaf and a list."""

    def make(shape: Any, offset: int) -> Any:
        if isinstance(shape, dict):
            return {name: make(inner, offset + 7 * index) for index, (name, inner) in enumerate(shape.items())}
        if isinstance(shape, list):
            return [make(inner, offset + 3 * index) for index, inner in enumerate(shape)]
        size = 1
        for length in shape:
            size *= length
        values = torch.sin(torch.arange(size, dtype=torch.float64) * 1.7 + offset + shift)
        return (0.5 + values).reshape(shape).to(dtype)

    return make(TREE_SHAPES, 1)


def tiny_params() -> dict:
    """A matrix, a vector and a 0-dim leaf, for what the compiler has to chew."""
    whole = small_params()
    return {"w": whole["w"], "b": whole["b"], "s": whole["deep"]["s"]}


def gradients_at(step: int, params: Any, scale: float = 1.0) -> Any:
    """Gradients that differ from step to step and from entry to entry, of either sign, never zero."""

    def one(p: torch.Tensor) -> torch.Tensor:
        entries = torch.arange(p.numel(), dtype=torch.float64, device=p.device).reshape(p.shape)
        return (scale * (torch.cos(entries * 2.3 + 0.9 * step + p.dim()) + 0.3)).to(p.dtype)

    return fo.tree.map(one, params)


def spiked(gradients: Any, spike: float) -> Any:
    """The same with another number in the second entry of every leaf that has one."""

    def one(g: torch.Tensor) -> torch.Tensor:
        where = torch.arange(g.numel(), device=g.device).reshape(g.shape) == 1
        return torch.where(where, torch.full_like(g, spike), g)

    return fo.tree.map(one, gradients)


def rollout(
    tx: fo.GradientTransformation,
    params: Any,
    steps: int,
    extra: Callable[[int], dict] = lambda step: {},
    state: Any = None,
    start: int = 0,
):
    """Runs a transformation on `gradients_at`; returns the updates of every step, the params and the state."""
    state = tx.init(params) if state is None else state
    history = []
    for step in range(start, start + steps):
        updates, state = tx.update(gradients_at(step, params), state, params, **extra(step))
        history.append(updates)
        params = fo.apply_updates(params, updates)
    return history, params, state


def quartic(params: Any) -> torch.Tensor:
    """A function with a minimum that is not at zero and a curvature that changes."""
    return sum((0.5 * (p - 0.3).square() + 0.05 * (p + 0.2) ** 4).sum() for p in fo.tree.leaves(params))


def run(tx: fo.GradientTransformation, steps: int, params: Any = None, **extra: Any) -> Any:
    """Minimises `quartic` from `small_params`; returns the params."""
    params = small_params() if params is None else params
    state = tx.init(params)
    for _ in range(steps):
        gradients, loss = torch.func.grad_and_value(quartic)(params)
        updates, state = tx.update(gradients, state, params, loss=loss, **extra)
        params = fo.apply_updates(params, updates)
    return params


def run_torch(optimizer_class: type, steps: int, params: Any = None, **settings: Any) -> Any:
    """The same with a class of torch.optim."""
    params = small_params() if params is None else params
    trained = [torch.nn.Parameter(p.clone()) for p in fo.tree.leaves(params)]
    optimizer = optimizer_class(trained, **settings)
    for _ in range(steps):
        optimizer.zero_grad()
        quartic(trained).backward()
        optimizer.step()
    return fo.tree.unflatten(params, [p.detach() for p in trained])


def assert_trees_close(ours: Any, theirs: Any, rtol: float = 1e-9, atol: float = 1e-12) -> None:
    """Same structure, and every leaf close, NaN equal to NaN; names the first leaf that is not."""
    assert fo.tree.structure(ours) == fo.tree.structure(theirs), f"{fo.tree.structure(ours)} is not {fo.tree.structure(theirs)}"
    for index, (x, y) in enumerate(zip(fo.tree.leaves(ours), fo.tree.leaves(theirs), strict=True)):
        if not _surely_close(x, y, rtol, atol):

            def told(text: str, index: int = index) -> str:
                return f"at '{fo.tree.paths(ours)[index]}': {text}"

            torch.testing.assert_close(x, y, rtol=rtol, atol=atol, equal_nan=True, msg=told)


def _surely_close(x: Any, y: Any, rtol: float, atol: float) -> bool:
    """The verdict of `torch.testing.assert_close` in a tenth of its time; where it is no, or a matter of kinds, that is asked."""
    if type(x) is not torch.Tensor or type(y) is not torch.Tensor or x.is_meta or y.is_meta:
        return False
    if (x.dtype, x.shape, x.device, x.layout) != (y.dtype, y.shape, y.device, y.layout) or x.layout != torch.strided:
        return False
    return torch.equal(x, y) or (x.is_floating_point() and torch.allclose(x, y, rtol, atol, equal_nan=True))


def assert_trees_equal(ours: Any, theirs: Any) -> None:
    """Same structure and every leaf bit for bit, NaN equal to NaN."""
    assert_trees_close(ours, theirs, rtol=0.0, atol=0.0)


def launch(module: str, ranks: int, folder: Path, *arguments: str, seconds: float = 400) -> tuple[int, str]:
    """Runs a module on ranks of torch.distributed on this machine; its exit status and what it printed."""
    line = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={ranks}",
        "-m",
        module,
        str(folder),
        *arguments,
    ]
    root = Path(__file__).parents[1]
    with open(folder / "output", "w+") as output:
        job = subprocess.Popen(line, cwd=root, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"})
        try:
            status = job.wait(seconds)
        finally:
            job.terminate()  # the launcher takes its ranks along
            job.wait()
        output.seek(0)
        return status, output.read()[-4000:]
