"""scale_by_depth and layers_of: powers by layer, from a module, patterns and labels, and its errors."""

import pytest
import torch
from torch import nn

import funcopt as fo


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)) for _ in range(11)])
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 2)


def test_a_module_counts_its_layers_as_it_lists_them():
    model = Encoder()
    layers = fo.layers_of(model)(dict(model.named_parameters()))
    assert layers["embed.weight"] == 1 and layers["blocks.0.1.bias"] == 2
    assert layers["blocks.2.0.weight"] == 4 and layers["blocks.10.0.weight"] == 12  # by number, not by letters
    assert layers["norm.weight"] == 13 and layers["head.bias"] == 14


@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_each_layer_has_its_power_whatever_part_of_the_tree_is_there(decay):
    model = Encoder()
    tx = fo.scale_by_depth(decay, model)
    for chosen in (("embed.weight", "blocks.4.0.weight", "head.weight"), ("embed.weight", "blocks.4.0.weight")):
        ones = {name: torch.ones_like(p) for name, p in model.named_parameters() if name in chosen}
        updates, _ = tx.update(ones, tx.init(ones), ones)
        expected = {"embed.weight": decay**13, "blocks.4.0.weight": decay**8, "head.weight": 1.0}
        assert {name: u.mean().item() for name, u in updates.items()} == pytest.approx({name: expected[name] for name in chosen})


def test_patterns_and_labels_say_the_same():
    ones = {"a": {"w": torch.ones(2)}, "b": {"w": torch.ones(2)}, "c": {"w": torch.ones(2)}}
    by_pattern, by_label = fo.scale_by_depth(0.5, ["c.*", "a.*", "b.*"]), fo.scale_by_depth(0.5, {"c": 1, "a": 2, "b": 3})
    for tx in (by_pattern, by_label):
        updates, _ = tx.update(ones, tx.init(ones), ones)
        assert [updates[name]["w"][0].item() for name in "cab"] == [0.25, 0.5, 1.0]


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: fo.scale_by_depth(0.0, {"w": 1}), ValueError, "scale_by_depth: decay must be > 0, got 0.0"),
        (lambda: fo.scale_by_depth(1.5, {"w": 1}), ValueError, r"scale_by_depth: decay must be in \[0, 1\], got 1.5"),
        (lambda: fo.scale_by_depth(0.5, {"w": 0}), ValueError, r"scale_by_depth: layers must be numbered 1, 2, \.\.\., got 0 at 'w'"),
        (lambda: fo.scale_by_depth(0.5, {"w": "first"}), ValueError, "got 'first' at 'w'"),
        (lambda: fo.scale_by_depth(0.5, ["v"]), ValueError, "no pattern matches 'w'"),
        (lambda: fo.scale_by_depth(0.5, nn.Linear(2, 2)), ValueError, "layers_of: leaves must have the names of the module's parameters"),
        (lambda: fo.layers_of([1, 2]), TypeError, "layers_of: module must be a torch.nn.Module"),
    ],
)
def test_says_what_is_wrong(make, error, message):
    with pytest.raises(error, match=message):
        make().init({"w": torch.zeros(2)})
