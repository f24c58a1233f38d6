"""The picture of a race: how well each optimizer does, and what its controllers decided meanwhile."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from funcopt.viz import draw

__all__ = ["race"]

SHADOWS = ("previous_pick",)  # words that repeat another one a switch later
SIZES = ("lr", "base_lr")  # lines, on a logarithmic axis where they differ much
ALWAYS = ("lr",)  # drawn even where they never move
WIDE = 8
COLUMNS = 3
STRIPS = 2  # strips side by side


def race(results: Mapping[str, Any] | str | Path, path: str | Path | None = None):
    """Draws a race: accuracy and loss of every optimizer, then every signal over time.

    Lines are means over seeds, bands reach from the lowest to the highest seed. A
    signal with a few values only (a pick, the arm of a bandit) becomes a strip with
    one row per seed. Signals that never move are named at the foot of the picture.

    Args:
        results: what `results.json` holds, or where that file is.
        path: where to write the picture; its ending says the format. `None`: nowhere.

    Returns:
        The matplotlib figure.

    Raises:
        ValueError: the race holds no optimizer.
        ImportError: matplotlib is not installed.

    Example:
        >>> held = fo.race.run(fo.race.digits_mlp(hidden=8), {"sgd": fo.sgd(0.1)}, seeds=2, steps=3, out=None, progress=False)
        >>> figure = fo.viz.race(held.as_dict())
        >>> [axes.get_title("left") for axes in figure.axes][-1]
        'lr'
    """
    held: Mapping[str, Any] = results if isinstance(results, Mapping) else json.loads(Path(results).read_text(encoding="utf-8"))
    runs = held["optimizers"]
    if not runs:
        raise ValueError("viz.race: results must hold at least one optimizer, got none")
    colours = draw.colours_of(list(runs), black=held["baseline"])
    lines, strips, constant = _sort(runs)

    line_rows, strip_rows = -(-len(lines) // COLUMNS), -(-len(strips) // STRIPS)
    heights = [3.6] + [0.28 + 0.16 * len(held["seeds"])] * strip_rows + [1.75] * line_rows
    figure = draw.figure(14.0, sum(heights) + 0.62 * len(heights) + 1.2)
    total = figure.get_figheight()
    figure.text(0.045, 1 - 0.22 / total, _title(held), fontsize=14, fontweight="bold", color=draw.INK, va="top")
    how = "Lines: mean over seeds. Bands: lowest to highest seed."
    figure.text(0.045, 1 - 0.52 / total, how, fontsize=9, color=draw.SOFT, va="top")
    foot = f"Never moved: {'; '.join(constant)}" if constant else ""
    figure.text(0.045, 0.12 / total, foot, fontsize=8, color=draw.SOFT, va="bottom")

    top = 1 - 1.15 / total
    for row, height in enumerate(heights):
        bottom = top - height / total
        if row == 0:
            _results(figure, (bottom, height / total), runs, colours)
        elif row <= strip_rows:
            for column, (name, word) in enumerate(strips[(row - 1) * STRIPS : row * STRIPS]):
                axes = _axes(figure, column, STRIPS, bottom, height / total)
                draw.quiet(axes, f"{word} of {name}")
                names = held.get("labels", {}).get(name, _numbers(runs[name]["signals"][word])) if _is_pick(word) else None
                draw.strip(axes, _array(runs[name]["signals"][word]), names, held["seeds"])
        else:
            first = (row - 1 - strip_rows) * COLUMNS
            for column, (word, names) in enumerate(lines[first : first + COLUMNS]):
                axes = _axes(figure, column, COLUMNS, bottom, height / total)
                draw.quiet(axes, word)
                values = {name: _array(runs[name]["signals"][word]) for name in names}
                if _last_part(word) in SIZES:
                    _log_if_wide(axes, values)
                draw.bands(axes, {name: np.arange(1, array.shape[1] + 1) for name, array in values.items()}, values, colours)
        top = bottom - 0.62 / total
    for axes in figure.axes:
        axes.set_xlim(0, held["steps"])
    lowest = min(axes.get_position().y0 for axes in figure.axes)
    for axes in figure.axes:
        if axes.get_position().y0 < lowest + 1e-6:
            axes.set_xlabel("step", fontsize=8, color=draw.INK)
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    return figure


def _title(results: Mapping[str, Any]) -> str:
    seeds = len(results["seeds"])
    return f"Race on {results['task']}: {results['steps']} steps of {results['batch_size']}, {seeds} seed{'s' if seeds > 1 else ''} each"


def _results(figure, place: tuple[float, float], runs: Mapping[str, Any], colours: Mapping[str, str]) -> None:
    left = _axes(figure, 0, 2, *place)
    at = {name: run["evaluations"]["step"] for name, run in runs.items()}
    if any("test_accuracy" in run["evaluations"] for run in runs.values()):
        _accuracies(left, at, runs, colours)
    else:
        _losses(left, "loss on the test data", "test_loss", at, runs, colours)
    _losses(_axes(figure, 1, 2, *place), "loss on the training data", "train_loss", at, runs, colours)


def _accuracies(axes, at: Mapping[str, list[int]], runs: Mapping[str, Any], colours: Mapping[str, str]) -> None:
    draw.quiet(axes, "test accuracy, %")
    values = {
        name: 100 * _array(run["evaluations"]["test_accuracy"]) for name, run in runs.items() if run["evaluations"].get("test_accuracy")
    }
    last = sorted(np.nanmean(array[:, -1]) for array in values.values() if np.isfinite(array[:, -1]).any())
    if last:  # the first climb is much the same for all: show where they differ, and let the hopeless drop out at the bottom
        best, middle = last[-1], last[len(last) // 2]
        axes.set_ylim(max(0.0, best - 3 * (best - middle) - 5), min(100.0, best + 1))
    draw.bands(axes, at, values, colours, label="{name} {value:.1f}")


def _losses(axes, title: str, measure: str, at: Mapping[str, list[int]], runs: Mapping[str, Any], colours: Mapping[str, str]) -> None:
    draw.quiet(axes, title)
    values = {name: _array(run["evaluations"][measure]) for name, run in runs.items() if run["evaluations"].get(measure)}
    positive = [array[np.isfinite(array) & (array > 0)] for array in values.values()]
    if any(len(array) for array in positive):
        axes.set_yscale("log")
    draw.bands(axes, at, values, colours, label="{name} {value:.2g}")


def _sort(runs: Mapping[str, Any]) -> tuple[list[tuple[str, list[str]]], list[tuple[str, str]], list[str]]:
    """Signals as lines (word, who says it), as strips (optimizer, word), and those that never moved (as text)."""
    lines: dict[str, list[str]] = {}
    strips: list[tuple[str, str]] = []
    constant: dict[str, list[str]] = {}
    for name, run in runs.items():
        for word, seeds in run["signals"].items():
            values = _array(seeds)
            finite = values[np.isfinite(values)]
            if _last_part(word) in SHADOWS:
                continue
            if draw.is_choice(values) and _last_part(word) not in SIZES:
                strips.append((name, word))
            elif word in ALWAYS or (len(finite) and np.ptp(finite) > 0):
                lines.setdefault(word, []).append(name)
            else:
                constant.setdefault(f"{word} = {finite[0]:g}" if len(finite) else word, []).append(name)
    sayers = [word for _, word in strips]
    strips.sort(key=lambda item: (not _is_pick(item[1]), -sayers.count(item[1]), item[1]))  # those to compare side by side
    return list(lines.items()), strips, [f"{text} ({', '.join(names)})" for text, names in constant.items()]


def _last_part(word: str) -> str:
    """A word without the names of its scopes."""
    return word.rpartition("/")[2]


def _is_pick(word: str) -> bool:
    return _last_part(word) == "pick"


def _numbers(values) -> list[str]:
    return [str(i) for i in range(int(np.nanmax(_array(values))) + 1)]


def _array(values) -> np.ndarray:
    """Lists with None where a number was not finite, as floats."""
    return np.array(values, dtype=np.float64)


def _log_if_wide(axes, values: Mapping[str, np.ndarray]) -> None:
    """A logarithmic axis where positive values span more than a factor of `WIDE`."""
    together = np.concatenate([array[np.isfinite(array)] for array in values.values()])
    if len(together) and together.min() > 0 and together.max() > WIDE * together.min():
        axes.set_yscale("log")
        axes.minorticks_off()


def _axes(figure, column: int, columns: int, bottom: float, height: float):
    """The axes of a column; the margin to the right of each is for the labels of its lines."""
    left, right, labels = 0.045, 0.995, 0.095 if columns > STRIPS else 0.115
    width = (right - left) / columns
    return figure.add_axes((left + column * width, bottom, width - labels, height))
