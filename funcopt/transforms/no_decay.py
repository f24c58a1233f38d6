"""no_decay: who is left out of weight decay, by a word: "norms and biases".

    with a module      by what the modules are: a parameter of a norm, one named bias, one of an embedding
    without one        by name and rank: `bias`, `b`, `in_proj_bias`; other leaves of rank 0 or 1, and those under `norm`, `ln`, `bn`;
                       those under `embedding`, `wte`, `pos_embed`

Weight decay pulls a gain of a norm towards zero and not towards one, and a bias towards the origin; Loshchilov and Hutter 2019 decay all,
most recipes since BERT (Devlin et al., 2018) leave these out.
"""

import re
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from funcopt.core import tree
from funcopt.core.door.shown import shown
from funcopt.transforms.groups import LISTED, Labels

__all__ = ["no_decay", "parameter_kinds"]

KINDS = ("norms", "biases", "embeddings")
REST = "weights"
NORM = re.compile(r"(.*[a-z_])?(norm|ln|bn)\d*(_[a-z0-9]+)?", re.I)  # norm, norm1, layer_norm, LayerNorm_0, ln_f, bn2
EMBEDDING = re.compile(r".*embed.*|wte|wpe", re.I)
BIAS = re.compile(r"(.*_)?bias(_.*)?|b", re.I)


def parameter_kinds(module: nn.Module | None = None) -> Callable[[Any], Any]:
    """Labels "norms", "biases", "embeddings" and "weights": for `partition`, and to look at with `describe_groups`.

    Args:
        module: the one whose parameters the leaves are, under their names in `named_parameters()`: then its types tell. None: names and
            ranks do, so that in a tree without names that say it every vector is a norm's.

    Returns:
        A function from a tree of params to a tree of labels.

    Raises:
        TypeError: `module` is no module.
        ValueError: when called, a leaf has a name that the module has not.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Embedding(7, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 2))
        >>> print(fo.describe_groups(fo.parameter_kinds(model), dict(model.named_parameters())))
        group       leaves  entries  share  paths
        embeddings       1       28    61%  0.weight
        biases           2        6    13%  1.bias, 2.bias
        norms            1        4     9%  1.weight
        weights          1        8    17%  2.weight
    """
    return Labels(_kinds("parameter_kinds", module))


def no_decay(what: str = "norms and biases", module: nn.Module | None = None) -> Callable[[Any], Any]:
    """A `weight_decay_mask` that leaves some kinds of parameters out.

    Args:
        what: of "norms", "biases" and "embeddings" those that are not decayed, joined by "and" or commas. A bias of a norm is
            both: it is left out by either word.
        module: as in `parameter_kinds`.

    Returns:
        A function from a tree of params to a tree of bools, True for what is decayed.

    Raises:
        TypeError, ValueError: a word is none of these; `module` is no module; when called, a leaf has a name that the module has not.

    Example:
        >>> params = {"fc": {"weight": torch.zeros(3, 2), "bias": torch.zeros(3)}, "norm": {"weight": torch.zeros(3)}}
        >>> fo.no_decay("norms and biases")(params)
        {'fc': {'weight': True, 'bias': False}, 'norm': {'weight': False}}
        >>> tx = fo.adamw(1e-3, weight_decay=0.1, weight_decay_mask=fo.no_decay("norms, biases and embeddings"))
    """
    where = "no_decay"
    if not isinstance(what, str):
        raise TypeError(f"{where}: what must be a string such as 'norms and biases', got {shown(what)}")
    words = [word.strip() for word in re.split(r",|\band\b", what) if word.strip()]
    strangers = [word for word in words if word not in KINDS]
    if strangers or not words:
        raise ValueError(f"{where}: what must name some of {', '.join(KINDS)}, joined by 'and' or commas, got {what!r}")
    kinds = _kinds(where, module, norms_first="biases" not in words)
    return Labels(lambda values: [kind not in words for kind in kinds(values)])


def _kinds(where: str, module: nn.Module | None, norms_first: bool = False) -> Callable[[Any], list[Any]]:
    """The kind of every leaf; of what is both, a bias of a norm, "biases", or "norms" first."""
    if module is not None and not isinstance(module, nn.Module):
        raise TypeError(f"{where}: module must be a torch.nn.Module or None, got {shown(module)}")
    told = None if module is None else kinds_in(module, norms_first)

    def entries(values: Any) -> list[Any]:
        paths = tree.paths(values)
        if told is None:
            return [kind_by_name(path, leaf, norms_first) for path, leaf in zip(paths, tree.leaves(values), strict=True)]
        strange = [path for path in paths if path not in told]
        if strange:
            raise ValueError(
                f"{where}: leaves must have the names of the module's parameters, and it has no {', '.join(strange[:LISTED])}; "
                f"it has {', '.join(list(told)[:LISTED])}"
            )
        return [told[path] for path in paths]

    return entries


def kinds_in(module: nn.Module, norms_first: bool = False) -> dict[str, str]:
    """The kind of every parameter of a module, by its name."""
    owners = dict(module.named_modules(remove_duplicate=False))
    found = {}
    for path, leaf in module.named_parameters():
        owner = owners[path.rpartition(".")[0]]
        own = path.rpartition(".")[2]
        if is_norm(owner):
            found[path] = "biases" if BIAS.fullmatch(own) and not norms_first else "norms"
        elif isinstance(owner, (nn.Embedding, nn.EmbeddingBag)) or type(owner).__name__.endswith("Embedding"):
            found[path] = "embeddings"
        elif BIAS.fullmatch(own):
            found[path] = "biases"
        elif next(owner.children(), None) is None:  # a layer of weights, or one of one's own
            found[path] = REST
        else:  # a parameter beside modules, such as an embedding of positions: its name tells
            found[path] = kind_by_name(own, leaf, norms_first)
    return found


def is_norm(module: nn.Module) -> bool:
    """Whether it is a norm of torch, or is called one (RMSNorm of many libraries)."""
    known = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)
    return isinstance(module, known) or type(module).__name__.lower().endswith(("norm", "norm1d", "norm2d", "norm3d"))


def kind_by_name(path: str, leaf: Tensor, norms_first: bool = False) -> str:
    """The kind of a leaf of which only name and rank are known."""
    *around, own = path.split(".")
    within = any(NORM.fullmatch(part) for part in around)
    if BIAS.fullmatch(own) and leaf.dim() <= 1:
        return "norms" if within and norms_first else "biases"
    if any(EMBEDDING.fullmatch(part) for part in (*around, own)):
        return "embeddings"
    return "norms" if within or leaf.dim() <= 1 else REST
