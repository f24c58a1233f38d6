"""Blocks of a model, perturbed in turn: layer sampling as data, and chains that leave the other blocks alone.

    bottom_up   step t perturbs group t mod G
    top_down    group (G - 1) - (t mod G)
    random      one drawn from fold_in(key, t)
    all         every group

A group is the leaves whose paths begin alike: "body.0.weight" and "body.2.bias" are
of group "body" (depth 1), in the order in which params names them.

Source: pytorch-optimize (`Strategy.ALL`, `BOTTOM_UP`, `TOP_DOWN`, `RANDOM`). It leaves
old gradients in the groups that are not chosen, which then go on being applied; here they are
zero, and `only_selected` holds them still under momentum and decay as well.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, TensorTree, check, random, read_signals, tree
from funcopt.core.door.shown import shown
from funcopt.core.states.map_params import tree_map_params
from funcopt.core.typed import Unpack
from funcopt.core.wrap import field, wrapped
from funcopt.es.estimate.grad import Estimate
from funcopt.es.estimate.info import Info
from funcopt.es.keywords import LayerEstimation
from funcopt.es.options import settings_of

__all__ = ["Layers", "OnlySelectedState", "group_paths", "layers", "layerwise", "only_selected"]

Order = Literal["all", "bottom_up", "top_down", "random"]
CHOICE = 2**32  # the stream of the choice of a group, beyond those of leaves and objectives

Groups = Callable[[str], str] | Mapping[str, str | Sequence[str]] | None
Strategy = Order | Callable[[int], int | str]


def group_paths(params: Any, groups: Groups = None, depth: int = 1) -> dict[str, list[str]]:
    """The groups of a tree: name -> paths of its leaves, in the order in which params names them.

    Args:
        params: a tree, such as `dict(model.named_parameters())`.
        groups: None: by the first `depth` parts of the path; a function from a path to
            the name of its group; or a mapping from names to one or several patterns of
            paths ("encoder.*"), the first that matches counts.
        depth: how many parts, >= 1.

    Returns:
        A dict from names to lists of paths.

    Raises:
        ValueError: a leaf matches no pattern, or a pattern no leaf.

    Example:
        >>> fo.es.group_paths({"first.weight": torch.zeros(1), "body.0.weight": torch.zeros(1), "body.0.bias": torch.zeros(1)})
        {'first': ['first.weight'], 'body': ['body.0.weight', 'body.0.bias']}
    """
    check.integer("es.layers", "depth", depth, 1)
    paths = list(_in_order(params, ()))
    if isinstance(groups, Mapping):
        for name, given in groups.items():
            if not isinstance(given, (str, list, tuple)) or not all(isinstance(pattern, str) for pattern in given):
                raise TypeError(f"es.layers: group {name!r} must be a pattern of paths or a list of them, got {shown(given)}")
        patterns = {name: [given] if isinstance(given, str) else list(given) for name, given in groups.items()}
        found: dict[str, list[str]] = {name: [] for name in patterns}
        for path in paths:
            name = next((name for name, given in patterns.items() if any(fnmatchcase(path, pattern) for pattern in given)), None)
            if name is None:
                raise ValueError(
                    f"es.layers: groups has no pattern that matches '{path}'; "
                    "add a group for it, or mask it out and give it one that is never chosen"
                )
            found[name].append(path)
        for name, members in found.items():
            if not members:
                raise ValueError(f"es.layers: group {name!r} matches none of the paths {', '.join(paths)}")
        return found
    found = {}
    for path in paths:
        name = groups(path) if groups is not None else ".".join(path.split(".")[:depth])
        found.setdefault(name, []).append(path)
    return found


def _in_order(node: Any, prefix: tuple[str, ...]) -> Iterator[str]:
    """Paths as `tree.paths` writes them, but the keys of a dict in the order in which they were put in."""
    if isinstance(node, dict):
        children = node.items()
    elif isinstance(node, tuple) and hasattr(node, "_fields"):
        children = zip(node._fields, node, strict=True)  # pyright: ignore[reportAttributeAccessIssue]
    elif isinstance(node, (list, tuple)):
        children = enumerate(node)
    else:
        yield from (".".join([*prefix, path] if path else prefix) for path in tree.paths(node))
        return
    for name, child in children:
        yield from _in_order(child, (*prefix, str(name)))


class Layers:
    """Which group is perturbed at a step; made by `layers`."""

    def __init__(self, strategy: Strategy, groups: Groups, depth: int, key: Any):
        if not callable(strategy):
            check.choice("es.layers", "strategy", strategy, get_args(Order))
        check.integer("es.layers", "depth", depth, 1)
        self.strategy, self.groups, self.depth = strategy, groups, depth
        self.key = None if key is None else random.as_key(key, "es.layers")

    def chosen(self, step: int | Tensor, names: Sequence[str], key: Tensor | None = None) -> int | Tensor | None:
        """The number of the group; None: all of them."""
        count = len(names)
        if callable(self.strategy):
            group = self.strategy(step)  # pyright: ignore[reportArgumentType]
            if isinstance(group, str):
                check.choice("es.layers", "what strategy returns", group, names)
                return list(names).index(group)
            return group
        if self.strategy == "all":
            return None
        if self.strategy == "bottom_up":
            return step % count
        if self.strategy == "top_down":
            return count - 1 - step % count
        key = self.key if key is None else key
        if key is None:
            raise ValueError("es.layers: strategy='random' needs a key; pass layers('random', key=...) or call it with key=")
        drawn = random.randint(random.fold_in(key, step), (), 0, count)
        return random.host_int(drawn) if random.readable(drawn) else drawn

    def __call__(self, step: int | Tensor, params: Any = None, *, key: Any = None) -> Any:
        """The mask of a step: a tree of bools, or without params the function that makes it of them (for `mask=`)."""
        if params is None:
            return lambda params: self(step, params, key=key)
        groups = group_paths(params, self.groups, self.depth)
        number = self.chosen(step, list(groups), None if key is None else random.as_key(key, "es.layers"))
        owner = {path: place for place, members in enumerate(groups.values()) for path in members}
        return tree.map_with_path(lambda path, leaf: True if number is None else _is(number, owner[path]), params)


def _is(number: int | Tensor, group: int) -> bool | Tensor:
    return number == group


def layers(strategy: Strategy = "random", *, groups: Groups = None, depth: int = 1, key: Any = None) -> Layers:
    """Blocks of a model, one a step: a function from the step to a mask for `es.grad(mask=...)`.

    Args:
        strategy: "all", "bottom_up", "top_down" or "random"; or a function from the step
            to the name or number of a group.
        groups: what makes a group, see `group_paths`: None, a function of the path, or
            patterns by name.
        depth: without `groups`, how many parts of the path name a group, >= 1.
        key: of "random": an int or key; it can be given with the step instead.

    Returns:
        `mask(step, params=None, *, key=None)`: a tree of bools like params, without
        params a function that makes it of them. A step that is a 0-dim tensor gives
        0-dim bool tensors.

    Raises:
        ValueError: an unknown strategy, a missing key, a group without leaves.

    Example:
        >>> params = {"first.w": torch.zeros(2), "last.w": torch.zeros(2)}
        >>> blocks = fo.es.layers("top_down")
        >>> [blocks(step, params) for step in (0, 1)]
        [{'first.w': False, 'last.w': True}, {'first.w': True, 'last.w': False}]
    """
    return Layers(strategy, groups, depth, key)


def layerwise(
    objective: Callable[..., Any],
    argnums: int = 0,
    *,
    strategy: Strategy = "random",
    groups: Groups = None,
    depth: int = 1,
    popsize: int,
    sigma: Any,
    maximize: bool = True,
    **options: Unpack[LayerEstimation],
) -> Callable[..., tuple[Any, Info]]:
    """`es.grad` of one block of the model at a time, as pytorch-optimize does it.

    Args:
        objective: of one member, as for `es.grad`. It is made as LARGE as possible
            unless `maximize=False`, as there.
        argnums: the positional argument to perturb.
        strategy, groups, depth: see `layers`.
        popsize, sigma: see `es.grad`.
        maximize: whether larger is better.
        **options: those of `es.grad`; `tie="last"` gives equal members the rank that
            pytorch-optimize gives them.

    Returns:
        `grad_fn(params, *args, key=key, step=step, **kwargs) -> (grads, info)`. Leaves
        outside the block of this step get exact zeros. Wrap the chain in
        `es.only_selected` to hold them still under momentum and decay.

    Raises:
        ValueError: a `mask` is given, which the block of the step is; or as in `es.grad` and `layers`.
        TypeError: in a call, `key` or `step` is missing.

    Example:
        >>> params = {"first": torch.ones(2), "last": torch.ones(2)}
        >>> grad_fn = fo.es.layerwise(lambda p: -(p["first"] * p["last"]).sum(), strategy="bottom_up", popsize=8, sigma=0.1)
        >>> grads, info = grad_fn(params, key=0, step=1)
        >>> grads["first"], bool((grads["last"] != 0).all())
        (tensor([0., 0.]), True)
    """
    choose = layers(strategy, groups=groups, depth=depth)
    if options.get("mask") is not None:
        raise ValueError("es.layerwise: the block of the step is the mask; leave leaves out by groups, or use es.grad with mask=")
    estimate = Estimate(objective, argnums, settings_of("es.layerwise", popsize=popsize, sigma=sigma, maximize=maximize, **options))

    def grad_fn(*args: Any, key: Any = None, step: int | Tensor | None = None, **kwargs: Any) -> tuple[Any, Info]:
        if key is None:
            raise TypeError("es.layerwise: needs a key for the noise of this call; pass key=, an int or fo.random.fold_in(root, step)")
        if step is None and strategy != "all":
            raise TypeError("es.layerwise: needs the step, which decides on the block; pass step=, counted from 0")
        key = random.as_key(key, "es.layerwise")
        mask = choose(0 if step is None else step, estimate.perturbed(args), key=random.fold_in(key, CHOICE))
        return estimate(args, kwargs, key, mask)

    return grad_fn


class OnlySelectedState(NamedTuple):
    inner_state: Any  # of what it wraps

    def signals(self) -> dict[str, Tensor]:
        return read_signals(self.inner_state)


def only_selected(inner: GradientTransformation) -> GradientTransformation:
    """Holds leaves still whose whole gradient is zero in this step: their parameters, and what `inner` keeps for them.

    For `layerwise` gradients and masks that change: without it momentum, averages
    and decay go on moving the leaves of other blocks. Counters and what belongs to
    no leaf go on.

    Args:
        inner: any transformation; usually the whole chain.

    Returns:
        A transformation like `inner`; leaves selected in this step get its updates, the
        others zeros.

    After a NaN:
        What it is given decides; docs/when-numbers-go-bad.md has each.

    Raises:
        TypeError: `inner` is no transformation.

    Example:
        >>> tx = fo.es.only_selected(fo.sgd(1.0, momentum=0.5))
        >>> params = {"a": torch.zeros(1), "b": torch.zeros(1)}
        >>> state = tx.init(params)
        >>> one, zero = torch.ones(1), torch.zeros(1)
        >>> updates, state = tx.update({"a": one, "b": zero}, state, params)
        >>> updates, state = tx.update({"a": zero, "b": one}, state, params)
        >>> updates
        {'a': tensor([-0.]), 'b': tensor([-1.])}
    """

    def init(params: TensorTree) -> OnlySelectedState:
        return OnlySelectedState(inner_state=inner.init(params))

    def update(updates: TensorTree, state: OnlySelectedState, params: TensorTree | None = None, *, signals: Any = None, **extra: Any):
        selected = [(g != 0).any() for g in tree.leaves(updates)]
        moved, inner_state = inner.update(updates, state.inner_state, params, signals=signals, **extra)
        told = tree.unflatten(updates, selected)

        def always(part: Tensor) -> Tensor:
            return torch.ones((), dtype=torch.bool, device=part.device)

        moves = tree_map_params(updates, lambda part, chosen: chosen, inner_state, told, transform_non_params=always)
        held = [
            torch.where(chosen, new, old)
            for chosen, new, old in zip(tree.leaves(moves), tree.leaves(inner_state), tree.leaves(state.inner_state), strict=True)
        ]
        still = [torch.where(chosen, u, torch.zeros_like(u)) for chosen, u in zip(selected, tree.leaves(moved), strict=True)]
        return tree.unflatten(moved, still), OnlySelectedState(inner_state=tree.unflatten(inner_state, held))

    return wrapped(init, update, inner, field("inner_state"), name=f"only_selected {inner.name}", flattenable=False)
