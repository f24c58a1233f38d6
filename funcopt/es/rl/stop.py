"""Whether everybody is done, asked from inside `vmap`: so that a loop may end before its horizon.

Inside `vmap` a condition of one member has no number. The condition of all members
together has: each level of `vmap` hands the whole batch to the next, and under the
last lies a plain tensor.
"""

from typing import Any

import torch
from torch import Tensor

from funcopt.core import versions

__all__ = ["everywhere"]


class Answer:
    """Where the question leaves its answer. No tree: torch would hand on a copy."""

    value = False


class Ask(torch.autograd.Function):
    @staticmethod
    def forward(condition: Tensor, answer: Answer) -> Tensor:
        answer.value = bool(condition.all().item())
        return condition.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], condition: Tensor, answer: Answer) -> tuple[Any, Any]:
        return Ask.apply(condition, answer), in_dims[0]


def everywhere(condition: Tensor) -> bool:
    """Whether `condition` holds in every entry of every member of every `vmap` around; False where no value can be read.

    That is: while a graph is traced, and while a CUDA graph is captured. On an
    accelerator the answer waits for the device.

    Args:
        condition: of bools.

    Example:
        >>> from funcopt.es.rl.stop import everywhere
        >>> def halve_until_small(x):
        ...     while not everywhere(x < 1):
        ...         x = x / 2
        ...     return x
        >>> torch.func.vmap(halve_until_small)(torch.tensor([1.0, 4.0]))
        tensor([0.1250, 0.5000])
    """
    if versions.compiling() or (condition.is_cuda and torch.cuda.is_current_stream_capturing()):
        return False
    answer = Answer()
    Ask.apply(condition.detach(), answer)
    return answer.value
