"""The packages that funcopt is compared with: imported where they are, else fetched into a folder of their own.

They go there without what they depend on, so that nothing that they ask for replaces what funcopt runs on.
"""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["PACKAGES", "available"]

FOLDER = Path(__file__).resolve().parents[1] / ".venv" / "references"
PACKAGES = {  # module -> what pip calls it, in the version that is the reference
    "pilot": "pilot-optimizer==0.1.0.post3",
    "pulseopt": "pulseopt==0.3.0",
    "optiroulette": "OptiRoulette==0.1.0",
    "pytorch_optimize": "pytorch-optimize==0.0.1",
    "pytorch_optimizer": "pytorch_optimizer==4.1.0",
    "heavyball": "heavyball==3.2.1",
    "torchao": "torchao==0.18.0",
    "evox": "evox==1.4.0",
    "cma": "cma==4.5.0",
}
BESIDES = {  # what it imports and funcopt does not have
    "optiroulette": ("PyYAML",),
    "pytorch_optimize": ("tqdm",),
    "pytorch_optimizer": ("opt_einsum",),  # without which torch takes products of five tensors from left to right
    "heavyball": ("opt_einsum",),
}


def available(module: str) -> bool:
    """Whether a package can be imported, if need be after pip has fetched it."""
    try:
        importlib.import_module(module)
        _with_products_in_order()
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
        _with_products_in_order()
        return True
    except ImportError as error:
        print(f"{package} is not here: {error}", flush=True)
        return False


def _with_products_in_order() -> None:
    """Tells torch, which looks for it when it is imported, of the package that orders products of many tensors."""
    backend: Any = importlib.import_module("torch.backends.opt_einsum")
    backend = getattr(backend, "m", backend)  # behind what stands for the module
    if backend._opt_einsum is None and importlib.util.find_spec("opt_einsum") is not None:
        backend._opt_einsum = importlib.import_module("opt_einsum")
        backend.is_available.cache_clear()
        backend.enabled, backend.strategy = True, "auto"
