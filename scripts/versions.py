"""The suite on other versions of torch, each in an environment of its own beside `.venv`, and a page of what works where.

    python scripts/versions.py 2.1.2 2.4.1            make test-versions ARGS="2.1.2 2.4.1"
    python scripts/versions.py 2.1.2 --keep           leaves the environment for a second run; without it, it is deleted
    python scripts/versions.py 2.1.2 --only core es   some parts of the suite; of the others the page keeps what it has
    python scripts/versions.py 2.1.2 --again          what did not pass, and parts that have not been run
    python scripts/versions.py 2.1.2 --python python3.10
    python scripts/versions.py --page                 docs/versions.md and the table of README.md from docs/versions.json; runs nothing

One version after the other, since an environment takes up to 5 GB. torch comes from wherever pip is told to look; below 2.3 numpy
is below 2, and below 2.10 optree is 0.13, the first that we take. What pytest wrote is in runs/versions.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE, README = ROOT / "docs" / "versions.json", ROOT / "docs" / "versions.md", ROOT / "README.md"
LOGS = ROOT / "runs" / "versions"
BEGIN, END = "<!-- by scripts/versions.py -->\n", "<!-- end of versions -->"
TOOLS = "pytest>=8.1 hypothesis>=6.90 pytest-xdist>=3.5 pytest-timeout>=2.2 expecttest>=0.2 scikit-learn>=1.3 scipy>=1.10".split()
COMPILED = ["tests/execute", "tests/contract/test_compiled.py", "tests/contract/test_ahead.py"]
PARTS = {
    "core": ["tests/core", "tests/schedules", "tests/rules"],
    "transforms": ["tests/transforms"],
    "optimizers": ["tests/optimizers"],
    "controllers": ["tests/controllers"],
    "contract": ["tests/contract", *(f"--ignore={path}" for path in COMPILED[1:])],
    "parity": ["tests/parity"],
    "es": ["tests/es"],
    "torch_optim": ["tests/torch_optim"],
    "population": ["tests/population", "tests/checkpoint"],
    "docstrings": ["funcopt", "--ignore=funcopt/race", "--ignore=funcopt/viz"],
    "steps": COMPILED,
}
SUMMARY = re.compile(r"(\d+) (passed|failed|error|skipped)")
WRONG = re.compile(r"^(?:FAILED|ERROR) ([^\[\s]+(?:\[.*?\](?= - |$))?)", re.MULTILINE)
UNENDED = "pytest did not come to its end"
WHOLE = (2, 10)  # the first whose compiler takes all that we have


def release(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def run(line: list[str], **settings: Any) -> subprocess.CompletedProcess:
    return subprocess.run(line, cwd=ROOT, **settings)


def environment(version: str, python: str) -> Path:
    """The Python of an environment with this torch; made if it is not there."""
    folder = ROOT / f".venv-torch-{version}"
    inside = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if inside.exists() and run([str(inside), "-c", "import torch, pytest"], capture_output=True).returncode == 0:
        return inside
    print(f"versions.py: making {folder.name} (10 to 20 minutes, 5 GB)", flush=True)
    run([python, "-m", "venv", "--clear", str(folder)], check=True)
    wanted = [f"torch=={version}", "numpy<2" if release(version) < (2, 3) else "numpy", *TOOLS]
    wanted.append("optree>=0.13,<0.14" if release(version) < WHOLE else "optree>=0.13")
    settings = {**os.environ, "PIP_CONSTRAINT": os.devnull}
    if run([str(inside), "-m", "pip", "install", "--quiet", *wanted], env=settings).returncode != 0:
        raise SystemExit(f"versions.py: pip could not install torch {version} for {python}; its own words are above")
    return inside


def beside(python: Path) -> dict[str, str]:
    """The versions of what this torch was tested with."""
    told = "import json, platform, numpy, optree; print(json.dumps([platform.python_version(), numpy.__version__, optree.__version__]))"
    found = run([str(python), "-c", told], capture_output=True, text=True, check=True).stdout
    return dict(zip(("python", "numpy", "optree"), json.loads(found), strict=True))


def counted(output: str) -> dict[str, Any]:
    """What pytest counted, of the last line of its output, and the names of what did not pass."""
    counts = {word: int(number) for number, word in SUMMARY.findall(output.rstrip().rsplit("\n", 1)[-1])}
    wrong = WRONG.findall(output)
    if not counts:
        wrong = [UNENDED]
    failed = counts.get("failed", 0) + counts.get("error", 0)
    return {"passed": counts.get("passed", 0), "failed": max(failed, len(wrong)), "skipped": counts.get("skipped", 0), "wrong": wrong}


def tested(python: Path, version: str, part: str, jobs: int, rest: list[str], before: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a part counts; after `before`, of which what did not pass is run again alone."""
    line = [str(python), "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", *(["-n", str(jobs)] if jobs > 1 else [])]
    paths = PARTS[part] if before is None else before["wrong"]
    output = run(
        [*line, *paths, *rest], env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    LOGS.mkdir(parents=True, exist_ok=True)
    (LOGS / f"{version}-{part}.log").write_text(output.stdout + output.stderr, encoding="utf-8")
    found = counted(output.stdout)
    if before is not None and found["wrong"] == [UNENDED]:  # a test of that name is gone
        return tested(python, version, part, jobs, rest)
    return found if before is None else {**found, **{word: before[word] + found[word] for word in ("passed", "skipped")}}


# --- the page -------------------------------------------------------------------------------------------------------------------

HEAD = """# Versions of torch

funcopt needs Python 3.10 and torch 2.1 or newer. `make test-versions ARGS="2.1.2"` makes an environment with that torch beside `.venv`,
runs the suite in it, deletes it, and writes this page; with `--only` parts of it, with `--again` what did not pass before. Numbers are
tests that passed, in brackets those that were skipped; the long sweeps (`-m long`) are not among them. The suite is written on torch 2.13,
which needs no environment of its own and is not in the table; versions that are not there were not run.
"""
TAIL = """
## What differs

Whatever asks for a version stands in `funcopt/core/versions.py`.

- **Compiled.** From torch 2.10 on, the first whose compiler traces what our trees are made of, everything compiles; tests that compile
  are skipped below it. From 2.6 to 2.9 `make_step(compile=True)`, `fo.population` and `fo.es` compile as far as that compiler goes, and
  `fo.torch_optim` says in one sentence that it runs eagerly, and why; below 2.6 all of them do.
- **torch 2.1 and 2.2** want numpy below 2. Scalers on CPUs begin with 2.3, fused AdamW on CPUs with 2.4, Adafactor in torch.optim with
  2.5, `fully_shard` in public with 2.6, Muon with 2.9: what stands beside them in the tests is skipped below.
- **torch 2.1** has no rules for some operations on whole numbers: random keys are worked out by others, with the same bits. Its `NAdam`
  and `RAdam` take complex numbers for real ones, ours do not. Attention has no batching rule there, nor in 2.4: `fo.es` evaluates such
  members one after the other, with a warning.
- **Classes of `fo.torch_optim`** take the arguments of the newest torch whatever is installed, such as
  `muon(adjust_lr_fn="spectral_unclamped")` of 2.14. `from_torch(torch.optim.SGD)` begins with the rate of newer torches where the class
  of this one wants to be told one.
"""


def held() -> dict[str, Any]:
    """Of each version with what it was tested and what each part counted."""
    found = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    return dict(sorted(found.items(), key=lambda item: [int(number) for number in item[0].split("+")[0].split(".")]))


def cell(found: dict[str, Any] | None) -> str:
    if found is None:
        return "not run"
    skipped = f" ({found['skipped']:,})" if found["skipped"] else ""
    return f"{found['passed']:,}{skipped}" + (f", **{found['failed']} not**" if found["failed"] else "")


def table(rows: list[list[str]]) -> str:
    first, *others = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([first, "|" + "---|" * len(rows[0]), *others])


def page(results: dict[str, Any]) -> str:
    """docs/versions.md."""
    rows = [["", "tests", *(f"torch {version}" for version in results)]]
    for part, paths in PARTS.items():
        without = [path.partition("=")[2] for path in paths if path.startswith("--ignore")]
        names = ", ".join(f"`{path}`" for path in paths if path[0] != "-") + (f" without {', '.join(without)}" if without else "")
        rows.append([part, names, *(cell(found["parts"].get(part)) for found in results.values())])
    rows += [["", f"with {name}", *(found["with"][name] for found in results.values())] for name in ("python", "numpy", "optree")]
    files = Counter(
        (version, name.partition("::")[0])
        for version, found in results.items()
        for counts in found["parts"].values()
        for name in counts["wrong"]
    )
    wrong = [f"- torch {version}: {count} of `{file}`" for (version, file), count in files.items()]
    told = "\n## What does not pass\n\nBy name in `docs/versions.json`.\n\n" + "\n".join(wrong) + "\n" if wrong else ""
    return f"{HEAD}\n{table(rows)}\n{TAIL}{told}"


def summary(results: dict[str, Any]) -> str:
    """The table of README.md."""
    rows = [["torch", "tests that pass", "that do not", "of the suite", "compiled steps"]]
    for version, found in results.items():
        passed, failed = (sum(counts[word] for counts in found["parts"].values()) for word in ("passed", "failed"))
        compiled = "yes" if release(version) >= WHOLE else "run eagerly, with a sentence"
        parts = "all" if len(found["parts"]) == len(PARTS) else f"{len(found['parts'])} of {len(PARTS)} parts"
        rows.append([version, f"{passed:,}", str(failed), parts, compiled])
    return table(rows) + "\n"


def write_pages() -> None:
    results = held()
    PAGE.write_text(page(results), encoding="utf-8")
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    README.write_text(before + BEGIN + summary(results) + END + rest.partition(END)[2], encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("versions", nargs="*", metavar="VERSION", help="of torch, 2.1.0 or newer")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument(
        "--again", action="store_true", help="of parts that have been run what did not pass, alone, and parts that have not"
    )
    parser.add_argument("--keep", action="store_true", help="do not delete the environments")
    parser.add_argument("--page", action="store_true", help="write the pages from what is known; without versions nothing is run")
    parser.add_argument("--python", default=sys.executable, help="which makes them; torch 2.1 needs 3.11 or older")
    parser.add_argument("--jobs", type=int, default=2, help="processes of tests")
    parser.add_argument("--rest", default="", help="passed on to pytest, in one word; the page is left as it is")
    options = parser.parse_args(arguments)
    if early := [version for version in options.versions if release(version) < (2, 1)]:
        parser.error(f"funcopt needs torch 2.1 or newer, got {', '.join(early)}")
    if not options.versions and not options.page:
        parser.error("needs at least one version, such as 2.1.2, or --page")
    bad = 0
    for version in options.versions:
        began, python = time.perf_counter(), environment(version, options.python)
        for part in options.only:
            before = held().get(version, {}).get("parts", {}).get(part) if options.again else None
            if before is not None and not before["wrong"]:
                continue
            found = tested(python, version, part, options.jobs, options.rest.split(), before)
            print(f"torch {version}  {part:12} {cell(found).replace('*', '')}", *found["wrong"][:10], sep="\n    ", flush=True)
            bad += found["failed"]
            if not options.rest:
                results = held()
                parts = results.get(version, {}).get("parts", {})
                kept = {name: counts for name in PARTS if (counts := found if name == part else parts.get(name)) is not None}
                results[version] = {"with": beside(python), "parts": kept}
                RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(f"versions.py: torch {version} in {(time.perf_counter() - began) / 60:.0f} minutes", flush=True)
        if not options.keep:
            shutil.rmtree(python.parents[1])
    if not options.rest:
        write_pages()
        print(f"versions.py: {PAGE.relative_to(ROOT)}")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
