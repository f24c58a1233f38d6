"""Guided evolution strategies: search mostly where surrogate gradients point.

    U [D, k]   the last k surrogate gradients,   Q [D, k] an orthonormal basis of them
    eps = sqrt(alpha / D) e1 + sqrt((1 - alpha) / k) Q e2,       e1 [D], e2 [k] normal
    g   = beta / (2 sigma H) sum_j (f+_j - f-_j) eps_j

To first order the estimate expects beta (alpha / D I + (1 - alpha) / k Q Q^T) grad f:
inside the subspace the gradient shrinks by about k / (1 - alpha), outside by
D / alpha. `beta` gives the size back; nothing is rescaled on its own. |eps|^2 is about 1, where
the other laws have D: take `sigma` for the whole step, not for each element.

Source: Maheswaranathan et al., "Guided evolutionary strategies", ICML 2019, for one
pair. Reference: evosax GuidedES, which sums over the pairs where this averages.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import check, random, tree
from funcopt.es.noise.distributions import Law
from funcopt.es.noise.sources import EAGER, Source

__all__ = ["Surrogates", "guided", "push_surrogate", "surrogates"]


class Surrogates(NamedTuple):
    """The last surrogate gradients; a tree like params, the newest last."""

    gradients: Any  # leaves [k, *shape]
    count: Tensor  # int64, pushed so far


def surrogates(params: Any, k: int = 1) -> Surrogates:
    """Room for k surrogate gradients of params, all zero.

    Args:
        params: tree of tensors, whose shapes and dtypes the gradients have.
        k: how many gradients are kept, >= 1.

    Returns:
        A state for `push_surrogate` and `guided`.

    Raises:
        ValueError: `k` is below 1.

    Example:
        >>> state = fo.es.surrogates({"w": torch.zeros(3)}, k=2)
        >>> state = fo.es.push_surrogate(state, {"w": torch.tensor([1.0, 0.0, 2.0])})
        >>> state.gradients["w"]
        tensor([[0., 0., 0.],
                [1., 0., 2.]])
    """
    check.integer("es.surrogates", "k", k, 1)
    device = tree.device(params)
    return Surrogates(
        gradients=tree.map_plain(lambda p: torch.zeros(k, *p.shape, dtype=p.dtype, device=p.device), params),
        count=torch.zeros((), dtype=torch.int64, device=device),
    )


def push_surrogate(state: Surrogates, gradient: Any) -> Surrogates:
    """The newest surrogate gradient in, the oldest out.

    Args:
        state: of `surrogates`, k gradients, the newest last.
        gradient: a tree like the params.

    Returns:
        The state with the first gradient dropped and this one at the end.

    Example:
        >>> state = fo.es.surrogates(torch.zeros(1), k=2)
        >>> for slope in (1.0, 2.0, 3.0):
        ...     state = fo.es.push_surrogate(state, torch.tensor([slope]))
        >>> state.gradients
        tensor([[2.],
                [3.]])
    """
    kept = tree.map_plain(lambda row: row[0], state.gradients)
    tree.assert_alike("es.push_surrogate", gradient, kept, ("gradient", "params"))
    pushed = tree.map_plain(lambda rows, g: torch.cat([rows[1:], g.detach().to(rows.dtype).unsqueeze(0)]), state.gradients, gradient)
    return Surrogates(gradients=pushed, count=state.count + 1)


@dataclass(frozen=True, eq=False)
class Guided(Law):
    """See `guided`."""

    gradients: Any
    alpha: float | Tensor
    beta: float | Tensor
    joint = True

    def basis(self, size: int, dtype: torch.dtype) -> Tensor:
        """Q, [D, k]."""
        rows = [leaf.reshape(leaf.shape[0], -1).to(dtype) for leaf in tree.leaves(self.gradients)]
        U = torch.cat(rows, dim=1).mT
        if U.shape[0] != size:
            raise ValueError(
                f"es.guided: the surrogate gradients have {U.shape[0]} elements, the leaves that are perturbed by this law {size}"
            )
        if U.shape[1] > size:
            raise ValueError(f"es.guided: k must be at most the {size} elements that are perturbed, got {U.shape[1]} surrogate gradients")
        return torch.linalg.qr(U).Q

    def draw(self, key: Tensor, leaf: Tensor, pairs: range, source: Source = EAGER) -> Tensor:
        size = leaf.numel()
        dtype = torch.promote_types(leaf.dtype, torch.float32)
        Q = self.basis(size, dtype)
        e1 = source.normal(key, size, pairs, dtype, leaf.device)
        e2 = source.normal(random.fold_in(key, 1), Q.shape[1], pairs, dtype, leaf.device)
        return guide(e1, e2, Q, self.alpha).to(leaf.dtype)

    def combine(self, weights: Tensor, noise: Any, leaf: Tensor) -> Tensor:
        return self.beta * super().combine(weights, noise, leaf)


def guide(e1: Tensor, e2: Tensor, Q: Tensor, alpha: float | Tensor) -> Tensor:
    """sqrt(alpha / D) e1 + sqrt((1 - alpha) / k) Q e2 for rows e1 [H, D] and e2 [H, k]."""
    size, k = Q.shape
    alpha = torch.as_tensor(alpha, dtype=e1.dtype, device=e1.device)
    # summed over k elementwise, so that a row does not depend on how many there are
    inside = sum(e2[:, i : i + 1] * Q[:, i] for i in range(k))
    return (alpha / size).sqrt() * e1 + ((1 - alpha) / k).sqrt() * inside


def guided(gradients: Any, *, alpha: float | Tensor = 0.5, beta: float | Tensor = 1.0) -> Law:
    """Perturbations mostly in the span of surrogate gradients.

    Args:
        gradients: a `Surrogates` state, or a tree like params with a leading axis k on
            every leaf; k is at most D. Gradients that are zero leave their part of
            the subspace to a direction that means nothing.
        alpha: share of the variance outside, in [0, 1]; 1 is plain smoothing.
        beta: factor on the gradient, > 0.

    Returns:
        A law for `noise=` of the step at hand: make `es.grad` anew when the surrogates
        change. Its elements do not have variance one, see above. With `shaping="none"`
        the estimate is that of the paper, averaged over the pairs.

    Raises:
        ValueError: `alpha` or `beta` out of range; at the draw, surrogates of
            another size than the params.

    Example:
        >>> params, state = torch.zeros(4), fo.es.surrogates(torch.zeros(4))
        >>> state = fo.es.push_surrogate(state, torch.tensor([0.0, 2.0, 0.0, 0.0]))
        >>> law = fo.es.guided(state, alpha=0.0)
        >>> noise = law.draw(fo.random.key(0), params, range(2))
        >>> noise[:, 0], noise[:, 1].abs() > 0
        (tensor([0., 0.]), tensor([True, True]))
    """
    check.within("es.guided", "alpha", alpha, 0, 1)
    check.positive("es.guided", "beta", beta)
    stack = gradients.gradients if isinstance(gradients, Surrogates) else gradients
    leaves = tree.leaves(stack)
    if not all(isinstance(leaf, Tensor) for leaf in leaves):
        raise TypeError("es.guided: gradients must be Surrogates, or a tree of tensors with a leading axis of gradients")
    sizes = sorted({leaf.shape[0] if leaf.dim() else 0 for leaf in leaves})
    if not leaves or len(sizes) != 1 or sizes[0] == 0:
        raise ValueError(f"es.guided: every leaf of gradients must begin with one and the same axis k >= 1, got lengths {sizes}")
    return Guided(stack, alpha, beta)
