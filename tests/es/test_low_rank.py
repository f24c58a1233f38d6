"""Low-rank perturbations and marked weights: equal to weights that are built, in every function, and never built where products suffice."""

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import funcopt as fo
from funcopt.es.noise.lazy_weight import Entries, Factors, Perturbed, mark, settle
from funcopt.es.noise.low_rank import FactorNoise, LowRank

F64 = torch.float64
PAIRS = range(3)
SIGNS = torch.tensor([0.1, -0.1], dtype=F64)


def numbers(*shape, seed=0):
    return fo.random.normal(fo.random.fold_in(fo.random.key(seed), math.prod(shape)), shape, F64)


def trained(module, seed=1):
    """The parameters of a module, in float64, from keys."""
    return {name: 0.3 * numbers(*p.shape, seed=seed + i) for i, (name, p) in enumerate(module.named_parameters())}


def members(law, params, f, noise=None):
    """f of every member, signs as an inner axis: [pairs, 2, ...]."""
    noise = noise or {name: law.draw(fo.random.fold_in(fo.random.key(3), i), leaf, PAIRS) for i, (name, leaf) in enumerate(params.items())}

    def member(noise, scale):
        return settle(f({name: law.perturb(leaf, noise[name], scale) for name, leaf in params.items()}))

    return vmap(lambda one: vmap(lambda scale: member(one, scale))(SIGNS))(noise)


class Always(LowRank):
    """Low rank even where it saves nothing."""

    def view(self, leaf):
        found = super().view(leaf)
        if found is None and leaf.dim() - self.batch_axes >= 2:
            shape = leaf.shape[self.batch_axes :]
            found = type(LowRank(1).view(torch.empty(9, 9)))(tuple(leaf.shape[: self.batch_axes]), shape[0], math.prod(shape[1:]))
        return found


def module(make, *inputs):
    net = make()
    return trained(net), lambda params: functional_call(net, params, inputs)


X, IMAGE, SOUND = numbers(3, 4), numbers(2, 4, 7, 6), numbers(2, 4, 9)
W = {"w": numbers(4, 6, seed=5), "v": numbers(5, 6, seed=6)}
PRODUCTS = {
    "linear": module(lambda: nn.Linear(4, 6), X),
    "linear of a vector": module(lambda: nn.Linear(4, 6), X[0]),
    "linear of a batch of rows": module(lambda: nn.Linear(6, 5, bias=False), numbers(2, 3, 6)),
    "conv1d": module(lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2), SOUND),
    "conv1d of one": module(lambda: nn.Conv1d(4, 6, 3, padding="same"), SOUND[0]),
    "conv2d": module(lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1), IMAGE),
    "conv2d round the edge": module(lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular", bias=False), IMAGE),
    "conv2d round the edge, dilated": module(lambda: nn.Conv2d(4, 6, 3, padding=2, dilation=2, padding_mode="circular"), IMAGE),
    "conv3d": module(lambda: nn.Conv3d(2, 4, 2), numbers(2, 2, 4, 5, 3)),
    "embedding": module(lambda: nn.Embedding(7, 5, padding_idx=1), torch.tensor([[2, 1, 6], [0, 2, 2]])),
    "embedding of one": module(lambda: nn.Embedding(7, 5), torch.tensor(3)),
    "x @ W": (W, lambda p: X @ p["w"]),
    "x @ W @ V.T": (W, lambda p: X @ p["w"] @ p["v"].T),
    "mm, mT": (W, lambda p: torch.mm(X.mm(p["w"]), p["v"].mT)),
    "W.t() @ x": (W, lambda p: p["w"].t() @ X.T),
    "mv, transpose": (W, lambda p: torch.mv(p["w"].transpose(0, 1), X[0])),
    "W @ W": (W, lambda p: p["w"] @ p["v"].T),
}
WHOLES = {
    "conv2d in groups": module(lambda: nn.Conv2d(4, 6, 3, groups=2), IMAGE),
    "transposed convolution": module(lambda: nn.ConvTranspose1d(4, 6, 3), SOUND),
    "einsum": (W, lambda p: torch.einsum("bi,ij->bj", X, p["w"])),
    "slices": (W, lambda p: X @ p["w"][:, 1:3] + p["w"][0, 0]),
    "arithmetic": (W, lambda p: (2 * p["w"] + 1).square().sum() + torch.cat([p["w"], p["v"]]).exp().sum() + p["w"].norm()),
    "in place": (W, lambda p: X @ p["w"].mul_(2) + X @ p["w"]),
    "items set": (W, lambda p: (p["w"].__setitem__(0, 3.0), X @ p["w"])[1]),
    "reshape": (W, lambda p: X @ p["w"].reshape(p["w"].shape[1], -1).T * p["w"].numel()),
    "rows": (W, lambda p: sum(row.prod() for row in p["w"])),
    "itself": (W, lambda p: p["w"]),
    "layer norm": module(lambda: nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 4)), X),
    "layer norm of a matrix": module(lambda: nn.LayerNorm((4, 6)), numbers(3, 4, 6)),
    "renormalised embedding": (W, lambda p: F.embedding(torch.tensor([0, 2]), p["w"] + 0, max_norm=1.0)),
}
ATTENTION = nn.MultiheadAttention(8, 2, batch_first=True)
WHOLES["attention"] = (trained(ATTENTION), lambda p: functional_call(ATTENTION, p, (numbers(2, 5, 8),) * 3)[0])
ALL = PRODUCTS | WHOLES


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("name", ALL)
def test_lazy_equals_built(name, rank):
    params, f = ALL[name]
    built = members(Always(rank, 0, False), params, f)
    assert built.shape[:2] == (3, 2) and (built[0] - built[1]).abs().max() > 0
    for lazy in (True, "auto"):
        torch.testing.assert_close(members(Always(rank, 0, lazy), params, f), built, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ALL)
