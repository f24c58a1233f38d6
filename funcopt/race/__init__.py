"""Several optimizers, many seeds, one real task, side by side under vmap.

from funcopt import race
race.run(race.digits_mlp(), {"adamw": fo.adamw(3e-3), "mine": lambda seed: mine(seed=seed)}, seeds=5)
"""

from funcopt.core.door.namespaces import open_up
from funcopt.race import statistics
from funcopt.race.progress import Progress
from funcopt.race.report import Race, Run
from funcopt.race.runner import run
from funcopt.race.tasks import TASKS, Task, digits_cnn, digits_mlp, task, task_named

__all__ = ["TASKS", "Progress", "Race", "Run", "Task", "digits_cnn", "digits_mlp", "run", "statistics", "task", "task_named"]

open_up(__name__, "race.", classes=("Progress", "Race"))
del open_up
