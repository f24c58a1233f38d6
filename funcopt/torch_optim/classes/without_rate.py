"""rate_free: a torch optimizer without a rate: `fo.torch_optim.rate_free(model.parameters())`."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from funcopt.controllers.rate.rate_free import NADAMW, OTHERS, START, Defaults, check_direction, searching, with_defaults
from funcopt.core import GradientTransformation, check
from funcopt.torch_optim.classes.controllers import Around, ready
from funcopt.torch_optim.classes.make import also_takes
from funcopt.torch_optim.groups import Params, as_number
from funcopt.transforms.average_params import average_params

__all__ = ["rate_free"]


@also_takes()
class rate_free(Around):  # noqa: N801
    """A ready-made optimizer that finds its rate, and averages the parameters.

    Args:
        params: as in torch.
        start: the rate with which the search begins, > 0: the `lr` of the groups, which
            schedulers may move and the search multiplies. Far below what may be right.
        inner: the name of a ready-made optimizer, whose hyperparameters pass through; "nadamw" has a second
            beta of 0.995, a `b2_sure` of 0.9 and a decay of 0.2 unless they are given, and decays by the share of it that the search says.
        average: whether `eval()` puts the average of the parameters in their place, until `train()`.
        power: of the average, as in `fo.average_params`.
        clip: how many times as long as the mean of late the gradient may be, > 1 (`fo.clip_by_mean_norm`); inf: any length. None: 3
            for "nadamw", else inf.
        find: settings for `fo.find_rate`, such as `{"keep": 0.5}`; unless given, `hurry` is 3, and for "nadamw" `stretch` 1.2.
        per_group: whether each group finds its own rate, and has its own direction and average, as if it were
            trained alone; else all share one multiplier. A group of one parameter finds that of the parameter.
        given: hyperparameters of `inner`, options of `Optimizer`.

    Signals:
        those of `fo.find_rate`, with `per_group` those of further groups as "group1/rate_multiplier"; `effective_lrs()`
        is the size of the step taken.

    Raises:
        TypeError, ValueError: an argument is unknown or out of its range; `inner` declares steps of one length, or a rate of its own.

    Example:
        >>> w = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
        >>> opt = fo.torch_optim.rate_free([w])
        >>> for _ in range(150):
        ...     opt.zero_grad()
        ...     (w**2).sum().backward()
        ...     opt.step()
        >>> opt.effective_lrs()[0] > 1e-3
        True
    """

    steered = ("start", "inner", "average", "power", "clip", "find", "per_group")

    def __init__(
        self,
        params: Params,
        start: float | Tensor = START,
        *,
        inner: str = "nadamw",
        average: bool = True,
        power: float = 8.0,
        clip: float | None = None,
        find: Mapping[str, Any] | None = None,
        per_group: bool = False,
        **given: Any,
    ):
        if "lr" in given:
            raise TypeError("rate_free: takes no lr, since it finds its own; start= is where the search begins")
        check.positive("rate_free", "start", as_number(start))
        check.flag("rate_free", "per_group", per_group)
        statics = {"average": average, "power": power, "clip": clip, "find": dict(find or {}), "per_group": per_group}
        self._begin_around(params, start, inner, statics, with_defaults(_default(inner), given), None)

    @classmethod
    def _kind(cls) -> type:
        return rate_free

    @classmethod
    def by_group(cls, *, per_group: bool = False, **statics: Any) -> bool:
        return per_group

    @classmethod
    def build(
        cls,
        *,
        inner: str,
        lr: None,
        average: bool,
        power: float,
        clip: float | None,
        find: dict[str, Any],
        per_group: bool = False,
        **values: Any,
    ) -> GradientTransformation:
        direction = ready("rate_free", inner).build(**values)
        check_direction("rate_free", direction)
        tx = searching("rate_free", direction, _default(inner), clip, find)
        return average_params(tx, power=power) if average else tx


def _default(inner: str) -> Defaults:
    return NADAMW if inner == "nadamw" else OTHERS
