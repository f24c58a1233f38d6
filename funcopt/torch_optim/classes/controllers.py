"""The controllers as classes, with the constructors, keywords and hooks of their sources.

    pilot(params, lr=..., betas=..., gamma=..., lr_phi=..., degree=...)
    aees(params, lr=..., inner="adamw", lr_candidates=..., ...); step_start, step_end, finalize, get_logs
    adaptive(params, lr=..., inner="adamw", lr_rule=..., ...); step_loss, step_reward, lr, wd

`optiroulette` is in optiroulette.py. What each source's quick-start becomes, line by line, is in docs/from-the-sources.md.
"""

import dataclasses
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from funcopt import rules
from funcopt.controllers.adaptive.adaptive import AdaptiveTransformation, adaptive as _adaptive, steered, warn_of_no_rules
from funcopt.controllers.adaptive.knobs import plan as make_plan
from funcopt.controllers.pilot.pilot import pilot as _pilot
from funcopt.controllers.pulseopt.aees import PUBLISHED, around, warn_of_idle_arms
from funcopt.controllers.pulseopt.arms import Control
from funcopt.controllers.pulseopt.episode_log import episode_log
from funcopt.controllers.pulseopt.ucb_episodes import ucb_episodes
from funcopt.core import GradientTransformation, Signals, check, tree
from funcopt.core.door.front import unknown
from funcopt.core.door.shown import shown
from funcopt.core.wrap import WHOLE, wrapped
from funcopt.rules.statistics import loss_watch, reward_watch
from funcopt.torch_optim.classes import ready_made
from funcopt.torch_optim.classes.make import IN_GROUPS, OPTIONS, FromFactory, also_takes, keywords, optimizer_class
from funcopt.torch_optim.groups import Params, check_rate
from funcopt.torch_optim.hyperparameters import Made
from funcopt.torch_optim.storage import ELSEWHERE

__all__ = ["adaptive", "aees", "pilot"]

pilot = optimizer_class(_pilot, module=__name__)

ContextMode = Literal["none", "trend"]
Rule = str | rules.Rule | rules.Product | None  # what a hyperparameter follows


def refuse_built(where: str, params: Any) -> None:
    if isinstance(params, torch.optim.Optimizer):
        kind = type(params).__name__
        raise TypeError(
            f"{where}: params must be parameters, got a {kind} that is built already; "
            f"name it, {where}(params, lr=..., inner='{kind.lower()}'), "
            f"or take it as a link: Optimizer(params, fo.{where}(fo.torch_optim.from_torch(torch.optim.{kind}, lr=...)))"
        )


class Around(FromFactory):
    """A controller around an inner optimizer that is named, whose hyperparameters pass through."""

    steered: tuple[str, ...] = ()  # keywords of the controller

    def _begin_around(
        self, params: Params, lr: Any, inner: Any, statics: dict[str, Any], given: dict[str, Any], rate: float | None
    ) -> None:
        where = type(self).__name__
        refuse_built(where, params)
        kind = ready(where, inner)
        for value in (lr, rate):
            if value is not None:
                check_rate(value)
        settled = dict(OPTIONS)
        defaults = kind._defaults()
        for name, value in given.items():
            if name in settled:
                settled[name] = value
            elif name in kind.joined:
                defaults["betas"] = tuple(value if beta == name else old for beta, old in zip(kind.joined, defaults["betas"], strict=True))
            elif name in defaults:
                defaults[name] = value
            else:
                unknown(where, [name], [*self.steered, *defaults, *OPTIONS])
        numbers = {name: defaults.pop(name) for name in kind.numbers}
        recipe = Made(self._kind(), tuple(numbers), {"inner": inner, "lr": rate, **statics, **defaults}, numbers, rate)
        elsewhere = {name: settled.pop(name) for name in ELSEWHERE}
        in_groups = {name: settled.pop(name) for name in IN_GROUPS}
        self._begin(params, recipe, {"lr": lr, **numbers, **in_groups}, settled, elsewhere)

    @classmethod
    def _kind(cls) -> type:
        return next(kind for kind in cls.__mro__ if kind.__module__ == __name__)

    @classmethod
    def masks(cls, *, inner: str, **statics: Any) -> bool:
        return ready(cls.__name__, inner).takes_mask

    @classmethod
    def upgrade(cls, shared: dict[str, Tensor], *, inner: str, **statics: Any) -> None:
        ready(cls.__name__, inner).upgrade(shared)


