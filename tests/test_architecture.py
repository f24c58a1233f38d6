"""The house keeps its shape: who may import whom, what is public, what a file may hold. Each failure names file and line."""

import ast
import functools
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import funcopt as fo

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "funcopt"

# What each part of the package may import of the package, besides itself. "funcopt" is the public surface, `import funcopt as fo`.
BELOW = {
    "core": (),
    "execute": ("core",),
    "schedules": ("core",),
    "rules": ("core",),
    "transforms": ("core", "schedules", "rules"),
    "optimizers": ("core", "schedules", "rules", "transforms"),
    "controllers": ("core", "schedules", "rules", "transforms", "optimizers"),
    "es": ("core", "execute"),
    "distributed": ("core",),
    "checkpoint": ("core",),
    "population": ("core", "execute"),
    "viz": ("core",),
}
BELOW["torch_optim"] = tuple(BELOW)
BELOW["race"] = ("funcopt",)
BELOW["catalog"] = ("funcopt",)
BELOW["__main__"] = ("funcopt",)

METHODS = ("transforms", "optimizers", "controllers")
# Packages that `import funcopt` may load; a part not named here may import these at the head of a file and nothing else.
RUNTIME = {"torch", "numpy"}
AT_THE_HEAD = {"race": RUNTIME | {"sklearn", "scipy", "matplotlib", "tqdm"}}
# Inside functions (imported on use) everything goes, except in the parts that are mathematics.
LONGEST = 400  # lines in a file
MATHEMATICS = ("core", "execute", "schedules", "rules", *METHODS, "es")
# ... and in these files of theirs, which lead out to another library.
WAYS_OUT = ("funcopt/es/rl/gymnasium.py:",)

# (file, function) -> why a tensor may be read on the host there.
HOST_READS = {
    (
        "transforms/line_search.py",
        "goes_on",
    ): "one flag a trial, where Python may look: waiting takes less than the trial that it saves",
    ("core/door/front.py", "number"): "a hyperparameter on the CPU, when a transformation is made outside a step",
    ("es/search/restarts.py", "running"): "the first scale of a run, on the CPU",
    ("es/search/restarts.py", "is_through"): "whether a run is through decides how many members the next has: a shape",
    ("es/search/restarts.py", "restarted"): "the budgets of a restart, on the CPU",
    ("es/estimate/agreement.py", "tensor"): "bytes of small tensors that lie on the CPU",
    ("execute/engines/ahead.py", "alike"): "a graph is compared with its pure function, once, when it is built",
    ("execute/engines/ahead.py", "missing"): "the probe of the engine, once in a process",
    (
        "core/random/philox.py",
        "host_value",
    ): "keys on the CPU outside tracing: host integers where a draw in tensor arithmetic takes 600 us",
    ("es/noise/sources.py", "_interleave"): "a tile of noise on the CPU, which numpy writes in half of the time",
    (
        "es/shaping/shared_ties.py",
        "_as_numpy_sorts",
    ): "the order among equal members is numpy's, as in pytorch-optimize; of tensors on the CPU alone",
    ("controllers/roulette/pool_migration.py", "_migrated"): "a checkpoint is moved, before the run",
    ("controllers/roulette/pool_migration.py", "_queue"): "a checkpoint is moved, before the run",
    ("controllers/pulseopt/episode_log.py", "episode_log"): "a table for people, made after the run",
    ("es/rl/stop.py", "forward"): "once in some steps of a rollout, which then ends early",
    ("es/rl/gymnasium.py", "play"): "environments that live on the host, and what they are seeded with",
    ("es/rl/gymnasium.py", "_as_actions"): "environments that live on the host",
}


class Import(NamedTuple):
    where: str  # "funcopt/core/tree.py:12"
    part: str  # of the package: the folder or the file at its top that imports
    target: str  # dotted name
    on_use: bool  # inside a function, or for a type checker alone


def sources(*parts: str) -> list[Path]:
    """The package's files, or those of some of its parts (a part is a folder or a single file)."""
    files = sorted(PACKAGE.rglob("*.py"))
    return [file for file in files if not parts or part_of(file) in parts]


def part_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def place(file: Path, line: int) -> str:
    return f"{file.relative_to(ROOT).as_posix()}:{line}"


