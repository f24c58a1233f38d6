"""State transfer: what a newcomer of a pool takes over from the member that it replaces.

    mu -> mu, nu -> nu, with the count that corrects their start at zero
    velocity -> velocity                      times `scale`
    mu -> velocity                            times scale / (1 - decay), decay that of the giver
    velocity -> mu                            times 1 - decay, decay that of the taker
    normalised velocity -> the same           times `scale`

Anything else gives nothing. With `parity` as OptiRoulette 0.1.0: averages are copied without their
counts, a momentum buffer whatever its units, and only between members that both have run.
"""

from typing import Any, NamedTuple

from torch import Tensor

from funcopt.controllers import select
from funcopt.core import TensorTree, tree

__all__ = ["Roles"]


class Roles(NamedTuple):
    """What the fields of a member's state mean, by their names; each must stand in one part of the state.

    Args:
        mu: a running mean of gradients.
        nu: a running mean of their squares.
        count: the steps that correct the start of `mu` and `nu` at zero; None: nothing corrects it.
        velocity: an undamped sum of gradients.
        normalised_velocity: an undamped sum of gradients that were divided by something.
        decay: the share of the past in `mu`, a number.

    Example:
        >>> fo.Member(fo.trace(0.9), lr=0.1, roles=fo.Roles(velocity="trace")).roles.velocity
        'trace'
    """

    mu: str | None = None
    nu: str | None = None
    count: str | None = None
    velocity: str | None = None
    normalised_velocity: str | None = None
    decay: float | None = None


def _parts(state: Any) -> list[Any]:
    """Every NamedTuple in a state."""
    if hasattr(state, "_fields"):
        return [state, *(part for field in state for part in _parts(field))]
    if isinstance(state, dict):
        return [part for value in state.values() for part in _parts(value)]
    if isinstance(state, (tuple, list)):
        return [part for value in state for part in _parts(value)]
    return []


def read_off(state: Any) -> Roles:
    """The roles that the names of the fields show; none where a name stands in several parts."""
    parts = _parts(state)
    averages = [part for part in parts if "mu" in part._fields]
    sums = [part for part in parts if "trace" in part._fields]
    found = Roles(velocity="trace") if len(sums) == 1 and not averages else Roles()
    if len(averages) == 1:
        fields = averages[0]._fields
        found = found._replace(mu="mu", nu="nu" if "nu" in fields else None, count="count" if "count" in fields else None)
    return found


def _get(state: Any, name: str, beside: str | None = None) -> Any:
    holders = [part for part in _parts(state) if name in part._fields and (beside is None or beside in part._fields)]
    if len(holders) != 1:
        raise ValueError(f"roulette: the role '{name}' must stand in one part of the member's state, got {len(holders)}")
    return getattr(holders[0], name)


def _set(state: Any, name: str, value: Any, beside: str | None = None) -> Any:
    if hasattr(state, "_fields"):
        if name in state._fields and (beside is None or beside in state._fields):
            return state._replace(**{name: value})
        return type(state)(*[_set(part, name, value, beside) for part in state])
    if isinstance(state, dict):
        return {key: _set(part, name, value, beside) for key, part in state.items()}
    if type(state) in (tuple, list):
        return type(state)([_set(part, name, value, beside) for part in state])
    return state


def transferred(settings: Any, state: Any, giver: Tensor, taker: Tensor) -> Any:
    """The state after a swap of `giver` for `taker`."""
    for i, j in settings.pairs:
        ours, theirs = settings.names[i], settings.names[j]
        if ours not in state.members or theirs not in state.members:  # nobody asked for the states
            continue
        here = (giver == i) & (taker == j)
        if settings.quirks.averages_without_count:
            here = here & state.pool.has_run[i] & state.pool.has_run[j]

        def go(members: dict[str, Any], i: int = i, j: int = j, ours: str = ours, theirs: str = theirs) -> dict[str, Any]:
            return {**members, theirs: handed_over(settings, members[ours], members[theirs], i, j)}

        state = state._replace(members=select.when(settings, here, go, state.members))
    return state


def handed_over(settings: Any, giver: Any, taker: Any, i: int, j: int) -> Any:
    """The taker's state with what it can use of the giver's."""
    members = list(settings.members.values())
    a, b = (member.roles or read_off(state) for member, state in ((members[i], giver), (members[j], taker)))
    scale, everything = settings.recovery.scale, settings.recovery.transfer == "all"

    def give(taker: Any, to: str, what: TensorTree, factor: float | None = None) -> Any:
        old = _get(taker, to)
        return _set(taker, to, tree.map(lambda x, y: (x.clone() if factor is None else factor * x).to(y.dtype), what, old))

    if settings.quirks.averages_without_count:
        ours, theirs = a.velocity or a.normalised_velocity, b.velocity or b.normalised_velocity
        if ours and theirs:
            taker = give(taker, theirs, _get(giver, ours), scale)
        for to, ours in ((b.mu, a.mu), (b.nu, a.nu)) if everything else ():
            if ours and to:
                taker = give(taker, to, _get(giver, ours))
        return taker

    if b.velocity and a.velocity:
        taker = give(taker, b.velocity, _get(giver, a.velocity), scale)
    elif b.velocity and a.mu and a.decay is not None:
        taker = give(taker, b.velocity, _get(giver, a.mu), scale / (1 - a.decay))
    if b.normalised_velocity and a.normalised_velocity:
        taker = give(taker, b.normalised_velocity, _get(giver, a.normalised_velocity), scale)
    if not everything or not b.mu:
        return taker
    if b.count:  # one count corrects all averages, so all of them come or none
        if a.mu and a.count and (a.nu or not b.nu):
            taker = give(taker, b.mu, _get(giver, a.mu))
            taker = _set(taker, b.count, _get(giver, a.count, a.mu).clone(), b.mu)
            taker = give(taker, b.nu, _get(giver, a.nu)) if b.nu and a.nu else taker
    elif a.mu and (a.nu or not b.nu):
        taker = give(taker, b.mu, _get(giver, a.mu))
        taker = give(taker, b.nu, _get(giver, a.nu)) if b.nu and a.nu else taker
    elif a.velocity and not b.nu and b.decay is not None:
        taker = give(taker, b.mu, _get(giver, a.velocity), 1 - b.decay)
    return taker
