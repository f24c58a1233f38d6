"""param_groups: who is in which group, what our optimizers and torch's make of them, and its errors."""

import pytest
import torch
from torch import nn

import funcopt as fo

param_groups = fo.torch_optim.param_groups


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))


def told(groups):
    return {name: (group.get("lr"), group.get("weight_decay")) for group in groups for name, _ in group["params"]}


def test_rates_and_decays_are_those_of_the_layer_and_the_kind():
    net = model()
    net[1].bias.requires_grad_(False)
    groups = param_groups(net, 0.8, weight_decay=0.1, no_decay="norms, biases and embeddings", layer_decay=0.5)
    assert told(groups) == {
        "0.weight": (0.1, 0.0),
        "1.weight": (0.2, 0.1),
        "2.weight": (0.4, 0.0),
        "2.bias": (0.4, 0.0),
        "3.weight": (0.8, 0.1),
        "3.bias": (0.8, 0.0),
    }
    assert told(param_groups(net, no_decay=None)) == dict.fromkeys(told(groups), (None, None))
    assert len(param_groups(net)) == 2


@pytest.mark.parametrize("ours", [True, False])
def test_an_optimizer_steps_by_them(ours):
    if not ours and tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6):
        pytest.skip("torch.optim knows names from 2.6 on")
    net = model()
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    groups = param_groups(net, 0.1, weight_decay=0.5, layer_decay=0.5)
    given = told(groups)
    opt = fo.torch_optim.adamw(groups, lr=1.0) if ours else torch.optim.AdamW(groups, lr=1.0)
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    opt.step()
    for name, (rate, decay) in given.items():
        torch.testing.assert_close(dict(net.named_parameters())[name].detach(), before[name] * (1 - rate * decay))


def test_they_are_printed_before_and_after():
    net = model()
    groups = param_groups(net, 0.1, weight_decay=0.01)
    first = fo.describe_groups(groups)
    assert first.splitlines()[1] == "0: lr 0.1, weight_decay 0.01       3       52    79%  0.weight, 1.weight, 3.weight"
    assert "2.weight" in first.splitlines()[2] and "weight_decay 0 " in first.splitlines()[2]
    assert fo.describe_groups(fo.torch_optim.adamw(groups).param_groups) == first
    plain = torch.optim.SGD(net.parameters(), lr=0.5)
    assert fo.describe_groups(plain.param_groups).splitlines()[1].endswith("param:0, param:1, param:2, param:3, param:4, param:5, param:6")
    with pytest.raises(TypeError, match="describe_groups: params must be given, unless the groups of a torch optimizer are"):
        fo.describe_groups("*.bias")


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: param_groups(model(), layer_decay=0.5), ValueError, "param_groups: needs lr, of which the layers have their shares"),
        (lambda: param_groups(model(), 0.1, layer_decay=1.5), ValueError, r"param_groups: layer_decay must be in \[0, 1\], got 1.5"),
        (lambda: param_groups(model(), 0.0), ValueError, "param_groups: lr must be > 0, got 0.0"),
        (lambda: param_groups(model(), weight_decay=-1.0), ValueError, "param_groups: weight_decay must be >= 0, got -1.0"),
        (lambda: param_groups(model(), no_decay="norm"), ValueError, "what must name some of norms, biases, embeddings"),
        (lambda: param_groups(nn.ReLU()), ValueError, "the module must have a parameter that requires grad, and ReLU has none"),
        (lambda: param_groups([torch.zeros(1)]), TypeError, "param_groups: module must be a torch.nn.Module"),
    ],
)
def test_says_what_is_wrong(make, error, message):
    with pytest.raises(error, match=message):
        make()
