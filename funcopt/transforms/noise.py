"""add_noise and add_gaussian_noise: normal noise on whatever passes, as a function of a key and the count of steps.

    u_t = g_t + std_t z_t,   z_t standard normal, new for every entry of every leaf
    add_noise:   std_t = sqrt(eta / t^gamma)

Source: Neelakantan et al., "Adding Gradient Noise Improves Learning for Very Deep
Networks", 2015. Reference: optax.add_noise (0.2.8), whose generator is another.
"""

import itertools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import (
    GradientTransformation,
    Scalar,
    ScalarOrSchedule,
    TensorTree,
    check,
    moments,
    random,
    sharded,
    signals as words,
    tree,
)

__all__ = ["AddNoiseState", "add_gaussian_noise", "add_noise"]

STREAMS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


class AddNoiseState(NamedTuple):
    count: Tensor  # steps taken; on the device of `key`
    key: Tensor  # where the noise comes from; int64 [2]


def normal_like(key: Tensor, updates: TensorTree) -> TensorTree:
    """Standard normal noise in the shapes and dtypes of a tree: one draw for all entries of a dtype and device, in the order of the leaves.

    So a flat vector of the leaves gets the noise of the leaves, and a graph holds one generator. Of sharded leaves each
    rank draws its part, by the place of the entries in the whole.
    """
    leaves = tree.leaves(updates)
    devices = list(dict.fromkeys(x.device for x in leaves))
    noise = list(leaves)
    for dtype, device in dict.fromkeys((x.dtype, x.device) for x in leaves):
        here = [i for i, x in enumerate(leaves) if (x.dtype, x.device) == (dtype, device)]
        sizes = [leaves[i].numel() for i in here]
        stream = random.fold_in(key, STREAMS.index(dtype) + len(STREAMS) * devices.index(device))
        if any(sharded.is_sharded(leaves[i]) for i in here):
            for i, before in zip(here, itertools.accumulate(sizes, initial=0), strict=False):
                noise[i] = sharded.drawn(
                    lambda start, n: random.normal(stream, (n,), dtype, device, start=before + start),  # noqa: B023
                    leaves[i],
                )
            continue
        draw = random.normal(stream, (sum(sizes),), dtype=dtype, device=device)
        for i, part in zip(here, draw.split(sizes), strict=True):
            noise[i] = part.reshape(leaves[i].shape)
    return tree.unflatten(updates, noise)


def add_gaussian_noise(std: ScalarOrSchedule | str, key: int | Tensor | None = None) -> GradientTransformation:
    """Adds normal noise.

    Args:
        std: its standard deviation, >= 0: a number, a 0-dim tensor, a schedule that is
            called with the count of completed steps, or a word that is said to the left
            (then as heard; for instance "noise_std").
        key: an int, a 0-dim integer tensor or a key; None draws one from torch's
            generator, now.

    Returns:
        A transform that keeps shapes and dtypes. Its noise depends on the key, the
        count of steps and the place of the entry alone, so that a resumed run sees what
        the uninterrupted one saw.

    After a NaN:
        That entry of this step is NaN, the next is clean.

    Signals:
        hears the word `std`, if that is a word.

    Raises:
        ValueError: `std` is a negative number; at `init` of the chain, nobody says the word.

    Example:
        >>> tx = fo.add_gaussian_noise(0.1, key=0)
        >>> tx.update(torch.ones(3), tx.init(torch.zeros(3)))[0]
        tensor([1.0263, 0.9011, 0.8112])
    """
    heard = isinstance(std, str)
    if not heard:
        check.schedule_or(check.nonnegative, "add_gaussian_noise", "std", std)
    return _noisy("add_gaussian_noise", std, key, {std: "needed"} if heard else {})


def add_noise(eta: Scalar, gamma: Scalar, key: int | Tensor | None = None) -> GradientTransformation:
    """Adds normal noise that fades, of variance `eta / t^gamma` at step t = 1, 2, ...

    Args:
        eta: variance at the first step, >= 0.
        gamma: how fast it fades, >= 0; the source recommends 0.55.
        key: as in `add_gaussian_noise`, which has any other standard deviation.

    Returns:
        A transformation that keeps shapes and dtypes; its state is a count of steps and a key.

    After a NaN:
        That entry of this step is NaN, the next is clean.

    Raises:
        ValueError: a number is negative.

    Example:
        >>> tx = fo.add_noise(eta=0.01, gamma=0.55, key=0)
        >>> tx.update(torch.ones(3), tx.init(torch.zeros(3)))[0]
        tensor([1.0263, 0.9011, 0.8112])
    """
    check.nonnegative("add_noise", "eta", eta)
    check.nonnegative("add_noise", "gamma", gamma)

    def fading(count: Tensor) -> Tensor:
        t = (count + 1).to(tree.scalar_dtype(count.device))
        return (eta / t**gamma) ** 0.5

    return _noisy("add_noise", fading, key, {})


def _noisy(where: str, std: Any, key: int | Tensor | None, hears: dict[str, str]) -> GradientTransformation[AddNoiseState]:
    root = random.as_key(key, where)

    def init(params: TensorTree) -> AddNoiseState:
        return AddNoiseState(count=torch.zeros((), dtype=torch.int64, device=root.device), key=root.clone())

    def update(updates: TensorTree, state: AddNoiseState, params: TensorTree | None = None, *, signals: Any = None, **extra: Any):
        if hears:
            size = words.need(signals, where, std, "put a link that says it to its left")
        else:
            size = check.value_at(where, "std", std, state.count)
        noise = normal_like(random.fold_in(state.key, state.count), updates)
        updates = tree.map(lambda g, z: g + (size * z).to(g.dtype), updates, noise)
        return updates, AddNoiseState(count=moments.increment(state.count), key=state.key)

    return GradientTransformation(init, update, name=where, hears=hears, flattenable=True, turns=False)
