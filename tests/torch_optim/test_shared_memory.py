"""Parameters that share memory: refused in a sentence in every form; slices of one vector that do not overlap move with it."""

import pytest
import torch
from torch import nn

import funcopt as fo

FORMS = {
    "eager": {"flat": False},
    "auto": {},
    "one vector": {"flat": True},
    "compiled": {"compile": True},
    "capturable": {"capturable": True},
}


def tied():
    a, b = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    b.data = a.data
    return [a, b]


def whole_and_part():
    vector = torch.ones(4)
    return [nn.Parameter(vector), nn.Parameter(vector[:2])]


def overlapping():
    vector = torch.ones(5)
    return [nn.Parameter(vector[:3]), nn.Parameter(vector[2:])]


def transposed():
    a = nn.Parameter(torch.ones(2, 3))
    return [a, nn.Parameter(a.data.t())]


def of_one_array():
    array = torch.ones(4).numpy()
    return [nn.Parameter(torch.from_numpy(array[:3])), nn.Parameter(torch.from_numpy(array[1:]))]


SHARED = [tied, whole_and_part, overlapping, transposed, of_one_array]


@pytest.mark.parametrize("shared", SHARED)
@pytest.mark.parametrize("form", FORMS)
def test_an_optimizer_refuses_them_when_it_is_made(shared, form):
    with pytest.raises(
        ValueError,
        match="every parameter must have memory of its own, but 0 of group 0 and 1 of group 0 share some; make them one parameter",
    ):
        fo.torch_optim.sgd(shared(), lr=0.1, **FORMS[form])


@pytest.mark.parametrize("form", [pytest.param(form, marks=pytest.mark.long if form == "compiled" else ()) for form in FORMS])
def test_an_optimizer_refuses_a_group_and_memory_that_come_later_and_writes_nothing(form):
    a, b = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    opt = fo.torch_optim.adamw([("a", a)], lr=0.1, **FORMS[form])
    with pytest.raises(ValueError, match="but 'a' and 'c' share some"):
        opt.add_param_group({"params": [("c", nn.Parameter(a.data[1:]))]})
    opt.add_param_group({"params": [("b", b)]})
    a.grad, b.grad = torch.ones(3), torch.ones(3)
    opt.step()
    assert len(opt.param_groups) == 2
    b.data = a.data
    before, state = a.detach().clone(), str(opt.state_dict())
    for _ in range(2):
        with pytest.raises(ValueError, match="but 'a' and 'b' share some"):
            opt.step()
    assert torch.equal(a, before)
    assert str(opt.state_dict()) == state
    b.data = a.detach().clone()
    opt.step()
    assert not torch.equal(a, before)


@pytest.mark.parametrize("form", ["eager", "auto", "one vector"])
def test_a_frozen_parameter_goes_along_with_the_one_that_it_is_tied_to(form):
    a, b = tied()
    c = nn.Parameter(torch.ones(2))
    b.requires_grad_(False)
    opt = fo.torch_optim.sgd([a, b, c], lr=0.1, **FORMS[form])
    for _ in range(2):
        a.grad, c.grad = torch.ones(3), torch.ones(2)
        opt.step()
    assert torch.equal(a, b)
    torch.testing.assert_close(a.detach(), torch.full((3,), 0.8))


CUTS = {
    "in order": lambda vector: vector.split(2),
    "backwards": lambda vector: vector.split(2)[::-1],
    "with gaps": lambda vector: vector.split(2)[::3],
    "every other": lambda vector: (vector[::2], vector[1::2]),
    "rows": lambda vector: tuple(vector.view(4, 6)),
    "columns": lambda vector: tuple(vector.view(4, 6).t()),
    "part": lambda vector: (vector[:5],),
}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("form", ["eager", "auto", "one vector", "capturable"])
@pytest.mark.parametrize("later", [False, True], ids=["from the start", "later"])
def test_slices_of_one_vector_that_do_not_overlap_move_with_it_as_in_torch(cut, form, later):
    vectors = []
    for make in (lambda p: fo.torch_optim.adamw(p, lr=0.1, **FORMS[form]), lambda p: torch.optim.AdamW(p, lr=0.1)):
        vector = torch.arange(24, dtype=torch.float64)
        params = [nn.Parameter(part.clone() if later else part) for part in CUTS[cut](vector)]
        opt = make(params)
        for step in range(4):
            if later and step == 2:
                for p, part in zip(params, CUTS[cut](vector), strict=True):
                    p.data = part.copy_(p.data)
            for p in params:
                p.grad = p.detach() + step
            opt.step()
        assert all(torch.equal(p, part) for p, part in zip(params, CUTS[cut](vector), strict=True))
        vectors.append(vector)
    torch.testing.assert_close(*vectors, rtol=1e-12, atol=1e-12)


def test_a_vector_whose_parts_the_parameters_are_is_the_one_that_moves():
    vector = torch.ones(6)
    params = [nn.Parameter(part) for part in vector.split(2)]
    where = [p.data_ptr() for p in params]
    opt = fo.torch_optim.sgd(params, lr=0.1, flat=True)
    for p in params:
        p.grad = torch.ones(2)
    opt.step()
    assert opt._engine.units[0].owned is not None
    assert where == [p.data_ptr() for p in params]
    torch.testing.assert_close(vector, torch.full((6,), 0.9))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = tied()

    def forward(self, x):
        return (x * self.a * self.b).sum()


def loss_of(params, x):
    return (x * params["a"] * params["b"]).sum()


FUNCTIONAL = {
    "functional": lambda params: fo.functional(Tied()),
    "init at parameters": lambda params: fo.adam(0.1).init(params),
    "init at what they hold": lambda params: fo.adam(0.1).init({name: p.detach() for name, p in params.items()}),
    "make_step": lambda params: fo.make_step(loss_of, fo.adam(0.1)).init(params),
    "donated": lambda params: fo.make_step(loss_of, fo.adam(0.1), donate=True).init(params),
    "flat": lambda params: fo.make_step(loss_of, fo.adam(0.1), flat=True).init(params),
    "population": lambda params: fo.population.make_step(loss_of, fo.adam(0.1)).init(params),
    "from_torch": lambda params: fo.torch_optim.from_torch(torch.optim.Adam, lr=0.1).init(params),
}


@pytest.mark.parametrize("form", FUNCTIONAL)
def test_trees_refuse_them(form):
    params = dict(zip("ab", tied(), strict=True))
    with pytest.raises(ValueError, match=r"every leaf must have memory of its own, but 'a' and 'b' share some; make them one parameter"):
        FUNCTIONAL[form](params)


def test_one_tensor_in_two_places_of_a_tree_is_a_value_that_both_have():
    ones = torch.ones(2)
    params = {"a": ones, "b": ones}
    tx = fo.sgd(0.1)
    updates, _ = tx.update({"a": torch.ones(2), "b": torch.zeros(2)}, tx.init(params), params)
    new = fo.apply_updates(params, updates)
    torch.testing.assert_close(new, {"a": torch.full((2,), 0.9), "b": torch.ones(2)})


def test_one_parameter_in_two_places_of_a_module_is_one():
    module = Tied()
    module.b = module.a
    assert fo.functional(module)(dict(module.named_parameters()), {}, torch.ones(3))[0].item() == 3.0
