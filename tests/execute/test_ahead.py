"""Ahead of time: what stands at the door, and what happens where the engine cannot be had."""

import warnings

import pytest
import torch

import funcopt as fo
from funcopt.execute.engines import ahead
from tests.execute.test_donation import TRAPS, turned
from tests.helpers import assert_trees_close, assert_trees_equal

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
    with pytest.warns(
        UserWarning, match=r"runs through torch.compile, since ahead of time it takes tensors only, and of its arguments '1.0.0' is 2"
    ):
        params, state, _ = step(params, state, 2)
    assert params.item() == pytest.approx(2.4)
    assert "compiled" in repr(step)
    params, state, _ = step(params, state, 3)  # another number is compiled for: by itself, where no graph can be made for all
    assert params.item() == pytest.approx(2.4 - 0.1 * 3 * 2.4**2)
    assert "compiled" in repr(step)


COMPLEX = {name: torch.tensor([number, 1j]) for name, number in (("a", 1.0), ("b", 2.0), ("c", 3.0))}


def all_traps(params, state, batch, extra):
    """What a compiler reads after it was overwritten, in one graph."""
    moved = {name: f(params[name]) for name, (f, _) in TRAPS.items()}
    return {**moved, "complex numbers in other places": turned(params["complex numbers in other places"])}, state, ()


def test_old_leaves_in_other_places_are_read_before_they_are_written():
    params = fo.tree.clone({name: state for name, (_, state) in TRAPS.items()} | {"complex numbers in other places": COMPLEX})
    expected = fo.tree.clone(params)
    run = ahead.ahead_of_time(all_traps, "traps", donate=True)
    for _ in range(3):
        run(params, (), (), {})
        expected = fo.tree.clone(all_traps(expected, (), (), {})[0])
    assert_trees_equal(params, expected)


def test_without_the_pass_that_keeps_reads_such_a_graph_is_not_used(monkeypatch):
    monkeypatch.setattr(ahead, "last_passes", dict)
    params = fo.tree.clone({name: state for name, (_, state) in TRAPS.items()} | {"complex numbers in other places": COMPLEX})
    with pytest.raises(ahead.Unavailable, match="its graph and the pure function differ"):
        ahead.ahead_of_time(all_traps, "traps", donate=True)(params, (), (), {})


def add_one(params, state, batch, extra):
    return {"a": params["a"] + 1, "b": params["b"] + 1}, state, ()


def test_leaves_with_gaps_and_repetitions_are_compared_as_what_they_are():
    step = fo.make_step(bowl, fo.sgd(0.1), compile="ahead", donate=True)
    step.init(fresh_params())
    gapped = {"w": torch.arange(9.0)[::3], "b": torch.arange(40.0).reshape(4, 10)[1:3, 2:8:2]}
    expected = {"w": gapped["w"] - 0.2 * (gapped["w"] - 1), "b": 0.8 * gapped["b"]}
    state = fo.sgd(0.1).init(gapped)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it does not fall back
        params, state, _ = step(gapped, state, torch.ones(()).expand(3))
        torch.testing.assert_close(params, expected)
        step(params, state, torch.ones(4, 3)[:, 1][:3])


def product(p, x):
    return ((p["w"] * x).sum() - 1) ** 2


def test_a_batch_that_is_negated_when_it_is_read_is_that_batch():
    z = torch.complex(torch.zeros(3), torch.tensor([1.0, -2.0, 0.25]))
    step = fo.make_step(product, fo.sgd(0.1), compile="ahead", flat=False)
    params, state = step.init({"w": torch.ones(3)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for x in (z.imag, z.conj().imag, z.imag):  # of one form
            loss = step(params, state, x)[2]
            assert loss.item() == pytest.approx((x.sum().item() - 1) ** 2)


def test_a_leaf_that_is_negated_when_it_is_read_is_refused():
    run = ahead.ahead_of_time(add_one, "adding", donate=True)
    w = torch.complex(torch.zeros(3), torch.ones(3)).conj().imag  # -1, and 1 in memory
    with pytest.raises(ahead.Unavailable, match=r"it works on memory alone, and a lazy view is '0.0.a'; call resolve_neg\(\)"):
        run({"a": w, "b": torch.ones(3)}, (), (), {})


def test_a_gradient_is_wanted_through_the_step():
    step = fo.make_step(product, fo.sgd(0.1), compile="ahead", flat=False)
    params, state = step.init({"w": torch.ones(3)})
    x = torch.ones(3)
    step(params, state, x)
    w = torch.ones(3, requires_grad=True)
    with torch.no_grad():
        step({"w": w}, state, x)
    assert "ahead of time" in repr(step)
    with pytest.warns(UserWarning, match=r"a gradient is wanted through it, of '0.0.w'; call detach\(\)"):
        new, _, _ = step({"w": w}, state, x)
    (through,) = torch.autograd.grad(new["w"][0], w)
    assert through.tolist() == pytest.approx([0.8, -0.2, -0.2])  # w - 0.2 (sum(w) - 1): 1 - 0.2 for the entry itself


def test_a_donated_step_is_detached():
    step = fo.make_step(product, fo.sgd(0.1), compile="ahead", flat=False, donate=True)
    params, state = step.init({"w": torch.ones(3)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for wanted in (False, True):
            params, state, loss = step(params, state, torch.ones(3, requires_grad=wanted))
    assert not loss.requires_grad and not params["w"].requires_grad


def test_what_is_read_may_not_be_what_is_written():
    def swapped(params, state, batch, extra):
        return {"a": params["a"] + batch[0], "b": params["b"] + batch[1]}, state, ()

    run = ahead.ahead_of_time(swapped, "swapping", donate=True)
    a, b = torch.zeros(3), torch.ones(3)
    with pytest.raises(ahead.Unavailable, match=r"the donated leaf '0.0.b' and '1.0.0' share memory"):
        run({"a": a, "b": b}, (), (b, a), {})
    assert a.tolist() == [0.0] * 3


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


def test_sums_of_few_entries_inside_one_another_finish_compiling():
    """Rows of three are normalised, projected, and normalised again; written out in each place they took hours."""
    tx, params = fo.nero(0.1, constraints=True), {"w": torch.arange(6.0).sin().reshape(2, 3)}
    step = fo.make_step(lambda p: (p["w"] - 0.3).square().sum(), tx, compile="ahead")
    held, plain = step.init(params), (params, tx.init(params))
    for _ in range(2):
        held = step(*held)[:2]
        updates, state = tx.update(fo.tree.map(lambda p: 2 * (p - 0.3), plain[0]), plain[1], plain[0])
        plain = fo.apply_updates(plain[0], updates), state
    assert_trees_close(step.params(held[0]), plain[0], rtol=1e-5, atol=1e-7)
