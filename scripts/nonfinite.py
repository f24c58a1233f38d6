"""What one bad number does to each transformation, measured: the table of docs/when-numbers-go-bad.md and a line in each docstring.

    python scripts/nonfinite.py           measures every row of tests/zoo.py and compares
    python scripts/nonfinite.py --write   writes the table and the lines

A row takes BEFORE steps, one in which an entry of the gradient is NaN, infinite or 1e30 (or the
loss is NaN, where it is told one), and AFTER more. Params move by what is finite of each update,
so that what is seen later is remembered by the state and by nothing else.
"""

import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

import funcopt as fo
from funcopt.catalog.reading import sections
from tests.zoo import ROWS, Row

PAGE = Path(__file__).parents[1] / "docs" / "when-numbers-go-bad.md"
BEGIN, END = "<!-- measured -->\n", "<!-- end of what is measured -->\n"
BEFORE, AFTER, LAST = 3, 9, 4
BAD = {"NaN": torch.nan, "infinity": torch.inf, "1e30": 1e30}
KINDS = (*BAD, "NaN loss")
REACH = ("nothing", "the entry", "its leaf", "everything")
THIS = {"nothing": "nothing", "the entry": "that entry", "its leaf": "its leaf", "everything": "everything"}
# What they do is done by what is inside.
DEPENDS = set(
    """
    stateless stateless_with_tree_map chain named_chain scoped masked partition selective_transform lookahead flatten multi_steps
    conditionally_transform conditionally_mask cautious split_real_and_imaginary inject_hyperparams schedule_free adaptive aees
    es.only_selected torch_optim.from_torch project compress_state cast_params sam
""".split()
)
RANK = {"clean": 0, "again": 1, "frozen": 2, "stays": 3}


class Effect(NamedTuple):
    """What one bad number does: how much of the step of that call is not finite, and how it goes on."""

    now: str  # one of REACH
    later: str  # "clean"; "again": clean after some steps; "frozen": zero for ever; "stays": not finite for ever
    reach: str  # of what stays

    def __str__(self) -> str:
        after = {"clean": "clean", "again": "clean again", "frozen": f"{self.reach} at 0", "stays": f"{self.reach} for ever"}[self.later]
        return f"{self.now}; {after}"


def read(cell: str) -> Effect | None:
    """The effect that a cell of the table tells."""
    if not cell:
        return None
    now, after = cell.split("; ")
    for ending, later in ((" at 0", "frozen"), (" for ever", "stays")):
        if after.endswith(ending):
            return Effect(now, later, after.removesuffix(ending))
    return Effect(now, {"clean": "clean", "clean again": "again"}[after], REACH[0])


def params() -> dict[str, Tensor]:
    return {"b": torch.tensor([0.5, -0.25]), "s": torch.tensor(0.75), "w": torch.tensor([[0.5, -1.0], [0.25, 1.5]])}


def gradients(step: int, bad: float | None) -> dict[str, Tensor]:
    """Of either sign, never zero, and other ones in each step; the bad number in an entry of the matrix."""
    found = fo.tree.map(lambda p: torch.cos(2.3 * torch.arange(1.0, p.numel() + 1).reshape(p.shape) + 0.9 * step + p.dim()) + 0.3, params())
    if bad is not None:
        found["w"][0, 1] = bad
    return found


def told(row: Row, step: int, bad: bool) -> dict[str, Any]:
    extra = row.extra(step)
    return {**extra, "loss": torch.full_like(extra["loss"], torch.nan)} if bad and "loss" in extra else extra


def run(tx: fo.GradientTransformation, extra: Callable[[int], dict], gradient: Callable[[int], Any], steps: int) -> list[dict[str, Tensor]]:
    """The updates of a run; params move by what is finite of them, at a hundredth of their length."""
    p, history = params(), []
    state = tx.init(p)
    for step in range(steps):
        updates, state = tx.update(gradient(step), state, p, **extra(step))
        history.append(updates)
        p = fo.tree.map(lambda x, u: x + 0.01 * torch.where(u.isfinite(), u, 0).clamp(-10, 10).to(x.dtype), p, updates)
    return history


def _reach(marks: dict[str, Tensor]) -> str:
    entry, leaf = bool(marks["w"][0, 1]), bool(marks["w"].sum() - marks["w"][0, 1].to(torch.int64))
    rest = bool(marks["b"].any() | marks["s"])
    return REACH[3 if rest else 2 if leaf else 1 if entry else 0]


def measure(row: Row, kind: str) -> Effect | None:
    """What one bad number of a kind does to a row; None where the row is told no loss."""
    if kind == "NaN loss" and "loss" not in row.extra(BEFORE):
        return None
    well = run(row.make(), row.extra, lambda step: gradients(step, None), BEFORE + 1 + AFTER)
    bad = run(
        row.make(),
        lambda step: told(row, step, kind == "NaN loss" and step == BEFORE),
        lambda step: gradients(step, BAD[kind] if kind in BAD and step == BEFORE else None),
        BEFORE + 1 + AFTER,
    )
    broken = [_reach(fo.tree.map(lambda u: ~u.isfinite(), updates)) for updates in bad[BEFORE:]]
    if worst(broken[-LAST:]) != REACH[0]:
        return Effect(broken[0], "stays", worst(broken[-LAST:]))
    ours, theirs, before = (
        fo.tree.map(lambda *steps: torch.stack(steps).abs().amax(0), *steps) for steps in (bad[-LAST:], well[-LAST:], well[:BEFORE])
    )
    o, t, b = (max(leaf.max() for leaf in fo.tree.leaves(sizes)) for sizes in (ours, theirs, before))
    # All of it less than before the bad number too (a rate that grows more slowly after it is not frozen), or a part of it beside the rest.
    whole = o <= 0.01 * torch.minimum(t, b)
    still = _reach(fo.tree.map(lambda u, v: (v != 0) & (u <= 0.01 * v) & (whole | (u * t <= 0.01 * v * o)), ours, theirs))
    if still != REACH[0]:
        return Effect(broken[0], "frozen", still)
    return Effect(broken[0], "clean" if set(broken[1:]) <= {REACH[0]} else "again", REACH[0])


