"""Gradients of functions that cannot be differentiated: `torch.func.grad`, estimated from the fitness of a population.

    member i  = theta + s_i sigma eps_j              pairs (eps, -eps): members j and j + P/2
    u         = shaped fitness, bigger is better
    gradient  = -1/(P sigma) sum_i u_i s_i eps_j     of what is minimised

With shaping="none" this is an unbiased estimate of the gradient of the smoothed
objective E[f(theta + sigma eps)]; with ranks it is a direction that no monotone
change of the objective moves. Feed it to any chain, as you would feed a gradient.

Source: Salimans et al., "Evolution Strategies as a Scalable Alternative to
Reinforcement Learning", arXiv 1703.03864; Nesterov and Spokoiny, 2017. Reference:
pytorch-optimize, openai/evolution-strategies-starter.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from funcopt.core import random, tree, versions
from funcopt.core.ranks import team_of
from funcopt.core.typed import Unpack
from funcopt.es.arguments import numbers_of, perturbed_of
from funcopt.es.estimate.info import Info, info_of
from funcopt.es.estimate.ranks import evaluate_shared, gradient_shared
from funcopt.es.estimate.weighted_sums import gradient as sum_up, weights_of
from funcopt.es.evaluate.evaluator import Evaluator, Task
from funcopt.es.keywords import Estimation
from funcopt.es.noise.population import Perturbations
from funcopt.es.options import (
    Auto,
    Buffers,
    Combine,
    Estimand,
    Execution,
    Memory,
    OnFailure,
    Pairs,
    Randomness,
    Rng,
    Scale,
    Settings,
    Summed,
    Vectorize,
    settings_of,
)
from funcopt.es.shaping.fitness import has_unit, magnitude
from funcopt.es.shaping.shaping import Baseline, Shaping, ShapingName, Tie
from funcopt.es.shaping.utilities import utilities_of

__all__ = ["grad", "grad_and_value"]

ArgNums = int | tuple[int, ...]


def grad(
    objective: Callable[..., Any],
    argnums: ArgNums = 0,
    *,
    popsize: int,
    sigma: Any,
    has_aux: bool = False,
    maximize: bool = False,
    antithetic: bool = True,
    shaping: ShapingName | Shaping = "centered_rank",
    tie: Tie = "average",
    weights: Sequence[float] | Tensor | None = None,
    combine: Combine = "shape_then_sum",
    baseline: Baseline = "none",
    scale: Scale = "inverse_sigma",
    noise: Any = "normal",
    mask: Any = None,
    chunk_size: int | Auto | None = "auto",
    memory: Memory = "auto",
    memory_budget: int | None = None,
    noise_dtype: torch.dtype | None = None,
    vectorize: Vectorize = "auto",
    workers: int | None = None,
    devices: Sequence[torch.device | str | int] | None = None,
    randomness: Randomness = "keyed",
    common_random_numbers: bool | Pairs = True,
    dtype: torch.dtype | None = None,
    accum_dtype: torch.dtype = torch.float32,
    compile: bool | dict[str, Any] = False,
    buffers: Buffers = "frozen",
    buffers_argnum: int = 1,
    on_failure: OnFailure = "worst",
    rng: Rng = "philox",
    stable_by_path: bool = False,
    process_group: Any = None,
    gradient: Summed = "sharded",
) -> Callable[..., tuple[Any, Info]]:
    """The estimated gradient of an objective that need not be differentiable, as `torch.func.grad` gives the exact one.

    Args:
        objective: `objective(params, *args, **kwargs)` for ONE member gives a number, or
            a sequence or tensor of K numbers (with `weights`), or with `has_aux` a pair
            of that and a tree of tensors. If it has an argument `key`, it gets one to
            draw its random numbers from. It is evaluated for many members by vmap where
            that works, else in a loop.
        argnums: which positional argument (or arguments) to perturb.
        popsize: evaluations a call, >= 1; even with `antithetic`.
        sigma: the standard deviation of the perturbations, > 0: a number, a tensor, or a
            tree of these with the structure of params or a prefix of it, one for a leaf
            or for every element.
        has_aux: the objective returns `(value, aux)`; aux is stacked in `info.user_aux`.
        maximize: estimate the gradient of the negative, so that a minimising chain
            makes the objective larger.
        antithetic: evaluate pairs (eps, -eps), members i and i + P/2.
        shaping: what the fitness of a member counts: a name ("centered_rank", "none",
            "zscore", "nes", ...; see `es.shaping`), or a function from fitness [P],
            bigger is better, to utilities [P].
        tie: what equal members get: "average", "ordinal" or "last".
        weights: K weights of K objectives.
        combine: "shape_then_sum" shapes every objective by itself and adds the weighted
            utilities; "sum_then_shape" shapes the weighted sum.
        baseline: what is subtracted from the fitness: "none", "mean", "loo" or
            "center" (one more evaluation). Matters without pairs and shaping only.
        scale: "inverse_sigma" divides by sigma (an estimate of the gradient), "openai"
            does not, "sigma" multiplies by it.
        noise: the law of the perturbations: "normal", "rademacher", "binomial32",
            `es.sphere()`, `es.sparse(k)`, `es.low_rank(r)`, ..., or a function
            `(key, leaf, pairs) -> [len(pairs), *leaf.shape]`; or a prefix of the tree
            of params that names one for each leaf.
        mask: what is perturbed; the rest gets zeros. A tree (or prefix) of bools or 0-1
            tensors, a function from params to one, patterns of paths ("*.weight"), or
            `es.layers(...)(step)`.
        chunk_size: members evaluated at once, >= 1; "auto" goes by cache and memory,
            None takes all. Changes neither the noise nor the gradient of equal fitness.
        memory: "store" keeps the noise until fitness is known, "regenerate" draws it
            again; "auto" stores what fits. The results are the same bit for bit.
        memory_budget: bytes for "auto"; None: a quarter of the free memory.
        noise_dtype: of the noise that is kept, such as torch.bfloat16; None: of params.
        vectorize: "vmap", "loop", "processes" (the objective must be picklable: a
            function of a module), "external" (the objective takes all members
            stacked on a first axis and returns [P]); "auto" tries vmap on two members
            at the first call, and falls back to the loop with a warning.
        workers: processes, for vectorize="processes"; None: one for each core.
        devices: where chunks are evaluated, in turn; None: where params are.
        randomness: "keyed" refuses torch's generator inside the objective; "same" and
            "different" seed it, Python's and numpy's from `key`, so that all members draw the same, or each
            something else, by vmap, in a loop and in processes; "error" refuses all.
        common_random_numbers: whom a key of the objective belongs to: all members
            (True), each pair ("pairs"), or each member (False).
        dtype: of the perturbed weights in evaluation; None: theirs.
        accum_dtype: of the sums; at least float32 and the dtype of the leaf.
        compile: compile the evaluation of a chunk and the tiles of the noise with
            torch.compile; a dict gives its options. On a CPU tanh of float32 is then right
            to 4e-7 of its value.
        buffers: "frozen", "per_member" (every member changes a copy, which is thrown
            away) or "center" (as well, and `info.buffers` has those after one
            unperturbed forward).
        buffers_argnum: which positional argument they are, for the last two.
        on_failure: what a member that is not finite counts: as the "worst"; "drop"
            leaves its pair out; "raise" raises, which waits for the device.
        rng: "philox", or "generator" (torch's: fast, for one kind of device).
        stable_by_path: number the streams of the leaves by their paths instead of
            their places, so that adding a leaf does not move the noise of others.
        process_group: ranks that share the work: True for all of torch.distributed, or a
            group of it. Every rank makes the same call and gets the same result, bit for
            bit that of one rank. Start with torchrun.
        gradient: with several ranks, "sharded" sums tiles of elements on each,
            "replicated" sums everything on all.

    Returns:
        `grad_fn(params, *args, key=key, **kwargs) -> (grads, info)`. grads is like
        params, `info` an `es.Info`. `key` is an int or a key of `fo.random.key`; the same
        key gives the same result.

    Raises:
        ValueError: an option is out of range; the objective does not fit (when called).
        TypeError: an option is of a wrong kind; there is no key, or fitness is complex
            (when called).
        RuntimeError: ranks do not make the same call, or one is lost; names what differs.

    Example:
        >>> def misses(params, x, y):  # a number of errors has no gradient
        ...     return ((x @ params["w"] > 0) != y).float().mean()
        >>> x = fo.random.normal(fo.random.key(0), (64, 2))
        >>> y = x[:, 0] > x[:, 1]
        >>> params = {"w": torch.zeros(2)}
        >>> grad_fn = fo.es.grad(misses, popsize=64, sigma=0.5)
        >>> grads, info = grad_fn(params, x, y, key=1)
        >>> bool(grads["w"][0] < 0), bool(grads["w"][1] > 0), info.fitness.shape
        (True, True, torch.Size([64]))
    """
    what = Estimand(
        popsize=popsize,
        sigma=sigma,
        maximize=maximize,
        antithetic=antithetic,
        shaping=shaping,
        tie=tie,
        weights=weights,
        combine=combine,
        baseline=baseline,
        scale=scale,
        noise=noise,
        mask=mask,
        memory=memory,
        memory_budget=memory_budget,
        noise_dtype=noise_dtype,
        accum_dtype=accum_dtype,
        on_failure=on_failure,
        rng=rng,
        stable_by_path=stable_by_path,
        gradient=gradient,
    )
    how = Execution(
        has_aux=has_aux,
        chunk_size=chunk_size,
        vectorize=vectorize,
        workers=workers,
        devices=devices,
        randomness=randomness,
        common_random_numbers=common_random_numbers,
        dtype=dtype,
        compile=compile,
        buffers=buffers,
        buffers_argnum=buffers_argnum,
        process_group=process_group,
    )
    estimate = Estimate(objective, argnums, Settings("es.grad", what, how))

    def grad_fn(*args: Any, key: Any = None, **kwargs: Any) -> tuple[Any, Info]:
        return estimate(args, kwargs, key)

    return grad_fn


def grad_and_value(
    objective: Callable[..., Any], argnums: ArgNums = 0, *, popsize: int, sigma: Any, **options: Unpack[Estimation]
) -> Callable[..., tuple[Any, tuple[Tensor, Info]]]:
    """`es.grad` that also gives the value, in the order of `torch.func.grad_and_value`.

    Args:
        objective: as of `es.grad`: from params and what else it is called with to a fitness.
        argnums: the positional argument (or several) to perturb.
        popsize: evaluations a call, >= 1; even with `antithetic`.
        sigma: standard deviation of the perturbation, > 0, in units of params: a number, a 0-dim tensor, or a tree of
            them.
        options: the other keywords of `es.grad`.

    Returns:
        `grad_fn(params, *args, key=key, **kwargs) -> (grads, (value, info))`. `value` is
        0-dim: the mean of the finite members, an estimate of the smoothed objective; of
        K objectives the weighted sum of the means.

    Raises:
        ValueError: as in `es.grad`.
        TypeError: as in `es.grad`.

    Example:
        >>> grad_fn = fo.es.grad_and_value(lambda x: x.square().sum(), popsize=512, sigma=0.1, shaping="none")
        >>> grads, (value, info) = grad_fn(torch.tensor([1.0, 0.0]), key=0)
        >>> torch.allclose(value, info.mean), bool((grads - torch.tensor([2.0, 0.0])).norm() < 0.5)
        (True, True)
    """
    estimate = Estimate(objective, argnums, settings_of("es.grad_and_value", popsize=popsize, sigma=sigma, **options))

    def grad_fn(*args: Any, key: Any = None, **kwargs: Any) -> tuple[Any, tuple[Tensor, Info]]:
        grads, info = estimate(args, kwargs, key)
        return grads, (estimate.value(info), info)

    return grad_fn


class Estimate:
    """One objective with its options: evaluates a population and sums the gradient."""

    def __init__(self, objective: Callable[..., Any], argnums: ArgNums, settings: Settings):
        if not callable(objective):
            raise TypeError(f"{settings.where}: objective must be a function of the parameters, got {objective!r}")
        self.settings = settings
        self.argnums = tuple(argnums) if isinstance(argnums, (tuple, list)) else argnums
        self.evaluator = Evaluator(objective, self.argnums, self.settings)

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any], key: Any, mask: Any = None) -> tuple[Any, Info]:
        settings, where = self.settings, self.settings.where
        if key is None:
            raise TypeError(f"{where}: needs a key for the noise of this call; pass key=, an int or fo.random.fold_in(root, step)")
        key = random.as_key(key, where)
        perturbations = Perturbations(settings, self.perturbed(args), key, mask)
        task = Task(args, kwargs)
        team = team_of(settings.execution.process_group, where)
        stored = perturbations.draw(range(settings.estimand.pairs)) if team is None and self.stores(perturbations) else None
        evaluation = (
            self.evaluator.evaluate(perturbations, task, stored)
            if team is None
            else evaluate_shared(team, self.evaluator, perturbations, task)
        )
        center, buffers = self.center(perturbations, task)
        fitness = evaluation.fitness
        finite = fitness.isfinite() if fitness.dim() == 1 else fitness.isfinite().all(1)
        if settings.estimand.on_failure == "raise":
            self.refuse_failures(finite)
        wide = fitness.to(tree.scalar_dtype(fitness.device))
        utilities = utilities_of(where, settings.estimand, wide, None if center is None else center.to(wide))
        size = magnitude(utilities) if has_unit(settings.estimand.shaping) else None  # sums are in float32, which 1e300 does not fit
        weights = weights_of(perturbations, utilities if size is None else utilities / size, finite)
        weights = torch.where(finite.any(), weights, 0.0)
        with torch.no_grad():
            grads = sum_up(perturbations, weights, stored, size) if team is None else gradient_shared(team, perturbations, weights, size)
        return grads, info_of(perturbations, fitness, center, evaluation.aux, buffers)

    def perturbed(self, args: tuple[Any, ...]) -> Any:
        """The argument, or the tuple of arguments, that is perturbed."""
        for number in numbers_of(self.argnums):
            if not -len(args) <= number < len(args):
                raise TypeError(
                    f"{self.settings.where}: argnums names argument {number}, but the call has {len(args)} positional arguments"
                )
        how = self.settings.execution
        if how.buffers != "frozen" and how.buffers_argnum >= len(args):
            raise TypeError(
                f"{self.settings.where}: buffers={how.buffers!r} needs the buffers as positional argument {how.buffers_argnum}, "
                f"but the call has {len(args)}"
            )
        return perturbed_of(args, self.argnums)

    def center(self, perturbations: Perturbations, task: Task) -> tuple[Tensor | None, Any]:
        """The unperturbed fitness and the buffers that this forward changed."""
        how = self.settings.execution
        if self.settings.estimand.baseline != "center" and how.buffers != "center":
            return None, ()
        buffers: Any = ()
        if how.buffers != "frozen":
            args = list(task.args)
            copied = tree.clone(args[how.buffers_argnum])
            args[how.buffers_argnum] = copied
            task = Task(tuple(args), task.kwargs)
            buffers = copied if how.buffers == "center" else ()
        return self.evaluator.center(perturbations, task).fitness, buffers

    def stores(self, perturbations: Perturbations) -> bool:
        """Whether all noise of the call is kept until fitness is known."""
        settings = self.settings
        if settings.execution.vectorize == "processes" or settings.estimand.memory == "regenerate":
            return False
        if settings.estimand.memory == "store":
            return True
        budget = settings.estimand.memory_budget
        if budget is None:
            budget = _free_memory(perturbations.leaves[0].device) // 4
        return settings.estimand.pairs * perturbations.bytes_a_pair <= budget

    def refuse_failures(self, finite: Tensor) -> None:
        if versions.transforming():
            raise ValueError(
                f"{self.settings.where}: on_failure='raise' looks at the fitness and cannot do so inside vmap; "
                "use 'worst' and read info.n_failed"
            )
        if not bool(finite.all()):  # the caller asked to wait for the device
            where = (~finite).nonzero().flatten()
            raise RuntimeError(
                f"{self.settings.where}: {len(where)} members are not finite, member {int(where[0])} first; on_failure='worst' goes on"
            )

    def value(self, info: Info) -> Tensor:
        weights = self.settings.estimand.objective_weights(info.mean)
        return info.mean if weights is None else (info.mean * weights).sum()


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 1 << 30
