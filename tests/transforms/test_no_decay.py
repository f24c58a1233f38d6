"""no_decay and parameter_kinds: by the types of a module, by name and rank, and what a misspelt word or a foreign name gets."""

import pytest
import torch
from torch import nn

import funcopt as fo


class RMSNormOfOnesOwn(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(2, 4))


class MyRMSNorm(RMSNormOfOnesOwn):
    pass


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(11, 4)
        self.position_embedding = nn.Parameter(torch.zeros(6, 4))
        self.attention = nn.MultiheadAttention(4, 2)
        self.odd_name = nn.BatchNorm1d(4)
        self.own = MyRMSNorm()
        self.recurrent = nn.LSTM(4, 3)
        self.slope = nn.PReLU(3)
        self.head = nn.Linear(4, 11)
        self.head.weight = self.tokens.weight  # tied


def kinds(labels, params):
    found = {}
    for path, kind in zip(fo.tree.paths(params), fo.tree.leaves(labels(params)), strict=True):
        found.setdefault(kind, set()).add(path)
    return found


def test_the_types_of_a_module_tell():
    model = Model()
    assert kinds(fo.parameter_kinds(model), dict(model.named_parameters())) == {
        "embeddings": {"tokens.weight", "position_embedding"},
        "norms": {"odd_name.weight", "own.gain"},
        "biases": {
            "attention.in_proj_bias",
            "attention.out_proj.bias",
            "odd_name.bias",
            "recurrent.bias_ih_l0",
            "recurrent.bias_hh_l0",
            "head.bias",
        },
        "weights": {
            "attention.in_proj_weight",
            "attention.out_proj.weight",
            "recurrent.weight_ih_l0",
            "recurrent.weight_hh_l0",
            "slope.weight",
        },
    }


def test_without_a_module_names_and_ranks_tell():
    params = {
        "wte": torch.zeros(5, 4),
        "pos_embed": torch.zeros(1, 3, 4),
        "blocks": [{"ln_1": {"weight": torch.zeros(4), "bias": torch.zeros(4)}, "fc": {"w": torch.zeros(4, 4), "b": torch.zeros(4)}}],
        "inorm": {"weight": torch.zeros(2, 2)},
        "bln": {"gain": torch.zeros(4)},
        "normal": {"weight": torch.zeros(2, 2)},
    }
    assert kinds(fo.parameter_kinds(), params) == {
        "embeddings": {"wte", "pos_embed"},
        "norms": {"blocks.0.ln_1.weight", "inorm.weight", "bln.gain"},
        "biases": {"blocks.0.ln_1.bias", "blocks.0.fc.b"},
        "weights": {"blocks.0.fc.w", "normal.weight"},
    }


@pytest.mark.parametrize("by_type", [True, False])
def test_a_bias_of_a_norm_is_left_out_by_either_word(by_type):
    model = nn.Sequential()
    model.add_module("fc", nn.Linear(3, 2))
    model.add_module("norm", nn.LayerNorm(2))
    params = dict(model.named_parameters())
    told = (model,) if by_type else ()

    def decayed(what):
        return {path for path, kept in fo.no_decay(what, *told)(params).items() if kept}

    assert decayed("norms") == {"fc.weight", "fc.bias"}
    assert decayed("biases") == {"fc.weight", "norm.weight"}
    assert decayed("norms and biases") == decayed("biases, norms") == {"fc.weight"}
    assert decayed("embeddings") == set(params)


def test_decay_moves_what_is_decayed_and_nothing_else():
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
    params = {name: torch.ones_like(p) for name, p in model.named_parameters()}
    tx = fo.adamw(0.5, weight_decay=0.1, weight_decay_mask=fo.no_decay("norms and biases", model))
    updates, _ = tx.update(fo.tree.zeros_like(params), tx.init(params), params)
    moved = {name: x.mean().item() for name, x in fo.apply_updates(params, updates).items()}
    assert moved == pytest.approx({"0.weight": 0.95, "0.bias": 1.0, "1.weight": 1.0, "1.bias": 1.0})


@pytest.mark.parametrize(
    "what, error, message",
    [
        ("norm", ValueError, "no_decay: what must name some of norms, biases, embeddings, joined by 'and' or commas, got 'norm'"),
        ("", ValueError, "no_decay: what must name some of norms"),
        (["norms"], TypeError, "no_decay: what must be a string"),
    ],
)
def test_says_which_words_there_are(what, error, message):
    with pytest.raises(error, match=message):
        fo.no_decay(what)


def test_names_that_the_module_has_not_are_refused():
    model = nn.Linear(3, 2)
    with pytest.raises(ValueError, match="no_decay: leaves must have the names of the module's parameters, and it has no '?model.weight"):
        fo.no_decay("biases", model)({"model.weight": torch.zeros(2, 3)})
    with pytest.raises(TypeError, match=r"parameter_kinds: module must be a torch.nn.Module or None"):
        fo.parameter_kinds({"w": torch.zeros(1)})
