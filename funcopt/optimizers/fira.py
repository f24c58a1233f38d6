"""Fira: Adam in few directions of each matrix, and what those do not see, sized as they are.

    P: the leading singular vectors of the shorter side of g_t, in the first and every `every`-th step       (low_rank.py)
    G = g_t seen from P;   mu, nu, running means of G and G^2;   N = mu / (sqrt(nu) + eps)
    S = (g_t - G back) * |N| / |G|          row by row of a tall matrix, column by column of a wide one
    S = S / max(1, ||S|| / (1.01 ||S_{t-1}||))
    u_t = sqrt(1 - b2^t) / (1 - b1^t) * scale * (N back + S)

A leaf that is no matrix, or has no more dimensions than `rank`, is seen whole: u_t is Adam's, with eps beside the uncorrected root.
residual=False: without S.

Source: Chen et al., "Fira: Can We Achieve Full-rank Training of LLMs Under Low-rank Constraint?", 2024; without S: Zhao et al.,
"GaLore", 2024. Reference: pytorch_optimizer's Fira (4.1), with scale=1 where there is a rank (it takes the scaled part from the gradient).
"""

from typing import Any, NamedTuple

from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, due, moments, numerics, sharded, tree
from funcopt.core.math import entrywise
from funcopt.optimizers import low_rank, renewal
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["FiraState", "fira", "scale_by_fira"]


class FiraState(NamedTuple):
    count: Tensor  # steps taken
    clock: Tensor  # steps taken; on the CPU
    mu: TensorTree  # running mean of G
    nu: TensorTree  # running mean of G^2
    P: TensorTree  # the directions of each matrix; [1] where there are none
    size: TensorTree  # the norm of the last S; 0-dim


def scale_by_fira(
    rank: int | None = 128,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-6,
    every: int = 200,
    scale: Scalar = 1.0,
    *,
    residual: bool = True,
) -> GradientTransformation[FiraState]:
    """Adam's direction within few directions of each matrix, and the rest of the gradient in the same proportion.

    Args:
        rank: of how many directions Adam's means are kept, >= 1; None: all leaves are seen whole.
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: share of the past in the mean of its square, in [0, 1).
        eps: added to the root, >= 0.
        every: steps that directions serve, >= 1. Finding them takes a singular value decomposition of each matrix.
        scale: what directions of matrices are multiplied by, >= 0.
        residual: whether what the directions do not see is added.

    Returns:
        A transform from gradients to directions, in the shapes and dtypes it is given. Of an [n, m] matrix with n >= m it holds
        2 n rank + m rank numbers, where Adam holds 2 n m.

    After a NaN:
        Its leaf of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 its leaf stays at 0; clip.

    Raises:
        TypeError, ValueError: an argument is out of its range.

    Example:
        >>> fira = fo.scale_by_fira(rank=1, b1=0.0, b2=0.0, eps=1e-4)
        >>> g = torch.tensor([[4.0, 0.0], [0.0, 0.5]])
        >>> fira.update(g, fira.init(g))[0].abs().round(decimals=2)  # Adam's 1 along the larger; its part of the second row is nothing
        tensor([[1., 0.],
                [0., 0.]])
    """
    where = "scale_by_fira"
    if rank is not None:
        check.integer(where, "rank", rank, 1)
    check.half_open(where, "b1", b1, 0, 1)
    check.half_open(where, "b2", b2, 0, 1)
    check.nonnegative(where, "eps", eps)
    check.integer(where, "every", every, 1)
    check.nonnegative(where, "scale", scale)

    def cut(p: Tensor) -> tuple[int, int] | None:
        return low_rank.cut(p.shape, rank)

    def init(params: TensorTree) -> FiraState:
        return FiraState(moments.zero_count(params), due.begun(params, "auto"), **low_rank.begun(params, rank))

    def update(updates: TensorTree, state: FiraState, params: TensorTree | None = None, *, plan: Any = None, **extra: Any):
        here = renewal.known(state.clock, every) if plan is None else plan
        count, first = moments.increment(state.count), state.count == 0
        g = tree.map_plain(lambda g, P: entrywise.at_least(sharded.replicated(g), P) if cut(g) else g, updates, state.P)

        def fresh() -> TensorTree:
            return tree.map_plain(lambda g, P: low_rank.leading(g, P.shape[1], P) if cut(g) else P.clone(), g, state.P)

        P = due.renewed(here, renewal.now(state.clock, every), fresh, state.P)
        G = tree.map_plain(lambda g, P: low_rank.seen(g, P) if cut(g) else g, g, P)
        mu = moments.update_moment(G, state.mu, b1)
        nu = moments.update_moment(G, state.nu, b2, order=2)
        f1, f2 = moments.bias_factors(count, b1, b2)
        (f,) = entrywise.once(updates, f1 * f2.rsqrt())

        def direction(g: Tensor, G: Tensor, mu: Tensor, nu: Tensor, P: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
            N = entrywise.over_root(mu, nu, eps)
            if cut(g) is None:
                return f * N, size.clone()
            tall = low_rank.is_tall(g.shape)
            u = low_rank.back(N, P, tall)
            if residual:
                S = g - low_rank.back(G, P, tall)
                S = S * (low_rank.lengths_along(N, tall) / (low_rank.lengths_along(G, tall) + low_rank.FLOOR))
                length = numerics.wide_norm(S)
                shorter = low_rank.limited(length, size, first)
                u, size = u + S / shorter, (length / shorter).to(size.dtype)
            return f * scale * u, size.clone()

        directions, sizes = low_rank.in_two(direction, updates, g, G, mu, nu, P, state.size)
        return directions, FiraState(count, moments.increment(state.clock), mu=mu, nu=nu, P=P, size=sizes)

    planned: dict[str, Any] = {} if rank is None else {"plan": renewal.planned(every), "plans": renewal.kinds(every)}
    return GradientTransformation(init, update, name=where, per_leaf=True, turns=False, **planned)


def fira(
    lr: ScalarOrSchedule | None,
    rank: int | None = 128,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-6,
    every: int = 200,
    scale: Scalar = 1.0,
    *,
    residual: bool = True,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """Fira: `scale_by_fira`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: the rate, >= 0; a number, a 0-dim tensor or a schedule.
        rank, b1, b2, eps, every, scale, residual: as in `scale_by_fira`.
        weight_decay: decoupled, >= 0.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A ready-made optimizer, whose state says `lr`. Holds 2 n rank + m rank numbers of an [n, m] matrix with
        n >= m, and twice the size of other leaves.

    After a NaN:
        Its leaf of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 its leaf stays at 0; clip.

    Raises:
        TypeError, ValueError: an argument is out of its range.

    Example:
        >>> tx = fo.fira(0.1, rank=1)
        >>> g = torch.tensor([[4.0, 0.0], [0.0, 0.5]])
        >>> tx.update(g, tx.init(g), g)[0].diag()[0]
        tensor(-0.1000)
    """
    scaled = scale_by_fira(rank, b1, b2, eps, every, scale, residual=residual)
    return chain(scaled, add_decayed_weights(weight_decay, weight_decay_mask), lr_scale(lr))
