"""One command from a clean clone to a result: sets up `.venv`, then runs the race, the tests, the benchmarks, the linters or the docs.

    python scripts/dev.py race            python -m funcopt race; the result is in runs/
    python scripts/dev.py test -k adam    the test suite; what follows the command is passed on
    python scripts/dev.py test-versions 2.1.2 2.4.1    the suite on other versions of torch (scripts/versions.py)

Needs Python 3.10 or newer and nothing else. torch is taken from the first place that has it: the environment, the
Python that runs this script, a wheel in a find-links folder that pip is configured with, PyTorch's index of CPU builds
(not with a GPU or `--cuda`), pip's own index. A stamp in `.venv` makes the next run install nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "funcopt-stamp.json"

OLDEST_TORCH = (2, 1)
TORCH = "torch>=2.1"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
NOT_HERE = 3  # the code to leave with where pip cannot install what a command needs
# Every test stays on one thread: its workers and the compiler's share the cores.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}

IMPORTED_TORCH = "import torch, pathlib; print(torch.__version__); print(pathlib.Path(torch.__file__).parents[1])"
INSTALLED_TORCH = "import importlib.metadata as m; d = m.distribution('torch'); print(d.version); print(d.locate_file(''))"


class Command(NamedTuple):
    """What a subcommand needs and what it then runs, one after the other, with the environment's Python."""

    help: str
    extras: tuple[str, ...]
    lines: Callable[[list[str]], list[list[str]]]  # arguments passed on -> arguments of Python
    environment: dict[str, str] = {}


class Torch(NamedTuple):
    version: str
    folder: str  # the site-packages it stands in


def pytest_line(arguments: list[str]) -> list[list[str]]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    line = ["-m", "pytest", "-n", str(min(4, cores)), "--dist", "worksteal", *arguments]
    named = any((ROOT / argument.split("::")[0]).exists() for argument in arguments if not argument.startswith("-"))
    notebooks = [] if named else [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("notebooks/*.ipynb"))]
    return [[*line, "--nbmake", "tests", "funcopt", *notebooks] if notebooks else line]


# A test with a real tool that is skipped where all tools have been installed is a failure; nothing is asked of a hub of models.
EVERY_TOOL = {**ONE_THREAD, "FUNCOPT_NO_SKIPS": "1", "HF_HUB_OFFLINE": "1"}


def integration_lines(arguments: list[str]) -> list[list[str]]:
    return pytest_line(arguments or ["tests/torch_optim", "tests/checkpoint", "tests/integrations"])


def module(*words: str) -> Callable[[list[str]], list[list[str]]]:
    return lambda arguments: [["-m", *words, *arguments]]


def lint_lines(arguments: list[str]) -> list[list[str]]:
    types = [
        ["-m", "pyright", *project, *arguments] for project in ((), ("--project", "pyright-strict.json"), ("--project", "tests/typing"))
    ]
    return [["-m", "ruff", "check", *arguments], ["-m", "ruff", "format", "--check", *arguments], *types]


def bench_lines(arguments: list[str]) -> list[list[str]]:
    """Every benchmark in its short form; with names, those alone and as long as they are."""
    names = [argument for argument in arguments if not argument.startswith("-")]
    settings = [argument for argument in arguments if argument.startswith("-")] if names else ["--short", *arguments]
    return [[f"benchmarks/{name.removesuffix('.py')}.py", *settings] for name in names or BENCHMARKS]


# One question each; in the order of docs/performance.md.
BENCHMARKS = (
    "step",
    "compile_time",
    "memory",
    "population",
    "torch_optim",
    "second_order",
    "controllers",
    "es",
    "es_peers",
    "es_rollout",
    "es_cost_model",
)


def evidence_lines(arguments: list[str]) -> list[list[str]]:
    """What a step costs (E4), unless that is known already or only a page is made, then the rest."""
    cost = "runs/evidence/cost.json"
    measure = not (ROOT / cost).exists() and not {"--page", "-h", "--help"} & set(arguments)
    return [["benchmarks/controllers.py", "rate", "--short", "--json", cost]] * measure + [
        ["-m", "funcopt", "race", "evidence", *arguments]
    ]


