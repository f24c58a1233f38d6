"""The pages of the reference: one for each method, made of the head of its file, its docstrings and what is measured of it.

    python scripts/pages.py            writes docs/api, which no commit holds; the build of the documentation calls it, too

A method is a file of transforms, optimizers, controllers or es; what stands in a namespace of its own (`fo.tree`,
`fo.schedules`, `fo.torch_optim`, ...) has one page together.
"""

import functools
import inspect
import io
import json
import re
import sys
import tokenize
from pathlib import Path
from typing import Any, NamedTuple

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import funcopt as fo
from funcopt.catalog.listing import properties
from funcopt.catalog.reading import NAMESPACES, Public, instance, public_names, sections
from scripts.formulas import typeset, words
from scripts.gallery import PICTURES

__all__ = ["OUT", "write"]

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "api"
ONE_PAGE = set(NAMESPACES) - {"es"}  # namespaces with one page for all of their names; the rest has one for each file
TITLES = {
    "core": "The protocol: chains, states, signals",
    "execute": "How a step runs",
    "transforms": "Links",
    "optimizers": "Optimizers",
    "controllers": "Controllers",
    "es": "Evolution strategies: `fo.es`",
    "schedules": "Schedules: `fo.schedules`",
    "rules": "Rules of `adaptive`: `fo.rules`",
    "torch_optim": "Classes of torch: `fo.torch_optim`",
    "microbatching": "Large batches in parts: `fo.microbatching`",
    "population": "Many models at once: `fo.population`",
    "checkpoint": "Files: `fo.checkpoint`",
    "distributed": "Ranks: `fo.distributed`",
    "race": "Races: `fo.race`",
    "viz": "Pictures: `fo.viz`",
    "tree": "Trees of tensors: `fo.tree`",
    "random": "Random numbers from keys: `fo.random`",
    "moments": "Running means: `fo.moments`",
    "projections": "Projections: `fo.projections`",
    "numerics": "Norms and division: `fo.numerics`",
}
WIDTH = 80  # characters of code that a page shows on a line

BEGINNING = """# Reference

Every public name, made from the code when these pages are built: a page for each method, with the recurrence at the head of its file,
what is measured of it, its signature, arguments, result, errors, an example that is run by the tests, and a link to the source.

What a function takes is looked at before it begins: a word that it does not know is answered with ours, a flag must be True or False, a
transformation must be one. That is a `TypeError` everywhere and is not told again with each function."""
ENDING = """## What is measured

| | |
|---|---|
| vmaps | runs under `torch.func.vmap` |
| traces | `torch.compile` and `make_fx` follow it whole |
| flat | a step may run on one vector in place of many leaves |
| bytes of state a parameter | of the state, for each entry of a matrix of 512 by 512, a vector of 512 and a number in float32; AdamW: 8 |
| time beside AdamW | CPU time of an eager update of these three on one thread, over that of AdamW, in turns: 0.5 is half of it |
| says | words of its state that logs and other links can read |
| after a NaN, after 1e30 | what one such entry of a gradient does to this step, and to those after it |

Of a search of `fo.es`: bytes of its state over 100 parameters; a generation (`ask` and `tell`, 64 members of 100 parameters, eager) over
that of `openai_es`; evaluations until the center is at a thousandth of the value of the start, from ones in 20 dimensions, "-" where that
takes over 20,000. By `python benchmarks/searches.py`, with the defaults and sigma 0.5. Every search runs under `torch.func.vmap` and in a
graph, and a member whose fitness is no number counts as the worst (`tests/es/test_search.py`).

The contract of the tests holds what is said of vmap, tracing and flat steps; memory and time are those of `python benchmarks/methods.py`
(MEASURED_WITH), with the settings of `tests/zoo.py`; [the page of bad numbers](../when-numbers-go-bad.md) has
infinities and losses, too."""


class Page(NamedTuple):
    """A page: its file, its title, what stands at the head of the code, and the names on it."""

    slug: str
    title: str
    head: str
    names: list[Public]
    family: str


def first_sentence(value: Any) -> str:
    """What a docstring says first; a tuple that has none is told by its fields."""
    text = sections(value)[""].strip()
    if re.match(r"\w+\(", text) and hasattr(value, "_fields"):
        return f"State with the fields {', '.join(f'`{name}`' for name in value._fields)}."
    return re.split(r"(?<=[.:;]) |\n\n", " ".join(text.split("\n\n")[0].split()) + " ")[0].rstrip(":;")


def pages() -> list[Page]:
    """All pages, by family and in the order of names."""
    found: dict[tuple[str, str], list[Public]] = {}
    for public in public_names():
        module = inspect.unwrap(public.value).__module__ if inspect.isfunction(public.value) else public.value.__module__
        found.setdefault((public.family, module if public.family not in ONE_PAGE else public.family), []).append(public)
    made = []
    for (family, module), names in found.items():
        if family in ONE_PAGE:
            head = inspect.getdoc(getattr(fo, family)) or ""
            made.append(Page(family, title_of(family), head, names, family))
            continue
        slug = module.rpartition(".")[2]
        functions = [public for public in names if inspect.isfunction(public.value)]
        same = [public for public in functions if public.name.rpartition(".")[2] == slug]
        title = ", ".join(f"`{public.name}`" for public in (same or functions or names)[:4])
        made.append(Page(f"{family}-{slug}", title, inspect.getdoc(sys.modules[module]) or "", names, family))
    order = list(TITLES)
    last = len(order)
    return sorted(made, key=lambda page: (order.index(page.family) if page.family in order else last, page.family, page.title.lower()))


