"""`docs/evidence.md`, and the lines that the command prints, made of the results and of nothing else."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from funcopt.race.evidence import figures, store, tables, verdicts
from funcopt.race.evidence.claims import CLAIMS
from funcopt.race.evidence.methods import OURS_DECAYS, START
from funcopt.race.evidence.protocol import LOOKS, plans
from funcopt.race.evidence.verdicts import Verdict
from funcopt.race.report import write as write_text
from funcopt.race.tables import align, rows_of_markdown

__all__ = ["read", "summary", "text", "write"]

FORMS = ("short", "long")
HEAD = """# Evidence

What the rate that finds itself reaches against optimizers with tuned rates, on {tasks} tasks, whichever way it points. This page is made by
`python -m funcopt race evidence --page` of the results in `docs/evidence`, and these by

    {command}

in its {form} form: {seeds}; rates picked on {tuning} other ones; {versions}; {minutes} minutes of
processor time.{other}

## How it is compared

- **Tasks** are those of [the race](race.md), each with data for training, for validation and for the test. `-2` is a batch of 2 rows; a
  row of `characters` is 24 predictions. The measure is the error where the table says so, else the loss; it was chosen before anything
  was run: where few rows are wrong, an error is a handful.
- **Rates** of tuned methods: the best of seven half decades, 1e-4 to 1e-1, in the mean of the tuning seeds on the validation data; the
  same for everybody. `*`: it lies at the edge of these. **No rate was chosen on the seeds that are reported.** {settings}
- **The bar** is the better, on the test seeds, of AdamW at a constant rate and AdamW with a warm-up of 5 % and a cosine over the known
  length of the run.
- **Excess**: by how many per cent the mean is above that of the bar, with the 95 % interval of the paired seeds
  (`funcopt/race/statistics.py`). Negative is ahead. A seed that diverged makes it infinite.
- **Two endings**: the *step picked* on validation, for every method alike, of {looks} looks; and the *end* of the run. Beside them the
  loss of the batches in training.
- `rate_free` has one setting for all tasks, its default: NAdamW's direction from {start:g}, `b2` of 0.995 where gradients are noise, down
  to 0.9 where the search says that they are sure, gradients of at most three times the mean length of late, a decay of 0.2, or less by
  the `decay_share` that the search says; `rate_free(adamw)` has AdamW's own settings and is without `hurry`. AdamW decays by 0.01
  everywhere, and so does the bar; `{ours_decays}` has the decay of `rate_free`.
- `x+find` is the method x behind `find_rate`, averaged, from 1e-6; `sentence+find` has the search, bound, decay and the `b2` for noise of
  `rate_free`, two members (Adam with Nesterov's step, and with b1 = 0.8) and arms of 0.9, 1 and 1.1, for all tasks. Rivals are as their
  authors set them: Prodigy and D-adaptation at a factor of 1, Mechanic around AdamW at 1, DoG with its average, schedule-free AdamW at
  0.0025."""
SETTINGS = {
    "short": """The settings of
  `rate_free` were chosen on others (`benchmarks/rate_variants.py`), after earlier settings had been seen on these and on
  those [further down](#longer-on-ten-other-seeds).""",
    "long": """The settings of
  `rate_free` were chosen on others (`benchmarks/rate_variants.py`), after earlier settings had been seen on these.""",
}
OTHER = """ The long form, ten seeds, full lengths, every method at every rate and the transformer of
826,112 params, is one command: `make evidence ARGS=--long`."""
Tasks = Mapping[str, Mapping[str, Any]]


def summary(tasks: Tasks, found: Sequence[Verdict]) -> str:
    """For a terminal: the excess over the bar, then E1 to E4."""
    lines = []
    for ending in ("picked", "end"):
        lines += [
            f"excess over the bar in %, {tables.WORDS[ending]}: mean [95 % interval]; the bar is the better AdamW, constant or cosine"
        ]
        lines += [*align(tables.starts(tasks, ending)), ""]
    for verdict in found:
        lines += [f"{verdict.name}: {state(verdict)}. Asked: {verdict.asked}", *(f"    {line}" for line in verdict.told)]
    return "\n".join(lines)


def state(verdict: Verdict) -> str:
    return "not all of it was run" if verdict.reached is None else "reached" if verdict.reached else "NOT reached"


def read(folder: Path) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]], dict[str, Any] | None]:
    """Results of the short and of the long form, and the cost, of a folder."""
    short, long = (store.written(folder / form, list(plans(form))) for form in FORMS)
    return short, long, store.read(folder / store.COST)


