"""A controller whose settings change nothing says so, once, and which argument turns it on."""

import warnings

import pytest
import torch

import funcopt as fo

PARAMS = {"w": torch.zeros(2)}


def parameters():
    return [torch.nn.Parameter(torch.ones(2))]


IDLE = {
    "aees": (lambda: fo.aees(fo.adamw(0.1)), r"aees: changes nothing .* lr_candidates=\(0.5, 1.0, 2.0\)"),
    "adaptive": (lambda: fo.adaptive(fo.adamw, lr=0.1), r"adaptive: changes nothing, since no rule .* lr='trend\+variance'"),
    "the class aees": (lambda: fo.torch_optim.aees(parameters(), lr=0.1), r"aees: changes nothing .* noise_candidates=\(0.0, 0.005\)"),
    "the class adaptive": (
        lambda: fo.torch_optim.adaptive(parameters(), lr=0.1),
        r"adaptive: changes nothing, .* lr_rule='trend\+variance'",
    ),
}
BUSY = {
    "arms": lambda: fo.aees(fo.adamw(0.1), (0.5, 1.0)),
    "one arm that is not 1": lambda: fo.aees(fo.adamw(0.1), (0.5,)),
    "noise": lambda: fo.aees(fo.adamw(0.1), noise_candidates=(0.01,)),
    "the link alone": lambda: fo.ucb_episodes(),
    "a rule": lambda: fo.adaptive(fo.adamw, lr=fo.rules.trend(0.1)),
    "a rule for the reward": lambda: fo.adaptive(fo.adamw, lr=0.1, reward="trend"),
    "a schedule": lambda: fo.adaptive(fo.adamw, lr=lambda count: 0.1 / (count + 1)),
    "the class with arms": lambda: fo.torch_optim.aees(parameters(), lr=0.1, lr_candidates=(0.5, 1.0)),
    "the class with a rule": lambda: fo.torch_optim.adaptive(parameters(), lr=0.1, wd_rule="trend"),
}


@pytest.mark.parametrize("make, sentence", IDLE.values(), ids=list(IDLE))
def test_what_changes_nothing_is_warned_of_once_where_it_is_made(make, sentence):
    with pytest.warns(UserWarning, match=sentence) as seen:
        made = make()
    assert [warning.filename for warning in seen] == [__file__]
    if isinstance(made, torch.optim.Optimizer):
        plain = fo.torch_optim.adamw(parameters(), lr=0.1)
        for opt in (made, plain):
            for _ in range(3):
                opt.param_groups[0]["params"][0].grad = torch.tensor([1.0, -3.0])
                opt.step(loss=1.0)
        ours, theirs = (opt.param_groups[0]["params"][0].detach() for opt in (made, plain))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("make", BUSY.values(), ids=list(BUSY))
def test_what_does_something_is_not(make):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make()
