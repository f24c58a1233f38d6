"""APOLLO: gradients sized row by row as Adam would size them, which is seen from few random directions.

    P: normal, of variance 1 / rank, drawn in the first and every `every`-th step       (low_rank.py)
    G = g_t seen from P;   mu, nu, running means of G and G^2;   N = mu / (sqrt(nu) + eps)
    S = g_t * |N| / |G|          row by row of a tall matrix, column by column of a wide one; by="leaf": of the whole
    S = S / max(1, ||S|| / (1.01 ||S_{t-1}||))
    u_t = sqrt(1 - b2^t) / (1 - b1^t) * sqrt(scale) * S

A leaf that is no matrix, or has no more dimensions than `rank`, is seen whole: u_t is Adam's, with eps beside the uncorrected root.

Source: Zhu et al., "APOLLO: SGD-like Memory, AdamW-level Performance", 2024; APOLLO-Mini is rank=1, by="leaf", scale=128.
pytorch_optimizer's APOLLO (4.1) sizes G in place of the gradient and brings that back through P, which has no orthogonal columns;
without a rank it is the same. (The quasi-Newton Apollo is `apollo_dqn`.)
"""

from typing import Any, Literal, NamedTuple, get_args

from torch import Tensor

from funcopt.core import (
    GradientTransformation,
    Scalar,
    ScalarOrSchedule,
    TensorTree,
    chain,
    check,
    due,
    moments,
    numerics,
    random,
    sharded,
    tree,
)
from funcopt.core.math import entrywise
from funcopt.optimizers import low_rank, renewal
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["ApolloState", "apollo", "scale_by_apollo"]

By = Literal["channel", "leaf"]


class ApolloState(NamedTuple):
    count: Tensor  # steps taken
    clock: Tensor  # steps taken; on the CPU
    key: Tensor  # of the directions
    mu: TensorTree  # running mean of G
    nu: TensorTree  # running mean of G^2
    P: TensorTree  # the directions of each matrix; [1] where there are none
    size: TensorTree  # the norm of the last S; 0-dim


