"""The runner: one step in its forms, and what each of them hands back."""

import pytest
import torch

import funcopt as fo
from funcopt.execute.donation import write
from funcopt.execute.runner import Form, in_form, runs, updated
from tests.helpers import assert_trees_equal

TX = fo.adam(0.1)


def gradients(params, batch):
    value, grads = (params["w"] * batch[0]).sum(), {"w": batch[0].expand_as(params["w"])}
    return grads, value


def advance(grads, value, params, state, extra):
    return updated(TX, grads, state, params, {"loss": value, **extra})


def first():
    params = {"w": torch.tensor([1.0, -2.0])}
    return params, TX.init(params)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_donated_step_writes_what_a_pure_one_returns(accumulate):
    batch = (torch.tensor([0.5, 0.25]),)
    form = {"accumulate": accumulate, "in_dims": 0}
    params, state, value = runs(gradients, advance, "a step", Form(), **form)(*first(), batch, {})
    held = first()
    pointers = [x.data_ptr() for x in fo.tree.leaves(held)]
    said = runs(gradients, advance, "a step", Form(donate=True), **form)(*held, batch, {})
    assert_trees_equal((*held, said), (params, state, value))
    assert [x.data_ptr() for x in fo.tree.leaves(held)] == pointers


def test_a_donated_result_that_is_an_old_leaf_in_another_place_is_read_before_it_is_overwritten():
    def rotated(params, state, batch, extra):
        return {"a": params["b"], "b": params["a"]}, state, torch.tensor(0.0), [1, 0]

    params = {"a": torch.tensor([1.0]), "b": torch.tensor([2.0])}
    in_form(rotated, "a step", Form(donate=True))(params, (), (), {})
    assert (params["a"].item(), params["b"].item()) == (2.0, 1.0)


def test_where_a_result_comes_from_is_taken_from_whoever_knows():
    """Leaf 0 is said to stay, so that nothing is written there whatever it is."""

    def staying(params, state, batch, extra):
        return [torch.tensor([7.0]), torch.tensor([8.0])], state, torch.tensor(0.0), [0, None]

    params = [torch.tensor([1.0]), torch.tensor([2.0])]
    in_form(staying, "a step", Form(donate=True))(params, (), (), {})
    assert [x.item() for x in params] == [1.0, 8.0]


def test_a_state_of_another_structure_is_refused_in_the_words_of_whoever_runs():
    run = in_form(lambda params, state, batch, extra: (params, (*state, torch.zeros(())), None), "a step", Form(donate=True, where="mine"))
    with pytest.raises(ValueError, match="mine: donate=True needs a state of constant structure, got 2 leaves in place of 1"):
        run(torch.ones(2), (), (), {})


def test_updates_are_made_longer_before_they_are_added():
    params, state = first()
    grads = {"w": torch.tensor([0.5, 0.25])}
    plain, _ = updated(TX, grads, state, params, {})
    longer, _ = updated(TX, grads, state, params, {}, lambda updates: fo.tree.scale(2.0, updates))
    torch.testing.assert_close(longer["w"] - params["w"], 2 * (plain["w"] - params["w"]))


def test_a_tensor_of_another_class_is_written_by_its_own_copy():
    class Mine(torch.Tensor):
        pass

    target = torch.zeros(2).as_subclass(Mine)
    write([target, plain := torch.zeros(1)], [torch.ones(2), torch.ones(1)])
    write([plain], [torch.ones(1)], add=True)
    assert target.sum().item() == 2.0 and plain.item() == 2.0
