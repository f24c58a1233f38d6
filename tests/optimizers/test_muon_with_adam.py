"""muon_with_adam: which leaves are whose, fused weights, one rate for both, and what does not fit."""

import pytest
import torch
from torch import nn

import funcopt as fo
from tests.helpers import assert_trees_close, gradients_at


class Tiny(nn.Module):
    """A decoder of one block, its head tied to the embedding or not."""

    def __init__(self, tied):
        super().__init__()
        self.tokens = nn.Embedding(7, 4)
        self.qkv, self.mlp, self.norm = nn.Linear(4, 12), nn.Linear(4, 8), nn.LayerNorm(4)
        self.last = nn.Linear(4, 7, bias=False)
        if tied:
            self.last.weight = self.tokens.weight


def labels_of(labels, model):
    params = dict(model.named_parameters())
    return dict(zip(fo.tree.paths(params), fo.tree.leaves(labels(params)), strict=True))


@pytest.mark.parametrize("tied", [True, False])
def test_embeddings_and_heads_are_found_by_the_modules(tied):
    model = Tiny(tied)
    found = labels_of(fo.muon_labels(model), model)
    assert {path for path, label in found.items() if label == "muon"} == {"qkv.weight", "mlp.weight"}


def test_and_by_their_names_without_a_module():
    names = [
        "tok_embeddings.weight",
        "wte.weight",
        "lm_head.weight",
        "classifier.weight",
        "h.0.attn.weight",
        "mlp.heads_mix.weight",
        "patch_embed.proj.weight",
    ]
    found = fo.muon_labels()({name: torch.zeros(3, 2) for name in names})
    assert [name for name, label in found.items() if label == "muon"] == ["h.0.attn.weight", "mlp.heads_mix.weight"]
    assert fo.muon_labels()({"weight": torch.zeros(3)}) == {"weight": "adam"}


def test_is_muon_and_adamw_at_one_rate():
    params = {"head": {"weight": torch.ones(3, 2)}, "w": torch.ones(4, 2), "conv": torch.ones(2, 3, 2, 2)}
    tx = fo.muon_with_adam(0.01, weight_decay=0.1, adam_weight_decay=0.2)
    conv = fo.MuonDimensionNumbers((1, 2, 3), 0)
    muon = fo.chain(
        fo.scale_by_muon(weight_dimension_numbers={"w": fo.MuonDimensionNumbers(), "conv": conv}),
        fo.scale_by_shape({"w": fo.MuonDimensionNumbers(), "conv": conv}, 0.2),
        fo.add_decayed_weights(0.1),
        fo.lr_scale(0.01),
    )
    adam = fo.adamw(0.01, weight_decay=0.2)
    matrices, rest = {"w": params["w"], "conv": params["conv"]}, {"head": params["head"]}
    state, a, b = tx.init(params), muon.init(matrices), adam.init(rest)
    for step in range(3):
        g = gradients_at(step, params)
        ours, state = tx.update(g, state, params)
        first, a = muon.update({"w": g["w"], "conv": g["conv"]}, a, matrices)
        second, b = adam.update({"head": g["head"]}, b, rest)
        assert_trees_close(ours, {**first, **second}, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("split, sizes", [(3, (2, 2, 2)), ((4, 1, 1), (4, 1, 1))])
def test_fused_weights_are_matrices_of_their_own(split, sizes):
    g = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fused = fo.muon_with_adam(1.0, split={"qkv": split}, nesterov=False)
    together, _ = fused.update({"qkv": g}, fused.init({"qkv": g}), {"qkv": g})
    for part, ours in zip(g.split(sizes), together["qkv"].split(sizes), strict=True):
        alone = fo.muon_with_adam(1.0, nesterov=False)
        torch.testing.assert_close(ours, alone.update({"q": part}, alone.init({"q": part}), {"q": part})[0]["q"])


def test_says_what_is_wrong():
    params = {"w": torch.zeros(4, 3), "b": torch.zeros(4)}
    with pytest.raises(ValueError, match="muon_with_adam: labels must be 'muon' or 'adam', got 'sgd' at 'b'"):
        fo.muon_with_adam(0.1, {"w": "muon", "*": "sgd"}).init(params)
    with pytest.raises(ValueError, match="muon_with_adam: a leaf of Muon must have two axes or more, got 'b' of rank 1; label it 'adam'"):
        fo.muon_with_adam(0.1, {"*": "muon"}).init(params)
    with pytest.raises(ValueError, match="split must divide the outputs of a leaf, got 3 for the 4 of 'w'"):
        fo.muon_with_adam(0.1, split={"w": 3}).init(params)
    with pytest.raises(ValueError, match=r"split must be numbers of outputs that make up those of a leaf, got \(2, 3\) for the 4 of 'w'"):
        fo.muon_with_adam(0.1, split={"w": (2, 3)}).init(params)
    with pytest.raises(ValueError, match="nosuch"):
        fo.muon_with_adam(0.1, split={"nosuch": 3}).init(params)


def test_is_a_class_of_torch_that_is_told_the_model():
    torch.manual_seed(0)
    model = Tiny(False)
    opt = fo.torch_optim.muon_with_adam(model.named_parameters(), lr=0.01, labels=model, split={"qkv.weight": 3})
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for name, p in model.named_parameters():
        p.grad = gradients_at(len(name), p.detach())
    opt.step()
    tx = fo.muon_with_adam(0.01, model, split={"qkv.weight": 3})
    updates, _ = tx.update({name: p.grad for name, p in model.named_parameters()}, tx.init(before), before)
    assert_trees_close({name: p.detach() for name, p in model.named_parameters()}, fo.apply_updates(before, updates), rtol=1e-5, atol=1e-7)
