"""What a kind of difficulty is: one small problem and the number that makes it harder.

    p_0      = init(z, d)                     z standard normal, by seed; d the difficulty of the level
    training: gradients of objective(p, z_t, d), z_t standard normal, new at every step
    solved:   value(p, d) <= target           value is the objective without noise

The difficulty is a number that enters the arithmetic and no shape: all levels, rates and
seeds of an optimizer are lanes of one vmapped step. Every leaf is a matrix, so that methods
for matrices (Muon) take part.

Source: the idea and the kinds are those of LightBench, the suite that HeavyBall is tested
with (github.com/HomebrewML/LightBench, BSD-3-Clause): small problems with one known
weakness each, in steps of difficulty, best of some rates, solved or not. Our functions are
written anew and differ from its; each file says from which of its files the kind is taken.
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

__all__ = ["LEVELS", "Kind", "with_noise"]

LEVELS = ("trivial", "easy", "medium", "hard")
Params = dict[str, Tensor]


class Kind(NamedTuple):
    """A kind of difficulty at four levels; functions of one lane, which `vmap` runs for all."""

    name: str
    about: str  # half a line for the table
    number: str  # what the difficulty is
    levels: tuple[float, ...]  # the difficulty at each of LEVELS
    target: float  # solved at or below, in units of `value`
    start: tuple[int, ...]  # shape of the draw from which params are made
    noise: tuple[int, ...]  # shape of the draw of a step
    init: Callable[[Tensor, Tensor], Params]  # (draw, difficulty) -> params
    objective: Callable[[Params, Tensor, Tensor], Tensor]  # (params, draw, difficulty) -> 0-dim
    value: Callable[[Params, Tensor], Tensor]  # (params, difficulty) -> 0-dim, without noise


def with_noise(value: Callable[[Params, Tensor], Tensor], sigma: float) -> Callable[[Params, Tensor, Tensor], Tensor]:
    """The value and `sigma` z on the gradient of every entry of the leaf "x"."""

    def objective(params: Params, z: Tensor, d: Tensor) -> Tensor:
        return value(params, d) + sigma * (z * params["x"]).sum()

    return objective
