"""param_groups: the groups of an optimizer as people write them: no decay for norms and biases, smaller rates near the input.

lr_l = layer_decay^(L - l) lr       for layer l = 1, ..., L, counted from the input      (`transforms/depth.py`)
weight_decay = 0                    for the kinds of parameters that are named           (`transforms/no_decay.py`)
"""

from typing import Any

from torch import nn

from funcopt.core import check
from funcopt.core.door.shown import shown
from funcopt.transforms.depth import depths_in
from funcopt.transforms.no_decay import no_decay as left_out

__all__ = ["param_groups"]


def param_groups(
    module: nn.Module,
    lr: float | None = None,
    *,
    weight_decay: float | None = None,
    no_decay: str | None = "norms and biases",
    layer_decay: float | None = None,
) -> list[dict[str, Any]]:
    """Groups of a module's parameters, for any optimizer of torch's form, ours or torch's (2.6 or newer, which knows pairs with names).

    Args:
        module: whose trained parameters are dealt out, each once, under their names.
        lr: the rate of the layer at the output, > 0; None: that of the optimizer, unless there is a `layer_decay`.
        weight_decay: of what is decayed, >= 0; None: that of the optimizer.
        no_decay: which kinds have a `weight_decay` of 0: of "norms", "biases" and "embeddings" those that are named, joined by "and"
            or commas; None: none.
        layer_decay: in (0, 1]: each layer nearer to the input has this share of the rate of the next; None: all have one.

    Returns:
        Dicts with "params" (pairs of a name and a parameter), and, where they are given, "lr" and "weight_decay"; one for each that differ.
        `print(fo.describe_groups(groups))` shows them.

    Raises:
        TypeError, ValueError: an argument is out of its range; `layer_decay` is given without `lr`; the module trains nothing.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 2))
        >>> groups = fo.torch_optim.param_groups(model, 0.1, weight_decay=0.01, layer_decay=0.5)
        >>> print(fo.describe_groups(groups))
        group                           leaves  entries  share  paths
        0: lr 0.025, weight_decay 0.01       1       12    35%  0.weight
        1: lr 0.025, weight_decay 0          1        4    12%  0.bias
        2: lr 0.05, weight_decay 0           2        8    24%  1.weight, 1.bias
        3: lr 0.1, weight_decay 0.01         1        8    24%  2.weight
        4: lr 0.1, weight_decay 0            1        2     6%  2.bias
        >>> opt = fo.torch_optim.adamw(groups)
    """
    where = "torch_optim.param_groups"
    if not isinstance(module, nn.Module):
        raise TypeError(f"{where}: module must be a torch.nn.Module, got {shown(module)}")
    if lr is not None:
        check.positive(where, "lr", lr)
    if weight_decay is not None:
        check.nonnegative(where, "weight_decay", weight_decay)
    if layer_decay is not None:
        check.within(where, "layer_decay", layer_decay, 0, 1)
        check.positive(where, "layer_decay", layer_decay)
        if lr is None:
            raise ValueError(f"{where}: needs lr, of which the layers have their shares by layer_decay")
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if not trained:
        raise ValueError(f"{where}: the module must have a parameter that requires grad, and {type(module).__name__} has none")
    decayed = dict.fromkeys(trained, True) if no_decay is None else left_out(no_decay, module)(trained)
    layers = depths_in(module)
    L = max(layers[name] for name in trained)
    groups: dict[tuple[Any, bool], dict[str, Any]] = {}
    for name, p in trained.items():
        rate = lr if layer_decay is None or lr is None else layer_decay ** (L - layers[name]) * lr
        group = groups.setdefault((rate, decayed[name]), {"params": []})
        group["params"].append((name, p))
        if rate is not None:
            group["lr"] = rate
        if not decayed[name]:
            group["weight_decay"] = 0.0
        elif weight_decay is not None:
            group["weight_decay"] = weight_decay
    return list(groups.values())
