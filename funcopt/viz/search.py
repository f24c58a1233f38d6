"""What searches saw, evaluation by evaluation: fitness, how wide they spread, and who failed, where somebody did."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from funcopt.viz import draw

__all__ = ["search"]


def search(history: Any, path: str | Path | None = None, *, logarithmic: bool = False):
    """Draws what `fo.es.run` returns against evaluations: the best fitness so far, the mean of each generation, and sigma.

    Args:
        history: the `History`, or the pair of a state and a `History` as it was returned; or a mapping from names to
            these, whose best fitness and sigma are compared.
        path: where to write the picture; its ending says the format. `None`: nowhere.
        logarithmic: the fitness; what is not above 0 is left out. Sigma always is.

    Returns:
        The matplotlib figure.

    Raises:
        TypeError: it is none of these.
        ValueError: it holds no generation, or the mapping no search.
        ImportError: matplotlib is not installed.

    Example:
        >>> strategy = fo.es.snes(sigma=0.5)
        >>> figure = fo.viz.search(fo.es.run(strategy, lambda x: x.square().sum(), torch.ones(3), 0, 20), logarithmic=True)
        >>> [axes.get_title("left") for axes in figure.axes]
        ['fitness', 'sigma']
    """
    if isinstance(history, Mapping):
        if not history:
            raise ValueError("viz.search: history must hold at least one search, got an empty mapping")
        seen = {str(name): _columns(one, f"history[{name!r}]") for name, one in history.items()}
        fitness = {name: (columns["evaluations"], columns["best"]) for name, columns in seen.items()}
        colours = draw.colours_of(list(seen))
    else:
        columns = _columns(history, "history")
        seen = {"": columns}
        fitness = {name: (columns["evaluations"], columns[name]) for name in ("best", "mean")}
        colours = {**draw.colours_of(("best", "mean"), black="best"), "": draw.BLACK}
    failed = any(columns["n_failed"].any() for columns in seen.values())
    figure = draw.figure(7.0, 4.8 + 1.2 * failed)
    places = figure.subplots(2 + failed, 1, squeeze=False, sharex=True, height_ratios=(3, 1.5, 1)[: 2 + failed]).flatten()
    draw.quiet(places[0], "fitness")
    if logarithmic:
        places[0].set_yscale("log")
    _lines(places[0], fitness, colours, logarithmic, "{name}")
    draw.quiet(places[1], "sigma")
    places[1].set_yscale("log")
    label = "{name}" if isinstance(history, Mapping) else None  # else the title says it
    _lines(places[1], {name: (columns["evaluations"], columns["sigma"]) for name, columns in seen.items()}, colours, True, label)
    if failed:
        draw.quiet(places[2], "members that failed")
        _lines(places[2], {name: (columns["evaluations"], columns["n_failed"]) for name, columns in seen.items()}, colours, False, label)
    places[-1].set_xlabel("evaluations", fontsize=8, color=draw.INK)
    figure.tight_layout()
    if path is not None:
        figure.savefig(path)
    return figure


def _columns(history: Any, where: str) -> dict[str, np.ndarray]:
    """The fields of a `History` as arrays [generations]."""
    names = ("best", "mean", "n_failed", "sigma", "evaluations")
    if not hasattr(history, "n_failed") and isinstance(history, tuple) and len(history) == 2:
        history = history[1]
    if not all(hasattr(history, name) for name in names):
        raise TypeError(f"viz.search: {where} must be what es.run returns, got {type(history).__name__}")
    columns = {name: np.asarray(getattr(history, name).detach().cpu(), dtype=np.float64) for name in names}
    if columns["best"].size == 0:
        raise ValueError(f"viz.search: {where} must hold at least one generation, got none")
    return columns


def _lines(axes, lines: Mapping[str, tuple[np.ndarray, np.ndarray]], colours: Mapping[str, str], positive: bool, label: str | None) -> None:
    at = {name: position for name, (position, _) in lines.items()}
    values = {name: (np.where(value > 0, value, np.nan) if positive else value)[None] for name, (_, value) in lines.items()}
    draw.bands(axes, at, values, colours, label=label)
