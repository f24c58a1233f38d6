"""The protocol: budgets, seeds, rates, and the rules by which a rate and a step are picked. Nothing is chosen on the test seeds.

    rate        the one of `TUNED` whose mean over the tuning seeds is least in the validation measure
    step        for each seed the look, of `LOOKS` over the run, whose validation measure is least (the first of equals)
    endings     "end": the params after the last step; "picked": those of the picked step. Rates are picked for each by itself
    bar         the better, on the test seeds, of AdamW constant and AdamW with warm-up and cosine; for each ending by itself
    excess      100 (mean m / mean bar - 1) per cent, m the test measure, with a 95 % interval, paired by seed

Batches are sizes of a step in rows; of `characters` a row is 24 predictions, so that its 4 rows are a batch of 96.
"""

from typing import NamedTuple

from funcopt.race.tasks import Task, task_named
from funcopt.race.tune import HALF_DECADES

__all__ = ["ENDINGS", "LOOKS", "LOW", "Plan", "STARTS", "TUNED", "TUNING_SEEDS", "WARM_UP", "plans", "prepared", "seeds"]

TUNED = HALF_DECADES  # 1e-4 to 1e-1, the same for every method with a rate
LOW = (1e-7, 1e-6, 1e-5)  # below them, for the curves alone
STARTS = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)  # of what finds its rate
TUNING_SEEDS = (1000, 1001)
TEST_SEEDS = {"short": tuple(range(5)), "long": tuple(range(10, 20))}  # no setting was looked at on those of the long form
LARGE_SEEDS = (0, 1, 2)  # of the large transformer
LOOKS = 20
WARM_UP = 0.05  # share of the run, in front of a cosine
ENDINGS = ("picked", "end")


class Plan(NamedTuple):
    """One task of the evidence.

    name: of the task.
    steps: of each form.
    measure: of test and validation, "error" or "loss". Where so few rows are wrong that an error is a handful, the loss.
    small: whether the batch is 1, 2 or the greater part of what there is: held to 5 % where others are held to 2 %.
    """

    name: str
    steps: dict[str, int]
    measure: str = "loss"
    small: bool = False


def _plan(name: str, short: int, long: int, **settings) -> Plan:
    return Plan(name, {"short": short, "long": long}, **settings)


PLANS = (
    _plan("noisy", 1000, 1000, measure="error"),
    _plan("noisy-2", 1000, 3000, measure="error", small=True),
    _plan("mnist1d", 1000, 1000, measure="error"),
    _plan("mnist1d-2", 1000, 3000, measure="error", small=True),
    _plan("deep", 800, 1000),
    _plan("deep-1", 1000, 3000, small=True),
    _plan("deep-512", 400, 1000, small=True),
    _plan("characters", 600, 1000),
    _plan("gru", 600, 1000),
    _plan("cnn", 600, 1000),
    _plan("tabular", 300, 600),
    _plan("diabetes", 300, 600),
)
LARGE = (Plan("characters_large", {"long": 1000}), Plan("characters_large", {"long": 3000}))


def plans(form: str) -> dict[str, Plan]:
    """Key of the result -> what is run for it; "short" or "long"."""
    found = {plan.name: plan for plan in PLANS}
    if form == "long":
        found |= {f"{plan.name}, {plan.steps[form]} steps": plan for plan in LARGE}
    return found


def seeds(plan: Plan, form: str) -> tuple[int, ...]:
    """That are reported; disjoint from `TUNING_SEEDS`."""
    return LARGE_SEEDS if plan.name.endswith("_large") else TEST_SEEDS[form]


def prepared(plan: Plan) -> Task:
    """The task itself, with data for validation."""
    return task_named(plan.name, validation=True)._replace(measure=plan.measure)
