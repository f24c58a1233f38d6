"""The packages that funcopt is compared with: imported where they are, else fetched into a folder of their own.

They go there without what they depend on, so that nothing that they ask for replaces what funcopt runs on.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

__all__ = ["PACKAGES", "available"]

FOLDER = Path(__file__).resolve().parents[1] / ".venv" / "references"
PACKAGES = {  # module -> what pip calls it, in the version that is the reference
    "pilot": "pilot-optimizer==0.1.0.post3",
    "pulseopt": "pulseopt==0.3.0",
    "optiroulette": "OptiRoulette==0.1.0",
    "pytorch_optimize": "pytorch-optimize==0.0.1",
}
BESIDES = {"optiroulette": ("PyYAML",), "pytorch_optimize": ("tqdm",)}  # what it imports and funcopt does not have


def available(module: str) -> bool:
    """Whether a package can be imported, if need be after pip has fetched it."""
    try:
        importlib.import_module(module)
        return True
    except ImportError:
        pass
    package = PACKAGES.get(module, module)
    print(f"fetching {package}", flush=True)
    line = [sys.executable, "-m", "pip", "install", "-q", "--no-input", "--disable-pip-version-check", "--no-deps", "--target", str(FOLDER)]
    subprocess.run([*line, package, *BESIDES.get(module, ())], stderr=subprocess.DEVNULL)
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    importlib.invalidate_caches()
    try:
        importlib.import_module(module)
        return True
    except ImportError as error:
        print(f"{package} is not here: {error}", flush=True)
        return False