def worst(reaches: list[str]) -> str:
    return max(reaches, key=REACH.index)


def measured(rows: list[Row] = ROWS) -> dict[str, dict[str, Effect | None]]:
    """Of every row, by its label."""
    return {row.id: {kind: measure(row, kind) for kind in KINDS} for row in rows}


def table(found: dict[str, dict[str, Effect | None]]) -> str:
    """Rows that behave alike stand together; the gravest last."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for label, effects in found.items():
        groups.setdefault(tuple("" if effects[kind] is None else str(effects[kind]) for kind in KINDS), []).append(label)

    def gravity(cells: tuple[str, ...]) -> tuple:
        return sum(cell.endswith(("for ever", "at 0")) for cell in cells), cells

    lines = [f"| {' | '.join((*KINDS, 'of'))} |", "|" + "---|" * (len(KINDS) + 1)]
    lines += [
        f"| {' | '.join(cells)} | {', '.join(f'`{label}`' for label in sorted(groups[cells]))} |" for cells in sorted(groups, key=gravity)
    ]
    return "\n".join(lines) + "\n"


def sentence(effects: list[dict[str, Effect | None]], guard: bool = False) -> str:
    """What a docstring says, from the rows of one name: what the gravest of them does; of a guard, what it keeps out."""

    def gravity(effect: Effect) -> tuple:
        return RANK[effect.later], REACH.index(effect.reach)

    gravest = {kind: max((e[kind] for e in effects if e[kind] is not None), key=gravity, default=None) for kind in KINDS}
    nan, loss = gravest["NaN"], gravest["NaN loss"]
    now = {"nothing": "this step is finite", "everything": "this step is NaN"}.get(nan.now, f"{THIS[nan.now]} of this step is NaN")
    if nan.later == "stays" and nan.now == nan.reach:
        said = "this and every later step is NaN" if nan.now == "everything" else f"{THIS[nan.now]} of this and every later step is NaN"
    elif nan.later in ("stays", "frozen"):
        later = "every later one" if nan.reach == "everything" else f"{THIS[nan.reach]} of every later one"
        said = f"{now}, {later} is {'NaN' if nan.later == 'stays' else '0'}"
    else:
        said = f"{now}, {'the next is clean' if nan.later == 'clean' else 'later ones are clean again'}"
    said += "; guard with `apply_if_finite`." if nan.later in ("stays", "frozen") else "."
    left = [kind for kind in ("infinity", "1e30") if gravest[kind].later == "frozen"]
    if left and not guard:
        causes = " or ".join("an infinity" if kind == "infinity" else kind for kind in left)
        said += f" After {causes} {THIS[worst([gravest[kind].reach for kind in left])]} stays at 0; clip."
    if loss is not None:
        said += " A NaN loss passes." if loss.later in ("clean", "again") else " A NaN loss is never forgotten."
    return said[0].upper() + said[1:]


def sentences(found: dict[str, dict[str, Effect | None]]) -> dict[str, str]:
    """What the docstring of every public name that has rows says."""
    by_name: dict[str, list] = {}
    for row in ROWS:
        by_name.setdefault(row.name, []).append(found[row.id])
    inside = "What it is given decides; docs/when-numbers-go-bad.md has each."
    return {name: inside if name in DEPENDS else sentence(effects, guard=name == "apply_if_finite") for name, effects in by_name.items()}


def public(name: str) -> Any:
    thing: Any = fo
    for part in name.split("."):
        thing = getattr(thing, part)
    return thing


def said(name: str) -> str:
    """What the docstring of a public name says, in one line."""
    return " ".join(sections(public(name)).get("After a NaN", "").split())


LINE = re.compile(r"^( *)After a NaN:\n(?:\1    .*\n)+\n", re.M)
WIDE = 140


def write_line(name: str, line: str) -> None:
    """Puts the section before those on signals, errors and the example, or in the place of the one that is there."""
    file = Path(sys.modules[public(name).__module__].__file__)  # public functions stand behind a door of another file
    source = file.read_text()
    start = source.index('"""', source.index(f"\ndef {name.split('.')[-1]}("))
    end = source.index('"""', start + 3)
    cleared = LINE.sub("", source[start:end], count=1)
    at = re.search(r"^( *)(Signals|Cannot|Raises|Example):\n", cleared, re.M)
    if at is None:
        raise ValueError(f"{name}: has no section before which the line could stand")
    wrapped = textwrap.fill(line, WIDE, initial_indent=f"{at[1]}    ", subsequent_indent=f"{at[1]}    ")
    told = f"{cleared[: at.start()]}{at[1]}After a NaN:\n{wrapped}\n\n{cleared[at.start() :]}"
    file.write_text(source[:start] + told + source[end:])


def main() -> None:
    found = measured()
    text = PAGE.read_text() if PAGE.exists() else BEGIN + END
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    new = head + BEGIN + "\n" + table(found) + "\n" + END + tail
    if "--write" in sys.argv:
        PAGE.write_text(new)
        for name, line in sentences(found).items():
            if said(name) != line:
                write_line(name, line)
        return
    print(table(found))
    if new != text:
        raise SystemExit(f"{PAGE.name} is not what is measured; python scripts/nonfinite.py --write")


if __name__ == "__main__":
    main()
