"""compress_state: what a transformation keeps for each parameter, held in fewer bytes between its steps.

    s     = open(z_{t-1})                the trees of floats that are shaped like the params, worked out as ever
    u_t, s' = tx.update(g_t, s, p)
    z_t   = hold(s')                     all else, counts, keys and words, stays as it is

    "bf16"     2 bytes an entry: rounded by chance, right on the average          core/compression/rounding.py
    "bf16+8"   3 bytes: within 2^-16 of each entry                                core/compression/correction.py
    "int8"     1 byte and 4 for 256: within 0.0070 of the largest of a block      core/compression/blocks.py

bfloat16 gradients and params are worked with in float32, so that nothing else is rounded.
Source: Dettmers et al., "8-bit Optimizers via Block-wise Quantization", 2022; HeavyBall's `ecc`; stochastic rounding after
Zamirai et al., 2020. The formats say at their heads what differs.
"""

from collections.abc import Callable
from functools import reduce
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from funcopt.core import EmptyState, GradientTransformation, TensorTree, check, random, read_signals, sharded, tree
from funcopt.core.compression.blocks import codes
from funcopt.core.compression.correction import parts
from funcopt.core.compression.held import HELD, Blocks, Corrected, Rounded, decompress_state as decompress_state, opened
from funcopt.core.compression.rounding import LARGEST, chances, in_range, stochastically_rounded, with_slope
from funcopt.core.dtypes import at_least_float32
from funcopt.core.signals import isolated
from funcopt.core.versions import compiling, differentiated
from funcopt.core.wrap import field, wrapped

__all__ = ["CompressedState", "compress_state", "decompress_state"]

Form = Literal["bf16", "bf16+8", "int8"]
BYTES = {"bf16": 2, "bf16+8": 3, "int8": 1}


class CompressedState(NamedTuple):
    inner_state: Any  # as ever, with `Rounded`, `Corrected` or `Blocks` for trees of floats like params
    key: Any  # of the next roundings, int64 [2]; nothing where nothing is drawn

    def signals(self) -> dict[str, Tensor]:
        return read_signals(self.inner_state)


