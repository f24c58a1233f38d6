"""The suite on other versions of torch, each in an environment of its own beside `.venv`, and a table of what works.

    python scripts/versions.py 2.1.2 2.4.1            make test-versions ARGS="2.1.2 2.4.1"
    python scripts/versions.py 2.1.2 --keep           leaves the environment for a second run; without it, it is deleted
    python scripts/versions.py 2.1.2 --only core es   some parts of the suite
    python scripts/versions.py 2.1.2 --python python3.10

One version after the other, since an environment takes up to 5 GB. torch comes from wherever pip is told to look; below 2.3 numpy
is below 2, and below 2.10 optree is 0.13, the first that we take. "eager" leaves out what compiles; "compiled" is the rest.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("pytest>=8.1", "hypothesis>=6.90", "pytest-xdist>=3.5", "pytest-timeout>=2.2", "expecttest>=0.2")
PARTS = {
    "core": ["tests/core", "tests/schedules", "tests/rules"],
    "transforms": ["tests/transforms"],
    "optimizers": ["tests/optimizers"],
    "controllers": ["tests/controllers"],
    "contract": ["tests/contract"],
    "es": ["tests/es"],
    "parity": ["tests/parity"],
    "torch_optim": ["tests/torch_optim"],
    "population": ["tests/population", "tests/checkpoint"],
    "compiled": ["tests/execute", "tests/contract/test_compiled.py", "tests/contract/test_ahead.py"],
}
COMPILES = "compil or traced or graph or donat or ahead or whole or inductor"  # in the names of tests
SUMMARY = re.compile(r"(\d+) (passed|failed|errors?|skipped)")


def release(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def run(line: list[str], **settings) -> subprocess.CompletedProcess:
    return subprocess.run(line, cwd=ROOT, **settings)


def environment(version: str, python: str) -> Path:
    """The Python of an environment with this torch; made if it is not there."""
    folder = ROOT / f".venv-torch-{version}"
    inside = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if inside.exists() and run([str(inside), "-c", "import torch"], capture_output=True).returncode == 0:
        return inside
    print(f"versions.py: making {folder.name} (10 to 20 minutes, 5 GB)", flush=True)
    run([python, "-m", "venv", "--clear", str(folder)], check=True)
    wanted = [f"torch=={version}", "numpy<2" if release(version) < (2, 3) else "numpy", *EXTRAS]
    wanted.append("optree>=0.13,<0.14" if release(version) < (2, 10) else "optree>=0.13")
    settings = {**os.environ, "PIP_CONSTRAINT": ""}
    if run([str(inside), "-m", "pip", "install", "--quiet", *wanted], env=settings).returncode != 0:
        raise SystemExit(f"versions.py: pip could not install torch {version} for {python}; its own words are above")
    return inside


def tested(python: Path, paths: list[str], rest: list[str], compiled: bool) -> str:
    """What pytest counted."""
    chosen = [] if compiled else ["-k", f"not ({COMPILES})"]
    line = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2", *chosen, *paths, *rest]
    output = run(line, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True).stdout
    counts = {word.rstrip("s"): int(number) for number, word in SUMMARY.findall(output.rstrip().rsplit("\n", 1)[-1])}
    wrong = [text for text in output.splitlines() if text.startswith(("FAILED", "ERROR"))]
    print("".join(f"    {text[:160]}\n" for text in wrong[:10]), end="", flush=True)
    bad = counts.get("failed", 0) + counts.get("error", 0)
    return f"{counts.get('passed', 0):,}" + (f" ({bad} not)" if bad else "") if counts else "did not run"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("versions", nargs="+", metavar="VERSION", help="of torch, 2.1.0 or newer")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--keep", action="store_true", help="do not delete the environments")
    parser.add_argument("--python", default=sys.executable, help="which makes them; torch 2.1 needs 3.11 or older")
    parser.add_argument("--rest", default="", help="passed on to pytest, in one word")
    options = parser.parse_args()
    if early := [version for version in options.versions if release(version) < (2, 1)]:
        parser.error(f"funcopt needs torch 2.1 or newer, got {', '.join(early)}")
    rows: list[list[str]] = []
    for version in options.versions:
        began, python = time.perf_counter(), environment(version, options.python)
        found = [tested(python, PARTS[part], options.rest.split(), part == "compiled") for part in options.only]
        rows.append([version, *found])
        print(f"versions.py: torch {version} in {(time.perf_counter() - began) / 60:.0f} minutes", flush=True)
        if not options.keep:
            shutil.rmtree(python.parents[1])
    print("\n| torch | " + " | ".join(options.only) + " |")
    print("|" + "---|" * (len(options.only) + 1))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    return int(any("not" in cell for row in rows for cell in row))


if __name__ == "__main__":
    sys.exit(main())
