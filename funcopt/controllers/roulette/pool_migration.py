"""From the checkpoint of a pool to one of the same pool with members more, fewer, or in another order.

What a roulette keeps of each member has a row for it, and what points at a member is its
number in the pool. `pool_migration` moves rows by name and renumbers what points.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from funcopt.controllers.rate.walk import Walk
from funcopt.controllers.roulette.state import RouletteState
from funcopt.core import tree
from funcopt.core.protocol import EmptyState

__all__ = ["pool_migration"]

# What each field of the two states is; a test finds a field that is in neither list.
ROWS = ("lr", "blocked", "counts", "pool.epochs_used", "pool.failures", "pool.catastrophes", "pool.instability", "pool.swaps", "pool.age")
ROWS += ("pool.in_grace", "pool.blacklisted", "pool.pending", "pool.has_run", "pool.rewards", "pool.rewarded", "pool.average")
ROWS += ("pool.last", "pool.best", "pool.counts", "rates.multiplier", "rates.proven", "rates.steepest", "rates.setbacks")
ROWS += tuple(f"rates.walk.{field}" for field in Walk._fields)
MUST_STAY = ("pick", "locked", "warmup_lock")  # members that are needed in the next step
POINTERS = (*MUST_STAY, "previous_pick", "running", "rates.mover")
QUEUES = ("active", "pool.backup", "pool.reserve")
AS_SAVED = (
    "base_lr",
    "phase",
    "warmup_completed",
    "window",
    "epoch",
    "started",
    "count",
    "bad_losses",
    "draw",
    "pool.metric",
    "pool.best_metric",
)
AS_SAVED += ("rates.last", "rates.highest", "rates.bound", "rates.stride")


def pool_migration(state: Any, before: Sequence[str], *, at: str | None = None) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """A migration for `fo.checkpoint.load` and `load_state_dict`, for a pool whose members have changed.

    Args:
        state: what a new run begins with, as it is handed to `load`: it holds the roulette
            with the pool as it is now.
        before: the names of the members when the file was saved, in the order of that pool.
        at: the path of the roulette in `state` ("state.1"), where there are several.

    Returns:
        A function from the saved mapping to the one that fits. Members that stayed keep all
        that was known of them; new ones begin as in `state`, at the end of the active list,
        of the backups or of the reserve, wherever they stand now.

    Raises:
        ValueError: `state` holds no roulette, or several and no `at`; and, from the function:
            `before` are not the members of the file, the member that is current or locked has
            gone, or the lists have changed otherwise too.

    Example:
        >>> pool = {"adam": fo.Member(fo.scale_by_adam(), lr=1e-3), "lion": fo.Member(fo.scale_by_lion(), lr=1e-4)}
        >>> saved = fo.checkpoint.state_dict(fo.roulette(pool).init(torch.zeros(2)))
        >>> state = fo.roulette(pool | {"momentum": fo.Member(fo.trace(0.9), lr=1e-2)}).init(torch.zeros(2))
        >>> fo.checkpoint.load_state_dict(state, saved, migration=fo.pool_migration(state, ["adam", "lion"])).lr
        tensor([0.0010, 0.0001, 0.0100], dtype=torch.float64)
    """
    found = dict(_roulettes(state, ""))
    if at is None:
        if len(found) != 1:
            remedy = f"say which: at={next(iter(found))!r}, of {', '.join(found)}" if found else "give it what load is given"
            raise ValueError(f"pool_migration: state must hold one roulette, got {len(found)}; {remedy}")
        at = next(iter(found))
    elif at not in found:
        raise ValueError(
            f"pool_migration: at must be the path of a roulette, {' or '.join(map(repr, found)) or 'of which there is none'}, got {at!r}"
        )
    before, now = list(before), found[at]
    if len(set(before)) != len(before) or not all(isinstance(name, str) for name in before):
        raise ValueError(f"pool_migration: before must name each member once, got {before!r}")
    return lambda saved: _migrated(saved, f"{at}." if at else "", now, before)


def _roulettes(part: Any, path: str) -> Iterator[tuple[str, RouletteState]]:
    """Every roulette in a state, with its path; those in members of another are moved with it."""
    if isinstance(part, RouletteState):
        yield path, part
        return
    inside = f"{path}." if path else ""
    if hasattr(part, "_fields"):
        parts = zip(part._fields, part, strict=True)
    elif isinstance(part, dict):
        parts = part.items()
    elif isinstance(part, (tuple, list)):
        parts = enumerate(part)
    else:
        return
    for name, inner in parts:
        yield from _roulettes(inner, f"{inside}{name}")


def _migrated(saved: dict[str, Tensor], at: str, now: RouletteState, before: list[str]) -> dict[str, Tensor]:
    names, batch = list(now.members), now.pick.dim()
    if f"{at}lr" not in saved:
        raise ValueError(f"pool_migration: the file must hold a roulette at '{at.removesuffix('.')}', and has no entry '{at}lr'")
    size = saved[f"{at}lr"].shape[batch] if saved[f"{at}lr"].dim() > batch else None
    prefix = f"{at}members."
    strangers = [
        path for path in saved if path.startswith(prefix) and not any(path[len(prefix) :].startswith(f"{name}.") for name in before)
    ]
    if size != len(before) or strangers:
        whose = f"the file has {strangers[0]!r}" if strangers else f"the file has {size}"
        raise ValueError(
            f"pool_migration: before must be the members of the file in the order of its pool, got {', '.join(before)}; {whose}"
        )
    number = [names.index(name) if name in names else -1 for name in before]
    renumbered = torch.tensor([-1, *number], device="cpu")  # -1 stays nobody
    gone = {i for i, name in enumerate(before) if name not in names}

    moved = {}
    for path, value in saved.items():
        field = path[len(at) :] if path.startswith(at) else None
        if field is not None and field.startswith("rates.") and isinstance(now.rates, EmptyState):
            continue  # who found a rate has gone
        if field is None or field in AS_SAVED:
            moved[path] = value
        elif field.startswith("members."):
            if any(field[len("members.") :].startswith(f"{name}.") for name in names):
                moved[path] = value
        elif field in ROWS:
            moved[path] = _rows(_field(now, field), value, number, batch)
        elif field in POINTERS:
            if field in MUST_STAY and gone & set(value.flatten().tolist()):
                lost = ", ".join(before[i] for i in sorted(gone & set(value.flatten().tolist())))
                raise ValueError(
                    f"pool_migration: the member that is current or locked must stay in the pool, and {lost} has gone ({field}); "
                    "let another run first"
                )
            moved[path] = renumbered.to(value.device)[value + 1]
        elif field in QUEUES:
            moved[path] = _queue(field, _field(now, field), value, renumbered, batch)
        elif field == "events":  # (step, old, new, reason)
            pair = renumbered.to(value.device)[value[..., 1:3] + 1]
            pair = torch.where(value[..., 3:] != 0, pair, value[..., 1:3])
            moved[path] = torch.cat([value[..., :1], pair, value[..., 3:]], -1)
        else:
            moved[path] = value
    if not any(path.startswith(f"{at}rates.") for path in saved):
        moved |= {path: value.detach().clone() for path, value in _leaves(now.rates, f"{at}rates")}
    for name in names:
        if name not in before:
            moved |= {path: value.detach().clone() for path, value in _leaves(now.members[name], f"{prefix}{name}")}
    return moved


def _field(state: Any, field: str) -> Tensor:
    for name in field.split("."):
        state = getattr(state, name, None)
    if state is None:
        raise ValueError(
            f"pool_migration: the file has {field}, which a pool without backups and failures has not; "
            "give the roulette the settings that it had"
        )
    return state


def _leaves(part: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    inner = tree.paths(part)
    yield from ((f"{path}.{name}" if name else path, leaf) for name, leaf in zip(inner, tree.leaves(part), strict=True))


def _rows(now: Tensor, value: Tensor, number: list[int], batch: int) -> Tensor:
    """Rows of members that stayed in their new places; the others as they are now."""
    moved = now.detach().clone().to(value.dtype).to(value.device)
    for old, new in enumerate(number):
        if new >= 0:
            moved.select(batch, new).copy_(value.select(batch, old))
    return moved


def _queue(field: str, now: Tensor, value: Tensor, renumbered: Tensor, batch: int) -> Tensor:
    """A list of members, padded with -1: those that stayed in their order, then those that are new in it."""
    stayed = {int(i) for i in renumbered if i >= 0}
    rows = []
    for saved, fresh in zip(value.reshape(-1, value.shape[-1]).tolist(), now.reshape(-1, now.shape[-1]).tolist(), strict=True):
        row = [int(renumbered[i + 1]) for i in saved if i >= 0]
        row = [i for i in row if i >= 0] + [i for i in fresh if i >= 0 and i not in stayed]
        if field == "active" and len(row) != now.shape[-1]:
            raise ValueError(
                f"pool_migration: {now.shape[-1]} members are active in the pool as it is now, "
                f"but {len(row)} of the file and of those added; "
                "only add or remove members, and change the lists later"
            )
        rows.append(row + [-1] * (now.shape[-1] - len(row)))
    return torch.tensor(rows, dtype=value.dtype, device=value.device).reshape(*value.shape[:batch], now.shape[-1])
