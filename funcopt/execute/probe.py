"""check: whether a transformation is what it declares, measured on a few small random leaves.

    flattenable    updates on one flat vector      = those leaf by leaf
    per_leaf       updates of each leaf by itself  = those of all together
    turns          the sign of <update, gradient>, where it is the same at every step
    one_length     all entries of a leaf's update have one size, at every step, of gradients of order one and of tiny ones

`check` is for authors; `vouch` and `vouch_search` are what `make_step` and the torch optimizers call once for
each transformation that is not of this library, and cost some tiny updates.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import tree
from funcopt.core.apply import apply_updates
from funcopt.core.protocol import GradientTransformation, TensorTree
from funcopt.core.random import readable
from funcopt.core.signals import FROM_THE_LOOP, Signals
from funcopt.core.versions import compiling
from funcopt.core.wrap import links_with
from funcopt.execute.layouts.layout import Layout

__all__ = ["Checked", "check", "measured_turns", "vouch", "vouch_search"]

STEPS = 4
TINY = 1e-6  # scale of gradients that no threshold cuts
CLOSE: dict[str, Any] = {"rtol": 1e-6, "atol": 1e-9, "equal_nan": True}
FEW = 32  # leaves up to which the params of a caller are probed in their own structure
Extra = Callable[[int, TensorTree], dict[str, Any]]  # from step and params


class Checked(NamedTuple):
    """What `check` has measured; None where that could not be.

    flattenable, per_leaf, turns, one_length: as they are.
    undeclared: what might be declared as well, and would let it run in more forms.
    """

    flattenable: bool | None
    per_leaf: bool | None
    turns: bool | None
    undeclared: tuple[str, ...]
    one_length: bool | None = False


def check(tx: GradientTransformation, params: TensorTree | None = None, *, extra: Callable[[int], dict[str, Any]] | None = None) -> Checked:
    """Tries whether a transformation is what it declares, and keeps the rules of the protocol.

    Args:
        tx: any transformation; a few updates of it are made on small random gradients.
        params: a small tree in the form that it takes; None: some leaves of several shapes.
        extra: `step -> dict` of extra arguments at step 0, 1, ...; None: a loss, and what
            else it says that it `needs`, as far as that can be made up.

    Returns:
        What was measured, and what might be declared as well.

    Raises:
        TypeError: `tx` is not a transformation.
        ValueError: a declaration is wrong (`flattenable`, `per_leaf`, `turns`, `one_length`); an update
            is not pure, changes the structure, shapes or dtypes of its state, or the form or
            dtype of what passes; it cannot be run on such params without more.

    Example:
        >>> def update(updates, state, params=None, **extra):
        ...     return fo.tree.map(lambda g: g / g.norm(), updates), state
        >>> def unit(**declared):
        ...     return fo.GradientTransformation(lambda params: fo.EmptyState(), update, name="unit", **declared)
        >>> fo.check(unit(per_leaf=True, turns=False))
        Checked(flattenable=False, per_leaf=True, turns=False, undeclared=(), one_length=False)
        >>> fo.check(unit(flattenable=True))
        Traceback (most recent call last):
        ValueError: unit: declares flattenable=True, but its updates on one flat vector differ from those leaf by leaf, ...
    """
    params = some_params() if params is None else tree.map(lambda p: p.detach().clone(), params)
    told = (lambda step, params: extra(step)) if extra is not None else stand_ins(tx)
    with torch.random.fork_rng(devices=[]):
        try:
            together = rollout(tx, params, told)
        except Exception as error:
            remedy = "pass params= in the form it takes, and extra=, a function from the step to what an update must be told"
            raise ValueError(f"check: {tx.name} cannot be run as it is: {type(error).__name__}: {error}; {remedy}") from error
        _keeps_the_protocol(tx, params, told)
        flattenable, per_leaf, turns = flat_alike(tx, params, told, together), alone_alike(tx, params, told, together), side(together)
        one_length = of_one_length(tx, params, told, together)
    for trait, measured in (("flattenable", flattenable), ("per_leaf", per_leaf), ("turns", turns), ("one_length", one_length)):
        _believe(tx, trait, measured)
    undeclared = [
        trait for trait, measured in (("flattenable", flattenable), ("per_leaf", per_leaf)) if measured and not getattr(tx, trait)
    ]
    if turns is not None and tx.turns is None:
        undeclared.append(f"turns={turns}")
    if one_length and not tx.one_length:
        undeclared.append("one_length")
    return Checked(flattenable, per_leaf, turns, tuple(undeclared), one_length)


MEANING = {
    "flattenable": "its updates on one flat vector differ from those leaf by leaf, so it looks at more than entries",
    "per_leaf": "its updates of a leaf by itself differ from those of the same leaf among others, so it looks at several leaves",
    "one_length": "the entries of its updates differ in size, so that they tell how long the gradient was",
}


def _believe(tx: GradientTransformation, trait: str, measured: bool | None) -> None:
    if trait == "turns":
        if tx.turns is not None and measured is not None and tx.turns is not measured:
            raise ValueError(
                f"{tx.name}: declares turns={tx.turns}, but its updates point {'down' if measured else 'up'}hill; declare turns={measured}"
            )
    elif trait == "one_length" and tx.links:
        return  # of a chain it says that one of its links is so, whatever the others add
    elif getattr(tx, trait) and measured is False:
        raise ValueError(f"{tx.name}: declares {trait}=True, but {MEANING[trait]}; leave {trait}=True out")


# --- what is run ------------------------------------------------------------------------------------------------------------------


def some_params() -> TensorTree:
    generator = torch.Generator("cpu").manual_seed(0)
    shapes = {"w": (3, 2), "b": (2,), "s": (), "more": (3, 2), "other": (2, 4)}
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu") for name, shape in shapes.items()}


def like(params: TensorTree) -> TensorTree:
    """Small params of the same structure."""
    generator = torch.Generator("cpu").manual_seed(0)
    return tree.map_plain(
        lambda p: torch.randn([min(n, 3) for n in p.shape], generator=generator, dtype=torch.float64, device="cpu"), params
    )


def gradients(step: int, params: TensorTree, scale: float = 1.0) -> TensorTree:
    """Of one main direction, so that a mean of them has it too."""
    first, noise = (torch.Generator("cpu").manual_seed(seed) for seed in (1, 100 + step))

    def gradient(p: Tensor) -> Tensor:
        draw: dict[str, Any] = {"dtype": torch.float64, "device": "cpu"}
        drawn = torch.randn(p.shape, generator=first, **draw) + 0.2 * torch.randn(p.shape, generator=noise, **draw)
        return (scale * drawn).to(p.dtype)

    return tree.map_plain(gradient, params)


MADE_UP: dict[str, Callable[[int, TensorTree], Any]] = {
    "loss": lambda step, params: torch.tensor(1.0 / (step + 1), dtype=torch.float64, device="cpu"),
    "reward": lambda step, params: torch.tensor(0.1 * step, dtype=torch.float64, device="cpu"),
    "metric": lambda step, params: torch.tensor(0.1 * step, dtype=torch.float64, device="cpu"),
    "epoch": lambda step, params: step // 2,
    "hessian": lambda step, params: tree.ones_like(params),
}


def stand_ins(tx: GradientTransformation) -> Extra:
    """A loss, and what else an update needs, as far as it can be made up."""
    wanted = ["loss", *(words.split("|")[0] for words in tx.needs)]
    return lambda step, params: {word: MADE_UP[word](step, params) for word in wanted if word in MADE_UP}


def heard(tx: GradientTransformation) -> Any:
    """What the loop says, or, where a link stands alone, whoever would stand beside it."""
    words = {word: torch.tensor(0.5, dtype=torch.float64, device="cpu") for given in tx.hears for word in given.split("|")}
    if tx.links:
        return {word: value for word, value in words.items() if word in FROM_THE_LOOP and word not in tx.must_be_heard}
    return Signals(words, words) if words else None


def rollout(
    tx: GradientTransformation, params: TensorTree, told: Extra, layout: Layout | None = None, scale: float = 1.0
) -> list[tuple[TensorTree, TensorTree]]:
    """(gradients, updates) of some steps, leaf by leaf or on the vectors of a layout."""
    held = params if layout is None else layout.ravel(params)
    state, steps = tx.init(held), []
    for step in range(STEPS):
        grads, extra = gradients(step, params, scale), told(step, params)
        given = grads if layout is None else layout.ravel(grads)
        extra = extra if layout is None else {word: layout.raveled(value) for word, value in extra.items()}
        updates, state = tx.update(given, state, held, signals=heard(tx), **extra)
        held = apply_updates(held, updates)
        steps.append((grads, updates if layout is None else layout.unravel(updates)))
    return steps


def same(ones: TensorTree, others: TensorTree) -> bool:
    pairs = zip(tree.leaves(ones), tree.leaves(others), strict=True)
    return all(a.shape == b.shape and torch.allclose(a.to(torch.float64), b.to(torch.float64), **CLOSE) for a, b in pairs)


def flat_alike(tx: GradientTransformation, params: TensorTree, told: Extra, together: list[Any]) -> bool | None:
    """Whether updates on one flat vector are those leaf by leaf; False also where it does not run on one, None of a single leaf."""
    if isinstance(params, Tensor):
        return None
    try:
        flat = rollout(tx, params, told, Layout(params))
    except Exception:
        return False
    return all(same(updates, others) for (_, updates), (_, others) in zip(together, flat, strict=True))


def alone_alike(tx: GradientTransformation, params: TensorTree, told: Extra, together: list[Any]) -> bool:
    """Whether the updates of each leaf by itself are those of all together; False also where it does not run on one."""
    for index, leaf in enumerate(tree.leaves(params)):
        held = {"leaf": leaf}
        try:
            state = tx.init(held)
            for step, (grads, updates) in enumerate(together):
                extra = {word: _leaf(value, params, index) for word, value in told(step, params).items()}
                own, state = tx.update({"leaf": tree.leaves(grads)[index]}, state, held, signals=heard(tx), **extra)
                if not same(own["leaf"], tree.leaves(updates)[index]):
                    return False
                held = apply_updates(held, own)
        except Exception:
            return False
    return True


def _leaf(value: Any, params: TensorTree, index: int) -> Any:
    return {"leaf": tree.leaves(value)[index]} if tree.structure(value) == tree.structure(params) else value


def side(together: list[Any]) -> bool | None:
    """True where all updates point downhill, False where all point uphill."""
    products = [
        sum(float((g * u).sum()) for g, u in zip(tree.leaves(grads), tree.leaves(updates), strict=True)) for grads, updates in together
    ]
    return True if all(x < 0 for x in products) else False if all(x > 0 for x in products) else None


def of_one_length(tx: GradientTransformation, params: TensorTree, told: Extra, together: list[Any]) -> bool:
    """Whether the entries of every leaf's update have one size, also where gradients are so small that nothing is clipped."""
    return all(_of_one_size(u) for _, u in together) and all(_of_one_size(u) for _, u in rollout(tx, params, told, scale=TINY))


