"""compress_state: which trees are held, in how many bytes, how near the run stays, that it resumes, and its errors."""

import pytest
import torch

import funcopt as fo
from funcopt.core.compression.held import HELD
from funcopt.core.states.find import children
from tests.helpers import assert_trees_close, assert_trees_equal, gradients_at, run, small_params

FORMS = ("bf16", "bf16+8", "int8")
BYTES = {"bf16": 2, "bf16+8": 3, "int8": 1 + 4 / 256}


def seeded(tx, form):
    return fo.compress_state(tx, form, **({"key": 0} if form == "bf16" else {}))


def held_in(state):
    """The names of the fields that are held in fewer bytes."""
    found = []

    def walk(name, part):
        if isinstance(part, HELD):
            found.append(name)
            return
        for child, inner in children(part):
            walk(child, inner)

    walk("", state)
    return found


@pytest.mark.parametrize("form", FORMS)
def test_moments_take_the_bytes_that_are_promised(form):
    params = {"w": torch.zeros(64, 32), "b": torch.zeros(256)}
    state = seeded(fo.adamw(0.1), form).init(params)
    size = sum(
        x.numel() * x.element_size()
        for x in fo.tree.leaves(fo.find_all(state, "mu") + fo.find_all(state, "nu"))
        if isinstance(x, torch.Tensor)
    )
    assert size == 2 * BYTES[form] * fo.tree.size(params)
    assert held_in(state) == ["mu", "nu"]
    assert fo.find(state, "count").dtype == torch.int64


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_opened_they_have_the_form_of_the_state_without_compression(form, dtype):
    params = small_params(dtype)
    plain, tx = fo.adamw(0.1), seeded(fo.adamw(0.1), form)
    _, state = tx.update(gradients_at(0, params), tx.init(params), params)
    opened = fo.decompress_state(state).inner_state
    assert fo.tree.structure(opened) == fo.tree.structure(plain.init(params))
    assert {x.dtype for x in fo.tree.leaves(fo.find(opened, "mu"))} == {torch.float32}


@pytest.mark.parametrize(
    "make", [lambda: fo.adamw(0.05), lambda: fo.sgd(0.05, momentum=0.9), lambda: fo.lion(0.01), lambda: fo.rmsprop(0.01)]
)
@pytest.mark.parametrize(("form", "near"), [("bf16", 2e-2), ("bf16+8", 1e-3), ("int8", 5e-2)])
def test_a_run_stays_near_the_one_without_compression(make, form, near):
    params = small_params(torch.float32)
    assert_trees_close(run(seeded(make(), form), 30, params), run(make(), 30, params), rtol=near, atol=near)


def test_a_slow_average_moves_by_chance_where_rounding_to_the_nearest_stands_still():
    # One share of a thousand is less than half a place of bfloat16 (2^-9): nearest would stay at 1 for ever.
    params = torch.zeros(4000)
    tx = fo.compress_state(fo.ema(0.999, debias=False), "bf16", key=0)
    state = tx.init(params)
    state = fo.replace(state, "ema", lambda held: held._replace(value=torch.ones(4000, dtype=torch.bfloat16)))
    for _ in range(100):
        _, state = tx.update(torch.zeros(4000), state)
    mean = fo.find(fo.decompress_state(state), "ema").mean().item()
    assert mean == pytest.approx(0.999**100, abs=2e-3)
    assert (torch.ones(1) * 0.999).bfloat16() == 1


def test_the_second_moment_of_a_small_entry_does_not_vanish_beside_a_large_one():
    params = torch.zeros(2)
    tx = fo.compress_state(fo.adam(0.1, b1=0.0), "int8")
    state = tx.init(params)
    for _ in range(50):
        updates, state = tx.update(torch.tensor([1.0, 1e-5]), state, params)
    assert fo.find(fo.decompress_state(state), "nu")[1] > 0
    assert updates.abs().max() < 0.11  # a moment of zero would have left a step of thirty


@pytest.mark.parametrize("form", FORMS)
def test_it_resumes_bit_for_bit(form, tmp_path):
    params, tx = small_params(torch.float32), seeded(fo.adamw(0.05), form)
    state = tx.init(params)
    for step in range(3):
        _, state = tx.update(gradients_at(step, params), state, params)
    fo.checkpoint.save(tmp_path / "state.pt", state)
    loaded = fo.checkpoint.load(tmp_path / "state.pt", tx.init(params))
    for step in range(3, 6):
        ours, loaded = tx.update(gradients_at(step, params), loaded, params)
        theirs, state = tx.update(gradients_at(step, params), state, params)
        assert_trees_equal(ours, theirs)
    assert_trees_equal(loaded, state)


@pytest.mark.parametrize("form", FORMS)
def test_the_torch_optimizer_saves_and_resumes_it(form):
    def made(weight):
        model = torch.nn.Linear(3, 5)
        model.weight.data = weight.clone()
        model.bias.data.zero_()
        return model, fo.torch_optim.Optimizer(model.parameters(), seeded(fo.adamw(0.05), form))

    def train(model, opt, steps):
        for _ in range(steps):
            opt.zero_grad()
            model(torch.linspace(-1, 1, 12).view(4, 3)).square().mean().backward()
            opt.step()

    weight = torch.linspace(-1, 2, 15).view(5, 3)
    model, opt = made(weight)
    train(model, opt, 3)
    kept = {name: x.dtype for name, x in opt.state[model.weight].items()}
    assert set(kept.values()) <= {torch.bfloat16, torch.int8, torch.uint8, torch.float32} and torch.float32 not in {
        x.dtype for x in opt.state[model.weight].values() if x.shape == model.weight.shape
    }
    other, again = made(model.weight.data)
    other.bias.data = model.bias.data.clone()
    again.load_state_dict(opt.state_dict())
    train(model, opt, 3)
    train(other, again, 3)
    assert torch.equal(model.weight, other.weight) and torch.equal(model.bias, other.bias)


