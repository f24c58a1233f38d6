"""Apart: stacks of numbers are left out of graphs where their entries are read one by one, and stay where they are needed."""

import torch
from torch import fx

from funcopt.execute.engines.dynamo import compiled
from funcopt.execute.engines.passes.apart import take_apart
from tests.helpers import assert_trees_close, needs_compiler


def numbers(x):
    return x.exp(), x.sin(), x.cos()


def taken(x, leaf):
    a, b, c = torch.stack(numbers(x)).unbind()
    pair = torch.stack([a * c, b / c])
    return leaf * a + b, leaf - pair[0] * pair[1]


def whole(x, leaf):
    return leaf * torch.stack(numbers(x)).sum(), leaf + torch.stack(numbers(x))[1:].amax()


def given(x, leaf):
    a, b = torch.stack([x, x.exp()]).unbind()  # an entry may be written into before it is read
    return leaf * a, leaf + b


def result(x, leaf):
    a, b, c = torch.stack(numbers(x)).unbind()  # results must be tensors of their own
    return a, leaf * b * c


def shown(x, leaf):
    a, b, c = torch.stack(numbers(x)).unbind()
    return a.view(1), leaf * b * c


def longer(x, leaf):
    a, b = torch.stack([x.exp() * leaf[:2], x.sin() * leaf[1:3]]).unbind()
    return a + b


CASES = {taken: 2, whole: 0, given: 0, result: 0, shown: 0, longer: 0}


@needs_compiler
def test_only_stacks_whose_numbers_are_read_one_by_one_are_left_out():
    from torch._inductor.decomposition import select_decomp_table

    for f, expected in CASES.items():
        arguments = torch.tensor(0.7, dtype=torch.float64), torch.linspace(1, 2, 4, dtype=torch.float64)
        module = fx.experimental.proxy_tensor.make_fx(f, decomposition_table=select_decomp_table())(*arguments)
        before = len(module.graph.nodes)
        assert take_apart(module.graph) == expected, f.__name__
        assert (len(module.graph.nodes) < before) == bool(expected)
        module.graph.lint()
        module.recompile()
        assert_trees_close(module(*arguments), f(*arguments), rtol=0, atol=0)


@needs_compiler
def test_compiled_they_are_the_eager_numbers():
    for f in CASES:
        arguments = torch.tensor(0.7, dtype=torch.float64), torch.linspace(1, 2, 4, dtype=torch.float64)
        assert_trees_close(compiled(f, f.__name__)(*arguments), f(*arguments), rtol=1e-14, atol=0)
