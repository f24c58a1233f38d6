"""An extra brings what its part of the repository uses, and no more."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
BLOCK = PROJECT.split("[project.optional-dependencies]\n")[1].split("\n[")[0]
EXTRAS = {name: re.findall(r'"([A-Za-z][\w-]*)', packages) for name, packages in re.findall(r"^(\w+) = \[(.*?)\]$", BLOCK, re.M | re.S)}
USED_BY = {  # extra -> where its packages are used
    "race": ("funcopt/race", "funcopt/viz"),
    "test": ("tests", "conftest.py", "pyproject.toml", "scripts/dev.py"),
    "dev": ("scripts",),
    "docs": ("docs/conf.py",),
    "integrations": ("tests", "scripts"),
    "bench": ("benchmarks",),
}
CALLED = {  # what is used of a package that is not imported under its name
    "scikit-learn": "sklearn",
    "pytest-xdist": "worksteal",
    "pytest-timeout": r"^timeout =",
    "nbmake": "--nbmake",
    "build": r'"-m", "build"',
    "Sphinx": "sphinx",
    "furo": '"furo"',
    "myst-nb": "myst_nb",
    "pytorch-ignite": "ignite",
    "pilot-optimizer": r"\bpilot\b",
    "OptiRoulette": "optiroulette",
}


def written(places: tuple[str, ...]) -> str:
    files = [file for place in places for file in ([ROOT / place] if (ROOT / place).is_file() else sorted((ROOT / place).rglob("*.py")))]
    lines = "\n".join(file.read_text(encoding="utf-8") for file in files if file != Path(__file__))
    return lines.replace(BLOCK, "")


@pytest.mark.parametrize("extra", EXTRAS)
def test_a_package_of_an_extra_is_used_where_the_extra_says(extra):
    text = written(USED_BY[extra])
    idle = [package for package in EXTRAS[extra] if not re.search(CALLED.get(package, rf"\b{package}\b"), text, re.M)]
    assert not idle, f"nothing in {', '.join(USED_BY[extra])} uses {', '.join(idle)}"


def test_an_error_names_the_package_or_an_extra_that_brings_it():
    for path in sorted((ROOT / "funcopt").rglob("*.py")):
        for extra in re.findall(r"pip install [\"']funcopt\[(\w+)\]", path.read_text(encoding="utf-8")):
            assert extra == "race" and extra in EXTRAS, f"{path.name}: [{extra}] brings far more than what is missing; name the package"
