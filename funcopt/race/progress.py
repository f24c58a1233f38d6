"""Where a training run stands: a bar on a terminal, one line an optimizer anywhere else."""

import sys
import time

from funcopt.race.extras import need

__all__ = ["Progress"]


class Progress:
    """Of one optimizer; nothing at all unless `shown`.

    Everything goes to stderr. A file of it, of a batch job say, has one line for each optimizer.
    """

    def __init__(self, name: str, total: int, shown: bool = True):
        self.name, self.total, self.done, self.standing = name, total, 0, ""
        self.started = time.perf_counter()
        self.shown = shown
        self.bar = (
            need("tqdm").tqdm(total=total, desc=f"{name:>12}", unit="step", mininterval=0.5) if shown and sys.stderr.isatty() else None
        )

    def at(self, done: int, standing: str = "") -> None:
        """So many steps are done."""
        if self.bar is not None:
            self.bar.update(done - self.done)
            self.bar.set_postfix_str(standing)
        self.done, self.standing = done, standing

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        elif self.shown:
            where = f"{self.done} of {self.total} steps in {time.perf_counter() - self.started:.0f} s"
            print(f"{self.name}: {where}{', ' if self.standing else ''}{self.standing}", file=sys.stderr, flush=True)
