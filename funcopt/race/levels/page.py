"""What came out as text: the lines of the command, and `docs/levels.md` from `docs/levels.json`."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from funcopt.race.levels.kind import LEVELS

__all__ = ["as_json", "beside", "cell", "page", "total"]

Found = Mapping[str, Any]  # what levels.json holds; results: optimizer -> kind -> per level [seeds that solved it, rate, steps]
OPEN = "·"
FINDING = ("rate_free", "prodigy", "dog", "dowg")  # their rate themselves
AS_IT_IS = ("rate_free", "prodigy", "dadapt_adamw", "dog", "dowg", "cocob", "polyak_sgd")  # are given none


def solved(found: Found, method: str, kind: str) -> list[bool]:
    """Per level: whether every seed solved it at one rate."""
    return [seeds == found["seeds"] for seeds, _, _ in found["results"][method][kind]]


def cell(found: Found, method: str, kind: str) -> str:
    """The initials of the levels that were solved: "TE··" for trivial and easy."""
    return "".join(level[0].upper() if yes else OPEN for level, yes in zip(LEVELS, solved(found, method, kind), strict=False))


def total(found: Found, method: str) -> int:
    return sum(sum(solved(found, method, kind)) for kind in found["results"][method])


def beside(found: Found) -> Iterator[tuple[str, str, str, str, int, int]]:
    """Where ours and the class of torch.optim of the same name differ: ours, theirs, kind, level, seeds of ours, seeds of theirs."""
    for ours, theirs in found["of_torch"].items():
        for kind in found["kinds"]:
            rows = zip(LEVELS, found["results"][ours][kind], found["results"][theirs][kind], strict=False)
            for level, (mine, *_), (other, *_) in rows:
                if (mine == found["seeds"]) != (other == found["seeds"]):
                    yield ours, theirs, kind, level, mine, other


def as_json(found: Found) -> str:
    """The whole of it, a kind and an optimizer a line."""
    parts = []
    for key, value in found.items():
        rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in value.items()) if isinstance(value, dict) else ""
        parts.append(f" {json.dumps(key)}: {{\n{rows}\n }}" if rows else f" {json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def differences(found: Found) -> str:
    """Ours beside torch's, in sentences."""
    if not found["of_torch"]:
        return "No class of torch.optim ran beside ours of the same name."
    lines = [
        f"- {kind}, {level}: `{ours}` {mine} of {found['seeds']} seeds, `{theirs}` {other}"
        for ours, theirs, kind, level, mine, other in beside(found)
    ]
    trivial = [row for row in beside(found) if row[3] == LEVELS[0] and row[4] < row[5]]
    verdict = f"Trivial levels that a class of torch.optim solves and ours of the same name does not: {len(trivial) or 'none'}."
    if not lines:
        return f"{verdict} Of the other levels, too, both solve the same."
    reason = (
        "Defaults differ where ours are optax's: NAdam's momentum, RMSprop's decay, Adagrad's first accumulator, "
        "the sizes of Adafactor's and Muon's steps."
    )
    return "\n".join([f"{verdict} Where only one of the two solves a level, with the seeds that did:", "", *lines, "", reason])


CENTRED = """`ranger` and `ranger21` take the mean of each row out of the gradient of a matrix, and `nero` keeps rows at a mean of zero and
a length of one: where the params are a matrix of 4 by 4 they cannot reach points whose rows are others."""


def without_a_rate(found: Found) -> str:
    """How many levels those solve that nobody chose a rate for, beside AdamW at the best rate of each level."""
    counts = [f"`{name}` {total(found, name)}" for name in FINDING if name in found["results"]]
    if not counts or "adamw" not in found["results"]:
        return ""
    levels = sum(len(kind["levels"]) for kind in found["kinds"].values())
    best = f"`adamw`, with the best of {len(found['rates'])} rates for each, {total(found, 'adamw')}"
    return f"Of {levels} levels, with one setting for all of them: {', '.join(counts)}; {best}."


def page(found: Found) -> str:
    """The page of the documentation."""
    levels = LEVELS[: len(next(iter(found["kinds"].values()))["levels"])]
    kinds = [
        "| kind | what it is | difficulty | " + " | ".join(levels) + " | solved at |",
        "|---|---|---|" + "---:|" * (len(levels) + 1),
        *(
            f"| {name} | {kind['about']} | {kind['number']} | "
            + " | ".join(f"{level:g}" for level in kind["levels"])
            + f" | {kind['target']:g} |"
            for name, kind in found["kinds"].items()
        ),
    ]
    results = [
        "| | " + " | ".join(found["kinds"]) + " | levels |",
        "|---|" + "---|" * len(found["kinds"]) + "---:|",
        *(
            f"| {f'`{name}`'} | " + " | ".join(cell(found, name, kind) for kind in found["kinds"]) + f" | {total(found, name)} |"
            for name in found["results"]
        ),
    ]
    rates = found["rates"]
    as_it_is = ", ".join(f"`{name}`" for name in AS_IT_IS)
    setup = f"""Each level has {found["steps"]} steps, {found["seeds"]} seeds (start and noise), and for whoever takes a rate {len(rates)}
of them, the same for all, from {rates[0]:g} to {rates[-1]:g}, two a decade; the rate at which most seeds solve the level counts. No
weight decay, but 0.01 for `pilot`, `aees`, `adaptive` and `sentence`, which are those of the race; all else as each optimizer has it by
itself. What finds its rate ({as_it_is}) runs as it is,
from its own start; where a method averages its params the average is looked at. Solved: the
objective without noise is at or below the number in the last column at one of
{found["looks"]} looks, for every seed at one rate. Made with torch {found["torch"]}."""
    return "\n".join(
        [
            "# Levels of difficulty",
            "",
            "    python -m funcopt race levels             # the first two levels, ten optimizers: a minute or two",
            "    python -m funcopt race levels --long      # everything; --out docs writes this page and its numbers, docs/levels.json",
            "",
            "An optimizer that is wrong seldom raises an error: it ends a little higher, "
            "and a curve that falls looks like success. Small problems with "
            "one",
            "known weakness each, harder by one number, tell who gets stuck on what. The idea and the kinds are those of LightBench, "
            "the suite "
            "that",
            "[HeavyBall](https://github.com/HomebrewML/HeavyBall) is tested with; "
            "the functions are ours (`funcopt/race/levels`, a file a kind).",
            "",
            *kinds,
            "",
            setup,
            "",
            "## Solved",
            "",
            "T, E, M, H: trivial, easy, medium, hard; a dot where not every seed got there. The last column counts.",
            "",
            *results,
            "",
            *([CENTRED, ""] if {"ranger", "ranger21", "nero"} & set(found["results"]) else []),
            *([without_a_rate(found), ""] if without_a_rate(found) else []),
            "## Beside torch.optim",
            "",
            differences(found),
            "",
        ]
    )
