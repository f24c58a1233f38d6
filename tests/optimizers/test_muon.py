"""Muon against torch.optim in float64, against the singular value decomposition, its layouts and its words."""

import pytest
import torch

import funcopt as fo
from funcopt.optimizers.newton_schulz import COEFFICIENTS, PRECONDITIONINGS, orthogonalized
from tests.helpers import assert_trees_close, assert_trees_equal, gradients_at, run, run_torch, small_params

MATRICES = {"tall": (5, 3), "wide": (2, 4), "square": (3, 3)}


def matrices(dtype=torch.float64):
    return {
        name: torch.sin(1.7 * torch.arange(1.0, 1 + rows * columns, dtype=dtype)).reshape(rows, columns)
        for name, (rows, columns) in MATRICES.items()
    }


needs_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")


@needs_muon
@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("adjust, rms", [("original", None), ("match_rms_adamw", 0.2)])
def test_follows_torch(monkeypatch, nesterov, adjust, rms):
    # torch iterates in bfloat16; let it iterate in the precision it is given.
    to = torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    monkeypatch.setattr(  # as torch 2.15 says it
        torch.Tensor, "to", lambda x, *args, **named: x.clone() if named.get("dtype") is torch.bfloat16 else to(x, *args, **named)
    )
    ours = run(
        fo.muon(0.02, eps=1e-30, nesterov=nesterov, weight_decay=0.1, consistent_rms=rms, bias_correction=False),
        steps=30,
        params=matrices(),
    )
    theirs = run_torch(
        torch.optim.Muon, lr=0.02, eps=1e-30, nesterov=nesterov, weight_decay=0.1, adjust_lr_fn=adjust, steps=30, params=matrices()
    )
    assert_trees_close(ours, theirs, rtol=1e-8)


@pytest.mark.parametrize("shape", [(1, 4), (4, 1)])
def test_unclamped_shapes_shrink_what_is_wide(shape):
    # torch.optim.Muon's "spectral_unclamped", of torch 2.14: sqrt(out / in), here a half and two.
    x = torch.ones(shape, dtype=torch.float64)
    free = fo.scale_by_shape(clamped=False)
    torch.testing.assert_close(free.update(x, free.init(x))[0], (shape[0] / shape[1]) ** 0.5 * x)
    stepped = []
    for kind in ("original", "spectral_unclamped"):
        parameter = torch.nn.Parameter(x.clone())
        parameter.grad = x.clone()
        fo.torch_optim.muon([parameter], lr=0.5, weight_decay=0.0, adjust_lr_fn=kind).step()
        stepped.append(x - parameter.detach())
    torch.testing.assert_close(stepped[1], (0.5 if shape == (1, 4) else 1.0) * stepped[0], rtol=1e-6, atol=0.0)


