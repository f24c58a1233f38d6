"""Where the recorded runs lie: `tests/golden`, or the directory that FUNCOPT_GOLDEN names."""

import os
from pathlib import Path

__all__ = ["golden_dir", "golden_files"]


def golden_dir(name: str) -> Path:
    """The folder of recorded runs called `name` (`"optax"`, `"pilot"`, ...)."""
    root = os.environ.get("FUNCOPT_GOLDEN")
    return (Path(root) if root else Path(__file__).parents[1] / "golden") / name


def golden_files(name: str) -> list[Path]:
    """Every recorded file of that folder, found by listing; empty if there is no such folder."""
    return sorted(golden_dir(name).glob("*.json"))
