"""Compiled graphs: with which options, under which name, and what is said while one is made.

A graph is compiled at its first call. The logger "funcopt" is told at its beginning and at
its end (INFO). Where nobody listens to that logger, a compilation of more than two
seconds writes the same two lines to stderr; `logging.getLogger("funcopt").addHandler(logging.NullHandler())`
keeps it quiet. Torch keeps what it compiled on disk, so that the next process only loads it.
"""

import itertools
import logging
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from funcopt.core import tree
from funcopt.core.protocol import GradientTransformation
from funcopt.core.versions import TORCH, trouble_of_the_compiler
from funcopt.execute.engines.local_buffers import compiling_again
from funcopt.execute.engines.one_trace import traced_once
from funcopt.execute.engines.passes.narrow_matmul import narrow_products
from funcopt.execute.engines.passes.once import last_passes
from funcopt.execute.engines.philox import tell_the_compiler
from funcopt.execute.layouts.layout import Layout

__all__ = ["CUDA_GRAPHS", "OPTIONS", "by_dynamo", "compiled", "negated", "tensors_for_numbers", "told"]

log = logging.getLogger("funcopt")

PATIENCE = 2.0  # seconds of compiling after which somebody at a terminal wants to know why nothing moves

# The checks of sizes at each call take half of its overhead. Inductor writes shared intermediates of
# several reductions to memory unless these thresholds are raised: 3.6 times slower at 12 M entries.
# It also puts leaves of one size into one loop, sixteen at a time, and a core that reads from sixty places
# and writes to forty at once waits for memory: 1.4 of fused AdamW at 12 M in 62 leaves, 0.93 leaf after leaf.
# A sum of up to eight entries is written out by it, in each place that reads the sum; with the thresholds above such sums stand in
# such sums, and rows of three that are normalised, projected and normalised again (`nero`) never finish compiling.
OPTIONS: dict[str, Any] = {
    "size_asserts": False,
    "realize_reads_threshold": 8,
    "realize_opcount_threshold": 2000,
    "realize_acc_reads_threshold": 256,
    "cpp.max_horizontal_fusion_size": 8,
    "unroll_reductions_threshold": 1,
}
OF_A_LOSS: dict[str, Any] = {"size_asserts": False}  # a graph without an update is compiled as torch does it, in nine tenths of the time
LIBRARIES = (
    "__builtins_dict__",
    "___unnamed_scope",
    "__import_funcopt_dot_",
    "__import_optree']",
    "__import_optree_dot_",
    "__import_torch_dot__dynamo_dot_polyfills",
    "__import_torch_dot__functorch",
    "__import_torch_dot_utils_dot__pytree",
    "__import__('torch')",
    ".__dict__)['__new__']",  # of the classes of states
)  # in the names of guards
OURS = ("G['torch']", "G['write_back']", "G['apply_updates']")  # at their beginning: what the functions that are compiled refer to by name
NUMBERS = itertools.count()  # of the functions compiled in this process
CUDA_GRAPHS = {"triton.cudagraphs": True}  # what torch.compile(mode="reduce-overhead") means; a mode and options exclude each other


def by_dynamo(f: Callable[..., Any], **settings: Any) -> Callable[..., Any]:
    """`torch.compile` of a function under a name of its own.

    The compiler counts its recompilations per code object, which the functions that one `def` makes share, and remembers
    per file, line and name which sizes and numbers have changed: what one step has seen is no news of another.
    """
    assert isinstance(f, types.FunctionType)
    code = f.__code__.replace(co_name=f"{f.__code__.co_name}_{next(NUMBERS)}")
    return torch.compile(types.FunctionType(code, f.__globals__, f.__name__, f.__defaults__, f.__closure__), **settings)


