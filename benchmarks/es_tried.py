"""What was tried and left out, against what is there: the row `tried` of benchmarks/es.py, and the last table of docs/performance-es.md."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any
from unittest import mock

import clock
import torch
from es_cases import CASES, LR, OURS, SIGMA, Case, Step, ours
from torch import fx
from torch.func import vmap

import funcopt as fo
from funcopt.es.evaluate import compiling
from funcopt.es.noise import distributions, kernel
from funcopt.es.noise.sources import EAGER, Philox
from funcopt.execute.engines.dynamo import by_dynamo
from funcopt.execute.engines.passes.narrow_matmul import insert, turn_narrow

__all__ = ["tried"]


def one_graph(case: Case, members: int, draws: bool = False) -> Step:
    """A generation in one graph: `members` at a time, ranks, sum and SGD; the noise comes from outside, or with `draws` is part of it.

    The chunks are one region, compiled once, where torch knows such regions.
    """
    (x, y), params, half, size = case.rows(), case.params(), case.popsize // 2, members // 2
    signs, key, count = torch.tensor([1.0, -1.0]), fo.random.key(0), 0

    def member(params, eps, sign, x, y):
        return case.objective({name: p + sign * SIGMA * eps[name] for name, p in params.items()}, x, y)

    mapped = vmap(vmap(member, in_dims=(None, None, 0, None, None)), in_dims=(None, 0, None, None, None))

    def pair(params, eps, signs, x, y):
        return mapped(params, eps, signs, x, y)

    pair = getattr(torch.compiler, "nested_compile_region", lambda f: f)(pair)

    def noise(source, params, key):
        keys = [fo.random.fold_in(key, place) for place in range(len(params))]
        return {
            name: source.normal(k, p.numel(), range(half)).view(half, *p.shape)
            for k, (name, p) in zip(keys, sorted(params.items()), strict=True)
        }

    def generation(params, given, x, y):
        eps = noise(EAGER, params, given) if draws else given
        parts = [pair(params, {name: e[start : start + size] for name, e in eps.items()}, signs, x, y) for start in range(0, half, size)]
        ranks = (-torch.cat(parts).t().reshape(-1)).argsort().argsort().float() / (case.popsize - 1)
        weights = (ranks[:half] - ranks[half:]) * (LR / case.popsize / SIGMA)
        return {name: p + (weights @ eps[name].view(half, -1)).view_as(p) for name, p in params.items()}

    graph, source = by_dynamo(generation, **compiling.chunk_options(True)), Philox(compile=True)

    def run() -> None:
        nonlocal params, count
        at, count = fo.random.fold_in(key, count), count + 1
        with torch.no_grad():
            params = graph(params, at if draws else noise(source, params, at), x, y)

    return run


def by_tiles(case: Case, **options: Any) -> Step:
    """Normals in the tiles that the compiler makes, without the loop of C++."""
    step = ours(case, **options)

    def run() -> None:
        with mock.patch.object(kernel, "normals", lambda *given: False):
            step()

    return run


def by_product(case: Case, **options: Any) -> Step:
    """The gradient as a product of weights and noise: the library's order of the sum, which may hang on where the noise lies."""
    step = ours(case, **options)

    def run() -> None:
        with mock.patch.object(distributions, "weighted_sum", lambda weights, rows: weights @ rows.to(weights.dtype)):
            step()

    return run


def changed(*passes: Callable[[fx.Graph], Any]) -> dict[str, Any]:
    """Options that change graphs by these, in place of what funcopt/es/evaluate/compiling.py does; without the cache on disk."""
    from torch._inductor.custom_graph_pass import CustomGraphPass

    class Pass(CustomGraphPass):
        def __call__(self, graph: fx.Graph) -> None:
            for change in passes:
                change(graph)

        def uuid(self) -> None:
            return None

    return {"compile": {"options": {"post_grad_custom_pre_pass": Pass()}}}


def product_in_one(graph: fx.Graph) -> None:
    """The rows of the batch, which all members share, times the weights of all of them side by side: one product."""
    aten = torch.ops.aten
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target is not aten.bmm.default:
            continue
        left, right = node.args
        rows, weights = left.meta["val"], right.meta["val"]
        b, k, n = weights.shape
        if rows.stride(0) or rows.shape[0] == 1 or weights.stride() != (n * k, 1, k):
            continue
        with graph.inserting_before(node):
            flat = insert(graph, aten.reshape.default, insert(graph, aten.permute.default, right, [0, 2, 1]), [b * n, k])
            product = insert(
                graph, aten.mm.default, insert(graph, aten.select.int, left, 0, 0), insert(graph, aten.permute.default, flat, [1, 0])
            )
            node.replace_all_uses_with(
                insert(graph, aten.permute.default, insert(graph, aten.reshape.default, product, [rows.shape[1], b, n]), [1, 0, 2])
            )
        graph.erase_node(node)


