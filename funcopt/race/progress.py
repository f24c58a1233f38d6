"""Where a run stands: a bar on a terminal, one line at its end anywhere else."""

import sys
import time
from importlib import import_module, util

__all__ = ["Progress"]


class Progress:
    """Of one optimizer or search, for any loop; everything goes to stderr.

    On a terminal it is a bar of tqdm. A file, of a batch job say, has one line for each, and so has a terminal without tqdm.

    Args:
        name: whose run it is.
        total: how many steps there will be at most.
        shown: False: nothing at all.
        unit: what is counted, in the singular.

    Example:
        >>> with fo.race.Progress("snes", 3, shown=False, unit="generation") as progress:
        ...     for generation in range(3):
        ...         progress.at(generation + 1, f"best {0.5**generation:.2f}")
        >>> progress.line().partition(" in ")[0], progress.standing
        ('snes: 3 of 3 generations', 'best 0.25')
    """

    def __init__(self, name: str, total: int, shown: bool = True, unit: str = "step"):
        self.name, self.total, self.unit, self.done, self.standing = name, total, unit, 0, ""
        self.started = time.perf_counter()
        self.shown = shown
        drawn = shown and sys.stderr.isatty() and util.find_spec("tqdm") is not None
        self.bar = import_module("tqdm").tqdm(total=total, desc=f"{name:>12}", unit=unit, mininterval=0.5) if drawn else None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def at(self, done: int, standing: str = "") -> None:
        """So many steps are done; `standing` says how it goes."""
        if self.bar is not None:
            self.bar.set_postfix_str(standing, refresh=False)
            self.bar.update(done - self.done)
        self.done, self.standing = done, standing

    def line(self) -> str:
        """What is said of it at its end."""
        where = f"{self.done} of {self.total} {self.unit}s in {time.perf_counter() - self.started:.0f} s"
        return f"{self.name}: {where}{', ' if self.standing else ''}{self.standing}"

    def close(self) -> None:
        """The end: what `with` calls by itself."""
        if self.bar is not None:
            self.bar.close()
        elif self.shown:
            print(self.line(), file=sys.stderr, flush=True)
