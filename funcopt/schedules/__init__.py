"""A number from the count of steps: one file per shape.

A schedule maps the count of steps taken (a 0-dim tensor, or an int) to a 0-dim tensor on the count's device, float64 where the device
has it. It is plain arithmetic without Python branches on the count, so it vmaps, compiles and can be differentiated in its
hyperparameters, which may be 0-dim tensors.
Outside its range it keeps its first or last value. Two schedules multiply: `warm_up * decay`. Names, arguments and
values are those of optax 0.2.8, as far as it has them.
"""

from funcopt.core.door.namespaces import open_up
from funcopt.schedules.composable import ComposableSchedule
from funcopt.schedules.constant import constant_schedule
from funcopt.schedules.cosine import cosine_decay_schedule
from funcopt.schedules.exponential import exponential_decay
from funcopt.schedules.from_torch_scheduler import from_torch_scheduler
from funcopt.schedules.infinite_cosine import infinite_cosine_schedule
from funcopt.schedules.join import join_schedules
from funcopt.schedules.onecycle import cosine_onecycle_schedule, linear_onecycle_schedule
from funcopt.schedules.piecewise import piecewise_constant_schedule, piecewise_interpolate_schedule
from funcopt.schedules.polynomial import linear_schedule, polynomial_schedule
from funcopt.schedules.reciprocal_sqrt import reciprocal_sqrt_schedule
from funcopt.schedules.rex import rex_decay_schedule
from funcopt.schedules.sgdr import sgdr_schedule
from funcopt.schedules.warmup import warmup_constant_schedule, warmup_cosine_decay_schedule, warmup_exponential_decay_schedule
from funcopt.schedules.wsd import warmup_stable_decay_schedule

__all__ = [
    "ComposableSchedule",
    "constant_schedule",
    "cosine_decay_schedule",
    "cosine_onecycle_schedule",
    "exponential_decay",
    "from_torch_scheduler",
    "infinite_cosine_schedule",
    "join_schedules",
    "linear_onecycle_schedule",
    "linear_schedule",
    "piecewise_constant_schedule",
    "piecewise_interpolate_schedule",
    "polynomial_schedule",
    "reciprocal_sqrt_schedule",
    "rex_decay_schedule",
    "sgdr_schedule",
    "warmup_constant_schedule",
    "warmup_cosine_decay_schedule",
    "warmup_exponential_decay_schedule",
    "warmup_stable_decay_schedule",
]

open_up(__name__)
del open_up
