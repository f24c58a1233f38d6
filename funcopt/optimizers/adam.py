"""Adam: divide a running mean of the gradient by the running RMS of its entries.

    mu_t = b1 * mu_{t-1} + (1 - b1) * g_t
    nu_t = b2 * nu_{t-1} + (1 - b2) * g_t^2
    m = mu_t / (1 - b1^t),   v = nu_t / (1 - b2^t)
    u_t = m / (sqrt(v + eps_root) + eps)
    Nesterov: m = b1 * mu_t / (1 - b1^(t+1)) + (1 - b1) * g_t / (1 - b1^t)
    correct_eps: u_t = m * sqrt(1 - b2^t) / (sqrt(nu_t + eps_root) + eps)

Source: Kingma and Ba 2015; Nesterov's form: Dozat 2016. Reference: optax.adam (0.2.8),
and without Nesterov torch.optim.Adam.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, moments, tree
from funcopt.core.math import entrywise
from funcopt.core.math.lengths import safe_sqrt
from funcopt.core.versions import differentiating
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["ScaleByAdamState", "adam", "scale_by_adam"]


class ScaleByAdamState(NamedTuple):
    count: Tensor  # steps taken
    mu: TensorTree  # running mean of g; like params
    nu: TensorTree  # running mean of g^2; like params


def scale_by_adam(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: torch.dtype | None = None,
    *,
    nesterov: bool = False,
    correct_eps: bool = False,
) -> GradientTransformation[ScaleByAdamState]:
    """Divides a running mean of the gradient by its running root mean square, entry by entry.

    Args:
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: share of the past in the mean of its square, in [0, 1).
        eps: added to the root, >= 0.
        eps_root: added under the root, >= 0; > 0 where somebody differentiates through it.
        mu_dtype: dtype of the stored mean; None: that of the params.
        nesterov: look one step ahead.
        correct_eps: `eps` is divided by sqrt(1 - b2^t) as the RMS is, so that it counts more
            in early steps, as in the first version of the paper and in many a library.

    Returns:
        A transform from gradients to directions of order one, in the shapes and dtypes
        it is given. Holds two trees like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 that entry stays at 0; clip.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> adam = fo.scale_by_adam()
        >>> direction, state = adam.update(torch.tensor([3.0, -0.5]), adam.init(torch.zeros(2)))
        >>> direction
        tensor([ 1.0000, -1.0000])
    """
    check.half_open("scale_by_adam", "b1", b1, 0, 1)
    check.half_open("scale_by_adam", "b2", b2, 0, 1)
    check.nonnegative("scale_by_adam", "eps", eps)
    check.nonnegative("scale_by_adam", "eps_root", eps_root)
    check.dtype("scale_by_adam", "mu_dtype", mu_dtype)

    def init(params: TensorTree) -> ScaleByAdamState:
        return ScaleByAdamState(
            count=moments.zero_count(params), mu=tree.zeros_like(params, mu_dtype), nu=tree.zeros_like(tree.real(params))
        )

    def update(updates: TensorTree, state: ScaleByAdamState, params: TensorTree | None = None, **extra: Any):
        count = moments.increment(state.count)
        mu = moments.update_moment(updates, state.mu, b1)  # b1 mu + (1 - b1) g
        nu = moments.update_moment(updates, state.nu, b2, order=2)  # b2 nu + (1 - b2) g^2
        ratio = corrected_ratio(updates, count, b1, b2, eps, eps_root, nesterov, correct_eps=correct_eps)
        direction = tree.map(ratio, updates, mu, nu)  # m / (sqrt(v + eps_root) + eps)
        return direction, ScaleByAdamState(count=count, mu=mu, nu=nu)

    return GradientTransformation(init, update, name="scale_by_adam", flattenable=True, leaves="complex", per_leaf=True, turns=False)


def corrected(count: Tensor, b1: Scalar, b2: Scalar, nesterov: bool = False) -> tuple[Callable[[Tensor, Tensor], Tensor], Tensor]:
    """What corrects the two means of Adam: a function of `(g, mu)` that gives m^, and the factor that gives v^ from nu.

        m^ = mu / (1 - b1^t),   with Nesterov   b1 * mu / (1 - b1^(t+1)) + (1 - b1) * g / (1 - b1^t)
        v^ = nu / (1 - b2^t)

    Args:
        count: steps taken, this one included; 0-dim int64, >= 1.
        b1, b2: share of the past in the mean of the gradient and of its square.
        nesterov: look one step ahead.

    Returns:
        The function and the factor, a 0-dim tensor.

    Example:
        >>> from funcopt.optimizers.adam import corrected
        >>> mean, factor = corrected(torch.tensor(1), 0.9, 0.75)
        >>> mean(torch.tensor(3.0), torch.tensor(0.3)), factor
        (tensor(3.0000, dtype=torch.float64), tensor(4.0000, dtype=torch.float64))
    """
    f1, f2 = moments.bias_factors(count, b1, b2)
    if not nesterov:
        return lambda g, mu: mu * f1, f2
    (ahead,) = moments.bias_factors(count + 1, b1)
    return lambda g, mu: b1 * ahead * mu + (1 - b1) * f1 * g, f2


def corrected_ratio(
    leaves: TensorTree,
    count: Tensor,
    b1: Scalar,
    b2: Scalar,
    eps: Scalar,
    eps_root: Scalar = 0.0,
    nesterov: bool = False,
    *,
    correct_eps: bool = False,
    c2: Tensor | None = None,
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """`m^ / (sqrt(v^ + eps_root) + eps)` as a function of `(g, mu, nu)`, in the dtype of g, with the m^ and v^ of `corrected`.

    With c1 = 1 - b1^t and c2 = 1 - b2^t it is worked out as

        c1 m^ / (a sqrt(nu + c) + b),   a = c1 / sqrt(c2),   b = c1 eps,   c = c2 eps_root

    with one division and one root for every entry (Kingma & Ba 2015, the end of section 2). With `correct_eps` it is
    m^ sqrt(c2) / (sqrt(nu + eps_root) + eps), so that b = a eps and c = eps_root.

    Args:
        leaves: the tree that the function is for; only its dtypes count.
        count, b1, b2, nesterov: as in `corrected`.
        eps: added to the root, >= 0.
        eps_root: added under the root, >= 0.
        correct_eps: divide `eps` by sqrt(1 - b2^t) as the RMS is, so that it counts more in early steps.
        c2: the sum of the weights in nu, where `b2` was not always what it is; None: 1 - b2^t.

    Returns:
        The function, for one leaf at a time.

    Example:
        >>> from funcopt.optimizers.adam import corrected_ratio
        >>> adam = corrected_ratio(torch.zeros(1), torch.tensor(1), 0.9, 0.99, eps=0.5)
        >>> adam(torch.tensor([2.0]), torch.tensor([0.2]), torch.tensor([0.04]))  # 2 / (2 + 0.5)
        tensor([0.8000])
    """
    if c2 is None:
        c1, c2 = moments.corrections(count, (b1, b2))
    else:
        (c1,) = moments.corrections(count, (b1,))
    rooted = isinstance(eps_root, Tensor) or eps_root != 0
    wanted = [c1 / c2.sqrt(), c1 / c2.sqrt() * eps if correct_eps else c1 * eps]
    if rooted:
        wanted.append(c2 * eps_root if not correct_eps else torch.ones_like(c2) * eps_root)
    if nesterov:
        wanted.append(b1 * c1 / moments.corrections(count + 1, (b1,))[0])
    a, b, *more = entrywise.once(leaves, *wanted)
    recorded = a.requires_grad or b.requires_grad

    def ratio(g: Tensor, mu: Tensor, nu: Tensor) -> Tensor:
        m = more[-1] * mu + (1 - b1) * g if nesterov else mu
        v = nu + more[0] if rooted else nu
        if recorded or differentiating(v) or m.requires_grad:
            return (m / (a * safe_sqrt(v) + b)).to(g.dtype)
        root = v.sqrt().mul_(a).add_(b)
        if type(m) is type(root) is Tensor and m.dtype == root.dtype == g.dtype:
            return torch.div(m, root, out=root)
        return (m / root).to(g.dtype)

    return ratio


def adam(
    lr: ScalarOrSchedule | None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: torch.dtype | None = None,
    *,
    nesterov: bool = False,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """Adam: `scale_by_adam`, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    `weight_decay` is decoupled, as in `adamw`, and 0 unless given.

    Args:
        lr: size of a step in units of params per unit of direction, >= 0: a number, a 0-dim tensor or a schedule of the
            count of steps; None: the `base_lr` it hears.
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: share of the past in the mean of its square, in [0, 1).
        eps: added to the root, >= 0.
        eps_root: added under the root, >= 0; > 0 where somebody differentiates through it.
        mu_dtype: dtype of the stored mean; None: that of the params.
        nesterov: look one step ahead.
        weight_decay: decoupled: each step also takes away `lr * weight_decay` of the params, >= 0; a number, a 0-dim
            tensor or a schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A transformation from gradients to the updates that `apply_updates` adds, in their shapes and dtypes. Holds two
        trees like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 that entry stays at 0; clip.

    Raises:
        ValueError: a number is out of range; at `update`, weights decay and no params are given.

    Example:
        >>> tx = fo.adam(0.1)
        >>> updates, state = tx.update(torch.tensor([3.0, -0.5]), tx.init(torch.zeros(2)))
        >>> updates
        tensor([-0.1000,  0.1000])
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov),
        add_decayed_weights(weight_decay, weight_decay_mask),
        lr_scale(lr),
    )
