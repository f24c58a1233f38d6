"""adaptive: hyperparameters that follow the loss and the reward.

    statistics of the loss, then of the reward    (rules/statistics.py)
    M_i <- clip(M_i * better_i or * worse_i)      integrators, one for each rule that has one
    lr, weight_decay = clip(base * product of factors)
    momentum, b1, b2, decay = clip(1 - (1 - base) * product of factors)
    lr <- lr * (1 - momentum) / (1 - its base)    heavy-ball momentum changes the length of the step
    u_t = the inner update with these values

The controller looks at no gradient and no parameter, and nothing differentiates through
what it observes. A signal that is not given leaves its statistics and its factors as they are.

Source: AdaptiveOptimizer (a README; its code was never published) and the formulas of its
sister projects AdaptiveScheduler, RewardAdaptiveScheduler, AdaptiveRL. The default verdict,
the factors of `trend`, the bounds and the compensation are ours, since the published ones
drive the rate of a stationary loss to 0.02 or 9.7 times its base; `loss_stats={"scale":
"relative"}` has the published verdict.
"""

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.controllers.adaptive.knobs import Plan, plan as make_plan
from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, check, moments, read_signals, tree
from funcopt.core.door.callers import warn
from funcopt.core.signals import scoped
from funcopt.rules import Product, Rule
from funcopt.rules.rule import Absolute, Reading
from funcopt.rules.statistics import Statistics, loss_watch, reward_watch
from funcopt.transforms.inject import rebuilding, rebuilt

__all__ = ["AdaptiveState", "AdaptiveTransformation", "adaptive"]

Spec = str | Rule | Product | ScalarOrSchedule  # what a knob is told


class AdaptiveState(NamedTuple):
    count: Tensor  # updates done
    base: dict[str, Tensor]  # of the knobs without a schedule
    hyperparams: dict[str, Tensor]  # as used in the last update
    loss: Statistics  # what was seen of the loss
    reward: Statistics  # what was seen of the reward
    integrators: Tensor  # [number of rules that have one], start at 1
    cycle: Tensor  # [2], updates since the last restart and the length of the period; of cosine_restart
    inner_state: Any  # of what the factory makes

    def signals(self) -> dict[str, Tensor]:
        words = {name: value for name, value in self.hyperparams.items() if name != "lr"}
        return {**words, "loss_trend": self.loss.verdict, "loss_variance": self.loss.variance, **read_signals(self.inner_state)}


class AdaptiveTransformation(GradientTransformation):
    """A transformation that also observes losses and rewards apart from updates.

    observe_loss, observe_reward: `(state, value) -> state`. An update with `loss=` and
    `reward=` is these two and then an update without.
    """

    observe_loss: Callable[[Any, Scalar], Any]  # hooks
    observe_reward: Callable[[Any, Scalar], Any]


