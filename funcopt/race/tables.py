"""The tables of a race, as data, and set as text, Markdown or one HTML page."""

import base64
import html as escaped
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Table", "align", "html", "markdown", "of", "rows_of_markdown", "text"]


class Table(NamedTuple):
    """A sentence, rows of cells of which the first is the head, and what has to be known to read them."""

    title: str
    cells: list[list[str]]
    notes: tuple[str, ...] = ()


def of(race: Any) -> list[Table]:
    """Results of every optimizer, and the paired differences to the baseline where there are some."""
    rows = race.rows()
    results = [["", "train loss", "test loss", "train accuracy %", "test accuracy %", "ms / step", "diverged"]]
    for row in rows:
        name = row["optimizer"] + (f" (to step {row['steps']})" if row["steps"] < race.steps else "")
        losses = [mean_std(row[measure], "{:.4f}") for measure in ("train_loss", "test_loss")]
        accuracies = [mean_std(row[measure], "{:.2f}", 100) for measure in ("train_accuracy", "test_accuracy")]
        results.append([name, *losses, *accuracies, f"{row['ms_per_step']:.3f}", f"{row['diverged']} of {len(race.seeds)}"])
    against = [["", "test accuracy, points", "p", "test loss", "p"]]
    for row in rows:
        if "against_baseline" in row:
            accuracy, loss = (row["against_baseline"][measure] for measure in ("test_accuracy", "test_loss"))
            against.append([row["optimizer"], *difference(accuracy, "{:+.2f}", 100), *difference(loss, "{:+.4f}")])
    notes = ["ms / step: processor time per step and seed, all seeds in one vmapped step."]
    if any(row["diverged"] for row in rows):
        notes.append("A seed has diverged when its loss is not finite or ten times the first; it leaves the means.")
    found = [Table(f"{race.task}: {race.steps} steps of {race.batch_size}, {len(race.seeds)} seeds; mean ± std over seeds", results)]
    if len(against) > 1:
        title = f"against {race.baseline}, paired by seed: mean difference [95 % interval], p of the paired t-test (not corrected)"
        found.append(Table(title, against))
    found[-1] = found[-1]._replace(notes=tuple(notes))
    return found


def text(found: Sequence[Table]) -> str:
    """For a terminal."""
    return "\n\n".join("\n".join([table.title, *align(table.cells), *(("", *table.notes) if table.notes else ())]) for table in found)


def markdown(found: Sequence[Table], picture: str | None = None) -> str:
    """For a page; `picture` as seen from there."""
    parts = ["\n".join([f"{table.title}\n", *rows_of_markdown(table.cells), *(f"\n{note}" for note in table.notes)]) for table in found]
    return "\n\n".join(parts + ([f"![the race]({picture})"] if picture else [])) + "\n"


def rows_of_markdown(cells: Sequence[Sequence[str]]) -> list[str]:
    """A table of Markdown: the first row is the head, the first column stands to the left."""
    head, *rows = cells
    return [f"| {' | '.join(row)} |" for row in (head, ["---", *["---:"] * (len(head) - 1)], *rows)]


def html(found: Sequence[Table], picture: Path | None = None) -> str:
    """One page with everything in it."""
    parts = ["<!doctype html><meta charset=utf-8><title>race</title>"]
    parts.append(
        "<style>body{font:15px sans-serif;margin:2em}td,th{padding:.2em "
        ".8em;text-align:right}td:first-child{text-align:left}img{max-width:100%}</style>"
    )
    for table in found:
        parts.append(f"<p>{escaped.escape(table.title)}</p><table>")
        for i, row in enumerate(table.cells):
            tag = "td" if i else "th"
            parts.append("<tr>" + "".join(f"<{tag}>{escaped.escape(cell)}</{tag}>" for cell in row) + "</tr>")
        parts.append("</table>" + "".join(f"<p>{escaped.escape(note)}</p>" for note in table.notes))
    if picture is not None:
        parts.append(f'<img alt="the race" src="data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}">')
    return "\n".join(parts) + "\n"


def mean_std(values: dict[str, float], form: str, factor: float = 1.0) -> str:
    if values["n"] == 0:
        return "-"
    mean = form.format(factor * values["mean"])
    return mean if values["n"] < 2 else f"{mean} ± {form.format(factor * values['std'])}"


def difference(values: dict[str, float], form: str, factor: float = 1.0) -> tuple[str, str]:
    if values["n"] == 0:
        return "-", "-"
    mean = form.format(factor * values["mean"])
    if values["n"] < 2:
        return mean, "-"
    p = "< 0.001" if values["p"] < 0.001 else f"{values['p']:.3f}"
    return f"{mean} [{form.format(factor * values['low'])}, {form.format(factor * values['high'])}]", p


def align(cells: list[list[str]]) -> list[str]:
    """Rows of equal columns; names to the left, everything else to the right."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in cells
    ]
