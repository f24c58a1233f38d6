"""E1 to E4: what has to be reached, and whether it is.

E1  `rate_free()` from its default start is ahead of the bar on nine of ten tasks, with the step picked, and nowhere more than 2 %
    behind; from each of 1e-7 ... 1e-3 never more than 2 % (5 % at batches of 1, 2 and 512), and from 1e-2 at the others
E2  it is ahead of each rival on eight of ten
E3  the sentence, with one setting for all tasks, is on none significantly worse than AdamW at its tuned constant rate, and better on half
E4  a compiled step costs at most so many times AdamW's (benchmarks/controllers.py)
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from funcopt.race.evidence.methods import BAR, RIVALS
from funcopt.race.evidence.protocol import ENDINGS
from funcopt.race.statistics import Paired, excess, steps_to

__all__ = ["Verdict", "against", "bar", "of", "target", "values"]

OURS, SENTENCE = "rate_free", "sentence+find"
HELD = 1.05  # times the step of AdamW, at most; while searching 1.10, which follows
LAST_START = 1e-2  # from which it is held to the bar at usual batches alone


class Verdict(NamedTuple):
    name: str
    asked: str
    reached: bool | None  # None: not all tasks have been run, or not all methods
    told: list[str]  # what came out, sentence by sentence


def values(task: Mapping[str, Any], method: str, ending: str, rate: int | None = None, word: str = "test") -> list[float]:
    """One number a seed; at the rate that was picked for this ending, or at the one of that index. NaN where a run did not end."""
    result = task["methods"][method]
    row = result[word][ending][result["picks"][ending] if rate is None else rate]
    return [math.nan if x is None else x for x in row]


def bar(task: Mapping[str, Any], ending: str) -> str:
    """Which of the two is the bar: the better in the mean of the test seeds."""

    def mean(method: str) -> float:
        found = values(task, method, ending)
        return math.inf if any(map(math.isnan, found)) else sum(found) / len(found)

    return min(BAR, key=mean)


def against(task: Mapping[str, Any], method: str, ending: str, baseline: str | None = None, rate: int | None = None) -> Paired:
    """The excess of a method over the bar, or over `baseline`, in per cent."""
    return excess(values(task, method, ending, rate), values(task, baseline or bar(task, ending), ending))


def target(task: Mapping[str, Any], method: str) -> tuple[float, int]:
    """Median steps until the test measure is what the bar ends at, and how many seeds get there; at the rate picked for the end."""
    ends = values(task, bar(task, "end"), "end")
    goal = sum(ends) / len(ends)
    result = task["methods"][method]
    curves = result["curve"][result["picks"]["end"]]
    steps = sorted(steps_to(goal, result["at"], [math.nan if x is None else x for x in curve]) for curve in curves)
    there = [step for step in steps if not math.isnan(step)]
    # Those that never get there count as later than any.
    median = sorted(there + [math.inf] * (len(steps) - len(there)))[len(steps) // 2]
    return median, len(there)


def of(tasks: Mapping[str, Mapping[str, Any]], cost: Mapping[str, Any] | None, asked: int) -> list[Verdict]:
    """All four; `asked`: how many tasks there have to be."""
    first, second, third = _first(tasks), _second(tasks), _third(tasks)
    whole = {
        "E1": len(_with(tasks, OURS, *BAR)) == asked,
        "E2": len(_with(tasks, OURS, *RIVALS)) == asked,
        "E3": len(_with(tasks, SENTENCE, "adamw")) == asked,
    }
    found = [each if whole[each.name[:2]] else each._replace(reached=None) for each in (*first, second, third)]
    return [*found, _fourth(cost)]


def _with(tasks: Mapping[str, Mapping[str, Any]], *methods: str) -> dict[str, Mapping[str, Any]]:
    return {key: task for key, task in tasks.items() if all(method in task["methods"] for method in methods)}


def _first(tasks: Mapping[str, Mapping[str, Any]]) -> list[Verdict]:
    ready = _with(tasks, OURS, *BAR)
    told, reached = [], {}
    for ending in ENDINGS:
        found = {key: against(task, OURS, ending) for key, task in ready.items()}
        ahead = [key for key, each in found.items() if each.mean < 0]
        behind = {key: each.mean for key, each in found.items() if each.mean > 2}
        told.append(f"{_word(ending)}: ahead on {len(ahead)} of {len(found)}; more than 2 % behind on {_list(behind)}")
        reached[ending] = len(ahead) >= math.ceil(0.9 * len(found)) and not behind
    first = Verdict(
        "E1, from its default start", "ahead of the bar on nine of ten (picked), nowhere more than 2 % behind", reached["picked"], told
    )

    told = []
    for ending in ENDINGS:
        worse: dict[str, float] = {}
        tried = 0
        for key, task in ready.items():
            for i, start in enumerate(task["methods"][OURS]["rates"]):
                if task["small"] and start >= LAST_START:
                    continue
                tried += 1
                mean = against(task, OURS, ending, rate=i).mean
                if mean > (5 if task["small"] else 2):
                    worse[f"{key} from {start:g}"] = mean
        told.append(f"{_word(ending)}: {tried - len(worse)} of {tried} within; beyond: {_list(worse)}")
        reached[ending] = not worse
    asked = "from each start never more than 2 % behind, 5 % at batches of 1, 2 and 512 (there up to 1e-3)"
    second = Verdict("E1, from every start", asked, reached["picked"], told)
    return [first, second]


def _second(tasks: Mapping[str, Mapping[str, Any]]) -> Verdict:
    told, reached = [], []
    for rival in RIVALS:
        ready = _with(tasks, OURS, rival)
        if not ready:
            told.append(f"{rival}: not run")
            continue
        for ending in ENDINGS:
            ahead = [key for key, task in ready.items() if _ahead(task, ending, rival)]
            told.append(f"{rival}, {_word(ending)}: ahead on {len(ahead)} of {len(ready)}")
            if ending == "picked":
                reached.append(len(ahead) >= math.ceil(0.8 * len(ready)))
    asked = "ahead of Prodigy, DoG, D-adaptation, Mechanic and schedule-free, as their authors set them, on eight of ten (picked)"
    return Verdict("E2", asked, all(reached) if len(reached) == len(RIVALS) else None, told)


def _ahead(task: Mapping[str, Any], ending: str, rival: str) -> bool:
    theirs, ours = values(task, rival, ending), values(task, OURS, ending)
    if any(map(math.isnan, ours)):
        return False
    return any(map(math.isnan, theirs)) or sum(ours) < sum(theirs)


def _third(tasks: Mapping[str, Mapping[str, Any]]) -> Verdict:
    asked = "the sentence, one setting for all: nowhere significantly worse than AdamW at its tuned constant rate, better on half (picked)"
    ready = _with(tasks, SENTENCE, "adamw")
    if not ready:
        return Verdict("E3", asked, None, ["not run"])
    told, reached = [], {}
    for ending in ENDINGS:
        found = {key: against(task, SENTENCE, ending, "adamw") for key, task in ready.items()}
        better = [key for key, each in found.items() if each.mean < 0]
        worse = {key: each.mean for key, each in found.items() if each.mean > 0 and not each.low <= 0}
        told.append(f"{_word(ending)}: better on {len(better)} of {len(found)}; significantly worse on {_list(worse)}")
        reached[ending] = not worse and len(better) >= math.ceil(0.5 * len(found))
    return Verdict("E3", asked, reached["picked"], told)


def _fourth(cost: Mapping[str, Any] | None) -> Verdict:
    asked = "at most 1.10 times the compiled AdamW step while searching, 1.05 when held"
    if cost is None:
        return Verdict("E4", asked, None, ["not run"])
    told, most = [], 1.0
    for ratio in cost["rows"]["rate"]["ratios"]:
        held_to = f", at most {ratio['at_most']}" if ratio["at_most"] else ""
        told.append(f"{ratio['above']} / {ratio['below']}: {ratio['value']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f}){held_to}")
        most = max(most, ratio["value"])
    told.append("what is held goes on looking whether it has to search again, by the same step: its cost is the same")
    return Verdict("E4", asked, most <= HELD, told)


def _word(ending: str) -> str:
    return {"picked": "step picked on validation", "end": "end of the run"}[ending]


def _list(found: Mapping[str, float]) -> str:
    return ", ".join(f"{key} ({value:+.1f} %)" for key, value in found.items()) or "none"
