"""How large the house is, and how often it does the three things that it should do once: lines and files of each folder, and
the places that write a step back, that decide on holding it flat, that compile.

    python scripts/size.py            what stands in funcopt/
    python scripts/size.py --places   and each place, with file and line

A place is a function (the innermost one) in the syntax tree of a file:
- it writes back where it copies or adds into a tensor in place; what does so for another purpose is in `NOT_A_STEP`, with that purpose;
- it decides on flat where it compares with one of the sizes from which on a flat step pays;
- it compiles where it calls a compiler of torch.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["Place", "counted", "main", "places"]

ROOT = Path(__file__).resolve().parents[1]
STEPS = ("execute", "core", "population", "torch_optim", "es")  # the folders that take steps
IN_PLACE = {"copy_", "foreach_copy_", "_foreach_copy_", "foreach_add_", "_foreach_add_"}
SIZES = {"MANY_LEAVES", "CACHED_BYTES", "LARGE_LEAF"}
COMPILERS = {"torch.compile", "compile_fx_inner"}
WHY = {  # what a second place is for
    "write back a step": "the second puts its copies into a graph that is traced already, where no function of ours is called",
    "compile": "one for each engine: `torch.compile`, and Inductor on a graph that is traced already",
}
NOT_A_STEP = {  # (file, function) -> what it writes into
    ("execute/engines/ahead.py", "copied"): "a copy, on which a graph is tried",
    ("torch_optim/foreign/instance.py", "_load"): "the parameters of somebody's optimizer, on which its step is run",
    ("core/random/philox.py", "_in_blocks"): "the words of a draw",
    ("es/evaluate/chunks.py", "add"): "the answers of a population",
    ("es/noise/sources.py", "_from"): "a row of noise",
    ("es/noise/sources.py", "_interleave"): "a tile of noise",
    ("es/noise/sources.py", "into"): "a tile of noise",
    ("es/evaluate/watch.py", "undo"): "what an objective has written into",
    ("torch_optim/interchange.py", "_fill"): "a state that is loaded",
    ("torch_optim/run/scratch.py", "filled"): "the vector of gradients, before the step",
    ("torch_optim/run/scratch.py", "spread"): "a leaf's new place in memory",
    ("torch_optim/steering.py", "train"): "the weights for evaluation, and back",
    ("torch_optim/units.py", "settle"): "what was saved or changed outside",
}


class Place(NamedTuple):
    file: str  # in the package, "execute/step.py"
    line: int
    function: str


def functions(tree: ast.AST, inside: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Every node with the name of the innermost function around it."""
    for node in ast.iter_child_nodes(tree):
        name = node.name if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else inside
        yield name, node
        yield from functions(node, name)


def called(node: ast.AST) -> str:
    """What is called, with its dots; "" for what is no call."""
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


def writes(node: ast.AST) -> bool:
    return called(node).rpartition(".")[2] in IN_PLACE or called(node).endswith("call_function") and "copy_" in ast.unparse(node)


def decides(node: ast.AST) -> bool:
    return isinstance(node, ast.Compare) and any(isinstance(part, ast.Name) and part.id in SIZES for part in ast.walk(node))


def compiles(node: ast.AST) -> bool:
    """Also where the compiler is handed to what calls it."""
    return isinstance(node, ast.Call) and not COMPILERS.isdisjoint([called(node), *map(ast.unparse, node.args)])


QUESTIONS: dict[str, tuple[Callable[[ast.AST], bool], tuple[str, ...] | None]] = {  # and in which folders it is asked
    "write back a step": (writes, STEPS),
    "decide on flat": (decides, None),
    "compile": (compiles, None),
}


def places(package: Path, question: str) -> list[Place]:
    """The functions to which a question is answered with yes, each once, without those of another purpose."""
    return [place for place in asked_for(package, question) if (place.file, place.function) not in NOT_A_STEP]


def asked_for(package: Path, question: str) -> list[Place]:
    asked, folders = QUESTIONS[question]
    found: dict[tuple[str, str], Place] = {}
    for file in sorted(package.rglob("*.py")):
        path = file.relative_to(package).as_posix()
        if folders is not None and path.partition("/")[0] not in folders:
            continue
        for name, node in functions(ast.parse(file.read_text(encoding="utf-8"), str(file))):
            if asked(node):
                found.setdefault((path, name), Place(path, getattr(node, "lineno", 0), name))
    return list(found.values())


def counted(package: Path) -> dict[str, tuple[int, int]]:
    """Files and lines of each folder at the top of the package; "" has the files that stand there."""
    sizes: dict[str, tuple[int, int]] = {}
    for file in sorted(package.rglob("*.py")):
        parts = file.relative_to(package).parts
        folder = parts[0] if len(parts) > 1 else ""
        files, lines = sizes.get(folder, (0, 0))
        sizes[folder] = files + 1, lines + len(file.read_text(encoding="utf-8").splitlines())
    return sizes


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="lines and files of each folder, and the places that do what should be done once")
    parser.add_argument("package", nargs="?", type=Path, default=ROOT / "funcopt")
    parser.add_argument("--places", action="store_true", help="each place, with file and line")
    options = parser.parse_args(arguments)
    sizes = counted(options.package)
    print(f"{'folder':16}{'files':>7}{'lines':>8}")
    for folder, (files, lines) in sizes.items():
        print(f"{folder or '.':16}{files:7}{lines:8,}")
    print(f"{'all':16}{sum(files for files, _ in sizes.values()):7}{sum(lines for _, lines in sizes.values()):8,}\n")
    for question in QUESTIONS:
        found = places(options.package, question)
        why = WHY.get(question) if len(found) > 1 else None
        print(f"places that {question}: {len(found)}{f'; {why}' if why else ''}")
        for place in found if options.places else ():
            print(f"  {place.file}:{place.line} {place.function}")


if __name__ == "__main__":
    main()
