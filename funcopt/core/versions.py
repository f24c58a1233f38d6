"""What differs between versions of torch, guarded in this one place.

Eager runs from torch 2.1 on, compiled runs from 2.10 on (the first whose compiler
traces optree), best effort from 2.6.
"""

import functools
import importlib.util
import inspect
import re
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch._ops import HigherOrderOperator, OpOverload, OpOverloadPacket
from torch.utils import _python_dispatch, _pytree
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["TORCH", "HigherOrderOperator", "OpOverload", "OpOverloadPacket", "TorchDispatchMode", "announced", "autocast_on"]
__all__ += ["autocasting", "bits_as", "compiler_missing", "compiler_too_old", "compiling", "default_rate", "differentiated"]
__all__ += ["differentiating", "flattened", "foreach_add_", "foreach_copy_", "level", "level_of", "mark_static", "recorded"]
__all__ += ["register_node", "transforming", "trouble_of_the_compiler", "unflattened", "untraced", "unwrapped", "watched_only", "wrapped"]
__all__ += ["xor"]

Tensors = list[Tensor] | tuple[Tensor, ...]
F = TypeVar("F", bound=Callable[..., Any])

_major, _minor = re.findall(r"\d+", torch.__version__)[:2]
TORCH = (int(_major), int(_minor))

if hasattr(torch, "compiler") and hasattr(torch.compiler, "is_compiling"):
    compiling = torch.compiler.is_compiling
else:  # torch 2.1 and 2.2
    compiling = torch._dynamo.is_compiling


_functorch: Any = torch._C._functorch  # pyright: ignore[reportAttributeAccessIssue]
wrapped: Callable[[Tensor], bool] = _functorch.is_functorch_wrapped_tensor  # whether a functorch transform holds what it stands for
unwrapped: Callable[[Tensor], Tensor] = _functorch.get_unwrapped
level_of: Callable[[Tensor], int] = _functorch.maybe_get_level

if hasattr(_functorch, "maybe_current_level"):

    def level() -> int | None:
        """Of the innermost functorch transform around; None outside of all."""
        return torch._C._functorch.maybe_current_level()  # pyright: ignore[reportAttributeAccessIssue]

    def transforming() -> bool:  # asked for every leaf, and so in one call
        """True inside `torch.func.vmap`, `grad` and their kin."""
        return torch._C._functorch.maybe_current_level() is not None  # pyright: ignore[reportAttributeAccessIssue]

else:  # torch 2.1 and 2.2

    def level() -> int | None:
        """Of the innermost functorch transform around; None outside of all."""
        innermost = _functorch.peek_interpreter_stack()
        return None if innermost is None else innermost.level()

    def transforming() -> bool:
        """True inside `torch.func.vmap`, `grad` and their kin."""
        return level() is not None


def answered_while_tracing(f: F) -> F:
    """The function, whose answer a compiler takes as it is at the time it traces, and does not follow."""
    vars(f)["_dynamo_marked_constant"] = True
    return f


for _asked in (level, transforming):  # the transforms around a graph are among its guards
    answered_while_tracing(_asked)


def watched_only() -> bool:
    """Whether the modes of dispatch around, if any, are ones that change nothing, and say so."""
    if torch._C._len_torch_dispatch_stack() == 0:
        return True
    return all(getattr(mode, "watches_only", False) for mode in _python_dispatch._get_current_dispatch_mode_stack())


_modes: Any = getattr(torch._C, "_TorchDispatchModeKey", None)
if _modes is None:  # torch 2.1

    def _recorders() -> bool:
        names = [type(mode).__name__ for mode in _python_dispatch._get_current_dispatch_mode_stack()]
        return "ProxyTorchDispatchMode" in names or "FakeTensorMode" in names

else:

    def _recorders() -> bool:
        return any(torch._C._get_dispatch_mode(mode) is not None for mode in (_modes.PROXY, _modes.FAKE))  # pyright: ignore


def recorded() -> bool:
    """Whether somebody outside of the compiler writes down what is computed, to run it again with other inputs."""
    return torch.jit.is_tracing() or _recorders()  # pyright: ignore[reportPrivateImportUsage]


def register_node(kind: type, flatten: Callable[[Any], tuple[list[Any], Any]], unflatten: Callable[[Any, Any], Any]) -> None:
    """Tells torch's own trees (those of `torch.func.vmap`) what a class holds."""
    trees: Any = _pytree
    register = getattr(trees, "register_pytree_node", None) or trees._register_pytree_node
    register(kind, flatten, unflatten)  # public since torch 2.2


if TORCH >= (2, 2):

    def xor(x: Tensor, y: Tensor | int) -> Tensor:
        """`x ^ y`."""
        return x ^ y

else:

    def xor(x: Tensor, y: Tensor | int) -> Tensor:
        """`x ^ y`: a mode of dispatch, or a class of tensors, sees a number here as something that this torch refuses to call with."""
        if isinstance(y, int) and (type(x) is not Tensor or torch._C._len_torch_dispatch_stack()):
            y = torch.full((), y, dtype=x.dtype, device=x.device)
        return x ^ y


