"""The pictures: everything said is drawn or named, labels keep apart, nothing leaves the page."""

import json

import numpy as np
import pytest
import torch

from funcopt import viz
from funcopt.viz import draw


def results(steps=40, seeds=3):
    """A race as `results.json` holds it: one plain optimizer, one that says all kinds of words, one that diverged."""
    falling = [[2.0 / (1 + step) + 0.01 * seed for step in range(3)] for seed in range(seeds)]
    rising = [[0.1, 0.8, 0.9 + 0.01 * seed] for seed in range(seeds)]
    evaluations = {"step": [0, 20, 40], "train_loss": falling, "test_loss": falling, "train_accuracy": rising, "test_accuracy": rising}
    said = {
        "lr": [[0.1] * steps] * seeds,
        "pick": [[step // 10 % 2 for step in range(steps)]] * seeds,
        "previous_pick": [[0] * steps] * seeds,
        "agreement": [[0.01 * step * seed for step in range(steps)] for seed in range(seeds)],
        "noise_std": [[0.0] * steps] * seeds,
    }
    gone = [[2.0, None, None]] * seeds
    runs = {
        "adamw": {"evaluations": evaluations, "signals": {"lr": [[0.001] * steps] * seeds}},
        "sentence": {"evaluations": evaluations, "signals": said},
        "wild": {"evaluations": evaluations | {"train_loss": gone, "test_accuracy": gone}, "signals": {"lr": [[None] * steps] * seeds}},
    }
    return {
        "task": "mlp",
        "seeds": list(range(seeds)),
        "steps": steps,
        "batch_size": 64,
        "baseline": "adamw",
        "labels": {"sentence": ["adam", "lion"]},
        "optimizers": runs,
    }


def words(figure):
    texts = [text.get_text() for axes in figure.axes for text in axes.texts] + [text.get_text() for text in figure.texts]
    for axes in figure.axes:
        if axes.get_legend():
            texts += [text.get_text() for text in axes.get_legend().get_texts()]
    return texts


def test_every_word_is_drawn_or_named(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results()))
    figure = viz.race(path, tmp_path / "race.png")
    titles = [axes.get_title("left") for axes in figure.axes]
    assert titles == ["test accuracy, %", "loss on the training data", "pick of sentence", "lr", "agreement"]
    assert {"adam", "lion"} <= set(words(figure))
    assert "Never moved: noise_std = 0 (sentence)" in words(figure)
    assert (tmp_path / "race.png").stat().st_size > 10_000


def test_no_two_labels_overlap_and_none_leaves_the_page():
    figure = viz.race(results())
    figure.canvas.draw()
    width, height = figure.canvas.get_width_height()
    labels = [text for axes in figure.axes for text in axes.texts]
    for label in labels:
        label.arrowprops = label.arrow_patch = None  # the extent of the text alone, without the line that leads to it
    boxes = [(label.get_text(), label.get_window_extent()) for label in labels]
    for name, box in boxes:
        assert 0 <= box.x0 and box.x1 <= width and 0 <= box.y0 and box.y1 <= height, name
    for i, (name, box) in enumerate(boxes):
        for other, second in boxes[i + 1 :]:
            assert not box.overlaps(second), (name, other)


def test_colours_differ_and_the_baseline_is_black():
    colours = draw.colours_of(["a", "b", "c", "d", "e", "f", "g"], black="c")
    assert colours["c"] == draw.BLACK and len(set(colours.values())) == 7


@pytest.mark.parametrize("heights", [[0.0, 0.0, 0.0], [0.5, 0.51, 0.52, 0.9], [0.98, 0.99, 1.0], [0.1, 0.5, 0.9]])
def test_labels_keep_their_order_their_distance_and_the_axis(heights):
    placed = list(draw.apart([(str(i), height) for i, height in enumerate(heights)], 0.1).values())
    assert all(b - a >= 0.1 - 1e-9 for a, b in zip(placed, placed[1:], strict=False))
    assert placed[0] >= -1e-9 and placed[-1] <= 1 + 1e-9
    if heights == [0.1, 0.5, 0.9]:
        assert placed == pytest.approx(heights)


def test_a_choice_is_few_values_that_change():
    assert draw.is_choice(np.array([[0, 1, 1, 0]])) and not draw.is_choice(np.array([[1, 1, 1]])) and not draw.is_choice(np.arange(20.0))


def test_signals_draws_numbers_tensors_and_lanes(tmp_path):
    history = [{"lr": 0.1, "agreement": torch.tensor(0.5 * step), "lanes": torch.arange(3.0) * step} for step in range(4)]
    figure = viz.signals(history, tmp_path / "signals.png")
    assert [axes.get_title("left") for axes in figure.axes] == ["lr", "agreement", "lanes"]
    assert (tmp_path / "signals.png").exists()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: viz.signals([]), "viz.signals: history must hold the words of at least one step, got none"),
        (lambda: viz.race({"optimizers": {}}), "viz.race: results must hold at least one optimizer, got none"),
    ],
)
def test_says_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_missing_matplotlib_names_the_command_that_brings_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'viz: needs matplotlib, which is not installed. pip install "funcopt\[race\]" brings it'):
        viz.race(results())


