"""Small multiples: the same lines for every task of a table of tasks, each with a level that they are compared with."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from funcopt.viz import draw

__all__ = ["Panel", "panels"]

COLUMNS = 4
WIDE, HIGH = 14.0, 2.5  # inches: of the picture, of a row
OVER = 2.5  # times the level: what is worse than that leaves the panel at the top


class Panel(NamedTuple):
    """One of them.

    lines: name -> positions and values [seeds, positions]; what is not finite is left out.
    level: dotted, from one side to the other.
    """

    title: str  # above it
    lines: Mapping[str, tuple[Sequence[float], np.ndarray]]
    level: float
    below: str  # what the positions are


def panels(shown: Sequence[Panel], path: str | Path | None = None, *, bands: bool = True, logarithmic: bool = False):
    """Draws them four to a row, each name in one colour, the first in black.

    Args:
        shown: at least one.
        path: where to write the picture; its ending says the format. `None`: nowhere.
        bands: from the lowest to the highest seed.
        logarithmic: the positions.

    Returns:
        The matplotlib figure.

    Raises:
        ValueError: there is none.
        ImportError: matplotlib is not installed.

    Example:
        >>> panel = fo.viz.Panel("a task", {"adam": ([1, 2, 3], torch.tensor([[3.0, 2.0, 1.0]]).numpy())}, level=2.0, below="step")
        >>> figure = fo.viz.panels([panel])
        >>> figure.axes[0].get_title("left")
        'a task'
    """
    if not shown:
        raise ValueError("viz.panels: shown must hold at least one panel, got none")
    names = list(dict.fromkeys(name for panel in shown for name in panel.lines))
    colours = draw.colours_of(names, black=names[0])
    rows = -(-len(shown) // COLUMNS)
    figure = draw.figure(WIDE, HIGH * rows + 0.4)
    places = figure.subplots(rows, COLUMNS, squeeze=False).flatten()
    for axes, panel in zip(places, shown, strict=False):
        draw.quiet(axes, panel.title)
        for name, (at, values) in panel.lines.items():
            _line(axes, at, np.asarray(values, dtype=float), colours[name], name, bands)
        axes.axhline(panel.level, color=draw.SOFT, linewidth=1.0, linestyle=":")
        seen = [values[np.isfinite(values)] for _, values in panel.lines.values()]
        lowest = min([float(values.min()) for values in seen if len(values)] + [panel.level])
        axes.set_ylim(0.9 * lowest, OVER * panel.level)
        if logarithmic:
            axes.set_xscale("log")
        axes.set_xlabel(panel.below, fontsize=8, color=draw.INK)
    for axes in places[len(shown) :]:
        axes.set_visible(False)
    lines = {line.get_label(): line for axes in places for line in axes.get_lines() if line.get_label() in names}
    figure.legend(lines.values(), lines, loc="lower center", ncol=len(names), fontsize=8, frameon=False)
    high = HIGH * rows + 0.4
    figure.subplots_adjust(left=0.04, right=0.99, top=1 - 0.3 / high, bottom=0.75 / high, hspace=0.55, wspace=0.22)
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        # The same numbers make the same file.
        with import_module("matplotlib").rc_context({"svg.hashsalt": "funcopt", "svg.fonttype": "none"}):
            figure.savefig(path, metadata={"Date": None} if str(path).endswith(".svg") else None)
    return figure


def _line(axes, at: Any, values: np.ndarray, colour: str, name: str, band: bool) -> None:
    finite = np.isfinite(values).all(0)  # a position counts if all seeds have come there
    at, values = np.asarray(at, dtype=float)[finite], values[:, finite]
    if band and len(values) > 1:
        axes.fill_between(at, values.min(0), values.max(0), color=colour, alpha=0.13, linewidth=0)
    axes.plot(at, values.mean(0), color=colour, linewidth=1.5, marker="o" if len(at) < 12 else None, markersize=3, label=name)