@functools.cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def dotted(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def imports(file: Path) -> Iterator[Import]:
    def visit(node: ast.AST, on_use: bool) -> Iterator[Import]:
        targets = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = dotted(file) if file.name == "__init__.py" else dotted(file).rpartition(".")[0]
            head = package.rsplit(".", node.level - 1)[0] + "." if node.level else ""
            base = (head + (node.module or "")).rstrip(".")
            # `from funcopt import tree` and `from torch import distributed` import a module, `from funcopt.core import tree` too.
            targets = [f"{base}.{alias.name}" if base == "torch" or is_module(f"{base}.{alias.name}") else base for alias in node.names]
        yield from (Import(place(file, node.lineno), part_of(file), target, on_use) for target in dict.fromkeys(targets))
        deferred = on_use or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        deferred = deferred or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        for child in ast.iter_child_nodes(node):
            yield from visit(child, deferred)

    return visit(parsed(file), False)


def all_imports() -> list[Import]:
    return [found for file in sources() for found in imports(file)]


def tell(title: str, lines: list[str]) -> str:
    return "\n  ".join([title, *lines])


def test_every_part_has_its_place_in_the_layers():
    strangers = sorted({part_of(file) for file in sources()} - set(BELOW) - {"__init__"})
    assert not strangers, (
        f"not in the layers: {strangers}; give them their line in BELOW of tests/test_architecture.py and in the layers of CONTRIBUTING.md"
    )


def test_imports_point_down():
    def allowed(found: Import) -> bool:
        words = found.target.split(".")
        if words[0] != "funcopt" or found.part == "__init__":
            return True
        # every namespace has the same door
        if found.target == "funcopt.core.door.namespaces" and found.where.split(":")[0].endswith("/__init__.py"):
            return True
        target = words[1] if len(words) > 1 else "funcopt"
        below = BELOW.get(found.part, ())
        # What stands on the public surface also reaches what is public there by name: `from funcopt import viz`.
        public = "funcopt" in below and len(words) == 2 and target not in ("core", "execute", *METHODS)
        return target == found.part or target in below or public

    broken = [f"{found.where} imports {found.target}" for found in all_imports() if not allowed(found)]
    hint = "imports point down only (BELOW says who may import whom; `import funcopt` itself is for race and the command line):"
    assert not broken, tell(hint, broken)


def test_files_import_what_is_installed_with_the_package():
    def allowed(found: Import) -> bool:
        top = found.target.split(".")[0]
        if top in sys.stdlib_module_names or top == "funcopt":
            return True
        if top == "optree":
            return found.where.startswith("funcopt/core/tree/")
        if top == "typing_extensions":  # for a type checker alone, which brings it
            return found.on_use
        return top in AT_THE_HEAD.get(found.part, RUNTIME) or (
            found.on_use and (found.part not in MATHEMATICS or found.where.startswith(WAYS_OUT))
        )

    broken = [f"{found.where} imports {found.target}" for found in all_imports() if not allowed(found)]
    assert not broken, tell(
        "torch and numpy at the head, the tree library in core/tree alone, others on use and not in the mathematics:", broken
    )


def test_only_distributed_imports_torch_distributed_at_the_head():
    broken = [
        f"{found.where} imports {found.target}"
        for found in all_imports()
        if f"{found.target}.".startswith("torch.distributed.") and found.part != "distributed" and not found.on_use
    ]
    assert not broken, tell("torch.distributed is imported on use:", broken)


# Processor time: beside other work the clock on the wall tells about the others.
LOAD = """
import sys, time
start = time.process_time()
import torch
before, torch_took = set(sys.modules), time.process_time() - start
import funcopt
print((time.process_time() - start) / torch_took - 1)
print(*sorted(set(sys.modules) - before))
"""


def test_importing_funcopt_is_quick_and_loads_no_stranger():
    shares = []  # of the time that torch takes, on the same busy machine
    for _ in range(3):
        answer = subprocess.run([sys.executable, "-c", LOAD], cwd=ROOT, capture_output=True, text=True, check=True)
        first, modules = answer.stdout.splitlines()
        shares.append(float(first))
        if shares[-1] < 0.6:
            break
    tops = {name.split(".")[0] for name in modules.split()}
    strangers = tops & {"matplotlib", "sklearn", "scipy", "tqdm", "pandas", "IPython", "pytest"}
    assert not strangers, f"`import funcopt` loads {sorted(strangers)}; import them on use"
    late = [
        name for name in modules.split() if name.startswith(("torch.distributed", "funcopt.distributed", "funcopt.viz", "funcopt.race"))
    ]
    assert not late, f"`import funcopt` loads {late}; these are imported on first use"
    assert min(shares) < 0.6, f"`import funcopt` takes {min(shares):.2f} of the time of `import torch` besides; at most 0.6"


def exported(file: Path) -> list[str] | None:
    """The names of `__all__`; None where a file has none."""
    for node in parsed(file).body:
        if isinstance(node, ast.Assign) and any(isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets):
            return ast.literal_eval(node.value)
    return None


def test_what_a_method_exports_is_public():
    surface: dict[str, set[str]] = {}
    for node in parsed(PACKAGE / "__init__.py").body:
        if isinstance(node, ast.ImportFrom) and node.module:
            surface.setdefault(node.module, set()).update(alias.name for alias in node.names)
    imported = {found.target for file in sources() for found in imports(file)}
    forgotten = []
    for file in sources(*METHODS):
        names, module = exported(file), dotted(file)
        if file.name == "__init__.py":
            continue
        if names is None and module not in imported:
            forgotten.append(f"{place(file, 1)} has no __all__ and nobody imports it")
        missing = [name for name in names or () if name not in surface.get(module, ())]
        if missing:
            forgotten.append(f"{place(file, 1)}: funcopt/__init__.py lacks `from {module} import {', '.join(missing)}`")
    assert not forgotten, tell("what __all__ of a method's file names, funcopt/__init__.py imports:", forgotten)


def test_a_name_has_one_spelling():
    broken = [
        f"{place(PACKAGE / '__init__.py', node.lineno)} renames {alias.name} to {alias.asname}"
        for node in parsed(PACKAGE / "__init__.py").body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname not in (None, alias.name)
    ]
    assert not broken, tell("no aliases:", broken)


def public_functions() -> dict[str, str]:
    """Name -> part, of every function that `fo` shows and that came from a file of ours."""
    named = {name: value for name, value in vars(fo).items() if inspect.isfunction(value) and not name.startswith("_")}
    ours = {name: value for name, value in named.items() if value.__module__.startswith("funcopt.")}
    return {name: value.__module__.split(".")[1] for name, value in ours.items()}


def makes_transformations(name: str, part: str) -> bool:
    """Everything a method's file shows is taken for a transformation; of the rest, what is annotated as one."""
    returns = getattr(fo, name).__annotations__.get("return", "")
    return part in METHODS or "GradientTransformation" in str(returns)


def test_every_public_transformation_has_its_row_in_the_zoo():
    factories = {name: part for name, part in public_functions().items() if makes_transformations(name, part)}
    if not factories:
        return
    zoo = import_module("tests.zoo")
    # A row is named after its factory; a second one of the same factory says more after it: "adam", "adam (nesterov)", "adam/nesterov".
    rows = {match.group() for row in zoo.ROWS if (match := re.match(r"\w+", row.name))}
    forgotten = [f"{name} (funcopt/{part}) has no row" for name, part in factories.items() if name not in rows and name not in zoo.EXEMPT]
    stale = [
        f"EXEMPT names {name}, which {'has a row' if name in rows else 'is not public'}"
        for name in zoo.EXEMPT
        if name in rows or not hasattr(fo, name)
    ]
    silent = [f"EXEMPT gives no reason for {name}" for name, reason in zoo.EXEMPT.items() if not reason.strip()]
    wrong = forgotten + stale + silent
    assert not wrong, tell(
        "tests/zoo.py has a row in ROWS for each, or the reason in EXEMPT why it is no transformation:", forgotten + stale + silent
    )


# Without a class in fo.torch_optim, and why.
WITHOUT_A_CLASS = {"dpsgd": "a loop over `.grad` has no gradient for each example", "muon_labels": "makes labels"}
WITHOUT_A_CLASS["lbfgs"] = (
    "a loop over `.grad` has no loss as a function of the params to search along; from_torch(torch.optim.LBFGS) has its closure"
)


def documentation() -> str:
    return "\n".join(page.read_text(encoding="utf-8") for page in written_pages())


def written_pages() -> list[Path]:
    """The pages that somebody wrote: those under docs/api are made of the code, and name everything."""
    return [page for page in sorted((ROOT / "docs").rglob("*.md")) if not {"_build", "api"} & set(page.parts)]


def test_every_public_transformation_is_on_a_page():
    pages = documentation()
    factories = [name for name, part in public_functions().items() if part in METHODS and makes_transformations(name, part)]
    forgotten = [name for name in factories if not re.search(rf"\b{name}\b", pages)]
    assert not forgotten, tell("no page of docs/ names:", forgotten)


def test_every_public_transformation_has_one_entry_in_the_reference():
    pages = import_module("scripts.pages").pages()
    slugs = [page.slug for page in pages]
    twice = sorted({slug for slug in slugs if slugs.count(slug) > 1})
    assert not twice, tell("pages of one name, of which the last is written:", twice)
    shown = [public.name for page in pages for public in page.names]
    factories = [name for name, part in public_functions().items() if makes_transformations(name, part)]
    wrong = [f"{name}: {shown.count(name)} entries" for name in factories if shown.count(name) != 1]
    assert not wrong, tell("scripts/pages.py makes one entry for each public name:", wrong)


def test_every_ready_made_optimizer_is_a_class_of_torch_too():
    made = [name for name, part in public_functions().items() if part == "optimizers" and not name.startswith("scale_by_")]
    forgotten = [name for name in made if not hasattr(fo.torch_optim, name) and name not in WITHOUT_A_CLASS]
    stale = [name for name in WITHOUT_A_CLASS if hasattr(fo.torch_optim, name) or name not in made]
    assert not forgotten + stale, tell(
        "fo.torch_optim has a class of each (classes/ready_made.py), or WITHOUT_A_CLASS the reason:", forgotten + stale
    )


def circles() -> list[list[str]]:
    """The files that import each other, one way or another; deferred imports and those for a type checker count too."""
    files = {dotted(file): file for file in sources()}
    reaches: dict[str, list[str]] = {}
    for name, file in files.items():
        found = []
        # The namespaces that the package hands out on first use it names for type checkers alone.
        for target in dict.fromkeys(made.target for made in imports(file) if not (name == "funcopt" and made.on_use)):
            while target and target not in files:  # a name in a module
                target = target.rpartition(".")[0]
            if target and target != name:
                found.append(target)
        reaches[name] = found
    while True:  # who imports nothing that is left is in no circle
        last = {name for name, targets in reaches.items() if not targets}
        if not last:
            break
        reaches = {name: [target for target in targets if target not in last] for name, targets in reaches.items() if name not in last}

    def way_back(name: str) -> list[str] | None:
        ways = [[name]]
        seen = set()
        for way in ways:  # grows while it is read
            for target in reaches[way[-1]]:
                if target == name:
                    return [*way, name]
                if target not in seen:
                    seen.add(target)
                    ways.append([*way, target])
        return None

    return [way for name in reaches if (way := way_back(name)) is not None]


def test_no_files_import_each_other():
    found = circles()
    shown = [" -> ".join(way) for way in found if way[0] == min(way)]
    assert not found, tell("files in a circle; what both need belongs further down, and what one is handed it need not import:", shown)


def test_files_are_short_enough_to_hold_one_idea():
    lines = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in sources()}
    long = [place(file, count) for file, count in lines.items() if count > LONGEST]
    assert not long, tell(f"past {LONGEST} lines; look for the second idea and give it a file:", long)


