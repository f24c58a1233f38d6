"""Parameters and groups that have no gradients, from the start or for a while: where state lives does not depend on them."""

import copy
import warnings

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

import funcopt as fo
from funcopt.torch_optim.assembly import Assembly
from tests.torch_optim.runs import assert_equal, parameters, step, through_a_file

SHAPES = (3, 2), (2,), (2, 2), (4,)


def groups(params):
    """A backbone of two parameters, a neck, a head."""
    named = [*zip(("backbone.weight", "backbone.bias", "neck", "head"), params, strict=True)]
    return [{"params": named[:2]}, {"params": named[2:3]}, {"params": named[3:]}]


def vectors(params):
    return fo.tree.map_plain(lambda p: p.dim() == 1, params)


def optimizer(transformation, **settings):
    return lambda params: fo.torch_optim.Optimizer(groups(params), transformation(), **settings)


MAKERS = {
    "sgd": lambda params: fo.torch_optim.sgd(groups(params), lr=0.1),
    "momentum": lambda params: fo.torch_optim.sgd(groups(params), lr=0.1, momentum=0.9),
    "adamw": lambda params: fo.torch_optim.adamw(groups(params), lr=0.1),
    "pilot": lambda params: fo.torch_optim.pilot(groups(params), lr=0.1),
    "clipped": optimizer(lambda: fo.chain(fo.clip_by_global_norm(1.0), fo.adamw(None)), lr=0.1),
    "clipped, without memory": optimizer(lambda: fo.chain(fo.clip_by_global_norm(1.0), fo.sgd(None)), lr=0.1),
    "noise": optimizer(lambda: fo.chain(fo.add_noise(0.1, 0.5, 7), fo.sgd(None)), lr=0.1),
    "scheduled signs": optimizer(lambda: fo.chain(fo.sign(), fo.lr_scale(lambda count: 1 / (1 + count.double())))),
    "momentum of some": optimizer(lambda: fo.chain(fo.masked(fo.trace(0.9), vectors), fo.clip_by_global_norm(1.0), fo.adam(0.1))),
    "schedule-free": lambda params: fo.torch_optim.schedule_free_adamw(groups(params), lr=0.1),
    "bandit": lambda params: fo.torch_optim.aees(groups(params), lr=0.1, lr_candidates=(0.5, 2.0), episode_length=2, seed=0),
}


@pytest.mark.parametrize("maker", MAKERS)
@given(
    alive=st.lists(st.sets(st.integers(0, 3), min_size=1), min_size=2, max_size=6),
    at=st.integers(1, 5),
    way=st.sampled_from(["file", "file, frozen now", "deepcopy"]),
)
@settings(max_examples=8, deadline=None)
def test_a_run_resumed_with_whoever_is_frozen_is_the_uninterrupted_run(maker, alive, at, way):
    params = parameters(*SHAPES)
    opt = MAKERS[maker](params)
    runs = [(params, opt)]
    for number, live in enumerate(alive):
        if number == at:
            if way == "deepcopy":
                runs.append(copy.deepcopy((params, opt)))
            else:
                others = [nn.Parameter(p.detach().clone(), requires_grad=way == "file" or index in live) for index, p in enumerate(params)]
                again = MAKERS[maker](others)
                again.load_state_dict(through_a_file(opt.state_dict()))
                runs.append((others, again))
        for own, o in runs:
            step(own, o, number, live)
    assert_equal(runs[0][0], runs[-1][0])
    assert {word: float(value) for word, value in runs[0][1].signals().items()} == {
        word: float(value) for word, value in runs[-1][1].signals().items()
    }


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("live", [{2, 3}, {3}, {0, 1}, {1, 3}], ids=str)
def test_units_are_made_once(maker, live, monkeypatch):
    made, build = [], Assembly.build
    monkeypatch.setattr(Assembly, "build", lambda self, *given: made.append(1) or build(self, *given))
    params = parameters(*SHAPES)
    opt = MAKERS[maker](params)
    for number in range(4):
        step(params, opt, number, live)
    assert len(made) <= 2
    made.clear()
    for number in range(4, 8):
        step(params, opt, number, live)
    assert not made


