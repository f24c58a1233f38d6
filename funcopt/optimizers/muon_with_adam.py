"""Muon for a whole model: hidden matrices by Muon, embeddings, heads, gains and biases by AdamW, at one rate.

    matrices   u = 0.2 sqrt(max(in, out)) Newton-Schulz(m)        (muon.py; the RMS of Adam's steps, whatever the shape)
    the rest   u = Adam's                                         (adamw.py)
    p <- p - lr (u + weight_decay p)

Source: Jordan et al. 2024 (which leaves); Liu et al., "Muon is Scalable for LLM Training", 2025 (rates matched by RMS).
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, tree
from funcopt.optimizers.dimension_numbers import MuonDimensionNumbers
from funcopt.optimizers.matrices import MuonPartitionState
from funcopt.optimizers.muon import muon
from funcopt.transforms.groups import Labels, by_path, entries_of

__all__ = ["muon_labels", "muon_with_adam"]

WHERE = "muon_with_adam"
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
# Parts of a path by which embeddings and heads are called: tok_embeddings, wte, patch_embed, lm_head, classifier, fc_out, ...
NAMED = re.compile(r"\w*embed\w*|\w*_emb|emb|wte|wpe|\w*head|classifier|score|output|fc_out|logits")
Choice = TensorTree | Callable[..., Any] | Mapping[str, Any] | nn.Module | None
Split = Mapping[str, int | tuple[int, ...]] | None


def muon_labels(module: nn.Module | None = None) -> Callable[[TensorTree], TensorTree]:
    """The label of every leaf, "muon" or "adam", by which `muon_with_adam` chooses.

    "adam" is what has fewer than two axes, and embeddings and heads: by the types of the modules where one is given (every
    `nn.Embedding`, whoever shares its weight, and the last `nn.Linear`), and by their names ("embed" in a part of the path,
    "wte", "wpe", "lm_head", "classifier", "output", ...).

    Args:
        module: whose parameters the leaves are, by the same names; None: names alone decide.

    Returns:
        A function from a tree of params to a tree of labels, for `muon_with_adam(labels=...)` and `describe_groups`.

    Raises:
        TypeError: `module` is no module.

    Example:
        >>> mlp = {"weight": torch.zeros(8, 4), "bias": torch.zeros(8)}
        >>> params = {"wte": {"weight": torch.zeros(50, 4)}, "mlp": mlp, "lm_head": torch.zeros(50, 4)}
        >>> print(fo.describe_groups(fo.muon_labels(), params))
        group  leaves  entries  share  paths
        adam        3      408    93%  lm_head, mlp.bias, wte.weight
        muon        1       32     7%  mlp.weight
    """
    if module is not None and not isinstance(module, nn.Module):
        raise TypeError(f"muon_labels: module must be an nn.Module or None, got {module!r}")
    by_type = frozenset() if module is None else frozenset(_ends(module))

    def label(path: str, leaf: Tensor) -> str:
        named = any(NAMED.fullmatch(part) for part in path.split("."))
        return "adam" if leaf.dim() < 2 or named or path in by_type else "muon"

    return by_path(label)


def _ends(module: nn.Module) -> Iterator[str]:
    """The names of the weights of embeddings, of whoever shares them, and of the last linear layer."""
    linear = [name for name, part in module.named_modules() if isinstance(part, nn.Linear)]
    tied = {id(part.weight) for part in module.modules() if isinstance(part, EMBEDDINGS)}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if id(parameter) in tied or (linear and name == f"{linear[-1]}.weight".lstrip(".")):
            yield name


def muon_with_adam(
    lr: ScalarOrSchedule | None,
    labels: Choice = None,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | Callable[..., Any] | None = None,
    *,
    split: Split = None,
    beta: Scalar = 0.95,
    nesterov: bool = True,
    ns_steps: int = 5,
    consistent_rms: Scalar | None = 0.2,
    eps: Scalar = 1e-8,
    adam_b1: Scalar = 0.9,
    adam_b2: Scalar = 0.999,
    adam_weight_decay: ScalarOrSchedule = 0.0,
    adam_lr: ScalarOrSchedule | None = None,
    ns_dtype: torch.dtype | None = None,
) -> GradientTransformation[MuonPartitionState]:
    """Muon on a model's hidden matrices, AdamW on its embeddings, heads, gains and biases.

    Args:
        lr: the rate of both, >= 0, as AdamW's: a number, a 0-dim tensor or a schedule.
        labels: which leaf is whose, "muon" or "adam": the model (`muon_labels(model)`), a mapping from patterns
            (`{"head.*": "adam", "*.weight": "muon", "*": "adam"}`), or a tree of labels or a function that gives one; None:
            `muon_labels()`. `print(fo.describe_groups(labels, params))` shows the choice.
        weight_decay: of the matrices, times `lr`; >= 0.
        weight_decay_mask: which of the matrices decay, as `masked` takes it; None: all.
        split: of fused weights by pattern, the number of matrices that lie one after the other by rows, or the rows of each:
            `{"*.qkv.weight": 3}`, `{"*.qkv.weight": (768, 256, 256)}`. Each is orthogonalised by itself.
        beta: share of the past in Muon's mean, in [0, 1).
        nesterov: whether Muon looks a step ahead.
        ns_steps: iterations of Newton-Schulz, >= 1.
        consistent_rms: RMS of Muon's steps beside Adam's of about 0.2; None: sqrt(max(1, out / in)) times the orthogonal
            matrix, which wants rates of its own (`adam_lr`).
        eps: keeps divisions finite, >= 0.
        adam_b1: share of the past in Adam's mean, in [0, 1).
        adam_b2: share of the past in Adam's mean square, in [0, 1).
        adam_weight_decay: of the rest, times its rate; >= 0.
        adam_lr: the rate of the rest; None: `lr`.
        ns_dtype: dtype of the iterations; None: that of the gradient; torch's class takes bfloat16.

    Returns:
        A transformation from gradients to updates, downhill and in units of the params. Kernels, (out, in, height, width),
        are matrices of `out` rows. Holds one tree like the matrices and two like the rest.

    After a NaN:
        Its leaf of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 its leaf stays at 0; clip.

    Signals:
        says the rate of the matrices as `lr`, and each part's as `muon/lr` and `adam/lr`.

    Raises:
        ValueError: a number is out of range; a label is neither "muon" nor "adam", or "muon" for a leaf with fewer than two
            axes; `split` does not make up the rows of a leaf.

    Example:
        >>> params = {"head": {"weight": torch.ones(3, 2)}, "qkv": {"weight": torch.ones(6, 2), "bias": torch.ones(6)}}
        >>> tx = fo.muon_with_adam(1e-3, split={"qkv.weight": 3})
        >>> state = tx.init(params)
        >>> fo.tree.paths(state.inner_states["muon"].inner_state[0].mu), fo.tree.paths(state.inner_states["adam"].inner_state[0].mu)
        (['qkv.weight'], ['head.weight', 'qkv.bias'])
    """
    chosen = muon_labels(labels) if labels is None or isinstance(labels, nn.Module) else by_path(labels) if _patterns(labels) else labels
    cuts = [] if split is None else [(by_path(pattern), part) for pattern, part in split.items()]

    def numbers(values: TensorTree) -> list[MuonDimensionNumbers | None]:
        found: list[MuonDimensionNumbers | None] = []
        parts: list[Any] = [1] * len(tree.leaves(values))
        for mask, part in reversed(cuts):  # of several patterns the first counts
            parts = [part if meant else before for meant, before in zip(entries_of(mask, values, WHERE, "split"), parts, strict=True)]
        for label, leaf, path, part in zip(
            entries_of(chosen, values, WHERE, "labels"), tree.leaves(values), tree.paths(values), parts, strict=True
        ):
            if label not in ("muon", "adam"):
                raise ValueError(f"{WHERE}: labels must be 'muon' or 'adam', got {label!r} at '{path}'")
            if label == "muon" and leaf.dim() < 2:
                raise ValueError(f"{WHERE}: a leaf of Muon must have two axes or more, got '{path}' of rank {leaf.dim()}; label it 'adam'")
            found.append(MuonDimensionNumbers(tuple(range(1, leaf.dim())), 0, part) if label == "muon" else None)
        return found

    return muon(
        lr,
        ns_steps=ns_steps,
        beta=beta,
        eps=eps,
        weight_decay=weight_decay,
        weight_decay_mask=weight_decay_mask,
        nesterov=nesterov,
        adam_b1=adam_b1,
        adam_b2=adam_b2,
        adam_weight_decay=adam_weight_decay,
        adam_lr=adam_lr,
        adam_nesterov=False,
        muon_weight_dimension_numbers=Labels(numbers),
        consistent_rms=consistent_rms,
        ns_dtype=ns_dtype,
    )


def _patterns(labels: Any) -> bool:
    """Whether it maps patterns to labels, and is no tree of them: its keys would all have to be names of leaves."""
    return isinstance(labels, Mapping) and any(re.search(r"[*?\[.]", str(key)) for key in labels)
