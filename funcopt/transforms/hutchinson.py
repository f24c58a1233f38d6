"""hutchinson_estimator_diag_hessian: the diagonal of the Hessian from one product with a vector of random signs.

    h = z * (H z),   z = +-1 with probability 1/2 each,   E h = diag H

Exact where H is diagonal; else an entry's variance is the sum of the squares of the others in its row.
H z is the derivative of <grad f, z>: two passes backward, and no H.

Source: Hutchinson 1990; Bekas, Kokiopoulou and Saad 2007. Reference: optax.contrib (0.2.8), whose generator is another.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from funcopt.core import GradientTransformation, TensorTree, check, random, tree
from funcopt.core.functional.derivatives import gradient_of, product_with_hessian
from funcopt.core.unfit import in_one_piece

__all__ = ["HutchinsonState", "hutchinson_estimator_diag_hessian"]


class HutchinsonState(NamedTuple):
    key: Tensor  # where the signs come from; int64 [2]


def hutchinson_estimator_diag_hessian(key: int | Tensor | None = None) -> GradientTransformation[HutchinsonState]:
    """Gives an estimate of the Hessian's diagonal in place of the gradient, for what is told it: `sophia`, or a chain of your own.

    Args:
        key: an int, a 0-dim integer tensor or a key; None draws one from torch's generator, now.

    Returns:
        A transformation that is told `obj_fn`, the loss as a function of the params alone
        (`make_step` tells it by itself). Its result is no step: give it to nothing that moves params.

    After a NaN:
        This step is finite, the next is clean.

    Raises:
        ValueError: at `update`, no params are given, or no `obj_fn`.

    Example:
        >>> estimate = fo.hutchinson_estimator_diag_hessian(key=0)
        >>> params = torch.tensor([1.0, 2.0])
        >>> estimate.update(torch.zeros(2), estimate.init(params), params, obj_fn=lambda p: (p**3).sum())[0]  # 6 p
        tensor([ 6., 12.])
    """
    where = "hutchinson_estimator_diag_hessian"
    root = random.as_key(key, where)

    def init(params: TensorTree) -> HutchinsonState:
        in_one_piece(where, params)  # torch's second derivatives lose on the way that parts belong together
        return HutchinsonState(key=root.clone())

    def update(
        updates: TensorTree,
        state: HutchinsonState,
        params: TensorTree | None = None,
        *,
        obj_fn: Callable[[TensorTree], Tensor] | None = None,
        **extra: Any,
    ):
        check.params(where, params)
        if obj_fn is None:
            raise check.Missing(f"{where}: needs the loss as a function of the params", "obj_fn")
        own, following = random.fold_in(state.key, 0), random.fold_in(state.key, 1)
        signs = signs_like(own, params)
        product = product_with_hessian(gradient_of(where, "obj_fn", obj_fn), params, signs)
        estimate = tree.map(lambda z, Hz: z * Hz, signs, product)
        return tree.cast_like(estimate, updates), HutchinsonState(key=following)

    return GradientTransformation(init, update, name=where, needs={"obj_fn": "always"})


def signs_like(key: Tensor, params: TensorTree) -> TensorTree:
    """Random signs in the shapes and dtypes of a tree: one draw for all entries, in the order of the leaves, the same in every dtype."""
    leaves = tree.leaves(params)
    sizes = [x.numel() for x in leaves]
    drawn = random.rademacher(key, (sum(sizes),), device=tree.device(params))
    return tree.unflatten(params, [part.reshape(x.shape).to(x) for part, x in zip(drawn.split(sizes), leaves, strict=True)])
