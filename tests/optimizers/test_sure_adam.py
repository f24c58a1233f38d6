"""scale_by_sure_adam: two Adams at the ends of `sureness`, a mean of squares between them, and its errors."""

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

import funcopt as fo
from tests.helpers import assert_trees_close

F64 = torch.float64


def directions(tx, gradients, sureness=None):
    """The direction of every step; `sureness` of each, where it is heard."""
    state, found = tx.init(gradients[0]), []
    for g, q in zip(gradients, sureness or [None] * len(gradients), strict=True):
        heard = {} if q is None else {"signals": {"sureness": torch.tensor(q, dtype=F64)}}
        direction, state = tx.update(g, state, **heard)
        found.append(direction)
    return found


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("q, b2", [(0.0, 0.99), (0.8, 0.99), (1.0, 0.7), (0.9, 1 - math.sqrt(0.01 * 0.3))])
def test_where_sureness_stays_it_is_adam(q, b2, nesterov):
    gradients = [torch.randn(4, dtype=F64, generator=torch.Generator().manual_seed(t)) for t in range(20)]
    ours = directions(fo.scale_by_sure_adam(0.8, 0.99, 0.7, nesterov=nesterov), gradients, [q] * 20)
    assert_trees_close(ours, directions(fo.scale_by_adam(0.8, b2, nesterov=nesterov), gradients))


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(-3, 3)), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_the_second_moment_is_a_mean_whatever_was_said(steps):
    """Its weights sum to one: squares that are all alike are what it holds, and no others lie outside of those it has seen."""
    sureness = [q for q, _ in steps]
    tx = fo.scale_by_sure_adam(0.0, eps=0.0)
    for alike in directions(tx, [torch.full((1,), 3.0, dtype=F64)] * len(steps), sureness):
        assert float(alike) == pytest.approx(1.0)
    gradients = [torch.tensor([1.0 + abs(g)], dtype=F64) for _, g in steps]
    sizes = [float(g) / float(d) for g, d in zip(gradients, directions(tx, gradients, sureness), strict=True)]
    for t, size in enumerate(sizes):
        seen = [float(g) for g in gradients[: t + 1]]
        assert min(seen) * (1 - 1e-9) <= size <= max(seen) * (1 + 1e-9)


def test_what_is_sure_forgets_sooner():
    spike = [torch.full((1,), g, dtype=F64) for g in [100.0] + [1.0] * 30]
    noisy, sure = [directions(fo.scale_by_sure_adam(0.0), spike, [q] * 31)[-1] for q in (0.5, 1.0)]
    assert 2 * float(noisy) < float(sure)


def test_nadamw_and_rate_free_take_it_where_nothing_else_is_said():
    def links(tx):
        return [link.name for link in tx.links]

    assert links(fo.nadamw(0.1, b2_sure=0.9))[0] == "scale_by_sure_adam"
    params = torch.ones(2)
    for said, sure in [({}, True), ({"b2_sure": None}, False), ({"b2": 0.99}, False), ({"momentum_decay": 0.004}, False)]:
        assert bool(fo.find_all(fo.rate_free(**said).init(params), fo.ScaleBySureAdamState)) == sure
    assert fo.find_all(fo.rate_free(b2=0.99, b2_sure=0.8).init(params), fo.ScaleBySureAdamState)


def test_as_a_torch_optimizer_it_is_the_same():
    w = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=F64))
    opt, tx = fo.torch_optim.rate_free([w]), fo.rate_free()
    params = w.detach().clone()
    state = tx.init(params)
    for _ in range(40):
        updates, state = tx.update(2 * params, state, params)
        params = fo.apply_updates(params, updates)
        opt.zero_grad()
        (w**2).sum().backward()
        opt.step()
    torch.testing.assert_close(w.detach(), params)
    assert opt.param_groups[0]["b2_sure"] == 0.9


@pytest.mark.parametrize("given, b2_sure", [({"betas": (0.8, 0.99)}, None), ({"b2": 0.99}, None), ({"b2": 0.99, "b2_sure": 0.8}, 0.8)])
def test_as_a_torch_optimizer_one_beta_for_all_is_that_of_all(given, b2_sure):
    group = fo.torch_optim.rate_free([torch.nn.Parameter(torch.zeros(2))], **given).param_groups[0]
    assert (group["betas"][1], group["b2_sure"]) == (0.99, b2_sure)


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"scale_by_sure_adam: b2_sure must be in \[0, 1\), got 1.0"):
        fo.scale_by_sure_adam(b2_sure=1.0)
    with pytest.raises(ValueError, match="nadamw: takes momentum_decay or b2_sure, got 0.004 and 0.9; leave one of them out"):
        fo.nadamw(0.1, momentum_decay=0.004, b2_sure=0.9)
    with pytest.raises(ValueError, match="no link says 'sureness'"):
        fo.nadamw(0.1, b2_sure=0.9).init(torch.zeros(2))
    with pytest.raises(ValueError, match="needs 'sureness' and nobody to its left says it; put find_rate"):
        tx = fo.scale_by_sure_adam()
        tx.update(torch.ones(2), tx.init(torch.ones(2)))
