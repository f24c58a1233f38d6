"""What all pictures share: colours that every reader can tell apart, quiet axes, labels at the lines, strips of decisions."""

from collections.abc import Mapping, Sequence
from importlib import import_module

import numpy as np

__all__ = ["COLOURS", "FEW", "apart", "bands", "colours_of", "end_labels", "figure", "is_choice", "quiet", "strip"]

# Okabe and Ito, "Color Universal Design", 2008, without the yellow, which vanishes on white; black is kept for who matters most.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#7F7F7F", "#8C564B")
ORDERED = ("#DCEBF7", "#9CC9E6", "#4A98C9", "#1B5E9B", "#0A2F5C")  # light to dark: a scale, not names
INK, SOFT, BLACK = "#222222", "#8A8A8A", "#000000"
FEW = 8  # at most so many values make a choice, drawn as a strip instead of as a line
GAP = 0.155  # inches from one label at the end of a line to the next


def figure(width: float, height: float):
    """An empty figure of so many inches, away from pyplot's global list."""
    try:
        figures = import_module("matplotlib.figure")
    except ImportError as error:
        raise ImportError('viz: needs matplotlib, which is not installed. pip install "funcopt[race]" brings it') from error
    return figures.Figure(figsize=(width, height), dpi=110, facecolor="white")


def colours_of(names: Sequence[str], black: str | None = None) -> dict[str, str]:
    """One colour per name; `black` for the one that the picture is about."""
    palette = iter(COLOURS * (1 + len(names) // len(COLOURS)))
    return {name: BLACK if name == black else next(palette) for name in names}


def quiet(axes, title: str) -> None:
    """Title to the left, two spines, faint lines to read values by."""
    axes.set_title(title, loc="left", fontsize=10, color=INK, fontweight="bold", pad=6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(SOFT)
    axes.tick_params(colors=INK, labelsize=8, length=3, width=0.6, which="both")
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.6)
    axes.set_axisbelow(True)


def bands(axes, x, lines: Mapping[str, np.ndarray], colours: Mapping[str, str], *, label: str | None = "{name}") -> None:
    """Per name the mean over seeds and, behind it, the range from the lowest to the highest seed.

    Args:
        x: a mapping from names to positions, or one sequence for all.
        lines: name -> [seeds, positions]; what is not finite is left out.
        label: what stands at the end of a line, of its `name` and last `value`.
    """
    ends = {}
    for name, values in lines.items():
        at = np.asarray(x[name] if isinstance(x, Mapping) else x)
        values = np.where(np.isfinite(values), values, np.nan)
        seen = np.isfinite(values).any(0)
        if not seen.any():
            continue
        at, values = at[seen], values[:, seen]
        mean = np.nanmean(values, 0)
        if len(values) > 1:
            axes.fill_between(at, np.nanmin(values, 0), np.nanmax(values, 0), color=colours[name], alpha=0.13, linewidth=0)
        axes.plot(at, mean, color=colours[name], linewidth=1.6)
        ends[name] = (at[-1], mean[-1])
    if label:
        end_labels(axes, ends, colours, label)


def end_labels(axes, ends: Mapping[str, tuple[float, float]], colours: Mapping[str, str], label: str = "{name}") -> None:
    """Each line's name at its end, moved apart where lines end together."""
    if not ends:
        return
    axes.autoscale_view()
    to_axes = axes.transData + axes.transAxes.inverted()
    heights = {name: float(np.clip(to_axes.transform(end)[1], 0.0, 1.0)) for name, end in ends.items()}
    inches = axes.get_position().height * axes.figure.get_figheight()
    gap = min(GAP / max(inches, 0.1), 1.0 / len(heights))
    placed = apart(sorted(heights.items(), key=lambda item: item[1]), gap)
    for name, height in placed.items():
        place = {"xy": (1.0, heights[name]), "xytext": (1.03, height), "xycoords": "axes fraction", "textcoords": "axes fraction"}
        leader = {"arrowstyle": "-", "color": colours[name], "linewidth": 0.6, "shrinkA": 0, "shrinkB": 0}
        text = label.format(name=name, value=ends[name][1])
        axes.annotate(text, **place, color=colours[name], fontsize=8, va="center", arrowprops=leader, annotation_clip=False)


def apart(heights: list[tuple[str, float]], gap: float) -> dict[str, float]:
    """Heights, sorted, moved apart to `gap`: those too close form a block round their mean, kept inside [0, 1]."""
    blocks: list[list[int]] = []  # neighbouring indices
    centre = [height for _, height in heights]

    def bottom(block: list[int]) -> float:
        size = (len(block) - 1) * gap
        middle = sum(centre[i] for i in block) / len(block)
        return min(max(middle - size / 2, 0.0), max(1.0 - size, 0.0))

    for i in range(len(heights)):
        blocks.append([i])
        while len(blocks) > 1 and bottom(blocks[-2]) + len(blocks[-2]) * gap > bottom(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    return {heights[i][0]: bottom(block) + place * gap for block in blocks for place, i in enumerate(block)}


def is_choice(values: np.ndarray) -> bool:
    """Whether a signal takes a few values only, again and again: something that was chosen."""
    few = np.unique(values[np.isfinite(values)])
    return 1 < len(few) <= FEW


def strip(axes, values: np.ndarray, names: Sequence[str] | None, seeds: Sequence[int]) -> None:
    """One row per seed, coloured by what was chosen; the key stands to the right.

    Args:
        values: [seeds, steps] of at most `FEW` different ones.
        names: what the values 0, 1, ... are called; `None`: the values are an
            ordered scale and name themselves.
    """
    colormaps = import_module("matplotlib.colors")
    patches = import_module("matplotlib.patches")
    found = np.unique(values[np.isfinite(values)])
    if names is None:
        shades = [ORDERED[round(i * (len(ORDERED) - 1) / max(len(found) - 1, 1))] for i in range(len(found))]
        if len(found) > len(ORDERED):
            shades = [colormaps.to_hex(c) for c in colormaps.LinearSegmentedColormap.from_list("", ORDERED)(np.linspace(0, 1, len(found)))]
        words = [f"{value:g}" for value in found]
    else:
        shades = [COLOURS[int(value) % len(COLOURS)] if value >= 0 else "#FFFFFF" for value in found]
        words = [names[int(value)] if 0 <= value < len(names) else "none" for value in found]
    places = np.searchsorted(found, values).astype(float)
    places[~np.isfinite(values)] = np.nan
    colours = colormaps.ListedColormap(shades)
    axes.imshow(
        places,
        aspect="auto",
        interpolation="nearest",
        cmap=colours,
        vmin=-0.5,
        vmax=len(found) - 0.5,
        extent=(0, values.shape[1], len(values), 0),
    )
    for row in range(1, len(values)):
        axes.axhline(row, color="white", linewidth=1.2)
    axes.grid(False)
    axes.set_yticks(np.arange(len(values)) + 0.5, [f"seed {seed}" for seed in seeds])
    axes.tick_params(axis="y", length=0)
    axes.spines[["left", "bottom"]].set_visible(False)
    key = [patches.Patch(facecolor=shade, edgecolor=SOFT, linewidth=0.4, label=word) for shade, word in zip(shades, words, strict=True)]
    axes.legend(
        handles=key,
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        fontsize=8,
        frameon=False,
        handlelength=1.0,
        handleheight=1.0,
        labelspacing=0.35,
    )