@needs_muon
def test_follows_torch_in_bfloat16_as_far_as_that_goes():
    ours = run(
        fo.muon(0.02, eps=1e-7, weight_decay=0.1, bias_correction=False, ns_dtype=torch.bfloat16), steps=1, params=matrices(torch.float32)
    )
    theirs = run_torch(torch.optim.Muon, lr=0.02, weight_decay=0.1, steps=1, params=matrices(torch.float32))
    assert_trees_close(ours, theirs, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("preconditioning", PRECONDITIONINGS)
@pytest.mark.parametrize("shape", [*MATRICES.values(), (2, 3, 4)])
def test_turns_singular_values_to_one_and_keeps_singular_vectors(preconditioning, shape):
    x = torch.randn(shape, dtype=torch.float64)
    u, s, v = torch.linalg.svd(x, full_matrices=False)
    result = orthogonalized(x, [(1.5, -0.5, 0.0)] * 60, 0.0, preconditioning)  # the cubic iteration converges all the way
    torch.testing.assert_close(torch.linalg.svdvals(result), torch.ones_like(s))
    if preconditioning == "aol":  # weighs rows before it iterates
        return
    torch.testing.assert_close(result, u @ v)
    turned = u.mT @ orthogonalized(x, [COEFFICIENTS["standard"]] * 5, 1e-8, preconditioning) @ v.mT
    torch.testing.assert_close(turned, torch.diag_embed(turned.diagonal(dim1=-2, dim2=-1)))


# the derivative of a spectral norm needs distinct singular values
@pytest.mark.parametrize("preconditioning", [how for how in PRECONDITIONINGS if how != "spectral"])
def test_zero_stays_zero_with_a_finite_slope(preconditioning):
    zero = torch.zeros(2, 3, dtype=torch.float64)
    coefficients = [COEFFICIENTS["standard"]] * 5
    assert not orthogonalized(zero, coefficients, 1e-8, preconditioning).any()
    slope = torch.func.grad(lambda x: orthogonalized(x, coefficients, 1e-8, preconditioning).sum())(zero)
    assert torch.isfinite(slope).all()


def test_direction_does_not_depend_on_the_scale_of_the_gradient():
    muon = fo.scale_by_muon(eps=0.0)
    gradient = matrices()
    assert_trees_close(muon.update(gradient, muon.init(gradient))[0], muon.update(fo.tree.scale(1e3, gradient), muon.init(gradient))[0])


def test_layouts_say_the_same_thing_in_different_words():
    numbers = fo.MuonDimensionNumbers
    gradient = matrices()["tall"]

    def step(gradient, dimensions):
        tx = fo.muon(0.1, muon_weight_dimension_numbers=dimensions)
        return tx.update(gradient, tx.init(gradient), gradient)[0]

    expected = step(gradient, None)
    torch.testing.assert_close(step(gradient.mT.contiguous(), numbers(reduction_axis=0, output_axis=1)).mT, expected)
    convolution = step(gradient.reshape(5, 3, 1, 1), numbers(reduction_axis=(1, 2, 3), output_axis=0))
    torch.testing.assert_close(convolution.reshape(5, 3), expected)
    batched = step(torch.stack([gradient, 2 * gradient]), numbers(reduction_axis=-1, output_axis=-2))
    torch.testing.assert_close(batched, torch.stack([expected, expected]))


def test_what_is_no_matrix_goes_to_adamw():
    params = small_params()
    gradients = gradients_at(0, params)
    tx, adamw = fo.muon(0.1, adam_lr=0.01, adam_weight_decay=0.2), fo.adamw(0.01, weight_decay=0.2, nesterov=True)
    updates, _ = tx.update(gradients, tx.init(params), params)
    theirs, _ = adamw.update(gradients, adamw.init(params), params)
    assert_trees_equal({"b": updates["b"], "deep": updates["deep"]}, {"b": theirs["b"], "deep": theirs["deep"]})
    assert not torch.equal(updates["w"], theirs["w"])


def test_the_mask_is_asked_of_the_whole_tree():
    params = {"layers": {"one": torch.ones(2, 2), "two": torch.ones(2, 2)}, "bias": torch.ones(2)}
    zeros = fo.tree.zeros_like(params)
    for mask in ({"layers": {"one": True, "two": False}, "bias": True}, "layers.one", fo.by_path(["layers.*", "bias"], but="layers.two")):
        tx = fo.muon(0.1, weight_decay=0.5, weight_decay_mask=mask)
        updates, _ = tx.update(zeros, tx.init(params), params)
        assert [x.unique().item() for x in fo.tree.leaves(updates)] == pytest.approx([0.0, -0.05, 0.0])


def test_says_the_rate_of_the_matrices():
    tx = fo.muon(0.1, adam_lr=0.01)
    words = fo.read_signals(tx.init(small_params()))
    assert {word: value.item() for word, value in words.items()} == {"lr": 0.1, "muon/lr": 0.1, "adam/lr": 0.01}
    with pytest.raises(ValueError, match="'lr' is said twice"):
        fo.chain(tx, fo.lr_scale(0.5)).init(small_params())


def test_both_parts_hear_rates_and_multipliers():
    params = small_params()
    gradients = gradients_at(0, params)
    told, heard = fo.muon(0.2), fo.muon(None)
    expected, _ = told.update(gradients, told.init(params), params)
    signals = {"base_lr": torch.tensor(0.1, dtype=torch.float64), "lr_multiplier": torch.tensor(2.0, dtype=torch.float64)}
    assert_trees_close(heard.update(gradients, heard.init(params), params, signals=signals)[0], expected)
    stretched = fo.chain(fo.ucb_episodes((2.0,), seed=0), fo.muon(0.1))
    assert_trees_close(stretched.update(gradients, stretched.init(params), params, loss=torch.tensor(1.0))[0], expected)


def test_adaptive_multiplies_by_what_the_direction_gains():
    gradient = matrices()["wide"]
    plain, adaptive = fo.scale_by_muon(), fo.scale_by_muon(adaptive=True)
    direction, _ = plain.update(gradient, plain.init(gradient))
    mean = gradient * (0.95 * 0.05 / (1 - 0.95**2) + 0.05 / 0.05)  # Nesterov's at the first step
    torch.testing.assert_close(adaptive.update(gradient, adaptive.init(gradient))[0], (mean * direction).sum() * direction)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"ns_steps": 0}, "scale_by_muon: ns_steps must be >= 1, got 0"),
        ({"ns_coeffs": "best"}, "scale_by_muon: ns_coeffs must be one of 'standard', 'dion', got 'best'"),
        ({"ns_coeffs": (1.0, 2.0)}, "scale_by_muon: ns_coeffs must be three numbers, or three for each step"),
        ({"preconditioning": "none"}, "scale_by_muon: preconditioning must be one of 'frobenius'"),
        ({"beta": 1.0}, r"scale_by_muon: beta must be in \[0, 1\), got 1.0"),
    ],
)
def test_says_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        fo.muon(0.1, **arguments)