class _Viewed(torch.autograd.Function):
    """The bits of a tensor as another dtype of the same size, with the rule for vmap that old torches lack."""

    @staticmethod
    def forward(x: Tensor, dtype: torch.dtype) -> Tensor:
        return x.view(dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, dtype: torch.dtype) -> Any:
        return _Viewed.apply(x, dtype), in_dims[0]


def bits_as(x: Tensor, dtype: torch.dtype) -> Tensor:
    """`x.view(dtype)` of a dtype of the same size; x has no derivative."""
    return _Viewed.apply(x, dtype) if TORCH < (2, 10) and transforming() else x.view(dtype)  # pyright: ignore[reportReturnType]


# Of torch, under names of its own, which it has had in all these versions.
foreach_add_: Callable[[Tensors, Tensors], Any] = torch._foreach_add_  # pyright: ignore[reportPrivateImportUsage]
foreach_copy_: Callable[[Tensors, Tensors], Any] = torch._foreach_copy_  # pyright: ignore[reportPrivateImportUsage]
_nn: Any = torch._C._nn  # pyright: ignore[reportAttributeAccessIssue]
flattened: Callable[[list[Tensor]], Tensor] = _nn.flatten_dense_tensors  # one call, in place of one for every leaf


def _in_shape(vector: Tensor, like: list[Tensor]) -> tuple[Tensor, ...]:
    """The parts of a vector; old torches, 2.4 among them, give empty ones one dimension."""
    return tuple(part.view(x.shape) for part, x in zip(_nn.unflatten_dense_tensors(vector, like), like, strict=True))


unflattened: Callable[[Tensor, list[Tensor]], tuple[Tensor, ...]] = _nn.unflatten_dense_tensors if TORCH >= (2, 10) else _in_shape


def default_rate(optimizer_class: Callable[..., Any]) -> dict[str, float]:
    """The rate with which classes of newer torches begin, where one of this torch wants to be told; else nothing."""
    try:
        lr = inspect.signature(optimizer_class).parameters.get("lr")
    except (TypeError, ValueError):
        return {}
    return {"lr": 1e-3} if lr is not None and type(lr.default).__name__ == "_RequiredParameter" else {}


def mark_static(x: Tensor) -> None:
    """Tells the compiler that this buffer never moves."""
    torch._dynamo.mark_static_address(x, guard=False)


def untraced(f: F) -> F:
    """`f` as the compiler finds it: to be called, not looked into. (torch.compiler.disable loads the compiler at once.)"""
    disabled: Any = torch._disable_dynamo(f)  # pyright: ignore[reportPrivateImportUsage]
    return disabled


def trouble_of_the_compiler() -> type[Exception]:
    """What the compiler of torch raises, for an `except`."""
    from torch._dynamo.exc import TorchDynamoException

    return TorchDynamoException


if hasattr(torch._C, "_is_any_autocast_enabled"):
    autocasting = torch._C._is_any_autocast_enabled
else:  # torch 2.1 to 2.3

    def autocasting() -> bool:
        """Whether any kind of device is under autocast."""
        return torch.is_autocast_enabled() or torch.is_autocast_cpu_enabled()


def autocast_on(kind: str) -> bool:
    """Whether `torch.autocast` is on for this kind of device."""
    try:
        return torch.is_autocast_enabled(kind)
    except RuntimeError:  # torch 2.4 has none for some kinds, such as "mps"
        return False
    except TypeError:  # torch 2.1 to 2.3 ask by one name each, and of two kinds
        return torch.is_autocast_cpu_enabled() if kind == "cpu" else kind == "cuda" and torch.is_autocast_enabled()


def announced(x: Tensor) -> Tensor:
    """What a function that is differentiated is given, such that a compiler knows of it.

    To the compiler of torch 2.13 and older the argument of `torch.func.grad` itself has no derivative: an autograd.Function
    that is applied to it loses its backward, without a word (pytorch issue 193279). Of a view it knows.
    """
    return x.view_as(x) if compiling() else x


def followed() -> bool:
    """True where someone may take the derivative of whatever is computed: always while compiling, and inside functorch transforms."""
    return compiling() or transforming()


def differentiating(x: Tensor) -> bool:
    """True where someone may take the derivative of what is computed from `x`: where it says so, and wherever work is `followed`."""
    return x.requires_grad or followed()


def differentiated(x: Tensor) -> bool:
    """Whether a derivative of `x` is being recorded, by autograd or by any of the functorch transforms around."""
    while not x.requires_grad:
        if not wrapped(x):
            return False
        x = unwrapped(x)
    return True


def compiler_too_old() -> str | None:
    """Why this torch compiles nothing of ours, or None where it may."""
    return f"torch {torch.__version__} is older than 2.6" if TORCH < (2, 6) else None


@functools.cache
def compiler_missing(device: torch.device) -> str | None:
    """Why compiled steps cannot run on this machine, or None where they can."""
    if too_old := compiler_too_old():
        return too_old
    if device.type == "cuda":
        return None if importlib.util.find_spec("triton") else "triton is not installed"
    try:
        from torch._inductor.cpp_builder import get_cpp_compiler

        get_cpp_compiler()
    except Exception as error:  # torch's own class for this has moved between versions
        return f"no C++ compiler: {type(error).__name__}"
    return None
