"""Schedule-free AdamW: RMSprop, corrected, with decay, averaged as in transforms/schedule_free.py.

Source: Defazio et al. 2024. Reference: optax.contrib.schedule_free_adamw (0.2.8).
"""

import torch

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check
from funcopt.optimizers.rmsprop import scale_by_rms
from funcopt.schedules import warmup_constant_schedule
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.schedule_free import schedule_free
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["schedule_free_adamw"]


def warmed_up(where: str, lr: ScalarOrSchedule | None, steps: int | None) -> ScalarOrSchedule | None:
    """The rate behind a linear warm-up; None and 0 steps are none."""
    if not steps:
        return lr
    check.integer(where, "warmup_steps", steps, 0)
    if lr is None or callable(lr):
        raise ValueError(f"{where}: warmup_steps needs a number for lr, got {lr!r}; put the warm-up into the schedule")
    return warmup_constant_schedule(init_value=0.0, peak_value=lr, warmup_steps=steps)


def schedule_free_adamw(
    lr: ScalarOrSchedule | None = 0.0025,
    warmup_steps: int | None = None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_lr_power: Scalar = 2.0,
    state_dtype: torch.dtype | None = None,
    *,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """Schedule-free AdamW.

    Args:
        lr: the rate, held, >= 0; about ten times what AdamW takes with a schedule. None: the `base_lr` it hears.
        warmup_steps: of a linear warm-up; None or 0: none.
        b1: where the gradient is taken, as in `schedule_free`.
        b2, eps: of the running mean square.
        weight_decay: decoupled, at the place where the gradient is taken, >= 0.
        weight_lr_power, state_dtype: as in `schedule_free`.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A transformation from gradients to the updates that `apply_updates` adds, in their shapes and dtypes. Holds two
        trees like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Example:
        >>> tx = fo.schedule_free_adamw(0.1)
        >>> params = torch.tensor([1.0])
        >>> updates, state = tx.update(torch.tensor([3.0]), tx.init(params), params)
        >>> fo.schedule_free_eval_params(state, fo.apply_updates(params, updates))
        tensor([0.9000])
    """
    rate = warmed_up("schedule_free_adamw", lr, warmup_steps)
    base = chain(
        scale_by_rms(b2, eps, eps_in_sqrt=False, bias_correction=True), add_decayed_weights(weight_decay, weight_decay_mask), lr_scale(rate)
    )
    return schedule_free(base, rate, b1, weight_lr_power, state_dtype)
