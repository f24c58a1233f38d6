"""Names of the release before, which still work and tell the new one."""

import sys
from collections.abc import Mapping

from funcopt.core.door.callers import warn

__all__ = ["moved", "renamed"]


def moved(homes: Mapping[str, str]) -> None:
    """Lets a pickle find its classes by the module in which they stood when it was written: `homes` is former module -> module."""
    for former, home in homes.items():
        sys.modules.setdefault(former, sys.modules[home])


def renamed(where: str, old: str, new: str) -> None:
    """Warns whoever called the caller of this by an old name."""
    warn(f"{where}: {old} is now called {new}; the old name goes with the next release", DeprecationWarning)