def scale_by_apollo(
    rank: int | None = 128,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-6,
    every: int = 200,
    scale: Scalar = 1.0,
    *,
    by: By = "channel",
    key: int | Tensor | None = None,
) -> GradientTransformation[ApolloState]:
    """Sizes each row of a matrix as Adam would, of which only few random directions are remembered.

    Args:
        rank: of how many directions Adam's means are kept, >= 1; None: all leaves are seen whole.
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: share of the past in the mean of its square, in [0, 1).
        eps: added to the root, >= 0.
        every: steps that directions serve, >= 1.
        scale: its root is what directions of matrices are multiplied by, >= 0.
        by: "channel": rows of a tall matrix and columns of a wide one have a size each; "leaf": one for all.
        key: where directions come from: an int, a 0-dim integer tensor or a key; None draws one from torch's generator, now.

    Returns:
        A transform from gradients to directions, in the shapes and dtypes it is given. Of an [n, m] matrix with n >= m it holds
        2 n rank + m rank numbers, where Adam holds 2 n m.

    After a NaN:
        Its leaf of this and every later step is NaN; guard with `apply_if_finite`.

    Raises:
        TypeError, ValueError: an argument is out of its range.

    Example:
        >>> apollo = fo.scale_by_apollo(rank=1, b1=0.0, b2=0.0, eps=0.0, key=0)
        >>> g = torch.tensor([[3.0, 4.0], [0.6, 0.8]])
        >>> direction = apollo.update(g, apollo.init(g))[0]
        >>> torch.allclose(direction[0], direction[1])  # rows that point the same way are sized alike
        True
    """
    where = "scale_by_apollo"
    if rank is not None:
        check.integer(where, "rank", rank, 1)
    check.half_open(where, "b1", b1, 0, 1)
    check.half_open(where, "b2", b2, 0, 1)
    check.nonnegative(where, "eps", eps)
    check.integer(where, "every", every, 1)
    check.nonnegative(where, "scale", scale)
    check.choice(where, "by", by, get_args(By))
    key = random.as_key(key, where)

    def cut(p: Tensor) -> tuple[int, int] | None:
        return low_rank.cut(p.shape, rank)

    def init(params: TensorTree) -> ApolloState:
        begun = key.to(tree.device(params)).clone()
        return ApolloState(count=moments.zero_count(params), clock=due.begun(params, "auto"), key=begun, **low_rank.begun(params, rank))

    def update(updates: TensorTree, state: ApolloState, params: TensorTree | None = None, *, plan: Any = None, **extra: Any):
        here = renewal.known(state.clock, every) if plan is None else plan
        count, first = moments.increment(state.count), state.count == 0
        g = tree.map_plain(lambda g, P: entrywise.at_least(sharded.replicated(g), P) if cut(g) else g, updates, state.P)

        def fresh() -> TensorTree:
            now = random.fold_in(state.key, count)

            def draw(index: int, g: Tensor, P: Tensor) -> Tensor:
                return low_rank.drawn(random.fold_in(now, index), P) if cut(g) else P.clone()

            return tree.unflatten(
                updates, [draw(i, *leaves) for i, leaves in enumerate(zip(tree.leaves(g), tree.leaves(state.P), strict=True))]
            )

        P = due.renewed(here, renewal.now(state.clock, every), fresh, state.P)
        G = tree.map_plain(lambda g, P: low_rank.seen(g, P) if cut(g) else g, g, P)
        mu = moments.update_moment(G, state.mu, b1)
        nu = moments.update_moment(G, state.nu, b2, order=2)
        f1, f2 = moments.bias_factors(count, b1, b2)
        (f,) = entrywise.once(updates, f1 * f2.rsqrt())

        def direction(g: Tensor, G: Tensor, mu: Tensor, nu: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
            N = entrywise.over_root(mu, nu, eps)
            if cut(g) is None:
                return f * N, size.clone()
            if by == "channel":
                tall = low_rank.is_tall(g.shape)
                S = g * (low_rank.lengths_along(N, tall) / (low_rank.lengths_along(G, tall) + low_rank.FLOOR))
            else:
                S = g * (numerics.wide_norm(N) / (numerics.wide_norm(G) + low_rank.FLOOR)).to(g.dtype)
            length = numerics.wide_norm(S)
            shorter = low_rank.limited(length, size, first)
            return f * scale**0.5 * (S / shorter), (length / shorter).to(size.dtype)

        directions, sizes = low_rank.in_two(direction, updates, g, G, mu, nu, state.size)
        return directions, ApolloState(count, moments.increment(state.clock), state.key, mu=mu, nu=nu, P=P, size=sizes)

    planned: dict[str, Any] = {} if rank is None else {"plan": renewal.planned(every), "plans": renewal.kinds(every)}
    return GradientTransformation(init, update, name=where, per_leaf=rank is None, turns=False, **planned)


def apollo(
    lr: ScalarOrSchedule | None,
    rank: int | None = 128,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-6,
    every: int = 200,
    scale: Scalar = 1.0,
    *,
    by: By = "channel",
    key: int | Tensor | None = None,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """APOLLO: `scale_by_apollo`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: the rate, >= 0; a number, a 0-dim tensor or a schedule; 0.01 to begin with.
        rank, b1, b2, eps, every, scale, by, key: as in `scale_by_apollo`.
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
        >>> tx = fo.apollo(0.1)
        >>> tx.update(torch.tensor([3.0, -0.5]), tx.init(torch.zeros(2)))[0]
        tensor([-0.1000,  0.1000])
    """
    scaled = scale_by_apollo(rank, b1, b2, eps, every, scale, by=by, key=key)
    return chain(scaled, add_decayed_weights(weight_decay, weight_decay_mask), lr_scale(lr))
