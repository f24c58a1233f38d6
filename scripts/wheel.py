"""Builds the wheel and the source distribution, and tries the wheel in an environment that has nothing of this clone.

    python scripts/wheel.py

torch, optree and numpy are lent by the Python that runs this; funcopt comes from the wheel alone.
"""

import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TRIAL = """
import pathlib, sys, torch, funcopt as fo
assert "site-packages" in fo.__file__, fo.__file__
from importlib.metadata import version
assert version("funcopt") == fo.__version__ == sys.argv[1], (version("funcopt"), fo.__version__)
assert (pathlib.Path(fo.__file__).parent / "py.typed").is_file()
model = torch.nn.Linear(2, 1)
opt = fo.torch_optim.adamw(model.parameters(), lr=0.1)
model(torch.ones(4, 2)).square().mean().backward()
opt.step()
state, _ = fo.es.run(fo.es.snes(), lambda x: (x**2).sum(), torch.ones(3), 0, 5)
tx = fo.chain(fo.clip_by_global_norm(1.0), fo.pilot(1e-3))
tx.update(torch.ones(2), tx.init(torch.ones(2)), torch.ones(2))
fo.checkpoint.state_dict(tx.init(torch.ones(2)))
print("the wheel works:", fo.__version__)
"""


CLEAN = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def run(*line: str, folder: str | None = None) -> None:
    print("$", *[part if len(part) < 80 else "..." for part in line], flush=True)
    subprocess.run(line, check=True, cwd=folder, env=CLEAN)


def main() -> int:
    version = re.search(r'^__version__ = "([^"]+)"', (ROOT / "funcopt" / "__init__.py").read_text(encoding="utf-8"), re.M)
    assert version is not None
    with tempfile.TemporaryDirectory() as folder:
        dist = Path(folder, "dist")
        run(sys.executable, "-m", "build", "--outdir", str(dist), str(ROOT))
        wheel, archive = next(dist.glob("*.whl")), next(dist.glob("*.tar.gz"))
        assert version[1] in wheel.name and version[1] in archive.name, (
            f"the files must be of {version[1]}, got {wheel.name}, {archive.name}"
        )
        clean = Path(folder, "clean")
        venv.create(clean, with_pip=True)
        python = str(clean / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python"))
        site = subprocess.check_output([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True).strip()
        lent = dict.fromkeys([sysconfig.get_path("purelib"), *(path for path in sys.path if path.endswith("site-packages"))])
        Path(site, "lent.pth").write_text("\n".join(lent) + "\n", encoding="utf-8")
        run(python, "-m", "pip", "install", "-q", "--no-deps", "--force-reinstall", "--disable-pip-version-check", str(wheel))
        run(python, "-c", TRIAL, version[1], folder=folder)
        listed = subprocess.run(f'"{python}" -m funcopt list | head -3', shell=True, cwd=folder, env=CLEAN, capture_output=True, text=True)
        assert listed.stdout.startswith("name") and "Traceback" not in listed.stderr, listed.stderr
    return 0


if __name__ == "__main__":
    sys.exit(main())
