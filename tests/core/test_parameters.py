"""Graphs end at the parameters of a module, and nowhere else."""

import warnings

import pytest
import torch
from torch.func import functional_call, grad, vmap

import funcopt as fo
from tests.helpers import small_params
from tests.zoo import ROWS, every

torch.manual_seed(0)  # the same weights whatever was drawn while other files were collected
MODEL = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).double()
X = torch.linspace(-1, 1, 15, dtype=torch.float64).reshape(5, 3)
TAKEN_AS_NUMBERS = "ignore:.*nn.Parameter.*:UserWarning"


def loss_fn(params):
    return (functional_call(MODEL, params, (X,)) - 0.3).square().mean()


def nodes(values) -> int:
    """How many nodes the autograd graphs behind these tensors have."""
    seen, waiting = set(), [x.grad_fn for x in fo.tree.leaves(values)]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [following for following, _ in node.next_functions]
    return len(seen)


@pytest.mark.filterwarnings(TAKEN_AS_NUMBERS)
@every()
def test_no_state_of_a_module_that_is_trained_keeps_a_graph(row):
    tx, params = row.make(), fo.tree.map_plain(torch.nn.Parameter, small_params())
    state = tx.init(params)
    for step in range(2):
        gradients = fo.tree.map_plain(lambda p: 0.1 * p * p, params)  # with a graph, as those of torch.func.grad
        assert all(g.requires_grad for g in fo.tree.leaves(gradients))
        extra = {
            name: value.clone().requires_grad_() if isinstance(value, torch.Tensor) else value for name, value in row.extra(step).items()
        }
        updates, state = tx.update(gradients, state, params, **extra)
        params = fo.apply_updates(params, updates)
        assert nodes((updates, state, params)) == 0
        assert not any(x.requires_grad for x in fo.tree.leaves((updates, state)))


@pytest.mark.filterwarnings(TAKEN_AS_NUMBERS)
def test_nor_does_a_state_that_is_wider_than_the_parameters():
    params = {"w": torch.nn.Parameter(torch.ones(3, dtype=torch.float16))}
    for row in ROWS:
        assert nodes(row.make().init(params)) == 0, row.id  # float32 copies of them


@pytest.mark.filterwarnings(TAKEN_AS_NUMBERS)
def test_the_loop_of_the_tutorials_takes_the_steps_of_torch_and_holds_no_graph():
    params, tx = dict(MODEL.named_parameters()), fo.adam(0.05)
    state = tx.init(params)
    twin = {name: torch.nn.Parameter(p.detach().clone()) for name, p in MODEL.named_parameters()}
    theirs = torch.optim.Adam(twin.values(), lr=0.05)
    for _ in range(20):
        updates, state = tx.update(grad(loss_fn)(params), state, params)
        params = fo.apply_updates(params, updates)
        theirs.zero_grad()
        loss_fn(twin).backward()
        theirs.step()
    assert nodes((params, state)) == 0
    for name, p in params.items():
        torch.testing.assert_close(p.detach(), twin[name].detach(), rtol=1e-9, atol=1e-12)


def test_a_graph_that_ends_is_said_and_how_to_keep_it():
    params, tx = dict(MODEL.named_parameters()), fo.sgd(0.1)
    with pytest.warns(UserWarning, match=r"chain: '0.bias' is an nn.Parameter .* p.detach\(\) .* p.clone\(\) to differentiate"):
        updates, _ = tx.update(grad(loss_fn)(params), tx.init(params), params)
    with pytest.warns(UserWarning, match=r"apply_updates: an nn.Parameter comes back as a new one"):
        fo.apply_updates(params, updates)


@pytest.mark.filterwarnings(TAKEN_AS_NUMBERS)
def test_a_loop_over_autograd_goes_on_from_the_parameters_that_come_back():
    params, tx = dict(MODEL.named_parameters()), fo.adamw(0.05)
    state, first = tx.init(params), loss_fn(params)
    for _ in range(10):
        loss = loss_fn(params)
        gradients = dict(zip(params, torch.autograd.grad(loss, list(params.values())), strict=True))
        updates, state = tx.update(gradients, state, params, loss=loss)
        params = fo.apply_updates(params, updates)
    assert nodes((params, state)) == 0 and loss_fn(params) < first


def fine_tuned(start, lr, steps=2):
    """The loss after some steps, through which one may differentiate."""
    params, tx = start, fo.adam(lr)
    state = tx.init(params)
    for _ in range(steps):
        slopes = torch.autograd.grad(loss_fn(params), list(params.values()), create_graph=True)
        updates, state = tx.update(dict(zip(params, slopes, strict=True)), state, params)
        params = fo.apply_updates(params, updates)
    return loss_fn(params)


def slope_of(f, h=1e-6):
    return (f(h) - f(-h)) / (2 * h)