def test_units_to_which_nothing_has_happened_stay_when_a_group_comes_to_life_and_when_it_pauses():
    params = parameters(*SHAPES)
    opt = MAKERS["adamw"](params)
    step(params, opt, 0, {2, 3})
    before = list(opt._engine.units)
    step(params, opt, 1, {0, 1, 2, 3})
    assert [unit for unit in opt._engine.units if unit in before] == before
    before = list(opt._engine.units)
    for number, live in enumerate([{2, 3}, {0, 1}, {3}, {0, 1, 2, 3}], 2):
        step(params, opt, number, live)
    assert opt._engine.units == before


def test_counts_go_on_where_a_parameter_comes_for_which_an_earlier_link_keeps_something():
    params = parameters(*SHAPES)
    opt = MAKERS["momentum of some"](params)
    for number in range(3):
        step(params, opt, number, {0})  # a matrix, for which there is no momentum
    for number in range(3, 5):
        step(params, opt, number, {0, 1, 2, 3})
    assert fo.find(opt.functional(), "count").item() == 5


@pytest.mark.parametrize(
    "transformation",
    [
        lambda: fo.partition({"backbone*": fo.sgd(None), "*": fo.adamw(None)}, by="path"),
        lambda: fo.adamw(None, weight_decay=0.1, weight_decay_mask="backbone*"),
        lambda: fo.adamw(
            None, weight_decay=0.1, weight_decay_mask={"backbone.weight": True, "backbone.bias": False, "neck": True, "head": False}
        ),
    ],
    ids=["partition", "pattern", "tree"],
)
def test_patterns_that_fit_frozen_parameters_alone_are_no_mistake(transformation):
    params = parameters(*SHAPES)
    opt = fo.torch_optim.Optimizer(groups(params), transformation(), lr=0.1)
    before = [p.detach().clone() for p in params]
    step(params, opt, 0, {2, 3})
    assert_equal(before[:2], params[:2])
    assert not any(torch.equal(x, y) for x, y in zip(before[2:], params[2:], strict=True))
    step(params, opt, 1, {0, 1, 2, 3})
    assert not torch.equal(before[0], params[0])


def test_a_pattern_that_fits_no_parameter_at_all_is_still_a_mistake():
    params = parameters(*SHAPES)
    opt = fo.torch_optim.Optimizer(groups(params), fo.adamw(None, weight_decay=0.1, weight_decay_mask="bakcbone*"), lr=0.1)
    with pytest.raises(ValueError, match=r"no leaf is left for the pattern 'bakcbone\*'"):
        step(params, opt, 0, {2, 3})


def test_a_layer_that_comes_to_life_behind_a_link_that_sees_all_counts_with_the_others_and_that_is_said_once():
    def late(make):
        head, layer = (torch.nn.Parameter(torch.zeros(1, dtype=torch.float64)) for _ in range(2))
        opt = make([{"params": [layer]}, {"params": [head]}])
        for number in range(6):
            head.grad = torch.ones_like(head)
            layer.grad = torch.ones_like(layer) if number >= 4 else None
            opt.step()
            if number == 4:
                first = layer.item()
        return first

    with pytest.warns(UserWarning, match="a parameter that gets its first gradient now counts the steps of the others") as said:
        first = late(lambda groups: fo.torch_optim.Optimizer(groups, fo.chain(fo.clip_by_global_norm(9.0), fo.adam(None)), lr=0.1))
    assert len(said) == 1
    assert first == pytest.approx(-0.1 * (0.1 / (1 - 0.9**5)) / (0.001 / (1 - 0.999**5)) ** 0.5, rel=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert late(lambda groups: fo.torch_optim.adam(groups, lr=0.1)) == pytest.approx(-0.1, rel=1e-6)
        late(lambda groups: fo.torch_optim.Optimizer(groups, fo.chain(fo.clip_by_global_norm(9.0), fo.sgd(None)), lr=0.1))