COMMANDS = {
    "race": Command("race the optimizers on a real task; table, picture and numbers in runs/", ("race",), module("funcopt", "race")),
    "evidence": Command(
        "what the rate that finds itself reaches; E1 to E4, numbers in runs/evidence", ("race",), evidence_lines, ONE_THREAD
    ),
    "test": Command("tests, doctests and notebooks on at most four cores", ("race", "test"), pytest_line, ONE_THREAD),
    "parity": Command(
        "train beside the reference packages; fails where they differ", ("race",), lambda arguments: [["scripts/parity.py", *arguments]]
    ),
    "test-integrations": Command(
        "tests with the real tools: trainers, wrappers, several processes", ("race", "test", "integrations"), integration_lines, EVERY_TOOL
    ),
    "bench": Command("the benchmarks in their short form; with names, those whole", ("race", "bench"), bench_lines, ONE_THREAD),
    "lint": Command("ruff and pyright", ("dev",), lint_lines),
    "wheel": Command(
        "build, then a trial of the wheel in a clean environment", ("dev",), lambda arguments: [["scripts/wheel.py", *arguments]]
    ),
    "docs": Command(
        "the documentation, into docs/_build/html",
        ("race", "docs"),
        module("sphinx", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html"),
    ),
}


def say(text: str) -> None:
    print(f"dev.py: {text}", flush=True)


def pip(*arguments: str, quiet_failure: bool = False) -> bool:
    command = [str(PYTHON), "-m", "pip", "install", "-qq", "--no-input", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, cwd=ROOT, stderr=subprocess.DEVNULL if quiet_failure else None).returncode == 0


def ask(python: Path | str, code: str) -> list[str]:
    """The lines that a Python prints; none if it fails."""
    answer = subprocess.run([str(python), "-c", code], cwd=ROOT.anchor, capture_output=True, text=True)
    return answer.stdout.splitlines() if answer.returncode == 0 else []


def release(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def find_torch(python: Path | str, code: str = IMPORTED_TORCH) -> Torch | None:
    """The torch that this Python has, if it is new enough."""
    answer = ask(python, code)
    return Torch(*answer) if answer and release(answer[0]) >= OLDEST_TORCH else None


def has_gpu() -> bool:
    command = shutil.which("nvidia-smi")
    try:
        return command is not None and subprocess.run([command, "-L"], capture_output=True, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def make_environment() -> None:
    if not PYTHON.exists():
        say(f"making .venv with Python {sys.version.split()[0]}")
        # A link to a Python that is gone would be kept, so such an environment is made anew.
        venv.create(VENV, clear=PYTHON.is_symlink(), symlinks=os.name != "nt")
        lender = find_torch(sys.executable)
        if lender:
            # Like --system-site-packages, but it also reaches a torch in a user folder or in another virtual environment.
            say(f"using torch {lender.version} of {sys.executable}")
            folder = ask(PYTHON, "import sysconfig; print(sysconfig.get_path('purelib'))")[0]
            Path(folder, "borrowed-torch.pth").write_text(lender.folder + "\n", encoding="utf-8")
    pip_version = "import pip; print(pip.__version__)"
    if not ask(PYTHON, pip_version) and subprocess.run([str(PYTHON), "-m", "ensurepip"], stdout=subprocess.DEVNULL).returncode != 0:
        raise SystemExit(
            "dev.py: .venv has no pip and Python brings none; on Debian and Ubuntu install the package python3-venv, then run this again"
        )
    if release(ask(PYTHON, pip_version)[0]) < (21, 3):  # the first that installs a pyproject.toml as editable
        pip("--upgrade", "pip")


def install_torch(cuda: bool) -> Torch:
    found = find_torch(PYTHON)
    if found:
        return found
    # Without dependencies: those come with the project's, from pip's own index.
    say("looking for a torch wheel in pip's find-links folders")
    done = pip("--no-index", "--no-deps", TORCH, quiet_failure=True)
    if not (done or cuda or sys.platform == "darwin" or has_gpu()):  # macOS has one build, on pip's own index
        for attempt in (1, 2):
            say(f"asking {TORCH_CPU_INDEX} for torch, attempt {attempt} of 2")
            # These settings give up within seconds where the network is closed.
            done = pip("--index-url", TORCH_CPU_INDEX, "--no-deps", "--timeout", "10", "--retries", "0", TORCH, quiet_failure=True)
            if done:
                break
    if not done:
        say("asking pip's own index for torch (a large download)")
        pip(TORCH)
    found = find_torch(PYTHON, INSTALLED_TORCH)  # it may not import before its dependencies are there
    if not found:
        raise SystemExit(f"dev.py: found no {TORCH}; install it yourself ({PYTHON} -m pip install torch), then run this again")
    return found


def call(line: list[str], environment: dict[str, str]) -> int:
    process = subprocess.Popen([str(PYTHON), *line], cwd=ROOT, env={**environment, **os.environ})
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            pass  # whoever runs has heard it too, and has a summary to print


def set_up(extras: tuple[str, ...], cuda: bool) -> None:
    digest = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    stamp = json.loads(STAMP.read_text(encoding="utf-8")) if STAMP.exists() and PYTHON.exists() else {"extras": []}
    if stamp.get("pyproject") == digest and set(extras) <= set(stamp["extras"]):
        return
    make_environment()
    torch = install_torch(cuda)
    wanted = sorted({*stamp["extras"], *extras})
    say(f"installing funcopt[{','.join(wanted)}] beside torch {torch.version} (minutes, on a first run)")
    constraints = VENV / "constraints.txt"  # pip must not trade the torch that is there for another
    constraints.write_text(f"torch=={torch.version}\n" + ("numpy<2\n" if release(torch.version) < (2, 3) else ""), encoding="utf-8")
    if not pip("--editable", f".[{','.join(wanted)}]", "--constraint", str(constraints)):
        say("pip could not install the project; its own words are above")
        raise SystemExit(NOT_HERE)
    if not find_torch(PYTHON):
        raise SystemExit(f"dev.py: torch {torch.version} does not import: {PYTHON} -c 'import torch'")
    STAMP.write_text(json.dumps({"pyproject": digest, "extras": wanted}), encoding="utf-8")


def main(arguments: list[str]) -> int:
    if sys.version_info < (3, 10):  # noqa: UP036 (the reader of this sentence has an older one)
        raise SystemExit(
            f"dev.py: needs Python 3.10 or newer, got {sys.version.split()[0]}; run it with a newer one, or make PYTHON=python3.12 ..."
        )
    if arguments[:1] == ["test-versions"]:  # environments of their own
        return subprocess.run([sys.executable, str(ROOT / "scripts/versions.py"), *arguments[1:]]).returncode
    table = "\n".join(f"  {name:18} {command.help}" for name, command in COMMANDS.items())
    parser = argparse.ArgumentParser(prog="dev.py", description=f"commands:\n{table}", formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuda", action="store_true", help="do not ask for a CPU build of torch (anywhere on the line)")
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="passed on to what the command runs")
    cuda = "--cuda" in arguments
    options = parser.parse_args([argument for argument in arguments if argument != "--cuda"])
    command = COMMANDS[options.command]
    set_up(command.extras, cuda)
    codes = [call(line, command.environment) for line in command.lines(options.rest)]
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