def _of_one_size(updates: TensorTree) -> bool:
    sizes = [u.abs().double() for u in tree.leaves(updates) if u.numel() > 1]
    return bool(sizes) and all(bool((u > (1 - 1e-6) * u.max()).all()) and bool(u.max() > 0) for u in sizes)


def _keeps_the_protocol(tx: GradientTransformation, params: TensorTree, told: Extra) -> None:
    """Purity, and that forms and dtypes stay."""
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        held = tree.map_plain(lambda p, dtype=dtype: p.to(dtype) if p.is_floating_point() else p, params)
        state = tx.init(held)
        for step in range(2):
            grads, extra = gradients(step, held), told(step, held)
            before = tree.clone((grads, state, held))
            updates, after = tx.update(grads, state, held, signals=heard(tx), **extra)
            if not _equal((grads, state, held), before):
                raise ValueError(
                    f"{tx.name}: update writes into its arguments; it must give new tensors and leave the old ones as they are"
                )
            with torch.random.fork_rng(devices=[]):
                again = tx.update(grads, state, held, signals=heard(tx), **extra)
            if not _equal((updates, after), again):
                raise ValueError(
                    f"{tx.name}: the same arguments give different updates; "
                    "randomness comes from a key in the state, memory is in the state"
                )
            if (difference := tree.first_difference(after, state, ("after an update", "before"))) is not None:
                raise ValueError(f"{tx.name}: an update changes the form of its state: {difference}")
            for path, new, old in zip(tree.paths(state), tree.leaves(after), tree.leaves(state), strict=True):
                if new.dtype != old.dtype:
                    raise ValueError(f"{tx.name}: an update changes the dtype of its state at '{path}' from {old.dtype} to {new.dtype}")
            if tx.alike and (difference := tree.first_difference(updates, grads, ("given back", "taken"))) is not None:
                raise ValueError(f"{tx.name}: updates must have the form of what they are made of: {difference}")
            for path, new, old in zip(tree.paths(grads), tree.leaves(updates), tree.leaves(grads), strict=False):
                if new.dtype != old.dtype:
                    raise ValueError(
                        f"{tx.name}: updates must keep the dtype of what they are made of, got {new.dtype} for {old.dtype} at '{path}'"
                    )
            state, held = after, apply_updates(held, updates)


