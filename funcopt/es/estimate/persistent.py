"""Persistent and noise-reuse evolution strategies: unrolled problems, a truncation at a time.

    pair j sees theta + e and theta - e for K steps of an episode of T, then goes on where it was
    persistent    e = sigma eps_t new in every truncation,    xi <- xi + e
    noise reuse   e = sigma eps one for the whole episode,    xi <- e
    g = 1 / sigma^2 sum_i s_i f_i xi_i / sum_i n_i            i over both members of all pairs, s_i = +1, -1
    xi <- 0 where the episode of the pair has ended

f_i is the loss of member i, n_i what it counts (1, or the steps that it took, f_i
then their sum). xi remembers all that moved a pair where it is, so g has no bias
from the truncation; noise reuse has less variance where many truncations see the same loss.

Every pair has its own clock: it begins anew when both of its members have ended, and a
member that ends first waits and counts no steps.

Source: Vicol et al., "Unbiased Gradient Estimation in Unrolled Computation Graphs
with Persistent Evolution Strategies", ICML 2021; Li et al., "Noise-Reuse in Online
Evolution Strategies", NeurIPS 2023. Reference: evosax PersistentES, NoiseReuseES,
whose pairs all share one clock.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor
from torch.func import vmap

from funcopt.core import TensorTree, check, random, tree
from funcopt.core.autocast import in_full_precision
from funcopt.core.door.shown import shown
from funcopt.es.noise.distributions import LAWS, Independent
from funcopt.es.noise.sources import EAGER
from funcopt.es.shaping.fitness import magnitude, real, times
from funcopt.es.shaping.shaping import bounded

__all__ = ["Persistent", "PersistentState", "Unrolled", "UnrolledInfo", "UnrolledState", "persistent", "unrolled"]

EPISODES, STEPS = 2**31, 2**31 + 1  # streams of the inner problem, beside those of the leaves


class PersistentState(NamedTuple):
    key: Tensor  # int64 [2]
    count: Tensor  # int64, truncations so far
    age: Tensor  # int64 [H], truncations in the episode of each pair
    xi: Any  # perturbations of the episode so far, leaves [H, *shape], in units of params


class Persistent(NamedTuple):
    """Pure functions of a `PersistentState`, see `persistent`."""

    init: Callable[..., Any]  # init(params, key) -> state
    ask: Callable[..., Any]  # ask(state, params) -> (perturbations [H, ...], state)
    tell: Callable[..., Any]  # tell(state, fitness [P], done [H], counts=None) -> (grads, state)


def persistent(
    *, popsize: int, sigma: float | Tensor, reuse: bool = False, maximize: bool = False, noise: Independent = "normal"
) -> Persistent:
    """Persistent (PES) or noise-reuse (NRES) evolution strategies, for a loop that runs the inner problem itself.

    Args:
        popsize: P, even: H = P / 2 pairs, members j and j + H of a pair share an episode.
        sigma: standard deviation of a perturbation, > 0; a number, a tensor, or a
            tree of them that begins like params.
        reuse: one perturbation for an episode (NRES) in place of one for a truncation (PES).
        maximize: whether fitness is to grow; a minimising transformation improves it in
            any case.
        noise: "normal", "rademacher" or "binomial32".

    Returns:
        `init(params, key)`; `ask(state, params)`, which hands out the perturbations e of this
        truncation, a tree with leaves [H, ...]: evaluate params + e[j] and params - e[j]
        for K steps each; `tell(state, fitness, done, counts=None)`, which returns the gradient
        and the state. fitness [P] are losses, those of all params + e first; done bool [H]
        says which episodes have ended; counts [P] is how many steps stand in each
        fitness, if fitness are sums.

    Raises:
        ValueError: popsize is odd or `sigma` not positive.

    Example:
        >>> pes = fo.es.persistent(popsize=4, sigma=0.1)
        >>> params, goal = torch.zeros(3), torch.ones(3)
        >>> state = pes.init(params, key=0)
        >>> e, state = pes.ask(state, params)
        >>> fitness = torch.cat([params + e, params - e]).sub(goal).square().sum(1)
        >>> grads, state = pes.tell(state, fitness, done=torch.tensor([False, True]))
        >>> grads.shape, state.age
        (torch.Size([3]), tensor([1, 0]))
    """
    where = "es.persistent"
    _check(where, popsize, sigma, noise)
    half = popsize // 2

    def init(params: TensorTree, key: int | Tensor) -> PersistentState:
        device = tree.device(params)
        return PersistentState(
            key=random.as_key(key, where, device=device),
            count=torch.zeros((), dtype=torch.int64, device=device),
            age=torch.zeros(half, dtype=torch.int64, device=device),
            xi=tree.map_plain(lambda p: torch.zeros(half, *p.shape, dtype=p.dtype, device=p.device), params),
        )

    def ask(state: PersistentState, params: TensorTree, noise_given: TensorTree | None = None):
        if not isinstance(state, PersistentState):
            raise TypeError(f"{where}: state must be what init gives, got {shown(state)}; begin with init(params, key)")
        leaves, sigmas = tree.leaves(params), tree.broadcast_prefix(sigma, params, where, "sigma")
        if noise_given is None:
            key = random.fold_in(state.key, state.count)
            fresh = [LAWS[noise].draw(random.fold_in(key, i), leaf, range(half), EAGER) for i, leaf in enumerate(leaves)]
        else:
            fresh = tree.leaves(noise_given)
        fresh = [(s * eps).to(leaf.dtype) for s, eps, leaf in zip(sigmas, fresh, leaves, strict=True)]
        begun = [_where(state.age == 0, torch.zeros_like(xi), xi) for xi in tree.leaves(state.xi)]
        if reuse:
            xi = [_where(state.age == 0, e, old) for e, old in zip(fresh, begun, strict=True)]
            handed = xi
        else:
            xi = [old + e for e, old in zip(fresh, begun, strict=True)]
            handed = fresh
        return tree.unflatten(params, handed), state._replace(xi=tree.unflatten(params, xi))

    def _numbers(name: str, value: Any) -> Tensor:
        if isinstance(value, Tensor):
            return value
        try:
            found = torch.as_tensor(value)
            return torch.as_tensor(value, dtype=torch.float64) if found.is_floating_point() and isinstance(value, (list, tuple)) else found
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(
                f"{where}: {name} must be a tensor, or what torch.as_tensor makes one of, got {type(value).__name__}"
            ) from error

    def tell(state: PersistentState, fitness: Tensor, done: Tensor, counts: Tensor | None = None):
        fitness, done = _numbers("fitness", fitness), _numbers("done", done)
        if done.dtype != torch.bool:
            raise TypeError(
                f"{where}: done must hold True or False for each pair, got {done.dtype}; write done > 0 where that is what is meant"
            )
        if fitness.shape != (popsize,) or done.shape != (half,):
            raise ValueError(
                f"{where}: fitness must have shape ({popsize},) and done ({half},), got {tuple(fitness.shape)} and {tuple(done.shape)}"
            )
        fitness = real(where, "fitness", fitness.detach())
        worse = -bounded(-fitness if not maximize else fitness)
        size = magnitude(worse)
        total = torch.as_tensor(popsize, dtype=worse.dtype, device=worse.device)
        if counts is not None:
            counts = _numbers("counts", counts)
            if counts.shape != (popsize,):
                raise ValueError(
                    f"{where}: counts must have shape ({popsize},), the steps that each member took, got {tuple(counts.shape)}"
                )
            total = counts.sum().clamp(min=1).to(worse.dtype)
        weights = (worse[:half] / size - worse[half:] / size) / total
        leaves = tree.leaves(state.xi)
        sigmas = tree.broadcast_prefix(sigma, state.xi, where, "sigma")
        grads = []
        for s, xi in zip(sigmas, leaves, strict=True):
            whole = weights.to(torch.promote_types(xi.dtype, torch.float32))
            grads.append(times(LAWS["normal"].combine(whole, xi, xi[0]) / s**2, size).to(xi.dtype))
        age = torch.where(done, 0, state.age + 1)
        return tree.unflatten(state.xi, grads), state._replace(count=state.count + 1, age=age)

    return Persistent(init=init, ask=in_full_precision(ask), tell=in_full_precision(tell))


class UnrolledState(NamedTuple):
    noise: PersistentState  # key and what the pairs have seen
    inner: Any  # inner states, leaves [2, H, ...]
    ended: Tensor  # bool [2, H], members that wait for their partner


class UnrolledInfo(NamedTuple):
    fitness: Tensor  # [P], mean over the steps that a member took in this truncation
    counts: Tensor  # int64 [P], how many those were
    done: Tensor  # bool [H], pairs whose episode ended
    n_failed: Tensor  # int64, members whose loss was not finite; their episode ends


class Unrolled(NamedTuple):
    """Pure functions of an `UnrolledState`, see `unrolled`."""

    init: Callable[..., Any]  # init(params, key) -> state
    estimate: Callable[..., Any]  # estimate(params, state, *args) -> (grads, state, info)


def unrolled(
    step: Callable[..., Any],
    reset: Callable[..., Any],
    *,
    popsize: int,
    sigma: float | Tensor,
    unroll: int,
    reuse: bool = False,
    maximize: bool = False,
    noise: Independent = "normal",
    chunk_size: int | None = None,
) -> Unrolled:
    """Gradients of an unrolled problem, `unroll` steps at a time, by persistent or noise-reuse evolution strategies.

    Args:
        step: `step(params, inner, key, *args) -> (inner, loss, done)`, one step of one
            episode: loss a 0-dim tensor, done a 0-dim bool tensor. It must run under
            `torch.func.vmap`.
        reset: `reset(key) -> inner`, the state with which an episode begins.
        popsize, sigma, reuse, maximize, noise: as in `persistent`.
        unroll: K, steps of a truncation.
        chunk_size: pairs evaluated at once; None: all.

    Returns:
        `init(params, key)`; `estimate(params, state, *args)`, which moves all episodes on by a
        truncation and returns the gradient of the mean loss of a step, the state and an
        `UnrolledInfo`. Both members of a pair have the same initial state and keys.
        Episodes may differ in length; a pair begins anew when both its members have ended.

    Raises:
        ValueError: an argument is out of its range; at `estimate`, a loss is not 0-dim, or
            `step` or `reset` draws from torch's generator and not from its key.
        TypeError: at `estimate`, a loss is complex.

    Example:
        >>> def step(params, x, key):  # x decays at the rate exp(-params); five steps an episode
        ...     x = {"x": x["x"] * torch.exp(-params), "t": x["t"] + 1}
        ...     return x, x["x"].square(), x["t"] >= 5
        >>> pes = fo.es.unrolled(step, lambda key: {"x": torch.ones(()), "t": torch.zeros(())}, popsize=64, sigma=0.1, unroll=2)
        >>> params = torch.zeros(())
        >>> state = pes.init(params, key=0)
        >>> for _ in range(3):
        ...     grads, state, info = pes.estimate(params, state)
        >>> bool(grads < 0), info.counts[0].item(), info.done.all().item()
        (True, 1, True)
    """
    where = "es.unrolled"
    _check(where, popsize, sigma, noise)
    check.integer(where, "unroll", unroll, 1)
    if chunk_size is not None:
        check.integer(where, "chunk_size", chunk_size, 1)
    half = popsize // 2
    strategy = persistent(popsize=popsize, sigma=sigma, reuse=reuse, maximize=maximize, noise=noise)
    signs = torch.tensor([1.0, -1.0], device="cpu")

    def beginnings(key: Tensor, count: int) -> Any:
        """Initial states of all pairs, leaves [H, ...]."""
        with _keyed(where, "reset"):
            return vmap(reset)(random.split(random.fold_in(random.fold_in(key, EPISODES), count), half))

    def init(params: TensorTree, key: int | Tensor) -> UnrolledState:
        state = strategy.init(params, random.as_key(key, where))
        inner = tree.map_plain(lambda x: x.unsqueeze(0).expand(2, *x.shape).clone(), beginnings(state.key, state.count))
        return UnrolledState(noise=state, inner=inner, ended=torch.zeros(2, half, dtype=torch.bool, device=state.age.device))

    def member(params: TensorTree, e: TensorTree, sign: Any, inner: Any, ended: Tensor, key: Tensor, args: tuple[Any, ...]):
        placed = tree.map_plain(lambda p, e: p + sign.to(p.dtype) * e, params, e)
        total, count = None, 0
        for t in range(unroll):
            moved, loss, done = step(placed, inner, random.fold_in(key, t), *args)
            if not isinstance(loss, Tensor) or loss.dim() != 0:
                raise ValueError(f"{where}: step must return (inner, loss, done) with a 0-dim loss, got {_shown(loss)}")
            loss = real(where, "the loss of a step", loss)
            inner = tree.map_plain(lambda new, old, ended=ended: torch.where(ended, old, new), moved, inner)
            counted = torch.where(ended, torch.zeros_like(loss), loss)
            total = counted if total is None else total + counted
            count = count + (~ended).long()
            ended = ended | torch.as_tensor(done, device=loss.device).bool() | ~total.isfinite()
        return inner, total, count, ended

    def estimate(params: TensorTree, state: UnrolledState, *args: Any):
        e, told = strategy.ask(state.noise, params)
        keys = random.split(random.fold_in(random.fold_in(told.key, STEPS), told.count), half)
        over_pairs = vmap(
            lambda sign, e, inner, ended, key: member(params, e, sign, inner, ended, key, args),
            in_dims=(None, 0, 0, 0, 0),
            chunk_size=chunk_size,
        )
        with torch.no_grad(), _keyed(where, "step"):
            both = [
                over_pairs(sign.to(told.key.device), e, tree.map_plain(lambda x, s=s: x[s], state.inner), state.ended[s], keys)
                for s, sign in enumerate(signs)
            ]
        inner, total, counts, ended = (tree.map_plain(lambda *x: torch.stack(x), *parts) for parts in zip(*both, strict=True))
        done = ended.all(0)
        grads, told = strategy.tell(told, total.reshape(-1), done, counts.reshape(-1))
        begun = beginnings(told.key, told.count)
        inner = tree.map_plain(lambda old, new: torch.stack([_where(done, new, old[s]) for s in range(2)]), inner, begun)
        counts, total = counts.reshape(-1), total.reshape(-1)
        info = UnrolledInfo(fitness=total / counts.clamp(min=1), counts=counts, done=done, n_failed=(~total.isfinite()).sum())
        return grads, UnrolledState(noise=told, inner=inner, ended=ended & ~done), info

    return Unrolled(init=init, estimate=estimate)


@contextlib.contextmanager
def _keyed(where: str, what: str) -> Iterator[None]:
    """Round a call of the inner problem, whose draws are those of its key alone."""
    try:
        yield
    except RuntimeError as error:
        if "randomness" not in str(error):
            raise
        raise ValueError(
            f"{where}: {what} draws random numbers from torch's generator, which would differ between the members of a pair; "
            "draw them from its key "
            "(fo.random.normal(key, ...))"
        ) from error


def _where(chosen: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """By the first axis."""
    return torch.where(chosen.reshape(-1, *(1 for _ in yes.shape[1:])), yes, no)


def _check(where: str, popsize: int, sigma: Any, noise: Independent) -> None:
    check.integer(where, "popsize", popsize, 2)
    if popsize % 2:
        raise ValueError(f"{where}: popsize must be even, members come in pairs, got {popsize}")
    for leaf in tree.leaves(sigma):
        if not isinstance(leaf, Tensor):
            check.positive(where, "sigma", leaf)
    check.choice(where, "noise", noise, get_args(Independent))


def _shown(x: Any) -> str:
    return f"a tensor of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
