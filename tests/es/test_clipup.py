"""ClipUp: by hand, its laws, schedules, ensembles and graphs. (Its recorded steps are in tests/parity/test_es_search.py.)"""

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.func import vmap

import funcopt as fo
from tests.helpers import assert_trees_close, gradients_at, rollout, small_params


def test_by_hand():
    # Gradients (3, 4) and (0, -5), lr 1, m = 1/2, v_max = 1.2: v = -(0.6, 0.8); then (-0.3, 0.6), of length 0.67.
    clip = fo.es.clipup(1.0, 0.5, 1.2)
    state = clip.init(torch.zeros(2, dtype=torch.float64))
    first, state = clip.update(torch.tensor([3.0, 4.0], dtype=torch.float64), state)
    second, state = clip.update(torch.tensor([0.0, -5.0], dtype=torch.float64), state)
    torch.testing.assert_close(first, torch.tensor([-0.6, -0.8], dtype=torch.float64))
    torch.testing.assert_close(second, torch.tensor([-0.3, 0.6], dtype=torch.float64))
    fast, _ = fo.es.clipup(1.0, 0.5, 0.5).update(torch.tensor([3.0, 4.0]), clip.init(torch.zeros(2)))
    torch.testing.assert_close(fast, torch.tensor([-0.3, -0.4]))


@given(scale=st.floats(1e-6, 1e6))
@settings(max_examples=10, deadline=None)
def test_only_the_direction_of_the_gradient_counts(scale):
    clip, params = fo.es.clipup(0.1), small_params()
    plain, scaled = clip.init(params), clip.init(params)
    for step in range(3):
        gradients = gradients_at(step, params)
        ours, plain = clip.update(gradients, plain)
        theirs, scaled = clip.update(fo.tree.scale(scale, gradients), scaled)
    assert_trees_close(ours, theirs)


def test_no_step_is_longer_than_the_limit():
    history, _, _ = rollout(fo.es.clipup(0.1, max_speed=0.15), small_params(), 20)
    assert max(fo.tree.norm(updates) for updates in history) <= 0.15 * (1 + 1e-12)


def test_a_gradient_of_zero_leaves_the_velocity_to_fade():
    clip = fo.es.clipup(0.1, 0.5)
    state = clip.init(torch.zeros(2))
    still, state = clip.update(torch.zeros(2), state)
    assert still.tolist() == [0.0, 0.0]
    moving, state = clip.update(torch.tensor([1.0, 0.0]), state)
    fading, state = clip.update(torch.zeros(2), state)
    torch.testing.assert_close(fading, moving / 2)


def test_a_schedule_says_the_rate():
    clip = fo.es.clipup(lambda count: 0.1 * 0.5**count, momentum=0.0)
    state = clip.init(torch.zeros(1))
    sizes = []
    for _ in range(3):
        updates, state = clip.update(torch.ones(1), state)
        sizes.append(updates.item())
    assert sizes == pytest.approx([-0.1, -0.05, -0.025])


def test_ensembles_graphs_and_dtypes():
    clip = fo.es.clipup(0.1)
    params = torch.zeros(3, 2, dtype=torch.float64)
    gradients = torch.tensor([[1.0, 2.0], [-3.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    together, _ = vmap(clip.update)(gradients, vmap(clip.init)(params))
    apart = torch.stack([clip.update(g, clip.init(p))[0] for g, p in zip(gradients, params, strict=True)])
    torch.testing.assert_close(together, apart)
    compiled = torch.compile(clip.update, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(gradients[0], clip.init(params[0]))[0], apart[0])
    assert clip.update(gradients[0].bfloat16(), clip.init(params[0].bfloat16()))[0].dtype == torch.bfloat16
    assert clip.flattenable


def test_works_in_a_chain_for_any_gradient():
    _, params, _ = rollout(fo.chain(fo.clip(1.0), fo.es.clipup(0.05)), small_params(), 5)
    assert fo.tree.paths(params) == fo.tree.paths(small_params())


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"lr": 0.0}, r"es.clipup: lr must be > 0, got 0.0"),
        ({"lr": 0.1, "momentum": 1.0}, r"es.clipup: momentum must be in \[0, 1\), got 1.0"),
        ({"lr": 0.1, "max_speed": -1.0}, r"es.clipup: max_speed must be > 0, got -1.0"),
    ],
)
def test_says_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        fo.es.clipup(**arguments)