def ready(where: str, inner: Any) -> type[FromFactory]:
    """The class of an inner optimizer."""
    kind = getattr(ready_made, inner, None) if isinstance(inner, str) and not inner.startswith("_") else None
    if kind is None and isinstance(inner, str) and inner == "pilot":
        kind = pilot
    if not (isinstance(kind, type) and issubclass(kind, FromFactory)):
        if isinstance(inner, torch.optim.Optimizer) or (isinstance(inner, type) and issubclass(inner, torch.optim.Optimizer)):
            name = inner.__name__ if isinstance(inner, type) else type(inner).__name__
            raise TypeError(
                f"{where}: inner must be a name such as 'adamw', got {name}; "
                f"or Optimizer(params, fo.{where}(from_torch(torch.optim.{name}, lr=...)))"
            )
        names = sorted(
            name
            for name, value in vars(ready_made).items()
            if isinstance(value, type) and issubclass(value, FromFactory) and value is not FromFactory
        )
        raise TypeError(f"{where}: inner must be one of {', '.join(names)}, got {inner!r}")
    return kind


# --- AEES -----------------------------------------------------------------------------------------------------------------------


ARMS = (
    "control context exploration discount warmup reward instability reward_epsilon reward_clip ema_alpha start_losses standardize "
    "shift_credit trend_window trend_epsilon relative_trend partial check_losses dispatch draw seed"
).split()


@also_takes(keywords(ucb_episodes, ARMS, PUBLISHED))
class aees(Around):  # noqa: N801
    """AEES (PulseOpt) around a ready-made optimizer: bandits choose the factor of the step and gradient noise by the fall of the loss.

    Its defaults are the source's: one arm each, with which nothing changes, which is warned of.

    Args:
        params: as in torch.
        lr: the base rate, which schedulers may move; the bandit multiplies it.
        inner: the name of a ready-made optimizer; its hyperparameters pass through.
        lr_candidates, noise_candidates, episode_length: as in `fo.aees`.
        structured_control_mode, context_mode, reward_instability_lambda: the source's words
            for `control`, `context` ("none" for None) and `instability` of `fo.ucb_episodes`.
        given: other arguments of `fo.ucb_episodes`, hyperparameters of `inner`, options of `Optimizer`.

    Signals:
        needs the loss: `step(loss=loss)`, a closure, or `observe(loss=loss)`. The
        source's `step_end(loss)` is `step(loss=loss)`.

    Raises:
        TypeError: `params` is an optimizer that is built, `inner` names no class, an argument
            is unknown, or an `lr_scheduler` is given.
        ValueError: an argument is out of its range; at a step, there is no loss.

    Example:
        >>> w = torch.nn.Parameter(torch.tensor([1.0]))
        >>> opt = fo.torch_optim.aees([w], lr=0.1, inner="sgd", lr_candidates=[0.5], episode_length=2)
        >>> (2 * w).sum().backward()
        >>> opt.step_end(2.0)
        >>> w.data
        tensor([0.9000])
    """

    steered = ("lr_candidates", "noise_candidates", "episode_length", *ARMS)

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        *,
        inner: str = "adamw",
        lr_candidates: Sequence[float] = (1.0,),
        noise_candidates: Sequence[float] = (0.0,),
        episode_length: int = 100,
        structured_control_mode: Control | None = None,
        context_mode: ContextMode | None = None,
        reward_instability_lambda: float | None = None,
        lr_scheduler: None = None,
        **given: Any,
    ):
        self._look_through(given)
        if lr_scheduler is not None:
            raise TypeError(
                "aees: takes no lr_scheduler, which is built on this optimizer: "
                "CosineAnnealingLR(opt, T_max=...), then opt.step(loss=loss); scheduler.step()"
            )
        for name, arms in (("lr_candidates", lr_candidates), ("noise_candidates", noise_candidates)):
            if isinstance(arms, str) or not isinstance(arms, Iterable) or (isinstance(arms, Tensor) and arms.dim() != 1):
                raise TypeError(f"aees: {name} must be a sequence of numbers, got {shown(arms)}")
        check.choice("aees", "structured_control_mode", structured_control_mode, (None, *get_args(Control)))
        check.choice("aees", "context_mode", context_mode, (None, *get_args(ContextMode)))
        if reward_instability_lambda is not None:
            check.nonnegative("aees", "reward_instability_lambda", reward_instability_lambda)
        statics = {"lr_candidates": tuple(lr_candidates), "noise_candidates": tuple(noise_candidates), "episode_length": episode_length}
        statics["settings"] = {name: given.pop(name) for name in ARMS if name in given}
        for name, value in (("control", structured_control_mode), ("context", context_mode), ("instability", reward_instability_lambda)):
            if value is not None:
                statics["settings"][name] = None if value == "none" else value
        warn_of_idle_arms("aees", lr_candidates, noise_candidates)
        self._begin_around(params, lr, inner, statics, given, None)

    @classmethod
    def build(
        cls, *, inner: str, lr: None, lr_candidates, noise_candidates, episode_length, settings, **values: Any
    ) -> GradientTransformation:
        return around(ready("aees", inner).build(**values), lr_candidates, noise_candidates, episode_length=episode_length, **settings)

    def step_start(self, step: int | None = None) -> None:
        """The source's; nothing to be done."""

    def step_end(self, loss: Any) -> None:
        """The source's: `step(loss=loss)`, noted for `get_logs`."""
        self.step(loss=loss)
        self._note()

    def finalize(self) -> None:
        """Closes the open episode: `control("finalize")`."""
        self.control("finalize")
        self._note()

    def get_logs(self) -> dict[str, list]:
        """`fo.episode_log` of the steps taken by `step_end`."""
        return episode_log(self._engine.history)

    def _note(self) -> None:
        """Keeps the state of each step in which an episode has ended."""
        if not self._engine.units:  # no parameter has had a gradient yet
            return
        (unit,) = self._engine.units
        history, state = self._engine.history, unit.fresh()[0]
        if int(state.episode) == len(history) + 1:
            history.append(tree.clone(state))


