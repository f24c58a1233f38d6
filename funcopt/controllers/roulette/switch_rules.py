"""Switch rules: what becomes of a member's rate when it takes over from another.

    F[o, n] the factor from member o to member n, O[n] a rate in place of its own, C[n] a limit
    size = min(C[n], (O[n] if any else base[n]) F[o, n])                    recomputed at each switch
    lr[n] <- min(C[n], (O[n] if any else lr[n]) F[o, n])                    with `compounding`

Source: OptiRoulette 0.1.0, whose factors compound over visits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.controllers import select
from funcopt.core import check
from funcopt.core.sent import sent

__all__ = ["SwitchRules", "switch_rules"]

Cases = tuple[float, Sequence[tuple[Sequence[str], Sequence[str]]]]  # a factor, and pairs (from, to) of lists of names
SPECIAL = {"lr", "max_lr", "scale"}


@dataclass(frozen=True, eq=False)
class SwitchRules:
    """What `switch_rules` makes."""

    high_to_low: Cases | None  # as of `switch_rules`
    low_to_high: Cases | None  # as of `switch_rules`
    special: Mapping[str, Mapping[str, Any]]  # as of `switch_rules`


def switch_rules(
    *, high_to_low: Cases | None = None, low_to_high: Cases | None = None, special: Mapping[str, Mapping[str, Any]] | None = None
) -> SwitchRules:
    """Rules for the rate of a member that takes over from another.

    Args:
        high_to_low: `(factor, [(froms, tos), ...])`: the factor by which the rate of a
            member of `tos` is multiplied when it follows a member of `froms`; names of
            members or groups.
        low_to_high: likewise, where `high_to_low` says nothing about the pair.
        special: for single members: `lr`, a rate in place of its own; `scale=False`, no
            factor; `max_lr`, a limit.

    Returns:
        `SwitchRules`, for `roulette(..., rules=)`.

    Raises:
        ValueError: a factor or rate is out of range, or a key of `special` unknown.

    Example:
        >>> rules = fo.switch_rules(high_to_low=(0.01, [(["sgd"], ["adam"])]), special={"lion": {"max_lr": 3e-4}})
        >>> rules.high_to_low[0]
        0.01
    """
    for name, cases in (("high_to_low", high_to_low), ("low_to_high", low_to_high)):
        if cases is None:
            continue
        try:
            factor, pairs = cases
            ours = [(list(froms), list(tos)) for froms, tos in pairs]
        except (TypeError, ValueError):
            raise TypeError(f"switch_rules: {name} must be (factor, [(froms, tos), ...]), got {cases!r}") from None
        if any(isinstance(names, str) for pair in pairs for names in pair):
            raise TypeError(f"switch_rules: {name} must pair lists of names, got {ours!r}")
        check.positive("switch_rules", f"the factor of {name}", factor)
    for name, case in (special or {}).items():
        unknown = set(case) - SPECIAL
        if unknown:
            raise ValueError(f"switch_rules: special['{name}'] knows {', '.join(sorted(SPECIAL))}, got {', '.join(sorted(unknown))}")
        for key in ("lr", "max_lr"):
            if case.get(key) is not None:
                check.nonnegative("switch_rules", f"special['{name}']['{key}']", case[key])
    return SwitchRules(high_to_low, low_to_high, dict(special or {}))


class RuleTables(NamedTuple):
    """The rules for one pool."""

    factor: Tensor  # [n, n], from, to
    override: Tensor  # [n], NaN for none
    clip: Tensor  # [n], inf for none

    def adjusted(self, old: Tensor, new: Tensor, lr: Tensor) -> Tensor:
        """The rate `lr` of `new` after a switch from `old`."""
        here = [sent(table, lr.device, lr.dtype) for table in self]
        override = select.at(here[1], new)
        rate = torch.where(override.isnan(), lr, override) * select.entry(here[0], old, new)
        return torch.minimum(rate, select.at(here[2], new))

    def ruled(self, old: Tensor, new: Tensor, base: Tensor) -> Tensor:
        """The same; `base` before the first switch (old = -1)."""
        return torch.where(old < 0, base, self.adjusted(old, new, base))


def tables(rules: SwitchRules, names: list[str], group_of: dict[str, str]) -> RuleTables:
    """The tables of a pool; names that nobody bears match nothing."""
    n = len(names)
    factor = [[1.0] * n for _ in names]

    def stands_for(entries: Sequence[str], member: str) -> bool:
        return member in entries or group_of.get(member) in entries

    for times, pairs in filter(None, (rules.low_to_high, rules.high_to_low)):  # the latter wins
        for froms, tos in pairs:
            for o, old in enumerate(names):
                for i, new in enumerate(names):
                    if stands_for(froms, old) and stands_for(tos, new):
                        factor[o][i] = float(times)
    special = [rules.special.get(name, {}) for name in names]
    for i, case in enumerate(special):
        if not case.get("scale", True):
            for row in factor:
                row[i] = 1.0
    override = [float("nan") if case.get("lr") is None else float(case["lr"]) for case in special]
    clip = [float("inf") if case.get("max_lr") is None else float(case["max_lr"]) for case in special]
    return RuleTables(*(torch.tensor(table, dtype=torch.float64, device="cpu") for table in (factor, override, clip)))


def mentioned(rules: SwitchRules) -> set[str]:
    """Every name in the rules."""
    cases = [pair for part in (rules.high_to_low, rules.low_to_high) if part for pair in part[1]]
    return {name for pair in cases for names in pair for name in names} | set(rules.special)
