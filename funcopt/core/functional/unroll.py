"""Unrolling: many steps as one function that can be differentiated, in memory of the square root of their number.

    carry_{t+1}, output_t = step(carry_t, inputs_t, *constants)

Any chain of updates can be differentiated with `torch.func.grad`, since every update
is a pure function; what it costs is memory, one step's intermediate results for every
step. With `checkpoint_every=k` only every k-th carry is kept, and the steps between two
of them are taken again in the backward pass: T / k carries and k steps are held at a
time, least at k = sqrt(T), for one more forward pass.

`torch.utils.checkpoint` cannot be used for this: it works through saved-tensor hooks,
which `torch.func.grad` refuses. Here a segment is an `autograd.Function` that keeps its
arguments, and whose backward pass is the same kind of function around the segment's
pullback. So derivatives of every order are checkpointed, and `vmap` passes through.

Source: Griewank, "Achieving logarithmic growth of temporal and spatial complexity in
reverse automatic differentiation", 1992 (one level of it); Maclaurin, Duvenaud and
Adams, "Gradient-based hyperparameter optimization through reversible learning", ICML
2015, and Finn, Abbeel and Levine, "Model-agnostic meta-learning", ICML 2017, for what it
serves. The form is that of jax.lax.scan.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from funcopt.core import check, tree
from funcopt.core.protocol import TensorTree
from funcopt.core.versions import differentiated

__all__ = ["unroll"]

Step = Callable[..., tuple[TensorTree, Any]]


def unroll(
    step: Step,
    carry: TensorTree,
    inputs: TensorTree = None,
    *constants: Any,
    steps: int | None = None,
    checkpoint_every: int | Literal["sqrt"] | None = None,
) -> tuple[TensorTree, Any]:
    """Takes many steps; the result can be differentiated with respect to everything that is handed in.

    Args:
        step: `(carry, input, *constants) -> (carry, output)`, pure; the new carry is a
            tree like the old one, the output a tree of tensors or None.
        carry: what goes from step to step, usually `(params, state)`; a tree of tensors.
        inputs: a tree of tensors with a leading axis of steps, of which each step gets
            its row, such as stacked batches; None: each step gets None.
        constants: what is the same for all steps, such as hyperparameters.
        steps: how many, >= 0; needed where there are no inputs.
        checkpoint_every: length of the segments that are taken again in the backward
            pass, >= 1, or "sqrt" for the one that needs least memory. None: nothing is
            taken again and everything kept. With it, a tensor that is differentiated
            must be handed in as carry, inputs or constant; `step` must not find it in
            a variable outside.

    Returns:
        The last carry, and the outputs, stacked along a new first axis. Under
        `torch.func.grad`, `vjp`, `jacrev` and `vmap`, in any nesting, and under
        `backward`; with `checkpoint_every` not under forward mode (`jvp`, `jacfwd`).

    Raises:
        ValueError: the number of steps is not given or differs from that of the
            inputs; the carry changes its structure; with `checkpoint_every`, `step`
            uses a tensor that is differentiated and was not handed in.
        TypeError: the carry holds something else than tensors.

    Example:
        >>> def step(w, _, lr):  # gradient descent on w^2
        ...     return w - lr * 2 * w, None
        >>> def after(lr):  # w_2 = (1 - 2 lr)^2
        ...     w, _ = fo.unroll(step, torch.tensor(1.0), None, lr, steps=2, checkpoint_every=1)
        ...     return w
        >>> torch.func.grad(after)(torch.tensor(0.25))  # -4 (1 - 2 lr)
        tensor(-2.)
    """
    for path, leaf in zip(tree.paths(inputs), tree.leaves(inputs), strict=True):
        if not isinstance(leaf, Tensor):
            raise TypeError(
                f"unroll: inputs must be a tree of tensors with a leading axis of steps, or None, got {type(leaf).__name__} at '{path}'"
            )
    total = _steps(inputs, steps)
    for path, leaf in zip(tree.paths(carry), tree.leaves(carry), strict=True):
        if not isinstance(leaf, Tensor):
            raise TypeError(f"unroll: carry must be a tree of tensors, got {type(leaf).__name__} at '{path}'")
    if checkpoint_every is None:
        carry, outputs = _plainly(step, carry, inputs, constants, total)
        return carry, _stacked(outputs)
    if isinstance(checkpoint_every, str) and checkpoint_every != "sqrt":
        raise ValueError(f"unroll: checkpoint_every must be an int or 'sqrt', got {checkpoint_every!r}")
    if checkpoint_every != "sqrt":
        check.integer("unroll", "checkpoint_every", checkpoint_every, 1)
    length = max(1, math.isqrt(total)) if checkpoint_every == "sqrt" else int(checkpoint_every)
    outputs = []
    for start in range(0, total, length):
        rows = tree.map_plain(lambda x, start=start: x[start : start + length], inputs)
        if start == 0:
            _refuse_hidden(step, *tree.map_plain(_detached, (carry, _row(rows, 0), constants)))
        carry, said = _segment(step, carry, rows, constants, min(length, total - start))
        outputs.extend(said)
    return carry, _stacked(outputs)


def _steps(inputs: TensorTree, steps: int | None) -> int:
    lengths = {x.shape[0] if x.dim() else -1 for x in tree.leaves(inputs)}
    if -1 in lengths or len(lengths) > 1:
        raise ValueError("unroll: inputs must have one leading axis of steps")
    if steps is None:
        if not lengths:
            raise ValueError("unroll: needs the number of steps where there are no inputs; pass steps=")
        return lengths.pop()
    check.integer("unroll", "steps", steps, 0)
    if lengths and lengths != {steps}:
        raise ValueError(f"unroll: inputs must have a row for each of {steps} steps, got {lengths.pop()}")
    return steps


def _row(inputs: TensorTree, index: int) -> TensorTree:
    return tree.map_plain(lambda x: x[index], inputs)


def _stacked(outputs: list[Any]) -> Any:
    return tree.map_plain(lambda *rows: torch.stack(rows), *outputs) if outputs else None


def _detached(x: Any) -> Any:
    return x.detach() if isinstance(x, Tensor) else x


def _plainly(step: Step, carry: TensorTree, rows: TensorTree, constants: tuple[Any, ...], length: int) -> tuple[TensorTree, list[Any]]:
    outputs: list[Any] = []
    for index in range(length):
        new, output = step(carry, _row(rows, index), *constants)
        if tree.structure(new) != tree.structure(carry):
            difference = tree.first_difference(new, carry, ("the new carry", "the old"))
            raise ValueError(f"unroll: step must give a carry like the one it takes, but {difference}")
        carry = new
        outputs.append(output)
    return carry, outputs


def _refuse_hidden(step: Step, carry: TensorTree, row: TensorTree, constants: tuple[Any, ...]) -> None:
    """Takes one step with all that was handed in cut off: what can still be differentiated came another way and would get none."""
    results = step(carry, row, *constants)
    if any(isinstance(x, Tensor) and differentiated(x) for x in tree.leaves(results)):
        raise ValueError(
            "unroll: with checkpoint_every, step must not use a tensor that is differentiated and was not handed in; "
            "pass it as a constant: unroll(step, carry, inputs, lr, ...) calls step(carry, input, lr)"
        )


def _segment(step: Step, carry: TensorTree, rows: TensorTree, constants: tuple[Any, ...], length: int) -> tuple[TensorTree, list[Any]]:
    """`length` steps of which only the arguments are kept."""
    given = (carry, rows, constants)
    leaves = tree.leaves(given)
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    outline: list[Any] = []

    def flat(*tensors: Any):
        filled = list(leaves)
        for place, x in zip(places, tensors, strict=True):
            filled[place] = x
        carry, rows, constants = tree.unflatten(given, filled)
        result = _plainly(step, carry, rows, constants, length)
        outline[:] = [tree.map_plain(lambda x: 0, result)]  # numbers in place of tensors, which must not outlive the call
        return tuple(tree.leaves(result))

    out = _recomputed(flat, *(leaves[place] for place in places))
    return tree.unflatten(outline[0], list(out))


def _differentiable(x: Tensor) -> bool:
    return x.is_floating_point() or x.is_complex()


def _recomputed(f: Callable[..., tuple[Tensor, ...]], *tensors: Tensor) -> tuple[Tensor, ...]:
    """`f(*tensors)`, of which only `tensors` are kept for the backward pass, at every order of derivative."""

    class Recomputed(torch.autograd.Function):
        @staticmethod
        def forward(*tensors: Any):
            return tuple(x.clone() for x in f(*tensors))  # an argument must not be handed on as a result

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any):
            ctx.save_for_backward(*inputs)
            ctx.mark_non_differentiable(*(x for x in output if not _differentiable(x)))
            ctx.answers = [_differentiable(x) for x in output]

        @staticmethod
        def backward(ctx: Any, *cotangents: Any):
            saved = ctx.saved_tensors
            wanted = [_differentiable(x) for x in saved]
            cotangents = tuple([c for c, answers in zip(cotangents, ctx.answers, strict=True) if answers])

            def pullback(*both: Any):
                arguments, cotangents = both[: len(saved)], both[len(saved) :]

                def smooth(*chosen: Any):
                    next_one = iter(chosen)
                    results = f(*(next(next_one) if is_wanted else x for x, is_wanted in zip(arguments, wanted, strict=True)))
                    return tuple(x for x in results if _differentiable(x))

                pull = torch.func.vjp(smooth, *(x for x, is_wanted in zip(arguments, wanted, strict=True) if is_wanted))[1]
                return pull(tuple(cotangents))

            answers = iter(_recomputed(pullback, *saved, *cotangents))
            return tuple(next(answers) if is_wanted else None for is_wanted in wanted)

        @staticmethod
        def vmap(info: Any, in_dims: tuple[int | None, ...], *tensors: Any):
            lanes = torch.func.vmap(f, in_dims=in_dims, randomness=info.randomness)
            results = _recomputed(lanes, *tensors)
            return results, (0,) * len(results)

    return Recomputed.apply(*tensors)
