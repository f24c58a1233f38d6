"""OptiRoulette as a class, with the constructor and the hooks of its source.

optiroulette(params, optimizer_specs=..., active_names=...); on_epoch_start, on_batch_start, on_epoch_end
"""

from collections.abc import Mapping, Sequence
from typing import Any

from funcopt.controllers.roulette.members import Member
from funcopt.controllers.roulette.pool import Failures
from funcopt.controllers.roulette.profile import optiroulette_profile
from funcopt.controllers.roulette.profile_members import BY_CLASS, member_of
from funcopt.controllers.roulette.roulette import PUBLISHED, optiroulette as _optiroulette, roulette
from funcopt.core import GradientTransformation
from funcopt.core.door.front import signature
from funcopt.core.door.shown import shown
from funcopt.torch_optim.classes.controllers import refuse_built
from funcopt.torch_optim.classes.make import IN_GROUPS, OPTIONS, FromFactory, also_takes, keywords
from funcopt.torch_optim.foreign.profile_members import member_from_profile
from funcopt.torch_optim.groups import Params
from funcopt.torch_optim.hyperparameters import Made
from funcopt.torch_optim.storage import ELSEWHERE

__all__ = ["optiroulette"]


HANDED_ON = [name for name in signature(roulette).parameters if name not in ("pool", "seed")]


@also_takes(keywords(roulette, HANDED_ON, PUBLISHED), any_other=False)
class optiroulette(FromFactory):  # noqa: N801
    """OptiRoulette: a pool of optimizers, one of which, drawn at random in each epoch, makes the steps.

    Args:
        params: as in torch.
        optimizer_specs: names and settings, `{"adam": {"lr": 1e-3}}`, with the names of the
            default profile (other classes come from pytorch_optimizer, where that is installed),
            or names and `fo.Member`s. None: the default profile, its 34 members and its settings.
        active_names, backup_names: who may be drawn, and who replaces failed ones.
        pool_config: `num_active`, `num_backup`, `failure_threshold`, `consecutive_failure_limit`.
        quirks: whether members of the default profile walk wrong where the classes of the source do (`fo.optiroulette_profile`).
        seed: of the draws.
        given: other arguments of `fo.roulette` (`warmup=fo.fixed_warmup(2)`), options of `Optimizer`.

    Rates belong to the members; `lr` of the groups, 1.0, multiplies them. It must be told the epoch:
    `on_epoch_start(epoch)`, or `step(epoch=epoch)`. `on_epoch_end(val_acc=0.6)` is `observe(metric=0.6)`.

    Raises:
        TypeError: `params` is an optimizer that is built, the settings of a member are no dict,
            or `pool_config` has an unknown key.
        ValueError: as `fo.roulette`; at a step, there is no epoch.

    Example:
        >>> w = torch.nn.Parameter(torch.tensor([1.0]))
        >>> opt = fo.torch_optim.optiroulette([w], {"sgd": {"lr": 0.5}, "adam": {"lr": 0.25}}, seed=0)
        >>> opt.on_epoch_start(0); w.sum().backward(); opt.step()
        >>> w.data in (torch.tensor([0.5]), torch.tensor([0.75]))
        True
    """

    def __init__(
        self,
        params: Params,
        optimizer_specs: Mapping[str, Any] | None = None,
        *,
        active_names: Sequence[str] | None = None,
        backup_names: Sequence[str] | None = None,
        pool_config: Mapping[str, Any] | None = None,
        quirks: bool = False,
        seed: int | None = 42,
        **given: Any,
    ):
        refuse_built("optiroulette", params)
        self._look_through(given)
        for name, value in (("optimizer_specs", optimizer_specs), ("pool_config", pool_config)):
            if value is not None and not isinstance(value, Mapping):
                raise TypeError(f"optiroulette: {name} must be a dict or None, got {shown(value)}")
        for name, value in (("active_names", active_names), ("backup_names", backup_names)):
            if value is not None and (isinstance(value, str) or not isinstance(value, Sequence)):
                raise TypeError(f"optiroulette: {name} must be a list of names or None, got {shown(value)}")
        options = {name: given.pop(name, default) for name, default in OPTIONS.items()}
        elsewhere = {name: options.pop(name) for name in ELSEWHERE}
        statics = {
            "specs": None if optimizer_specs is None else dict(optimizer_specs),
            "seed": 42 if seed is None else seed,
            "quirks": quirks,
        }
        statics["settings"] = {**_listed(optimizer_specs, active_names, backup_names, pool_config), **given}
        recipe = Made(self._kind(), (), statics, {})
        self._begin(params, recipe, {"lr": 1.0, **{name: options.pop(name) for name in IN_GROUPS}}, options, elsewhere)

    @classmethod
    def _kind(cls) -> type:
        return optiroulette

    @classmethod
    def build(cls, *, specs: dict[str, Any] | None, seed: int, settings: dict[str, Any], quirks: bool = False) -> GradientTransformation:
        pool = optiroulette_profile(quirks=quirks) if specs is None else {name: _member(name, spec) for name, spec in specs.items()}
        made: dict[str, Any] = {**settings, "seed": seed}
        return _optiroulette(pool, **made)

    def on_epoch_start(self, epoch: int) -> None:
        """The source's: the steps from here on belong to this epoch."""
        self._engine.standing["epoch"] = epoch

    def on_batch_start(self, batch_idx: int | None = None) -> None:
        """The source's; part of the step."""

    def on_epoch_end(self, val_acc: Any = None, **told: Any) -> None:
        """The source's: what the epoch was worth, used by the first step of the next."""
        self.observe(metric=val_acc, **told)


def _member(name: str, spec: Any) -> Member:
    if isinstance(spec, Member):
        return spec
    if not isinstance(spec, Mapping):
        raise TypeError(f"optiroulette: the settings of '{name}' must be a dict or a Member, got {spec!r}")
    own = BY_CLASS.get(name.lower()) if isinstance(name, str) else None
    return member_from_profile(name, dict(spec)) if own is None else member_of(own, spec)


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
