"""The second engine: a step traced by `make_fx` and compiled by Inductor ahead of its first call, without Dynamo.

Nothing stands between the call and the kernel but what is checked here, so small steps
cost a third of what they cost behind the guards of `torch.compile`, and compile in half
the time. No guards also means that nobody else looks: the door does.

- Only tensors come in; structure, shapes, dtypes, strides and devices of every call are
  those of a graph that was built, or another graph is built.
- Leaves that are written in place overlap neither themselves nor each other, nor, at the call that builds a graph, what else comes in.
- Nobody differentiates through it (what a donated step hands out is detached), and views that are negated or conjugated
  when they are read are written out.
- The first call is made twice, by the graph on copies and by the pure function, and compared.

All of this stands on parts of torch that are not public. Where they are missing, or any
of the above fails, `Unavailable` says so in a sentence and `make_step` takes `torch.compile`.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from funcopt.core import tree
from funcopt.core.autocast import outside_autocast
from funcopt.execute.engines.dynamo import OPTIONS, told
from funcopt.execute.engines.local_buffers import compiling_again
from funcopt.execute.engines.passes.narrow_matmul import narrow_products
from funcopt.execute.engines.passes.once import last_passes
from funcopt.execute.engines.philox import tell_the_compiler

__all__ = ["Unavailable", "ahead_of_time", "hand_on", "missing"]

MANY_FORMS = 8  # from here on a new form of the arguments is an error: a graph each would be compiled for ever
# What a step may differ by from its pure function, relative to the largest entry of a leaf: sums in another order.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}


class Unavailable(RuntimeError):
    """Why a step cannot be compiled ahead of time; a sentence without its subject."""


class Graph(NamedTuple):
    """A compiled step and how its results are handed on."""

    call: Callable[[list[Tensor]], tuple[Tensor, ...]]
    handed: Any  # the structure of what is handed out
    pure: bool  # nothing is written, and so somebody may want gradients through it
    structure: Any
    forms: list[tuple[Any, ...]]
    quick: Callable[..., bool]  # says of leaves that they have these forms; where it says no, they may have them all the same


@functools.cache
def missing() -> str | None:
    """Why there is no such engine here, or None where there is one: found out on one addition in place."""
    try:
        x = torch.ones(3, device="cpu")
        graph = _build(lambda x, y: (x + y, x.sum()), (x, torch.ones(3, device="cpu")), 1)
        (total,) = graph.call([x, torch.ones(3, device="cpu")])
    except Exception as error:
        told = str(error).splitlines()[0] if str(error) else ""
        return f"this torch, {torch.__version__}, does not offer it: {type(error).__name__}: {told}"
    return (
        None
        if x.tolist() == [2.0, 2.0, 2.0] and total.item() == 3.0
        else f"this torch, {torch.__version__}, compiles one addition in place wrongly"
    )


def ahead_of_time(step: Callable[..., Any], name: str, donate: bool) -> Callable[..., Any]:
    """A step `(params, state, batch, extra) -> (params, state, value)` compiled ahead of its first call.

    Args:
        step: the pure step.
        name: what it is called in messages.
        donate: write new params and state into the leaves of the old ones.

    Returns:
        A function of the same arguments. It returns what `step` returns, or with `donate` the value alone.
        Its `again(leaves)` is the graph of the call before if these leaves, of the same structure, fit it, for `hand_on`; else None.

    Raises:
        Unavailable: when called: arguments that are no tensors, donated leaves that overlap, parts of torch that are
            missing, or a graph that does not compute what `step` computes. Nothing has been written then.
    """
    graphs: list[Graph] = []  # the one used last comes first

    def run(params: Any, state: Any, batch: tuple[Any, ...], extra: dict[str, Any]) -> Any:
        arguments = ((params, state), (batch, extra))
        leaves, structure = tree.flatten(arguments)
        graph = known(leaves, structure)
        if graph is None:
            if any(isinstance(x, Tensor) and lazy(x) for x in tree.leaves(arguments[1])):
                return run(params, state, *tree.map_until(Tensor, plain, arguments[1]))
            if len(graphs) == MANY_FORMS:
                raise Unavailable(f"a batch or an extra has taken more than {MANY_FORMS} shapes; pad it to one")
            with told(f"{name} ahead of time"):
                graph = checked(lambda kept, given: split(step(*kept, *given), donate), arguments, donate)
            graphs.insert(0, graph)
        return hand_on(graph, leaves)

    def known(leaves: list[Tensor], structure: Any) -> Graph | None:
        for place, graph in enumerate(graphs):
            if structure == graph.structure and fits(graph, leaves):
                if place:
                    graphs.insert(0, graphs.pop(place))
                return graph
        return None

    run.again = lambda leaves: graphs[0] if graphs and fits(graphs[0], leaves) else None  # pyright: ignore[reportFunctionMemberAccess]
    return run


def split(results: tuple[Any, ...], donate: bool) -> tuple[tuple[Any, ...], Any]:
    """What is written in place, and what is handed out."""
    params, state, value = results
    return ((params, state), value) if donate else ((), results)


def form(x: Tensor) -> tuple[Any, ...]:
    return x.shape, x.stride(), x.dtype, x.device


def fits(graph: Graph, leaves: list[Any]) -> bool:
    """Whether the graph was built for leaves of these forms."""
    if graph.quick(*leaves):
        return True
    for x, (shape, stride, dtype, device) in zip(leaves, graph.forms, strict=True):
        if not isinstance(x, Tensor) or x.dtype is not dtype or x.shape != shape or x.stride() != stride or x.device != device:
            return False
        if lazy(x) or (graph.pure and watched(x)):
            return False
    return True


def lazy(x: Tensor) -> bool:
    """Whether what a graph finds in memory is not what a tensor shows."""
    return x.is_neg() or x.is_conj()


def plain(x: Any) -> Any:
    """A lazy view written out."""
    return x.resolve_neg().resolve_conj() if isinstance(x, Tensor) else x


def watched(x: Tensor) -> bool:
    """Whether somebody wants a gradient through what comes of a tensor."""
    return x.requires_grad and torch.is_grad_enabled()


def hand_on(graph: Graph, leaves: list[Tensor]) -> Any:
    """One call: what is handed out is returned."""
    return graph.handed.unflatten(graph.call(list(leaves)))  # which empties the list


def checked(step: Callable[..., Any], arguments: tuple[Any, ...], donate: bool) -> Graph:
    """A graph that was seen to compute what the pure function computes."""
    leaves = tree.leaves(arguments)
    strangers = [f"'{path}' is {x!r:.40}" for path, x in zip(tree.paths(arguments), leaves, strict=True) if not isinstance(x, Tensor)]
    if strangers:
        raise Unavailable(f"it takes tensors only, and of its arguments {strangers[0]}")
    for path, x in zip(tree.paths(arguments), leaves, strict=True):
        if watched(x) and not donate:
            raise Unavailable(f"a gradient is wanted through it, of '{path}'; call detach()")
        if lazy(x):
            raise Unavailable(f"it works on memory alone, and a lazy view is '{path}'; call resolve_neg() or resolve_conj()")
    kept = len(tree.leaves(arguments[0])) if donate else 0
    assert_apart(leaves, tree.paths(arguments), kept)
    if why := missing():
        raise Unavailable(why)
    try:
        graph = _build(step, arguments, kept)
    except Exception as error:
        raise Unavailable(
            f"tracing or compiling it failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        ) from error
    compare(graph, step, arguments, kept)
    return graph._replace(call=getattr(graph.call, "current_callable", None) or graph.call)  # what stands around it is for the first call


def assert_apart(leaves: list[Tensor], paths: list[str], kept: int) -> None:
    """Refuses donated leaves, the first `kept`, of which an entry lies where another does, or one of those that are only read."""
    taken: dict[tuple[Any, ...], str] = {}
    for x, path in zip(leaves[:kept], paths, strict=False):
        if any(stride == 0 and size > 1 for size, stride in zip(x.shape, x.stride(), strict=True)):
            raise Unavailable(f"the donated leaf '{path}' is one number seen many times (stride 0); make it contiguous")
        place = (x.device, x.untyped_storage().data_ptr())
        if x.numel() and taken.setdefault(place, path) != path:
            raise Unavailable(f"the donated leaves '{taken[place]}' and '{path}' share memory; clone one of them")
    for x, path in zip(leaves[kept:], paths[kept:], strict=True):
        if x.numel() and (place := (x.device, x.untyped_storage().data_ptr())) in taken:
            raise Unavailable(f"the donated leaf '{taken[place]}' and '{path}' share memory; clone one of them")


def compare(graph: Graph, step: Callable[..., Any], arguments: tuple[Any, ...], kept: int) -> None:
    """Makes the call twice, on copies, and compares."""
    leaves = tree.leaves(arguments)
    copies = [copied(x.detach()) for x in leaves]
    devices = [x.device for x in leaves if x.device.type == "cuda"]
    with torch.random.fork_rng(devices=list(dict.fromkeys(devices))), torch.no_grad():
        state = torch.get_rng_state()
        handed = hand_on(graph, copies)
        torch.set_rng_state(state)
        written, expected = step(*tree.unflatten(arguments, [x.detach().clone() for x in leaves]))
    paths = [*tree.paths(arguments)[:kept], *(f"result {path}" for path in tree.paths(expected))]
    for path, ours, theirs in zip(
        paths, [*copies[:kept], *tree.leaves(handed)], [*tree.leaves(written), *tree.leaves(expected)], strict=True
    ):
        if not alike(ours, theirs):
            raise Unavailable(f"its graph and the pure function differ at '{path}'")


def copied(x: Tensor) -> Tensor:
    """A copy with the strides of a tensor, on which its graph relies: gaps and repetitions stay."""
    copy = x.clone()
    if copy.stride() == x.stride() or not x.numel():
        return copy
    memory = x.new_empty(1 + sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True)))
    copy, once = memory.as_strided(x.shape, x.stride()), tuple(slice(0, 1) if stride == 0 else slice(None) for stride in x.stride())
    copy[once].copy_(x[once])
    return copy


def alike(x: Tensor, y: Tensor) -> bool:
    if x.shape != y.shape:
        return False
    if not (y.is_floating_point() or y.is_complex()):
        return torch.equal(x, y.to(x.dtype))
    size = y.abs().nan_to_num(0.0, 0.0, 0.0).max().item() if y.numel() else 0.0
    tolerance = TOLERANCE.get(y.real.dtype if y.is_complex() else y.dtype, 1e-2)
    return torch.allclose(x.to(y.dtype), y, rtol=tolerance, atol=tolerance * size, equal_nan=True)


# --- tracing and compiling ------------------------------------------------------------------------------------------------------


def _build(step: Callable[..., Any], arguments: tuple[Any, ...], kept: int) -> Graph:
    """Traces `step(kept, given) -> (written, handed)` and compiles it with copies into the first `kept` leaves at its end."""
    from torch._guards import TracingContext, tracing
    from torch._inductor import config
    from torch._inductor.compile_fx import compile_fx_inner
    from torch._inductor.decomposition import select_decomp_table
    from torch._subclasses import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx

    tell_the_compiler()
    leaves = tree.leaves(arguments)
    handed_out: list[Any] = []

    def flat(*leaves: Any):
        written, handed = step(*tree.unflatten(arguments, list(leaves)))
        results, structure = tree.flatten(handed)
        handed_out[:] = [structure]
        if len(tree.leaves(written)) != kept:
            raise ValueError("make_step: donate=True needs a state of constant structure")
        return [*tree.leaves(written), *results]

    mode = FakeTensorMode(allow_non_fake_inputs=True)  # tables that links hold
    fakes = [mode.from_tensor(x.detach()) for x in leaves]
    with mode, torch.no_grad():
        with told_that_it_compiles():
            traced = make_fx(flat, tracing_mode="real")(*fakes)
        # In a second trace: functionalize does not know the custom functions of autograd, of which the first leaves nothing.
        pure = torch.func.functionalize(traced, remove="mutations")
        # Outside of autocast, whose casts stand in the first trace where they belong.
        traced = outside_autocast(make_fx(pure, decomposition_table=select_decomp_table(), tracing_mode="real"), *fakes)
    write_at_the_end(traced, kept)
    with (
        torch.no_grad(),
        config.patch({**OPTIONS, **narrow_products(), **last_passes(), "fallback_random": True}),
        tracing(TracingContext(mode)),
    ):
        try:
            call = outside_autocast(compile_fx_inner, traced, fakes)
        except Exception as error:
            call = compiling_again(error, lambda: outside_autocast(compile_fx_inner, traced, fakes))
    forms = [form(x) for x in leaves]
    return Graph(call, handed_out[0], not kept, tree.structure(arguments), forms, quickly(leaves, forms))


def quickly(leaves: list[Tensor], forms: list[tuple[Any, ...]]) -> Callable[..., bool]:
    """The check of types, forms and modes that stands before graphs of `torch.compile`: one call for all leaves."""
    from torch._C._dynamo.guards import TensorGuards

    shapes: Any
    strides: Any
    shapes, strides = ([list(form[place]) for form in forms] for place in (0, 1))
    return TensorGuards(*leaves, dynamic_dims_sizes=shapes, dynamic_dims_strides=strides).check


@contextlib.contextmanager
def told_that_it_compiles() -> Iterator[None]:
    """`torch.compiler.is_compiling()` within, which make_fx alone does not say: what is written for graphs asks it."""
    before, torch.compiler._is_compiling_flag = torch.compiler._is_compiling_flag, True
    try:
        yield
    finally:
        torch.compiler._is_compiling_flag = before


def write_at_the_end(traced: fx.GraphModule, kept: int) -> None:
    """Adds the copies into the donated leaves, which are the first results; the others are handed out.

    What is only read of a leaf that is overwritten too is read before: the pass `read_before_write` sees to that.
    """
    graph = traced.graph
    arguments = [node for node in graph.nodes if node.op == "placeholder"]
    (end,) = [node for node in graph.nodes if node.op == "output"]
    results = list(end.args[0])
    with graph.inserting_before(end):
        for leaf, result in zip(arguments[:kept], results, strict=False):
            if result is not leaf:
                copy = graph.call_function(torch.ops.aten.copy_.default, (leaf, result))
                copy.meta["val"] = leaf.meta["val"]
    end.args = (results[kept:],)
    end.meta["user_visible_output_idxs"] = list(range(len(results) - kept))  # these keep the strides that they were traced with
    traced.recompile()
