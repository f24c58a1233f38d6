"""Ahead of time: what stands at the door, and what happens where the engine cannot be had."""

import warnings

import pytest
import torch

import funcopt as fo
from funcopt.core import ahead

pytestmark = pytest.mark.skipif(ahead.missing() is not None, reason=f"no ahead-of-time engine: {ahead.missing()}")


def bowl(p, x):
    return ((p["w"] - x) ** 2).sum() + (p["b"] ** 2).sum()


def fresh_params():
    return {"w": torch.tensor([1.0, -2.0, 3.0]), "b": torch.tensor([[0.5, 0.25]])}


def test_equals_the_pure_step_and_makes_a_graph_for_each_form_of_the_batch():
    tx = fo.chain(fo.clip_by_global_norm(1.0), fo.adamw(fo.schedules.cosine_decay_schedule(0.1, 10)))
    step = fo.make_step(bowl, tx, compile="ahead", donate=True)
    plain = fo.make_step(bowl, tx)
    (params, state), (expected, expected_state) = step.init(fresh_params()), plain.init(fresh_params())
    assert "ahead of time" in repr(step)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for x in (torch.zeros(3), torch.ones(3), torch.zeros(1), torch.full((3,), 2.0)):
            params, state, loss = step(params, state, x)
            expected, expected_state, expected_loss = plain(expected, expected_state, x)
            torch.testing.assert_close((params, loss), (expected, expected_loss))
    torch.testing.assert_close(fo.tree.leaves(state), fo.tree.leaves(expected_state))


def test_what_is_no_tensor_goes_through_torch_compile_with_a_sentence():
    step = fo.make_step(lambda p, k: (p**k).sum(), fo.sgd(0.1), compile="ahead")
    params, state = step.init(torch.tensor([3.0]))
    with pytest.warns(UserWarning, match=r"runs through torch.compile, since ahead of time it takes tensors only, and of its arguments '1.0.0' is 2"):
        params, state, _ = step(params, state, 2)
    assert params.item() == pytest.approx(2.4)
    assert "compiled" in repr(step)
    params, state, _ = step(params, state, 3)  # another number is compiled for: by itself, where no graph can be made for all
    assert params.item() == pytest.approx(2.4 - 0.1 * 3 * 2.4**2)
    assert "compiled" in repr(step)


def shifting():
    """A state whose leaves move by one place: the trap of donation."""

    def init(params):
        return {"new": torch.zeros(3, dtype=torch.float64), "old": torch.ones(3, dtype=torch.float64), "count": torch.zeros((), dtype=torch.float64)}

    def update(updates, state, params=None, **extra):
        return updates, {"new": state["new"] + 1, "old": state["new"], "count": state["count"] + state["old"].sum()}

    return fo.GradientTransformation(init, update, name="shifting")


def test_moved_leaves_and_0_dim_ones_are_written_after_the_graph():
    step = fo.make_step(bowl, fo.chain(shifting(), fo.sgd(0.1)), compile="ahead", donate=True)
    params, state = step.init(fresh_params())
    for _ in range(3):
        params, state, _ = step(params, state, torch.zeros(3))
    moved = state[0]
    assert moved["new"].tolist() == [3.0] * 3
    assert moved["old"].tolist() == [2.0] * 3
    assert moved["count"].item() == 3.0 + 0.0 + 3.0  # the sums of [1, 1, 1], [0, 0, 0], [1, 1, 1]


def add_one(params, state, batch, extra):
    return {"a": params["a"] + 1, "b": params["b"] + 1}, state, ()


def test_donated_leaves_may_not_overlap():
    run = ahead.ahead_of_time(add_one, "adding", donate=True)
    with pytest.raises(ahead.Unavailable, match=r"'0.0.a' is one number seen many times"):
        run({"a": torch.ones(1).expand(3), "b": torch.ones(3)}, (), (), {})
    both = torch.ones(3)
    with pytest.raises(ahead.Unavailable, match=r"'0.0.a' and '0.0.b' share memory"):
        run({"a": both, "b": both}, (), (), {})
    assert both.tolist() == [1.0] * 3


def test_a_graph_that_differs_from_its_function_is_not_used(monkeypatch):
    original = ahead._build

    def broken(step, arguments, kept):
        graph = original(step, arguments, kept)
        return graph._replace(call=lambda leaves: (leaves[0].add_(0.5), graph.call(leaves))[1])

    monkeypatch.setattr(ahead, "_build", broken)
    run = ahead.ahead_of_time(add_one, "adding", donate=True)
    params = {"a": torch.ones(3), "b": torch.ones(3)}
    with pytest.raises(ahead.Unavailable, match=r"its graph and the pure function differ at '0.0.a'"):
        run(params, (), (), {})
    assert params["a"].tolist() == [1.0] * 3


def test_too_many_forms_end_in_a_sentence(monkeypatch):
    monkeypatch.setattr(ahead, "MANY_FORMS", 1)
    run = ahead.ahead_of_time(lambda p, s, batch, extra: (p, s, batch[0].sum()), "summing", donate=False)
    run(torch.ones(2), (), (torch.ones(2),), {})
    with pytest.raises(ahead.Unavailable, match="more than 1 shapes"):
        run(torch.ones(2), (), (torch.ones(3),), {})


def test_without_the_engine_torch_compile_does_it(monkeypatch):
    monkeypatch.setattr(ahead, "missing", lambda: "this torch does not offer it")
    step = fo.make_step(bowl, fo.sgd(0.25), compile="ahead", donate=True)
    params, state = step.init(fresh_params())
    with pytest.warns(UserWarning, match="since ahead of time this torch does not offer it"):
        params, state, _ = step(params, state, torch.zeros(3))
    assert params["w"].tolist() == [0.5, -1.0, 1.5]


def test_leaves_of_others_are_looked_at_in_every_call():
    """`module.to(dtype)` sets the data of a parameter, which stays the object it was."""
    run = ahead.ahead_of_time(add_one, "adding", donate=True)
    params = {"a": torch.ones(3), "b": torch.ones(3)}
    run(params, (), (), {})
    params["a"].data = torch.ones(3, dtype=torch.float64)
    run(params, (), (), {})
    assert params["a"].tolist() == [2.0] * 3 and params["b"].tolist() == [3.0] * 3