def title_of(family: str) -> str:
    """What a part of the package is called on the first page; one without a line in TITLES by its name."""
    return TITLES.get(family, f"`fo.{family}`")


def prose(text: str) -> str:
    """The head of a file as MyST: paragraphs, formulas set, words safe from markup."""
    blocks: list[str] = []
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        if all(line.startswith("    ") for line in block.splitlines()):
            blocks.append(as_code(block) if is_code(block) else typeset(block))
        elif block.lstrip().startswith("|"):
            blocks.append(block)
        else:
            blocks.append(words(" ".join(line.strip() for line in block.splitlines())))
    return "\n\n".join(blocks)


def is_code(block: str) -> bool:
    return bool(re.search(r"\w+\.\w+\(|>>> |^\s+python |\w+\(params|^\s+(state|updates, state|search|population, state) +=", block, re.M))


def as_code(block: str) -> str:
    return "```text\n" + inspect.cleandoc("\n" + block) + "\n```"


@functools.cache
def after_bad_numbers() -> dict[str, tuple[str, ...]]:
    """Of each transformation what a NaN, an infinity, 1e30 and a NaN loss do, as the page of them tells it."""
    text = (ROOT / "docs" / "when-numbers-go-bad.md").read_text(encoding="utf-8")
    table = text.split("<!-- measured -->")[1].split("<!-- end of what is measured -->")[0]
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in table.splitlines() if line.startswith("|")]
    return {name: tuple(row[:4]) for row in rows[2:] for name in re.findall(r"`([^`]+)`", row[4])}


@functools.cache
def costs() -> dict[str, Any]:
    """What `benchmarks/methods.py` has measured: "with", and by name "rows" of bytes a parameter and the time beside AdamW."""
    return json.loads((ROOT / "docs" / "measured.json").read_text(encoding="utf-8"))


PROPERTIES = ("vmaps", "traces", "flat", "bytes of state a parameter", "time beside AdamW", "says", "after a NaN", "after 1e30")


def properties_of(public: Public) -> tuple[str, ...]:
    """What is measured of a transformation, in the order of PROPERTIES."""
    made = instance(public)
    says = ", ".join(f"`{word}`" for word in made.says) if made else ""
    effects = after_bad_numbers().get(public.name, after_bad_numbers().get(public.name.rpartition(".")[2], ("",) * 4))
    cost = costs()["rows"].get(public.name, {})
    held = (f"{cost['bytes']:.1f}".removesuffix(".0"), f"{cost['time']:.2g}") if cost else ("", "")
    return (*properties(public), *held, says, effects[0], effects[2])


def measured(names: list[Public]) -> str:
    """The table of what is measured: a column for each function that makes a transformation, so that a phone shows it, too."""
    columns = {public.name: properties_of(public) for public in names if public.makes_transformations}
    if not columns:
        return ""
    heads = f"| | {' | '.join(f'`{name}`' for name in columns)} |\n|---|{'---|' * len(columns)}\n"
    rows = "\n".join(
        f"| {head} | {' | '.join(cell or '-' for cell in cells)} |" for head, *cells in zip(PROPERTIES, *columns.values(), strict=True)
    )
    note = "What the words mean: [how to read this table](index.md#what-is-measured).\n"
    return "## Measured\n\n" + heads + rows + "\n\n" + note


@functools.cache
def searches() -> dict[str, dict[str, Any]]:
    """What `benchmarks/searches.py` has measured, by public name."""
    rows = json.loads((ROOT / "docs" / "searches.json").read_text(encoding="utf-8"))["rows"]
    return {f"es.{name}": row for name, row in rows.items()}


def measured_search(names: list[Public]) -> str:
    """The table of a search."""
    found = next((searches()[public.name] for public in names if public.name in searches()), None)
    if found is None:
        return ""
    needed = {f"evaluations, {objective}": found[objective] for objective in ("sphere", "ellipsoid")}
    cells = {
        "bytes of state a parameter": f"{found['bytes']:.4g}",
        "a generation beside openai_es": f"{found['time']:.2g}",
        **{head: "-" if count is None else f"{count:,}" for head, count in needed.items()},
    }
    rows = "\n".join(f"| {head} | {cell} |" for head, cell in cells.items())
    return f"## Measured\n\n| | |\n|---|---|\n{rows}\n\nWhat the words mean: [how to read this table](index.md#what-is-measured).\n"