def fractions(graph: fx.Graph) -> None:
    """Every tanh as a fraction, those of gelu too."""
    with mock.patch.object(compiling, "_raised", lambda node: node):
        compiling.quick_tanh(graph)


def compiled(**options: Any) -> dict[str, Any]:
    return {"compile": {"options": options}}


PLAIN = compiled(post_grad_custom_pre_pass=None)  # without what funcopt/es/evaluate/compiling.py changes in graphs
GUARDED = compiled(guard_filter_fn=lambda entries: [True] * len(entries))
TEMPLATES = compiled(max_autotune=True, max_autotune_gemm_backends="ATEN,CPP")
WRAPPED = compiled(cpp_wrapper=True)
AGAIN, HALF = {"memory": "regenerate"}, {"noise_dtype": torch.bfloat16}

Change = dict[str, Any] | Callable[..., Step]  # other options, or another maker of the step
TRIED: dict[tuple[str, str], dict[str, Change]] = {
    ("i", "dense"): {
        "noise by the compiler's tiles": by_tiles,
        "sum by a product": by_product,
        "one graph": lambda case, **options: one_graph(case, 64),
        "one graph, noise in it": lambda case, **options: one_graph(case, 64, draws=True),
        "noise drawn again": AGAIN,
        "graphs as they come": PLAIN,
        "all guards": GUARDED,
        "cpp_wrapper": WRAPPED,
        "chunks of 32": {"chunk_size": 32},
        "chunks of 128": {"chunk_size": 128},
        "noise in bf16": HALF,
    },
    ("ii", "dense"): {
        "noise by the compiler's tiles": by_tiles,
        "sum by a product": by_product,
        "one graph": lambda case, **options: one_graph(case, 32),
        "first product in one": changed(product_in_one, turn_narrow, compiling.quick_tanh),
        "noise drawn again": AGAIN,
        "graphs as they come": PLAIN,
        "C++ templates": TEMPLATES,
        "chunks of 16": {"chunk_size": 16},
        "chunks of 64": {"chunk_size": 64},
        "noise in bf16": HALF,
    },
    ("iii", "dense"): {
        "noise by the compiler's tiles": by_tiles,
        "sum by a product": by_product,
        "noise drawn again": AGAIN,
        "gelu by a fraction": changed(turn_narrow, fractions),
        "graphs as they come": PLAIN,
        "cpp_wrapper": WRAPPED,
        "chunks of 2": {"chunk_size": 2},
        "chunks of 8": {"chunk_size": 8},
        "noise in bf16": HALF,
    },
    ("iii", "rank 1"): {
        "gelu by a fraction": changed(turn_narrow, fractions),
        "graphs as they come": PLAIN,
        "cpp_wrapper": WRAPPED,
        "chunks of 2": {"chunk_size": 2},
        "chunks of 8": {"chunk_size": 8},
        "weights in bf16": {"dtype": torch.bfloat16},
    },
    ("iv", "dense"): {
        "noise by the compiler's tiles": by_tiles,
        "sum by a product": by_product,
        "noise drawn again": AGAIN,
        "noise in bf16": HALF,
        "chunks of 2": {"chunk_size": 2},
        "es.split()": {"noise": fo.es.split()},
    },
    ("iv", "rank 1"): {
        "graphs as they come": PLAIN,
        "cpp_wrapper": WRAPPED,
        "C++ templates": TEMPLATES,
        "chunks of 64": {"chunk_size": 64},
        "chunks of 256": {"chunk_size": 256},
        "chunks of 512": {"chunk_size": 512},
        "weights in bf16": {"dtype": torch.bfloat16},
    },
}


def tried(rounds: int, only: tuple[str, ...] = ()) -> dict:
    """CPU seconds of a generation as it is and with one thing changed, taking turns; `only` some cases."""
    table = {}
    print("\ntried: CPU milliseconds of a generation")
    for (name, form), changes in TRIED.items():
        if only and name not in only:
            continue
        made = {"as it is": {}, **changes}
        race = clock.race(
            {each: functools.partial(make, CASES[name], OURS[form], change) for each, change in made.items()}, rounds, copies=1
        )
        table[f"{name} {form}"] = {each: race.median(each) for each in made}
        told = ", ".join(f"{each} {seconds * 1e3:.1f}" for each, seconds in table[f"{name} {form}"].items())
        print(f"  {name} {form}: {told}", flush=True)
    return table


def make(case: Case, options: dict[str, Any], change: Change) -> Step:
    return ours(case, **{**options, **change}) if isinstance(change, dict) else change(case, **options)
