"""snapshot and monitor: what is measured is said, nothing is changed, the state keeps its form."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_equal, gradients_at, small_params


def test_what_is_measured_is_a_word_for_others():
    tx = fo.chain(fo.snapshot("lr_multiplier", lambda updates: 1 / (1 + fo.tree.norm(updates))), fo.sgd(1.0))
    g = torch.tensor([3.0, 4.0])
    updates, state = tx.update(g, tx.init(g))
    torch.testing.assert_close(updates, -g / 6)
    assert set(fo.read_signals(state)) == {"lr_multiplier", "lr"}


def test_nothing_that_passes_is_changed():
    params = small_params()
    tx = fo.monitor({"norm": fo.tree.norm, "copy": lambda updates: updates, "mean": fo.measure_with_ema(fo.tree.squared_norm, 0.5)})
    state, gradients = tx.init(params), gradients_at(0, params)
    updates, new = tx.update(gradients, state, params)
    assert_trees_equal(updates, gradients)
    assert fo.tree.structure(new) == fo.tree.structure(state)
    assert fo.tree.norm(state.measurements) == 0
    assert_trees_equal(new.measurements["copy"], gradients)
    assert list(fo.read_signals(new)) == ["norm", "mean"]


def test_a_name_stands_once_in_a_chain():
    with pytest.raises(ValueError, match="'norm' is said twice"):
        fo.chain(fo.snapshot("norm", fo.tree.norm), fo.monitor({"norm": fo.tree.norm})).init(torch.ones(1))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: fo.snapshot("", fo.tree.norm), "snapshot: a name is a non-empty string"),
        (lambda: fo.snapshot("norm", 3), "snapshot: measure must be a function"),
        (lambda: fo.monitor({"a/b": fo.tree.norm}), "monitor: a name is a non-empty string without '/'"),
        (lambda: fo.monitor({"a": 3}), "monitor: a must be a function of the updates or a transformation"),
        (lambda: fo.measure_with_ema(3, 0.9), "measure_with_ema: measure must be a function"),
    ],
)
def test_says_what_is_wrong(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()