def adaptive(
    factory: Callable[..., GradientTransformation],
    *,
    lr: Spec | None = None,
    momentum: Spec | None = None,
    betas: tuple[Spec | None, Spec | None] | None = None,
    b1: Spec | None = None,
    b2: Spec | None = None,
    alpha: Spec | None = None,
    decay: Spec | None = None,
    weight_decay: Spec | None = None,
    reward: str | Rule | Product | None = None,
    bounds: Mapping[str, tuple[float, float] | Absolute] | None = None,
    loss_stats: Mapping[str, Any] | None = None,
    reward_stats: Mapping[str, Any] | None = None,
    compensate: bool = True,
    strict: bool = False,
    name: str | None = None,
) -> AdaptiveTransformation:
    """Steers the hyperparameters of any optimizer by the loss and the reward.

    Args:
        factory: makes the optimizer from hyperparameters by name: `fo.adamw`,
            `partial(fo.adamw, lr=1e-3)`, `lambda **h: fo.chain(fo.clip(1.0), fo.sgd(**h))`.
            It is called at every update, with 0-dim tensors.
        lr, momentum, b1, b2, decay, weight_decay: what a knob is told: a rule or a
            product of rules of `fo.rules`, the names of rules ("trend+variance"), or a
            plain base: a number, a 0-dim tensor, a schedule. Without a base the default
            of the factory is one. A knob is a parameter of the factory of this name;
            rules for others, and for a momentum or weight decay of 0, are dropped.
        betas: the pair (b1, b2).
        alpha: another word for `decay`.
        reward: rules that follow the reward: on the rate, and `trend` on momentum (else b1).
        bounds: by knob (lo, hi), for lr (0.1, 2) and weight_decay (0.1, 10) in multiples
            of the base, or `fo.rules.absolute(lo, hi)`; for the others as they are:
            momentum and b1 (0.5, 0.99), b2 (0.9, 0.9999), decay (0.8, 0.9999), widened
            to hold the base.
        loss_stats: settings of the verdict: ema 0.9, window 20, scale "pair" ("relative",
            "deviation", "absolute"), slow 0.99, band 0.5, clip 5 (of "pair"), tol 1e-4 and
            deadband False (of the others), nonfinite "worse" ("ignore").
        reward_stats: the same for rewards: scale "pair" or "relative", tol 0.
        compensate: multiply lr by (1 - momentum) / (1 - its base) when rules move momentum.
        strict: a rule that would be dropped is an error.
        name: a prefix for the words said, so that two controllers can stand side by side.

    Returns:
        An `AdaptiveTransformation`. Its `update` takes `loss=` and `reward=`, numbers or
        0-dim tensors, where there are any.

    After a NaN:
        What it is given decides; docs/when-numbers-go-bad.md has each.

    Signals:
        says `momentum`, `b1`, `b2`, `decay`, `weight_decay` as used, as far as it hands
        them on, `loss_trend` (1 better, -1 worse, 0 neither) and `loss_variance`, and
        what the inner optimizer says (`lr` among it). Hears what the inner optimizer hears.

    Raises:
        TypeError: `factory` is no function; a spec is none of the above.
        ValueError: a rule does not fit its knob, has no base, or two of them; a base or
            bounds are out of range; both spellings of a knob are given; `strict`.

    Example:
        >>> tx = fo.adaptive(fo.sgd, lr=fo.rules.trend(0.5))
        >>> state = tx.init(torch.zeros(1))
        >>> for loss in (3.0, 2.0, 1.0):
        ...     updates, state = tx.update(torch.ones(1), state, loss=loss)
        >>> updates, state.loss.verdict
        (tensor([-0.5000]), tensor(0., dtype=torch.float64))
    """
    asked = {"lr": lr, "momentum": momentum, "b1": b1, "b2": b2, "decay": decay, "weight_decay": weight_decay}
    if betas is not None:
        if b1 is not None or b2 is not None:
            raise ValueError("adaptive: betas is (b1, b2); give one spelling, got both")
        if isinstance(betas, str) or not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise TypeError(f"adaptive: betas must be a pair, for b1 and b2, got {betas!r}")
        asked["b1"], asked["b2"] = betas
    if alpha is not None:
        if decay is not None:
            raise ValueError("adaptive: alpha is decay; give one spelling, got both")
        asked["decay"] = alpha
    plan = make_plan(factory, asked, reward, bounds, compensate, strict)
    if not plan.placed and not any(callable(base) for base in plan.bases.values()):
        warn_of_no_rules("adaptive", "lr='trend+variance'")
    return steered(factory, plan, loss_watch(loss_stats), reward_watch(reward_stats), name)


def warn_of_no_rules(where: str, example: str) -> None:
    warn(f"{where}: changes nothing, since no rule follows the loss or the reward; give it one, {example}")