@pytest.mark.parametrize("kind", ["copies of parameters", "tensors that require grad"])
def test_who_differentiates_through_the_steps_gets_the_derivatives(kind):
    lr = torch.tensor(0.05, dtype=torch.float64, requires_grad=True)
    roots = (
        dict(MODEL.named_parameters())
        if kind == "copies of parameters"
        else {n: p.detach().clone().requires_grad_() for n, p in MODEL.named_parameters()}
    )
    start = {name: p.clone() for name, p in roots.items()} if kind == "copies of parameters" else roots
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = torch.autograd.grad(fine_tuned(start, lr), [lr, roots["0.weight"]])

    def plain(shift):
        return {name: p.detach().clone().requires_grad_() + shift * (name == "0.weight") for name, p in MODEL.named_parameters()}

    by_lr = slope_of(lambda h: fine_tuned(plain(0.0), lr.detach() + h).detach())
    by_weight = slope_of(lambda h: fine_tuned(plain(h), lr.detach()).detach())
    torch.testing.assert_close(found[0], by_lr, rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(found[1].sum(), by_weight, rtol=1e-5, atol=1e-9)


@pytest.mark.filterwarnings(TAKEN_AS_NUMBERS)
def test_a_rate_is_differentiated_also_at_the_parameters_of_a_module():
    lr = torch.tensor(0.05, dtype=torch.float64, requires_grad=True)
    params = dict(MODEL.named_parameters())
    tx = fo.sgd(lr)
    updates, _ = tx.update(grad(loss_fn)(params), tx.init(params), params)
    moved = fo.apply_updates(params, updates)
    (found,) = torch.autograd.grad(loss_fn(moved), lr)
    plain = {name: p.detach() for name, p in params.items()}
    slopes = grad(loss_fn)(plain)
    expected = slope_of(lambda h: loss_fn({name: p - (lr.detach() + h) * slopes[name] for name, p in plain.items()}))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_nothing_is_cut_where_torch_func_differentiates():
    tx, example = fo.adam(0.1), {name: p.detach() for name, p in MODEL.named_parameters()}

    def after(params, lr):
        tx = fo.sgd(lr)
        updates, _ = tx.update(grad(loss_fn)(params), tx.init(params), params)
        return loss_fn(fo.apply_updates(params, updates))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        slope = grad(after)(dict(MODEL.named_parameters()), 0.1)
        torch.testing.assert_close({n: s.detach() for n, s in slope.items()}, grad(after)(example, 0.1))
        vmap(lambda shift: tx.update(grad(loss_fn)({n: p + shift for n, p in example.items()}), tx.init(example), example))(
            torch.zeros(2, dtype=torch.float64)
        )


def test_the_loss_of_a_backward_pass_leaves_no_graph_in_a_state():
    tx = fo.aees(fo.adam(0.1), (0.5, 1.0), episode_length=2)
    params = {name: p.detach() for name, p in MODEL.named_parameters()}
    state = tx.init(params)
    for _ in range(3):
        loss = loss_fn(dict(MODEL.named_parameters()))
        updates, state = tx.update({name: torch.ones_like(p) for name, p in params.items()}, state, params, loss=loss)
        assert not any(x.requires_grad for x in fo.tree.leaves((updates, state)))


@pytest.mark.parametrize(
    "average", [lambda new, old: fo.incremental_update(new, old, 0.5), lambda new, old: fo.periodic_update(new, old, torch.tensor(2), 2)]
)
def test_averages_of_the_parameters_of_a_module_are_numbers(average):
    kept = {name: p.detach() for name, p in MODEL.named_parameters()}
    assert not any(x.requires_grad for x in fo.tree.leaves(average(dict(MODEL.named_parameters()), kept)))


@pytest.mark.filterwarnings(TAKEN_AS_NUMBERS)
def test_a_compiled_loop_over_parameters_holds_no_graph():
    tx = fo.sgd(0.1, momentum=0.9)

    @torch.compile(backend="aot_eager", fullgraph=True)
    def step(w, state):
        updates, state = tx.update(2 * w * w, state, w)
        return fo.apply_updates(w, updates), state

    w = torch.nn.Parameter(torch.ones(2))
    w, state = step(w, tx.init(w))
    assert nodes((w, state)) == 0 and not any(x.requires_grad for x in fo.tree.leaves((w, state)))
    assert w.tolist() == pytest.approx([0.8, 0.8])


def test_of_a_part_of_a_module_the_rest_is_numbers():
    model, tx = fo.functional(MODEL), fo.adam(0.05)
    params = {name: p.detach() for name, p in MODEL.named_parameters() if name.startswith("2.")}
    state = tx.init(params)
    for _ in range(3):
        updates, state = tx.update(grad(lambda p: (model(p, {}, X)[0] - 0.3).square().mean())(params), state, params)
        params = fo.apply_updates(params, updates)
    assert not any(x.requires_grad for x in fo.tree.leaves((params, state)))


@pytest.mark.parametrize("name", ["0.weight", "1.weight"])
def test_a_tied_weight_is_given_by_any_of_its_names(name):
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    module[1].weight = module[0].weight
    x, w = torch.ones(1, 2), torch.eye(2)
    output, _ = fo.functional(module)({name: w}, {}, x)
    assert torch.equal(output, x + module[0].bias + module[1].bias) and not output.requires_grad
