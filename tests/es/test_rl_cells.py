"""Recurrent cells against torch's, in every form these take, and where torch's do not go: under vmap."""

import pytest
import torch
from torch.func import functional_call, stack_module_state, vmap

import funcopt as fo

CELLS = [
    ("RNNCell", {}),
    ("RNNCell", {"nonlinearity": "relu"}),
    ("RNNCell", {"bias": False}),
    ("LSTMCell", {}),
    ("LSTMCell", {"bias": False}),
    ("GRUCell", {}),
    ("GRUCell", {"bias": False}),
]
EACH = pytest.mark.parametrize("name, options", CELLS, ids=[" ".join([name, *options]) for name, options in CELLS])


def pair(name, options):
    theirs = getattr(torch.nn, name)(3, 5, dtype=torch.float64, **options)
    ours = getattr(fo.es, name)(3, 5, dtype=torch.float64, **options)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def random_state(name, *shape):
    h = torch.randn(*shape, 5, dtype=torch.float64)
    return (h, torch.randn_like(h)) if name == "LSTMCell" else h


@EACH
@pytest.mark.parametrize("shape", [(), (4,)], ids=["one", "batch"])
def test_equals_torch(name, options, shape):
    ours, theirs = pair(name, options)
    x, state = torch.randn(*shape, 3, dtype=torch.float64), random_state(name, *shape)
    torch.testing.assert_close(ours(x, state), theirs(x, state), rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-13, atol=1e-14)


@EACH
def test_members_with_their_own_weights_equal_a_loop(name, options):
    theirs = [pair(name, options)[1] for _ in range(3)]
    ours = pair(name, options)[0]
    params, _ = stack_module_state(theirs)
    x, state = torch.randn(3, 3, dtype=torch.float64), random_state(name, 3)
    together = vmap(lambda p, x, state: functional_call(ours, p, (x, state)))(params, x, state)
    alone = [cell(x[i], fo.tree.map(lambda h, i=i: h[i], state)) for i, cell in enumerate(theirs)]
    torch.testing.assert_close(together, fo.tree.map(lambda *h: torch.stack(h), *alone), rtol=1e-13, atol=1e-14)


def test_begins_as_torch_does():
    torch.manual_seed(3)
    ours = fo.es.GRUCell(3, 5).state_dict()
    torch.manual_seed(3)
    theirs = torch.nn.GRUCell(3, 5).state_dict()
    assert list(ours) == list(theirs) and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_recurrent_policy_plays():
    """A policy that sees the pole's angle alone, not its speed, and remembers."""
    cell, head = fo.es.GRUCell(1, 8), torch.nn.Linear(8, 2)

    def policy(params, obs, memory):
        memory = functional_call(cell, params["cell"], (obs[2:3], memory))
        return functional_call(head, params["head"], (memory,)).argmax(-1), memory

    def member(seed):
        torch.manual_seed(seed)
        return {name: {k: torch.randn_like(v) for k, v in module.named_parameters()} for name, module in [("cell", cell), ("head", head)]}

    members = [member(seed) for seed in range(4)]
    objective = fo.es.rollout(policy, fo.es.cartpole(), 40, episodes=2, memory=torch.zeros(8))
    together = vmap(lambda p: objective(p, key=fo.random.key(0)))(fo.tree.map(lambda *leaves: torch.stack(leaves), *members))
    assert together.tolist() == [objective(p, key=fo.random.key(0)).item() for p in members]


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match="rnn_cell: nonlinearity must be one of 'tanh', 'relu', got 'sine'"):
        fo.es.rnn_cell(torch.zeros(1), torch.zeros(1), torch.zeros(1, 1), torch.zeros(1, 1), nonlinearity="sine")