def steered(
    factory: Callable[..., GradientTransformation], plan: Plan, losses: Any, rewards: Any, name: str | None
) -> AdaptiveTransformation:
    """What a plan makes of a factory."""
    bases, schedules = {}, {}
    for knob, base in plan.bases.items():
        (schedules if callable(base) else bases)[knob] = base

    def build(factory: Callable[..., Any], values: Mapping[str, Scalar]) -> GradientTransformation:
        return factory(**plan.fixed, **values)

    zero = torch.zeros((), dtype=torch.int64, device="cpu")
    first = {knob: check.value_at("adaptive", knob, schedule, zero) for knob, schedule in schedules.items()}
    template, remake = rebuilt("adaptive", factory, build, bases | first)

    def based(state: AdaptiveState) -> dict[str, Tensor]:
        now = {
            knob: tree.scalar(check.value_at("adaptive", knob, schedule, state.count), state.count) for knob, schedule in schedules.items()
        }
        return {knob: now[knob] if knob in now else state.base[knob] for knob in plan.bases}

    def init(params: TensorTree) -> AdaptiveState:
        count = torch.zeros((), dtype=torch.int64, device=tree.device(params))
        period = plan.cycle[0] if plan.cycle else 1
        state = AdaptiveState(
            count=count,
            base={knob: tree.scalar(base, params).clone() for knob, base in bases.items()},
            hyperparams={},
            loss=losses.init(count),
            reward=rewards.init(count),
            integrators=torch.ones(len(plan.integrators), dtype=tree.scalar_dtype(count.device), device=count.device),
            cycle=torch.tensor([0, period], device=count.device),
            inner_state=None,
        )
        values = {knob: value.clone() for knob, value in effective(plan, state, based(state)).items()}
        return state._replace(hyperparams=values, inner_state=remake(values).init(params))

    def observe_loss(state: AdaptiveState, loss: Scalar) -> AdaptiveState:
        seen, move = losses.observe(state.loss, _signal("loss", loss, state.count))
        return state._replace(loss=seen, integrators=integrated(plan, state, based(state), "loss", move))

    def observe_reward(state: AdaptiveState, reward: Scalar) -> AdaptiveState:
        seen, move = rewards.observe(state.reward, _signal("reward", reward, state.count))
        return state._replace(reward=seen, integrators=integrated(plan, state, based(state), "reward", move))

    def update(
        updates: TensorTree,
        state: AdaptiveState,
        params: TensorTree | None = None,
        *,
        signals: Any = None,
        loss: Scalar | None = None,
        reward: Scalar | None = None,
        **extra: Any,
    ):
        if loss is not None:
            state, extra = observe_loss(state, loss), extra | {"loss": loss}
        if reward is not None:
            state, extra = observe_reward(state, reward), extra | {"reward": reward}
        values = effective(plan, state, based(state))
        updates, inner_state = remake(values).update(updates, state.inner_state, params, signals=signals, **extra)
        return updates, state._replace(
            count=moments.increment(state.count),
            base=dict(state.base),
            hyperparams={knob: value.clone() for knob, value in values.items()},  # the inner state may keep the others
            cycle=turned(plan, state.cycle),
            inner_state=inner_state,
        )

    # One verdict steers all leaves, whose state is therefore one.
    hooks = {"observe_loss": observe_loss, "observe_reward": observe_reward}
    changed: dict[str, Any] = {"name": f"adaptive {template.name}", "per_leaf": False, "hooks": hooks}
    tx = rebuilding(init, update, template, remake, kind=AdaptiveTransformation, **changed)
    return tx if name is None else scoped(name, tx, kind=AdaptiveTransformation)


def _signal(name: str, value: Scalar, like: Tensor) -> Tensor:
    """A loss or reward as a 0-dim tensor outside of differentiation."""
    check.number("adaptive", name, value)
    return tree.scalar(value, like).detach()


def integrated(plan: Plan, state: AdaptiveState, bases: Mapping[str, Tensor], channel: str, move: Tensor) -> Tensor:
    """The integrators after a verdict on this channel: M <- clip(M * better, M * worse or M)."""
    if not any(integrator.channel == channel for integrator, _ in plan.integrators):
        return state.integrators
    better, worse = move.clamp(min=0), -move.clamp(max=0)
    after = []
    for (integrator, knob), m in zip(plan.integrators, state.integrators.unbind(-1), strict=True):
        if integrator.channel == channel:
            lo, hi = plan.knobs[knob].reach(bases[knob])
            m = (m * (1 + better * (integrator.better - 1) + worse * (integrator.worse - 1))).clamp(lo, hi)
        after.append(m)
    return torch.stack(after)


def effective(plan: Plan, state: AdaptiveState, bases: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The values that the inner optimizer uses, as one vector, by the entry (a compiler else works out each for each parameter)."""
    if not bases:
        return {}
    reading = Reading(loss=state.loss, reward=state.reward, clock=state.count, cycle=state.cycle)
    integrators = state.integrators.unbind(-1)
    values = dict(bases)
    for knob, parts in plan.placed.items():
        factors = [bound.factor(reading, bases[knob], None if index is None else integrators[index]) for bound, index in parts]
        values[knob] = plan.knobs[knob].value(bases[knob], reduce(torch.mul, factors))
    if plan.compensated:
        values["lr"] = values["lr"] * ((1 - values["momentum"]) / (1 - bases["momentum"]))
    realised = torch.stack(list(values.values()))
    return dict(zip(values, realised.unbind(-1), strict=True))


def turned(plan: Plan, cycle: Tensor) -> Tensor:
    """The clock of cosine_restart one update on."""
    if plan.cycle is None:
        return cycle
    tau, period = cycle.unbind(-1)
    tau, mult = tau + 1, plan.cycle[1]
    over = tau >= period
    longer = (period.to(tree.scalar_dtype(cycle.device)) * mult).clamp(1, 2.0**53).to(period.dtype)
    return torch.stack([torch.where(over, 0, tau), torch.where(over, longer, period)])