def compress_state(tx: GradientTransformation, form: Form, *, key: int | Tensor | None = None) -> GradientTransformation[CompressedState]:
    """Holds the moments of any transformation in 2, 3 or 1 bytes an entry, in place of 4.

    Held so are the trees of floats in the state that are shaped like the params: moments, accumulators, averages. Counts, keys,
    words and factors (of `adafactor`, of a preconditioner) stay. `decompress_state(state)` shows the trees as floats.

    Args:
        tx: any transformation whose state keeps its form from `init` on.
        form: "bf16", rounded up or down by chance: a share of 2^-7 of each entry at most, right on the average, so that
            small steps of a slow average are not lost. "bf16+8", bfloat16 and a correction of 8 bits: 2^-16 of each entry.
            "int8", blocks of 256 entries on a map of 256 numbers, rounded to the nearest: 0.0070 of the largest of the
            block, and one NaN makes a block of them. What is made of the params themselves (averages, slow weights) stays
            as it is there, since no training passes such a grid.
        key: where the chances of "bf16" come from: an int, a 0-dim integer tensor or a key; None draws one from torch's generator, now.

    Returns:
        A transformation with the updates of `tx`, in the dtype of what it is given.

    After a NaN:
        What it is given decides; docs/when-numbers-go-bad.md has each.

    Signals:
        forwards those of `tx`.

    Raises:
        TypeError: at `init`, a leaf is complex: `split_real_and_imaginary` around this makes two of it.
        ValueError: the form is unknown; a key is given where nothing is drawn; at `init`, a leaf is sharded; at `update`, the state of
            `tx` changes its form, or a derivative is to pass through "int8".

    Cannot:
        hypergradient: integers have no derivative ("int8"); the other forms pass that of the exact state.

    Example:
        >>> params = {"w": torch.zeros(1000)}
        >>> def size(tx):
        ...     return sum(x.numel() * x.element_size() for x in fo.tree.leaves(tx.init(params)) if x.dim())
        >>> adam = fo.adam(1e-3)
        >>> [size(tx) for tx in (adam, fo.compress_state(adam, "bf16+8"), fo.compress_state(adam, "int8"))]
        [8000, 6000, 2032]
    """
    where = "compress_state"
    check.choice(where, "form", form, get_args(Form))
    if key is not None and form != "bf16":
        raise ValueError(f"{where}: key must be left out for {form!r}, which draws nothing, got {key!r}")
    root = random.as_key(key, where) if form == "bf16" else None

    def init(params: TensorTree) -> CompressedState:
        for path, x in zip(tree.paths(params), tree.leaves(params), strict=True):
            if x.is_complex():
                raise TypeError(f"{where}: leaves must be real, got {x.dtype} at '{path}'; wrap this in split_real_and_imaginary")
            if sharded.is_sharded(x):
                raise ValueError(
                    f"{where}: leaves must lie in one piece, and '{path}' is sharded; leave compress_state out, each rank holds its part"
                )
        return CompressedState(
            inner_state=_first(tx, tree.map_plain(at_least_float32, params), form), key=EmptyState() if root is None else root.clone()
        )

    def update(updates: TensorTree, state: CompressedState, params: TensorTree | None = None, *, signals: Any = None, **extra: Any):
        dtype = reduce(
            torch.promote_types, [at_least_float32(x).dtype for x in tree.leaves((updates, params)) if x.is_floating_point()], torch.float32
        )
        inner = tree.map_until(HELD, lambda part: opened(part, dtype), state.inner_state)
        wide, wide_params = (None if x is None else tree.map_plain(at_least_float32, x) for x in (updates, params))
        found, new = tx.update(wide, inner, wide_params, signals=signals, **extra)
        kept = _trees(tx.name, state.inner_state, new)
        key = state.key
        if root is None:
            held = [_held(form, part, old) for part, old in zip(kept, _trees(tx.name, state.inner_state, state.inner_state), strict=True)]
        else:
            key, used = random.split(key, 2).unbind()
            drawn = iter(chances(used, tree.leaves(kept)))
            held = [Rounded(tree.map_plain(lambda x: stochastically_rounded(x, next(drawn)), part)) for part in kept]
        return _as_given(found, updates, params, dtype), CompressedState(inner_state=_with(state.inner_state, new, held), key=key)

    def through(hook: Callable[..., Any]) -> Callable[..., Any]:
        """A function of the inner state, which sees floats; what it leaves as it is stays as it is."""

        def outer(state: CompressedState, *arguments: Any, **named: Any) -> CompressedState:
            inner = decompress_state(state.inner_state)
            new = hook(inner, *arguments, **named)
            before, after = _trees(tx.name, state.inner_state, inner), _trees(tx.name, state.inner_state, new)
            changed = [
                any(x is not y for x, y in zip(tree.leaves(old), tree.leaves(part), strict=True))
                for old, part in zip(before, after, strict=True)
            ]
            olds = _trees(tx.name, state.inner_state, state.inner_state)
            held = [_held(form, part, old) if other else old for old, part, other in zip(olds, after, changed, strict=True)]
            return state._replace(inner_state=_with(state.inner_state, new, held))

        return outer

    changed: dict[str, Any] = {
        "flattenable": tx.flattenable and form != "int8",  # blocks lie within leaves
        "per_leaf": tx.per_leaf and form != "bf16",  # chances are drawn for all leaves, in their order
        "hooks": {name: through(hook) for name, hook in tx.hooks.items()},
    }
    return wrapped(init, update, tx, field("inner_state"), name=f"{where} {tx.name}", **changed)


def _held(form: Form, values: TensorTree, before: Any = None) -> Any:
    """A tree of floats in fewer bytes, rounded to the nearest, in the dtypes of what was held before."""
    leaves = tree.leaves(values)
    if form == "bf16":
        return Rounded(tree.map_plain(lambda x: with_slope(in_range(x.detach(), LARGEST), x.float()).to(torch.bfloat16), values))
    if form == "bf16+8":
        pairs = [parts(x) for x in leaves]
        return Corrected(tree.unflatten(values, [high for high, _ in pairs]), tree.unflatten(values, [low for _, low in pairs]))
    if any(x.requires_grad or (not compiling() and differentiated(x)) for x in leaves):
        raise ValueError(
            "compress_state: a state in 'int8' must not be differentiated, since integers have no derivative; "
            "take 'bf16' or 'bf16+8', which pass that of the exact state, or torch.no_grad() and detached params where none is wanted"
        )
    pairs = [codes(x) for x in leaves]
    held = Blocks(tree.unflatten(values, [c for c, _ in pairs]), tree.unflatten(values, [s for _, s in pairs]))
    return held if before is None else tree.cast_like(held, before)