def test_names_the_leaf_that_does_not_fit():
    params = small_params()
    with pytest.raises(ValueError, match="got 'b' without; use muon"):
        fo.scale_by_muon().init(params)
    with pytest.raises(ValueError, match="must name different axes of each leaf, got 1 and 0 at 'b' of rank 1"):
        fo.scale_by_muon(weight_dimension_numbers=fo.MuonDimensionNumbers()).init(params)
    with pytest.raises(
        ValueError, match="muon_weight_dimension_numbers must have the structure of params or a prefix of it, but has nothing at 'b'"
    ):
        fo.muon(0.1, muon_weight_dimension_numbers={"w": fo.MuonDimensionNumbers()}).init(params)
    with pytest.raises(TypeError, match=r"must hold MuonDimensionNumbers or None, got \(1, 0\)"):
        fo.muon(0.1, muon_weight_dimension_numbers=lambda params: fo.tree.map_plain(lambda p: (1, 0), params)).init(params)


def test_numbers_and_masks_trace_in_every_form():
    numbers = fo.MuonDimensionNumbers()
    params = {"w": matrices()["wide"], "b": torch.ones(4, dtype=torch.float64), "a": {"z": matrices()["tall"], "c": matrices()["square"]}}
    gradients = fo.tree.map(torch.cos, params)
    for dimensions in ({"w": numbers, "b": None, "a": {"z": numbers, "c": None}}, fo.by_path({"[wa]*": numbers, "*": None})):
        tx = fo.muon(0.1, weight_decay=0.3, weight_decay_mask={"w": False, "b": True, "a": True}, muon_weight_dimension_numbers=dimensions)
        state = tx.init(params)
        torch._dynamo.reset()
        traced = torch.compile(lambda g, s, p, tx=tx: tx.update(g, s, p)[0], backend="eager", fullgraph=True)
        assert_trees_close(traced(gradients, state, params), tx.update(gradients, state, params)[0])


def test_a_gradient_that_is_no_number_has_no_sign():
    x = torch.ones(2, 2)
    x[0, 0] = torch.nan
    by_sign = fo.scale_by_muon(signs=True)
    assert by_sign.update(x, by_sign.init(x))[0].isnan().any()