def host_reads(file: Path) -> Iterator[tuple[str, int, str]]:
    """Function, line and call of whatever copies a tensor to the host."""

    def visit(node: ast.AST, function: str) -> Iterator[tuple[str, int, str]]:
        if isinstance(node, ast.FunctionDef):
            function = node.name
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("item", "tolist", "cpu", "numpy"):
            yield function, node.lineno, f".{node.func.attr}()"
        for child in ast.iter_child_nodes(node):
            yield from visit(child, function)

    return visit(parsed(file), "")


def test_no_transformation_waits_for_the_device():
    found = {(file, function): (line, call) for file in sources(*MATHEMATICS) for function, line, call in host_reads(file)}
    inside = {(file.relative_to(PACKAGE).as_posix(), function) for file, function in found}
    reads = [
        f"{place(file, line)} {call} in {function or 'the module'}"
        for (file, function), (line, call) in found.items()
        if (file.relative_to(PACKAGE).as_posix(), function) not in HOST_READS
    ]
    assert not reads, tell("host reads in the mathematics (a reason in HOST_READS of tests/test_architecture.py lets one in):", reads)
    stale = [f"{file} {function}" for file, function in HOST_READS if (file, function) not in inside and (PACKAGE / file).exists()]
    assert not stale, tell("HOST_READS lets in what is no longer there:", stale)