def test_panels_have_one_colour_a_name_and_leave_out_what_is_not_finite(tmp_path):
    values = np.array([[1.0, 2.0, np.nan], [1.5, 2.5, 3.0]])
    shown = [viz.Panel(f"task {i}", {"a": ([1, 10, 100], values), "b": ([1, 10], values[:, :2] / 2)}, 1.0, "rate") for i in range(5)]
    figure = viz.panels(shown, tmp_path / "panels.svg", logarithmic=True)
    seen = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title("left") for axes in seen] == [f"task {i}" for i in range(5)]
    lines = {line.get_label(): line for line in seen[0].get_lines()}
    assert list(lines["a"].get_xdata()) == [1, 10] and lines["a"].get_color() != lines["b"].get_color()
    first = (tmp_path / "panels.svg").read_bytes()
    viz.panels(shown, tmp_path / "panels.svg", logarithmic=True)
    assert (tmp_path / "panels.svg").read_bytes() == first
    with pytest.raises(ValueError, match="viz.panels: shown must hold at least one panel"):
        viz.panels([])


def test_a_search_is_drawn_from_what_run_returns(tmp_path):
    from funcopt import es

    def objective(x):
        return torch.where(x[0] > 0.4, torch.nan, x.square().sum())  # some members fail

    returned = es.run(es.snes(popsize=8, sigma=0.5), objective, torch.zeros(2), 0, 12)
    figure = viz.search(returned, tmp_path / "search.png", logarithmic=True)
    assert [axes.get_title("left") for axes in figure.axes] == ["fitness", "sigma", "members that failed"]
    best, (sigma,) = figure.axes[0].get_lines()[0], figure.axes[1].get_lines()
    np.testing.assert_allclose(best.get_ydata(), returned[1].best.numpy())
    np.testing.assert_allclose(best.get_xdata(), 8 * np.arange(1, 13))
    np.testing.assert_allclose(sigma.get_ydata(), returned[1].sigma.numpy())
    assert {"best", "mean"} <= set(words(figure)) and (tmp_path / "search.png").stat().st_size > 5_000
    with pytest.raises(TypeError, match="viz.search: history must be what es.run returns, got list"):
        viz.search([1.0])
    with pytest.raises(ValueError, match="viz.search: history must hold at least one generation"):
        viz.search(es.run(es.snes(), objective, torch.zeros(2), 0, 0))


def test_searches_are_compared_by_name():
    from funcopt import es

    seen = {size: es.run(es.snes(popsize=size, sigma=0.5), lambda x: x.square().sum(), torch.ones(2), 0, 6) for size in (4, 10)}
    figure = viz.search(seen)
    assert [axes.get_title("left") for axes in figure.axes] == ["fitness", "sigma"]
    assert {"4", "10"} <= set(words(figure))
    assert [line.get_xdata()[-1] for line in figure.axes[0].get_lines()] == [24, 60]
    with pytest.raises(ValueError, match="viz.search: history must hold at least one search, got an empty mapping"):
        viz.search({})
    with pytest.raises(TypeError, match=r"viz.search: history\['snes'\] must be what es.run returns, got float"):
        viz.search({"snes": 1.0})
