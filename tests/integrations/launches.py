"""Starts workers on two ranks, as people start them, and tells what their checks found."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

WORKERS = Path(__file__).parent / "workers"
ROOT = Path(__file__).parents[2]
LIMIT = 400  # seconds; the workers say where they hang after 300


def launch(script: Path, *arguments: object, folder: Path, ranks: int = 2) -> tuple[int, str]:
    """Runs a script under torch's launcher; the exit code and the output, which goes through files (pipes can hang)."""
    output = folder / "output.txt"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    command = [*launcher, str(ROOT / "tests" / "ranks.py"), str(script), *map(str, arguments)]
    with open(output, "w", encoding="utf-8") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, cwd=folder, env=environment, start_new_session=True)
        try:
            process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)  # the launcher ends its workers
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    return process.returncode, output.read_text(encoding="utf-8", errors="replace")


def checks_of(worker: str) -> list[str]:
    """The names of the checks in a worker, without importing it."""
    lines = (WORKERS / worker).read_text(encoding="utf-8").splitlines()
    return [after.removeprefix("def ").partition("(")[0] for before, after in zip(lines, lines[1:], strict=False) if before == "@check"]


def found_by(worker: str, folder: Path, checks: list[str]) -> dict[str, str]:
    """What each of these checks of a worker found: "" or what went wrong, on which rank."""
    code, output = launch(WORKERS / worker, folder, folder=folder)
    ranks = [json.loads(path.read_text()) if path.exists() else {} for path in (folder / f"rank{rank}.json" for rank in (0, 1))]
    found = {}
    for name in checks:
        told = [f"rank {rank}: {said.get(name, 'did not get there')}" for rank, said in enumerate(ranks) if said.get(name, "-")]
        found[name] = "\n".join(told)
    if code and not any(found.values()):
        found[checks[-1]] = f"exit code {code}"
    return {name: f"{text}\n{output[-3000:]}" if text else "" for name, text in found.items()}