def write(docs: Path) -> list[Path]:
    """Makes the page and its pictures in `docs` of what is in `docs/evidence`.

    Raises:
        ValueError: there are no results.
    """
    folder = docs / "evidence"
    short, long, cost = read(folder)
    if not (short or long):
        raise ValueError(f"evidence: needs results in {folder / 'short'} or {folder / 'long'}; run the command with --out {folder}")
    written = [write_text(docs / "evidence.md", text(short, long, cost))]
    tasks = short or long
    written += [figures.rates(tasks, folder / "rates.svg"), figures.curves(tasks, folder / "curves.svg")]
    return written


def text(short: Tasks, long: Tasks, cost: Mapping[str, Any] | None) -> str:
    """The page."""
    tasks, form = (short, "short") if short else (long, "long")
    found = verdicts.of(tasks, cost, len(plans(form)))
    parts = [
        _head(tasks, form),
        _verdicts(found),
        _rates(tasks),
        _others(tasks),
        _controllers(tasks),
        _time(tasks),
        _longer(short, long),
        _claims(tasks),
        _cost(cost),
    ]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def _head(tasks: Tasks, form: str) -> str:
    first = next(iter(tasks.values()))
    command = "make evidence" if form == "short" else "make evidence ARGS=--long"
    versions = ", ".join(f"{name} {value}" for name, value in first["versions"].items() if name in ("torch", "python"))
    seconds = sum(result["seconds"] for task in tasks.values() for result in task["methods"].values())
    other = "" if form == "long" else OTHER
    return HEAD.format(
        tasks=len(tasks),
        command=command,
        form=form,
        seeds=f"{len(first['seeds'])} seeds ({first['seeds'][0]} to {first['seeds'][-1]}), paired",
        tuning=len(first["tuning_seeds"]),
        versions=versions,
        minutes=f"{seconds / 60:.0f}",
        other=other,
        settings=SETTINGS[form],
        looks=LOOKS,
        start=START,
        ours_decays=OURS_DECAYS,
    )


def _verdicts(found: Sequence[Verdict]) -> str:
    lines = ["## What was to be reached", ""]
    for verdict in found:
        lines += [f"- **{verdict.name}: {state(verdict)}.** Asked: {verdict.asked}."]
        lines += [f"  - {line}" for line in verdict.told]
    return "\n".join(lines)


def _rates(tasks: Tasks) -> str:
    lines = ["## From every start", "", "![test measure against the rate, or the start, for every task](evidence/rates.svg)", ""]
    lines += [
        "Black: AdamW at a constant rate; blue: `rate_free` from a start; dots: the bar. The step picked on validation; "
        "bands reach from the lowest"
    ]
    lines += ["to the highest seed.", ""]
    for ending in ("picked", "end"):
        lines += [
            f"Excess of `rate_free` over the bar in per cent, {tables.WORDS[ending]}:",
            "",
            *rows_of_markdown(tables.starts(tasks, ending)),
            "",
        ]
    lines += [
        "Training beside it: mean loss of the batches before the step picked, and of the last ones.",
        "",
        *rows_of_markdown(tables.training(tasks)),
        "",
    ]
    lines += ["![test measure over the run, for every task](evidence/curves.svg)"]
    return "\n".join(lines)


def _others(tasks: Tasks) -> str:
    lines = [
        "## Beside methods that find a rate",
        "",
        "Excess over the same bar in per cent, step picked on validation, then end of the run.",
        "",
    ]
    for ending in ("picked", "end"):
        lines += [*rows_of_markdown(tables.methods(tasks, tables.FREE, ending)), ""]
    return "\n".join(lines)


def _controllers(tasks: Tasks) -> str:
    lines = [
        "## Controllers",
        "",
        "Excess over AdamW at its tuned *constant* rate in per cent, step picked on validation, then end of the run.",
        "",
    ]
    for ending in ("picked", "end"):
        lines += [*rows_of_markdown(tables.methods(tasks, tables.CONTROLLERS, ending, "adamw")), ""]
    return "\n".join(lines)


def _time(tasks: Tasks) -> str:
    head = "Median steps until the test measure is what the bar ends at, and how many seeds get there; looked at twenty times a run."
    return "\n".join(["## Time to target", "", head, "", *rows_of_markdown(tables.times(tasks))])


