"""What a search saw, generation by generation."""

from pathlib import Path
from typing import Any

import numpy as np

from funcopt.viz import draw

__all__ = ["generations"]


def generations(history: Any, path: str | Path | None = None, *, logarithmic: bool = False):
    """Draws what `fo.es.run` returns: the best fitness so far and the mean of each generation; and who failed, where somebody did.

    Args:
        history: the `History`, or the pair of a state and a `History` as it was returned.
        path: where to write the picture; its ending says the format. `None`: nowhere.
        logarithmic: the fitness; what is not above 0 is left out.

    Returns:
        The matplotlib figure.

    Raises:
        TypeError: it is neither.
        ValueError: it holds no generation.
        ImportError: matplotlib is not installed.

    Example:
        >>> search = fo.es.snes(sigma=0.5)
        >>> figure = fo.viz.generations(fo.es.run(search, lambda x: x.square().sum(), torch.ones(3), 0, 20), logarithmic=True)
        >>> [axes.get_title("left") for axes in figure.axes]
        ['fitness']
    """
    if not hasattr(history, "n_failed") and isinstance(history, tuple) and len(history) == 2:
        history = history[1]
    if not all(hasattr(history, name) for name in ("best", "mean", "n_failed")):
        raise TypeError(f"viz.generations: history must be what es.run returns, got {type(history).__name__}")
    columns = {name: np.asarray(getattr(history, name).detach().cpu(), dtype=np.float64) for name in ("best", "mean", "n_failed")}
    if columns["best"].size == 0:
        raise ValueError("viz.generations: history must hold at least one generation, got none")
    failed = bool(columns["n_failed"].any())
    figure = draw.figure(7.0, 3.4 if not failed else 4.8)
    places = figure.subplots(1 + failed, 1, squeeze=False, sharex=True, height_ratios=(3, 1) if failed else (1,)).flatten()
    at = np.arange(1, columns["best"].size + 1)
    draw.quiet(places[0], "fitness")
    lines = {name: columns[name][None] for name in ("best", "mean")}
    if logarithmic:
        places[0].set_yscale("log")
        lines = {name: np.where(values > 0, values, np.nan) for name, values in lines.items()}
    draw.bands(places[0], at, lines, draw.colours_of(("best", "mean"), black="best"))
    if failed:
        draw.quiet(places[1], "members that failed")
        places[1].bar(at, columns["n_failed"], color=draw.COLOURS[0], width=0.8)
    places[-1].set_xlabel("generation", fontsize=8, color=draw.INK)
    figure.tight_layout()
    if path is not None:
        figure.savefig(path)
    return figure