# The engines and what goes with them: parts of the compiler, on the versions whose compiled steps are whole.
COMPILERS = ("execute/engines/", "es/evaluate/compiling.py", "es/noise/kernel.py")
OF_A_COMPILER = (
    "torch._inductor",
    "torch._dynamo",
    "torch._functorch._aot_autograd",
    "torch._subclasses",
    "torch._guards",
    "torch._C._dynamo",
    "torch.compiler._is_compiling_flag",
)
PRIVATE = re.compile(r"torch(?:\.[A-Za-z]\w*)*\._[A-Za-z][\w.]*|from (torch[\w.]*) import (?:\w+, )*_[A-Za-z]\w*")
ALONE = {("core/sharded.py", "torch.distributed.tensor._utils"): "how uneven shards lie, asked where there are some"}


def test_private_names_of_torch_stand_in_versions_alone():
    found = []
    for file in sources():
        path = file.relative_to(PACKAGE).as_posix()
        text = ast.unparse(_without_docstrings(parsed(file)))
        for match in PRIVATE.finditer(text):
            name = match.group()
            of_a_compiler = path.startswith(COMPILERS) and name.startswith(OF_A_COMPILER)
            if path != "core/versions.py" and not of_a_compiler and (path, name) not in ALONE:
                found.append(f"funcopt/{path}: {name}")
    assert not found, tell("private names of torch, which differ from version to version, outside of core/versions.py:", found)