def compiled(
    f: Callable[..., Any], name: str, options: dict[str, Any] | None = None, dynamic: bool | None = False, *, update: bool = True
) -> Callable[..., Any]:
    """`by_dynamo` as one graph, with the options of this library; its first call is told of under a name.

    Args:
        f: what to compile, at its first call.
        name: what the progress lines call it.
        options: of Inductor, besides `OPTIONS`.
        dynamic: False compiles anew for every size, and sets this at each call, which costs a tiny
            step a seventh; None compiles for the first size and then, once, for all others, or
            anew for each where that fails.
        update: whether there is an update in it, which asks for `OPTIONS`.
    """
    tell_the_compiler()
    filtered = {"guard_filter_fn": guards_worth_having} if TORCH >= (2, 9) else {}
    options = {**(OPTIONS if update else OF_A_LOSS), **filtered, **narrow_products(), **last_passes(), **(options or {})}

    graph, first = by_dynamo(f, fullgraph=True, dynamic=dynamic, options=options), True

    def run(*arguments: Any):
        nonlocal graph, first, dynamic
        if first:
            first = False
            with told(name), traced_once():
                try:
                    return graph(*arguments)
                except trouble_of_the_compiler() as error:
                    if "vmap over ApplyTemplate" in str(error):
                        raise ValueError(
                            f"{name}: the loss uses an autograd.Function, over whose backward this compiler cannot map; "
                            "pass compile=False, or write the function in operations of torch"
                        ) from error
                    return compiling_again(error, lambda: graph(*arguments))
        try:
            return graph(*arguments)
        except trouble_of_the_compiler() as error:
            if dynamic is not None or type(error).__name__ == "FailOnRecompileLimitHit":
                return compiling_again(error, lambda: graph(*arguments))
            dynamic, graph = (
                False,
                by_dynamo(f, fullgraph=True, dynamic=False, options=options),
            )  # nothing ran: it failed before there was a graph
            return graph(*arguments)

    return run


def guards_worth_having(entries: Sequence[Any]) -> list[bool]:
    """Which of the compiler's guards to keep: hundreds of them are checked at each call, a third of the time of a small step.

    Transformations and layouts never change once they are made, and neither do libraries.
    What `write_back` asks, which result is which old leaf, has the same answer for other
    tensors of the same state. All else is kept: shapes, dtypes, structure, the mode of a
    module, what a loss function reads around it.
    """
    fixed = tuple(entry.name for entry in entries if isinstance(entry.value, (GradientTransformation, Layout)))

    def worth_having(entry: Any) -> bool:
        if entry.guard_type == "ID_MATCH" and isinstance(entry.value, Tensor):
            return False
        return not (
            entry.name.startswith(OURS) or any(name in entry.name for name in LIBRARIES) or any(_is_of(entry.name, name) for name in fixed)
        )

    return [worth_having(entry) for entry in entries]


def _is_of(guard: str, name: str) -> bool:
    """Whether a guard is on what has this name or on a part of it, and not on what has a longer one (`net.tx`, `net.tx_scale`)."""
    return any(not (rest[:1].isalnum() or rest[:1] == "_") for rest in guard.split(name)[1:])


@contextmanager
def told(name: str) -> Iterator[None]:
    """Says that `name` is being compiled, and how long it took."""
    silent = not log.hasHandlers()  # then long compilations speak up on stderr
    begun = f"compiling {name}"
    timer = threading.Timer(PATIENCE, _say, (f"{begun} ...",))
    timer.daemon = True
    log.info("%s ...", begun)
    began = time.perf_counter()  # before the timer, which then never speaks of what took less than its patience
    if silent:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
    seconds = time.perf_counter() - began
    log.info("compiled %s in %.1f s", name, seconds)
    if silent and seconds > PATIENCE:
        _say(f"compiled {name} in {seconds:.1f} s")


def _say(line: str) -> None:
    print(f"funcopt: {line}", file=sys.stderr, flush=True)


def negated(value: Any) -> bool:
    """Whether a value holds views such as the imaginary part of a conjugate, whose sign torch.compile does not see."""
    if isinstance(value, Tensor):
        return value.is_neg()
    return any(isinstance(x, Tensor) and x.is_neg() for x in tree.leaves(value))


def tensors_for_numbers(extra: dict[str, Any], device: torch.device | str = "cpu") -> dict[str, Any]:
    """Numbers as 0-dim tensors: a graph is specialised on numbers, and so compiled anew for each."""

    def tensor(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return value
        return torch.full((), value, dtype=torch.int64 if isinstance(value, int) else torch.float64, device=device)

    return {name: tensor(value) for name, value in extra.items()}