def _longer(short: Tasks, long: Tasks) -> str:
    """What is there of the long form beside the short one."""
    if not (short and long):
        return ""
    first = next(iter(long.values()))
    missing = [key for key in plans("long") if key not in long]
    seconds = sum(result["seconds"] for task in long.values() for result in task["methods"].values())
    lengths = ", ".join(f"{task['steps']:,} ({key})" for key, task in long.items() if task["steps"] != short[key]["steps"])
    told = (
        f"The long form, as far as it was run: {len(first['seeds'])} seeds ({first['seeds'][0]} to {first['seeds'][-1]}), on which no "
        f"setting was chosen, though earlier ones had been seen there; at every rate {'; '.join(first['methods'])}. {seconds / 60:.0f} "
        f"minutes of processor time. Steps where they are more: {lengths}. Tasks that were not run: {'; '.join(missing) or 'none'}."
    )
    found = [verdict for verdict in verdicts.of(long, None, len(long)) if verdict.told != ["not run"]]
    lines = ["## Longer, on ten other seeds", "", *textwrap.wrap(told, 135, break_long_words=False), ""]
    for verdict in found:
        lines += [f"- **{verdict.name}: {state(verdict)}**, on these tasks.", *(f"  - {line}" for line in verdict.told)]
    for ending in ("picked", "end"):
        head = f"Excess of `rate_free` over the bar in per cent, {tables.WORDS[ending]}:"
        lines += ["", head, "", *rows_of_markdown(tables.starts(long, ending))]
    lines += ["", "Beside methods that find a rate, over the same bar, then controllers over AdamW at its tuned constant rate:"]
    lines += ["", *rows_of_markdown(tables.methods(long, tables.FREE, "picked"))]
    lines += ["", *rows_of_markdown(tables.methods(long, tables.CONTROLLERS, "picked", "adamw"))]
    return "\n".join(lines)


def _claims(tasks: Tasks) -> str:
    lines = [
        "## What the sources claim",
        "",
        "Each in a line, and what the same method came to on the tasks of this page, against AdamW at its tuned constant rate.",
    ]
    for claim in CLAIMS:
        lines += ["", f"**{claim.source}.** {claim.claim[0].upper()}{claim.claim[1:]}."]
        told = [_came_to(tasks, method) for method in claim.methods if any(method in task["methods"] for task in tasks.values())]
        lines += [f"Here: {'; '.join(told) if told else 'not a part of this page'}."]
        if claim.own:
            lines += [f"Its own setting, on data that are yours: `{claim.own}` ([how](race.md#the-sources-own-settings)); not run here."]
    return "\n".join(lines)


def _came_to(tasks: Tasks, method: str) -> str:
    found = [verdicts.against(task, method, "picked", "adamw") for task in tasks.values() if method in task["methods"]]
    ahead, sure = sum(each.mean < 0 for each in found), sum(each.high < 0 for each in found)
    behind, lost = sum(each.mean > 0 for each in found), sum(each.mean > 0 and not each.low <= 0 for each in found)
    middle = sorted(each.mean for each in found)[len(found) // 2]
    middle = tables.percent(middle)
    counts = f"ahead on {ahead} of {len(found)} tasks ({sure} beyond noise), behind on {behind} ({lost} beyond noise)"
    return f"{method}: {counts}, in the middle {middle} %"


def _cost(cost: Mapping[str, Any] | None) -> str:
    if cost is None:
        return ""
    row = cost["rows"]["rate"]
    cells = [["", "ms", "of AdamW"]]
    base = row["medians"]["adamw"]
    cells += [[name, f"{1e3 * value:.1f}", f"{value / base:.3f}"] for name, value in row["medians"].items()]
    lines = [
        "## Cost",
        "",
        f"A compiled step at {row['entries']:,} parameters, `python benchmarks/controllers.py rate`; {cost['with'].strip()}",
        "",
    ]
    floor = (
        "By bytes the search asks for 12 numbers an entry where AdamW asks for 7, 1.71 times, and the average for 14, 2.00 times "
        "([why](methods/rate.md#cost)). `three sums` is one pass over gradient, params and where they have been, "
        "without which no step is sized."
    )
    return "\n".join([*lines, *rows_of_markdown(cells), "", floor])