def test_what_is_no_moment_stays():
    params = {"w": torch.ones(40, 30)}
    assert held_in(fo.compress_state(fo.average_params(fo.adam(0.1)), "int8").init(params)) == ["mu", "nu"]
    assert held_in(fo.compress_state(fo.average_params(fo.adam(0.1)), "bf16+8").init(params)) == ["average", "mu", "nu"]
    assert held_in(fo.compress_state(fo.lookahead(fo.sgd(0.1, momentum=0.9), 3, 0.5), "int8").init(params)) == ["trace"]
    assert held_in(fo.compress_state(fo.adam(0.1, mu_dtype=torch.bfloat16), "bf16+8").init(params)) == ["nu"]
    controlled = fo.compress_state(fo.aees(fo.adam(0.1), (0.5, 1.0), seed=0), "int8")
    assert held_in(controlled.init(params)) == ["mu", "nu"]


def test_a_bare_tensor_is_not_taken_for_a_table_of_its_length():
    def init(params):
        return {"table": torch.zeros(3, dtype=torch.float64), "moment": fo.tree.zeros_like(params)}

    tx = fo.GradientTransformation(init, lambda updates, state, params=None, **extra: (updates, state), name="with a table")
    assert held_in(fo.compress_state(tx, "int8").init(torch.zeros(3, dtype=torch.float64))) == ["moment"]


def test_masks_and_groups_inside_are_held_too():
    params = {"a": {"w": torch.ones(4, 4), "b": torch.ones(4)}}
    tx = fo.compress_state(fo.partition({"*.b": fo.sgd(0.1, momentum=0.9), "*": fo.adam(0.1)}, by="path"), "bf16+8")
    state = tx.init(params)
    assert held_in(state) == ["trace", "mu", "nu"]
    updates, _ = tx.update(params, state, params)
    plain = fo.partition({"*.b": fo.sgd(0.1, momentum=0.9), "*": fo.adam(0.1)}, by="path")
    assert_trees_close(updates, plain.update(params, plain.init(params), params)[0], rtol=1e-4, atol=1e-6)


def test_hooks_see_floats_and_leave_what_they_do_not_touch():
    params = {"w": torch.ones(300)}
    tx = fo.compress_state(fo.aees(fo.adam(0.1), (0.5, 1.0), seed=0), "int8")
    state = tx.init(params)
    _, state = tx.update({"w": torch.linspace(-1, 0.3, 300)}, state, params, loss=1.0)
    after = fo.control(tx, state, "finalize")
    assert_trees_equal(fo.find(after, "mu"), fo.find(state, "mu"))
    assert fo.find(after, "episode") == 1


def test_averages_are_read_as_floats():
    params = {"w": torch.linspace(0, 1, 5)}
    tx = fo.compress_state(fo.average_params(fo.sgd(1.0), power=0.0), "bf16+8")
    state = tx.init(params)
    updates, state = tx.update({"w": torch.full((5,), -0.5)}, state, params)
    torch.testing.assert_close(fo.averaged_params(state, params)["w"], params["w"] + 0.5, rtol=2.0**-16, atol=0)


@pytest.mark.parametrize("form", ["bf16", "bf16+8"])
def test_derivatives_pass_as_those_of_the_exact_state(form):
    def after(lr, tx_of):
        params = torch.tensor([1.0, -2.0])
        tx = tx_of(fo.sgd(lr, momentum=0.9))
        state = tx.init(params)
        for _ in range(3):
            updates, state = tx.update(params, state, params)
            params = fo.apply_updates(params, updates)
        return params.square().sum()

    lr = torch.tensor(0.1)
    ours, theirs = (torch.func.grad(lambda lr, of=of: after(lr, of))(lr) for of in (lambda tx: seeded(tx, form), lambda tx: tx))
    torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=0)


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match="compress_state: form must be one of"):
        fo.compress_state(fo.sgd(0.1), "int4")
    with pytest.raises(ValueError, match="compress_state: key must be left out for 'int8', which draws nothing, got 3"):
        fo.compress_state(fo.sgd(0.1), "int8", key=3)
    with pytest.raises(
        TypeError, match="compress_state: leaves must be real, got torch.complex64 at 'z'; wrap this in split_real_and_imaginary"
    ):
        fo.compress_state(fo.sgd(0.1, momentum=0.9), "int8").init({"z": torch.zeros(2, dtype=torch.complex64)})
    whole = fo.split_real_and_imaginary(fo.compress_state(fo.sgd(0.1, momentum=0.9), "int8"))
    assert held_in(whole.init({"z": torch.zeros(2, dtype=torch.complex64)})) == ["trace"]

    def growing(updates, state, params=None, **extra):
        return updates, fo.EmptyState()

    grows = fo.GradientTransformation(lambda params: fo.TraceState(trace=fo.tree.zeros_like(params)), growing, name="grows")
    tx = fo.compress_state(grows, "bf16+8")
    with pytest.raises(ValueError, match="compress_state: the state of grows must keep the form that init gave it, but"):
        tx.update(torch.ones(2), tx.init(torch.ones(2)))
