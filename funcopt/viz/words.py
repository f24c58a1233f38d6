"""Signals of one run over time, from any training loop."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from funcopt.viz import draw

__all__ = ["signals"]

COLUMNS = 3


def signals(history: Sequence[Mapping[str, Any]], path: str | Path | None = None):
    """Draws each word that a run has said, step by step.

    Args:
        history: what `fo.read_signals(state)` gave after each step. Numbers, 0-dim
            tensors, or `[lanes]` for a vmapped state.
        path: where to write the picture; its ending says the format. `None`: nowhere.

    Returns:
        The matplotlib figure.

    Raises:
        ValueError: `history` is empty or no word was said.
        ImportError: matplotlib is not installed.

    Example:
        >>> tx = fo.chain(fo.trace(0.9), fo.lr_scale(lambda count: 0.1 / (1 + count)))
        >>> state, history = tx.init(torch.zeros(2)), []
        >>> for _ in range(3):
        ...     _, state = tx.update(torch.ones(2), state)
        ...     history.append(fo.read_signals(state))
        >>> figure = fo.viz.signals(history)
        >>> [axes.get_title("left") for axes in figure.axes]
        ['lr']
    """
    words = list(history[0]) if history else []
    if not words:
        raise ValueError("viz.signals: history must hold the words of at least one step, got none")
    rows = -(-len(words) // COLUMNS)
    figure = draw.figure(4.6 * min(len(words), COLUMNS), 2.3 * rows + 0.4)
    for i, word in enumerate(words):
        axes = figure.add_subplot(rows, min(len(words), COLUMNS), i + 1)
        draw.quiet(axes, word)
        values = np.stack([np.atleast_1d(np.asarray(said[word], dtype=np.float64)) for said in history], axis=1)
        draw.bands(axes, np.arange(1, len(history) + 1), {word: values}, {word: draw.COLOURS[0]}, label=None)
    figure.tight_layout()
    if path is not None:
        figure.savefig(path)
    return figure
