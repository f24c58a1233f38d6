"""split_real_and_imaginary: a complex leaf as a pair of real ones.

    u = u_re + i u_im,   (u_re, u_im) = inner((re g, im g))

For methods that know real numbers only. Reference: optax.contrib.split_real_and_imaginary
(0.2.8). Gradients are torch's (for |z|^2: 2 z); JAX's are their conjugates.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, TensorTree, read_signals, tree
from funcopt.core.wrap import field, wrapped

__all__ = ["SplitRealAndImaginaryArrays", "SplitRealAndImaginaryState", "split_real_and_imaginary"]


class SplitRealAndImaginaryArrays(NamedTuple):
    """Stands in place of a complex leaf."""

    real: Tensor  # its real part
    imaginary: Tensor  # its imaginary part, like the real one


class SplitRealAndImaginaryState(NamedTuple):
    inner_state: Any  # of what it wraps

    def signals(self) -> dict[str, Tensor]:
        return read_signals(self.inner_state)


def _split(values: TensorTree) -> TensorTree:
    return tree.map_plain(lambda x: SplitRealAndImaginaryArrays(x.real, x.imag) if x.is_complex() else x, values)


def _joined(values: TensorTree) -> TensorTree:
    def join(x: Any) -> Tensor:
        return torch.complex(x.real, x.imaginary) if isinstance(x, SplitRealAndImaginaryArrays) else x

    return tree.map_until(SplitRealAndImaginaryArrays, join, values)


def split_real_and_imaginary(inner: GradientTransformation) -> GradientTransformation:
    """Runs `inner` on the real and imaginary parts of complex leaves, as leaves of their own; real leaves stay as they are.

    Args:
        inner: any transformation of real leaves.

    Returns:
        A transformation of complex and real leaves, in the shapes and dtypes it is given; its state is that of `inner`.

    After a NaN:
        What it is given decides; docs/when-numbers-go-bad.md has each.

    Signals:
        forwards those of `inner`.

    Raises:
        TypeError: `inner` is no transformation.

    Example:
        >>> tx = fo.split_real_and_imaginary(fo.clip(1.0))
        >>> z = torch.tensor([3.0 - 0.5j])
        >>> tx.update(z, tx.init(z))[0]
        tensor([1.0000-0.5000j])
    """

    def init(params: TensorTree) -> SplitRealAndImaginaryState:
        return SplitRealAndImaginaryState(inner_state=inner.init(_split(params)))

    def update(
        updates: TensorTree, state: SplitRealAndImaginaryState, params: TensorTree | None = None, *, signals: Any = None, **extra: Any
    ):
        shown = None if params is None else _split(params)
        changed, inner_state = inner.update(_split(updates), state.inner_state, shown, signals=signals, **extra)
        return _joined(changed), SplitRealAndImaginaryState(inner_state=inner_state)

    return wrapped(init, update, inner, field("inner_state"), name=f"split_real_and_imaginary {inner.name}")
