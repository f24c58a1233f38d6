"""A population of modules: `functional_call` lends parameters to a module in the graph in which the factory makes its transformation."""

import pytest
import torch

import funcopt as fo
from funcopt.execute import runner
from tests.helpers import assert_trees_close, needs_compiler
from tests.zoo import ROWS, Row

COPIES = 2
NETWORK = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2)).double()
X = torch.linspace(-1, 1, 16, dtype=torch.float64).view(4, 4)
AT_ONCE = {"adamw", "rate_free", "inject_hyperparams", "compress_state", "masked-by-path"}
NOT_FOLLOWED = {"adaptive-everything"}  # a function that is made in a graph has no signature there
CARRIED = [
    row
    for row in ROWS
    if not {"vmap", "compile"} & row.cannot.keys() and not row.extra(0).keys() - {"loss", "reward", "value"} and row.id not in NOT_FOLLOWED
]


def loss_fn(params, x):
    return torch.func.functional_call(NETWORK, params, (x,)).square().mean()


def stepped(row: Row, compile: bool):
    def factory(lr):
        return row.make()

    extra = {name: torch.as_tensor(value).expand(COPIES).clone() for name, value in row.extra(0).items() if name != "loss"}
    pop = fo.population.make_step(loss_fn, factory, hyper={"lr": torch.ones(COPIES)}, compile=compile)
    params, state = pop.init(fo.population.stack([dict(NETWORK.named_parameters())] * COPIES))
    return pop(params, state, X, **extra)


@needs_compiler
@pytest.mark.parametrize("row", [pytest.param(row, id=row.id, marks=[] if row.id in AT_ONCE else [pytest.mark.long]) for row in CARRIED])
def test_a_compiled_population_of_modules_makes_its_transformation_in_the_graph(row, monkeypatch):
    torch._dynamo.reset()
    monkeypatch.setattr(runner, "compiled", lambda f, name, **_: torch.compile(f, backend="eager", fullgraph=True, dynamic=False))
    assert_trees_close(stepped(row, compile=True), stepped(row, compile=False), rtol=1e-9, atol=1e-11)
