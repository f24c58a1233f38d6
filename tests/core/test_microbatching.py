"""Microbatches: the function on the whole batch, in every kind of accumulation; what is held; what is refused."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_close

micro = fo.microbatching
MEAN, SUM, RUNNING, CONCAT = tuple(micro.AccumulationType)
X = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(12, 2)
W = {"w": torch.tensor([0.5, -2.0], dtype=torch.float64)}


def outputs(w, x):
    y = x @ w["w"]
    return {"each": y, "sum": y.sum(), "mean": y.mean()}


@pytest.mark.parametrize("size", [1, 3, 12])
def test_equals_the_whole_batch(size):
    parts = micro.microbatch(outputs, 1, size, {"each": CONCAT, "sum": SUM, "mean": RUNNING})
    assert_trees_close(parts(W, X), outputs(W, X), rtol=1e-12)


def test_an_axis_of_its_own_and_an_argument_by_name():
    parts = micro.microbatch(lambda w, *, x, s: w["w"] @ x + s, (), 4, CONCAT, argnames=("x", "s"), in_dims=(1, 0))
    s = torch.arange(12.0, dtype=torch.float64)
    torch.testing.assert_close(parts(W, x=X.mT, s=s), X @ W["w"] + s)


def test_an_early_end_leaves_the_other_parts_out():
    # Parts of 3 rows: part 0 has rows 0, 4, 8; part 1 rows 1, 5, 9.
    y = X @ W["w"]

    def of(kind):
        one = (lambda x: x @ W["w"]) if kind is CONCAT else (lambda x: (x @ W["w"]).mean())
        return micro.microbatch(one, 0, 3, kind, num_real_microbatches=2)(X)

    torch.testing.assert_close(of(CONCAT), torch.where(torch.arange(12) % 4 < 2, y, 0))
    torch.testing.assert_close(of(RUNNING), y[torch.arange(12) % 4 < 2].mean())
    torch.testing.assert_close(of(MEAN), y[torch.arange(12) % 4 < 2].mean() / 2)


def test_an_accumulator_of_ones_own():
    def larger(carry, x, index):
        return torch.maximum(carry, x)

    largest = micro.Accumulator(lambda x: torch.full_like(x, -torch.inf), larger, lambda carry: carry, lambda xs: xs.amax(0))
    torch.testing.assert_close(micro.microbatch(lambda x: x.max(), 0, 4, largest)(X), X.max())
    torch.testing.assert_close(micro.micro_vmap(lambda x: x.max(), microbatch_size=4, accumulator=largest)(X), X.max())


def test_no_more_than_a_part_is_handed_over_and_a_part_is_a_view():
    seen = []

    def fun(x):
        seen.append((x.shape[0], x.untyped_storage().data_ptr()))
        return x.sum()

    micro.microbatch(fun, 0, 2)(X)
    assert seen == [(2, X.untyped_storage().data_ptr())] * 6


@pytest.mark.parametrize("size", [None, 3])
def test_maps_over_examples(size):
    mapped = micro.micro_vmap(lambda w, x, *, s: (x @ w["w"] + s, None), (None, 0), microbatch_size=size)
    s = torch.arange(12.0, dtype=torch.float64)
    values, nothing = mapped(W, X, s=s)
    torch.testing.assert_close(values, X @ W["w"] + s)
    assert nothing is None
    total = micro.micro_vmap(lambda x: x.sum(), microbatch_size=size, accumulator=MEAN)(X)
    torch.testing.assert_close(total, X.sum(1).mean())


@pytest.mark.parametrize("size", [None, 4])
def test_clipped_gradients_of_examples_are_those_of_per_example_global_norm_clip(size):
    def loss(w, x):
        return (x @ w["w"]).square().sum(), {"seen": x.sum()}

    def clipped(g):
        return fo.tree.scale(torch.clamp(0.5 / fo.tree.norm(g), max=1.0), g)

    grads = micro.micro_grad(loss, has_aux=True, microbatch_size=size, transform_fn=clipped, metrics_fn=fo.tree.norm)
    total, each = grads(W, X)
    batched = torch.func.vmap(torch.func.grad(lambda w, x: loss(w, x)[0]), (None, 0))(W, X)
    expected, _ = fo.per_example_global_norm_clip(batched, 0.5)
    assert_trees_close(total, expected)
    torch.testing.assert_close(each.metrics, batched["w"].norm(dim=1))
    torch.testing.assert_close(each.values, (X @ W["w"]).square())
    torch.testing.assert_close(each.aux["seen"], X.sum(1))


def test_batch_axis_in_two_is_a_view_in_the_order_of_the_parts():
    cut = micro.reshape_batch_axis({"x": X}, 3)["x"]
    assert cut.shape == (4, 3, 2) and torch.equal(cut[1], X[1::4]) and cut.untyped_storage().data_ptr() == X.untyped_storage().data_ptr()
    along = torch.arange(6).reshape(1, 6)
    assert torch.equal(micro.reshape_batch_axis(along, 2, axis=-1), micro.reshape_batch_axis(along, 2, axis=1))


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match="microbatch: microbatch_size must divide the batch, got 5 and a batch of 12"):
        micro.microbatch(lambda x: x.sum(), 0, 5)(X)
    with pytest.raises(ValueError, match="microbatch: batch axes must be of one length, got argument 0 12, argument 1 2"):
        micro.microbatch(lambda x, y: x.sum(), (0, 1), 2)(X, X.mT)
    with pytest.raises(ValueError, match="num_real_microbatches must be at most the 4 parts"):
        micro.microbatch(lambda x: x.sum(), 0, 3, num_real_microbatches=5)(X)
    with pytest.raises(TypeError, match="a mean must be of floating point numbers, got int64"):
        micro.microbatch(lambda x: x.sum(), 0, 1, MEAN)(torch.arange(2))
    with pytest.raises(TypeError, match="must hold an Accumulator or an AccumulationType, such as AccumulationType.SUM, got 'sum'"):
        micro.microbatch(lambda x: x.sum(), 0, 1, "sum")(X)
    with pytest.raises(ValueError, match="CONCAT needs results with a batch axis"):
        micro.microbatch(lambda x: x.sum(), 0, 1, CONCAT)(X)