def _without_docstrings(module: ast.Module) -> ast.Module:
    class Dropped(ast.NodeTransformer):
        def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
            return ast.Pass() if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str) else node

    return Dropped().visit(ast.parse(ast.unparse(module)))


def tracked_texts() -> Iterator[tuple[str, str]]:
    """Path and text of what the repository holds; of what stands in its place where there is no git."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    names = (
        listing.stdout.split("\0")
        if listing.returncode == 0
        else [file.relative_to(ROOT).as_posix() for file in (*sources(), *ROOT.glob("tests/**/*.py"))]
    )
    for name in filter(None, names):
        if (ROOT / name).is_file():
            yield name, (ROOT / name).read_bytes().decode("utf-8", "ignore")


def test_no_file_knows_the_machine_it_was_written_on():
    # In two pieces, so that this file does not hold what it looks for.
    pattern = re.compile("/(?:work|root|farm)" + "/|/tmp" + "/[a-z]|/home" + r"/[a-z]|[A-Z]:\\Users" + r"\\|[.]library\b")
    found = [
        f"{name}:{text.count(chr(10), 0, match.start()) + 1} {match.group()}"
        for name, text in tracked_texts()
        for match in pattern.finditer(text)
    ]
    assert not found, tell("paths of one machine:", found)


def test_no_stub_and_no_reminder():
    pattern = re.compile(r"NotImplementedError|\b(TODO|FIXME|XXX)\b")
    found = [
        f"{place(file, number)} {match.group()}"
        for file in sources()
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if (match := pattern.search(line))
    ]
    assert not found, tell("finish it or leave it out:", found)


def test_the_version_stands_in_one_place():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert (
        'dynamic = ["version"]' in project and 'path = "funcopt/__init__.py"' in project and not re.search(r"^version\s*=", project, re.M)
    )
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", fo.__version__)
