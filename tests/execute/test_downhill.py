"""Whoever turns updates into params warns where nothing turns them downhill, and only there."""

import warnings

import pytest
import torch

import funcopt as fo
from funcopt.execute.downhill import turned

PARAMS = {"a": torch.tensor([1.0, -2.0]), "b": torch.tensor([3.0])}


def loss(params):
    return sum((p**2).sum() for p in params.values())


def mine(sign, **declared):
    def update(updates, state, params=None, **extra):
        return fo.tree.scale(sign, updates), state

    return fo.GradientTransformation(lambda params: fo.EmptyState(), update, name="mine", **declared)


def in_a_step(tx):
    fo.make_step(loss, tx).init(PARAMS)


def in_the_shim(tx):
    fo.torch_optim.Optimizer([(name, torch.nn.Parameter(p.clone())) for name, p in PARAMS.items()], tx)


def in_a_population(tx):
    fo.population.make_step(loss, tx).init(fo.tree.map(lambda p: torch.stack([p, p]), PARAMS))


EVERYWHERE = pytest.mark.parametrize("run", [in_a_step, in_the_shim, in_a_population], ids=lambda run: run.__name__)

CLIMBS = {
    "directions alone": lambda: fo.chain(fo.clip(1.0), fo.scale_by_adam()),
    "one link": lambda: fo.scale_by_adam(),
    "a positive factor": lambda: fo.chain(fo.scale_by_adam(), fo.scale(0.1)),
    "in wrappers": lambda: fo.apply_if_finite(fo.lookahead(fo.chain(fo.scale_by_adam(), fo.trace(0.9)), 5, 0.5), 3),
    "a label": lambda: fo.partition({"a": fo.sgd(0.1), "b": fo.scale_by_adam()}, by="path"),
    "what a mask passes by": lambda: fo.masked(fo.sgd(0.1), {"a": True, "b": False}),
    "its own, declared": lambda: fo.chain(mine(0.1, turns=False), fo.scale_by_adam()),
}
DESCENDS = {
    "lr_scale": lambda: fo.chain(fo.clip(1.0), fo.scale_by_adam(), fo.lr_scale(0.1)),
    "a negative factor": lambda: fo.chain(fo.scale_by_adam(), fo.scale(-0.1)),
    "turned twice on purpose": lambda: fo.chain(fo.scale(-1.0), fo.sgd(0.1)),
    "a schedule below 0": lambda: fo.chain(fo.scale_by_adam(), fo.scale_by_schedule(lambda count: -0.1 / (count + 1))),
    "groups": lambda: fo.partition({"a": fo.sgd(0.1), "b": fo.adam(0.1)}, by="path"),
    "one that is frozen": lambda: fo.selective_transform(fo.sgd(0.1), freeze_mask="b"),
    "a mask inside": lambda: fo.chain(fo.masked(fo.scale_by_adam(), "a"), fo.lr_scale(0.1)),
    "a roulette": lambda: fo.chain(fo.roulette({"adam": fo.Member(fo.adam(0.1))}, seed=0), fo.lr_scale()),
    "its own, undeclared": lambda: fo.chain(fo.scale_by_adam(), mine(-0.1)),
    "its own, declared": lambda: mine(0.1, turns=True),
    "what cannot be known": lambda: fo.chain(fo.scale_by_adam(), mine(torch.tensor(float("nan")))),
}


@EVERYWHERE
@pytest.mark.parametrize("make", CLIMBS.values(), ids=list(CLIMBS))
def test_a_step_that_nobody_turns_is_warned_of(make, run):
    with pytest.warns(UserWarning, match=r"turns (downhill|the updates of '\w' downhill), so that .* climb.*lr_scale\(lr\) last"):
        run(make())


@EVERYWHERE
@pytest.mark.parametrize("make", DESCENDS.values(), ids=list(DESCENDS))
def test_what_goes_down_or_may_go_down_is_not_warned_of(make, run):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(make())


def test_a_link_of_ones_own_that_is_seen_to_climb_is_warned_of_and_not_refused():
    for tx in (
        fo.chain(fo.scale_by_adam(), mine(0.1)),
        fo.chain(fo.scale_by_adam(), fo.scale_by_schedule(lambda count: 0.1 / (count + 1))),
    ):
        with pytest.warns(UserWarning, match="the updates of chain were seen to point the way the gradient points"):
            in_a_step(tx)


@EVERYWHERE
def test_the_warning_names_the_leaves_and_points_at_the_caller(run):
    with pytest.warns(UserWarning, match=r": nothing in masked \w+ turns the updates of 'b' downhill") as seen:
        run(fo.masked(fo.sgd(0.1), {"a": True, "b": False}))
    assert seen[0].filename == __file__


def test_searches_whose_center_would_climb_are_warned_of():
    with pytest.warns(UserWarning, match=r"es.openai_es: nothing in scale_by_adam turns downhill"):
        fo.es.openai_es(optimizer=fo.scale_by_adam())


def test_who_turns_is_asked_for_each_leaf_and_each_link():
    tx = fo.chain(fo.masked(fo.scale(-1.0), "a"), fo.scale_by_adam())
    assert turned(tx, PARAMS) == [True, False]
    assert turned(fo.chain(tx, fo.lr_scale(0.1)), PARAMS) == [True, True]
    assert turned(fo.chain(tx, mine(1.0)), PARAMS) == [True, None]
