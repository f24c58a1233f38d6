"""What an `nn.Parameter` is here: a number that is trained, at which graphs end.

`torch.func.grad` at `dict(module.named_parameters())` gives gradients that carry an
autograd graph of their own, since parameters require grad. A state made of them would
keep the graphs of all steps. So where parameters are handed in, `init` and `update` see
numbers, and `apply_updates` gives new parameters without a past.

Whoever means the graph (hypergradients, MAML) hands in what is no parameter, such as
`p.clone()`, or works under `torch.func.grad`: there nothing is cut.
"""

from typing import Any

from torch import Tensor
from torch.nn import Parameter

from funcopt.core import tree
from funcopt.core.door.callers import warn
from funcopt.core.versions import compiling, transforming

__all__ = ["is_trained", "moved_parameter", "numbers", "without_graphs", "without_stray_graphs"]

REMEDY = (
    "hand in {name: p.detach() for name, p in module.named_parameters()} to train, which builds no such graph, "
    "or p.clone() to differentiate through the step"
)


def is_trained(x: Any) -> bool:
    """Whether x is a parameter of a module that requires grad, and no derivative of torch.func is being taken."""
    return isinstance(x, Tensor) and x.requires_grad and isinstance(x, Parameter) and (compiling() or not transforming())


def numbers(x: Any) -> Any:
    """The tree with its parameters as plain tensors."""
    return tree.map_plain(lambda leaf: leaf.detach() if is_trained(leaf) else leaf, x)


def without_graphs(where: str, updates: Any, params: Any) -> tuple[Any, Any]:
    """Updates and params, some of which are parameters: these and their gradients as numbers."""
    marks = [is_trained(p) for p in tree.leaves(params)]
    flat, structure = tree.leaves(updates), tree.structure(updates)
    if structure != tree.structure(params):  # updates that carry something else
        marks = [True] * len(flat)
    elif not compiling():
        path = next((path for path, mark, g in zip(tree.paths(params), marks, flat, strict=True) if mark and g.requires_grad), None)
        if path is not None:
            graph = "an autograd graph, which ends here, or every step would keep it"
            said = f"{where}: '{path}' is an nn.Parameter and its gradient carries {graph}"
            warn(f"{said}; {REMEDY}")
    return tree.unflatten(updates, [g.detach() if mark else g for mark, g in zip(marks, flat, strict=True)]), numbers(params)


def without_stray_graphs(updates: Any, params: Any, extra: dict[str, Any]) -> dict[str, Any]:
    """Extra arguments, such as the loss: as numbers, where nothing is differentiated that they could belong to."""
    carrying = [name for name, value in extra.items() if isinstance(value, Tensor) and value.requires_grad]
    if not carrying or compiling() or transforming() or any(x.requires_grad for x in tree.leaves((updates, params))):
        return extra
    return {**extra, **{name: extra[name].detach() for name in carrying}}


def moved_parameter(where: str, p: Tensor, moved: Tensor) -> Tensor:
    """What comes back in place of a parameter: a new one; or what a hyperparameter can be differentiated by."""
    if moved.requires_grad:
        return moved
    warn(f"{where}: an nn.Parameter comes back as a new one, cut from the old, or graphs would grow from step to step; {REMEDY}")
    return Parameter(moved)