# --- AdaptiveOptimizer ------------------------------------------------------------------------------------------------------------


def _rated(tx: GradientTransformation, lr: Any) -> GradientTransformation:
    """`tx`, told its rate by the caller."""

    def update(updates, state, params=None, *, signals=None, **extra):
        words = {"base_lr": tree.scalar(lr, updates)}
        heard = signals.joined(words) if isinstance(signals, Signals) else {**(signals or {}), **words}
        return tx.update(updates, state, params, signals=heard, **extra)

    hears = {word: how for word, how in tx.hears.items() if word != "base_lr"}
    return wrapped(tx.init, update, tx, WHOLE, hears=hears, again=lambda inner: _rated(inner, lr))


def _based(rule: Any, base: Any, cycle: Any) -> Any:
    """A rule, or the names of rules, with a base unless it has one; the base alone without a rule."""
    if rule is None:
        return base
    if isinstance(rule, str):
        names = [name.strip() for name in rule.replace("*", "+").split("+")]
        if cycle is not None:
            names = ["cosine_restart" if name == "cosine" else name for name in names]
        made = [cycle if name == "cosine_restart" and cycle is not None else rules.named(name) for name in names]
        rule = made[0] if len(made) == 1 else rules.Product.of(*made)
    if not isinstance(rule, (rules.Rule, rules.Product)):
        raise TypeError(f"adaptive: a rule must be a name ('trend+variance') or be made by fo.rules, got {shown(rule)}")
    parts = list(rule.rules)
    if base is not None and all(part.base is None for part in parts):
        parts[0] = dataclasses.replace(parts[0], base=base)
    return parts[0] if len(parts) == 1 else rules.Product.of(*parts)


def _based_on(tx: AdaptiveTransformation, bases: dict[str, Any]) -> GradientTransformation:
    """`tx` with the bases that the groups say now, in place of those with which its state began."""

    def update(updates, state, params=None, **extra):
        now = {knob: tree.scalar(base, state.count).clone() for knob, base in bases.items()}
        return tx.update(updates, state._replace(base={**state.base, **now}), params, **extra)

    return wrapped(tx.init, update, tx, WHOLE, kind=AdaptiveTransformation)


VERDICTS = ("bounds", "loss_stats", "reward_stats", "compensate", "strict")