def test_dense_perturbations_taken_apart_equal_those_built(name):
    params, f = ALL[name]
    built = members(fo.es.law_of("normal"), params, f)
    torch.testing.assert_close(members(fo.es.split(lazy=True), params, f), built, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["linear", "conv2d", "embedding", "x @ W @ V.T", "einsum", "items set"])
@pytest.mark.parametrize("law", [Always(1, 0, "auto"), fo.es.split()], ids=["low rank", "split"])
def test_traces_whole_inside_nested_vmap(name, law):
    params, f = ALL[name]
    noise = {name: law.draw(fo.random.fold_in(fo.random.key(3), i), leaf, PAIRS) for i, (name, leaf) in enumerate(params.items())}
    torch._dynamo.reset()
    traced = torch.compile(lambda params, noise: members(law, params, f, noise), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(traced(params, noise), members(law, params, f, noise), rtol=1e-10, atol=1e-10)


def test_stacks_of_matrices_keep_their_leading_axes():
    params = {"experts": numbers(3, 4, 6)}
    x = numbers(3, 5, 4)
    for f in (lambda p: torch.bmm(x, p["experts"]), lambda p: x @ p["experts"], lambda p: p["experts"].mT @ x.mT):
        built = members(Always(2, 1, False), params, f)
        torch.testing.assert_close(members(Always(2, 1, True), params, f), built, rtol=1e-10, atol=1e-10)
    noise = LowRank(1, 1).draw(fo.random.key(0), params["experts"], PAIRS)
    assert noise.A.shape == (3, 3, 4, 1) and noise.B.shape == (3, 3, 6, 1)
    # seen as a convolution the same leaf is one matrix [3, 24], and products build it
    built = members(Always(2, 0, False), params, lambda p: x @ p["experts"])
    torch.testing.assert_close(members(Always(2, 0, True), params, lambda p: x @ p["experts"]), built, rtol=1e-10, atol=1e-10)


def test_an_ensemble_of_centers():
    params = torch.stack([numbers(4, 6), numbers(4, 6, seed=9)])
    noise = LowRank(1).draw(fo.random.key(0), params[0], PAIRS)

    def evaluate(law):
        return vmap(lambda w: vmap(lambda eps: X @ law.perturb(w, eps, SIGNS[0]))(noise))(params)

    both = [evaluate(LowRank(1, 0, lazy)) for lazy in (True, False)]
    torch.testing.assert_close(*both, rtol=1e-12, atol=1e-12)


def test_the_weight_is_known_by_the_shape_of_the_unperturbed_one():
    w = mark(torch.zeros(3, 2), torch.tensor(1.0), Factors(torch.ones(3, 1), torch.ones(2, 1)))
    assert isinstance(w, Perturbed) and (w.shape, w.dtype, w.device.type, w.dim(), w.numel(), len(w)) == (
        (3, 2),
        torch.float32,
        "cpu",
        2,
        6,
        3,
    )
    assert w.size(0) == 3 and w.is_floating_point() and not w.requires_grad and w.ndim == 2
    assert type(w.t()) is Perturbed and w.t().shape == (2, 3) and (w.t() + 0).shape == (2, 3)
    assert (w + 0).tolist() == settle({"w": [w]})["w"][0].tolist() == [[1.0, 1.0]] * 3
    assert w.sum().item() == 6.0 and w.tolist() == [[1.0, 1.0]] * 3 and repr(w) == repr(torch.ones(3, 2))
    assert torch.stack([w, w]).sum().item() == 12.0


class Largest(TorchDispatchMode):
    """The most elements of any result of an operation, among all members at once."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in fo.tree.leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


def test_no_member_has_a_matrix_of_its_own():
    m, n, pairs = 40, 50, 16
    w, law = torch.zeros(m, n), LowRank(1)
    with Largest() as largest:
        noise = law.draw(fo.random.key(0), w, range(pairs))
        fitness = vmap(lambda eps: vmap(lambda s: F.linear(torch.ones(2, n), law.perturb(w, eps, s)).square().mean())(SIGNS.float()))(noise)
        law.combine(fitness[:, 0] - fitness[:, 1], noise, w)
    assert largest.elements < pairs * m * n / 4
    with Largest() as largest:  # the ruler measures: built, it is there
        vmap(lambda eps: F.linear(torch.ones(2, n), LowRank(1, 0, False).perturb(w, eps, SIGNS.float()[0])).mean())(noise)
    assert largest.elements == pairs * m * n


@pytest.mark.parametrize("shape", [(5, 7), (4, 3, 5), (6, 4, 3, 2)])
@pytest.mark.parametrize("rank", [1, 3])
def test_gradient_is_the_sum_of_dense_directions(shape, rank):
    leaf = torch.zeros(shape, dtype=F64)
    for law in (Always(rank), Always(rank, 1)):
        noise, weights = law.draw(fo.random.key(4), leaf, range(11)), numbers(11)
        whole = vmap(lambda eps, law=law: law.dense(leaf, eps))(noise)
        torch.testing.assert_close(law.combine(weights, noise, leaf), torch.einsum("h,h...->...", weights, whole), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("rank", [1, 4])
def test_entries_have_variance_one_are_uncorrelated_and_less_normal_the_lower_the_rank(rank):
    leaf, pairs = torch.zeros(20, 20), 20000
    noise = LowRank(rank).draw(fo.random.key(7), leaf, range(pairs))
    E = vmap(lambda eps: LowRank(rank).dense(leaf, eps)[:3, :3].reshape(-1))(noise).double()
    sd = math.sqrt((2 + 6 / rank) / pairs)  # of a mean of squares
    assert E.mean(0).abs().max() < 5 / math.sqrt(pairs)
    assert (E.T @ E / pairs - torch.eye(9)).abs().max() < 5 * sd
    assert abs((E**4).mean() - 3 - 6 / rank) < 1.5


def test_noise_of_a_member_does_not_depend_on_how_members_are_cut():
    leaf, law = torch.zeros(30, 20), LowRank(2)
    whole = law.draw(fo.random.key(1), leaf, range(10))
    for cuts in ((range(0, 3), range(3, 10)), tuple(range(j, j + 1) for j in range(10))):
        parts = [law.draw(fo.random.key(1), leaf, cut) for cut in cuts]
        assert torch.equal(torch.cat([part.A for part in parts]), whole.A) and torch.equal(torch.cat([part.B for part in parts]), whole.B)


def test_small_leaves_and_vectors_take_dense_noise():
    law = LowRank(2)
    dense = fo.es.law_of("normal")
    for leaf in (torch.zeros(5), torch.zeros(()), torch.zeros(4, 4), torch.zeros(2, 60)):
        noise = law.draw(fo.random.key(1), leaf, range(3))
        assert torch.equal(noise, dense.draw(fo.random.key(1), leaf, range(3)))
        assert torch.equal(law.perturb(leaf, noise[0], torch.tensor(2.0)), 2 * noise[0])
        assert law.numbers(leaf) == leaf.numel()
    assert law.draw(fo.random.key(1), torch.zeros(5, 4), range(3)).A.shape == (3, 5, 2)
    assert LowRank(2).numbers(torch.zeros(30, 20)) == 100 and LowRank(1).numbers(torch.zeros(6, 4, 3, 3)) == 42


def test_scales_by_element_build_the_weight():
    leaf, law = torch.zeros(30, 20, dtype=F64), LowRank(1)
    noise = law.draw(fo.random.key(1), leaf, range(1))
    eps = type(noise)(noise.A[0], noise.B[0])
    scale = numbers(30, 20).abs()
    perturbed = law.perturb(leaf, eps, scale)
    assert type(perturbed) is torch.Tensor
    torch.testing.assert_close(perturbed, scale * law.dense(leaf, eps))


def test_eager_products_of_many_rows_build_the_weight_and_of_few_do_not():
    w = torch.zeros(40, 40)  # the limit is 40 * 40 / 80 = 20 rows
    for rows, built in ((20, False), (21, True)):
        weight = LowRank(1).perturb(w, FactorNoise(torch.ones(40, 1), torch.ones(40, 1)), torch.tensor(0.5))
        y = F.linear(torch.ones(rows, 40), weight)
        assert (weight.built is not None) is built and y.unique().tolist() == [20.0]


def test_eager_embeddings_build_the_weight_when_more_rows_are_fetched_than_there_are():
    w = torch.zeros(40, 30)
    for count, built in ((40, False), (41, True)):
        weight = LowRank(1).perturb(w, FactorNoise(torch.ones(40, 1), torch.ones(30, 1)), torch.tensor(0.5))
        assert F.embedding(torch.arange(count) % 40, weight).unique().tolist() == [0.5] and (weight.built is not None) is built


def test_noise_kept_in_half_precision_is_the_same_built_or_not():
    w, law = torch.zeros(40, 30), LowRank(2)
    noise = FactorNoise(*(factor[0].bfloat16() for factor in law.draw(fo.random.key(0), w, range(1))))
    lazy, built = (F.linear(torch.ones(30), LowRank(2, 0, lazy).perturb(w, noise, torch.tensor(0.1))) for lazy in (True, False))
    torch.testing.assert_close(lazy, built, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        law.combine(torch.ones(1), FactorNoise(noise.A[None], noise.B[None]), w), law.dense(w, noise), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    "direction", [Factors(torch.ones(300, 1), torch.ones(200, 1)), Entries(torch.ones(300, 200))], ids=["low rank", "dense"]
)
def test_half_precision_keeps_the_scale(direction):
    # 0.1 is not a number of bfloat16; a scale rounded to it would be 0.2 % off for every member alike
    weight = mark(torch.zeros(300, 200, dtype=torch.bfloat16), torch.tensor(0.001), direction)
    x = torch.full((4, 200), 0.5, dtype=torch.bfloat16)
    assert F.linear(x, weight).dtype == torch.bfloat16
    torch.testing.assert_close(F.linear(x, weight).float(), torch.full((4, 300), 0.1), rtol=2**-8, atol=0)
    assert (weight + 0).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: fo.es.low_rank(0), ValueError, "es.low_rank: rank must be >= 1, got 0"),
        (lambda: fo.es.low_rank(1.5), TypeError, "es.low_rank: rank must be an int, got 1.5"),
        (lambda: fo.es.low_rank(1, batch_axes=-1), ValueError, "es.low_rank: batch_axes must be >= 0, got -1"),
        (lambda: fo.es.low_rank(1, lazy="never"), ValueError, "es.low_rank: lazy must be one of True, False, 'auto', got 'never'"),
        (lambda: fo.es.split(lazy=False), ValueError, "es.split: lazy must be one of True, 'auto', got False"),
        (lambda: fo.es.split(fo.es.low_rank(1)), ValueError, "es.split: noise must be a dense law"),
    ],
)
def test_says_what_is_wrong(make, error, message):
    with pytest.raises(error, match=message):
        make()