def _equal(one: Any, other: Any) -> bool:
    pairs = zip(tree.leaves(one), tree.leaves(other), strict=True)
    return all(a.shape == b.shape and a.dtype == b.dtype and bool(((a == b) | ((a != a) & (b != b))).all()) for a, b in pairs)


# --- for runners ------------------------------------------------------------------------------------------------------------------


def vouch(tx: GradientTransformation, params: TensorTree) -> None:
    """Raises where a declaration that decides how `tx` runs is wrong; once for each transformation, and for none of this library."""
    if tx.house or compiling() or not readable(torch.zeros((), device="cpu")):
        return
    for link in links_with(tx, lambda traits: not traits.house and (traits.flattenable or traits.per_leaf)):
        for trait, measure in (("flattenable", flat_alike), ("per_leaf", alone_alike)):
            if getattr(link, trait) and trait not in link.__dict__.setdefault("vouched", set()):
                link.vouched.add(trait)
                _believe(link, trait, _measured(link, params, measure))


def vouch_search(tx: GradientTransformation, params: TensorTree) -> None:
    """Raises where a rate is looked for and the steps have one length though nobody declares it; once for each transformation."""
    if tx.house or not tx.own_rate or "one_length" in tx.__dict__.setdefault("vouched", set()):
        return
    if compiling() or not readable(torch.zeros((), device="cpu")):
        return
    tx.vouched.add("one_length")
    if _measured(tx, params, of_one_length):
        raise ValueError(
            f"{tx.name}: a rate is looked for, and its steps have one length whatever the gradient, so that none can be found; "
            "leave the search out, and declare one_length=True of the link that makes them so"
        )


def measured_turns(tx: GradientTransformation, params: TensorTree) -> bool | None:
    """On which side the updates of a transformation are that does not declare it; None where that cannot be found."""
    if tx.turns is not None or compiling() or not readable(torch.zeros((), device="cpu")):
        return tx.turns
    return _measured(tx, params, lambda tx, params, told, together: side(together))


def _measured(tx: GradientTransformation, params: TensorTree, measure: Callable[..., Any]) -> bool | None:
    """What is measured of a transformation that may need what nobody can make up, or not be deterministic: then None."""
    told = stand_ins(tx)
    for probe in _candidates(params):
        with torch.random.fork_rng(devices=[]):
            try:
                together = rollout(tx, probe, told)
                repeated = rollout(tx, probe, told)
                steady = all(same(updates, others) for (_, updates), (_, others) in zip(together, repeated, strict=True))
                return measure(tx, probe, told, together) if steady else None
            except Exception:  # nothing was vouched for, and nothing found out
                continue
    return None


def _candidates(params: TensorTree) -> Iterator[TensorTree]:
    yield some_params()
    if len(tree.leaves(params)) <= FEW:
        yield like(params)
