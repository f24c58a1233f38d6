"""Schedule-free SGD: gradient descent averaged as in transforms/schedule_free.py.

Source: Defazio et al. 2024. Reference: optax.contrib.schedule_free_sgd (0.2.8).
"""

import torch

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree
from funcopt.optimizers.schedule_free_adamw import warmed_up
from funcopt.optimizers.sgd import sgd
from funcopt.transforms.schedule_free import schedule_free

__all__ = ["schedule_free_sgd"]


def schedule_free_sgd(
    lr: ScalarOrSchedule | None = 1.0,
    warmup_steps: int | None = None,
    b1: Scalar = 0.9,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_lr_power: Scalar = 2.0,
    state_dtype: torch.dtype | None = None,
    *,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """Schedule-free SGD.

    Args:
        lr: the rate, held, in units of params per unit of gradient, >= 0; None: the `base_lr` it hears.
        warmup_steps: of a linear warm-up; None or 0: none.
        b1: where the gradient is taken, as in `schedule_free`.
        weight_decay: decoupled, at the place where the gradient is taken, >= 0.
        weight_lr_power: steps count in the average with this power of the rate, >= 0.
        state_dtype: dtype of z; None: that of the params.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A transformation from gradients to the updates that `apply_updates` adds, in their shapes and dtypes. Holds one
        tree like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Example:
        >>> tx = fo.schedule_free_sgd(0.5)
        >>> params = torch.tensor([1.0])
        >>> updates, state = tx.update(torch.tensor([1.0]), tx.init(params), params)
        >>> fo.schedule_free_eval_params(state, fo.apply_updates(params, updates))
        tensor([0.5000])
    """
    rate = warmed_up("schedule_free_sgd", lr, warmup_steps)
    base = sgd(rate, weight_decay=weight_decay, weight_decay_mask=weight_decay_mask)
    return schedule_free(base, rate, b1, weight_lr_power, state_dtype)
