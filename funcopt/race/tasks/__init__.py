"""What is raced on: small tasks on real or generated data that train in seconds, by name; nothing is downloaded.

A name may end in a size of the batch: `noisy-2`, `deep-512`.
"""

from collections.abc import Callable
from functools import partial
from inspect import signature

from funcopt.race.tasks.characters import character_transformer
from funcopt.race.tasks.deep import deep_tanh
from funcopt.race.tasks.digits import digits_cnn, digits_gru, digits_mlp, noisy_digits
from funcopt.race.tasks.mnist1d import mnist1d_mlp
from funcopt.race.tasks.own import task
from funcopt.race.tasks.parts import Task
from funcopt.race.tasks.tabular import table_mlp

__all__ = [
    "TASKS",
    "Task",
    "character_transformer",
    "deep_tanh",
    "digits_cnn",
    "digits_gru",
    "digits_mlp",
    "mnist1d_mlp",
    "noisy_digits",
    "table_mlp",
    "task",
    "task_named",
]

LARGE = {"blocks": 4, "width": 128, "context": 64, "batch_size": 8, "looked_at": 6400}  # 826,112 params

TASKS: dict[str, Callable[..., Task]] = {
    "mlp": digits_mlp,
    "cnn": digits_cnn,
    "gru": digits_gru,
    "noisy": noisy_digits,
    "mnist1d": mnist1d_mlp,
    "deep": deep_tanh,
    "characters": character_transformer,
    "characters_large": partial(character_transformer, **LARGE),
    "tabular": table_mlp,
    "wine": partial(table_mlp, "wine"),
    "diabetes": partial(table_mlp, "diabetes"),
}


def task_named(name: str, *, validation: bool | None = None, **settings) -> Task:
    """The task of that name, made with these settings.

    Args:
        name: one of `TASKS`, and behind it, if it is to be another than the task's own, the size of the batch: "deep-512".
        validation: for the digits, whether there is a split "validation"; None: as the task has it. The others always have one.
        settings: of the function that makes it.

    Returns:
        The task.

    Raises:
        ValueError: there is none; the message lists those there are. Or the batch is larger than the data.

    Example:
        >>> fo.race.task_named("noisy-2").batch_size
        2
    """
    kind, dash, size = name.rpartition("-")
    kind = kind if dash and size.isdecimal() else name
    if kind not in TASKS:
        raise ValueError(f"race: no task {name!r}; there are {', '.join(TASKS)}; noisy-2 is noisy in batches of 2")
    if validation is not None and "validation" in signature(TASKS[kind]).parameters:
        settings["validation"] = validation
    found = TASKS[kind](**settings)
    if kind == name:
        return found
    if not 1 <= int(size) <= (rows := len(found.data["train"][0])):
        raise ValueError(f"race: the batch of {name!r} must be in [1, {rows}], the rows of {kind}")
    return found._replace(name=f"{found.name}, batch {size}", batch_size=int(size))
