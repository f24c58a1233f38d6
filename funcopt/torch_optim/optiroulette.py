"""OptiRoulette as a class, with the constructor and the hooks of its source.

optiroulette(params, optimizer_specs=..., active_names=...); on_epoch_start, on_batch_start, on_epoch_end
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from funcopt.controllers.members import Member
from funcopt.controllers.optiroulette import optiroulette as _optiroulette
from funcopt.controllers.pool import Failures
from funcopt.controllers.profile import NATIVE, optiroulette_profile
from funcopt.core import GradientTransformation
from funcopt.torch_optim.classes import ELSEWHERE, IN_GROUPS, OPTIONS, FromFactory
from funcopt.torch_optim.controllers import refuse_built
from funcopt.torch_optim.profile_members import member_from_profile
from funcopt.torch_optim.recipes import Made

__all__ = ["optiroulette"]


class optiroulette(FromFactory):  # noqa: N801
    """OptiRoulette: a pool of optimizers, one of which, drawn at random in each epoch, makes the steps.

    Args:
        params: as in torch.
        optimizer_specs: names and settings, `{"adam": {"lr": 1e-3}}`, with the names of the
            default profile (those that funcopt does not build come from pytorch_optimizer),
            or names and `fo.Member`s. None: the default profile, its 34 members and its settings.
        active_names, backup_names: who may be drawn, and who replaces failed ones.
        pool_config: `num_active`, `num_backup`, `failure_threshold`, `consecutive_failure_limit`.
        seed: of the draws.
        given: other arguments of `fo.roulette` (`warmup=fo.fixed_warmup(2)`), options of `Optimizer`.

    Rates belong to the members; `lr` of the groups, 1.0, multiplies them. It must be told the epoch:
    `on_epoch_start(epoch)`, or `step(epoch=epoch)`. `on_epoch_end(val_acc=0.6)` is `observe(metric=0.6)`.

    Example:
        >>> w = torch.nn.Parameter(torch.tensor([1.0]))
        >>> opt = fo.torch_optim.optiroulette([w], {"sgd": {"lr": 0.5}, "adam": {"lr": 0.25}}, seed=0)
        >>> opt.on_epoch_start(0); w.sum().backward(); opt.step()
        >>> w.data in (torch.tensor([0.5]), torch.tensor([0.75]))
        True
    """

    def __init__(
        self,
        params: Iterable,
        optimizer_specs: Mapping[str, Any] | None = None,
        *,
        active_names: Sequence[str] | None = None,
        backup_names: Sequence[str] | None = None,
        pool_config: Mapping[str, Any] | None = None,
        seed: int | None = 42,
        **given: Any,
    ):
        refuse_built("optiroulette", params)
        options = {name: given.pop(name, default) for name, default in OPTIONS.items()}
        elsewhere = {name: options.pop(name) for name in ELSEWHERE}
        statics = {"specs": None if optimizer_specs is None else dict(optimizer_specs), "seed": 42 if seed is None else seed}
        statics["settings"] = {**_listed(optimizer_specs, active_names, backup_names, pool_config), **given}
        recipe = Made(self._kind(), (), statics, {})
        self._begin(params, recipe, {"lr": 1.0, **{name: options.pop(name) for name in IN_GROUPS}}, options, elsewhere)

    @classmethod
    def _kind(cls) -> type:
        return optiroulette

    @classmethod
    def build(cls, *, specs: dict | None, seed: int, settings: dict) -> GradientTransformation:
        if specs is None:
            return _optiroulette(optiroulette_profile(missing=member_from_profile), **{**settings, "seed": seed})
        return _optiroulette({name: _member(name, spec, member_from_profile) for name, spec in specs.items()}, **{**settings, "seed": seed})

    def on_epoch_start(self, epoch: int) -> None:
        """The source's: the steps from here on belong to this epoch."""
        self._engine.standing["epoch"] = epoch

    def on_batch_start(self, batch_idx: int | None = None) -> None:
        """The source's; part of the step."""

    def on_epoch_end(self, val_acc: Any = None, **told: Any) -> None:
        """The source's: what the epoch was worth, used by the first step of the next."""
        self.observe(metric=val_acc, **told)


def _member(name: str, spec: Any, missing: Callable[[str, dict], Member]) -> Member:
    if isinstance(spec, Member):
        return spec
    if not isinstance(spec, Mapping):
        raise TypeError(f"optiroulette: the settings of '{name}' must be a dict or a Member, got {spec!r}")
    return NATIVE[name](**spec) if name in NATIVE else missing(name, dict(spec))


def _listed(specs: Any, active: Any, backup: Any, config: Mapping[str, Any] | None) -> dict[str, Any]:
    """The source's lists and limits as arguments of `roulette`."""
    config = dict(config or {})
    names = list(specs or ())
    settings: dict[str, Any] = {}
    ahead, behind = config.pop("num_active", None), config.pop("num_backup", None)
    if active is None and ahead is not None:
        active = names[:ahead]
    if backup is None and behind is not None:
        backup = [name for name in names if name not in (active or ())][:behind]
    limits = {"failure_threshold": "threshold", "consecutive_failure_limit": "in_a_row"}
    unknown = [name for name in config if name not in limits]
    if unknown:
        raise TypeError(f"optiroulette: pool_config takes num_active, num_backup, {', '.join(limits)}, got {', '.join(unknown)}")
    if config:
        settings["failures"] = Failures(**{limits[name]: value for name, value in config.items()})
    if active is not None:
        settings["active"] = list(active)
    if backup is not None:
        settings["backup"] = list(backup)
    return settings
