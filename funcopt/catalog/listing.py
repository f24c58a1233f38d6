"""`python -m funcopt list`: every public name on a line."""

import argparse
import shutil

from funcopt.catalog.reading import Public, entries, instance, public_names, sections, source

__all__ = ["add_arguments", "main", "table"]

COLUMNS = ("name", "family", "vmaps", "traces", "flat", "source")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("family", nargs="?", help="only the names of one part: transforms, optimizers, controllers, schedules, ...")
    parser.add_argument(
        "--width", type=int, default=None, help="cut lines at this many characters (default: the terminal's width; 0: do not)"
    )


def properties(public: Public) -> tuple[str, str, str]:
    """Whether it vmaps, traces whole, and may run on one flat vector; blank for what is no transformation."""
    if not public.makes_transformations:
        return "", "", ""
    cannot = entries(sections(public.value).get("Cannot", ""))
    made = instance(public)
    flat = "" if made is None else "yes" if made.transformation.flattenable else "no"
    return "no" if "vmap" in cannot else "yes", "no" if "compile" in cannot else "yes", flat


def table(family: str | None = None) -> list[tuple[str, ...]]:
    """The rows, the heading first."""
    names = public_names()
    families = list(dict.fromkeys(public.family for public in names))
    if family is not None and family not in families:
        raise ValueError(f"list: family must be one of {', '.join(families)}, got {family!r}")
    chosen = [public for public in names if family in (None, public.family)]
    return [COLUMNS, *((public.name, public.family, *properties(public), source(public.value)) for public in chosen)]


def main(arguments: argparse.Namespace) -> int:
    rows = table(arguments.family)
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS) - 1)]
    limit = shutil.get_terminal_size((160, 24)).columns if arguments.width is None else arguments.width
    for row in rows:
        line = "  ".join([cell.ljust(width) for cell, width in zip(row, widths, strict=False)] + [row[-1]]).rstrip()
        print(line if not limit or len(line) <= limit else line[: limit - 1] + "…")
    return 0