@also_takes(keywords(_adaptive, VERDICTS))
class adaptive(Around):  # noqa: N801
    """AdaptiveOptimizer around a ready-made optimizer: its hyperparameters follow the loss and the reward by rules.

    Args:
        params: as in torch.
        lr: the base rate. A scheduler that halves it in the groups halves every step.
        inner: the name of a ready-made optimizer; its hyperparameters pass through, and are
            the bases of the rules.
        lr_rule, betas_rule, momentum_rule, alpha_rule, wd_rule: names of rules ("trend+variance"),
            or rules of `fo.rules`, for the rate, the pair of betas, and so on.
        reward_rule: what follows the reward.
        cycle_length, cycle_mult: of the cosine with restarts, if a rule is one.
        given: `bounds`, `loss_stats`, `reward_stats`, `compensate`, `strict` of `fo.adaptive`,
            hyperparameters of `inner`, options of `Optimizer`.

    Signals:
        hears `loss` and `reward` where there are any. The source's `step_loss(loss)` and
        `step_reward(reward)` are `observe(loss=loss)` and `observe(reward=reward)`.

    Raises:
        TypeError: `params` is an optimizer that is built, `inner` names no class, or an argument is unknown.
        ValueError: an argument is out of its range, or a rule stands where it has no meaning.

    Example:
        >>> w = torch.nn.Parameter(torch.tensor([1.0]))
        >>> opt = fo.torch_optim.adaptive([w], lr=0.5, inner="sgd", lr_rule="trend")
        >>> w.sum().backward()
        >>> opt.step_loss(1.0); opt.step()
        >>> w.data, opt.lr
        (tensor([0.5000]), 0.5)
    """

    steered = ("lr_rule", "betas_rule", "momentum_rule", "alpha_rule", "wd_rule", "reward_rule", "cycle_length", "cycle_mult", *VERDICTS)

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        *,
        inner: str = "adamw",
        lr_rule: Rule = None,
        betas_rule: Rule | tuple[Rule, Rule] = None,
        momentum_rule: Rule = None,
        alpha_rule: Rule = None,
        wd_rule: Rule = None,
        reward_rule: Rule = None,
        cycle_length: int | None = None,
        cycle_mult: float = 1.0,
        **given: Any,
    ):
        self._look_through(given)
        told = {"lr": lr_rule, "betas": betas_rule, "momentum": momentum_rule, "alpha": alpha_rule, "weight_decay": wd_rule}
        if cycle_length is not None and "cosine" not in repr(lr_rule).lower():
            warnings.warn("adaptive: cycle_length changes nothing, since lr_rule has no cosine", stacklevel=2)
        cycle = None if cycle_length is None else (cycle_length, cycle_mult)
        if isinstance(betas_rule, (tuple, list)) and len(betas_rule) != 2:
            raise ValueError(f"adaptive: betas_rule must be a rule or one for each of the two betas, got {len(betas_rule)}")
        settings = {name: given.pop(name) for name in VERDICTS if name in given}
        check_rate(lr)
        base = float(lr) if not isinstance(lr, Tensor) else float(lr.reshape(()))
        if all(rule is None for rule in (*told.values(), reward_rule)):
            warn_of_no_rules("adaptive", "lr_rule='trend+variance'")
        statics = {"told": told, "reward": reward_rule, "cycle": cycle, "settings": settings}
        self._begin_around(params, lr, inner, statics, given, base)

    @classmethod
    def build(cls, *, inner: str, lr: float, told, reward, cycle, settings, **values: Any) -> GradientTransformation:
        kind = ready("adaptive", inner)
        restarts = None if cycle is None else rules.cosine_restart(length=cycle[0], mult=cycle[1])
        knobs = {"lr": _based(told["lr"], lr, restarts)}
        fixed = dict(values)
        for knob in ("momentum", "alpha", "weight_decay"):
            if knob in fixed:
                knobs["decay" if knob == "alpha" else knob] = _based(told[knob], fixed.pop(knob), restarts)
        pair = told["betas"]
        if isinstance(fixed.get("betas"), (tuple, list)) and len(fixed["betas"]) == 2:
            pair = pair if isinstance(pair, (tuple, list)) else (pair, pair)
            knobs["b1"], knobs["b2"] = (_based(rule, beta, restarts) for rule, beta in zip(pair, fixed.pop("betas"), strict=True))

        def factory(**hyper: Any) -> GradientTransformation:
            rate = hyper.pop("lr")
            if "b1" in hyper:
                hyper["betas"] = (hyper.pop("b1"), hyper.pop("b2"))
            if "decay" in hyper:
                hyper["alpha"] = hyper.pop("decay")
            return _rated(kind.build(**fixed, **hyper), rate)

        plan = make_plan(factory, knobs, reward, settings.get("bounds"), settings.get("compensate", True), settings.get("strict", False))
        tx = steered(factory, plan, loss_watch(settings.get("loss_stats")), reward_watch(settings.get("reward_stats")), None)
        return _based_on(tx, {knob: base for knob, base in plan.bases.items() if knob != "lr" and not callable(base)})

    def step_loss(self, loss: Any) -> None:
        """The source's: `observe(loss=loss)`."""
        self.observe(loss=loss)

    def step_reward(self, reward: Any) -> None:
        """The source's: `observe(reward=reward)`."""
        self.observe(reward=reward)

    @property
    def lr(self) -> float:
        """The rate of the last step; the base before the first."""
        return self.effective_lrs()[0]

    @property
    def wd(self) -> float:
        """The weight decay of the last step."""
        said = self.signals().get("weight_decay")
        return float(self.param_groups[0].get("weight_decay", 0.0)) if said is None else float(said)