def folded(line: str) -> list[str]:
    """A line of an example as lines that fit a page; what comes out stays.

    An input is broken behind commas of its brackets, and a remark stands above it.
    """
    found = re.match(r"( *)(>>>|\.\.\.) (.*)", line)
    if len(line) <= WIDTH or found is None:
        return [line]
    room = WIDTH - len(found[1]) - 4
    remark: list[str] = []
    breaks, depth = [], 0  # (depth, column) behind each comma that stands in brackets
    try:
        for token in tokenize.generate_tokens(io.StringIO(found[3].strip()).readline):
            depth += (token.string in "([{") - (token.string in ")]}") if token.type == tokenize.OP else 0
            if token.type == tokenize.OP and token.string == "," and depth:
                breaks.append((depth, token.end[1]))
            if token.type == tokenize.COMMENT and token.start[1]:
                remark = [token.string]
    except (tokenize.TokenError, IndentationError):  # goes on in the next line
        pass
    indent = len(found[3]) - len(found[3].lstrip())
    lines, begin, text = [], 0, found[3].strip()
    if remark:
        text = text.removesuffix(remark[0]).rstrip()
        remark = [f"{found[1]}{found[2]} {' ' * indent}{remark[0]}"]
    hanging = indent + 4
    while len(text) - begin > room - (hanging if lines else indent):
        here = [(depth, column) for depth, column in breaks if 0 < column - begin <= room - (hanging if lines else indent)]
        if not here:
            break
        end = max(column for depth, column in here if depth == min(depth for depth, _ in here))
        lines.append(text[begin:end])
        begin = end + (text[end : end + 1] == " ")
    lines.append(text[begin:])
    first = f"{found[1]}{found[2]} {' ' * indent}{lines[0]}"
    return [*remark, first, *(f"{found[1]}... {' ' * hanging}{part}" for part in lines[1:])]


def pictures(page: Page) -> str:
    """Those of the gallery that belong to a name on a page."""
    here = {public.name for public in page.names}
    found = [(name, shown) for name, shown in PICTURES.items() if here & set(shown.names)]
    return "\n\n".join(
        f"![{shown.title}](../gallery/{name}.png)\n\n{shown.sentence} (`python scripts/gallery.py {name}`; [more](../gallery.md).)"
        for name, shown in found
    )


def is_method(member: Any) -> bool:
    return (inspect.isfunction(member) or isinstance(member, (property, classmethod, staticmethod))) and bool(
        getattr(member, "__doc__", None)
    )


def entry(public: Public) -> str:
    """The directive that shows a name."""
    path = f"funcopt.{public.name}"
    if inspect.isclass(public.value):
        shim = issubclass(public.value, torch.optim.Optimizer) and public.name != "torch_optim.Optimizer"
        own = [] if shim else [name for name, member in vars(public.value).items() if not name.startswith("_") and is_method(member)]
        return f".. autoclass:: {path}\n" + (f"   :members: {', '.join(own)}\n" if own else "")
    return f".. autofunction:: {path}\n"


def render(page: Page) -> str:
    """A page as MyST."""
    functions = [public for public in page.names if not inspect.isclass(public.value)]
    classes = [public for public in page.names if inspect.isclass(public.value)]
    shims = [public for public in functions if public.family == "optimizers" and hasattr(fo.torch_optim, public.name)]
    parts = [f"# {page.title}", prose(page.head), measured(page.names), measured_search(page.names), pictures(page)]
    if shims:
        told = ", ".join(f"{{py:obj}}`fo.torch_optim.{public.name} <funcopt.torch_optim.{public.name}>`" for public in shims)
        parts.append(f"As a class of torch: {told}.")
    for public in [*functions, *classes]:
        parts.append(f"## `{public.name}`\n\n```{{eval-rst}}\n{entry(public)}```")
    return "\n\n".join(part for part in parts if part) + "\n"


def index(all_pages: list[Page]) -> str:
    """The first page: every name with a sentence, by family."""
    parts = [BEGINNING]
    for family in dict.fromkeys(page.family for page in all_pages):
        here = [page for page in all_pages if page.family == family]
        rows = [
            f"| {{py:obj}}`{public.name} <funcopt.{public.name}>` | {words(first_sentence(public.value))} |".replace("\n", " ")
            for page in here
            for public in page.names
            if not public.name.endswith("State")
        ]
        parts.append(f"## {title_of(family)}\n\n| | |\n|---|---|\n" + "\n".join(rows))
        parts.append("```{toctree}\n:hidden:\n:maxdepth: 1\n\n" + "\n".join(page.slug for page in here) + "\n```")
    parts.append(ENDING.replace("MEASURED_WITH", costs()["with"]))
    return "\n\n".join(parts) + "\n"


def write(out: Path = OUT) -> list[Path]:
    """Writes the pages; what is there and has not changed stays as it is, so that a second build is quick."""
    all_pages = pages()
    texts = {"index": index(all_pages)} | {page.slug: render(page) for page in all_pages}
    out.mkdir(parents=True, exist_ok=True)
    for stale in out.glob("*.md"):
        if stale.stem not in texts:
            stale.unlink()
    written = []
    for slug, text in texts.items():
        path = out / f"{slug}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
        written.append(path)
    return written


if __name__ == "__main__":
    print(f"{len(write())} pages in {OUT.relative_to(ROOT)}")