def _trees(name: str, state: Any, like: Any) -> list[Any]:
    """What stands in `like` where trees are held in `state`, in their order."""
    found: list[Any] = []

    def note(held: Any, part: Any) -> None:
        if isinstance(held, HELD):
            found.append(part)

    try:
        tree.map_until(HELD, note, state, like)
    except ValueError as error:
        raise ValueError(f"compress_state: the state of {name} must keep the form that init gave it, but {error}") from None
    return found


def _with(state: Any, new: Any, held: list[Any]) -> Any:
    """`new` with what is held in the places where trees are held in `state`."""
    following = iter(held)
    return tree.map_until(HELD, lambda old, part: next(following) if isinstance(old, HELD) else part, state, new)


def _as_given(found: TensorTree, updates: TensorTree, params: TensorTree | None, dtype: torch.dtype) -> TensorTree:
    """Updates that were worked out in `dtype` in the dtypes in which they would have come."""
    ours, given = tree.leaves(found), tree.leaves(updates)
    beside = given if params is None else tree.leaves(params)
    if not len(ours) == len(given) == len(beside):  # pairs, or a batch: the dtype is their own business
        return found
    wanted = [torch.promote_types(g.dtype, p.dtype) for g, p in zip(given, beside, strict=True)]
    return tree.unflatten(
        found, [x.to(kind) if kind != dtype and kind.is_floating_point else x for x, kind in zip(ours, wanted, strict=True)]
    )


# --- which trees ---


def _first(tx: GradientTransformation, params: TensorTree, form: Form) -> Any:
    """The first state, with the trees that are shaped like the params held."""
    state = tx.init(params)
    leaves, may = tree.leaves(state), _may_be_held(tx, params, tree.leaves(state), form)
    shapes = dict(zip(tree.paths(params), [x.shape for x in tree.leaves(params)], strict=True))

    def like_params(node: Any) -> bool:
        inside = tree.leaves(node)
        if not inside or not all(may[index] for index in inside):
            return False
        return all(shapes.get(path) == leaves[index].shape for path, index in zip(tree.paths(node), inside, strict=True))

    def walk(node: Any) -> Any:
        if like_params(node):
            return _held(form, tree.map_plain(lambda index: leaves[index], node))
        if isinstance(node, int):
            return leaves[node]
        if hasattr(node, "_fields"):
            return type(node)(*(walk(part) for part in node))
        if isinstance(node, dict):
            return type(node)((name, walk(part)) for name, part in node.items())
        return type(node)(walk(part) for part in node) if isinstance(node, (list, tuple)) else node

    return walk(tree.unflatten(state, list(range(len(leaves)))))


def _may_be_held(tx: GradientTransformation, params: TensorTree, leaves: list[Tensor], form: Form) -> list[bool]:
    """Of every leaf of a state whether it may be held, if it is shaped like its parameter."""
    widest = reduce(torch.promote_types, [x.dtype for x in tree.leaves(params)], torch.float32)
    may = [
        x.is_floating_point() and x.element_size() > BYTES[form] and torch.promote_types(x.dtype, widest) == widest for x in leaves
    ]  # what steers is wider, what an argument keeps in bfloat16 is not
    if isinstance(params, Tensor):  # has no path by which to tell its moments from other vectors: they grow with it
        if params.numel() == 0 or params.dim() == 0:
            return [False] * len(leaves)
        with isolated():
            grown = tree.leaves(tx.init(torch.cat([params, params])))
        may = [one and x.shape != y.shape for one, x, y in zip(may, leaves, grown, strict=True)]
    if form == "int8":
        may = [one and not made for one, made in zip(may, _made_of(tx, params), strict=True)]
    return may


def _made_of(tx: GradientTransformation, params: TensorTree) -> list[bool]:
    """Of every leaf of the first state whether it is made of the params' numbers, as a copy is, and not a moment that begins at 0."""
    made: list[bool] = []

    def recorded(params: TensorTree) -> Tensor:
        made.extend(x.requires_grad for x in tree.leaves(tx.init(params)))
        return tree.sum(params)

    with isolated():
        if tree.leaves(params):
            torch.func.grad(recorded)(params)
        return made or [False] * len(tree.leaves(tx.init(params)))
