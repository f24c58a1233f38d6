"""`python -m funcopt coverage optax`: where each name of optax is here, which are called otherwise, and which are refused and why.

Nothing is written down but optax's names (`optax_names.py`): what stands here is looked up, and what it is called otherwise is
what `fo.<name>` answers.
"""

import argparse
import re
from collections import Counter
from typing import NamedTuple

import funcopt as fo
from funcopt.catalog.optax_names import MERGED, MUST, SHOULD

__all__ = ["Found", "add_arguments", "looked_up", "main", "table"]

# Where to look for what stands in a namespace of optax; "" is optax or funcopt itself.
HOMES = {
    "": ("", "schedules", "numerics", "moments", "microbatching"),
    "contrib": ("",),
    "transforms": ("",),
    "schedules": ("schedules", ""),
    "tree_utils": ("tree",),
}
REFUSED: dict[str, str] = {}  # name -> why
STATUSES = ("covered", "renamed", "refused", "merged", "missing")


class Found(NamedTuple):
    """A name of optax, how much it is missed, and what there is here."""

    name: str
    verdict: str  # MUST, SHOULD or MERGED
    status: str  # one of STATUSES
    here: str  # the name here, or why not


def looked_up(name: str, verdict: str) -> Found:
    """What there is here for a name of optax.

    Example:
        >>> from funcopt.catalog.coverage import looked_up
        >>> looked_up("linear_schedule", "MUST").here, looked_up("multi_transform", "MUST").here
        ('fo.schedules.linear_schedule', 'fo.partition')
    """
    space, _, last = name.rpartition(".")
    for home in HOMES.get(space, (space,)):
        inside = getattr(fo, home, None) if home else fo
        if inside is not None and last in dir(inside):
            return Found(name, verdict, "covered", f"fo.{home}.{last}" if home else f"fo.{last}")
    if name in REFUSED:
        return Found(name, verdict, "refused", REFUSED[name])
    answer = re.search(r"; it is (.+)$", _answer(last))
    if answer is None:
        return Found(name, verdict, "missing", "")
    return Found(name, verdict, "merged" if verdict == "MERGED" else "renamed", answer[1])


def _answer(name: str) -> str:
    try:
        getattr(fo, name)
    except AttributeError as error:
        return str(error)
    return ""


def table() -> list[Found]:
    """Every name, in optax's order."""
    return [looked_up(name, verdict) for verdict, names in (("MUST", MUST), ("SHOULD", SHOULD), ("MERGED", MERGED)) for name in names]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("library", choices=("optax",), help="whose names")
    parser.add_argument("--only", choices=STATUSES, default=None, help="only names of this status")


def main(arguments: argparse.Namespace) -> int:
    found = table()
    shown = [row for row in found if arguments.only in (None, row.status)]
    widths = [max([len(row[column]) for row in shown], default=0) for column in range(3)]
    for row in shown:
        print("  ".join([cell.ljust(width) for cell, width in zip(row, widths, strict=False)] + [row.here]).rstrip())
    for verdict, names in (("MUST", MUST), ("SHOULD", SHOULD), ("MERGED", MERGED)):
        counts = Counter(row.status for row in found if row.verdict == verdict)
        print(f"{verdict}: {len(names)} names: {', '.join(f'{count} {status}' for status, count in sorted(counts.items()))}")
    return int(any(row.status == "missing" for row in found))
