"""Sphinx: pages are markdown; code cells run when the documentation is built, and one that fails stops the build.

The reference, `docs/api`, is written by `scripts/pages.py` when the build begins. Nothing is fetched: mathematics
becomes MathML here, and the inventories of Python and torch are asked for with FUNCOPT_DOCS_ONLINE=1 alone.
"""

import ast
import functools
import inspect
import os
import re
import sys
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import funcopt
from scripts import formulas, pages

project = "funcopt"
author = "The funcopt authors"
copyright = author
version = release = funcopt.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx.ext.intersphinx"]
online = os.environ.get("FUNCOPT_DOCS_ONLINE") == "1"
intersphinx_mapping = (
    {"python": ("https://docs.python.org/3", None), "torch": ("https://docs.pytorch.org/docs/stable", None)} if online else {}
)

exclude_patterns = ["_build", "jupyter_execute", ".jupyter_cache"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 120  # seconds

html_theme = "furo"
html_title = "funcopt"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_math_renderer = "mathml"
default_role = "py:obj"  # `name` in a docstring links to what is public, and is code where nothing is
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 90
napoleon_custom_sections = [("Signals", "notes_style"), ("Cannot", "notes_style"), ("After a NaN", "notes_style")]
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_use_rtype = False


# --- mathematics ----------------------------------------------------------------------------------------------------------------


BARS = ("<mo>&#x0007C;</mo>", "<mo>&#x02016;</mo>")  # of sizes and of norms


def mathml(text: str, display: str) -> str:
    """A formula as MathML; of bars that come in pairs, each opens or closes, and stands close to what it encloses."""
    made = convert(text, display=display)
    for bar in BARS:
        pairs = made.count(bar) // 2 if made.count(bar) % 2 == 0 else 0
        for form in ("prefix", "postfix") * pairs:
            made = made.replace(bar, bar.replace("<mo>", f'<mo form="{form}" stretchy="false">'), 1)
    return made


def inline_math(self, node) -> None:
    self.body.append(mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def display_math(self, node) -> None:
    self.body.append(f'<div class="recurrence">{mathml(node.astext(), "block")}</div>')
    raise nodes.SkipNode


# --- docstrings -----------------------------------------------------------------------------------------------------------------

ENTRY = re.compile(r"^( {4,})(\*{0,2}\w+(?:, \*{0,2}\w+)*|\w+(?:, \w+)*): ")
SECTION = re.compile(r"^(Args|Returns|Raises|Signals|Cannot|After a NaN|Example|Attributes):$")


def safe(text: str) -> str:
    """A line of a docstring with nothing in it that reStructuredText would read as markup, but for `names`."""
    out = []
    for index, part in enumerate(re.split(r"(`[^`]+`)", text)):
        joint = "\\ " if index and index % 2 == 0 and re.match(r"\w", part) else ""  # `Parameter`s
        out.append(part if index % 2 else joint + re.sub(r"([\\*|_])", r"\\\1", part))
    return "".join(out)


def as_rst(app, what, name, value, options, given) -> None:
    """Docstrings are written for a terminal: here their formulas become blocks, and their words safe."""
    if hasattr(value, "_fields") and given and re.match(r"\w+\(", given[0]) and len(given) <= 2:
        given[:] = [pages.first_sentence(value), ""]
    if any(
        re.match(r" {4}(Args|Example):$", line) for line in given
    ):  # the docstring of a class of torch begins with a sentence of its own
        given[:] = [line[4:] if line.startswith("    ") else line for line in given]
    out, section, code = [], "", False
    text = "\n".join(given)
    head, mark, example = text.partition("\nExample:\n")
    spans = head.split("`")  # of which every second one is code, which must not run over the end of a line
    head = "`".join(" ".join(span.split()) if index % 2 and "\n" in span else span for index, span in enumerate(spans))
    lines = head.split("\n") + (mark + example).split("\n")[1:]
    for line in lines:
        if SECTION.match(line):
            section, code = line[:-1], False
            out.append(line)
        elif section == "Example" or line.lstrip().startswith((">>>", "...")):
            out += pages.folded(line)
        elif not section and line.startswith("    "):
            out += ([] if code else ["", "::", ""]) + [line]
            code = True
        elif not line.strip():
            out.append(line)
        else:
            if code:
                out.append("")
            code = False
            entry = ENTRY.match(line) if section in ("Args", "Attributes", "Raises") else None
            out.append(line[: entry.end()] + safe(line[entry.end() :]) if entry else safe(line))
    given[:] = out


def fields(app, what, name, value, options, lines) -> None:
    """Behind the docstring of a tuple or dataclass its fields, as the comments on their lines explain them."""
    names = getattr(value, "_fields", None) or tuple(getattr(value, "__dataclass_fields__", ()))
    if what != "class" or not names:
        return
    try:
        source = inspect.getsource(value)
    except (OSError, TypeError):
        return
    for field in names:
        match = re.search(rf"^    {field}: ([^=#\n]+?)(?:\s*=\s*[^#\n]+?)?(?:\s+#\s*(.*))?$", source, re.M)
        if match:
            lines += ["", f"* **{field}** (``{match[1].strip()}``){': ' + safe(match[2]) if match[2] else ''}"]
    lines.append("")


@functools.cache
def parsed(file: str) -> ast.Module:
    return ast.parse(Path(file).read_text(encoding="utf-8"))


def written(function) -> dict[str, str]:
    """Annotations as they are written: `TensorTree` says more than what it stands for."""
    try:
        file = inspect.getsourcefile(function) or ""
        nodes_ = [node for node in ast.walk(parsed(file)) if isinstance(node, ast.FunctionDef) and node.name == function.__name__]
        node = next(node for node in nodes_ if abs(node.lineno - function.__code__.co_firstlineno) <= len(node.decorator_list))
    except (AttributeError, OSError, StopIteration, TypeError):
        return {}
    told = node.args
    every = [*told.posonlyargs, *told.args, *told.kwonlyargs, *(arg for arg in (told.vararg, told.kwarg) if arg)]
    found = {arg.arg: ast.unparse(arg.annotation) for arg in every if arg.annotation is not None}
    return found | ({"return": ast.unparse(node.returns)} if node.returns is not None else {})


def signature(app, what, name, value, options, text, returns):
    """As it is written, with the names of types that the code uses."""
    if what not in ("function", "method", "class"):
        return None
    function = inspect.unwrap(value) if not inspect.isclass(value) else value
    try:
        bound = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    kinds = written(function if not inspect.isclass(function) else inspect.unwrap(function.__init__))
    shown, star = [], False
    for p in (p for p in bound.parameters.values() if p.name not in ("self", "cls")):
        if p.kind is p.KEYWORD_ONLY and not star:
            shown.append("*")
        star = star or p.kind in (p.VAR_POSITIONAL, p.KEYWORD_ONLY)
        kind = kinds.get(p.name) or ("" if p.annotation is p.empty else type_name(p.annotation))
        default = "" if p.default is p.empty else f" = {value_name(p.default)}" if kind else f"={value_name(p.default)}"
        shown.append({p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "") + p.name + (f": {kind}" if kind else "") + default)
    back = kinds.get("return") or (None if bound.return_annotation is bound.empty else type_name(bound.return_annotation))
    return f"({', '.join(shown)})", None if what == "class" else (back or "").strip("'\"") or None


def type_name(annotation) -> str:
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"\b(?:funcopt|collections|typing|pathlib|os|numpy)(?:\.\w+)*\.(?=\w)|torch\.(?=Tensor)|~", "", text)


def value_name(value) -> str:
    return value.__name__ if callable(value) and hasattr(value, "__name__") else repr(value)


# --- pages ----------------------------------------------------------------------------------------------------------------------


def as_page(app, docname, source) -> None:
    """Sets the recurrence of a page of a method as those of the heads of files are set; an example ends with its last line."""
    source[0] = source[0].replace("\n\n```\n", "\n```\n")
    source[0] = "\n".join(
        part for line in source[0].split("\n") for part in (pages.folded(line) if line.startswith((">>> ", "... ")) else [line])
    )
    if docname.startswith("methods/") and "## The recurrence" in source[0]:
        before, rest = source[0].split("## The recurrence", 1)
        cut = re.search(r"^## ", rest, re.M)
        part, after = (rest[: cut.start()], rest[cut.start() :]) if cut else (rest, "")
        part = re.sub(r"(?:^ {4}.*\n(?:\s*\n(?= {4}))?)+", lambda block: "\n" + formulas.typeset(block[0]) + "\n", part, flags=re.M)
        source[0] = before + "## The recurrence" + part + after


def setup(app) -> None:
    app.add_html_math_renderer("mathml", (inline_math, None), (display_math, None))
    app.connect("builder-inited", lambda app: pages.write(Path(app.srcdir) / "api"))
    app.connect("autodoc-process-docstring", as_rst, priority=400)
    app.connect("autodoc-process-docstring", fields, priority=900)
    app.connect("autodoc-process-signature", signature)
    app.connect("source-read", as_page)
