"""Reductions and noise on sharded tensors are those of one process on whole tensors (D4, D5); what else comes in parts."""

import torch
from torch import nn
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_module, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode

import funcopt as fo
from tests.integrations.workers.common import (
    METHODS,
    assert_equal,
    check,
    full,
    losses,
    main,
    mesh,
    model,
    over_ranks,
    rank,
    refusal,
    split,
    whole,
)


@check
def parts_of_a_loss_and_of_a_gradient_are_made_whole():
    net = distribute_module(model(), mesh())
    opt = fo.torch_optim.aees(net.parameters(), lr=0.1, lr_candidates=(1.0,), episode_length=2, seed=0)
    alone = model()
    one = fo.torch_optim.aees(alone.parameters(), lr=0.1, lr_candidates=(1.0,), episode_length=2, seed=0)
    for _ in range(5):
        for p, q in zip(net.parameters(), alone.parameters(), strict=True):
            local = torch.full(p.shape, 1.0 + rank())
            p.grad = DTensor.from_local(local, mesh(), [Partial()], run_check=False)
            q.grad = torch.full(p.shape, 3.0)
        opt.step(loss=DTensor.from_local(torch.tensor(1.0 + rank()), mesh(), [Partial()], run_check=False))
        one.step(loss=torch.tensor(3.0))
    assert_equal(whole(net), whole(alone))
    assert all(torch.equal(value, one.signals()[word]) for word, value in opt.signals().items())


def trees(placement=None):
    """A tree of whole tensors, and the same in parts."""
    torch.manual_seed(3)
    placement = placement or Shard(0)
    parts = {"w": torch.randn(5, 3), "one": torch.randn(1, 4), "b": torch.randn(3), "empty": torch.zeros(0, 2), "z": torch.randn(())}
    cut = {key: distribute_tensor(x, mesh(), [placement if x.dim() > placement.dim else Replicate()]) for key, x in parts.items()}
    return parts, {**cut, "plain": parts["b"].clone()}, {**parts, "plain": parts["b"].clone()}


def changed(t):
    return {key: 0.5 - x.square() for key, x in t.items()}


REDUCTIONS = {
    "norm": fo.tree.norm,
    "squared norm": lambda t: fo.tree.norm(t, squared=True),
    "l1": lambda t: fo.tree.norm(t, 1),
    "largest": lambda t: fo.tree.norm(t, torch.inf),
    "sum": fo.tree.sum,
    "max": fo.tree.max,
    "min": fo.tree.min,
    "finite": fo.tree.all_finite,
    "vdot": lambda t: fo.tree.vdot(t, changed(t)),
    "cosine": lambda t: fo.tree.vdot(t, changed(t)) / (fo.tree.norm(t) * fo.tree.norm(changed(t))),
}


@check
def reductions_are_those_of_whole_tensors():
    for placement in (Shard(0), Shard(1)):
        _, cut, expected = trees(placement)
        for name, reduction in REDUCTIONS.items():
            found = reduction(cut)
            assert type(found) is torch.Tensor and found.dim() == 0, f"{name} is {found!r}"
            torch.testing.assert_close(found, reduction(expected), rtol=1e-6, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")
            first, second = over_ranks(found)
            assert torch.equal(first, second), f"{name} is {first} and {second}"
        local = {key: x.to_local() if isinstance(x, DTensor) else x for key, x in cut.items()}
        assert not torch.isclose(fo.tree.norm(local), fo.tree.norm(expected), rtol=1e-3), "the example does not tell a part from the whole"


@check
def one_entry_that_is_not_finite_is_seen_on_every_rank():
    parts, _, _ = trees()
    for value in (torch.nan, torch.inf):
        for row in (0, 4):
            w = parts["w"].clone()
            w[row, 1] = value
            cut = {"w": distribute_tensor(w, mesh(), [Shard(0)]), "b": parts["b"]}
            assert not fo.tree.all_finite(cut)
            for reduction in (fo.tree.norm, fo.tree.max, lambda t: fo.tree.norm(t, torch.inf)):
                torch.testing.assert_close(reduction(cut), torch.tensor(value), equal_nan=True)


@check
def noise_goes_by_the_place_in_the_whole():
    noisy = {
        "add_noise": fo.chain(fo.add_noise(eta=0.1, gamma=0.5, key=3), fo.lr_scale()),
        "ucb_episodes": fo.chain(fo.ucb_episodes((1.0,), (0.1, 0.2), episode_length=2, seed=4), fo.lr_scale()),
    }
    for name, tx in noisy.items():
        net, alone = split(model()), model()
        opt, one = (fo.torch_optim.Optimizer(m.parameters(), tx, lr=0.1) for m in (net, alone))
        for loss in losses(net, 6):
            for p, q in zip(net.parameters(), alone.parameters(), strict=True):
                q.grad = full(p.grad)
            opt.step(loss=loss)
            one.step(loss=loss)
        assert_equal(whole(net), whole(alone), name)
    for placement in (Shard(0), Shard(1)):
        _, cut, expected = trees(placement)
        for sampler in (fo.random.normal, fo.random.uniform, fo.random.rademacher):
            ours = fo.tree.random_like(fo.random.key(7), cut, sampler)
            theirs = fo.tree.random_like(fo.random.key(7), expected, sampler)
            for key, x in theirs.items():
                assert torch.equal(full(ours[key]), x), f"{key} by {sampler.__name__}"
                assert not isinstance(cut[key], DTensor) or ours[key].placements == cut[key].placements


@check
def a_first_step_of_rate_zero_counts_on_every_rank():
    # Rank 1 has rows of the bias alone, whose gradient is zero there: a rank that looked at its part would only make room for the state.
    net = nn.Linear(2, 2)
    torch.nn.init.ones_(net.weight)
    net = split(nn.Sequential(net))
    opt = fo.torch_optim.adamw(net.parameters(), lr=0.0)
    net(torch.ones(1, 2))[:, 0].sum().backward()
    opt.step()
    (count,) = (leaf for path, leaf in opt.param_groups[0]["funcopt"]["state"].items() if path.endswith("count"))
    counts = over_ranks(count)
    assert counts[0] == counts[1] == 1, counts


@check
def a_step_talks_once_for_each_sum_and_not_for_each_leaf():
    for name, most in {"adamw": 0, "sgd": 0, "clipped": 1, "pilot": 6}.items():
        net = split(model())
        opt = METHODS[name][0](net.parameters())
        for _ in losses(net, 2):
            with CommDebugMode() as talk:
                opt.step()
            assert talk.get_total_counts() == most, f"{name}: {talk.get_comm_counts()}"


@check
def what_cannot_be_cut_is_refused():
    net = split(model())
    opt = fo.torch_optim.Optimizer(net.parameters(), fo.flatten(fo.adamw(None)), lr=0.01)
    next(losses(net, 1))
    assert "flatten: must have leaves that are not sharded" in refusal(opt.step)


if __name__ == "__main__":
    main()
